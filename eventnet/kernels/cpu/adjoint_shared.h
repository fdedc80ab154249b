// Backward pass of neurons that share their time constants: a weight's gradient is the trace of its input at the impulses.
//
//   dL/dw_jn = sum_k size_k U_j(t_k),   U_j(t) = sum_{e of j, t_e < t} value_e K(t - t_e)
// The traces U of all inputs, and I that drives them (one with e^{-t/ts} for K), flow forward from window to window; an
// impulse adds a multiple of them to a row of the gradient. No event is looked at by a neuron: the work is impulses x inputs.
// Gradients of the inputs' times and values are the same in reverse: traces of the impulses, read at the events.
#pragma once

#include "impulse.h"

namespace eventnet {

template <class T>
class SharedAdjoint {
public:
    SharedAdjoint(const Batch<T>& batch, const Layer<T>& layer, const Impulses& impulses, bool with_taus)
        : batch_(batch), layer_(layer), impulses_(impulses), with_taus_(with_taus), longest_(kTraceSpan * layer.shortest_tau()) {}

    // A job is a chunk of samples times a range of inputs, small enough that its part of the gradient stays in cache. Each chunk
    // takes a gradient of its own, each range goes through all events: so chunks only, and few, where there are more events.
    void run(Gradients<T> out, int threads) const {
        const int64_t vectors = (batch_.inputs + kLanes<T> - 1) / kLanes<T>;
        if (static_cast<double>(impulses_.sizes.size()) * vectors < 3e3) threads = 1;  // less than waking a thread costs
        const size_t passed = batch_.offsets[batch_.size] + impulses_.sizes.size();
        const bool chunked = passed > static_cast<size_t>(batch_.inputs) * layer_.num;
        const Split parts = split(batch_, layer_.columns, chunked ? std::min(threads, kChunks) : 1);
        const int chunks = parts.chunks();
        const int64_t fitting = std::max<int64_t>(1, kTileBytes / (int64_t(sizeof(T)) * kLanes<T> * layer_.num));
        const int64_t wanted = std::max<int64_t>((threads + chunks - 1) / chunks, (vectors + fitting - 1) / fitting);
        const int tiles = std::max<int64_t>(1, std::min(vectors, wanted));
        const auto first_input = [&](int tile) { return int(vectors * tile / tiles * kLanes<T>); };
        std::vector<Array<T>> gradients(chunks * tiles);
        std::vector<std::vector<double>> taus(chunks * tiles);
        parallel_for(chunks * tiles, threads, [&](int job) {
            const int chunk = job / tiles, tile = job % tiles, from = first_input(tile), width = first_input(tile + 1) - from;
            gradients[job].assign(static_cast<size_t>(layer_.num) * width, T(0));
            if (with_taus_) taus[job].assign(2 * layer_.num, 0.0);
            Worker(*this, out, from, width, gradients[job].data(), taus[job].data())
                .run(parts.samples[chunk], parts.samples[chunk + 1]);
        });
        parallel_for(tiles, threads, [&](int tile) {  // parts are added in a fixed order: runs repeat bit for bit
            const int from = first_input(tile), width = first_input(tile + 1) - from;
            for (int chunk = 0; chunk < chunks; ++chunk) add_transposed(gradients[chunk * tiles + tile].data(), from, width, out.weight);
        });
        for (const auto& part : taus)
            for (size_t n = 0; n < part.size(); ++n) out.sums[kTauMem * layer_.num + n] += part[n];  // kTauSyn follows
    }

private:
    static constexpr double kTraceSpan = 0.5;          // of the shortest time constant: windows' factors are inverted
    static constexpr int64_t kTileBytes = 3 << 20;   // of the gradient, to stay in cache
    static constexpr int kChunks = 4;
    static constexpr int kBlockEvents = 512;         // whose decay factors are tabulated at once, to stay in cache

    // Adds part (N, width) to the rows [from, from + width) of weight (in, N).
    void add_transposed(const T* part, int from, int width, T* weight) const {
        constexpr int kBlock = 16;  // lines of cache read side by side
        for (int start = 0; start < layer_.num; start += kBlock)
            for (int j = 0; j < std::min(width, batch_.inputs - from); ++j)
                for (int n = start; n < std::min(start + kBlock, layer_.num); ++n)
                    weight[static_cast<size_t>(from + j) * layer_.num + n] += part[static_cast<size_t>(n) * width + j];
    }

    // Events [event, event_end) and impulses [impulse, impulse_end) of a sample, from start to end.
    struct Window {
        int64_t event, event_end, impulse, impulse_end;
        double start, end;
    };

    struct Worker {
        const SharedAdjoint& all;
        const Batch<T>& batch;
        const Layer<T>& layer;
        const Impulses& impulses;
        const Gradients<T> out;
        const int from, width, inputs;  // the job's inputs: [from, from + inputs), padded to width
        T* const gradient;              // (N, width)
        double* const taus;             // (2, N)
        Array<T> weight;          // (N, width), if needed
        const int stride;               // of the traces: room for one more, that of all other inputs
        Array<T> traces;
        T *const u, *const i, *const u_mem, *const u_syn, *const i_syn;
        std::vector<Window> windows;                 // of the sample at hand
        int64_t first_event = 0, first_impulse = 0;  // of the block of windows at hand
        std::vector<double> times;                   // of its events
        Table<T, true> events, moments, gaps;        // of its events, impulses, windows: see tabulate

        Worker(const SharedAdjoint& parent, Gradients<T> gradients, int first, int padded, T* part, double* tau_sums)
            : all(parent), batch(parent.batch_), layer(parent.layer_), impulses(parent.impulses_), out(gradients), from(first),
              width(padded), inputs(std::min(padded, parent.batch_.inputs - first)), gradient(part), taus(tau_sums),
              stride(width + kLanes<T>), traces((parent.with_taus_ ? 5 : 2) * stride), u(traces.data()), i(u + stride),
              u_mem(i + stride), u_syn(u_mem + stride), i_syn(u_syn + stride) {
            if (!all.with_taus_ && !out.times && !out.values) return;
            weight.assign(static_cast<size_t>(layer.num) * width, T(0));
            for (int j = 0; j < inputs; ++j)
                for (int n = 0; n < layer.num; ++n) weight[static_cast<size_t>(n) * width + j] = layer.row[from + j][n];
        }

        void run(int first, int last) {
            for (int b = first; b < last; ++b) {
                if (!cut(b)) continue;
                forward();
                if (out.times || out.values) reverse();
            }
        }

        // Windows of sample b, up to its last impulse; false if it has none.
        bool cut(int b) {
            windows.clear();
            int64_t e = batch.offsets[b], k = impulses.offsets[b];
            const int64_t last = impulses.last(b);
            if (k == last) return false;
            const int64_t stop = batch.times.not_below(e, batch.offsets[b + 1], impulses.times[last - 1]);
            while (k < last) {
                const double start = e < stop ? std::min(batch.times[e], impulses.times[k]) : impulses.times[k];
                Window w{e, e, k, k, start, start};
                double limit = start + all.longest_;
                while (e < stop && e - w.event < kBlockEvents && batch.times[e] <= limit) ++e;
                if (e > w.event) w.end = batch.times[e - 1];
                if (e - w.event == kBlockEvents) limit = w.end;
                while (k < last && impulses.times[k] <= limit) ++k;
                if (k > w.impulse) w.end = std::max(w.end, impulses.times[k - 1]);
                w.event_end = e, w.impulse_end = k;
                windows.push_back(w);
            }
            return true;
        }

        // Decay factors of the stretches between the border of each window of [from, to), its end or its start, and its events, its
        // impulses, and the border of the window that comes before it in this direction.
        void tabulate(size_t from, size_t to, bool to_ends, bool slopes) {
            first_event = windows[from].event, first_impulse = windows[from].impulse;
            batch.times.copy(first_event, windows[to - 1].event_end, times);
            const size_t num_impulses = windows[to - 1].impulse_end - first_impulse;
            events.make_room(times.size(), slopes), moments.make_room(num_impulses, slopes), gaps.make_room(to - from, slopes);
            for (size_t w = from; w < to; ++w) {
                const Window& window = windows[w];
                const double border = to_ends ? window.end : window.start;
                const double before = to_ends ? windows[w ? w - 1 : 0].end : windows[std::min(w + 1, windows.size() - 1)].start;
                gaps.s[w - from] = T(std::abs(border - before));
                for (int64_t e = window.event - first_event; e < window.event_end - first_event; ++e)
                    events.s[e] = T(std::abs(border - times[e]));
                for (int64_t k = window.impulse; k < window.impulse_end; ++k)
                    moments.s[k - first_impulse] = T(std::abs(border - impulses.times[k]));
            }
            events.fill(times.size(), layer, slopes);
            moments.fill(num_impulses, layer, slopes);
            gaps.fill(to - from, layer, slopes);
        }

        void rest() {
            std::fill(traces.begin(), traces.end(), T(0));
        }

        // The traces at the border of a window, from those at the one before: w counts from the block's first.
        __attribute__((noinline)) void flow(size_t w, bool with_taus) {
            const Decay<T> f = gaps.one(w);
            if (with_taus) {
                const TauSlope<T> g = gaps.slope_one(w);
                for (int j = 0; j < width; j += kLanes<T>) {
                    store(&u_mem[j], load(&u_mem[j]) * f.x + load(&u[j]) * g.x_tm + load(&i[j]) * g.k_tm);
                    store(&u_syn[j], load(&u_syn[j]) * f.x + load(&i_syn[j]) * f.k + load(&i[j]) * g.k_ts);
                    store(&i_syn[j], load(&i_syn[j]) * f.y + load(&i[j]) * g.y_ts);
                }
            }
            T *const u0 = u, *const i0 = i;  // local: the compiler then knows that no store changes them
            for (int j = 0, stop = width; j < stop; j += kLanes<T>) {
                store(u0 + j, load(u0 + j) * f.x + load(i0 + j) * f.k);
                store(i0 + j, load(i0 + j) * f.y);
            }
        }

        // Traces of the inputs, valid at the end of the window at hand, read at the impulses.
        void forward() {
            rest();
            for (size_t from = 0, to; from < windows.size(); from = to) {
                for (to = from + 1; to < windows.size() && windows[to].event_end - windows[from].event <= kBlockEvents;) ++to;
                tabulate(from, to, true, all.with_taus_);
                for (size_t w = from; w < to; ++w) {
                    flow(w - from, all.with_taus_);
                    int64_t e = windows[w].event;
                    for (int64_t k = windows[w].impulse; k < windows[w].impulse_end; ++k) {
                        for (; e < windows[w].event_end && times[e - first_event] < impulses.times[k]; ++e) arrive(e);
                        if (impulses.sizes[k] != 0) meet(k);
                    }
                    for (; e < windows[w].event_end; ++e) arrive(e);
                }
            }
        }

        void arrive(int64_t e) {
            const unsigned j = std::min<unsigned>(batch.units[e] - from, width);  // without a branch: half of all events are others'
            const T value = batch.value(e);
            const Decay<T> f = events.one(e - first_event);
            u[j] += value * f.k;
            i[j] += value * f.y;
            if (!all.with_taus_) return;
            const TauSlope<T> g = events.slope_one(e - first_event);
            u_mem[j] += value * g.k_tm;
            u_syn[j] += value * g.k_ts;
            i_syn[j] += value * g.y_ts;
        }

        __attribute__((noinline)) void meet(int64_t k) {
            const Decay<T> f = moments.one(k - first_impulse);
            const size_t n = impulses.units[k];
            const T by_u = T(impulses.sizes[k]) / f.x, by_i = -by_u * f.k / f.y;  // the traces as they were at the impulse
            T *const row = gradient + n * width, *const u0 = u, *const i0 = i;
            for (int j = 0, stop = width; j < stop; j += kLanes<T>)
                store(row + j, load(row + j) + by_u * load(u0 + j) + by_i * load(i0 + j));
            if (!all.with_taus_) return;
            const T* own = &weight[n * width];
            Vec<T> of_u{}, of_i{}, of_mem{}, of_syn{}, of_i_syn{};
            for (int j = 0; j < width; j += kLanes<T>) {
                const Vec<T> w = load(own + j);
                of_u += w * load(&u[j]), of_i += w * load(&i[j]);
                of_mem += w * load(&u_mem[j]), of_syn += w * load(&u_syn[j]), of_i_syn += w * load(&i_syn[j]);
            }
            const TauSlope<T> g = moments.slope_one(k - first_impulse);
            const double size = impulses.sizes[k], x = f.x, y = f.y;
            const double current = sum<T>(of_i) / y, voltage = (sum<T>(of_u) - current * f.k) / x;
            const double current_syn = (sum<T>(of_i_syn) - current * g.y_ts) / y;
            taus[n] += size * (sum<T>(of_mem) - voltage * g.x_tm - current * g.k_tm) / x;
            taus[layer.num + n] += size * (sum<T>(of_syn) - current_syn * f.k - current * g.k_ts) / x;
        }

        // Traces of the impulses times their neurons' weights, valid at the start of the window at hand, read at the events.
        void reverse() {
            rest();
            for (size_t to = windows.size(), from; to > 0; to = from) {
                for (from = to - 1; from > 0 && windows[to - 1].event_end - windows[from - 1].event <= kBlockEvents;) --from;
                tabulate(from, to, false, false);
                for (size_t w = to; w-- > from;) {
                    flow(w - from, false);
                    int64_t e = windows[w].event_end;
                    for (int64_t k = windows[w].impulse_end; k-- > windows[w].impulse;) {
                        for (; e > windows[w].event && times[e - 1 - first_event] >= impulses.times[k]; --e) read(e - 1);
                        if (impulses.sizes[k] != 0) send(k);
                    }
                    for (; e > windows[w].event; --e) read(e - 1);
                }
            }
        }

        void send(int64_t k) {
            const Decay<T> f = moments.one(k - first_impulse);
            const T by_u = T(impulses.sizes[k]) * f.k, by_i = T(impulses.sizes[k]) * f.y;
            const T* const own = &weight[static_cast<size_t>(impulses.units[k]) * width];
            T *const u0 = u, *const i0 = i;
            for (int j = 0, stop = width; j < stop; j += kLanes<T>) {
                store(u0 + j, load(u0 + j) + by_u * load(own + j));
                store(i0 + j, load(i0 + j) + by_i * load(own + j));
            }
        }

        // dV(t_k)/dt_e = -value w K'(t_k - t_e), and K' = (e^{-s/ts} - K) / tm.
        void read(int64_t e) const {
            const int j = batch.units[e] - from;
            if (j < 0 || j >= inputs) return;
            const Decay<T> f = events.one(e - first_event);
            const double current = i[j] / f.y, voltage = (u[j] - current * f.k) / f.x;
            if (out.times) out.times[e] = -double(batch.value(e)) * (current - voltage) * layer.neurons[0].p;
            if (out.values) out.values[e] = voltage;
        }
    };

    const Batch<T>& batch_;
    const Layer<T>& layer_;
    const Impulses& impulses_;
    const bool with_taus_;
    const double longest_;
};

}  // namespace eventnet
