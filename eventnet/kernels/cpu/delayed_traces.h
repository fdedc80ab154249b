// Gradients of delayed synapses impulse by impulse: each adds up what arrived before it.
//
//   dL/dw_jn = sum_k size_k sum_e value_e K(s),   dL/dd_jn = w_jn sum_k size_k sum_e value_e (K(s) / ts - e^{-s/tm} / tm)
// over the events e of input j with s = t_k - t_e - d_jn > 0. Exponentials of a sum are products: the part of the delay waits until the
// end. Events older than the longest delay have arrived at every neuron: a trace for each input holds all of them. Only those since
// then are compared with delays. A layer speaks less than it hears, so this is less work than to look at each arrival.
#pragma once

#include "delayed.h"

namespace eventnet {

template <class T>
class DelayedTraces {
public:
    // Whether this is less work than to look at each arrival. All events have to be of the trial and of the input, and factors of the
    // longest delay within float32.
    static bool pays(const Batch<T>& batch, const Layer<T>& layer, const Delayed<T>& synapses, const int64_t* spikes) {
        if (!layer.shared || synapses.longest > kReach * layer.shortest_tau()) return false;
        double pairs = 0, arrivals = 0;
        for (int b = 0; b < batch.size; ++b) {
            const int64_t first = batch.offsets[b], events = batch.offsets[b + 1] - first, impulses = spikes[b + 1] - spikes[b];
            if (events == 0) continue;
            for (int64_t e = first; e < first + events && batch.times[e] <= 0; ++e)
                if (batch.times[e] < 0 || batch.units[e] >= batch.inputs) return false;
            const double waiting = events * std::min(1.0, synapses.longest / batch.duration[b]);
            const double blocks = batch.duration[b] / block_of_time(layer, synapses);
            if (!(blocks < kMostBlocks)) return false;
            pairs += impulses * waiting + (impulses + blocks) * kPerInput * synapses.sources;
            arrivals += synapses.share * events * synapses.num;
        }
        return pairs + static_cast<double>(synapses.sources) * synapses.num < arrivals;
    }

    DelayedTraces() = default;
    // For neurons [begin, begin + width) and all inputs.
    DelayedTraces(const Batch<T>& batch, const Layer<T>& layer, const Delayed<T>& synapses, int begin, int width)
        : batch_(&batch), layer_(&layer), synapses_(&synapses), begin_(begin), count_(std::min(width, layer.num - begin)),
          columns_((synapses.sources + kLanes<T> - 1) / kLanes<T> * kLanes<T>), p_(layer.neurons[0].p), q_(layer.neurons[0].q),
          block_(block_of_time(layer, synapses)), apart_(std::abs(q_ - p_) * block_ > 1),
          delays_(static_cast<size_t>(count_) * columns_, T(INFINITY)), a_(delays_.size(), T(0)), b_(delays_.size(), T(0)),
          trace_a_(columns_), trace_b_(columns_) {
        for (int j = 0; j < synapses.sources; ++j)
            for (int c = 0; c < count_; ++c) delays_[static_cast<size_t>(c) * columns_ + j] = synapses.delay_of(j, begin + c);
    }

    // Of sample b are the impulses that follow.
    void start(int b) {
        read(b);
        std::fill(trace_a_.begin(), trace_a_.end(), T(0)), std::fill(trace_b_.begin(), trace_b_.end(), T(0));
        at_ = -1, arrived_ = heard_ = 0;
    }

    // An impulse of neuron c of the group, in order of time.
    void add(int c, double time, double size) {
        if (size != 0) apart_ ? add<true>(c, time, size) : add<false>(c, time, size);
    }

    // Adds dL/d(weights and delays), (in, N), of inputs [from, to).
    void finish(int from, int to_input, T* weight, T* delay) const {
        const Vec<T> p = splat(T(p_)), q = splat(T(q_)), apart = splat(T(p_ / (q_ - p_)));
        for (int first = from; first < to_input; first += kLanes<T>) {
            const int lanes = std::min(kLanes<T>, to_input - first);
            for (int c = 0; c < count_; ++c) {
                const size_t at = static_cast<size_t>(c) * columns_ + first;
                const Vec<T> d = load(&delays_[at]);
                const IntVec<T> there = d < T(INFINITY);
                const Decay<Vec<T>> f = decay<T>(select<T>(there, d, Vec<T>{}), p, q);
                const Vec<T> x = load(&a_[at]) / f.x, y = load(&b_[at]) / f.y;
                const Vec<T> k = apart_ ? (x - y) * apart : y - x * f.k / f.y, pull = k * q - x * p;
                for (int l = 0; l < lanes; ++l) {
                    if (!there[l]) continue;
                    const size_t to = static_cast<size_t>(first + l) * layer_->num + begin_ + c;
                    weight[to] += k[l], delay[to] += pull[l] * synapses_->weight[to];
                }
            }
        }
    }

private:
    static constexpr double kReach = 40;       // times a time constant
    static constexpr double kMostBlocks = 1e6;
    static constexpr double kPerInput = 0.25;  // work for an input's trace, as a share of that for an event

    // Seconds in which no delay ends later than in the block after its event's.
    static double block_of_time(const Layer<T>& layer, const Delayed<T>& synapses) {
        return std::max(synapses.longest * (1 + 1e-6), layer.shortest_tau());
    }

    // (a, b) after s seconds is (a x, b y + a k): the sums of e^{-s/tm} and of K(s). Where time constants are apart b is the sum of
    // e^{-s/ts} instead and K their difference: nothing cancels then in the factors of long delays.
    Decay<double> flow(double s) const {
        const double x = std::exp(-s * p_), y = std::exp(-s * q_), z = (q_ - p_) * s;
        const double ratio = std::abs(z) < 1e-12 ? 1.0 : -std::expm1(-std::abs(z)) / std::abs(z);  // never inf times 0
        return {x, y, apart_ ? 0.0 : s * p_ * (z > 0 ? x : y) * ratio};
    }

    // The events of a sample, each with its factors up to the end of its block.
    void read(int b) {
        const int64_t from = batch_->offsets[b], count = batch_->counted(b) - from;
        const int blocks = static_cast<int>(batch_->duration[b] / block_) + 1;
        units_ = batch_->units + from, num_events_ = static_cast<int>(count);
        for (auto* column : {&since_, &left_, &event_a_, &event_b_}) column->resize(count + kLanes<T>);
        block_of_.resize(count), first_of_.assign(blocks + 3, 0), times_.resize(count), arrivals_.resize(count + 1);
        for (int e = 0; e < count; ++e) {
            const double time = batch_->times[from + e];
            const int block = static_cast<int>(time / block_);
            times_[e] = time, block_of_[e] = block;
            since_[e] = T(time - block * block_), left_[e] = T((block + 1) * block_ - time);
            ++first_of_[std::min(block + 1, blocks + 2)];
        }
        for (int k = 0; k < blocks + 2; ++k) first_of_[k + 1] += first_of_[k];
        const Vec<T> p = splat(T(p_)), q = splat(T(q_));
        for (int e = 0; e < count; e += kLanes<T>) {
            const Decay<Vec<T>> f = decay<T>(max<T>(load(&left_[e]), Vec<T>{}), p, q);
            store(&event_a_[e], f.x), store(&event_b_[e], apart_ ? f.y : f.k);
        }
        if (!batch_->values) return;
        for (int e = 0; e < count; ++e) event_a_[e] *= batch_->value(from + e), event_b_[e] *= batch_->value(from + e);
    }

    // Traces at the end of a later block.
    void advance(int block) {
        const Decay<double> f = flow((block - at_) * block_);
        const Vec<T> x = splat(T(f.x)), y = splat(T(f.y)), k = splat(T(f.k));
        for (int j = 0; j < columns_; j += kLanes<T>) {
            const Vec<T> a = load(&trace_a_[j]), b = load(&trace_b_[j]);
            store(&trace_a_[j], without_tiny(a * x)), store(&trace_b_[j], without_tiny(b * y + a * k));
        }
        at_ = block;
    }
    // Numbers below the normal ones are slow.
    static Vec<T> without_tiny(Vec<T> x) { return select<T>((x < T(1e-30)) & (x > T(-1e-30)), Vec<T>{}, x); }

    template <bool Apart>
    void add(int c, double time, double size) {
        const double oldest = time - synapses_->longest;
        for (; arrived_ < num_events_ && times_[arrived_] < oldest; ++arrived_) {
            if (block_of_[arrived_] > at_) advance(block_of_[arrived_]);
            trace_a_[units_[arrived_]] += event_a_[arrived_], trace_b_[units_[arrived_]] += event_b_[arrived_];
        }
        const int block = static_cast<int>(std::floor(oldest / block_));
        if (block > at_) advance(block);
        while (heard_ < num_events_ && times_[heard_] < time) ++heard_;

        const double end = (block + 1) * block_;
        const Decay<T> factors = scaled(size, flow(time - end));
        const Vec<T> x = splat(factors.x), y = splat(factors.y), k = splat(factors.k);
        const size_t row = static_cast<size_t>(c) * columns_;
        for (int j = 0; j < columns_; j += kLanes<T>) {
            const Vec<T> a = load(&trace_a_[j]), b = load(&trace_b_[j]);
            store(&a_[row + j], load(&a_[row + j]) + x * a);
            store(&b_[row + j], load(&b_[row + j]) + (Apart ? y * b : y * b + k * a));
        }
        // what is on its way was sent in this block or in the next one
        const int border = std::clamp(first_of_[std::clamp(block + 1, 0, static_cast<int>(first_of_.size()) - 1)], arrived_, heard_);
        add_arrived<Apart>(row, T(time - end + block_), factors, arrived_, border);
        add_arrived<Apart>(row, T(time - end), scaled(size, flow(time - end - block_)), border, heard_);
    }

    static Decay<T> scaled(double size, Decay<double> f) { return {T(size * f.x), T(size * f.y), T(size * f.k)}; }

    // Those of the events [from, to) that have arrived, `now` seconds after their block's start.
    template <bool Apart>
    void add_arrived(size_t row, T now, Decay<T> f, int from, int to) {
        const T* const delays = &delays_[row];
        T *const a = &a_[row], *const b = &b_[row];
        int count = 0;
        for (int e = from; e < to; ++e) arrivals_[count] = e, count += delays[units_[e]] < now - since_[e];
        for (int n = 0; n < count; ++n) {
            const int e = arrivals_[n], j = units_[e];
            a[j] += f.x * event_a_[e];
            b[j] += Apart ? f.y * event_b_[e] : f.y * event_b_[e] + f.k * event_a_[e];
        }
    }

    const Batch<T>* batch_ = nullptr;
    const Layer<T>* layer_ = nullptr;
    const Delayed<T>* synapses_ = nullptr;
    int begin_ = 0, count_ = 0, columns_ = 0;
    double p_ = 0, q_ = 0, block_ = 0;  // seconds of a block
    bool apart_ = false;
    Array<T> delays_, a_, b_;           // of each neuron, for each input

    // of the sample at hand
    Array<T> trace_a_, trace_b_;        // of each input, at the end of block at_
    int at_ = -1, arrived_ = 0, heard_ = 0, num_events_ = 0;
    const int32_t* units_ = nullptr;
    std::vector<double> times_;
    std::vector<int> block_of_, first_of_, arrivals_;
    Array<T> since_, left_, event_a_, event_b_;
};

}  // namespace eventnet
