// What both passes of delayed layers share: synapses with delays of their own, and windows of time.
#pragma once

#include "batch.h"

namespace eventnet {

// Weights (in, N) and delays with the strides of their kind: per synapse, per source or per target.
template <class T>
struct Delayed {
    const T* weight = nullptr;
    const T* delay = nullptr;
    int sources = 0, num = 0;  // num: of neurons
    int by_source = 0, by_target = 0;
    double shortest = INFINITY, longest = 0;

    Delayed() = default;
    Delayed(const T* w, int inputs, int n, const T* d, int rows, int columns)
        : weight(w), delay(d), sources(inputs), num(n), by_source(rows > 1 ? columns : 0), by_target(columns > 1 ? 1 : 0) {
        for (int k = 0; k < rows * columns; ++k) shortest = std::min<double>(shortest, d[k]), longest = std::max<double>(longest, d[k]);
        if (inputs == 0 || n == 0) shortest = 0;
    }

    T weight_of(int j, int n) const { return weight[static_cast<size_t>(j) * num + n]; }
    T delay_of(int j, int n) const { return delay[static_cast<size_t>(j) * by_source + n * by_target]; }
};

// One number for all, one for each neuron, or one for each sample and neuron.
template <class T>
struct Start {
    const T* data;
    int by_sample, by_neuron;
    double operator()(int b, int n) const { return data[static_cast<size_t>(b) * by_sample + n * by_neuron]; }
};

// What only these kernels know of a layer.
template <class T>
struct Options {
    Delayed<T> input, recurrent;  // recurrent.weight is null where there is none
    Parameter<T> refractory;
    Start<T> voltage, current, held;  // at time 0; seconds for which the voltage is still held

    double longest() const { return std::max(input.longest, recurrent.longest); }
};

// Weights and delays of a group of `width` neurons from each source, side by side: an event reads them in one go.
template <class T>
class DelayedRows {
public:
    DelayedRows() = default;
    DelayedRows(const Delayed<T>& synapses, int columns, int width) : sources_(synapses.sources), width_(width) {
        if (!synapses.weight) return;
        data_.assign(static_cast<size_t>(2) * sources_ * columns, T(0));
        for (int j = 0; j < sources_; ++j)
            for (int n = 0; n < synapses.num; ++n) {
                T* const to = &data_[2 * width * (static_cast<size_t>(n / width) * sources_ + j) + n % width];
                to[0] = synapses.weight_of(j, n), to[width] = synapses.delay_of(j, n);
            }
    }

    // The weights, then the delays.
    const T* row(int group, int source) const { return &data_[2 * width_ * (static_cast<size_t>(group) * sources_ + source)]; }

private:
    int sources_ = 0, width_ = 0;
    Array<T> data_;
};

// An event from before the trial, at time -d: of its arrivals only those with a delay of d or more are to come.
template <class T>
T shortest_to_come(double time) {
    if (time >= 0) return T(0);
    const T delay = T(-time);
    return double(delay) < -time ? std::nextafter(delay, T(INFINITY)) : delay;
}

// Equal windows over a trial.
struct Windows {
    int count;
    double length, duration;

    Windows(double trial, double longest)
        : count(std::max(1, static_cast<int>(std::ceil(trial / longest)))), length(trial / count), duration(trial) {}

    double start(int w) const { return w * length; }
    double end(int w) const { return w + 1 == count ? duration : (w + 1) * length; }
};

// How long windows may be: exponentials over one of them are short polynomials and bounds stay tight, but there are not more than
// memory and time allow.
template <class T>
double window_length(const Batch<T>& batch, const Layer<T>& layer, double longest_delay) {
    constexpr double kArrivals = 8, kOnTheirWay = 1024, kPerTrial = 32768;
    double total = 0, longest = 0;
    for (int b = 0; b < batch.size; ++b) total += batch.duration[b], longest = std::max(longest, batch.duration[b]);
    const double events = static_cast<double>(batch.offsets[batch.size]);
    double length = Series<T>::kReach * layer.shortest_tau();
    if (events > 0 && total > 0) length = std::min(length, kArrivals * total / events);
    return std::max({length, std::min(longest_delay, longest) / kOnTheirWay, longest / kPerTrial});
}

// Neurons that hear only the input are looked at some vectors at a time: what belongs to these stays in the cache.
template <class T>
int group_width(int columns) {
    int vectors = 4;
    while (columns % (vectors * kLanes<T>)) --vectors;
    return vectors * kLanes<T>;
}

// How many windows are in use at once, as a power of two. A sample's windows are shorter than `length`, by less than half.
template <class T>
int ring_of(const Batch<T>& batch, double length, double longest_delay) {
    double trial = 0;
    for (int b = 0; b < batch.size; ++b) trial = std::max(trial, batch.duration[b]);
    int ring = 1;
    while (ring < std::min(2 * longest_delay / length + 3, 2 * trial / length + 3)) ring *= 2;
    return ring;
}

// The polynomials of decays over a window for each vector of neurons, from the highest power to the lowest: y, k, then x.
template <class T>
class Decays {
public:
    static constexpr int kTerms = sizeof(T) == 4 ? 7 : 14;  // as many as rounding leaves room for

    explicit Decays(const Layer<T>& layer) : each_(layer.shared ? 0 : 3 * kTerms * kLanes<T>) {
        coefficients_.resize(layer.shared ? 3 * kTerms * kLanes<T> : static_cast<size_t>(3 * kTerms) * layer.columns);
        const int columns = layer.shared ? kLanes<T> : layer.columns;
        for (int c = 0; c < columns; ++c) {
            const Series<T>& series = layer.series[std::min<size_t>(layer.shared ? 0 : c, layer.series.size() - 1)];
            T* const to = &coefficients_[c / kLanes<T> * 3 * kTerms * kLanes<T> + c % kLanes<T>];
            for (int n = 0; n < kTerms; ++n) {
                to[n * kLanes<T>] = series.y(kTerms - 1 - n);
                to[(kTerms + n) * kLanes<T>] = series.k(kTerms - 1 - n);
                to[(2 * kTerms + n) * kLanes<T>] = series.x(kTerms - 1 - n);
            }
        }
    }

    // Of the vector of neurons that starts at column c.
    const T* of(int c) const { return &coefficients_[c / kLanes<T> * each_]; }

private:
    const size_t each_;
    Array<T> coefficients_;
};

}  // namespace eventnet
