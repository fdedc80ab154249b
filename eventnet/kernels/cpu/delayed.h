// What both passes of delayed layers share: synapses with delays of their own, and windows of time.
#pragma once

#include "batch.h"

namespace eventnet {

// Weights (in, N) and delays with the strides of their kind: per synapse, per source or per target. Where a delay is infinite there is
// no synapse.
template <class T>
struct Delayed {
    const T* weight = nullptr;
    const T* delay = nullptr;
    int sources = 0, num = 0;  // num: of neurons
    int by_source = 0, by_target = 0;
    double shortest = INFINITY, longest = 0;
    double share = 1;  // of the synapses, are there

    Delayed() = default;
    Delayed(const T* w, int inputs, int n, const T* d, int rows, int columns)
        : weight(w), delay(d), sources(inputs), num(n), by_source(rows > 1 ? columns : 0), by_target(columns > 1 ? 1 : 0) {
        int64_t count = 0;
        for (int64_t k = 0; k < static_cast<int64_t>(rows) * columns; ++k)
            if (d[k] < T(INFINITY)) shortest = std::min<double>(shortest, d[k]), longest = std::max<double>(longest, d[k]), ++count;
        if (const double all = static_cast<double>(rows) * columns; all > 0) share = static_cast<double>(count) / all;
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
    int branches = 1;                 // of each neuron: cell k N + n of the layer is branch k of neuron n

    double longest() const { return std::max(input.longest, recurrent.longest); }
    int neurons(int cells) const { return cells / branches; }
};

// Synapses of a group of `width` neurons from each source, a vector of them after the other: an event reads a row in one go. Those with
// an infinite delay are not there. Rows are sparse where that saves vectors: otherwise vector v of every row is of the neurons from
// v kLanes on, which have their places in it even if they have no synapse.
template <class T>
class DelayedRows {
public:
    using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    static constexpr double kSparse = 0.75;  // share of the vectors that is left at most where rows are sparse

    // A vector of synapses: their weights, then their delays; and their neurons.
    static constexpr int kVector = 2 * kLanes<T>;
    struct Row {
        const T* data;
        const Int* neurons;
        int vectors;

        const T* vector(int v) const { return data + kVector * v; }
        // The place of a neuron's synapse in the row, which it has.
        int find(int neuron) const {
            const Int* const end = neurons + vectors * kLanes<T>;
            return static_cast<int>(std::lower_bound(neurons, end, static_cast<Int>(neuron)) - neurons);
        }
        T weight(int at) const { return data[at / kLanes<T> * kVector + at % kLanes<T>]; }
        T delay(int at) const { return data[at / kLanes<T> * kVector + kLanes<T> + at % kLanes<T>]; }
    };

    DelayedRows() = default;
    DelayedRows(const Delayed<T>& synapses, int columns, int width, bool may_be_sparse) : sources_(synapses.sources), width_(width) {
        if (!synapses.weight) return;
        const size_t groups = columns / width, rows = groups * sources_;
        starts_.assign(rows + 1, 0);
        for (size_t r = 0; r < rows; ++r) {
            int count = 0;
            for (int n = first(r); n < last(r, synapses.num); ++n) count += synapses.delay_of(r % sources_, n) < T(INFINITY);
            starts_[r + 1] = starts_[r] + (count + kLanes<T> - 1) / kLanes<T>;
        }
        sparse = may_be_sparse && static_cast<double>(starts_.back()) < kSparse * static_cast<double>(rows * (width / kLanes<T>));
        for (size_t r = 0; !sparse && r <= rows; ++r) starts_[r] = r * (width / kLanes<T>);
        data_.assign(starts_.back() * kVector, T(0)), neurons_.assign(sparse ? starts_.back() * kLanes<T> : width, Int(0));
        for (int c = 0; !sparse && c < width; ++c) neurons_[c] = c;
        for (size_t r = 0; r < rows; ++r) fill(synapses, r);
    }

    bool sparse = false;

    Row row(int group, int source) const {
        const size_t r = static_cast<size_t>(group) * sources_ + source, start = starts_[r];
        return {data_.data() + start * kVector, neurons_.data() + (sparse ? start * kLanes<T> : 0), static_cast<int>(starts_[r + 1] - start)};
    }

    // Numbers in the rows of a group, and in those before one of them.
    size_t size(int group) const { return sources_ ? before(group + 1) - before(group) : 0; }
    size_t place(int group, const Row& row) const { return row.data - data_.data() - before(group); }

private:
    size_t before(int group) const { return starts_[static_cast<size_t>(group) * sources_] * kVector; }
    int first(size_t r) const { return static_cast<int>(r / sources_) * width_; }
    int last(size_t r, int num) const { return std::min(first(r) + width_, num); }

    void fill(const Delayed<T>& synapses, size_t r) {
        const int j = static_cast<int>(r % sources_);
        T* const to = data_.data() + starts_[r] * kVector;
        size_t at = 0;
        for (int n = first(r); n < last(r, synapses.num); ++n) {
            const T delay = synapses.delay_of(j, n);
            if (sparse && !(delay < T(INFINITY))) continue;
            if (!sparse) at = n - first(r);
            else neurons_[starts_[r] * kLanes<T> + at] = n - first(r);
            T* const vector = to + at / kLanes<T> * kVector + at % kLanes<T>;
            vector[0] = synapses.weight_of(j, n), vector[kLanes<T>] = delay, ++at;
        }
        if (!sparse) return;
        for (; at < (starts_[r + 1] - starts_[r]) * kLanes<T>; ++at) {  // what fills the last vector never arrives
            to[at / kLanes<T> * kVector + kLanes<T> + at % kLanes<T>] = T(INFINITY);
            neurons_[starts_[r] * kLanes<T> + at] = static_cast<Int>(width_ + at % kLanes<T>);
        }
    }

    int sources_ = 0, width_ = 0;
    std::vector<size_t> starts_;  // vectors of each row
    Array<T> data_;
    Array<Int> neurons_;          // of each synapse, within its group; for what fills the last vector one after the group, each another:
                                  // sums of one and the same would have to wait for each other
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

// Neurons that hear only the input are looked at some vectors at a time: what belongs to these stays in the cache. Sparse rows fill
// their vectors if they are long; but there have to be samples enough for all threads.
template <class T>
int group_width(const Batch<T>& batch, int columns, const Delayed<T>& synapses, bool may_be_sparse, int threads) {
    if (may_be_sparse && synapses.share < DelayedRows<T>::kSparse && batch.size >= threads) return columns;
    int vectors = 4;
    while (columns % (vectors * kLanes<T>)) --vectors;
    return vectors * kLanes<T>;
}

// How many windows are in use at once, as a power of two.
template <class T>
int ring_of(const Batch<T>& batch, double length, double longest_delay) {
    double most = 1;
    for (int b = 0; b < batch.size; ++b) {
        const Windows windows(batch.duration[b], length);
        most = std::max(most, std::min(double(windows.count), longest_delay / windows.length + 3));
    }
    int ring = 1;
    while (ring < most) ring *= 2;
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
