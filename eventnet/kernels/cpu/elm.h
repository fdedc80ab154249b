// The expressive leaky memory neuron over a whole sequence, and its backward pass (equations: reference_elm.py).
//
// Branches: a lane is a sample, and a few steps are taken at a time, so that what is read of the inputs stays in the cache. Nothing is
// kept for the backward pass but inputs and outputs: the derivatives of a trace to its weight and decay are traces themselves, which
// run forward in time beside it.
// Memory: the two products of a step are those of torch's BLAS, for a group of samples at a time. Which samples are a group does not
// depend on the number of threads, so neither do the results.
#pragma once

#include "blas.h"
#include "egru.h"
#include "parallel.h"
#include "simd.h"

namespace eventnet {

constexpr int kMostSteps = 32, kStepBytes = 512 << 10;  // taken at a time, as many as fit
constexpr int kSamplesTogether = 16;                     // in a product

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

// A vector for each of `num` numbers that samples have, and back.
template <class T>
void take(const T* from, size_t num, int samples, T* to) {
    for (size_t n = 0; n < num; ++n)
        for (int l = 0; l < kLanes<T>; ++l) to[n * kLanes<T> + l] = l < samples ? from[l * num + n] : T(0);
}
template <class T>
void give(const T* from, size_t num, int samples, T* to) {
    for (int l = 0; l < samples; ++l)
        for (size_t n = 0; n < num; ++n) to[l * num + n] = from[n * kLanes<T> + l];
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

// Memory units and the hidden units that move them: back (hidden, memory) holds the decay already, forth (memory, hidden), the bias of
// forth, keep and gain (memory).
template <class T>
struct MemoryLayer {
    int hidden, memory;
    const T *back, *forth, *bias, *keep, *gain;
};

constexpr double kHeight = 1.7159, kSlope = 2.0 / 3.0;  // of the tanh

// c (m, n) += a (m, k) b (k, n); b (n, k) if `turned`.
template <class T>
void add_dense(int m, int n, int k, const T* a, const T* b, bool turned, T* c) {
    if (Blas::there()) return Blas::add_product<T>(m, n, k, {a, size_t(k)}, false, {b, size_t(turned ? k : n)}, turned, c, n);
    for (int i = 0; i < m; ++i)
        for (int l = 0; l < k; ++l)
            for (int j = 0; j < n; ++j) c[size_t(i) * n + j] += a[size_t(i) * k + l] * (turned ? b[size_t(j) * k + l] : b[size_t(l) * n + j]);
}

// Memory (steps, batch, memory) from what the branches tell the hidden units (steps, batch, hidden) and a start (batch, memory). Kept,
// if not null, for the backward pass: hidden units, and the tanh of each step.
template <class T>
void memory_forward(const MemoryLayer<T>& layer, int steps, int batch, const T* drive, const T* start, T* out, T* active, T* moved, int threads) {
    for_groups(batch, kSamplesTogether, threads, [&](int, int from, int some) {
        const int all = some * layer.memory;
        Array<T> own(active ? 0 : size_t(some) * layer.hidden), move((all + kLanes<T> - 1) / kLanes<T> * kLanes<T>);
        const T* before = start + size_t(from) * layer.memory;
        for (int t = 0; t < steps; ++t) {
            const size_t first = size_t(t) * batch + from;
            T* const h = active ? active + first * layer.hidden : own.data();
            T* const m = out + first * layer.memory;
            std::copy_n(drive + first * layer.hidden, size_t(some) * layer.hidden, h);
            add_dense(some, layer.hidden, layer.memory, before, layer.back, true, h);
            for (int i = 0; i < some * layer.hidden; ++i) h[i] = h[i] < 0 ? T(0) : h[i];  // NaN stays
            for (int i = 0; i < some; ++i) std::copy_n(layer.bias, layer.memory, &move[i * layer.memory]);
            add_dense(some, layer.memory, layer.hidden, h, layer.forth, true, move.data());
            for (size_t i = 0; i < move.size(); i += kLanes<T>) store(&move[i], hyperbolic_tangent<T>(load(&move[i]) * T(kSlope)));
            for (int i = 0; i < some; ++i)
                for (int n = 0; n < layer.memory; ++n) {
                    const int at = i * layer.memory + n;
                    m[at] = layer.keep[n] * before[at] + layer.gain[n] * (T(kHeight) * move[at]);
                }
            if (moved) std::copy_n(move.data(), all, moved + first * layer.memory);
            before = m;
        }
    });
}

// Cotangents of the memory of each step, in all, of what went into its tanh, of the drive, and of the start.
template <class T>
struct MemoryGradients {
    T *memory, *move, *drive, *start;
};

template <class T>
void memory_backward(const MemoryLayer<T>& layer, int steps, int batch, const T* active, const T* moved, const T* of_out,
                     const MemoryGradients<T>& to, int threads) {
    for_groups(batch, kSamplesTogether, threads, [&](int, int from, int some) {
        const int all = some * layer.memory;
        T* const carried = to.start + size_t(from) * layer.memory;
        std::fill_n(carried, all, T(0));
        for (int t = steps - 1; t >= 0; --t) {
            const size_t first = size_t(t) * batch + from, at_memory = first * layer.memory, at_hidden = first * layer.hidden;
            T *const of_m = to.memory + at_memory, *const of_move = to.move + at_memory, *const of_h = to.drive + at_hidden;
            const T *const q = moved + at_memory, *const h = active + at_hidden;
            for (int i = 0; i < some; ++i)
                for (int n = 0; n < layer.memory; ++n) {
                    const int at = i * layer.memory + n;
                    of_m[at] = of_out[at_memory + at] + carried[at];
                    of_move[at] = of_m[at] * layer.gain[n] * (T(kHeight * kSlope) * (T(1) - q[at] * q[at]));
                    carried[at] = layer.keep[n] * of_m[at];
                }
            std::fill_n(of_h, size_t(some) * layer.hidden, T(0));
            add_dense(some, layer.hidden, layer.memory, of_move, layer.forth, false, of_h);
            for (int i = 0; i < some * layer.hidden; ++i) of_h[i] = h[i] > 0 ? of_h[i] : T(0);
            add_dense(some, layer.memory, layer.hidden, of_h, layer.back, false, carried);
        }
    });
}

}  // namespace eventnet
