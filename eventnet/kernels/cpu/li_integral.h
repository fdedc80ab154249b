// The weighted integral of the voltage over the trial, of neurons that never spike: a sum over arrivals in any order.
#pragma once

#include "impulse.h"

namespace eventnet {

// area = integral_0^h K(s) e^{-ks} ds; its derivatives in h and in the time constants.
template <class V>
struct Area {
    V value, by_h, by_tm, by_ts;
};

// integral_0^h e^{-rate s} ds, as h phi(rate h): also for rate 0.
template <class T>
inline Vec<T> decay_area(Vec<T> rate, Vec<T> h) {
    const Vec<T> d = rate * h;
    return h * phi<T>(d, exp(-d));
}

template <class T>
inline Area<Vec<T>> area(Vec<T> h, Vec<T> p, Vec<T> q, T k) {
    const Vec<T> slow = p + k, fast = q + k;
    const Decay<Vec<T>> f = decay<T>(h, slow, fast);  // f.k = slow G, with G symmetric in both rates
    const TauSlope<Vec<T>> g = tau_slope<T>(h, slow, fast);
    const Vec<T> kernel = f.k / slow, filled = decay_area<T>(fast, h);
    const Vec<T> by_slow = -(g.k_tm / (slow * slow) + kernel) / slow, by_fast = -g.k_ts / (fast * fast * slow);
    const Vec<T> mass = (filled - kernel) / slow;
    Area<Vec<T>> a;
    a.value = p * mass;
    a.by_h = p * kernel;
    a.by_tm = -p * p * (mass - p * (mass + by_slow) / slow);
    a.by_ts = -q * q * p * ((h * f.y - filled) / fast - by_fast) / slow;
    return a;
}

template <class T, bool Shared>
class LiIntegral {
public:
    LiIntegral(const Batch<T>& batch, const Layer<T>& layer, double rate) : batch_(batch), layer_(layer), rate_(rate) {}

    // out (B, N): sum over arrivals of value * area * weight, without what the bias adds.
    void forward(T* out, int threads) const {
        const Split parts = split(batch_, layer_.columns, threads);
        parallel_for(parts.jobs(), threads, [&](int job) {
            const int chunk = job / parts.groups(), group = job % parts.groups();
            Factors factors;
            std::vector<T> total(layer_.columns);
            for (int b = parts.samples[chunk]; b < parts.samples[chunk + 1]; ++b) {
                factors.fill(*this, b);
                const int from = parts.columns[group], to = parts.columns[group + 1];
                std::fill(total.begin() + from, total.begin() + to, T(0));
                for (int64_t e = 0; e < factors.count; ++e) {
                    const T* row = layer_.row(batch_.units[factors.first + e]);
                    for (int column = from; column < to; column += kLanes<T>)
                        store(&total[column], load(&total[column]) + factors.scale[e] * factors.at(*this, e, column).value * load(row + column));
                }
                for (int n = from; n < std::min(to, layer_.num); ++n)
                    out[static_cast<size_t>(b) * layer_.num + n] = total[n] + from_start(b, n);
            }
        });
    }

    // grad (B, N) of the output -> gradients; sums as there. A readout is small: one thread, no parts to add up.
    void backward(const T* grad, Gradients<T> out, bool with_taus) const {
        Factors factors;
        std::vector<T> g(layer_.columns, T(0)), tau_mem(layer_.columns, T(0)), tau_syn(layer_.columns, T(0));
        std::vector<T> weight(static_cast<size_t>(batch_.inputs) * layer_.columns, T(0));
        for (int b = 0; b < batch_.size; ++b) {
            factors.fill(*this, b);
            std::copy_n(grad + static_cast<size_t>(b) * layer_.num, layer_.num, g.begin());
            for (int64_t e = 0; e < factors.count; ++e) {
                const int64_t event = factors.first + e;
                const size_t row = static_cast<size_t>(batch_.units[event]) * layer_.columns;
                Vec<T> by_time{}, by_value{};
                for (int column = 0; column < layer_.columns; column += kLanes<T>) {
                    const Area<Vec<T>> a = factors.at(*this, e, column);
                    const Vec<T> g0 = load(&g[column]), w0 = load(layer_.weight + row + column);
                    const Vec<T> seen = factors.scale[e] * g0;
                    store(&weight[row + column], load(&weight[row + column]) + seen * a.value);
                    by_time -= w0 * seen * (a.by_h + T(rate_) * a.value);
                    by_value += w0 * g0 * a.value;
                    if (!with_taus) continue;
                    store(&tau_mem[column], load(&tau_mem[column]) + w0 * seen * a.by_tm);
                    store(&tau_syn[column], load(&tau_syn[column]) + w0 * seen * a.by_ts);
                }
                if (out.times) out.times[event] = sum<T>(by_time);
                if (out.values) out.values[event] = double(sum<T>(by_value)) * factors.discount[e];
            }
            for (int n = 0; n < layer_.num; ++n) {
                const Neuron& neuron = layer_.neurons[n];
                const double h = batch_.duration[b], slow = neuron.p + rate_, left = std::exp(-slow * h);
                const double filled = -std::expm1(-slow * h) / slow;
                sum_of(out, kBefore, n) += double(g[n]) * rest(b);
                sum_of(out, kStart, n) += double(g[n]) * filled;
                sum_of(out, kStartTau, n) += double(g[n]) * neuron.p * neuron.p * (filled - h * left) / slow;
            }
        }
        for (int j = 0; j < batch_.inputs; ++j)
            std::copy_n(&weight[static_cast<size_t>(j) * layer_.columns], layer_.num, out.weight + static_cast<size_t>(j) * layer_.num);
        for (int n = 0; n < layer_.num; ++n) sum_of(out, kTauMem, n) += tau_mem[n], sum_of(out, kTauSyn, n) += tau_syn[n];
    }

private:
    // Areas of all events of one sample that count.
    struct Factors {
        int64_t first = 0, count = 0;
        std::vector<T> left, discount, scale;  // time left; e^{-kt}; value e^{-kt}
        std::vector<T> value, by_h, by_tm, by_ts;

        void fill(const LiIntegral& all, int b) {
            const Batch<T>& batch = all.batch_;
            first = batch.offsets[b];
            count = batch.counted(b) - first;
            const size_t room = (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
            for (auto* x : {&left, &discount, &scale, &value, &by_h, &by_tm, &by_ts}) x->assign(room, T(0));
            for (int64_t e = 0; e < count; ++e) left[e] = T(batch.duration[b] - batch.times[first + e]), discount[e] = T(batch.times[first + e]);
            for (size_t e = 0; e < room; e += kLanes<T>) {
                store(&discount[e], exp(load(&discount[e]) * T(-all.rate_)));
                if constexpr (!Shared) continue;
                const Area<Vec<T>> a = area<T>(load(&left[e]), splat(T(all.layer_.neurons[0].p)), splat(T(all.layer_.neurons[0].q)), T(all.rate_));
                store(&value[e], a.value), store(&by_h[e], a.by_h), store(&by_tm[e], a.by_tm), store(&by_ts[e], a.by_ts);
            }
            for (int64_t e = 0; e < count; ++e) scale[e] = batch.value(first + e) * discount[e];
        }

        Area<Vec<T>> at(const LiIntegral& all, int64_t e, int column) const {
            if constexpr (Shared) return {splat(value[e]), splat(by_h[e]), splat(by_tm[e]), splat(by_ts[e])};
            else return area<T>(splat(left[e]), load(&all.layer_.p[column]), load(&all.layer_.q[column]), T(all.rate_));
        }
    };

    double& sum_of(Gradients<T>& out, Sum k, int n) const { return out.sums[static_cast<size_t>(k) * layer_.num + n]; }

    // integral_0^T e^{-kt} dt
    double rest(int b) const {
        return rate_ > 0 ? -std::expm1(-rate_ * batch_.duration[b]) / rate_ : batch_.duration[b];
    }

    // What bias and start add to the integral.
    T from_start(int b, int n) const {
        const Neuron& neuron = layer_.neurons[n];
        const double slow = neuron.p + rate_;
        return T(neuron.bias * rest(b) + double(layer_.start[n]) * -std::expm1(-slow * batch_.duration[b]) / slow);
    }

    const Batch<T>& batch_;
    const Layer<T>& layer_;
    const double rate_;
};

}  // namespace eventnet
