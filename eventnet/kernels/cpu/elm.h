// The expressive leaky memory neuron over a whole sequence, and its backward pass (equations: reference_elm.py).
//
// Branches: a lane is a sample, and a few steps are taken at a time, so that what is read of the inputs stays in the cache. Nothing is
// kept for the backward pass but inputs and outputs: the derivatives of a trace to its weight and decay are traces themselves, which
// run forward in time beside it.
// Memory: products are those of torch's BLAS, for a group of samples at a time. Those of the memory with itself are of one step; those
// with the branches, and all gradients of weights, are of as many steps as stay in the cache. Which samples are a group does not depend on
// the number of threads, so neither do the results.
#pragma once

#include "blas.h"
#include "egru.h"
#include "parallel.h"
#include "simd.h"

namespace eventnet {

constexpr int kMostSteps = 32, kStepBytes = 512 << 10;  // taken at a time, as many as fit
constexpr int kSamplesTogether = 16;                     // in a product of one step
constexpr int kRowsTogether = 128;                       // in one of several steps: what it reads and writes stays in the cache
constexpr int kGroupsAtOnce = 32;                        // whose gradients of weights wait to be added up

// Calls job(group, first sample, samples) for each group of samples.
inline void for_groups(int batch, int size, int threads, const std::function<void(int, int, int)>& job) {
    parallel_for((batch + size - 1) / size, threads, [&](int g) { job(g, g * size, std::min(size, batch - g * size)); });
}

// Synapses (branches, synapses): weights and the numbers of their inputs. A decay is of a synapse, or of a branch.
template <class T>
struct Tree {
    int inputs, branches, synapses;
    const T* weight;
    const int64_t* input;
    const T* decay;
    bool each;  // synapse has a trace

    Tree(int in, int num_branches, int num_synapses, const T* w, const int64_t* index, const T* k, bool each_synapse)
        : inputs(in), branches(num_branches), synapses(num_synapses), weight(w), input(index), decay(k), each(each_synapse) {
        if (std::any_of(input, input + all(), [in](int64_t i) { return i < 0 || i >= in; })) throw Error("an input's number is out of range");
    }

    size_t all() const { return size_t(branches) * synapses; }
    size_t traces() const { return each ? all() : branches; }
    int steps_at_once() const { return std::clamp(kStepBytes / (inputs * kVectorBytes), 1, kMostSteps); }
};

// Inputs (steps, batch, inputs), and the traces before them.
template <class T>
struct Stretch {
    int steps, batch;
    const T *x, *start;
};

// Of the lanes of two vectors, counted one after the other, those of these numbers.
template <class T, int... lanes>
inline Vec<T> lanes_of_both(Vec<T> a, Vec<T> b) {
#if __has_builtin(__builtin_shufflevector)
    return __builtin_shufflevector(a, b, lanes...);
#else  // GCC before 12
    return __builtin_shuffle(a, b, IntVec<T>{lanes...});
#endif
}

// As many vectors as one has lanes: lane l of vector k changes places with lane k of vector l, for one bit of the numbers after the other.
template <class T, int kBit, int... l>
inline void turn_bit(Vec<T>* v, std::integer_sequence<int, l...>) {
    constexpr int kL = kLanes<T>;
#pragma GCC unroll 16
    for (int k = 0; k < kL; ++k) {
        if (k & kBit) continue;
        const Vec<T> low = v[k], high = v[k + kBit];
        v[k] = lanes_of_both<T, (l & kBit ? kL + l - kBit : l)...>(low, high);
        v[k + kBit] = lanes_of_both<T, (l & kBit ? kL + l : l + kBit)...>(low, high);
    }
}
template <class T, int kBit = kLanes<T> / 2>
inline void turn(Vec<T>* v) {
    turn_bit<T, kBit>(v, std::make_integer_sequence<int, kLanes<T>>{});
    if constexpr (kBit > 1) turn<T, kBit / 2>(v);
}

// A vector for each of `num` numbers that samples have, and back.
template <class T>
void take(const T* from, size_t num, int samples, T* to) {
    constexpr int kL = kLanes<T>;
    size_t n = 0;
    for (; n + kL <= num; n += kL) {
        Vec<T> v[kL];
#pragma GCC unroll 16
        for (int l = 0; l < kL; ++l) v[l] = l < samples ? load(from + l * num + n) : Vec<T>{};
        turn<T>(v);
#pragma GCC unroll 16
        for (int l = 0; l < kL; ++l) store(to + (n + l) * kL, v[l]);
    }
    for (; n < num; ++n)
        for (int l = 0; l < kL; ++l) to[n * kL + l] = l < samples ? from[l * num + n] : T(0);
}
template <class T>
void give(const T* from, size_t num, int samples, T* to) {
    constexpr int kL = kLanes<T>;
    size_t n = 0;
    for (; n + kL <= num; n += kL) {
        Vec<T> v[kL];
#pragma GCC unroll 16
        for (int l = 0; l < kL; ++l) v[l] = load(from + (n + l) * kL);
        turn<T>(v);
#pragma GCC unroll 16
        for (int l = 0; l < kL; ++l)
            if (l < samples) store(to + l * num + n, v[l]);
    }
    for (int l = 0; l < samples; ++l)
        for (size_t k = n; k < num; ++k) to[l * num + k] = from[k * kL + l];
}

// Branch values (steps, batch, branches), and the last traces (batch, branches, synapses) or (batch, branches).
template <class T>
void branches_forward(const Tree<T>& tree, const Stretch<T>& in, T* out, T* last, int threads) {
    constexpr int kL = kLanes<T>;
    const int at_once = tree.steps_at_once();
    for_groups(in.batch, kL, threads, [&](int, int first, int samples) {
        const auto row = [&](int t, int size) { return (size_t(t) * in.batch + first) * size; };
        Array<T> state(tree.traces() * kL), x(size_t(at_once) * tree.inputs * kL), values(size_t(at_once) * tree.branches * kL);
        Vec<T> sum[kMostSteps];
        take(in.start + first * tree.traces(), tree.traces(), samples, state.data());
        for (int t = 0; t < in.steps; t += at_once) {
            const int count = std::min(at_once, in.steps - t);
            for (int i = 0; i < count; ++i) take(in.x + row(t + i, tree.inputs), tree.inputs, samples, &x[size_t(i) * tree.inputs * kL]);
            for (int j = 0; j < tree.branches; ++j) {
                for (int i = 0; i < count; ++i) sum[i] = Vec<T>{};
                for (size_t s = size_t(j) * tree.synapses, end = s + tree.synapses; s < end; ++s) {
                    const T* const now = &x[tree.input[s] * kL];
                    const T w = tree.weight[s];
                    if (tree.each) {
                        const T k = tree.decay[s];
                        Vec<T> trace = load(&state[s * kL]);
                        for (int i = 0; i < count; ++i) sum[i] += trace = k * trace + w * load(now + size_t(i) * tree.inputs * kL);
                        store(&state[s * kL], trace);
                    } else {
                        for (int i = 0; i < count; ++i) sum[i] += w * load(now + size_t(i) * tree.inputs * kL);
                    }
                }
                if (!tree.each) {
                    Vec<T> trace = load(&state[j * kL]);
                    for (int i = 0; i < count; ++i) sum[i] = trace = tree.decay[j] * trace + sum[i];
                    store(&state[j * kL], trace);
                }
                for (int i = 0; i < count; ++i) store(&values[(size_t(i) * tree.branches + j) * kL], sum[i]);
            }
            for (int i = 0; i < count; ++i) give(&values[size_t(i) * tree.branches * kL], tree.branches, samples, out + row(t + i, tree.branches));
        }
        give(state.data(), tree.traces(), samples, last + first * tree.traces());
    });
}

// Where gradients go: as large as weight, decay, start and x; the last is null if not asked for.
template <class T>
struct TreeGradients {
    T *weight, *decay, *start, *x;
};

// The backward pass of a vector of samples.
template <class T>
class BranchesBackward {
public:
    // Cotangents of branch values and of the last traces; the branch values themselves.
    BranchesBackward(const Tree<T>& tree, const Stretch<T>& in, const T* of_out, const T* of_last, const T* out)
        : tree_(tree), in_(in), of_out_(of_out), of_last_(of_last), out_(out) {}

    void run(int first, int samples, const TreeGradients<T>& to) {
        first_ = first, samples_ = samples;
        const size_t traces = tree_.traces() * kL, steps = tree_.steps_at_once();
        for (Array<T>* x : {&carried_, &start_, &of_decay_}) x->assign(traces, T(0));
        of_weight_.assign(tree_.all() * kL, T(0));
        x_.resize(steps * tree_.inputs * kL), of_x_.resize(to.x ? x_.size() : 0);
        of_values_.resize(steps * tree_.branches * kL), before_.resize(of_values_.size());
        take(in_.start + first * tree_.traces(), tree_.traces(), samples, start_.data());
        take(of_last_ + first * tree_.traces(), tree_.traces(), samples, carried_.data());
        if (tree_.each) parameters_of_traces();
        for (int count, end = in_.steps; end > 0; end -= count) {
            count = std::min(end, tree_.steps_at_once());
            if (tree_.each) inputs_of_traces(end - count, count, to.x);
            else shared_traces(end - count, count, to.x);
        }
        give(carried_.data(), tree_.traces(), samples, to.start + first * tree_.traces());
    }

    void add_sums(const TreeGradients<T>& to) const {
        for (size_t s = 0; s < tree_.all(); ++s) to.weight[s] += sum<T>(load(&of_weight_[s * kL]));
        for (size_t s = 0; s < tree_.traces(); ++s) to.decay[s] += sum<T>(load(&of_decay_[s * kL]));
    }

private:
    static constexpr int kL = kLanes<T>;
    const Tree<T>& tree_;
    const Stretch<T>& in_;
    const T *const of_out_, *const of_last_, *const out_;
    int first_ = 0, samples_ = 0;
    Array<T> carried_, start_, of_weight_, of_decay_;
    Array<T> x_, of_x_, of_values_, before_;  // of the steps that are taken

    size_t row(int t, int size) const { return (size_t(t) * in_.batch + first_) * size; }

    void take_steps(const T* from, int t, int count, int size, Array<T>& to) const {
        for (int i = 0; i < count; ++i) take(from + row(t + i, size), size, samples_, &to[size_t(i) * size * kL]);
    }
    Vec<T> of_value(int i, int j) const { return load(&of_values_[(size_t(i) * tree_.branches + j) * kL]); }
    size_t input(int i, size_t s) const { return (size_t(i) * tree_.inputs + tree_.input[s]) * kL; }

    void give_inputs(int t, int count, T* of_x) const {
        for (int i = 0; i < count; ++i) give(&of_x_[size_t(i) * tree_.inputs * kL], tree_.inputs, samples_, of_x + row(t + i, tree_.inputs));
    }

    // Traces of synapses, forward in time: s = k s + w x, its derivatives p to w and e to k.
    void parameters_of_traces() {
        Array<T> plain(start_.size()), slope(start_.size()), state(start_);
        for (int count, t = 0; t < in_.steps; t += count) {
            count = std::min(in_.steps - t, tree_.steps_at_once());
            take_steps(in_.x, t, count, tree_.inputs, x_), take_steps(of_out_, t, count, tree_.branches, of_values_);
            for (int j = 0; j < tree_.branches; ++j)
                for (size_t s = size_t(j) * tree_.synapses, end = s + tree_.synapses; s < end; ++s) {
                    const size_t n = s * kL;
                    const T w = tree_.weight[s], k = tree_.decay[s];
                    Vec<T> trace = load(&state[n]), p = load(&plain[n]), e = load(&slope[n]), of_w = load(&of_weight_[n]), of_k = load(&of_decay_[n]);
                    for (int i = 0; i < count; ++i) {
                        const Vec<T> now = load(&x_[input(i, s)]), g = of_value(i, j);
                        e = k * e + trace, trace = k * trace + w * now, p = k * p + now;
                        of_w += g * p, of_k += g * e;
                    }
                    store(&state[n], trace), store(&plain[n], p), store(&slope[n], e), store(&of_weight_[n], of_w), store(&of_decay_[n], of_k);
                }
        }
        for (size_t n = 0; n < start_.size(); n += kL) {
            const Vec<T> g = load(&carried_[n]);
            store(&of_weight_[n], load(&of_weight_[n]) + g * load(&plain[n])), store(&of_decay_[n], load(&of_decay_[n]) + g * load(&slope[n]));
        }
    }

    // Traces of synapses, back in time: what each of them carries to the inputs and to the start.
    void inputs_of_traces(int t, int count, T* of_x) {
        take_steps(of_out_, t, count, tree_.branches, of_values_);
        std::fill(of_x_.begin(), of_x_.end(), T(0));
        for (int j = 0; j < tree_.branches; ++j)
            for (size_t s = size_t(j) * tree_.synapses, end = s + tree_.synapses; s < end; ++s) {
                const T w = tree_.weight[s], k = tree_.decay[s];
                Vec<T> carried = load(&carried_[s * kL]);
                for (int i = count - 1; i >= 0; --i) {
                    const Vec<T> of_trace = of_value(i, j) + carried;
                    carried = k * of_trace;
                    if (of_x) store(&of_x_[input(i, s)], load(&of_x_[input(i, s)]) + w * of_trace);
                }
                store(&carried_[s * kL], carried);
            }
        if (of_x) give_inputs(t, count, of_x);
    }

    // Traces of branches, back in time, with the gradients of all that is below them.
    void shared_traces(int t, int count, T* of_x) {
        take_steps(in_.x, t, count, tree_.inputs, x_), take_steps(of_out_, t, count, tree_.branches, of_values_);
        for (int i = 0; i < count; ++i) {
            T* const to = &before_[size_t(i) * tree_.branches * kL];
            if (t + i) take(out_ + row(t + i - 1, tree_.branches), tree_.branches, samples_, to);
            else std::copy(start_.begin(), start_.end(), to);
        }
        std::fill(of_x_.begin(), of_x_.end(), T(0));
        Vec<T> of_trace[kMostSteps];
        for (int j = 0; j < tree_.branches; ++j) {
            Vec<T> carried = load(&carried_[j * kL]), of_k = load(&of_decay_[j * kL]);
            for (int i = count - 1; i >= 0; --i) {
                of_trace[i] = of_value(i, j) + carried;
                carried = tree_.decay[j] * of_trace[i];
                of_k += of_trace[i] * load(&before_[(size_t(i) * tree_.branches + j) * kL]);
            }
            store(&carried_[j * kL], carried), store(&of_decay_[j * kL], of_k);
            for (size_t s = size_t(j) * tree_.synapses, end = s + tree_.synapses; s < end; ++s) {
                const T w = tree_.weight[s];
                Vec<T> of_w = load(&of_weight_[s * kL]);
                for (int i = 0; i < count; ++i) {
                    of_w += of_trace[i] * load(&x_[input(i, s)]);
                    if (of_x) store(&of_x_[input(i, s)], load(&of_x_[input(i, s)]) + w * of_trace[i]);
                }
                store(&of_weight_[s * kL], of_w);
            }
        }
        if (of_x) give_inputs(t, count, of_x);
    }
};

// Gradients of what samples share are added to, the others set.
template <class T>
void branches_backward(const Tree<T>& tree, const Stretch<T>& in, const T* of_out, const T* of_last, const T* out, const TreeGradients<T>& to,
                       int threads) {
    std::vector<BranchesBackward<T>> parts((in.batch + kLanes<T> - 1) / kLanes<T>, BranchesBackward<T>(tree, in, of_out, of_last, out));
    for_groups(in.batch, kLanes<T>, threads, [&](int g, int first, int samples) { parts[g].run(first, samples, to); });
    for (const BranchesBackward<T>& part : parts) part.add_sums(to);
}

// Memory units and the hidden units that move them: inward (hidden, branches) and its bias, back (hidden, memory), which holds the decay
// already, forth (memory, hidden) and its bias, keep and gain (memory).
template <class T>
struct MemoryLayer {
    int branches, hidden, memory;
    const T *inward, *inward_bias, *back, *forth, *forth_bias, *keep, *gain;

    size_t weights() const { return size_t(hidden) * (branches + memory + memory); }
};

constexpr double kHeight = 1.7159, kSlope = 2.0 / 3.0;  // of the tanh

// c (m, n) += a (m, k) b (k, n); a (k, m) if `turned_a`, b (n, k) if `turned_b`.
template <class T>
void add_dense(int m, int n, int k, const T* a, bool turned_a, const T* b, bool turned_b, T* c) {
    if (Blas::there())
        return Blas::add_product<T>(m, n, k, {a, size_t(turned_a ? m : k)}, turned_a, {b, size_t(turned_b ? k : n)}, turned_b, c, n);
    for (int i = 0; i < m; ++i)
        for (int l = 0; l < k; ++l)
            for (int j = 0; j < n; ++j)
                c[size_t(i) * n + j] += a[turned_a ? size_t(l) * m + i : size_t(i) * k + l] * (turned_b ? b[size_t(j) * k + l] : b[size_t(l) * n + j]);
}

// m = keep before + gain q.
template <class T>
void remember(int all, const T* __restrict keep, const T* __restrict before, const T* __restrict gain, const T* __restrict q, T* __restrict m) {
    for (int i = 0; i < all; ++i) m[i] = keep[i] * before[i] + gain[i] * q[i];
}

// `row`, for each of some samples.
template <class T>
Array<T> for_each_sample(const T* row, int size, int samples, double times = 1) {
    Array<T> all(size_t(samples) * size);
    for (size_t i = 0; i < all.size(); ++i) all[i] = row[i % size] * T(times);
    return all;
}

// How many steps of some samples are in the products that are not of one step.
inline int steps_together(int samples) { return std::max(1, kRowsTogether / samples); }

// Memory (steps, batch, memory) from branch values (steps, batch, branches) and a start (batch, memory). Kept, if not null, for the
// backward pass: hidden units, and the tanh of each step.
template <class T>
void memory_forward(const MemoryLayer<T>& layer, int steps, int batch, const T* branch, const T* start, T* out, T* active, T* moved, int threads) {
    for_groups(batch, kSamplesTogether, threads, [&](int, int from, int some) {
        const int all = some * layer.memory, hidden = some * layer.hidden, at_once = steps_together(some);
        const auto bias = for_each_sample(layer.forth_bias, layer.memory, some), keep = for_each_sample(layer.keep, layer.memory, some);
        const auto gain = for_each_sample(layer.gain, layer.memory, some, kHeight);
        const auto inward_bias = for_each_sample(layer.inward_bias, layer.hidden, some);
        Array<T> branches(size_t(at_once) * some * layer.branches), drive(size_t(at_once) * hidden);
        Array<T> move((all + kLanes<T> - 1) / kLanes<T> * kLanes<T>);
        const T* before = start + size_t(from) * layer.memory;
        for (int t = 0; t < steps; ++t) {
            const size_t first = size_t(t) * batch + from;
            if (t % at_once == 0) {
                const int count = std::min(at_once, steps - t);
                for (int i = 0; i < count; ++i) {
                    std::copy_n(branch + (first + size_t(i) * batch) * layer.branches, some * layer.branches, &branches[size_t(i) * some * layer.branches]);
                    std::copy(inward_bias.begin(), inward_bias.end(), &drive[size_t(i) * hidden]);
                }
                add_dense(count * some, layer.hidden, layer.branches, branches.data(), false, layer.inward, true, drive.data());
            }
            T *const h = &drive[size_t(t % at_once) * hidden], *const m = out + first * layer.memory;
            add_dense(some, layer.hidden, layer.memory, before, false, layer.back, true, h);
            for (int i = 0; i < hidden; ++i) h[i] = h[i] < 0 ? T(0) : h[i];  // NaN stays
            std::copy(bias.begin(), bias.end(), move.begin());
            add_dense(some, layer.memory, layer.hidden, h, false, layer.forth, true, move.data());
            for (size_t i = 0; i < move.size(); i += kLanes<T>) store(&move[i], hyperbolic_tangent<T>(load(&move[i]) * T(kSlope)));
            remember(all, keep.data(), before, gain.data(), move.data(), m);
            if (active) std::copy_n(h, hidden, active + first * layer.hidden), std::copy_n(move.data(), all, moved + first * layer.memory);
            before = m;
        }
    });
}

// What the forward pass took and gave.
template <class T>
struct MemoryRun {
    int steps, batch;
    const T *branch, *start, *memory, *active, *moved;
};

// Where gradients go: as large as branch and start, and as what the layer has.
template <class T>
struct MemoryGradients {
    T *branch, *start, *inward, *inward_bias, *back, *forth, *forth_bias, *keep, *gain;
};

// Back through a step's memory and its tanh, of slope 1 - q^2. What is carried to the memory before lacks the part that goes by the
// hidden units.
template <class T>
void remember_backward(int all, const T* __restrict keep, const T* __restrict gain, const T* __restrict q, const T* __restrict of_out,
                       T* __restrict of_m, T* __restrict of_move, T* __restrict carried) {
    for (int i = 0; i < all; ++i) {
        of_m[i] = of_out[i] + carried[i];
        of_move[i] = of_m[i] * gain[i] * (T(1) - q[i] * q[i]);
        carried[i] = keep[i] * of_m[i];
    }
}

// sums += a b.
template <class T>
void add_products(int all, const T* __restrict a, const T* __restrict b, T* __restrict sums) {
    for (int i = 0; i < all; ++i) sums[i] += a[i] * b[i];
}

// Cotangents of hidden units that are silent are zero; to the sums with the others.
template <class T>
void gate(int all, const T* __restrict h, T* __restrict of_h, T* __restrict sums) {
    for (int i = 0; i < all; ++i) {
        of_h[i] = h[i] > 0 ? of_h[i] : T(0);
        sums[i] += of_h[i];
    }
}

// The backward pass of a group of samples. Gradients of weights are products over several steps at once, while what they are of is in
// the cache.
template <class T>
class MemoryBackward {
public:
    MemoryBackward(const MemoryLayer<T>& layer, const MemoryRun<T>& run, const T* of_out) : layer_(layer), run_(run), of_out_(of_out) {}

    void run(int from, int some, const MemoryGradients<T>& to) {
        const int all = some * layer_.memory, hidden = some * layer_.hidden, branches = some * layer_.branches, at_once = steps_together(some);
        const auto keep = for_each_sample(layer_.keep, layer_.memory, some), gain = for_each_sample(layer_.gain, layer_.memory, some, kHeight * kSlope);
        samples_ = some;
        for (Array<T>* x : {&of_keep_, &of_gain_, &of_bias_}) x->assign(all, T(0));
        of_inward_bias_.assign(hidden, T(0)), weights_.assign(layer_.weights(), T(0));
        Array<T> of_m(all), before(size_t(at_once) * all), of_move(before.size()), h(size_t(at_once) * hidden), of_h(h.size());
        Array<T> branch(size_t(at_once) * branches), of_branch(branch.size());
        T* const carried = to.start + size_t(from) * layer_.memory;
        std::fill_n(carried, all, T(0));
        for (int count, end = run_.steps; end > 0; end -= count) {
            count = std::min(end, at_once);
            std::fill(of_h.begin(), of_h.end(), T(0)), std::fill(of_branch.begin(), of_branch.end(), T(0));
            for (int i = count - 1; i >= 0; --i) {
                const int t = end - count + i;
                const size_t first = size_t(t) * run_.batch + from;
                T *const my_before = &before[size_t(i) * all], *const my_move = &of_move[size_t(i) * all];
                T *const my_h = &h[size_t(i) * hidden], *const my_of_h = &of_h[size_t(i) * hidden];
                std::copy_n(t ? run_.memory + (first - run_.batch) * layer_.memory : run_.start + size_t(from) * layer_.memory, all, my_before);
                std::copy_n(run_.active + first * layer_.hidden, hidden, my_h);
                std::copy_n(run_.branch + first * layer_.branches, branches, &branch[size_t(i) * branches]);
                const T* const q = run_.moved + first * layer_.memory;
                remember_backward(all, keep.data(), gain.data(), q, of_out_ + first * layer_.memory, of_m.data(), my_move, carried);
                add_products(all, of_m.data(), my_before, of_keep_.data()), add_products(all, of_m.data(), q, of_gain_.data());
                for (int k = 0; k < all; ++k) of_bias_[k] += my_move[k];
                add_dense(some, layer_.hidden, layer_.memory, my_move, false, layer_.forth, false, my_of_h);
                gate(hidden, my_h, my_of_h, of_inward_bias_.data());
                add_dense(some, layer_.memory, layer_.hidden, my_of_h, false, layer_.back, false, carried);
            }
            add_dense(layer_.hidden, layer_.branches, count * some, of_h.data(), true, branch.data(), false, of_inward());
            add_dense(layer_.hidden, layer_.memory, count * some, of_h.data(), true, before.data(), false, of_back());
            add_dense(layer_.memory, layer_.hidden, count * some, of_move.data(), true, h.data(), false, of_forth());
            add_dense(count * some, layer_.branches, layer_.hidden, of_h.data(), false, layer_.inward, false, of_branch.data());
            for (int i = 0; i < count; ++i)
                std::copy_n(&of_branch[size_t(i) * branches], branches, to.branch + (size_t(end - count + i) * run_.batch + from) * layer_.branches);
        }
    }

    void add_sums(const MemoryGradients<T>& to) {
        const auto add = [](const T* from, size_t num, T* sums) {
            for (size_t i = 0; i < num; ++i) sums[i] += from[i];
        };
        add(of_inward(), size_t(layer_.hidden) * layer_.branches, to.inward), add(of_back(), size_t(layer_.hidden) * layer_.memory, to.back);
        add(of_forth(), size_t(layer_.hidden) * layer_.memory, to.forth);
        for (int i = 0; i < samples_; ++i) {
            const size_t at = size_t(i) * layer_.memory;
            add(&of_inward_bias_[size_t(i) * layer_.hidden], layer_.hidden, to.inward_bias), add(&of_bias_[at], layer_.memory, to.forth_bias);
            add(&of_keep_[at], layer_.memory, to.keep);
            for (int n = 0; n < layer_.memory; ++n) to.gain[n] += T(kHeight) * of_gain_[at + n];
        }
    }

private:
    const MemoryLayer<T>& layer_;
    const MemoryRun<T>& run_;
    const T* const of_out_;
    int samples_ = 0;
    Array<T> weights_, of_inward_bias_, of_bias_, of_keep_, of_gain_;

    T* of_inward() { return weights_.data(); }
    T* of_back() { return of_inward() + size_t(layer_.hidden) * layer_.branches; }
    T* of_forth() { return of_back() + size_t(layer_.hidden) * layer_.memory; }
};

// Gradients of what samples share are added to, the others set.
template <class T>
void memory_backward(const MemoryLayer<T>& layer, const MemoryRun<T>& run, const T* of_out, const MemoryGradients<T>& to, int threads) {
    const int groups = (run.batch + kSamplesTogether - 1) / kSamplesTogether;
    for (int first = 0; first < groups; first += kGroupsAtOnce) {
        std::vector<MemoryBackward<T>> parts(std::min(kGroupsAtOnce, groups - first), MemoryBackward<T>(layer, run, of_out));
        parallel_for(int(parts.size()), threads, [&](int g) {
            const int from = (first + g) * kSamplesTogether;
            parts[g].run(from, std::min(kSamplesTogether, run.batch - from), to);
        });
        for (MemoryBackward<T>& part : parts) part.add_sums(to);
    }
}

}  // namespace eventnet
