// Python bindings: arrays in, arrays out, no torch headers. One extension module per instruction set.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <tuple>
#include <utility>

#include "adjoint_each.h"
#include "adjoint_shared.h"
#include "branches_forward.h"
#include "chip.h"
#include "chip_adjoint.h"
#include "delayed_adjoint.h"
#include "delayed_forward.h"
#include "drive.h"
#include "egru.h"
#include "elm.h"
#include "li_integral.h"
#include "li_max.h"
#include "lif_forward.h"
#include "tally.h"

namespace nb = nanobind;
using namespace eventnet;

#define EVENTNET_STRING2(x) #x
#define EVENTNET_STRING(x) EVENTNET_STRING2(x)

namespace {

template <class T>
using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using InReals = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;  // float64 or float32
template <class T>
using Out = nb::ndarray<nb::numpy, T>;

template <class T>
Out<T> make(std::initializer_list<size_t> shape) {
    size_t size = 1;
    for (size_t n : shape) size *= n;
    T* data = new T[size + !size]();
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return Out<T>(data, shape, owner);
}

// The same, its numbers yet to be written: clearing large arrays takes as long as a kernel's own reading of them.
template <class T>
Out<T> make_unset(std::initializer_list<size_t> shape) {
    size_t size = 1;
    for (size_t n : shape) size *= n;
    T* data = Aligned<T>().allocate(size + !size);
    nb::capsule owner(data, [](void* p) noexcept { Aligned<T>().deallocate(static_cast<T*>(p), 0); });
    return Out<T>(data, shape, owner);
}

// What every kernel takes: the packed events, the weight and the five parameters of the neurons.
#define EVENTNET_COMMON                                                                                                   \
    InReals times, In<int32_t> units, In<int64_t> offsets, nb::object values, InReals duration, In<T> weight,             \
        In<T> tau_mem, In<T> tau_syn, In<T> threshold, In<T> reset, In<T> bias
#define EVENTNET_COMMON_ARGS                                                                                              \
    nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), \
        nb::arg(), nb::arg()
#define EVENTNET_BATCH_AND_LAYER                                                                                          \
    const In<T> sizes = values.is_none() ? In<T>() : nb::cast<In<T>>(values);                                             \
    const Batch<T> batch{reals(times),    units.data(),         values.is_none() ? nullptr : sizes.data(), offsets.data(),   \
                         reals(duration), int(duration.size()), int(weight.shape(0))};                                    \
    const Layer<T> layer(weight.data(), batch.inputs, targets(weight), as(tau_mem), as(tau_syn), as(threshold),           \
                         as(reset), as(bias))

Reals reals(const InReals& x) {
    if (x.dtype() == nb::dtype<double>()) return {static_cast<const double*>(x.data()), nullptr};
    if (x.dtype() == nb::dtype<float>()) return {nullptr, static_cast<const float*>(x.data())};
    throw Error("expected times in float64 or float32");
}

template <class T>
Parameter<T> as(const In<T>& x) {
    return {x.data(), x.size() == 1};
}

// Neurons, or with weights (in, K, N) all their branches.
template <class T>
int targets(const In<T>& weight) {
    return int(weight.ndim() == 3 ? weight.shape(1) * weight.shape(2) : weight.shape(1));
}

template <class T>
std::unique_ptr<const Recurrent<T>> connections(const nb::object& weight, const nb::object& delay, int num, int branches = 1) {
    if (weight.is_none()) return nullptr;
    return std::make_unique<Recurrent<T>>(nb::cast<In<T>>(weight).data(), num, as(nb::cast<In<T>>(delay)), branches);
}

// Times, units, offsets and currents.
nb::tuple told(const std::vector<std::vector<Spike>>& spikes) {
    const size_t batch_size = spikes.size();
    Out<int64_t> out_offsets = make<int64_t>({batch_size + 1});
    for (size_t b = 0; b < batch_size; ++b) out_offsets.data()[b + 1] = out_offsets.data()[b] + int64_t(spikes[b].size());
    const size_t total = out_offsets.data()[batch_size];
    Out<double> out_times = make<double>({total}), currents = make<double>({total});
    Out<int32_t> out_units = make<int32_t>({total});
    size_t k = 0;
    for (const auto& sample : spikes)
        for (const Spike& spike : sample) {
            out_times.data()[k] = spike.time;
            out_units.data()[k] = spike.unit;
            currents.data()[k++] = spike.current;
        }
    return nb::make_tuple(out_times, out_units, out_offsets, currents);
}

template <class T>
nb::tuple lif(EVENTNET_COMMON, nb::object recurrent_weight, nb::object recurrent_delay, int64_t max_spikes, int threads) {
    EVENTNET_BATCH_AND_LAYER;
    const auto recurrent = connections<T>(recurrent_weight, recurrent_delay, layer.num);
    const size_t batch_size = batch.size;
    std::vector<std::vector<Spike>> spikes(batch_size);
    if (layer.num > 0) {
        nb::gil_scoped_release release;
        spikes = layer.shared ? LifForward<T, true>(batch, layer, max_spikes, recurrent.get()).run(threads)
                        : LifForward<T, false>(batch, layer, max_spikes, recurrent.get()).run(threads);
    }
    return told(spikes);
}

// The gradients that a backward kernel fills and Python gets.
template <class T>
struct Arrays {
    Out<T> weight;
    Out<double> sums, times, values;
    bool inputs, graded;

    Arrays(const Batch<T>& batch, const Layer<T>& layer, bool with_inputs)
        : weight(make<T>({size_t(batch.inputs), size_t(layer.num)})), sums(make<double>({kSums, size_t(layer.num)})),
          times(make<double>({with_inputs ? size_t(batch.offsets[batch.size]) : 0})),
          values(make<double>({with_inputs && batch.values ? size_t(batch.offsets[batch.size]) : 0})), inputs(with_inputs),
          graded(with_inputs && batch.values) {}

    Gradients<T> out() { return {weight.data(), sums.data(), inputs ? times.data() : nullptr, graded ? values.data() : nullptr}; }
    nb::tuple tuple() const { return nb::make_tuple(weight, sums, times, values); }
};

template <class T>
void backward(const Batch<T>& batch, const Layer<T>& layer, const Impulses& impulses, Gradients<T> out, bool taus, int threads) {
    if (layer.num == 0) return;
    if (layer.shared) SharedAdjoint<T>(batch, layer, impulses, taus).run(out, threads);
    else EachAdjoint<T>(batch, layer, impulses, taus).run(out, threads);
}

// The arrivals of own spikes as events, sorted: the gradient of the recurrent weight is then that of any other.
template <class T>
struct OwnEvents {
    std::vector<double> times;
    std::vector<int32_t> units;

    OwnEvents(const Spikes<T>& spikes, int batch) : times(spikes.offsets[batch]), units(times.size()) {
        std::vector<std::pair<double, int32_t>> sample;
        for (int b = 0; b < batch; ++b) {
            sample.clear();
            for (int64_t k = spikes.offsets[b]; k < spikes.offsets[b + 1]; ++k)
                sample.emplace_back(spikes.times[k] + spikes.recurrent->delay[spikes.units[k]], spikes.units[k]);
            std::stable_sort(sample.begin(), sample.end(), [](const auto& x, const auto& y) { return x.first < y.first; });
            for (size_t k = 0; k < sample.size(); ++k) std::tie(times[spikes.offsets[b] + k], units[spikes.offsets[b] + k]) = sample[k];
        }
    }
};

template <class T>
nb::tuple lif_backward(EVENTNET_COMMON, nb::object recurrent_weight, nb::object recurrent_delay, In<double> spike_times,
                       In<int32_t> spike_units, In<int64_t> spike_offsets, In<double> currents, InReals grad_times,
                       double slope_floor, bool inputs, bool taus, int threads) {
    EVENTNET_BATCH_AND_LAYER;
    const auto recurrent = connections<T>(recurrent_weight, recurrent_delay, layer.num);
    const T* const recurrent_data = recurrent ? nb::cast<In<T>>(recurrent_weight).data() : nullptr;
    const size_t own = recurrent ? layer.num : 0;
    Arrays<T> arrays(batch, layer, inputs);
    Out<T> grad_recurrent = make<T>({own, own});
    {
        nb::gil_scoped_release release;
        const Spikes<T> spikes{spike_times.data(), spike_units.data(), spike_offsets.data(), currents.data(), recurrent.get(),
                               batch.duration, slope_floor};
        const Impulses impulses = impulses_of_spikes(layer, batch.size, spikes, reals(grad_times), arrays.sums.data(), threads);
        backward(batch, layer, impulses, arrays.out(), taus, threads);
        if (recurrent) {
            const OwnEvents<T> events(spikes, batch.size);
            const Batch<T> sent{{events.times.data(), nullptr}, events.units.data(), nullptr, spikes.offsets, batch.duration,
                                batch.size, layer.num};
            const Layer<T> back(recurrent_data, layer.num, layer.num, as(tau_mem), as(tau_syn), as(threshold), as(reset), as(bias));
            backward(sent, back, impulses, {grad_recurrent.data(), arrays.sums.data(), nullptr, nullptr}, taus, threads);
        }
    }
    return nb::make_tuple(arrays.weight, arrays.sums, arrays.times, arrays.values, grad_recurrent);
}

// Neurons with K dendritic branches: weight (in, K, N), tau_syn (K, N) or (K, 1), recurrent weight (N, K, N).
template <class T>
nb::tuple lif_branches(EVENTNET_COMMON, nb::object recurrent_weight, nb::object recurrent_delay, int64_t max_spikes, int threads) {
    const int inputs = int(weight.shape(0)), count = int(weight.shape(1)), num = int(weight.shape(2));
    const In<T> sizes = values.is_none() ? In<T>() : nb::cast<In<T>>(values);
    const Batch<T> batch{reals(times),    units.data(),         values.is_none() ? nullptr : sizes.data(), offsets.data(),
                         reals(duration), int(duration.size()), inputs};
    const Branches<T> branches(weight.data(), inputs, num, count, as(tau_mem), tau_syn.data(), tau_syn.shape(1) == 1, as(threshold),
                               as(reset), as(bias));
    const auto recurrent = connections<T>(recurrent_weight, recurrent_delay, num, count);
    std::vector<std::vector<Spike>> spikes(batch.size);
    if (num > 0) {
        nb::gil_scoped_release release;
        spikes = branches.shared ? BranchForward<T, true>(batch, branches, max_spikes, recurrent.get()).run(threads)
                                 : BranchForward<T, false>(batch, branches, max_spikes, recurrent.get()).run(threads);
    }
    return told(spikes);
}

// Each branch of the weights (in, K, N) as a layer (in, N) of its own: given the impulses, their gradients are those of any layer.
template <class T>
struct BranchLayers {
    std::vector<Array<T>> weights;
    std::vector<std::unique_ptr<const Layer<T>>> layers;

    BranchLayers(const In<T>& weight, const In<T>& tau_mem, const In<T>& tau_syn, const In<T>& threshold, const In<T>& reset,
                 const In<T>& bias) {
        const size_t inputs = weight.shape(0), count = weight.shape(1), num = weight.shape(2);
        const bool common = tau_syn.shape(1) == 1;
        for (size_t k = 0; k < count; ++k) {
            Array<T>& own = weights.emplace_back(inputs * num);
            for (size_t j = 0; j < inputs; ++j) std::copy_n(weight.data() + (j * count + k) * num, num, own.data() + j * num);
            const Parameter<T> tau{tau_syn.data() + (common ? k : k * num), common};
            layers.push_back(std::make_unique<const Layer<T>>(own.data(), int(inputs), int(num), as(tau_mem), tau, as(threshold), as(reset),
                                                              as(bias)));
        }
    }
};

// Adds the gradients of all branches to those of the weight (in, K, N), tau_syn (K, N) and the parameters they share.
template <class T>
void branches_backward(const Batch<T>& batch, const BranchLayers<T>& all, const Impulses& impulses, Gradients<T> out, double* tau_syn,
                       bool taus, int threads) {
    const size_t count = all.layers.size(), num = all.layers[0]->num, inputs = batch.inputs, events = batch.offsets[batch.size];
    for (size_t k = 0; k < count; ++k) {
        Array<T> weight(inputs * num, T(0));
        std::vector<double> sums(kSums * num), times(out.times ? events : 0), values(out.values ? events : 0);
        const Gradients<T> own{weight.data(), sums.data(), out.times ? times.data() : nullptr, out.values ? values.data() : nullptr};
        backward(batch, *all.layers[k], impulses, own, taus, threads);
        for (size_t j = 0; j < inputs; ++j) std::copy_n(weight.data() + j * num, num, out.weight + (j * count + k) * num);
        for (size_t n = 0; n < num; ++n) out.sums[kTauMem * num + n] += sums[kTauMem * num + n], tau_syn[k * num + n] += sums[kTauSyn * num + n];
        for (size_t e = 0; e < times.size(); ++e) out.times[e] += times[e];
        for (size_t e = 0; e < values.size(); ++e) out.values[e] += values[e];
    }
}

template <class T>
nb::tuple lif_branches_backward(EVENTNET_COMMON, nb::object recurrent_weight, nb::object recurrent_delay, In<double> spike_times,
                                In<int32_t> spike_units, In<int64_t> spike_offsets, In<double> currents, InReals grad_times,
                                double slope_floor, bool inputs, bool taus, int threads) {
    const size_t in = weight.shape(0), count = weight.shape(1), num = weight.shape(2);
    const In<T> sizes = values.is_none() ? In<T>() : nb::cast<In<T>>(values);
    const Batch<T> batch{reals(times),    units.data(),         values.is_none() ? nullptr : sizes.data(), offsets.data(),
                         reals(duration), int(duration.size()), int(in)};
    const size_t events = inputs ? batch.offsets[batch.size] : 0, graded = batch.values ? events : 0;
    const bool returns = !recurrent_weight.is_none();
    Out<T> of_weight = make<T>({in, count, num}), of_recurrent = make<T>({returns ? num : 0, returns ? count : 0, returns ? num : 0});
    Out<double> sums = make<double>({kSums, num}), of_tau_syn = make<double>({count, num});
    Out<double> of_times = make<double>({events}), of_values = make<double>({graded});
    if (num > 0) {
        const BranchLayers<T> all(weight, tau_mem, tau_syn, threshold, reset, bias);
        const In<T> own = returns ? nb::cast<In<T>>(recurrent_weight) : In<T>();
        const In<T> delay = returns ? nb::cast<In<T>>(recurrent_delay) : In<T>();
        const std::optional<BranchLayers<T>> back =
            returns ? std::optional<BranchLayers<T>>(std::in_place, own, tau_mem, tau_syn, threshold, reset, bias) : std::nullopt;
        std::vector<std::unique_ptr<const Recurrent<T>>> recurrent;
        std::vector<FurtherBranch<T>> further;
        for (size_t k = 0; returns && k < count; ++k) {
            recurrent.push_back(std::make_unique<const Recurrent<T>>(back->weights[k].data(), int(num), as(delay)));
            if (k) further.push_back({all.layers[k].get(), recurrent.back().get()});
        }
        nb::gil_scoped_release release;
        const Spikes<T> spikes{spike_times.data(), spike_units.data(), spike_offsets.data(), currents.data(),
                               returns ? recurrent[0].get() : nullptr, batch.duration, slope_floor};
        const Impulses impulses = impulses_of_spikes(*all.layers[0], batch.size, spikes, reals(grad_times), sums.data(), threads, further);
        branches_backward(batch, all, impulses,
                          {of_weight.data(), sums.data(), inputs ? of_times.data() : nullptr, graded ? of_values.data() : nullptr},
                          of_tau_syn.data(), taus, threads);
        if (returns) {
            const OwnEvents<T> sent(spikes, batch.size);
            const Batch<T> again{{sent.times.data(), nullptr}, sent.units.data(), nullptr, spikes.offsets, batch.duration, batch.size, int(num)};
            branches_backward(again, *back, impulses, {of_recurrent.data(), sums.data(), nullptr, nullptr}, of_tau_syn.data(), taus, threads);
        }
    }
    return nb::make_tuple(of_weight, sums, of_times, of_values, of_recurrent, of_tau_syn);
}

// What the kernels of neurons with orders of arrivals of their own take besides. With K branches weight is (in, K, N) and all that differs
// from neuron to neuron is given for each of the K N cells; recurrent weights are (N, K N).
#define EVENTNET_OPTIONS \
    In<T> delay, nb::object recurrent_weight, nb::object recurrent_delay, In<T> refractory, In<T> voltage, In<T> current, In<T> held

#define EVENTNET_OPTIONS_ARGS nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg()

template <class T>
Options<T> options(const Layer<T>& layer, int batch, int inputs, const In<T>& weight, EVENTNET_OPTIONS) {
    const int n = layer.num;
    const auto delayed = [n](const In<T>& w, int sources, const In<T>& d) {
        return Delayed<T>(w.data(), sources, n, d.data(), int(d.shape(0)), int(d.shape(1)));
    };
    const auto start = [n, batch](const In<T>& x) {
        if (x.ndim() > 1 && (x.ndim() != 2 || int(x.shape(0)) != batch || int(x.shape(1)) != n))
            throw Error("expected a state of (samples, neurons) = (" + std::to_string(batch) + ", " + std::to_string(n) + ")");
        return Start<T>{x.data(), x.ndim() == 2 ? n : 0, x.size() > 1 || x.ndim() == 2};
    };
    Options<T> found{delayed(weight, inputs, delay), {}, as(refractory), start(voltage), start(current), start(held),
                     weight.ndim() == 3 ? int(weight.shape(1)) : 1};
    if (!recurrent_weight.is_none())
        found.recurrent = delayed(nb::cast<In<T>>(recurrent_weight), found.neurons(n), nb::cast<In<T>>(recurrent_delay));
    return found;
}

template <class T>
nb::tuple lif_each(EVENTNET_COMMON, EVENTNET_OPTIONS, bool final, int64_t max_spikes, int threads) {
    EVENTNET_BATCH_AND_LAYER;
    const auto given = options<T>(layer, batch.size, batch.inputs, weight, delay, recurrent_weight, recurrent_delay, refractory, voltage, current, held);
    const size_t batch_size = batch.size;
    std::vector<std::vector<Released>> spikes(batch_size);
    const size_t cells = final ? batch_size * layer.num : 0;
    Out<T> state = make<T>({3, final ? batch_size : 0, size_t(layer.num)});
    if (layer.num > 0) {
        nb::gil_scoped_release release;
        T* const at = state.data();
        const Final<T> end = final ? Final<T>{at, at + cells, at + 2 * cells} : Final<T>{};
        spikes = given.branches > 1 ? DelayedForward<T, true>(batch, layer, given, max_spikes, threads, end).run()
                              : DelayedForward<T, false>(batch, layer, given, max_spikes, threads, end).run();
    }
    Out<int64_t> out_offsets = make<int64_t>({batch_size + 1});
    for (size_t b = 0; b < batch_size; ++b) out_offsets.data()[b + 1] = out_offsets.data()[b] + int64_t(spikes[b].size());
    const size_t total = out_offsets.data()[batch_size];
    Out<double> out_times = make<double>({total}), facts = make<double>({2, total});
    Out<int32_t> out_units = make<int32_t>({total});
    size_t k = 0;
    for (const auto& sample : spikes)
        for (const Released& spike : sample) {
            out_times.data()[k] = spike.time, out_units.data()[k] = spike.unit;
            facts.data()[k] = spike.current, facts.data()[total + k++] = spike.release_current;
        }
    return nb::make_tuple(out_times, out_units, out_offsets, facts, state);
}

template <class T>
nb::tuple lif_each_backward(EVENTNET_COMMON, EVENTNET_OPTIONS, In<double> spike_times, In<int32_t> spike_units,
                            In<int64_t> spike_offsets, In<double> facts, InReals grad_times, double slope_floor, bool inputs,
                            bool taus, int threads) {
    EVENTNET_BATCH_AND_LAYER;
    const auto given = options<T>(layer, batch.size, batch.inputs, weight, delay, recurrent_weight, recurrent_delay, refractory, voltage, current, held);
    const size_t n = layer.num, in = batch.inputs, own = given.recurrent.sources, total = spike_times.size();
    const size_t rows = DelayedAdjoint<T>::kRows, events = inputs ? batch.offsets[batch.size] : 0;
    Out<double> sums = make<double>({rows, n}), of_times = make<double>({events}), of_values = make<double>({events});
    Out<T> of_weight = weight.ndim() == 3 ? make<T>({in, weight.shape(1), weight.shape(2)}) : make<T>({in, n}), of_delay = make<T>({in, n});
    Out<T> of_recurrent = make<T>({own, n}), of_recurrent_delay = make<T>({own, n});
    if (n > 0) {
        nb::gil_scoped_release release;
        const double* const fact = facts.data();
        const Kept kept{spike_times.data(), fact, fact + total, spike_units.data(), spike_offsets.data(), reals(grad_times), slope_floor};
        DelayedAdjoint<T>(batch, layer, given, taus)
            .run(kept,
                 {of_weight.data(), of_delay.data(), of_recurrent.data(), of_recurrent_delay.data(), sums.data(),
                  inputs ? of_times.data() : nullptr, inputs ? of_values.data() : nullptr},
                 threads);
    }
    return nb::make_tuple(sums, of_times, of_values, of_weight, of_delay, of_recurrent, of_recurrent_delay);
}

template <class T>
nb::tuple li_max(EVENTNET_COMMON, int threads) {
    EVENTNET_BATCH_AND_LAYER;
    const size_t b = batch.size, n = layer.num;
    Out<T> value = make<T>({b, n}), slope = make<T>({b, n});
    Out<double> time = make<double>({b, n});
    Out<int64_t> event = make<int64_t>({b, n});
    if (n > 0) {
        nb::gil_scoped_release release;
        const Highest<T> out{value.data(), time.data(), event.data(), slope.data()};
        if (layer.shared) LiMax<T, true>(batch, layer).run(out, threads);
        else LiMax<T, false>(batch, layer).run(out, threads);
    }
    return nb::make_tuple(value, time, event, slope);
}

template <class T>
nb::tuple li_max_backward(EVENTNET_COMMON, In<double> at, In<int64_t> event, In<T> slope, In<T> grad, bool inputs, bool taus,
                          int threads) {
    EVENTNET_BATCH_AND_LAYER;
    Arrays<T> arrays(batch, layer, inputs);
    {
        nb::gil_scoped_release release;
        Peaks peaks(layer, batch.size, at.data(), grad.data(), arrays.sums.data());
        backward(batch, layer, peaks.impulses(), arrays.out(), taus, threads);
        if (inputs)
            for (size_t k = 0; k < grad.size(); ++k)
                if (event.data()[k] >= 0) arrays.times.data()[event.data()[k]] += double(grad.data()[k]) * slope.data()[k];
    }
    return arrays.tuple();
}

template <class T>
Out<T> li_integral(EVENTNET_COMMON, double rate, int threads) {
    EVENTNET_BATCH_AND_LAYER;
    Out<T> total = make<T>({size_t(batch.size), size_t(layer.num)});
    if (layer.num > 0) {
        nb::gil_scoped_release release;
        if (layer.shared) LiIntegral<T, true>(batch, layer, rate).forward(total.data(), threads);
        else LiIntegral<T, false>(batch, layer, rate).forward(total.data(), threads);
    }
    return total;
}

template <class T>
nb::tuple li_integral_backward(EVENTNET_COMMON, double rate, In<T> grad, bool inputs, bool taus,
                               int threads) {
    EVENTNET_BATCH_AND_LAYER;
    Arrays<T> arrays(batch, layer, inputs);
    if (layer.num > 0) {
        nb::gil_scoped_release release;
        if (layer.shared) LiIntegral<T, true>(batch, layer, rate).backward(grad.data(), arrays.out(), taus, threads);
        else LiIntegral<T, false>(batch, layer, rate).backward(grad.data(), arrays.out(), taus, threads);
    }
    return arrays.tuple();
}

template <class T>
Out<T> egru_pack(In<T> weight, int threads) {
    const size_t sources = weight.shape(1), hidden = weight.shape(0) / 3;
    Out<T> packed = make_unset<T>({sources, size_t(row_of<T>(padded_to_vectors<T>(int(hidden))))});
    nb::gil_scoped_release release;
    pack(weight.data(), int(sources), int(hidden), packed.data(), threads);
    return packed;
}

template <class T>
using InOut = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

template <class T>
void egru_step(In<T> x, In<T> packed_input, In<T> input_bias, In<T> packed, In<T> bias, In<T> threshold, InOut<T> c, InOut<T> y, double zoneout, int threads) {
    const GatedLayer<T> layer(int(threshold.size()), packed.data(), bias.data(), threshold.data(), T(0), T(1));
    nb::gil_scoped_release release;
    gated_step(layer, packed_input.data(), input_bias.data(), x.data(), int(x.shape(1)), int(x.shape(0)), T(zoneout), c.data(), y.data(), threads);
}

// x (positions, inputs) -> (positions, 3H)
template <class T>
Out<T> sparse_linear(In<T> x, In<T> packed, In<T> bias, int threads) {
    const size_t positions = x.shape(0), inputs = x.shape(1), hidden = bias.size() / 3;
    Out<T> out = make_unset<T>({positions, 3 * hidden});
    nb::gil_scoped_release release;
    const Active<T> active(positions, int(inputs), threads, [&](size_t p) { return x.data() + p * inputs; });
    sparse_product(packed.data(), bias.data(), int(hidden), active, out.data(), threads);
    return out;
}

// The gradient of the weight (3H, inputs), from the cotangents (positions, 3H).
template <class T>
Out<T> sparse_linear_weight(In<T> cotangents, In<T> x, int threads) {
    const size_t positions = x.shape(0), inputs = x.shape(1), hidden = cotangents.shape(1) / 3;
    Out<T> weight = make_unset<T>({3 * hidden, inputs});
    nb::gil_scoped_release release;
    const Active<T> active(positions, int(inputs), threads, [&](size_t p) { return x.data() + p * inputs; });
    const auto cotangent = [&](size_t p, int gate, int n) { return load_of(cotangents.data() + (p * 3 + gate) * hidden, n, int(hidden)); };
    sparse_weight_gradient<T>(active, int(inputs), int(hidden), cotangent, weight.data(), threads);
    return weight;
}

// The gradient of x (positions, inputs) where `needed`, as large, is not 0.
template <class T>
Out<T> sparse_linear_input(In<T> cotangents, In<T> packed, In<T> needed, int threads) {
    const size_t positions = needed.shape(0), inputs = needed.shape(1), hidden = cotangents.shape(1) / 3;
    Out<T> of_x = make<T>({positions, inputs});
    nb::gil_scoped_release release;
    const Active<T> active(positions, int(inputs), threads, [&](size_t p) { return needed.data() + p * inputs; });
    sparse_input_gradient(packed.data(), cotangents.data(), int(hidden), active, int(inputs), of_x.data(), threads);
    return of_x;
}

// What the kernels of gated units take: drive (T, B, 3H), the packed weight, bias and threshold, c and y before, kept (T, B, H) or None.
#define EVENTNET_GATED                                                                                                     \
    In<T> drive, In<T> packed, In<T> bias, In<T> threshold, In<T> c, In<T> y, nb::object kept, double height, double half_width, \
        double zoneout
#define EVENTNET_GATED_ARGS                                                                                               \
    nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg()
#define EVENTNET_GATED_LAYER                                                                                              \
    const size_t steps = drive.shape(0), batch = drive.shape(1), hidden = threshold.size();                              \
    const In<uint8_t> held = kept.is_none() ? In<uint8_t>() : nb::cast<In<uint8_t>>(kept);                               \
    const GatedLayer<T> layer(int(hidden), packed.data(), bias.data(), threshold.data(), T(height), T(half_width));      \
    const Sequence<T> in{int(steps), int(batch), drive.data(), c.data(), y.data(), kept.is_none() ? nullptr : held.data(), T(zoneout)}

template <class T>
nb::tuple egru(EVENTNET_GATED, bool keep_gates, int threads) {
    EVENTNET_GATED_LAYER;
    Out<T> told = make_unset<T>({steps, batch, hidden}), value = make_unset<T>({steps, batch, hidden});
    Out<T> gates = make_unset<T>({keep_gates ? steps : 0, batch, 4, hidden});
    if (batch > 0) {
        nb::gil_scoped_release release;
        gated_forward(layer, in, told.data(), value.data(), keep_gates ? gates.data() : nullptr, threads);
    }
    return nb::make_tuple(told, value, gates);
}

template <class T>
nb::tuple egru_backward(EVENTNET_GATED, In<T> told, In<T> gates, nb::object of_told, nb::object of_value, bool weight, bool first_y,
                        int threads) {
    EVENTNET_GATED_LAYER;  // the values take the place of the drive
    const size_t rows = weight ? 3 * hidden : 0;
    Out<T> of_drive = make_unset<T>({steps, batch, 3 * hidden}), of_weight = make<T>({rows, hidden});
    Out<T> of_c = make_unset<T>({batch, hidden}), of_y = make<T>({batch, hidden});
    Out<double> of_bias = make<double>({3 * hidden}), of_threshold = make<double>({hidden});
    const In<T> first = of_told.is_none() ? In<T>() : nb::cast<In<T>>(of_told), second = of_value.is_none() ? In<T>() : nb::cast<In<T>>(of_value);
    if (batch > 0) {
        nb::gil_scoped_release release;
        gated_backward(layer, in, told.data(), drive.data(), gates.data(), of_told.is_none() ? nullptr : first.data(),
                       of_value.is_none() ? nullptr : second.data(),
                       GatedGradients<T>{of_drive.data(), weight ? of_weight.data() : nullptr, of_c.data(), of_y.data(), first_y, of_bias.data(),
                                         of_threshold.data()},
                       threads);
    }
    return nb::make_tuple(of_drive, of_weight, of_bias, of_threshold, of_c, of_y);
}

// x (T, B, inputs); weight and the inputs' numbers (branches, synapses); decay as these, or (branches,); traces before (B, ...) alike.
#define EVENTNET_TREE In<T> x, In<T> weight, In<int64_t> index, In<T> decay, In<T> start
#define EVENTNET_TREE_LAYER                                                                                                 \
    const size_t steps = x.shape(0), batch = x.shape(1), branches = weight.shape(0);                                       \
    const Tree<T> tree(int(x.shape(2)), int(branches), int(weight.shape(1)), weight.data(), index.data(), decay.data(), decay.ndim() == 2); \
    const Stretch<T> in{int(steps), int(batch), x.data(), start.data()}

template <class T>
nb::tuple elm_branches(EVENTNET_TREE, int threads) {
    EVENTNET_TREE_LAYER;
    Out<T> out = make_unset<T>({steps, batch, branches}), last = make_unset<T>({batch, tree.traces()});
    {
        nb::gil_scoped_release release;
        branches_forward(tree, in, out.data(), last.data(), threads);
    }
    return nb::make_tuple(out, last);
}

template <class T>
nb::tuple elm_branches_backward(EVENTNET_TREE, In<T> out, In<T> of_out, In<T> of_last, bool inputs, int threads) {
    EVENTNET_TREE_LAYER;
    Out<T> of_x = make<T>({inputs ? steps : 0, batch, x.shape(2)}), of_weight = make<T>({branches, weight.shape(1)});
    Out<T> of_decay = make<T>({tree.traces()}), of_start = make_unset<T>({batch, tree.traces()});
    {
        nb::gil_scoped_release release;
        branches_backward(tree, in, of_out.data(), of_last.data(), out.data(),
                          TreeGradients<T>{of_weight.data(), of_decay.data(), of_start.data(), inputs ? of_x.data() : nullptr}, threads);
    }
    return nb::make_tuple(of_x, of_weight, of_decay, of_start);
}

// inward (hidden, branches) and its bias, back (hidden, memory) with the decay in it, forth (memory, hidden), its bias, keep, gain (memory,).
#define EVENTNET_MEMORY In<T> branch, In<T> inward, In<T> inward_bias, In<T> back, In<T> forth, In<T> bias, In<T> keep, In<T> gain, In<T> start
#define EVENTNET_MEMORY_LAYER                                                                                               \
    const size_t steps = branch.shape(0), batch = branch.shape(1), branches = branch.shape(2);                             \
    const size_t hidden = back.shape(0), memory = back.shape(1);                                                           \
    const MemoryLayer<T> layer{int(branches), int(hidden), int(memory), inward.data(), inward_bias.data(), back.data(), forth.data(), bias.data(), \
                               keep.data(), gain.data()}

template <class T>
nb::tuple elm_memory(EVENTNET_MEMORY, bool for_backward, int threads) {
    EVENTNET_MEMORY_LAYER;
    const size_t kept = for_backward ? steps : 0;
    Out<T> out = make_unset<T>({steps, batch, memory}), active = make_unset<T>({kept, batch, hidden}), moved = make_unset<T>({kept, batch, memory});
    {
        nb::gil_scoped_release release;
        memory_forward(layer, int(steps), int(batch), branch.data(), start.data(), out.data(), for_backward ? active.data() : nullptr,
                       for_backward ? moved.data() : nullptr, threads);
    }
    return nb::make_tuple(out, active, moved);
}

template <class T>
nb::tuple elm_memory_backward(EVENTNET_MEMORY, In<T> out, In<T> active, In<T> moved, In<T> of_out, int threads) {
    EVENTNET_MEMORY_LAYER;
    const MemoryRun<T> run{int(steps), int(batch), branch.data(), start.data(), out.data(), active.data(), moved.data()};
    Out<T> of_branch = make_unset<T>({steps, batch, branches}), of_start = make_unset<T>({batch, memory});
    Out<T> of_inward = make<T>({hidden, branches}), of_inward_bias = make<T>({hidden}), of_back = make<T>({hidden, memory});
    Out<T> of_forth = make<T>({memory, hidden}), of_bias = make<T>({memory}), of_keep = make<T>({memory}), of_gain = make<T>({memory});
    {
        nb::gil_scoped_release release;
        memory_backward(layer, run, of_out.data(),
                        MemoryGradients<T>{of_branch.data(), of_start.data(), of_inward.data(), of_inward_bias.data(), of_back.data(), of_forth.data(),
                                           of_bias.data(), of_keep.data(), of_gain.data()},
                        threads);
    }
    return nb::make_tuple(of_branch, of_inward, of_inward_bias, of_back, of_forth, of_bias, of_keep, of_gain, of_start);
}

// Neurons under targets (T, B, N): times, units, offsets, steps of the spikes, and the voltages (T, B, N) if they are kept.
#define EVENTNET_DRIVE In<T> target, In<T> tau_mem, In<T> threshold, In<T> reset, In<T> refractory, In<T> start, double dt
#define EVENTNET_DRIVEN                                                                                                        \
    const size_t steps = target.shape(0), batch = target.shape(1), num = target.shape(2);                                      \
    const Driven<T> layer{int64_t(steps), int(batch),       int(num),  target.data(), as(tau_mem), as(threshold), as(reset),   \
                          as(refractory), as(start),        dt}

template <class T>
nb::tuple lif_drive(EVENTNET_DRIVE, bool kept, int64_t max_spikes, int threads) {
    EVENTNET_DRIVEN;
    Out<T> voltage = make_unset<T>({kept ? steps : 0, batch, num});
    std::vector<std::vector<Fired>> found(batch);
    {
        nb::gil_scoped_release release;
        found = DriveForward<T>(layer, max_spikes).run(kept ? voltage.data() : nullptr, threads);
    }
    Out<int64_t> offsets = make<int64_t>({batch + 1});
    for (size_t b = 0; b < batch; ++b) offsets.data()[b + 1] = offsets.data()[b] + int64_t(found[b].size());
    const size_t total = offsets.data()[batch];
    Out<double> times = make_unset<double>({total});
    Out<int32_t> units = make_unset<int32_t>({total});
    Out<int64_t> places = make_unset<int64_t>({total});
    size_t i = 0;
    for (const auto& sample : found)
        for (const Fired& spike : sample) times.data()[i] = spike.time, units.data()[i] = spike.unit, places.data()[i++] = spike.step;
    return nb::make_tuple(times, units, offsets, places, voltage);
}

// Gradients of the targets, and the sums of drive.h.
template <class T>
nb::tuple lif_drive_backward(EVENTNET_DRIVE, In<double> times, In<int32_t> units, In<int64_t> offsets, In<int64_t> places, In<T> voltage,
                             InReals of_times, nb::object of_voltage, double slope_floor, int threads) {
    EVENTNET_DRIVEN;
    Out<T> of_target = make_unset<T>({steps, batch, num});
    Out<double> sums = make<double>({kDriveSums, num});
    const In<T> readings = of_voltage.is_none() ? In<T>() : nb::cast<In<T>>(of_voltage);
    const DriveRun<T> run{times.data(), units.data(), offsets.data(), places.data(), voltage.size() ? voltage.data() : nullptr,
                          reals(of_times), of_voltage.is_none() ? nullptr : readings.data(), slope_floor};
    {
        nb::gil_scoped_release release;
        DriveAdjoint<T>(layer, run).run(of_target.data(), sums.data(), threads);
    }
    return nb::make_tuple(of_target, sums);
}

using Integers = nb::ndarray<int32_t, nb::c_contig, nb::device::cpu>;

int32_t* whole(nb::handle x) { return x.is_none() ? nullptr : nb::cast<Integers>(x).data(); }

// Populations (size, spikes) of inputs and (size, spikes, keep_u, keep_v, bias, threshold, refractory, interval, offset, u, v,
// waiting, pending, slots, told_u, told_v) of neurons; projections (source, target, weight, delay, first, columns, shift, delays,
// graded). Arrays that are written, and None where there is none, as in chip.h.
std::vector<int64_t> run_chip(nb::list populations, nb::list projections, int64_t batch, int64_t first, int64_t steps, int threads) {
    std::vector<chip::Population> neurons;
    for (nb::handle each : populations) {
        const nb::tuple p = nb::cast<nb::tuple>(each);
        chip::Population made{nb::cast<int64_t>(p[0]), whole(p[1])};
        if (p.size() > 2) {
            made.keep_u = whole(p[2]), made.keep_v = whole(p[3]), made.bias = whole(p[4]), made.threshold = whole(p[5]);
            made.refractory = whole(p[6]), made.interval = nb::cast<int64_t>(p[7]), made.offset = nb::cast<int64_t>(p[8]);
            made.u = whole(p[9]), made.v = whole(p[10]), made.waiting = whole(p[11]), made.pending = whole(p[12]);
            made.slots = nb::cast<int64_t>(p[13]), made.told_u = whole(p[14]), made.told_v = whole(p[15]);
        }
        neurons.push_back(made);
    }
    std::vector<chip::Projection> synapses;
    for (nb::handle each : projections) {
        const nb::tuple p = nb::cast<nb::tuple>(each);
        synapses.push_back({nb::cast<int64_t>(p[0]), nb::cast<int64_t>(p[1]), nb::cast<In<int16_t>>(p[2]).data(),
                            p[3].is_none() ? nullptr : nb::cast<In<uint8_t>>(p[3]).data(),
                            p[4].is_none() ? nullptr : nb::cast<In<int64_t>>(p[4]).data(), whole(p[5]), nb::cast<int>(p[6]),
                            nb::cast<int64_t>(p[7]), nb::cast<bool>(p[8])});
    }
    nb::gil_scoped_release release;
    return chip::run(neurons, synapses, batch, first, steps, threads);
}

const float* maybe(const nb::object& x) { return x.is_none() ? nullptr : nb::cast<In<float>>(x).data(); }

// Gradients of what arrives at a population, (B, T, N); see chip_adjoint.h.
Out<float> chip_adjoint(In<float> full, In<int32_t> spikes, nb::object of_v, nb::object of_s, In<float> threshold, In<float> alpha,
                        In<float> beta, nb::object weight, nb::object delay, float height, float half_width, int threads) {
    const size_t steps = full.shape(0), batch = full.shape(1), num = full.shape(2);
    Out<float> of_arrived = make_unset<float>({batch, steps, num});
    const chip::Steps all{int64_t(steps), int64_t(batch), int64_t(num), full.data(), spikes.data(), maybe(of_v), maybe(of_s),
                          threshold.data(), alpha.data(), beta.data(), maybe(weight),
                          delay.is_none() ? nullptr : nb::cast<In<uint8_t>>(delay).data(), height, half_width};
    nb::gil_scoped_release release;
    chip::adjoint(all, of_arrived.data(), threads);
    return of_arrived;
}

Out<float> chip_weight_gradient(In<float> sent, In<float> of_arrived, In<uint8_t> delay, int threads) {
    const size_t inputs = delay.shape(0), num = delay.shape(1);
    Out<float> found = make<float>({inputs, num});
    nb::gil_scoped_release release;
    chip::weight_gradient(sent.data(), of_arrived.data(), delay.data(), int64_t(sent.shape(0)), int64_t(sent.shape(1)), int64_t(inputs),
                          int64_t(num), found.data(), threads);
    return found;
}

// Of numbers (rows, size): how many are not zero, how many of these are neither 1 nor -1, and the former by row and by column.
template <class T>
nb::tuple tally_of(In<T> x, bool columns, int threads) {
    const size_t rows = x.shape(0), size = x.shape(1);
    Out<int64_t> by_row = make_unset<int64_t>({rows}), by_column = make<int64_t>({columns ? size : 0});
    Tally found;
    {
        nb::gil_scoped_release release;
        found = tally(x.data(), int64_t(rows), int64_t(size), by_row.data(), columns ? by_column.data() : nullptr, threads);
    }
    return nb::make_tuple(found.active, found.graded, by_row, by_column);
}

// How many events count, and for each of the fans (one number for each unit) their sum over these.
template <class T>
std::vector<int64_t> sent_and_met(In<T> times, In<int32_t> units, In<int64_t> offsets, nb::object values, In<T> duration,
                                  std::vector<In<int64_t>> fans) {
    const In<T> sizes = values.is_none() ? In<T>() : nb::cast<In<T>>(values);
    const Sent<T> sent{times.data(), units.data(), offsets.data(), values.is_none() ? nullptr : sizes.data(), duration.data(), int64_t(duration.size())};
    std::vector<int64_t> found{sent.count()};
    for (const In<int64_t>& fan : fans) {
        int64_t met = 0;
        sent.each([&, data = fan.data()](int64_t, int64_t k) { met += data[sent.units[k]]; });
        found.push_back(met);
    }
    return found;
}

template <class T>
nb::tuple events_in_steps(In<T> times, In<int32_t> units, In<int64_t> offsets, nb::object values, In<T> duration, In<int64_t> steps,
                          size_t num, double dt, double slack) {
    const In<T> sizes = values.is_none() ? In<T>() : nb::cast<In<T>>(values);
    const size_t samples = duration.size();
    const Sent<T> sent{times.data(), units.data(), offsets.data(), values.is_none() ? nullptr : sizes.data(), duration.data(), int64_t(samples)};
    const size_t longest = samples ? size_t(*std::max_element(steps.data(), steps.data() + samples)) : 0;
    Out<int64_t> by_row = make<int64_t>({longest, samples}), by_column = make<int64_t>({num});
    const Tally found = tally_in_steps(sent, steps.data(), dt, slack, by_row.data(), by_column.data(), int64_t(num));
    return nb::make_tuple(found.active, found.graded, by_row, by_column);
}

template <class T>
Out<int64_t> events_by_step(In<T> times, In<int64_t> offsets, In<int64_t> steps, double dt, double slack, size_t longest) {
    Out<int64_t> found = make<int64_t>({longest});
    if (longest) by_step(times.data(), offsets.data(), int64_t(steps.size()), steps.data(), dt, slack, found.data());
    return found;
}

bool supports(const std::string& isa) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (isa == "avx512")
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq");
    if (isa == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return isa == "baseline";
}

template <class T>
void bind(nb::module_& m) {
    m.def("lif", &lif<T>, EVENTNET_COMMON_ARGS, nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg());
    m.def("lif_backward", &lif_backward<T>, EVENTNET_COMMON_ARGS, nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("lif_branches", &lif_branches<T>, EVENTNET_COMMON_ARGS, nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg());
    m.def("lif_branches_backward", &lif_branches_backward<T>, EVENTNET_COMMON_ARGS, nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("lif_each", &lif_each<T>, EVENTNET_COMMON_ARGS, EVENTNET_OPTIONS_ARGS, nb::arg(), nb::arg(), nb::arg());
    m.def("lif_each_backward", &lif_each_backward<T>, EVENTNET_COMMON_ARGS, EVENTNET_OPTIONS_ARGS, nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("egru_pack", &egru_pack<T>, nb::arg().noconvert(), nb::arg());
    m.def("sparse_linear", &sparse_linear<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg());
    m.def("sparse_linear_weight", &sparse_linear_weight<T>, nb::arg().noconvert(), nb::arg(), nb::arg());
    m.def("sparse_linear_input", &sparse_linear_input<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg());
    m.def("egru_step", &egru_step<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg());
    m.def("egru", &egru<T>, EVENTNET_GATED_ARGS, nb::arg(), nb::arg());
    m.def("egru_backward", &egru_backward<T>, EVENTNET_GATED_ARGS, nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(),
          nb::arg(), nb::arg());
    m.def("elm_branches", &elm_branches<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("elm_branches_backward", &elm_branches_backward<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("elm_memory", &elm_memory<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg(), nb::arg());
    m.def("elm_memory_backward", &elm_memory_backward<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("lif_drive", &lif_drive<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg());
    m.def("lif_drive_backward", &lif_drive_backward<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
    m.def("li_max", &li_max<T>, EVENTNET_COMMON_ARGS, nb::arg());
    m.def("li_max_backward", &li_max_backward<T>, EVENTNET_COMMON_ARGS, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg());
    m.def("li_integral", &li_integral<T>, EVENTNET_COMMON_ARGS, nb::arg(), nb::arg());
    m.def("li_integral_backward", &li_integral_backward<T>, EVENTNET_COMMON_ARGS, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg());
    m.def("tally", &tally_of<T>, nb::arg().noconvert(), nb::arg(), nb::arg());
    m.def("sent_and_met", &sent_and_met<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
    m.def("tally_in_steps", &events_in_steps<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg());
    m.def("by_step", &events_by_step<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
}

}  // namespace

NB_MODULE(EVENTNET_MODULE, m) {
    m.attr("isa") = EVENTNET_STRING(EVENTNET_ISA);
    m.attr("vector_bytes") = kVectorBytes;
    m.def("supports", &supports);
    m.def("set_blas", &Blas::set);
    m.def("run_chip", &run_chip);
    m.def("chip_adjoint", &chip_adjoint, nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg());
    m.def("chip_weight_gradient", &chip_weight_gradient);
    nb::register_exception_translator([](const std::exception_ptr& p, void*) {
        try {
            std::rethrow_exception(p);
        } catch (const Error& e) {
            PyErr_SetString(PyExc_ValueError, e.what());
        } catch (const StormError& e) {
            PyErr_SetString(PyExc_OverflowError, e.what());
        }
    });
    bind<float>(m);
    bind<double>(m);
}
