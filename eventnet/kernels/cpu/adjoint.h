// The backward sweep: costates (r, v) = dL/d(current, voltage) run through the events in reverse.
//
// Between marks the costates are closed forms, so this pass looks for no thresholds: with (r, v) at the end of a window,
// every event in it sees r e^{-s/ts} + v K(s). A mark is where a neuron's voltage costate changes: at its own spike
// v <- gain v + push with gain = V'(after)/V'(before), push = -dL/dt / V'(before); where its voltage is read, gain = 1.
// Lanes with marks in a window are replayed mark by mark, all others are two multiply-adds per event.
//
// Gradients in the time constants ride along as the derivatives (a, c) of (v, r) in tau_mem and d of r in tau_syn.
#pragma once

#include <algorithm>

#include "batch.h"
#include "parallel.h"

namespace eventnet {

struct Mark {
    double time, gain, push;
    int unit;
};

// Sums over the batch, for each neuron.
enum Sum { kBefore, kAfter, kAfterTau, kStart, kStartTau, kTauMem, kTauSyn, kSums };

template <class T>
struct Gradients {
    T* weight = nullptr;       // (in, N)
    double* sums = nullptr;    // (kSums, N)
    double* times = nullptr;   // (E,) or null
    double* values = nullptr;  // (E,) or null
};

template <class T, bool Shared>
class Adjoint {
public:
    // marks[b] of each sample, sorted by time. Spikes replace v (`spiking`): then nothing of `a` passes them.
    Adjoint(const Batch<T>& batch, const Layer<T>& layer, const std::vector<std::vector<Mark>>& marks, bool spiking,
            bool with_taus)
        : batch_(batch), layer_(layer), marks_(marks), spiking_(spiking), with_taus_(with_taus),
          longest_(kWindowSpan * layer.shortest_tau()) {}

    void run(Gradients<T> out, int threads) {
        const Split parts = split(batch_, layer_.columns, threads);
        const size_t columns = layer_.columns;
        std::vector<std::vector<T>> weight(parts.chunks());
        std::vector<std::vector<double>> sums(parts.chunks());
        std::vector<std::vector<double>> times(parts.groups()), values(parts.groups());
        const size_t events = batch_.offsets[batch_.size];
        for (auto& sum : sums) sum.assign(kSums * columns, 0.0);
        for (auto& part : times) if (out.times) part.assign(events, 0.0);
        for (auto& part : values) if (out.values) part.assign(events, 0.0);
        for (auto& part : weight) part.resize(batch_.inputs * columns);
        parallel_for(parts.jobs(), threads, [&](int job) {
            const int chunk = job / parts.groups(), group = job % parts.groups();
            const int from = parts.columns[group], to = parts.columns[group + 1];
            for (int j = 0; j < batch_.inputs; ++j) std::fill_n(&weight[chunk][j * columns + from], to - from, T(0));
            Worker worker(*this, from, to, weight[chunk].data(), sums[chunk].data(),
                          out.times ? times[group].data() : nullptr, out.values ? values[group].data() : nullptr);
            for (int b = parts.samples[chunk]; b < parts.samples[chunk + 1]; ++b) worker.sample(b);
        });
        // parts are added in a fixed order: runs repeat bit for bit
        parallel_for(threads, threads, [&](int t) {
            for (size_t j = size_t(batch_.inputs) * t / threads; j < size_t(batch_.inputs) * (t + 1) / threads; ++j)
                for (int n = 0; n < layer_.num; ++n) {
                    T total = weight[0][j * columns + n];
                    for (int c = 1; c < parts.chunks(); ++c) total += weight[c][j * columns + n];
                    out.weight[j * layer_.num + n] = total;
                }
        });
        for (int k = 0; k < kSums; ++k)
            for (int n = 0; n < layer_.num; ++n)
                for (const auto& sum : sums) out.sums[k * layer_.num + n] += sum[k * columns + n];
        for (const auto& part : times) for (size_t e = 0; e < part.size(); ++e) out.times[e] += part[e];
        for (const auto& part : values) for (size_t e = 0; e < part.size(); ++e) out.values[e] += part[e];
    }

private:
    static constexpr int kTile = 4;

    struct State {
        double r, v, a, c, d;
    };

    struct Worker {
        const Adjoint& all;
        const Batch<T>& batch;
        const Layer<T>& layer;
        const int begin, end;
        T* weight;
        double *sums, *times, *values;
        const bool with_inputs;
        Plan<T, Shared> plan;
        std::vector<T> r, v, a, c, d, tau_mem, tau_syn;
        std::vector<Mark> here;  // marks of the window at hand, by unit, latest first

        Worker(const Adjoint& parent, int from, int to, T* weight_part, double* sum_part, double* time_part, double* value_part)
            : all(parent), batch(parent.batch_), layer(parent.layer_), begin(from), end(to), weight(weight_part),
              sums(sum_part), times(time_part), values(value_part), with_inputs(time_part || value_part) {
            for (auto* x : {&r, &v, &a, &c, &d, &tau_mem, &tau_syn}) x->resize(layer.columns);
        }

        void sample(int b) {
            const std::vector<Mark>& marks = all.marks_[b];
            if (marks.empty()) return;
            plan.make(batch, layer, b, all.longest_, false, all.with_taus_);
            for (auto* x : {&r, &v, &a, &c, &d, &tau_mem, &tau_syn}) std::fill(x->begin() + begin, x->begin() + end, T(0));
            size_t next = marks.size();
            bool started = false;
            for (size_t w = plan.windows.size(); w-- > 0;) {
                const double start = w ? plan.windows[w].start : -1;
                here.clear();
                for (; next > 0 && marks[next - 1].time > start; --next)
                    if (marks[next - 1].unit >= begin && marks[next - 1].unit < end) here.push_back(marks[next - 1]);
                started = started || !here.empty();
                if (!started) continue;  // nothing after this window: all costates are zero
                window(w);
            }
            for (int n = begin; n < std::min(end, layer.num); ++n) {
                add(kStart, n, v[n]);
                if (!all.with_taus_) continue;
                add(kStartTau, n, a[n]);
                add(kTauMem, n, tau_mem[n]);
                add(kTauSyn, n, tau_syn[n]);
            }
        }

        void add(Sum k, int n, double x) { sums[static_cast<size_t>(k) * layer.columns + n] += x; }

        void window(size_t w) {
            // marked lanes leave the vectors for this window and come back with their state at its start
            std::stable_sort(here.begin(), here.end(), [](const Mark& x, const Mark& y) { return x.unit < y.unit; });
            std::vector<std::pair<int, State>>& replayed = replayed_;
            replayed.clear();
            for (size_t m = 0; m < here.size();) {
                size_t stop = m;
                while (stop < here.size() && here[stop].unit == here[m].unit) ++stop;
                const int n = here[m].unit;
                replayed.emplace_back(n, lane(w, n, m, stop));
                r[n] = v[n] = T(0);
                if (all.with_taus_) a[n] = c[n] = d[n] = T(0);
                m = stop;
            }
            int column = begin;
            if (all.with_taus_) {
                for (; column < end; column += kLanes<T>) tile<1, true, true>(w, column);
            } else if (with_inputs) {
                for (; column + kTile * kLanes<T> <= end; column += kTile * kLanes<T>) tile<kTile, true, false>(w, column);
                for (; column < end; column += kLanes<T>) tile<1, true, false>(w, column);
            } else {
                for (; column + kTile * kLanes<T> <= end; column += kTile * kLanes<T>) tile<kTile, false, false>(w, column);
                for (; column < end; column += kLanes<T>) tile<1, false, false>(w, column);
            }
            for (const auto& [n, state] : replayed) {
                r[n] = T(state.r), v[n] = T(state.v);
                if (all.with_taus_) a[n] = T(state.a), c[n] = T(state.c), d[n] = T(state.d);
            }
        }

        template <int N, bool Inputs, bool Taus>
        void tile(size_t w, int column) {
            const Window& window = plan.windows[w];
            Vec<T> r1[N], v1[N];
            IntVec<T> live{};
            for (int k = 0; k < N; ++k) {
                const int at = column + k * kLanes<T>;
                r1[k] = load(&r[at]), v1[k] = load(&v[at]);
                live |= (r1[k] != T(0)) | (v1[k] != T(0));
                if (Taus) live |= (load(&a[at]) != T(0)) | (load(&c[at]) != T(0)) | (load(&d[at]) != T(0));
            }
            if (!bits<T>(live)) return;
            for (int64_t e = window.first; e < window.last; ++e) {
                const size_t row = static_cast<size_t>(batch.units[e]) * layer.columns + column;
                const T size = batch.value(e);
                Vec<T> time_slope{}, value_slope{};
                for (int k = 0; k < N; ++k) {
                    const int at = column + k * kLanes<T>;
                    const Decay<Vec<T>> f = plan.to_end.at(e - plan.first, layer, at);
                    const Vec<T> seen = r1[k] * f.y + v1[k] * f.k;
                    T* target = weight + row + k * kLanes<T>;
                    store(target, load(target) + size * seen);
                    if constexpr (Inputs) {
                        const Vec<T> w0 = load(layer.weight + row + k * kLanes<T>);
                        time_slope += w0 * (seen * load(&layer.q[at]) - v1[k] * f.x * load(&layer.p[at]));
                        value_slope += w0 * seen;
                    }
                    if constexpr (Taus) {
                        const TauSlope<Vec<T>> g = plan.to_end.slope_at(e - plan.first, layer, at);
                        const Vec<T> w0 = size * load(layer.weight + row + k * kLanes<T>);
                        const Vec<T> a1 = load(&a[at]), c1 = load(&c[at]), d1 = load(&d[at]);
                        store(&tau_mem[at], load(&tau_mem[at]) + w0 * (c1 * f.y + a1 * f.k + v1[k] * g.k_tm));
                        store(&tau_syn[at], load(&tau_syn[at]) + w0 * (d1 * f.y + r1[k] * g.y_ts + v1[k] * g.k_ts));
                    }
                }
                if constexpr (Inputs) input(e, double(sum<T>(time_slope)) * size, sum<T>(value_slope));
            }
            for (int k = 0; k < N; ++k) {
                const int at = column + k * kLanes<T>;
                const Decay<Vec<T>> f = plan.span.at(w, layer, at);
                store(&r[at], r1[k] * f.y + v1[k] * f.k);
                store(&v[at], v1[k] * f.x);
                if constexpr (Taus) {
                    const TauSlope<Vec<T>> g = plan.span.slope_at(w, layer, at);
                    const Vec<T> a1 = load(&a[at]), c1 = load(&c[at]), d1 = load(&d[at]);
                    store(&a[at], a1 * f.x + v1[k] * g.x_tm);
                    store(&c[at], c1 * f.y + a1 * f.k + v1[k] * g.k_tm);
                    store(&d[at], d1 * f.y + r1[k] * g.y_ts + v1[k] * g.k_ts);
                }
            }
        }

        void input(int64_t e, double time_slope, double value_slope) {
            if (times) times[e] += time_slope;
            if (values) values[e] += value_slope;
        }

        // One neuron through window w with its marks here[m .. stop), from the end to the start.
        State lane(size_t w, int n, size_t m, size_t stop) {
            const Window& window = plan.windows[w];
            const Neuron& neuron = layer.neurons[n];
            State at{r[n], v[n], all.with_taus_ ? a[n] : 0, all.with_taus_ ? c[n] : 0, all.with_taus_ ? d[n] : 0};
            double now = window.end;  // the time that `at` belongs to
            int64_t e = window.last;
            for (; m < stop; ++m) {
                const Mark& mark = here[m];
                for (; e > window.first && batch.times[e - 1] >= mark.time; --e) arrival(e - 1, n, at);
                at = back(neuron, at, now - mark.time);
                add(kAfter, n, at.v);
                if (all.with_taus_) add(kAfterTau, n, at.a);
                const double before = mark.gain * at.v + mark.push;
                add(kBefore, n, before);
                at.v = before;
                if (all.spiking_) at.a = 0;
                now = mark.time;
                // Earlier events look up a state at the window's end that flows back into this one, so that they can use the
                // tabulated factors; windows of more than one event are short against the time constants.
                if (window.many() && e > window.first) at = forth(neuron, at, window.end - now), now = window.end;
            }
            for (; e > window.first; --e) arrival(e - 1, n, at);
            return back(neuron, at, now - window.start);
        }

        // What arrival e sees. Its factors are tabulated: `at` belongs to the end of the window here
        // (a window whose only event is its end has no events before a mark).
        void arrival(int64_t e, int n, const State& at) {
            const int column = n / kLanes<T> * kLanes<T>, l = n % kLanes<T>;
            const Decay<Vec<T>> f = plan.to_end.at(e - plan.first, layer, column);
            const size_t place = static_cast<size_t>(batch.units[e]) * layer.columns + n;
            const double size = batch.value(e), w0 = layer.weight[place];
            const double seen = at.r * f.y[l] + at.v * f.k[l];
            weight[place] += T(size * seen);
            if (with_inputs)
                input(e, size * w0 * (seen * layer.neurons[n].q - at.v * f.x[l] * layer.neurons[n].p), w0 * seen);
            if (!all.with_taus_) return;
            const TauSlope<Vec<T>> g = plan.to_end.slope_at(e - plan.first, layer, column);
            tau_mem[n] += T(size * w0 * (at.c * f.y[l] + at.a * f.k[l] + at.v * g.k_tm[l]));
            tau_syn[n] += T(size * w0 * (at.d * f.y[l] + at.r * g.y_ts[l] + at.v * g.k_ts[l]));
        }

        TauSlope<double> tau_slope_of(const Neuron& neuron, double s) const {
            const TauSlope<Vec<double>> g = tau_slope<double>(splat(s), splat(neuron.p), splat(neuron.q));
            return {g.x_tm[0], g.y_ts[0], g.k_tm[0], g.k_ts[0]};
        }

        // The state s seconds earlier, and s seconds later.
        State back(const Neuron& neuron, const State& at, double s) const {
            if (s <= 0) return at;
            const Decay<double> f = neuron.decay(s);
            State to{at.r * f.y + at.v * f.k, at.v * f.x, 0, 0, 0};
            if (!all.with_taus_) return to;
            const TauSlope<double> g = tau_slope_of(neuron, s);
            to.a = at.a * f.x + at.v * g.x_tm;
            to.c = at.c * f.y + at.a * f.k + at.v * g.k_tm;
            to.d = at.d * f.y + at.r * g.y_ts + at.v * g.k_ts;
            return to;
        }

        State forth(const Neuron& neuron, const State& at, double s) const {
            if (s <= 0) return at;
            const Decay<double> f = neuron.decay(s);
            State to{0, at.v / f.x, 0, 0, 0};
            to.r = (at.r - to.v * f.k) / f.y;
            if (!all.with_taus_) return to;
            const TauSlope<double> g = tau_slope_of(neuron, s);
            to.a = (at.a - to.v * g.x_tm) / f.x;
            to.c = (at.c - to.a * f.k - to.v * g.k_tm) / f.y;
            to.d = (at.d - to.r * g.y_ts - to.v * g.k_ts) / f.y;
            return to;
        }

        std::vector<std::pair<int, State>> replayed_;
    };

    const Batch<T>& batch_;
    const Layer<T>& layer_;
    const std::vector<std::vector<Mark>>& marks_;
    const bool spiking_, with_taus_;
    const double longest_;
};

}  // namespace eventnet
