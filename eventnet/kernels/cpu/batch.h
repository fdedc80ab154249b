// The arguments that all kernels share, padded to whole vectors; tables of decay factors; the cutting of a batch for threads.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "flow.h"

namespace eventnet {

struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct StormError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

[[noreturn]] inline void not_finite(int sample, int neuron) {
    throw Error("sample " + std::to_string(sample) + ", neuron " + std::to_string(neuron) +
                ": the voltage is not finite; weight or values hold NaN, inf or huge numbers");
}

// An array of float64 or float32 numbers, read as float64: a copy of all times would cost as much as the kernel's own memory.
struct Reals {
    const double* wide;
    const float* narrow;

    double operator[](int64_t i) const { return wide ? wide[i] : narrow[i]; }

    // Those in [from, to) as float64, for loops that the compiler can then vectorise.
    void copy(int64_t from, int64_t to, std::vector<double>& out) const {
        out.resize(to - from);
        if (wide) std::copy(wide + from, wide + to, out.begin());
        else std::copy(narrow + from, narrow + to, out.begin());
    }

    // The first of the sorted numbers [from, to) that is not below x.
    int64_t not_below(int64_t from, int64_t to, double x) const {
        return wide ? std::lower_bound(wide + from, wide + to, x) - wide : std::lower_bound(narrow + from, narrow + to, x) - narrow;
    }
};

// Events of a batch; sample b owns [offsets[b], offsets[b + 1]). values may be null: every event has size 1.
template <class T>
struct Batch {
    Reals times;
    const int32_t* units;
    const T* values;
    const int64_t* offsets;
    Reals duration;
    int size;
    int inputs;

    T value(int64_t e) const { return values ? values[e] : T(1); }

    // End of the events of sample b that count: those before the end of the trial.
    int64_t counted(int b) const {
        return times.not_below(offsets[b], offsets[b + 1], duration[b]);
    }
};

// One number for all neurons, or one for each.
template <class T>
struct Parameter {
    const T* data;
    bool shared;
    double operator[](int n) const { return data[shared ? 0 : n]; }
};

// A weight matrix (in, N), its columns padded to whole vectors; or (in, each, N): a unit's rows follow each other.
template <class T>
class Rows {
public:
    Rows(const T* weight, int inputs, int n, int each = 1)
        : columns_((n + kLanes<T> - 1) / kLanes<T> * kLanes<T>), stride_(each * columns_), data_(weight) {
        if (columns_ == size_t(n)) return;
        padded_.assign(inputs * stride_, T(0));
        for (int j = 0; j < inputs * each; ++j) std::copy_n(weight + static_cast<size_t>(j) * n, n, &padded_[j * columns_]);
        data_ = padded_.data();
    }
    Rows(const Rows&) = delete;

    const T* operator[](int unit) const { return data_ + unit * stride_; }

private:
    const size_t columns_, stride_;
    Array<T> padded_;
    const T* data_;
};

// The connections of the neurons to each other, with a delay for each source (or one for all).
template <class T>
struct Recurrent {
    Rows<T> weight;
    Parameter<T> delay;
    double shortest = INFINITY;

    Recurrent(const T* w, int n, Parameter<T> delays, int branches = 1) : weight(w, n, n, branches), delay(delays) {
        for (int m = 0; m < n; ++m) shortest = std::min(shortest, double(delay[m]));
    }
};

// Parameters of the neurons and their weights, columns padded to whole vectors. Padding never spikes.
template <class T>
struct Layer {
    int num, columns;
    bool shared;  // one pair of time constants for all neurons
    std::vector<Neuron> neurons;
    std::vector<Series<T>> series;  // of each neuron, one if the time constants are shared
    T brief = 0;                    // stretches up to here are summed as series
    Array<T> p, q, gap, rise, start, k_peak, s_peak;
    const Rows<T> row;  // of the weights

    Layer(const T* w, int inputs, int n, Parameter<T> tau_mem, Parameter<T> tau_syn, Parameter<T> threshold,
          Parameter<T> reset, Parameter<T> bias, int branches = 1)
        : num(n), columns((n + kLanes<T> - 1) / kLanes<T> * kLanes<T>), shared(tau_mem.shared && tau_syn.shared),
          p(columns, 1), q(columns, 1),
          gap(columns, T(1e30)), rise(columns, 0), start(columns, 0), k_peak(columns, 1), s_peak(columns, 1),
          row(w, inputs, n, branches) {
        neurons.reserve(n);
        for (int i = 0; i < n; ++i) {
            const double tm = tau_mem[i], ts = tau_syn[i];
            const Neuron& neuron = neurons.emplace_back(tm, ts, threshold[i], reset[i], bias[i]);
            p[i] = T(neuron.p);
            q[i] = T(neuron.q);
            gap[i] = T(neuron.gap);
            rise[i] = T(neuron.rise);
            start[i] = neuron.gap > 0 ? T(0) : T(neuron.rise);
            if (!shared || i == 0) series.emplace_back(neuron.p, neuron.q);
            if (shared && i > 0) {
                s_peak[i] = s_peak[0], k_peak[i] = k_peak[0];
                continue;
            }
            const double top = neuron.peak(0, 1);
            s_peak[i] = T(top);
            k_peak[i] = T(neuron.decay(top).k * (1 + 1e-6));
        }
        if (n > 0) brief = T(Series<T>::kReach * shortest_tau());
    }

    // Whether neuron n has no rest below its threshold: it starts at reset instead.
    bool restless(size_t n) const { return neurons[n].gap <= 0; }

    double shortest_tau() const {
        double tau = INFINITY;
        for (const Neuron& neuron : neurons) tau = std::min({tau, neuron.tm, neuron.ts});
        return tau;
    }
};

// Decay factors of the stretches s[0], s[1], ...: tabulated if all neurons share their time constants, otherwise computed where
// they are needed, a vector of neurons at a time.
template <class T, bool Shared>
class Table {
public:
    Array<T> s;  // make room, set the first n, then fill

    void make_room(size_t n, bool with_slopes = false) {
        n += kLanes<T>;  // for a whole vector from any place
        if (n > s.size()) s.resize(n);
        if constexpr (!Shared) return;
        if (n > x_.size()) for (auto* column : {&x_, &y_, &k_}) column->resize(n);
        if (with_slopes && n > x_tm_.size()) for (auto* column : {&x_tm_, &y_ts_, &k_tm_, &k_ts_}) column->resize(n);
    }

    void fill(size_t n, const Layer<T>& layer, bool with_slopes = false) {
        if constexpr (Shared) {
            store(&s[n], Vec<T>{});  // what was there before must not decide how the last few are computed
            const Vec<T> p = splat(T(layer.neurons[0].p)), q = splat(T(layer.neurons[0].q));
            for (size_t i = 0; i < n; i += kLanes<T>) {
                const bool brief = !not_less<T>(load(&s[i]), splat(layer.brief));
                const Decay<Vec<T>> f = brief ? layer.series[0].decay(load(&s[i])) : decay<T>(load(&s[i]), p, q);
                store(&x_[i], f.x), store(&y_[i], f.y), store(&k_[i], f.k);
                if (!with_slopes) continue;
                const TauSlope<Vec<T>> g = tau_slope<T>(load(&s[i]), p, q);
                store(&x_tm_[i], g.x_tm), store(&y_ts_[i], g.y_ts), store(&k_tm_[i], g.k_tm), store(&k_ts_[i], g.k_ts);
            }
        }
    }

    // Those of stretch i for a vector of neurons with rates p, q.
    Decay<Vec<T>> at(size_t i, Vec<T> p, Vec<T> q) const {
        if constexpr (Shared) return {splat(x_[i]), splat(y_[i]), splat(k_[i])};
        else return decay<T>(splat(s[i]), p, q);
    }

    // The same as numbers, where all neurons share them.
    Decay<T> one(size_t i) const { return {x_[i], y_[i], k_[i]}; }
    TauSlope<T> slope_one(size_t i) const { return {x_tm_[i], y_ts_[i], k_tm_[i], k_ts_[i]}; }

    // e^{s/ts} of stretch i, given y.
    Vec<T> growth(size_t i, Vec<T> y) const {
        if constexpr (Shared) return splat(T(1) / y_[i]);
        else return T(1) / y;
    }

    // Largest K within stretch i.
    Vec<T> k_max(size_t i, Vec<T> k, Vec<T> s_peak, Vec<T> k_peak) const { return select<T>(splat(s[i]) < s_peak, k, k_peak); }

private:
    Array<T> x_, y_, k_, x_tm_, y_ts_, k_tm_, k_ts_;
};

// How the batch is cut for threads: `chunks` ranges of samples with about equally many events, times `groups` ranges of
// columns where there are fewer samples than threads. Depends on the data and the thread count only, so runs repeat.
struct Split {
    std::vector<int> samples;  // chunk c owns [samples[c], samples[c + 1])
    std::vector<int> columns;  // group g owns [columns[g], columns[g + 1])
    int chunks() const { return static_cast<int>(samples.size()) - 1; }
    int groups() const { return static_cast<int>(columns.size()) - 1; }
    int jobs() const { return chunks() * groups(); }
};

template <class T>
Split split(const Batch<T>& batch, int columns, int threads) {
    const int64_t events = batch.offsets[batch.size];
    if (static_cast<double>(events + batch.size) * columns < 3e4) threads = 1;  // less work than waking a thread costs
    Split s;
    const int chunks = std::max(1, std::min(threads, batch.size));
    s.samples.push_back(0);
    for (int c = 1; c < chunks; ++c) {
        const int64_t target = events * c / chunks;
        const int b = static_cast<int>(std::lower_bound(batch.offsets, batch.offsets + batch.size, target) - batch.offsets);
        s.samples.push_back(std::max(b, s.samples.back()));
    }
    s.samples.push_back(batch.size);
    const int vectors = columns / kLanes<T>;
    const int groups = batch.size < threads ? std::min(vectors, threads / std::max(chunks, 1)) : 1;
    for (int g = 0; g <= std::max(groups, 1); ++g) s.columns.push_back(vectors * g / std::max(groups, 1) * kLanes<T>);
    return s;
}

}  // namespace eventnet
