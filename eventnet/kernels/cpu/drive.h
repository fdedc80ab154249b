// Neurons under piecewise-constant currents, without synapses: their spikes, and the gradients of spike times and voltages.
//
//     tm V' = e - V,   with a target e = bias + current that is constant over each step
//
// Over a step V goes to e + (V - e) exp(-dt / tm), a multiplication and an addition per neuron. Only neurons that this takes to
// the threshold, or that a spike holds at reset, look closer: from v the threshold is tm log(1 + (threshold - v) / (e - threshold))
// away. The way back is linear: p = dL/dV at the end of a step is p exp(-dt / tm) at its start, the target gets the rest of it;
// a spike turns p into what moving it costs.
#pragma once

#include <algorithm>
#include <atomic>
#include <utility>

#include "batch.h"
#include "parallel.h"

namespace eventnet {

// Targets (T, B, N) and what the neurons have of their own; threshold > reset.
template <class T>
struct Driven {
    int64_t steps;
    int batch, num;
    const T* target;
    Parameter<T> tau_mem, threshold, reset, refractory, start;
    double dt;

    size_t row(int64_t k, int b) const { return (size_t(k) * batch + b) * num; }
    int columns() const { return (num + kLanes<T> - 1) / kLanes<T> * kLanes<T>; }
    double time(int64_t k) const { return k * dt; }

    // The step that holds a time: its start is not after it, its end is.
    int64_t step_of(double at) const {
        int64_t k = std::max(int64_t(0), int64_t(std::min(at / dt, double(steps))));
        while (k > 0 && time(k) > at) --k;
        while (k < steps && time(k + 1) <= at) ++k;
        return k;
    }

    bool pauses() const {
        for (int n = 0; n < num; ++n)
            if (refractory[n] > 0) return true;
        return false;
    }

    // One number for each neuron, zeros for the padding.
    template <class F>
    Array<T> each(F of, T rest = 0) const {
        Array<T> x(columns(), rest);
        for (int n = 0; n < num; ++n) x[n] = T(of(n));
        return x;
    }

    int useful_threads(int threads) const { return double(steps) * batch * num < 3e4 ? 1 : std::min(threads, batch); }
};

// A vector of which only `count` numbers are there.
template <class T>
inline Vec<T> load_some(const T* p, int count) {
    if (count >= kLanes<T>) return load(p);
    Vec<T> v{};
    std::memcpy(&v, p, count * sizeof(T));
    return v;
}

template <class T>
inline void store_some(T* p, Vec<T> v, int count) {
    std::memcpy(p, &v, std::min(count, kLanes<T>) * sizeof(T));
}

struct Fired {
    double time;
    int unit;
    int64_t step;
};

template <class T>
class DriveForward {
public:
    DriveForward(const Driven<T>& layer, int64_t max_spikes)
        : layer_(layer), max_spikes_(max_spikes), pauses_(layer.pauses()),
          keep_(layer.each([&](int n) { return std::exp(-layer.dt / layer.tau_mem[n]); })),
          top_(layer.each([&](int n) { return layer.threshold[n]; }, T(1e30))) {}

    // Spikes of each sample in their order; the voltages at the ends of the steps (T, B, N) if asked for.
    std::vector<std::vector<Fired>> run(T* voltage, int threads) {
        std::vector<std::vector<Fired>> found(layer_.batch);
        parallel_for(layer_.batch, layer_.useful_threads(threads), [&](int b) { Sample(*this, b, found[b]).run(voltage); });
        return found;
    }

private:
    struct Sample {
        DriveForward& all;
        const Driven<T>& layer = all.layer_;
        const int b;
        std::vector<Fired>& out;
        Array<T> v, held;          // held: 1 while a voltage waits at reset
        std::vector<double> free;  // until then
        int64_t uncounted = 0;

        Sample(DriveForward& every, int sample, std::vector<Fired>& spikes)
            : all(every), b(sample), out(spikes), v(layer.each([&](int n) { return layer.start[n]; })), held(layer.columns()), free(layer.num) {}

        void run(T* voltage) {
            for (int64_t k = 0; k < layer.steps; ++k) {
                const size_t first = out.size();
                step(k, layer.target + layer.row(k, b));
                if (voltage) std::copy_n(v.data(), layer.num, voltage + layer.row(k, b));
                std::sort(out.begin() + first, out.end(),
                          [](const Fired& x, const Fired& y) { return x.time != y.time ? x.time < y.time : x.unit < y.unit; });
            }
            for (int n = 0; n < layer.num; ++n)
                if (!std::isfinite(v[n])) not_finite(b, n);
            count();
        }

        void step(int64_t k, const T* target) {
            for (int n = 0; n < layer.num; n += kLanes<T>) {
                const Vec<T> e = load_some(target + n, layer.num - n), before = load(&v[n]), after = e + (before - e) * load(&all.keep_[n]);
                store(&v[n], after);
                uint32_t lanes = not_less<T>(after, load(&all.top_[n]));
                if (all.pauses_) lanes |= not_less<T>(load(&held[n]), splat(T(1)));
                for (; lanes; lanes &= lanes - 1) {
                    const int l = __builtin_ctz(lanes);
                    v[n + l] = T(closely(k, n + l, e[l], before[l]));
                }
            }
        }

        // The voltage of a neuron at the end of a step that starts at v, spike by spike.
        double closely(int64_t k, int n, double e, double v) {
            if (!std::isfinite(e) || !std::isfinite(v)) not_finite(b, n);
            const double top = layer.threshold[n], reset = layer.reset[n], tau = layer.tau_mem[n], pause = layer.refractory[n];
            const double end = layer.time(k + 1);
            double now = layer.time(k);
            if (held[n] > 0) {
                if (free[n] >= end) return reset;
                now = free[n], held[n] = 0;
            }
            while (e > top) {
                const double wait = v < top ? tau * std::log1p((top - v) / (e - top)) : 0;
                if (now + wait > end) break;
                now += wait, v = reset;
                out.push_back({now, n, k});
                if (++uncounted > 1 << 12) count();
                if (pause <= 0) continue;
                free[n] = now + pause;
                if (free[n] >= end) return held[n] = 1, reset;
                now = free[n];
            }
            return e + (v - e) * std::exp((now - end) / tau);
        }

        // Keeps the total of all threads below the limit, also while a single step goes on and on.
        void count() {
            if ((all.total_ += uncounted) > all.max_spikes_) throw StormError(std::to_string(b));
            uncounted = 0;
        }
    };

    const Driven<T>& layer_;
    const int64_t max_spikes_;
    const bool pauses_;
    const Array<T> keep_, top_;  // exp(-dt / tm), threshold
    std::atomic<int64_t> total_{0};
};

// Rows of the sums over the batch, one number for each neuron in each.
enum { kDriveTauMem, kDriveThreshold, kDriveReset, kDriveRefractory, kDriveStart, kDriveSums };

// What the forward pass found, and the gradients of it.
template <class T>
struct DriveRun {
    const double* times;
    const int32_t* units;
    const int64_t *offsets, *steps;
    const T* voltage;     // at the ends of the steps; null: the gradient of tau_mem is not needed
    Reals of_times;       // of the loss
    const T* of_voltage;  // null: none
    double slope_floor;
};

template <class T>
class DriveAdjoint {
public:
    DriveAdjoint(const Driven<T>& layer, const DriveRun<T>& run)
        : layer_(layer), run_(run), keep_(layer.each([&](int n) { return std::exp(-layer.dt / layer.tau_mem[n]); })),
          lose_(layer.each([&](int n) { return -std::expm1(-layer.dt / layer.tau_mem[n]); })) {}

    // Fills the gradient of the targets and adds to the sums, (kDriveSums, N).
    void run(T* of_target, double* sums, int threads) const {
        const int parts = std::max(1, layer_.useful_threads(threads));
        const size_t size = size_t(kDriveSums) * layer_.num;
        std::vector<double> own(parts * size);
        parallel_for(parts, threads, [&](int part) {  // of the samples: sums in the same order each time
            for (int b = int(int64_t(layer_.batch) * part / parts), end = int(int64_t(layer_.batch) * (part + 1) / parts); b < end; ++b)
                Sample(*this, b, of_target, &own[part * size]).run();
        });
        for (size_t i = 0; i < own.size(); ++i) sums[i % size] += own[i];
    }

private:
    struct Sample {
        const DriveAdjoint& all;
        const Driven<T>& layer = all.layer_;
        const DriveRun<T>& found = all.run_;
        const int b;
        T* const of_target;
        double* const sums;
        const size_t padded;
        Array<T> p, open, held, of_tau, of_reset;  // p = dL/dV; a voltage is open to it or held at reset
        std::vector<int64_t> last, earlier;        // of each neuron the spike to come; of each spike the one before
        std::vector<double> carried;               // what the end of a pause adds to the gradient of its spike
        std::vector<std::pair<int64_t, int>> marks;  // steps in which neurons spike or are released, ascending
        struct Now {
            int n;
            T p, open, of_target;
        };
        std::vector<Now> busy;

        Sample(const DriveAdjoint& every, int sample, T* out, double* totals)
            : all(every), b(sample), of_target(out), sums(totals), padded(layer.columns()), p(padded), open(padded, T(1)), held(padded),
              of_tau(padded), of_reset(padded), last(layer.num, -1), earlier(found.offsets[b + 1] - found.offsets[b]), carried(layer.num) {}

        void run() {
            look();
            for (int64_t k = layer.steps - 1; k >= 0; --k) {
                const size_t row = layer.row(k, b);
                busy.clear();
                for (; !marks.empty() && marks.back().first == k; marks.pop_back()) {
                    const int n = marks.back().second;
                    if (busy.empty() || busy.back().n != n) closely(k, n, row);
                }
                step(row);
                for (const Now& x : busy) p[x.n] = x.p, open[x.n] = x.open, held[x.n] = 1 - x.open, of_target[row + x.n] = x.of_target;
            }
            for (int n = 0; n < layer.num; ++n) {
                const double tau = layer.tau_mem[n];
                add(kDriveTauMem, n, of_tau[n] * layer.dt / (tau * tau)), add(kDriveReset, n, of_reset[n]), add(kDriveStart, n, p[n]);
            }
        }

        double release(int64_t spike) const { return found.times[spike] + layer.refractory[found.units[spike]]; }

        void look() {
            for (int64_t i = found.offsets[b]; i < found.offsets[b + 1]; ++i) {
                const int n = found.units[i];
                const int64_t later = layer.step_of(release(i));
                earlier[i - found.offsets[b]] = last[n], last[n] = i;
                marks.emplace_back(found.steps[i], n);
                if (later < layer.steps && later != found.steps[i]) marks.emplace_back(later, n);
            }
            std::sort(marks.begin(), marks.end());
            for (int n = 0; n < layer.num; ++n)
                if (last[n] >= 0 && layer.step_of(release(last[n])) >= layer.steps) open[n] = 0, held[n] = 1;
        }

        // A step of all neurons; those that are busy take no part.
        void step(size_t row) {
            for (int n = 0; n < layer.num; n += kLanes<T>) {
                const int count = layer.num - n;
                Vec<T> at_end = load(&p[n]);
                if (found.of_voltage) {
                    const Vec<T> of_v = load_some(found.of_voltage + row + n, count);
                    at_end += of_v * load(&open[n]);
                    store(&of_reset[n], load(&of_reset[n]) + of_v * load(&held[n]));
                }
                store_some(of_target + row + n, at_end * load(&all.lose_[n]), count);
                store(&p[n], at_end * load(&all.keep_[n]));
                if (!found.voltage) continue;
                const Vec<T> above = load_some(found.voltage + row + n, count) - load_some(layer.target + row + n, count);
                store(&of_tau[n], load(&of_tau[n]) + at_end * above);
            }
        }

        // A step of a neuron that spikes in it or is released, from its end to its start.
        void closely(int64_t k, int n, size_t row) {
            const double e = layer.target[row + n], tau = layer.tau_mem[n], top = layer.threshold[n], reset = layer.reset[n];
            double at = p[n], of_e = 0, later = layer.time(k + 1), above = found.voltage ? found.voltage[row + n] - e : 0;
            bool is_open = open[n] > 0;
            if (found.of_voltage) {
                if (is_open) at += found.of_voltage[row + n];
                else add(kDriveReset, n, found.of_voltage[row + n]);
            }
            const auto back_to = [&](double from) {  // over a stretch without spikes
                const double h = std::max(later - from, 0.0);
                of_e -= at * std::expm1(-h / tau);
                add(kDriveTauMem, n, at * above * h / (tau * tau));
                at *= std::exp(-h / tau);
            };
            for (int64_t& i = last[n]; i >= 0; i = earlier[i - found.offsets[b]]) {
                if (is_open) {
                    if (layer.step_of(release(i)) < k) break;
                    back_to(release(i));
                    carried[n] = at * (e - reset) / tau;
                    add(kDriveReset, n, at), add(kDriveRefractory, n, -carried[n]);
                    is_open = false, at = 0;
                }
                if (found.steps[i] < k) break;
                at = (carried[n] - found.of_times[i]) / std::max((e - top) / tau, found.slope_floor);  // p before the spike is -G / slope
                add(kDriveThreshold, n, -at);
                later = found.times[i], above = top - e, is_open = true, carried[n] = 0;
            }
            if (is_open) back_to(layer.time(k));
            busy.push_back({n, T(at), T(is_open), T(of_e)});
            p[n] = open[n] = held[n] = 0;
        }

        void add(int which, int n, double amount) { sums[size_t(which) * layer.num + n] += amount; }
    };

    const Driven<T>& layer_;
    const DriveRun<T>& run_;
    const Array<T> keep_, lose_;  // exp(-dt / tm) and what is missing to 1
};

}  // namespace eventnet
