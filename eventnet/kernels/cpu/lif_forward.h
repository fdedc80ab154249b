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

template <class T, bool Shared>
class LifForward {
public:
    LifForward(const Batch<T>& batch, const Layer<T>& layer, int64_t max_spikes)
        : batch_(batch), layer_(layer), max_spikes_(max_spikes), longest_(kWindowSpan * layer.shortest_tau()) {}

    // Spikes of every sample, sorted.
    std::vector<std::vector<Spike>> run(int threads) {
        const Split parts = split(batch_, layer_.columns, threads);
        std::vector<std::vector<Spike>> found(static_cast<size_t>(batch_.size) * parts.groups());
        parallel_for(parts.jobs(), threads, [&](int job) {
            const int chunk = job / parts.groups(), group = job % parts.groups();
            Worker worker(*this, parts.columns[group], parts.columns[group + 1]);
            for (int b = parts.samples[chunk]; b < parts.samples[chunk + 1]; ++b)
                worker.sample(b, found[static_cast<size_t>(b) * parts.groups() + group]);
        });
        if (parts.groups() == 1) return found;
        std::vector<std::vector<Spike>> merged(batch_.size);
        for (size_t i = 0; i < found.size(); ++i) {
            auto& all = merged[i / parts.groups()];
            const auto middle = all.insert(all.end(), found[i].begin(), found[i].end());
            std::inplace_merge(all.begin(), middle, all.end(), earlier);
        }
        return merged;
    }

private:
    static constexpr int kTile = sizeof(T) == 8 && kVectorBytes == 64 ? 8 : kVectorBytes == 64 ? 8 : 4;  // vectors in registers

    struct Worker {
        LifForward& all;
        const Batch<T>& batch;
        const Layer<T>& layer;
        const int begin, end;
        Plan<T, Shared> plan;
        std::vector<T> u, i;
        std::vector<Spike>* out = nullptr;
        int current_sample = 0;
        int64_t uncounted = 0;

        Worker(LifForward& parent, int from, int to)
            : all(parent), batch(parent.batch_), layer(parent.layer_), begin(from), end(to), u(parent.layer_.columns),
              i(parent.layer_.columns) {}

        void sample(int b, std::vector<Spike>& spikes) {
            current_sample = b;
            out = &spikes;
            plan.make(batch, layer, b, all.longest_, true, false);
            std::copy(layer.start.begin(), layer.start.end(), u.begin());
            std::fill(i.begin(), i.end(), T(0));
            for (size_t w = 0; w < plan.windows.size(); ++w) {
                const size_t before = spikes.size();
                int column = begin;
                for (; column + kTile * kLanes<T> <= end; column += kTile * kLanes<T>) tile<kTile>(w, column);
                for (; column + 2 * kLanes<T> <= end; column += 2 * kLanes<T>) tile<2>(w, column);
                for (; column < end; column += kLanes<T>) tile<1>(w, column);
                if (spikes.size() - before > 1) std::sort(spikes.begin() + before, spikes.end(), earlier);
            }
            count();
            for (int n = begin; n < std::min(end, layer.num); ++n)
                if (!std::isfinite(u[n]) || !std::isfinite(i[n])) not_finite(n);
        }

        // All events of window w on N vectors of neurons.
        template <int N>
        void tile(size_t w, int column) {
            const Window& window = plan.windows[w];
            Vec<T> current[N], voltage[N], highest[N];
            for (int v = 0; v < N; ++v) current[v] = voltage[v] = highest[v] = Vec<T>{};
            for (int64_t e = window.first; e + 1 < window.last; ++e) {
                const T* row = layer.row(batch.units[e]) + column;
                const T size = batch.value(e);
                for (int v = 0; v < N; ++v) {
                    const Decay<Vec<T>> f = plan.to_end.at(e - plan.first, layer, column + v * kLanes<T>);
                    const Vec<T> drive = load(row + v * kLanes<T>);
                    current[v] += f.y * size * drive;
                    voltage[v] += f.k * size * drive;
                    highest[v] = max<T>(current[v], highest[v]);
                }
            }
            for (int v = 0; v < N; ++v) {
                const int at = column + v * kLanes<T>;
                const Decay<Vec<T>> f = plan.span.at(w, layer, at);
                const Vec<T> u0 = load(&u[at]), i0 = load(&i[at]), gap = load(&layer.gap[at]);
                Vec<T> bound = max<T>(i0, Vec<T>{}), gain;
                if (window.many()) {
                    bound = max<T>(bound, (i0 * f.y + highest[v]) / f.y);
                    gain = T(1) - f.x;
                } else {
                    gain = plan.span.k_max(w, f.k, layer, at);
                }
                // a crossing needs a current above the gap, and the voltage to get there; written so that NaN replays
                const auto quiet = (bound < gap) | (max<T>(u0, Vec<T>{}) + gain * bound < gap);
                const auto simple = gap > T(0) ? quiet : max<T>(u0, Vec<T>{}) + gain * bound < gap;
                if (bits<T>(~simple)) {
                    replay(window, at);
                    continue;
                }
                Vec<T> i1 = i0 * f.y + current[v];
                if (window.last > window.first)
                    i1 += batch.value(window.last - 1) * load(layer.row(batch.units[window.last - 1]) + at);
                store(&u[at], u0 * f.x + i0 * f.k + voltage[v]);
                store(&i[at], i1);
            }
        }

        // The same for one vector, stretch by stretch.
        void replay(const Window& window, int column) {
            Vec<T> u0 = load(&u[column]), i0 = load(&i[column]);
            const Vec<T> gap = load(&layer.gap[column]);
            const bool tail = window.first == window.last;
            double now = window.start;
            for (int64_t e = window.first; e < window.last + tail; ++e) {
                const double until = tail ? window.end : batch.times[e];
                const Decay<Vec<T>> f = plan.step.at(e - plan.first, layer, column);
                const Vec<T> u1 = u0 * f.x + i0 * f.k, i1 = i0 * f.y;
                const Vec<T> reach = max<T>(u0, Vec<T>{}) + max<T>(i0, Vec<T>{}) * plan.step.k_max(e - plan.first, f.k, layer, column);
                const auto quiet = ((reach < gap) & (u1 < gap)) | ((i0 < gap) & (gap > T(0)));
                Vec<T> u2 = u1, i2 = i1;
                for (uint32_t lanes = bits<T>(~quiet); lanes; lanes &= lanes - 1) {
                    const int l = __builtin_ctz(lanes);
                    if (column + l >= layer.num) break;
                    double u_lane = u0[l], i_lane = i0[l];
                    lane(layer.neurons[column + l], u_lane, i_lane, now, until);
                    u2[l] = T(u_lane), i2[l] = T(i_lane);
                }
                u0 = u2;
                i0 = tail ? i2 : i2 + batch.value(e) * load(layer.row(batch.units[e]) + column);
                now = until;
            }
            store(&u[column], u0);
            store(&i[column], i0);
        }

        // One neuron through one stretch, with all its spikes.
        void lane(const Neuron& neuron, double& u0, double& i0, double now, double until) {
            if (!std::isfinite(u0) || !std::isfinite(i0)) not_finite(neuron.index);
            for (;;) {
                const double i_before = i0;
                const double s = neuron.crossing(u0, i0, until - now);
                if (s < 0) return;
                i0 = i_before * std::exp(-s * neuron.q);
                u0 = neuron.rise;
                now += s;
                out->push_back({now, i0, neuron.index});
                if (++uncounted == 1 << 16) count();
            }
        }

        // Keeps the total of all threads below the limit, also while a single stretch goes on and on.
        void count() {
            if ((all.total_ += uncounted) > all.max_spikes_) throw StormError(std::to_string(current_sample));
            uncounted = 0;
        }

        [[noreturn]] void not_finite(int n) {
            throw Error("sample " + std::to_string(current_sample) + ", neuron " + std::to_string(n) +
                        ": the voltage is not finite; weight or values hold NaN, inf or huge numbers");
        }
    };

    const Batch<T>& batch_;
    const Layer<T>& layer_;
    const int64_t max_spikes_;
    const double longest_;
    std::atomic<int64_t> total_{0};
};

}  // namespace eventnet
