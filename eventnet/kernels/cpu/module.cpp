// Python bindings: arrays in, arrays out, no torch headers. One extension module per instruction set.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include "adjoint.h"
#include "li_max.h"
#include "lif_forward.h"

namespace nb = nanobind;
using namespace eventnet;

#define EVENTNET_STRING2(x) #x
#define EVENTNET_STRING(x) EVENTNET_STRING2(x)

namespace {

template <class T>
using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
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

template <class T>
Batch<T> as_batch(const In<double>& times, const In<int32_t>& units, const In<int64_t>& offsets, const T* values,
                  const In<double>& duration, size_t inputs) {
    return {times.data(), units.data(), values, offsets.data(), duration.data(), int(duration.size()), int(inputs)};
}

// parameters: (5, N) float64: tau_mem, tau_syn, threshold, reset, bias
template <class T>
Layer<T> as_layer(const In<T>& weight, const In<double>& parameters, bool shared) {
    const double* p = parameters.data();
    const size_t n = weight.shape(1);
    return Layer<T>(weight.data(), int(weight.shape(0)), int(n), shared, p, p + n, p + 2 * n, p + 3 * n, p + 4 * n);
}

template <class T>
nb::tuple lif(In<double> times, In<int32_t> units, In<int64_t> offsets, nb::object values, In<double> duration, In<T> weight,
              In<double> parameters, bool shared, int64_t max_spikes, int threads) {
    const size_t batch_size = duration.size();
    const In<T> sizes = values.is_none() ? In<T>() : nb::cast<In<T>>(values);
    const Batch<T> batch = as_batch<T>(times, units, offsets, sizes.data(), duration, weight.shape(0));
    std::vector<std::vector<Spike>> spikes(batch_size);
    if (weight.shape(1) > 0) {
        nb::gil_scoped_release release;
        const Layer<T> layer = as_layer<T>(weight, parameters, shared);
        spikes = shared ? LifForward<T, true>(batch, layer, max_spikes).run(threads)
                        : LifForward<T, false>(batch, layer, max_spikes).run(threads);
    }
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
nb::tuple sweep(const Batch<T>& batch, const Layer<T>& layer, const std::vector<std::vector<Mark>>& marks, bool spiking,
                bool inputs, bool taus, int threads) {
    const size_t events = batch.offsets[batch.size], n = layer.num;
    Out<T> weight = make<T>({size_t(batch.inputs), n});
    Out<double> sums = make<double>({kSums, n}), times = make<double>({inputs ? events : 0}),
                values = make<double>({inputs && batch.values ? events : 0});
    Gradients<T> out{weight.data(), sums.data(), inputs ? times.data() : nullptr,
                     inputs && batch.values ? values.data() : nullptr};
    if (n > 0) {
        nb::gil_scoped_release release;
        if (layer.shared) Adjoint<T, true>(batch, layer, marks, spiking, taus).run(out, threads);
        else Adjoint<T, false>(batch, layer, marks, spiking, taus).run(out, threads);
    }
    return nb::make_tuple(weight, sums, times, values);
}

// A spike's slope before it is positive; float32 rounding must not make a grazing one zero or negative.
template <class T>
double safe_slope(const Neuron& neuron, double current) {
    const double least = std::numeric_limits<T>::epsilon() * std::max(1.0, std::abs(neuron.gap));
    return std::max(current - neuron.gap, least) * neuron.p;
}

template <class T>
nb::tuple lif_backward(In<double> times, In<int32_t> units, In<int64_t> offsets, nb::object values, In<double> duration,
                       In<T> weight, In<double> parameters, bool shared, In<double> spike_times, In<int32_t> spike_units,
                       In<int64_t> spike_offsets, In<double> currents, In<double> grad_times, bool inputs, bool taus,
                       int threads) {
    const In<T> sizes = values.is_none() ? In<T>() : nb::cast<In<T>>(values);
    const Batch<T> batch = as_batch<T>(times, units, offsets, sizes.data(), duration, weight.shape(0));
    const Layer<T> layer = as_layer<T>(weight, parameters, shared);
    std::vector<std::vector<Mark>> marks(batch.size);
    for (int b = 0; b < batch.size; ++b) {
        bool any = false;
        for (int64_t k = spike_offsets.data()[b]; k < spike_offsets.data()[b + 1]; ++k) any = any || grad_times.data()[k] != 0;
        if (!any) continue;
        for (int64_t k = spike_offsets.data()[b]; k < spike_offsets.data()[b + 1]; ++k) {
            const int n = spike_units.data()[k];
            const Neuron& neuron = layer.neurons[n];
            const double current = currents.data()[k], before = safe_slope<T>(neuron, current);
            const double after = (current - neuron.rise) * neuron.p;
            marks[b].push_back({spike_times.data()[k], after / before, -grad_times.data()[k] / before, n});
        }
    }
    return sweep<T>(batch, layer, marks, true, inputs, taus, threads);
}

template <class T>
nb::tuple li_max(In<double> times, In<int32_t> units, In<int64_t> offsets, nb::object values, In<double> duration, In<T> weight,
                 In<double> parameters, bool shared, int threads) {
    const In<T> sizes = values.is_none() ? In<T>() : nb::cast<In<T>>(values);
    const Batch<T> batch = as_batch<T>(times, units, offsets, sizes.data(), duration, weight.shape(0));
    const size_t b = batch.size, n = weight.shape(1);
    Out<T> value = make<T>({b, n}), slope = make<T>({b, n});
    Out<double> time = make<double>({b, n});
    Out<int64_t> event = make<int64_t>({b, n});
    if (n > 0) {
        nb::gil_scoped_release release;
        const Layer<T> layer = as_layer<T>(weight, parameters, shared);
        const Highest<T> out{value.data(), time.data(), event.data(), slope.data()};
        if (shared) LiMax<T, true>(batch, layer).run(out, threads);
        else LiMax<T, false>(batch, layer).run(out, threads);
    }
    return nb::make_tuple(value, time, event, slope);
}

template <class T>
nb::tuple li_max_backward(In<double> times, In<int32_t> units, In<int64_t> offsets, nb::object values, In<double> duration,
                          In<T> weight, In<double> parameters, bool shared, In<double> at, In<int64_t> event, In<T> slope,
                          In<T> grad, bool inputs, bool taus, int threads) {
    const In<T> sizes = values.is_none() ? In<T>() : nb::cast<In<T>>(values);
    const Batch<T> batch = as_batch<T>(times, units, offsets, sizes.data(), duration, weight.shape(0));
    const Layer<T> layer = as_layer<T>(weight, parameters, shared);
    const int num = layer.num;
    std::vector<std::vector<Mark>> marks(batch.size);
    for (int b = 0; b < batch.size; ++b) {
        for (int n = 0; n < num; ++n) {
            const size_t k = static_cast<size_t>(b) * num + n;
            if (grad.data()[k] != T(0)) marks[b].push_back({at.data()[k], 1.0, double(grad.data()[k]), n});
        }
        std::sort(marks[b].begin(), marks[b].end(), [](const Mark& x, const Mark& y) { return x.time < y.time; });
    }
    nb::tuple out = sweep<T>(batch, layer, marks, false, inputs, taus, threads);
    if (inputs) {
        double* time_slopes = nb::cast<Out<double>>(out[2]).data();
        for (size_t k = 0; k < static_cast<size_t>(batch.size) * num; ++k)
            if (event.data()[k] >= 0) time_slopes[event.data()[k]] += double(grad.data()[k]) * slope.data()[k];
    }
    return out;
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
    m.def("lif", &lif<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg().noconvert(),
          nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("lif_backward", &lif_backward<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
          nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg());
    m.def("li_max", &li_max<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
          nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg());
    m.def("li_max_backward", &li_max_backward<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
          nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg());
}

}  // namespace

NB_MODULE(EVENTNET_MODULE, m) {
    m.attr("isa") = EVENTNET_STRING(EVENTNET_ISA);
    m.def("supports", &supports);
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
