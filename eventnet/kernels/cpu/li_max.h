// The largest voltage of neurons that never spike, with the time it is reached and how that time moves.
#pragma once

#include "batch.h"
#include "parallel.h"

namespace eventnet {

// Per (sample, neuron). Where the maximum is the kink at an arrival, `event` is that arrival and `slope` is dV/dt before
// it; otherwise event is -1: the time of a smooth maximum does not matter to first order.
template <class T>
struct Highest {
    T* value;
    double* time;
    int64_t* event;
    T* slope;
};

template <class T, bool Shared>
class LiMax {
public:
    LiMax(const Batch<T>& batch, const Layer<T>& layer) : batch_(batch), layer_(layer) {}

    void run(Highest<T> out, int threads) {
        const Split parts = split(batch_, layer_.columns, threads);
        parallel_for(parts.jobs(), threads, [&](int job) {
            const int chunk = job / parts.groups(), group = job % parts.groups();
            Steps steps;
            for (int b = parts.samples[chunk]; b < parts.samples[chunk + 1]; ++b) {
                fill(steps, b);
                for (int column = parts.columns[group]; column < parts.columns[group + 1]; column += kLanes<T>)
                    vector(b, column, steps, out);
            }
        });
    }

private:
    // A sample's stretches from event to event, and to the end of the trial.
    struct Steps {
        int64_t first, count;
        Table<T, Shared> factors;
    };

    void fill(Steps& steps, int b) const {
        steps.first = batch_.offsets[b], steps.count = batch_.counted(b) - steps.first;
        steps.factors.make_room(steps.count + 1);
        double now = 0;
        for (int64_t k = 0; k <= steps.count; ++k) {
            const double until = k < steps.count ? batch_.times[steps.first + k] : batch_.duration[b];
            steps.factors.s[k] = T(until - now);
            now = until;
        }
        steps.factors.fill(steps.count + 1, layer_);
    }

    void vector(int b, int column, const Steps& steps, Highest<T> out) const {
        const Vec<T> p = load(&layer_.p[column]), q = load(&layer_.q[column]);
        const Vec<T> s_peak = load(&layer_.s_peak[column]), k_peak = load(&layer_.k_peak[column]);
        Vec<T> u = load(&layer_.start[column]), i{}, best = u;
        double time[kLanes<T>] = {};
        int64_t event[kLanes<T>];
        T slope[kLanes<T>] = {};
        std::fill_n(event, kLanes<T>, int64_t(-1));
        double now = 0;
        for (int64_t k = 0; k <= steps.count; ++k) {
            const bool tail = k == steps.count;
            const int64_t e = steps.first + k;
            const double until = tail ? batch_.duration[b] : batch_.times[e];
            const Decay<Vec<T>> f = steps.factors.at(k, p, q);
            const Vec<T> u1 = u * f.x + i * f.k, i1 = i * f.y;
            const Vec<T> reach = max<T>(u, Vec<T>{}) + max<T>(i, Vec<T>{}) * steps.factors.k_max(k, f.k, s_peak, k_peak);
            // lanes whose maximum cannot be in this stretch are passed over: within it, or rising to its end
            for (uint32_t lanes = bits<T>(~((reach <= best) & (u1 <= best))); lanes; lanes &= lanes - 1) {
                const int l = __builtin_ctz(lanes);
                if (column + l >= layer_.num) break;
                const Neuron& neuron = layer_.neurons[column + l];
                if (!std::isfinite(u1[l]) || !std::isfinite(i1[l])) not_finite(b, column + l);
                const double top = i[l] > u[l] ? neuron.peak(u[l], i[l]) : 0;
                if (top > 0 && top < until - now) {
                    const Decay<double> at = neuron.decay(top);
                    const T peak = T(u[l] * at.x + i[l] * at.k);
                    if (peak > best[l]) best[l] = peak, time[l] = now + top, event[l] = -1;
                }
                if (u1[l] > best[l]) {
                    best[l] = u1[l], time[l] = until, event[l] = tail ? -1 : e;
                    slope[l] = T((double(i1[l]) - u1[l]) * neuron.p);
                }
            }
            u = u1;
            i = tail ? i1 : i1 + batch_.value(e) * load(layer_.row[batch_.units[e]] + column);
            now = until;
        }
        for (int l = 0; l < kLanes<T> && column + l < layer_.num; ++l) {
            if (!std::isfinite(u[l]) || !std::isfinite(i[l])) not_finite(b, column + l);
            const size_t place = static_cast<size_t>(b) * layer_.num + column + l;
            out.value[place] = best[l];
            out.time[place] = time[l];
            out.event[place] = event[l];
            out.slope[place] = event[l] < 0 ? T(0) : slope[l];
        }
    }

    const Batch<T>& batch_;
    const Layer<T>& layer_;
};

}  // namespace eventnet
