// Spikes of a feed-forward layer, event by event but mostly a window of events at a time.
//
// Without a spike a window acts on a neuron linearly: its voltage and current at the end are two weighted sums of the
// weight rows of the window's events, two multiply-adds per event and lane. The running maximum of one of these sums
// bounds the current within the window and so the voltage; only vectors of neurons whose bound reaches the threshold
// replay the window event by event, and only lanes that may cross within a stretch solve for the crossing.
#pragma once

#include <algorithm>
#include <atomic>

#include "batch.h"
#include "parallel.h"

namespace eventnet {

struct Spike {
    double time;
    double current;
    int unit;
};

inline bool earlier(const Spike& a, const Spike& b) { return a.time != b.time ? a.time < b.time : a.unit < b.unit; }

// Those of each sample, sorted, of those of each of its groups of neurons.
inline std::vector<std::vector<Spike>> merged(std::vector<std::vector<Spike>> found, int groups) {
    if (groups == 1) return found;
    std::vector<std::vector<Spike>> all(found.size() / groups);
    for (size_t i = 0; i < found.size(); ++i) {
        auto& sample = all[i / groups];
        const auto middle = sample.insert(sample.end(), found[i].begin(), found[i].end());
        std::inplace_merge(sample.begin(), middle, sample.end(), earlier);
    }
    return all;
}

// What reaches all neurons at once: size * row is added to their currents.
template <class T>
struct Drive {
    const T* row;
    T size;
    bool own;  // a spike of the layer itself
};

// Arrivals in the order of their times.
template <class T>
struct Arrivals {
    std::vector<double> times;
    std::vector<Drive<T>> drives;
    int count() const { return static_cast<int>(times.size()); }
};

// The arrivals of a sample: its events, and what its own spikes send back.
template <class T>
class Stream {
public:
    Stream(const Batch<T>& batch, const Layer<T>& layer, int b)
        : batch_(batch), layer_(layer), duration_(batch.duration[b]), next_(batch.offsets[b]), stop_(batch.counted(b)) {}

    // The next arrivals, at most `most` of them.
    void look(int64_t most, Arrivals<T>& ahead) const {
        const int64_t until = std::min(next_ + most, stop_);
        batch_.times.copy(next_, until, ahead.times);
        ahead.drives.resize(until - next_);
        for (int64_t e = next_; e < until; ++e) ahead.drives[e - next_] = {layer_.row[batch_.units[e]], batch_.value(e), false};
        for (size_t k = head_; k < own_.size(); ++k) {
            const auto place = std::upper_bound(ahead.times.begin(), ahead.times.end(), own_[k].time);
            if (place == ahead.times.end() && until < stop_) break;
            ahead.drives.insert(ahead.drives.begin() + (place - ahead.times.begin()), {own_[k].row, T(1), true});
            ahead.times.insert(place, own_[k].time);
        }
        if (ahead.count() > most) ahead.times.resize(most), ahead.drives.resize(most);
    }

    // The first `count` of them are done with.
    void pass(const Arrivals<T>& ahead, int count) {
        const auto first = ahead.drives.begin();
        const int64_t own = own_.empty() ? 0 : std::count_if(first, first + count, [](const Drive<T>& d) { return d.own; });
        head_ += own, next_ += count - own;
    }

    // A spike of the layer itself will arrive.
    void add(double time, const T* row) {
        if (time >= duration_) return;
        own_.push_back({time, row});
        for (size_t k = own_.size() - 1; k > head_ && own_[k].time < own_[k - 1].time; --k) std::swap(own_[k], own_[k - 1]);
    }

    bool empty() const { return next_ == stop_ && head_ == own_.size(); }

private:
    struct Own {
        double time;
        const T* row;
    };

    const Batch<T>& batch_;
    const Layer<T>& layer_;
    const double duration_;
    int64_t next_, stop_;
    std::vector<Own> own_;  // from head_ on they have not arrived yet
    size_t head_ = 0;
};

// Arrivals [first, last), in (start, end]; the last one is at `end`. Without arrivals: a stretch up to the end of the trial,
// or up to where a recurrent spike may first arrive.
struct Window {
    int first, last;
    double start, end;
    int events() const { return last - first; }
};

// Windows over the next arrivals of a sample, and the decay factors inside them.
template <class T, bool Shared>
struct Plan {
    static constexpr int kArrivals = 512;       // at once: bounds the memory
    static constexpr int kWindowArrivals = 24;
    static constexpr double kWindowSpan = 0.3;  // of the shortest time constant: keeps bounds tight and growing exponentials small

    Arrivals<T> arrivals;
    std::vector<Window> windows;
    Table<T, Shared> span;    // start to end of window w
    Table<T, Shared> to_end;  // arrival e to the end of its window
    Table<T, Shared> step;    // from arrival to arrival, or to the end, in one window: see fill_steps

    explicit Plan(const Layer<T>& layer) : layer_(layer), longest_(kWindowSpan * layer.shortest_tau()) {}

    // Cuts windows, at most `most`, from `now` on; the last is that to the end of the trial if no arrival is left but these.
    void cut(double now, bool all, double duration, size_t most, double longest = INFINITY) {
        windows.clear();
        longest = std::min(longest, longest_);
        const int count = arrivals.count();
        const double* const times = arrivals.times.data();
        for (int e = 0; e < count && windows.size() < most;) {
            int last = e + 1;
            const int limit = std::min(count, e + kWindowArrivals);
            while (last < limit && times[last] - now <= longest) ++last;
            windows.push_back({e, last, now, times[last - 1]});
            now = windows.back().end;
            e = last;
        }
        if (all && windows.size() < most) windows.push_back({count, count, now, duration});
        tabulate();
    }

    // The one window there is, up to its last arrival at or before `limit`, or to there if there is none.
    void cut_short(double limit) {
        Window& window = windows.front();
        while (window.last > window.first && arrivals.times[window.last - 1] > limit) --window.last;
        window.end = window.events() ? arrivals.times[window.last - 1] : limit;
        tabulate();
    }

    // Factors of the steps within window w: only where some neuron is near its threshold.
    void fill_steps(const Window& w) {
        const int num = w.events();
        const double* const times = arrivals.times.data() + w.first;
        step.make_room(num + 1);
        for (int k = 0; k < num; ++k) step.s[k] = T(times[k] - (k ? times[k - 1] : w.start));
        if (!num) step.s[0] = T(w.end - w.start);
        step.fill(std::max(num, 1), layer_);
    }

private:
    void tabulate() {
        span.make_room(windows.size());
        to_end.make_room(arrivals.count());
        const double* const times = arrivals.times.data();
        for (size_t w = 0; w < windows.size(); ++w) {
            const Window& window = windows[w];
            span.s[w] = T(window.end - window.start);
            for (int e = window.first; e < window.last; ++e) to_end.s[e] = T(window.end - times[e]);
        }
        span.fill(windows.size(), layer_);
        to_end.fill(windows.back().last, layer_);
    }

    const Layer<T>& layer_;
    const double longest_;
};

// What the workers of a layer share.
template <class T>
struct Task {
    const Batch<T>& batch;
    const Layer<T>& layer;
    const int64_t max_spikes;
    const Recurrent<T>* const recurrent;
    std::atomic<int64_t> spikes{0};  // of all threads
};

// Neurons of the columns [begin, end) through a sample, window by window. A worker adds how it gets them to the end of a window:
//   run(w)           all of them by the sums of window w; those whose bound reaches the threshold it puts on the list of the loud
//   replay(w, n, k)  the k neurons n stretch by stretch
template <class Worker, class T, class Plan>
struct Windowed {
    Task<T>& task;
    const Layer<T>& layer;
    const int begin, end;
    Plan plan;
    Array<T> u, i, next_u, next_i;  // at the start and at the end of the window at hand; currents of each branch, (K, columns)
    struct Loud {
        int column;
        uint32_t lanes;
    };
    std::vector<Loud> loud;  // vectors with lanes whose bound reached the threshold in it
    size_t num_loud = 0;
    std::vector<Spike>* out = nullptr;
    size_t expected = 0;  // spikes, from the sample before
    int current_sample = 0;
    int64_t uncounted = 0;
    double foresight = INFINITY;  // where the window at hand has to end, for all that is known: a spike may come back there
    double reach = INFINITY;      // how long a window is worth trying

    template <class Planned>
    Windowed(Task<T>& all, const Planned& planned, int branches, int from, int to)
        : task(all), layer(all.layer), begin(from), end(to), plan(planned), u(layer.columns), i(static_cast<size_t>(branches) * layer.columns),
          next_u(u), next_i(i), loud(layer.columns / kLanes<T> + 1) {}

    void sample(int b, std::vector<Spike>& spikes) {
        current_sample = b;
        out = &spikes;
        spikes.reserve(expected);
        std::copy(layer.start.begin(), layer.start.end(), u.begin());
        std::fill(i.begin(), i.end(), T(0));
        Stream<T> stream(task.batch, layer, b);
        const double duration = task.batch.duration[b];
        double now = 0;
        reach = INFINITY;
        do {
            now = task.recurrent ? one_window(stream, now, duration) : many_windows(stream, now, duration);
        } while (plan.windows.back().events() || plan.windows.back().end < duration);
        expected = spikes.size() + spikes.size() / 8;
        count();
        for (int n = begin; n < std::min(end, layer.num); ++n) {
            bool finite = std::isfinite(u[n]);
            for (size_t at = n; at < i.size(); at += layer.columns) finite = finite && std::isfinite(i[at]);
            if (!finite) not_finite(current_sample, n);
        }
    }

    double many_windows(Stream<T>& stream, double now, double duration) {
        stream.look(plan.kArrivals, plan.arrivals);
        stream.pass(plan.arrivals, plan.arrivals.count());
        plan.cut(now, stream.empty(), duration, SIZE_MAX);
        for (size_t w = 0; w < plan.windows.size(); ++w) {
            run(w);
            u.swap(next_u), i.swap(next_i);
        }
        return plan.windows.back().end;
    }

    // A window whose spikes may come back to the layer. If one does so within the window, the window ends there.
    double one_window(Stream<T>& stream, double now, double duration) {
        const Recurrent<T>& recurrent = *task.recurrent;
        std::vector<Spike>& spikes = *out;
        const size_t before = spikes.size();
        stream.look(plan.kWindowArrivals, plan.arrivals);
        plan.cut(now, true, duration, 1, reach);
        foresight = plan.windows[0].end;
        run(0);
        reach *= 2;
        if (foresight < plan.windows[0].end) {
            const double limit = foresight;
            reach = 2 * (limit - now);
            const std::vector<Spike> seen(spikes.begin() + before, spikes.end());
            spikes.resize(before);
            uncounted -= static_cast<int64_t>(seen.size());
            plan.cut_short(limit);
            run(0);
            // without delay a spike may be at the very end, where rounding decides whether it is found again
            for (const Spike& spike : seen) {
                const auto same = [&](const Spike& other) { return other.unit == spike.unit; };
                if (spike.time != plan.windows[0].end || std::any_of(spikes.begin() + before, spikes.end(), same)) continue;
                spikes.push_back(spike), ++uncounted;
                next_u[spike.unit] = layer.rise[spike.unit];
            }
        }
        u.swap(next_u), i.swap(next_i);
        const Window& window = plan.windows[0];
        stream.pass(plan.arrivals, window.events());
        for (size_t k = before; k < spikes.size(); ++k)
            stream.add(std::max(spikes[k].time + recurrent.delay[spikes[k].unit], window.end), recurrent.weight[spikes[k].unit]);
        return window.end;
    }

    // All neurons from the start to the end of window w.
    void run(size_t w) {
        const size_t before = out->size();
        static_cast<Worker*>(this)->tiles(w);
        if (num_loud) replay_loud(plan.windows[w]);
        if (out->size() - before > 1) std::sort(out->begin() + before, out->end(), earlier);
    }

    // Packs the loud neurons of all vectors, so that few of them cost as little as one vector.
    void replay_loud(const Window& window) {
        plan.fill_steps(window);
        int neurons[kLanes<T>], packed = 0;
        for (size_t k = 0; k < num_loud; ++k)
            for (uint32_t lanes = loud[k].lanes; lanes; lanes &= lanes - 1) {
                const int n = loud[k].column + __builtin_ctz(lanes);
                if (n >= layer.num) break;
                neurons[packed++] = n;
                if (packed == kLanes<T>) static_cast<Worker*>(this)->replay(window, neurons, packed), packed = 0;
            }
        if (packed) static_cast<Worker*>(this)->replay(window, neurons, packed);
        num_loud = 0;
    }

    static Vec<T> gather(const T* from, const int* places, int num, T rest = 0) {
        T to[kLanes<T>];
        store(to, splat(rest));
#pragma GCC unroll 1
        for (int l = 0; l < num; ++l) to[l] = from[places[l]];
        return load(to);
    }

    void emit(const Spike& spike) {
        out->push_back(spike);
        if (task.recurrent) foresight = std::min(foresight, spike.time + task.recurrent->shortest);
        if (++uncounted > 1 << 12) count();
    }

    // Keeps the total of all threads below the limit, also while a single stretch goes on and on.
    void count() {
        if ((task.spikes += uncounted) > task.max_spikes) throw StormError(std::to_string(current_sample));
        uncounted = 0;
    }
};

// Spikes of every sample, sorted, by workers made for ranges of columns.
template <class T, class Make>
std::vector<std::vector<Spike>> spikes_of(const Task<T>& task, int threads, const Make& make) {
    const Batch<T>& batch = task.batch;
    if (task.recurrent) threads = std::min(threads, batch.size);  // its neurons can't be parted
    const Split parts = split(batch, task.layer.columns, threads);
    std::vector<std::vector<Spike>> found(static_cast<size_t>(batch.size) * parts.groups());
    parallel_for(parts.jobs(), threads, [&](int job) {
        const int chunk = job / parts.groups(), group = job % parts.groups();
        auto worker = make(parts.columns[group], parts.columns[group + 1]);
        for (int b = parts.samples[chunk]; b < parts.samples[chunk + 1]; ++b)
            worker.sample(b, found[static_cast<size_t>(b) * parts.groups() + group]);
    });
    return merged(std::move(found), parts.groups());
}

template <class T, bool Shared>
class LifForward {
public:
    LifForward(const Batch<T>& batch, const Layer<T>& layer, int64_t max_spikes, const Recurrent<T>* recurrent = nullptr)
        : task_{batch, layer, max_spikes, recurrent} {}

    // Spikes of every sample, sorted.
    std::vector<std::vector<Spike>> run(int threads) {
        return spikes_of(task_, threads, [&](int begin, int end) { return Worker(task_, begin, end); });
    }

private:
    static constexpr int kTile = kVectorBytes == 64 ? 8 : 4;  // vectors in registers

    // Newton's method stops one step after the voltage is this close to the threshold, relative: then rounding is left.
    static constexpr double kClose = sizeof(T) == 4 ? 1e-6 : 1e-12;

    struct Worker : Windowed<Worker, T, Plan<T, Shared>> {
        using Base = Windowed<Worker, T, Plan<T, Shared>>;
        using Base::layer, Base::begin, Base::end, Base::plan, Base::u, Base::i, Base::next_u, Base::next_i, Base::loud, Base::num_loud;
        using Base::current_sample, Base::foresight, Base::emit, Base::gather;

        Worker(Task<T>& task, int from, int to) : Base(task, task.layer, 1, from, to) {}

        void tiles(size_t w) {
            int column = begin;
            for (; column + kTile * kLanes<T> <= end; column += kTile * kLanes<T>) tile<kTile>(w, column);
            for (; column + 2 * kLanes<T> <= end; column += 2 * kLanes<T>) tile<2>(w, column);
            for (; column < end; column += kLanes<T>) tile<1>(w, column);
        }

        // All events of window w on N vectors of neurons. The sums live in registers: hence local arrays and unrolling.
        template <int N>
        __attribute__((noinline)) void tile(size_t w, int column) {
            const Window window = plan.windows[w];
            const T *const ps = &layer.p[column], *const qs = &layer.q[column];
            // what the events but for the last add to currents and voltages at the end, and the largest partial sum of currents
            Vec<T> current[N], voltage[N], highest[N];
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v) current[v] = voltage[v] = highest[v] = Vec<T>{};
            const Drive<T>* const drives = plan.arrivals.drives.data();
            for (int e = window.first; e + 1 < window.last; ++e) {
                const T* row = drives[e].row + column;
                const T size = drives[e].size;
#pragma GCC unroll 8
                for (int v = 0; v < N; ++v) {
                    const Decay<Vec<T>> f = plan.to_end.at(e, load(ps + v * kLanes<T>), load(qs + v * kLanes<T>));
                    const Vec<T> drive = load(row + v * kLanes<T>);
                    current[v] += f.y * size * drive;
                    voltage[v] += f.k * size * drive;
                    highest[v] = max<T>(current[v], highest[v]);
                }
            }
            const bool many = window.events() > 1, arrives = window.events() > 0;
            // all that is read more than once is local: otherwise every store might change it, for all that the compiler knows
            const T *const u0s = u.data(), *const i0s = i.data(), *const gaps = layer.gap.data();
            T *const u1s = next_u.data(), *const i1s = next_i.data();
            // the last event arrives at the end; without one, nothing (0 times numbers that are finite)
            const T size = arrives ? drives[window.last - 1].size : T(0);
            const T* const row = arrives ? drives[window.last - 1].row : u0s;
            typename Base::Loud* const list = loud.data();
            size_t count = num_loud;
            Decay<Vec<T>> f = plan.span.at(w, load(ps), load(qs));
            Vec<T> growth = plan.span.growth(w, f.y);
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v) {
                const int at = column + v * kLanes<T>;
                if (!Shared && v) f = plan.span.at(w, load(ps + v * kLanes<T>), load(qs + v * kLanes<T>)), growth = plan.span.growth(w, f.y);
                const Vec<T> u0 = load(u0s + at), i0 = load(i0s + at);
                // The voltage relaxes towards the current, so it stays below what the largest current would make of it.
                Vec<T> strongest = max<T>(i0, Vec<T>{}), reach;
                if (many) {
                    strongest = max<T>(i0 + highest[v] * growth, strongest);
                    reach = u0 + max<T>(strongest - u0, Vec<T>{}) * (T(1) - f.x);
                } else {
                    reach = max<T>(u0, Vec<T>{}) + strongest * plan.span.k_max(w, f.k, load(&layer.s_peak[at]), load(&layer.k_peak[at]));
                }
                store(u1s + at, u0 * f.x + i0 * f.k + voltage[v]);
                store(i1s + at, i0 * f.y + current[v] + size * load(row + at));
                const uint32_t lanes = not_less<T>(reach, load(gaps + at));
                list[count] = {at, lanes};  // without a branch: it would be mispredicted
                count += lanes != 0;
            }
            num_loud = count;
        }

        // The same stretch by stretch, for up to a vector of neurons, wherever they are.
        __attribute__((noinline)) void replay(const Window& window, const int* neurons, int count) {
            const bool tail = window.first == window.last;
            const int stretches = tail ? 1 : window.events();
            T drive[Plan<T, Shared>::kWindowArrivals][kLanes<T>];
            for (int k = 0; k < stretches; ++k) {
                store(drive[k], Vec<T>{});
                if (tail) break;
                const auto& [row, size, own] = plan.arrivals.drives[window.first + k];
#pragma GCC unroll 1
                for (int l = 0; l < count; ++l) drive[k][l] = size * row[neurons[l]];
            }
            Vec<T> u0 = gather(u.data(), neurons, count), i0 = gather(i.data(), neurons, count);
            const Vec<T> gap = gather(layer.gap.data(), neurons, count);
            const Vec<T> p = Shared ? splat(layer.p[0]) : gather(layer.p.data(), neurons, count, T(1));
            const Vec<T> q = Shared ? splat(layer.q[0]) : gather(layer.q.data(), neurons, count, T(1));
            const uint32_t all_lanes = (1u << count) - 1;
            for (int k = 0; k < stretches; ++k) {
                const T span = plan.step.s[k];
                const Decay<Vec<T>> f = plan.step.at(k, p, q);
                // a voltage that rises is concave and stays below its tangent; towards rest it rises no faster than exponentially
                const Vec<T> reach = u0 + max<T>(max<T>(i0, Vec<T>{}) - u0, Vec<T>{}) * (p * span);
                Vec<T> u1 = u0 * f.x + i0 * f.k;
                if (const uint32_t lanes = all_lanes & not_less<T>(reach, gap)) {
                    const double now = k ? plan.arrivals.times[window.first + k - 1] : window.start;
                    const double until = tail ? window.end : plan.arrivals.times[window.first + k];
                    if (span < layer.brief) cross_brief(lanes, neurons, u0, i0, u1, now, until);
                    else cross(lanes, neurons, u0, i0, u1, now, until);
                }
                u0 = u1, i0 = i0 * f.y + load(drive[k]);
            }
            T end_u[kLanes<T>], end_i[kLanes<T>];
            store(end_u, u0), store(end_i, i0);
#pragma GCC unroll 1
            for (int l = 0; l < count; ++l) next_u[neurons[l]] = end_u[l], next_i[neurons[l]] = end_i[l];
        }

        // Lanes that may cross the threshold in a stretch so short that a few terms of the voltage's series are exact: with all
        // their spikes u1, the voltages at its end without a spike, become the true ones.
        __attribute__((noinline)) void cross_brief(uint32_t lanes, const int* neurons, const Vec<T>& u0, const Vec<T>& i0, Vec<T>& u1,
                                                   double now, double until) {
            for (; lanes; lanes &= lanes - 1) {
                const int l = __builtin_ctz(lanes), n = neurons[l];
                const Neuron& neuron = layer.neurons[n];
                const Series<T>& series = layer.series[layer.shared ? 0 : n];
                double at = now, u = u0[l], i = i0[l];
                if (!std::isfinite(u) || !std::isfinite(i)) not_finite(current_sample, n);
                // rising towards a bias above the threshold while the current falls: not concave
                if (i <= 0 && neuron.gap < 0) return cross(lanes, neurons, u0, i0, u1, now, until);
                for (double wait; (wait = series.crossing(u, i, until - at, neuron.gap, kClose)) >= 0;) {
                    at = std::min(at + wait, until);
                    u = neuron.rise;
                    u1[l] = T(series.voltage(u, i, until - at));
                    emit({at, i, n});
                    if (at >= foresight) break;  // the window will end there
                }
            }
        }

        // The same in a stretch of any length.
        __attribute__((noinline)) void cross(uint32_t lanes, const int* neurons, Vec<T> u0, Vec<T> i0, Vec<T>& u1, double now, double until) {
            const int num = 32 - __builtin_clz(lanes);
            const Vec<T> gap = gather(layer.gap.data(), neurons, num), rise = gather(layer.rise.data(), neurons, num);
            const Vec<T> p = gather(layer.p.data(), neurons, num, T(1)), q = gather(layer.q.data(), neurons, num, T(1));
            const Vec<T> s_peak = gather(layer.s_peak.data(), neurons, num), k_peak = gather(layer.k_peak.data(), neurons, num);
            double at[kLanes<T>];
            std::fill_n(at, kLanes<T>, now);
            Vec<T> left = splat(T(until - now));
            Decay<Vec<T>> f = decay<T>(left, p, q);
            const Vec<T> i1 = i0 * f.y;  // spikes leave the current alone
            while (true) {
                // none of a neuron's past and of its current can make more than this of its voltage
                const Vec<T> most = select<T>(left < s_peak, f.k, k_peak);
                lanes &= not_less<T>(max<T>(u0, Vec<T>{}) + max<T>(i0, Vec<T>{}) * most, gap);
                if (!lanes) break;
                Vec<T> s{}, i_at = i0;
                uint32_t unsettled = lanes;  // one or two are solved faster one by one
                uint32_t hits = 0;
                if (__builtin_popcount(lanes) > 2) hits = climb(lanes, u0, i0, left, gap, p, q, s, i_at, unsettled);
                for (; unsettled; unsettled &= unsettled - 1) {
                    const int l = __builtin_ctz(unsettled);
                    const Neuron& neuron = layer.neurons[neurons[l]];
                    if (!std::isfinite(u0[l]) || !std::isfinite(i0[l])) not_finite(current_sample, neurons[l]);
                    double current = i0[l];
                    const double wait = neuron.crossing(u0[l], current, u1[l], i1[l], until - at[l], kClose);
                    if (wait < 0) continue;
                    s[l] = T(wait), i_at[l] = T(current);
                    hits |= 1u << l;
                }
                T waits[kLanes<T>], currents[kLanes<T>];
                store(waits, s), store(currents, i_at);
                uint32_t done = 0;
                for (uint32_t rest = hits; rest; rest &= rest - 1) {
                    const int l = __builtin_ctz(rest);
                    at[l] = std::min(at[l] + waits[l], until);
                    emit({at[l], currents[l], neurons[l]});
                    if (at[l] >= foresight) done |= 1u << l;  // the window will end there
                }
                const IntVec<T> hit = mask<T>(hits);
                left = max<T>(left - s, Vec<T>{});
                f = decay<T>(left, p, q);
                u0 = select<T>(hit, rise, u0), i0 = select<T>(hit, i_at, i0);
                u1 = select<T>(hit, u0 * f.x + i0 * f.k, u1);
                lanes = hits & ~done;
            }
        }

        // First crossings s of many lanes at once, and the currents there. Up to its peak, or to the end of the stretch if that
        // comes first, a voltage that rises is concave; it crosses there or not at all. Newton's method starts from the root of
        // the parabola through both ends. Lanes that this can't decide are left unsettled.
        static uint32_t climb(uint32_t lanes, Vec<T> u, Vec<T> i, Vec<T> left, Vec<T> gap, Vec<T> p, Vec<T> q, Vec<T>& s,
                              Vec<T>& i_at, uint32_t& unsettled) {
            const Vec<T> zero{}, tm = T(1) / p, ts = T(1) / q, apart = tm - ts;
            const Vec<T> below = ts + u / i * apart;  // without peak: not positive
            const Vec<T> peak = tm * ts / apart * log<T>(tm / max<T>(below, splat(std::numeric_limits<T>::min())));
            const Vec<T> end = select<T>((below > zero) & (peak < left), peak, left);
            const uint32_t clear = lanes & bits<T>((u < gap) & (i > zero) & (max<T>(apart, -apart) > T(1e-3) * tm));
            const uint32_t rising = clear & bits<T>(i > u);
            unsettled = lanes & ~clear;
            Decay<Vec<T>> f = decay<T>(end, p, q);
            const Vec<T> missing = gap - u, top = u * f.x + i * f.k, speed = (i - u) * p, bend = (top - u - speed * end) / (end * end);
            const Vec<T> close = T(kClose) * (max<T>(gap, -gap) + max<T>(u, -u) + i);
            uint32_t found = 0, open = rising & bits<T>(top >= gap);
            Vec<T> t = T(2) * missing / (speed + square_root<T>(max<T>(speed * speed + T(4) * bend * missing, zero)));
            for (int step = 0; step < 8 && open; ++step) {
                t = max<T>(select<T>(t < end, t, end), zero);
                f = decay<T>(t, p, q);
                const Vec<T> at = u * f.x + i * f.k, short_of = gap - at, slope = (i * f.y - at) * p;
                t += short_of / slope;
                const uint32_t arrived = open & bits<T>((max<T>(short_of, -short_of) <= close) & (slope > zero));
                s = select<T>(mask<T>(arrived), max<T>(select<T>(t < end, t, end), zero), s);
                found |= arrived, open &= ~arrived;
            }
            unsettled |= open;
            i_at = select<T>(mask<T>(found), i * exp(-s * q), i_at);
            return found;
        }
    };

    Task<T> task_;
};

}  // namespace eventnet
