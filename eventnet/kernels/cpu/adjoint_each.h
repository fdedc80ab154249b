// Backward pass of neurons with time constants of their own: neuron by neuron, its costates at a vector of events at a time.
//
//   dL/dw_jn = sum_{e of j} value_e r_n(t_e),   r(t) = sum_{t_k > t} size_k K(t_k - t),   v(t) = sum_{t_k > t} size_k e^{-(t_k - t)/tm}
// From the last impulse to the first, (r, v) just before one gives those at all events since the one before in closed form.
// Gradients in the time constants ride along as the derivatives (c, a) of (r, v) in tau_mem and d of r in tau_syn.
#pragma once

#include "impulse.h"

namespace eventnet {

template <class T>
class EachAdjoint {
public:
    EachAdjoint(const Batch<T>& batch, const Layer<T>& layer, const Impulses& impulses, bool with_taus)
        : batch_(batch), layer_(layer), impulses_(impulses), with_taus_(with_taus) {}

    // Each job owns a range of neurons for the whole batch.
    void run(Gradients<T> out, int threads) const {
        const int jobs = std::max(1, std::min(threads, layer_.num));
        const size_t events = batch_.offsets[batch_.size];
        std::vector<std::vector<double>> times(jobs), values(jobs);
        parallel_for(jobs, threads, [&](int job) {
            if (out.times) times[job].assign(events, 0.0);
            if (out.values) values[job].assign(events, 0.0);
            Worker worker{*this, out, out.times ? times[job].data() : nullptr, out.values ? values[job].data() : nullptr};
            worker.run(int64_t(layer_.num) * job / jobs, int64_t(layer_.num) * (job + 1) / jobs);
        });
        for (const auto& part : times) for (size_t e = 0; e < part.size(); ++e) out.times[e] += part[e];
        for (const auto& part : values) for (size_t e = 0; e < part.size(); ++e) out.values[e] += part[e];
    }

private:
    struct Worker {
        const EachAdjoint& all;
        const Gradients<T> out;
        double *times, *values;
        const Batch<T>& batch = all.batch_;
        const Layer<T>& layer = all.layer_;
        const Impulses& impulses = all.impulses_;
        std::vector<std::vector<int64_t>> of{};  // impulses of each neuron in the sample at hand

        void run(int from, int to) {
            Array<T> gradient(static_cast<size_t>(to - from) * batch.inputs, T(0));
            of.resize(to - from);
            for (int b = 0; b < batch.size; ++b) {
                for (auto& list : of) list.clear();
                const int64_t last = impulses.last(b);
                for (int64_t k = impulses.offsets[b]; k < last; ++k)
                    if (const int n = impulses.units[k]; n >= from && n < to) of[n - from].push_back(k);
                for (int n = from; n < to; ++n)
                    if (!of[n - from].empty()) neuron(b, n, of[n - from], &gradient[static_cast<size_t>(n - from) * batch.inputs]);
            }
            for (int j = 0; j < batch.inputs; ++j)
                for (int n = from; n < to; ++n)
                    out.weight[static_cast<size_t>(j) * layer.num + n] = gradient[static_cast<size_t>(n - from) * batch.inputs + j];
        }

        void neuron(int b, int n, const std::vector<int64_t>& own, T* row) {
            const int64_t first = batch.offsets[b];
            Costate at;
            int64_t e = batch.times.not_below(first, batch.offsets[b + 1], impulses.times[own.back()]);
            for (size_t m = own.size(); m-- > 0;) {
                const double now = impulses.times[own[m]];
                at.v += impulses.sizes[own[m]];
                const double before = m ? impulses.times[own[m - 1]] : 0.0;
                const int64_t from = m ? batch.times.not_below(first, e, before) : first;
                for (; e > from; e = std::max(from, e - kLanes<T>)) arrivals(std::max(from, e - kLanes<T>), e, n, now, at, row);
                at = at.earlier(now - before, layer.neurons[n], all.with_taus_);
            }
        }

        // Events [first, last), at most a vector of them, before the costates `at` of time `now`.
        void arrivals(int64_t first, int64_t last, int n, double now, const Costate& at, T* row) {
            const Neuron& neuron = layer.neurons[n];
            Vec<T> s{}, value{}, w{};
            for (int l = 0; l < last - first; ++l) {
                s[l] = T(now - batch.times[first + l]);
                value[l] = batch.value(first + l);
            }
            const Vec<T> p = splat(T(neuron.p)), q = splat(T(neuron.q));
            const Decay<Vec<T>> f = decay<T>(s, p, q);
            const Vec<T> r = T(at.r) * f.y + T(at.v) * f.k, weighted = value * r;
            for (int l = 0; l < last - first; ++l) row[batch.units[first + l]] += weighted[l];
            if (!times && !values && !all.with_taus_) return;
            for (int l = 0; l < last - first; ++l) w[l] = layer.row[batch.units[first + l]][n];
            const Vec<T> by_time = value * w * (r * q - T(at.v) * f.x * p), by_value = w * r;
            for (int l = 0; l < last - first; ++l) {
                if (times) times[first + l] += by_time[l];
                if (values) values[first + l] += by_value[l];
            }
            if (!all.with_taus_) return;
            const TauSlope<Vec<T>> g = tau_slope<T>(s, p, q);
            double* sums = out.sums + n;
            sums[kTauMem * layer.num] += sum<T>(value * w * (T(at.c) * f.y + T(at.a) * f.k + T(at.v) * g.k_tm));
            sums[kTauSyn * layer.num] += sum<T>(value * w * (T(at.d) * f.y + T(at.r) * g.y_ts + T(at.v) * g.k_ts));
        }
    };

    const Batch<T>& batch_;
    const Layer<T>& layer_;
    const Impulses& impulses_;
    const bool with_taus_;
};

}  // namespace eventnet
