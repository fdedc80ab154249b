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

// With a = slow h and b = fast h below kNear: M = integral_0^h G, G = (e^{-slow s} - e^{-fast s}) / (fast - slow), as the series
// h^2 sum_n (-1)^n H_n / (n+2)! with H_n = a^n + a^{n-1} b + ... + b^n; and its derivatives in both rates.
template <class V>
struct Mass {
    V value, by_slow, by_fast;
};

template <class T>
inline Mass<Vec<T>> mass_series(Vec<T> h, Vec<T> a, Vec<T> b) {
    constexpr int kTerms = sizeof(T) == 4 ? 8 : 16;
    Vec<T> all = splat(T(1)), by_a{}, by_b{}, powers = all;  // H_n, its derivatives, b^n
    Mass<Vec<T>> m{splat(T(0.5)), {}, {}};
    T coefficient = T(0.5);
    for (int n = 1; n < kTerms; ++n) {
        coefficient /= -T(n + 2);
        by_a = all + a * by_a, by_b = all + b * by_b;
        powers *= b;
        all = a * all + powers;
        m.value += coefficient * all, m.by_slow += coefficient * by_a, m.by_fast += coefficient * by_b;
    }
    const Vec<T> square = h * h;
    return {square * m.value, square * h * m.by_slow, square * h * m.by_fast};
}

template <class T>
inline Area<Vec<T>> area(Vec<T> h, Vec<T> p, Vec<T> q, T k, bool with_taus) {
    const Vec<T> slow = p + k, fast = q + k;
    const Decay<Vec<T>> f = decay<T>(h, slow, fast);  // f.k = slow G, with G symmetric in both rates
    const Vec<T> kernel = f.k / slow, filled = decay_area<T>(fast, h);
    const auto near = h * max<T>(slow, fast) < T(kNear);  // there the differences below would cancel
    const Mass<Vec<T>> series = mass_series<T>(h, h * slow, h * fast);
    const Vec<T> mass = select<T>(near, series.value, (filled - kernel) / slow);
    Area<Vec<T>> a{p * mass, p * kernel, {}, {}};
    if (!with_taus) return a;
    const TauSlope<Vec<T>> g = tau_slope<T>(h, slow, fast);
    const Vec<T> kernel_by_slow = -(g.k_tm / (slow * slow) + kernel) / slow, kernel_by_fast = -g.k_ts / (fast * fast * slow);
    const Vec<T> by_slow = select<T>(near, series.by_slow, -(mass + kernel_by_slow) / slow);
    const Vec<T> by_fast = select<T>(near, series.by_fast, ((h * f.y - filled) / fast - kernel_by_fast) / slow);
    a.by_tm = -p * p * (mass + p * by_slow);
    a.by_ts = -q * q * p * by_fast;
    return a;
}

template <class T, bool Shared>
class LiIntegral {
public:
    LiIntegral(const Batch<T>& batch, const Layer<T>& layer, double rate) : batch_(batch), layer_(layer), rate_(rate) {}

    // out (B, N): sum over arrivals of value * area * weight, and what bias and start add.
    void forward(T* out, int threads) const {
        const Split parts = split(batch_, layer_.columns, threads);
        parallel_for(parts.jobs(), threads, [&](int job) {
            const int chunk = job / parts.groups(), group = job % parts.groups();
            const int from = parts.columns[group], to = parts.columns[group + 1];
            Arrivals arrivals(*this, false);
            Array<T> total(layer_.columns);
            for (int b = parts.samples[chunk]; b < parts.samples[chunk + 1]; ++b) {
                arrivals.fill(b);
                std::fill(total.begin() + from, total.begin() + to, T(0));
                for (size_t i = 0; i < arrivals.units.size(); ++i) {
                    const T* row = layer_.row[arrivals.units[i]];
                    for (int column = from; column < to; column += kLanes<T>)
                        store(&total[column], load(&total[column]) + arrivals.size(i) * arrivals.at(i, column).value * load(row + column));
                }
                const double whole = rest(b);
                for (int n = from; n < std::min(to, layer_.num); ++n) {
                    if (!std::isfinite(total[n])) not_finite(b, n);
                    out[static_cast<size_t>(b) * layer_.num + n] = total[n] + from_start(b, n, whole);
                }
            }
        });
    }

    // grad (B, N) of the output -> gradients.
    void backward(const T* grad, Gradients<T> out, bool with_taus, int threads) const {
        const Split parts = split(batch_, layer_.columns, threads);
        const size_t columns = layer_.columns;
        std::vector<Array<T>> weights(parts.chunks()), taus(parts.chunks());
        parallel_for(parts.chunks(), threads, [&](int chunk) {
            weights[chunk].assign(batch_.inputs * columns, T(0)), taus[chunk].assign(2 * columns, T(0));
            T *const weight = weights[chunk].data(), *const tau_mem = taus[chunk].data(), *const tau_syn = tau_mem + columns;
            Arrivals arrivals(*this, with_taus);
            Array<T> g(columns, T(0));
            for (int b = parts.samples[chunk]; b < parts.samples[chunk + 1]; ++b) {
                arrivals.fill(b);
                std::copy_n(grad + static_cast<size_t>(b) * layer_.num, layer_.num, g.begin());
                for (size_t i = 0; i < arrivals.units.size(); ++i) {
                    const size_t row = arrivals.units[i] * columns;
                    const T size = arrivals.size(i);
                    Vec<T> plain{}, by_value{}, by_h{};
                    for (size_t column = 0; column < columns; column += kLanes<T>) {
                        const Area<Vec<T>> a = arrivals.at(i, column);
                        const Vec<T> g0 = load(&g[column]), pull = g0 * load(layer_.row[arrivals.units[i]] + column);
                        store(weight + row + column, load(weight + row + column) + size * g0 * a.value);
                        plain += pull, by_value += pull * a.value, by_h += pull * a.by_h;
                        if (!with_taus) continue;
                        store(tau_mem + column, load(tau_mem + column) + size * pull * a.by_tm);
                        store(tau_syn + column, load(tau_syn + column) + size * pull * a.by_ts);
                    }
                    arrivals.pull(i, plain, by_value, by_h);
                }
                arrivals.gradients(out);
            }
        });
        for (int chunk = 0; chunk < parts.chunks(); ++chunk) {  // in a fixed order: runs repeat bit for bit
            for (int j = 0; j < batch_.inputs; ++j)
                for (int n = 0; n < layer_.num; ++n) out.weight[static_cast<size_t>(j) * layer_.num + n] += weights[chunk][j * columns + n];
            for (int n = 0; n < layer_.num; ++n) {
                sum_of(out, kTauMem, n) += taus[chunk][n];
                sum_of(out, kTauSyn, n) += taus[chunk][columns + n];
            }
        }
        for (int b = 0; b < batch_.size; ++b) {
            const double whole = rest(b), h = batch_.duration[b];
            for (int n = 0; n < layer_.num; ++n) {
                const double g = grad[static_cast<size_t>(b) * layer_.num + n];
                sum_of(out, kBefore, n) += g * whole;
                if (!layer_.restless(n)) continue;
                const double p = layer_.neurons[n].p, slow = p + rate_, filled = -std::expm1(-slow * h) / slow;
                sum_of(out, kStart, n) += g * filled;
                sum_of(out, kStartTau, n) += g * p * p * (filled - h * std::exp(-slow * h)) / slow;
            }
        }
    }

private:
    // The arrivals of one sample and their areas: added up for each active input if all neurons share their time constants,
    // else one by one.
    class Arrivals {
    public:
        std::vector<int> units;  // the inputs

        Arrivals(const LiIntegral& all, bool with_taus)
            : batch_(all.batch_), layer_(all.layer_), rate_(T(all.rate_)), with_taus_(with_taus), place_(batch_.inputs, -1) {}

        void fill(int b) {
            first_ = batch_.offsets[b], count_ = batch_.counted(b) - first_;
            const size_t room = (count_ + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
            for (auto* x : {&left_, &discount_}) x->assign(room, T(0));
            for (int64_t e = 0; e < count_; ++e) {
                left_[e] = T(batch_.duration[b] - batch_.times[first_ + e]);
                discount_[e] = T(batch_.times[first_ + e]);
            }
            for (size_t e = 0; e < room; e += kLanes<T>) store(&discount_[e], exp(load(&discount_[e]) * -rate_));
            if constexpr (Shared) add_up(room);
            else units.assign(batch_.units + first_, batch_.units + first_ + count_);
            pull_.assign(units.size(), T(0)), pull_by_h_.assign(units.size(), T(0));
        }

        // Area of sum i, discounted, for a vector of neurons; the value of the arrival that it is to be multiplied with.
        Area<Vec<T>> at(size_t i, int column) const {
            if constexpr (Shared) return {splat(sums_[i].value), splat(sums_[i].by_h), splat(sums_[i].by_tm), splat(sums_[i].by_ts)};
            const Area<Vec<T>> a = area<T>(splat(left_[i]), load(&layer_.p[column]), load(&layer_.q[column]), rate_, with_taus_);
            const T x = discount_[i];
            return {x * a.value, x * a.by_h, x * a.by_tm, x * a.by_ts};
        }

        T size(size_t i) const { return Shared ? T(1) : batch_.value(first_ + i); }

        // Takes what neurons send back to sum i: grad times weight, and with each neuron's own area.
        void pull(size_t i, Vec<T> plain, Vec<T> by_value, Vec<T> by_h) {
            pull_[i] = sum<T>(Shared ? plain : by_value);
            if (!Shared) pull_by_h_[i] = sum<T>(by_h);
        }

        // Gradients of times and values. Later by dt, an arrival has dt less and is discounted more.
        void gradients(const Gradients<T>& out) const {
            if (!out.times && !out.values) return;
            for (int64_t e = 0; e < count_; ++e) {
                const int i = Shared ? place_of_[e] : int(e);
                const double by_value = Shared ? double(pull_[i]) * value_[e] : double(pull_[i]);
                const double by_h = Shared ? double(pull_[i]) * by_h_[e] : double(pull_by_h_[i]);
                if (out.times) out.times[first_ + e] = -double(batch_.value(first_ + e)) * (by_h + rate_ * by_value);
                if (out.values) out.values[first_ + e] = by_value;
            }
        }

    private:
        void add_up(size_t room) {
            for (const int unit : units) place_[unit] = -1;
            units.clear(), sums_.clear(), place_of_.resize(count_);
            value_.resize(room), by_h_.resize(room);
            const Vec<T> p = splat(T(layer_.neurons[0].p)), q = splat(T(layer_.neurons[0].q));
            for (int64_t e = 0; e < count_; e += kLanes<T>) {
                const Area<Vec<T>> a = area<T>(load(&left_[e]), p, q, rate_, with_taus_);
                const Vec<T> x = load(&discount_[e]);
                store(&value_[e], x * a.value), store(&by_h_[e], x * a.by_h);
                for (int l = 0; l < std::min<int64_t>(kLanes<T>, count_ - e); ++l) {
                    int& place = place_[batch_.units[first_ + e + l]];
                    if (place < 0) {
                        place = int(units.size());
                        units.push_back(batch_.units[first_ + e + l]);
                        sums_.push_back({});
                    }
                    place_of_[e + l] = place;
                    Area<T>& sum = sums_[place];
                    const T size = batch_.value(first_ + e + l);
                    sum.value += size * value_[e + l];
                    if (with_taus_) sum.by_tm += size * x[l] * a.by_tm[l], sum.by_ts += size * x[l] * a.by_ts[l];
                }
            }
        }

        const Batch<T>& batch_;
        const Layer<T>& layer_;
        const T rate_;
        const bool with_taus_;
        int64_t first_ = 0, count_ = 0;
        Array<T> left_, discount_;  // of each arrival: time left, e^{-rate t}
        Array<T> pull_, pull_by_h_;
        // where neurons share their time constants
        Array<T> value_, by_h_;  // of each arrival
        std::vector<int> place_of_;    // of each arrival: its sum
        std::vector<int> place_;       // of each input: its sum, or -1
        std::vector<Area<T>> sums_;
    };

    double& sum_of(Gradients<T>& out, Sum k, int n) const { return out.sums[static_cast<size_t>(k) * layer_.num + n]; }

    // integral_0^T e^{-kt} dt
    double rest(int b) const {
        return rate_ > 0 ? -std::expm1(-rate_ * batch_.duration[b]) / rate_ : batch_.duration[b];
    }

    // What bias and start add to the integral, given that of e^{-kt}.
    T from_start(int b, int n, double whole) const {
        const Neuron& neuron = layer_.neurons[n];
        if (!layer_.restless(n)) return T(neuron.bias * whole);
        const double slow = neuron.p + rate_;
        return T(neuron.bias * whole + neuron.rise * -std::expm1(-slow * batch_.duration[b]) / slow);
    }

    const Batch<T>& batch_;
    const Layer<T>& layer_;
    const double rate_;
};

}  // namespace eventnet
