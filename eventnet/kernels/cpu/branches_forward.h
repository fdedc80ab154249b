// Spikes of a layer of neurons with dendritic branches, as those of lif_forward.h: a window of events at a time, and event by event
// where the bound of the voltage over the window reaches the threshold. The bound of the current is the sum of the branches' bounds.
#pragma once

#include "branches.h"
#include "delayed.h"
#include "lif_forward.h"

namespace eventnet {

// A plan and its factors for each branch.
template <class T, bool Shared>
struct BranchPlan : Plan<T, Shared> {
    using Base = Plan<T, Shared>;
    struct Factors {
        Table<T, Shared> span, to_end, step;
    };

    explicit BranchPlan(const Branches<T>& all) : Base(all.first()), branches(all), more(all.count() - 1) {}

    void cut(double now, bool all, double duration, size_t most, double longest) {
        Base::cut(branches.first(), now, all, duration, most, std::min(longest, Base::kWindowSpan * branches.shortest_tau));
        tabulate();
    }

    void cut_short(double limit) {
        Base::cut_short(branches.first(), limit);
        tabulate();
    }

    void fill_steps(const Window& w) {
        Base::fill_steps(w, branches.first());
        const size_t count = std::max(w.events(), 1);
        for (size_t k = 0; k < more.size(); ++k) copy(this->step, more[k].step, count, k + 1);
    }

    const Table<T, Shared>& span_of(int k) const { return Shared && k ? more[k - 1].span : this->span; }
    const Table<T, Shared>& to_end_of(int k) const { return Shared && k ? more[k - 1].to_end : this->to_end; }
    const Table<T, Shared>& step_of(int k) const { return Shared && k ? more[k - 1].step : this->step; }

private:
    void tabulate() {
        for (size_t k = 0; k < more.size(); ++k) {
            copy(this->span, more[k].span, this->windows.size(), k + 1);
            copy(this->to_end, more[k].to_end, this->windows.back().last, k + 1);
        }
    }

    void copy(const Table<T, Shared>& from, Table<T, Shared>& to, size_t count, size_t k) {
        if constexpr (!Shared) return;
        to.make_room(count);
        std::copy_n(from.s.begin(), count, to.s.begin());
        to.fill(count, branches[static_cast<int>(k)]);
    }

    const Branches<T>& branches;
    std::vector<Factors> more;  // of the branches but for the first
};

template <class T, bool Shared>
class BranchForward {
public:
    BranchForward(const Batch<T>& batch, const Branches<T>& branches, int64_t max_spikes, const Recurrent<T>* recurrent = nullptr)
        : batch_(batch), branches_(branches), layer_(branches.first()), max_spikes_(max_spikes), recurrent_(recurrent) {
        if constexpr (!Shared)
            for (int k = 0; k < branches.count(); ++k) decays_.emplace_back(branches[k]);
    }

    // Spikes of every sample, sorted.
    std::vector<std::vector<Spike>> run(int threads) {
        if (recurrent_) threads = std::min(threads, batch_.size);  // its neurons can't be parted
        const Split parts = split(batch_, layer_.columns, threads);
        std::vector<std::vector<Spike>> found(static_cast<size_t>(batch_.size) * parts.groups());
        parallel_for(parts.jobs(), threads, [&](int job) {
            const int chunk = job / parts.groups(), group = job % parts.groups();
            Worker worker(*this, parts.columns[group], parts.columns[group + 1]);
            for (int b = parts.samples[chunk]; b < parts.samples[chunk + 1]; ++b)
                worker.sample(b, found[static_cast<size_t>(b) * parts.groups() + group]);
        });
        return merged(std::move(found), parts.groups());
    }

private:
    static constexpr int kTile = Shared ? 4 : 1;  // vectors in registers
    static constexpr double kClose = sizeof(T) == 4 ? 1e-8 : 1e-12;  // of the threshold, relative: from there it is one step of Newton's

    struct Worker {
        BranchForward& all;
        const Batch<T>& batch;
        const Branches<T>& branches;
        const Layer<T>& layer;  // of the first branch: what all branches share
        const int begin, end, count, columns;
        BranchPlan<T, Shared> plan;
        Array<T> u, i, next_u, next_i;  // at the start and at the end of the window at hand; currents (K, columns)
        struct Loud {
            int column;
            uint32_t lanes;
        };
        std::vector<Loud> loud;  // vectors with lanes whose bound reached the threshold in it
        size_t num_loud = 0;
        Array<T> packed, packed_next;  // currents (K, lanes) of neurons that are replayed
        BranchedNeuron<T> neuron;
        std::vector<Spike>* out = nullptr;
        size_t expected = 0;  // spikes, from the sample before
        int current_sample = 0;
        int64_t uncounted = 0;
        double foresight = INFINITY;  // where the window at hand has to end, for all that is known: a spike may come back there
        double reach = INFINITY;      // how long a window is worth trying

        Worker(BranchForward& parent, int from, int to)
            : all(parent), batch(parent.batch_), branches(parent.branches_), layer(parent.layer_), begin(from), end(to),
              count(branches.count()), columns(layer.columns), plan(branches), u(columns), i(static_cast<size_t>(count) * columns),
              next_u(columns), next_i(i), loud(columns / kLanes<T> + 1), packed(static_cast<size_t>(count) * kLanes<T>),
              packed_next(packed), neuron(branches) {}

        void sample(int b, std::vector<Spike>& spikes) {
            current_sample = b;
            out = &spikes;
            spikes.reserve(expected);
            std::copy(layer.start.begin(), layer.start.end(), u.begin());
            std::fill(i.begin(), i.end(), T(0));
            Stream<T> stream(batch, layer, b);
            const double duration = batch.duration[b];
            double now = 0;
            reach = INFINITY;
            do {
                now = all.recurrent_ ? one_window(stream, now, duration) : many_windows(stream, now, duration);
            } while (plan.windows.back().events() || plan.windows.back().end < duration);
            expected = spikes.size() + spikes.size() / 8;
            total();
            for (int n = begin; n < std::min(end, layer.num); ++n) {
                bool finite = std::isfinite(u[n]);
                for (int k = 0; k < count; ++k) finite = finite && std::isfinite(i[static_cast<size_t>(k) * columns + n]);
                if (!finite) not_finite(current_sample, n);
            }
        }

        double many_windows(Stream<T>& stream, double now, double duration) {
            stream.look(plan.kArrivals, plan.arrivals);
            stream.pass(plan.arrivals, plan.arrivals.count());
            plan.cut(now, stream.empty(), duration, SIZE_MAX, INFINITY);
            for (size_t w = 0; w < plan.windows.size(); ++w) {
                run(w);
                u.swap(next_u), i.swap(next_i);
            }
            return plan.windows.back().end;
        }

        // A window whose spikes may come back to the layer. If one does so within the window, the window ends there.
        double one_window(Stream<T>& stream, double now, double duration) {
            const Recurrent<T>& recurrent = *all.recurrent_;
            std::vector<Spike>& spikes = *out;
            const size_t before = spikes.size();
            stream.look(plan.kWindowArrivals, plan.arrivals);
            plan.cut(now, true, duration, 1, reach);
            foresight = plan.windows[0].end;
            run(0);
            reach *= 2;
            if (foresight < plan.windows[0].end) {
                reach = 2 * (foresight - now);
                const std::vector<Spike> seen(spikes.begin() + before, spikes.end());
                spikes.resize(before);
                uncounted -= static_cast<int64_t>(seen.size());
                plan.cut_short(foresight);
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
            int column = begin;
            for (; column + kTile * kLanes<T> <= end; column += kTile * kLanes<T>) tile<kTile>(w, column);
            for (; column < end; column += kLanes<T>) tile<1>(w, column);
            if (num_loud) replay_loud(plan.windows[w]);
            if (out->size() - before > 1) std::sort(out->begin() + before, out->end(), earlier);
        }

        // Factors y and k of branch k over the stretch from arrival e to the end of its window, which is short.
        void factors(int k, int e, int column, Vec<T>& y, Vec<T>& kernel) const {
            if constexpr (Shared) {
                const Decay<T> f = plan.to_end_of(k).one(e);
                y = splat(f.y), kernel = splat(f.k);
            } else {
                constexpr int kTerms = Decays<T>::kTerms;
                const T* const c = all.decays_[k].of(column);
                const T s = plan.to_end.s[e];
                y = load(c), kernel = load(c + kTerms * kLanes<T>);
#pragma GCC unroll 16
                for (int n = 1; n < kTerms; ++n) {
                    y = y * s + load(c + n * kLanes<T>);
                    kernel = kernel * s + load(c + (kTerms + n) * kLanes<T>);
                }
            }
        }

        // All events of window w on N vectors of neurons, a branch after the other.
        template <int N>
        __attribute__((noinline)) void tile(size_t w, int column) {
            const Window window = plan.windows[w];
            const bool many = window.events() > 1, arrives = window.events() > 0;
            const Drive<T>* const drives = plan.arrivals.drives.data();
            const T *const ps = &layer.p[column], *const u0s = &u[column];
            const T size = arrives ? drives[window.last - 1].size : T(0);
            Vec<T> voltage[N], strongest[N], bound[N], fade[N];
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v) voltage[v] = strongest[v] = bound[v] = fade[v] = Vec<T>{};
            for (int k = 0; k < count; ++k) {
                const size_t of_branch = static_cast<size_t>(k) * columns + column;
                // what the events but for the last add to the currents at the end, and the largest partial sum of it
                Vec<T> current[N], highest[N];
#pragma GCC unroll 8
                for (int v = 0; v < N; ++v) current[v] = highest[v] = Vec<T>{};
                for (int e = window.first; e + 1 < window.last; ++e) {
                    const T* const row = drives[e].row + of_branch;
                    const T value = drives[e].size;
#pragma GCC unroll 8
                    for (int v = 0; v < N; ++v) {
                        Vec<T> y, kernel;
                        factors(k, e, column + v * kLanes<T>, y, kernel);
                        const Vec<T> drive = load(row + v * kLanes<T>);
                        current[v] += y * value * drive;
                        voltage[v] += kernel * value * drive;
                        highest[v] = max<T>(current[v], highest[v]);
                    }
                }
                const Layer<T>& branch = branches[k];
                const T *const qs = &branch.q[column], *const i0s = &i[of_branch];
                T* const i1s = &next_i[of_branch];
                // the last event arrives at the end; without one, nothing (0 times numbers that are finite)
                const T* const row = arrives ? drives[window.last - 1].row + of_branch : i0s;
#pragma GCC unroll 8
                for (int v = 0; v < N; ++v) {
                    const int at = v * kLanes<T>;
                    const Decay<Vec<T>> f = plan.span_of(k).at(w, load(ps + at), load(qs + at));
                    const Vec<T> i0 = load(i0s + at), top = many ? i0 + highest[v] * plan.span_of(k).growth(w, f.y) : i0;
                    strongest[v] += select<T>(top > T(0), top, top * f.y);
                    if (!many) {
                        const Vec<T> peak = plan.span_of(k).k_max(w, f.k, load(&branch.s_peak[column + at]), load(&branch.k_peak[column + at]));
                        bound[v] += max<T>(i0, Vec<T>{}) * peak;
                    }
                    fade[v] = f.x;
                    voltage[v] += i0 * f.k;
                    store(i1s + at, i0 * f.y + current[v] + size * load(row + at));
                }
            }
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v) {
                const int at = v * kLanes<T>;
                const Vec<T> u0 = load(u0s + at);
                // the voltage relaxes towards the sum of the currents, so it stays below what the largest sum would make of it;
                // and what currents make of it alone is at most the sum of the peaks
                Vec<T> reach = u0 + max<T>(strongest[v] - u0, Vec<T>{}) * (T(1) - fade[v]);
                if (!many) {
                    const Vec<T> peaks = max<T>(u0, Vec<T>{}) + bound[v];
                    reach = select<T>(peaks < reach, peaks, reach);
                }
                store(&next_u[column + at], u0 * fade[v] + voltage[v]);
                const uint32_t lanes = not_less<T>(reach, load(&layer.gap[column + at]));
                loud[num_loud] = {column + at, lanes};
                num_loud += lanes != 0;
            }
        }

        // Packs the loud neurons of all vectors, so that few of them cost as little as one vector.
        void replay_loud(const Window& window) {
            plan.fill_steps(window);
            int neurons[kLanes<T>], packed_count = 0;
            for (size_t k = 0; k < num_loud; ++k)
                for (uint32_t lanes = loud[k].lanes; lanes; lanes &= lanes - 1) {
                    const int n = loud[k].column + __builtin_ctz(lanes);
                    if (n >= layer.num) break;
                    neurons[packed_count++] = n;
                    if (packed_count == kLanes<T>) replay(window, neurons, packed_count), packed_count = 0;
                }
            if (packed_count) replay(window, neurons, packed_count);
            num_loud = 0;
        }

        // The same stretch by stretch, for up to a vector of neurons, wherever they are.
        __attribute__((noinline)) void replay(const Window& window, const int* neurons, int num) {
            const bool tail = window.first == window.last;
            const int stretches = tail ? 1 : window.events();
            for (int k = 0; k < count; ++k) store(&packed[k * kLanes<T>], gather(&i[static_cast<size_t>(k) * columns], neurons, num));
            Vec<T> u0 = gather(u.data(), neurons, num);
            const Vec<T> gap = gather(layer.gap.data(), neurons, num), p = gather(layer.p.data(), neurons, num, T(1));
            const uint32_t all_lanes = (1u << num) - 1;
            for (int s = 0; s < stretches; ++s) {
                const T span = plan.step.s[s];
                const Drive<T>* const drive = tail ? nullptr : &plan.arrivals.drives[window.first + s];
                Vec<T> heard{}, strongest{}, fade{};
                for (int k = 0; k < count; ++k) {
                    const Vec<T> q = Shared ? Vec<T>{} : gather(branches[k].q.data(), neurons, num, T(1));
                    const Decay<Vec<T>> f = plan.step_of(k).at(s, p, q);
                    const Vec<T> i0 = load(&packed[k * kLanes<T>]), i1 = i0 * f.y;
                    fade = f.x, heard += i0 * f.k, strongest += select<T>(i0 > T(0), i0, i1);
                    T arrived[kLanes<T>];
                    store(arrived, i1);
#pragma GCC unroll 1
                    for (int l = 0; drive && l < num; ++l) arrived[l] += drive->size * drive->row[static_cast<size_t>(k) * columns + neurons[l]];
                    store(&packed_next[k * kLanes<T>], load(arrived));
                }
                Vec<T> u1 = u0 * fade + heard;
                const Vec<T> steepest = p * span, part = select<T>(steepest < T(1), steepest, splat(T(1)));
                const Vec<T> reach = u0 + max<T>(strongest - u0, Vec<T>{}) * part;
                if (const uint32_t lanes = all_lanes & not_less<T>(reach, gap)) {
                    const double from = s ? plan.arrivals.times[window.first + s - 1] : window.start;
                    const double until = tail ? window.end : plan.arrivals.times[window.first + s];
                    cross(lanes, neurons, u0, u1, from, until);
                }
                u0 = u1;
                packed.swap(packed_next);
            }
            T end_u[kLanes<T>];
            store(end_u, u0);
#pragma GCC unroll 1
            for (int l = 0; l < num; ++l) {
                next_u[neurons[l]] = end_u[l];
                for (int k = 0; k < count; ++k) next_i[static_cast<size_t>(k) * columns + neurons[l]] = packed[k * kLanes<T> + l];
            }
        }

        static Vec<T> gather(const T* from, const int* places, int num, T rest = 0) {
            T to[kLanes<T>];
            store(to, splat(rest));
#pragma GCC unroll 1
            for (int l = 0; l < num; ++l) to[l] = from[places[l]];
            return load(to);
        }

        // Lanes that may cross the threshold in a stretch: with all their spikes u1, the voltages at its end without a spike, become
        // the true ones.
        __attribute__((noinline)) void cross(uint32_t lanes, const int* neurons, const Vec<T>& u0, Vec<T>& u1, double now, double until) {
            for (; lanes; lanes &= lanes - 1) {
                const int l = __builtin_ctz(lanes), n = neurons[l];
                neuron.be(n);
                neuron.voltage = u0[l];
                bool finite = std::isfinite(neuron.voltage), spikes = false;
                for (int k = 0; k < count; ++k) {
                    neuron.currents()[k] = packed[k * kLanes<T> + l];
                    finite = finite && std::isfinite(neuron.currents()[k]);
                }
                if (!finite) not_finite(current_sample, n);
                double at = now;
                for (double wait; (wait = neuron.crossing(until - at, kClose)) >= 0;) {
                    at = std::min(at + wait, until);
                    emit({at, neuron.spike(wait), n});
                    spikes = true;
                    if (at >= foresight) break;  // the window will end there
                }
                if (spikes) u1[l] = T(neuron.end(until - at));
            }
        }

        void emit(const Spike& spike) {
            out->push_back(spike);
            if (all.recurrent_) foresight = std::min(foresight, spike.time + all.recurrent_->shortest);
            if (++uncounted > 1 << 12) total();
        }

        // Keeps the total of all threads below the limit, also while a single stretch goes on and on.
        void total() {
            if ((all.total_ += uncounted) > all.max_spikes_) throw StormError(std::to_string(current_sample));
            uncounted = 0;
        }
    };

    const Batch<T>& batch_;
    const Branches<T>& branches_;
    const Layer<T>& layer_;
    const int64_t max_spikes_;
    const Recurrent<T>* const recurrent_;
    std::vector<Decays<T>> decays_;  // of each branch, where neurons have time constants of their own
    std::atomic<int64_t> total_{0};
};

}  // namespace eventnet
