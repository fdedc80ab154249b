// From gradients at points in time to impulses: the weights with which voltages at these points enter the loss.
//
// Written with its resets, V(t) = bias + start e^{-t/tm} + sum_e w K(t - t_e) - sum_{t_k < t} (threshold - reset) e^{-(t - t_k)/tm}
// depends on the weights only by the arrivals t_e, so every gradient is a sum over impulses: dL/dw = sum_k size_k dV(t_k)/dw.
// A spike moves by -dV / V' and takes its reset along. Hence sizes follow from a neuron's last spike to its first:
//   size_k = -(dL/dt_k) / V'(before) + (V'(after) / V'(before) - 1) v,   v = sum_{m > k} size_m e^{-(t_m - t_k)/tm}
// with v the costate of the voltage just after the spike (the jump of EventProp: Wunderlich & Pehle 2021).
#pragma once

#include <algorithm>
#include <limits>

#include "batch.h"
#include "parallel.h"

namespace eventnet {

// Sums over the batch, for each neuron. `After` and `Before` an impulse, its costate v and v's derivative in tau_mem.
enum Sum { kBefore, kAfter, kAfterTau, kStart, kStartTau, kTauMem, kTauSyn, kSums };

template <class T>
struct Gradients {
    T* weight = nullptr;       // (in, N)
    double* sums = nullptr;    // (kSums, N)
    double* times = nullptr;   // (E,) or null
    double* values = nullptr;  // (E,) or null
};

// Impulses of a batch, sorted by time in each sample: sample b owns [offsets[b], offsets[b + 1]).
struct Impulses {
    const double* times;
    const int32_t* units;
    const int64_t* offsets;
    std::vector<double> sizes;

    // End of the impulses of sample b that are not zero.
    int64_t last(int b) const {
        int64_t k = offsets[b + 1];
        while (k > offsets[b] && sizes[k - 1] == 0) --k;
        return k;
    }
};

// What the voltage at time 0 of a neuron that starts away from rest gets from costates v, a at time t.
template <class T>
void add_start(const Layer<T>& layer, size_t n, double v, double a, double t, double* sums) {
    const double p = layer.neurons[n].p, x = std::exp(-t * p);
    sums[kStart * layer.num + n] += v * x;
    sums[kStartTau * layer.num + n] += (a + v * t * p * p) * x;
}

// Turns grads = dL/d(spike times) into impulses, and adds to the sums of parameters other than weight and time constants.
template <class T>
Impulses impulses_of_spikes(const Layer<T>& layer, int batch, const double* times, const int32_t* units, const int64_t* offsets,
                            const double* currents, Reals grads, double* sums, int threads) {
    Impulses impulses{times, units, offsets, std::vector<double>(offsets[batch])};
    const size_t num = layer.num;
    if (offsets[batch] < 1000) threads = 1;  // less work than waking a thread costs
    std::vector<std::vector<double>> parts(threads);
    parallel_for(threads, threads, [&](int part) {
        std::vector<double>& mine = parts[part];
        mine.assign(kSums * num, 0.0);
        std::vector<double> v(num), a(num), later(num), fade, wait;
        for (int b = int64_t(batch) * part / threads; b < int64_t(batch) * (part + 1) / threads; ++b) {
            const int64_t first = offsets[b];
            int64_t last = offsets[b + 1];
            while (last > first && grads[last - 1] == 0) --last;
            if (last == first) continue;
            wait.assign((last - first + kLanes<double> - 1) / kLanes<double> * kLanes<double>, 0.0);
            fade.resize(wait.size());
            std::fill(later.begin(), later.end(), 0.0);
            for (int64_t k = last; k-- > first; later[units[k]] = times[k])
                wait[k - first] = std::max(later[units[k]] - times[k], 0.0);
            for (int64_t k = first; k < last; ++k) fade[k - first] = -wait[k - first] * layer.neurons[units[k]].p;
            for (size_t k = 0; k < fade.size(); k += kLanes<double>) store(&fade[k], exp(load(&fade[k])));
            std::fill(v.begin(), v.end(), 0.0);
            std::fill(a.begin(), a.end(), 0.0);
            for (int64_t k = last; k-- > first;) {
                const int n = units[k];
                const Neuron& neuron = layer.neurons[n];
                const double x = fade[k - first];
                a[n] = a[n] * x + v[n] * x * wait[k - first] * neuron.p * neuron.p;
                v[n] *= x;
                // the slope before a spike is positive; float32 rounding must not make that of a grazing one zero or negative
                const double least = std::numeric_limits<T>::epsilon() * (std::abs(neuron.gap) + std::abs(currents[k]));
                const double before = std::max(currents[k] - neuron.gap, least), after = currents[k] - neuron.rise;
                const double size = ((after - before) * v[n] - grads[k] * neuron.tm) / before;
                mine[kAfter * num + n] += v[n];
                mine[kAfterTau * num + n] += a[n];
                v[n] += size;
                mine[kBefore * num + n] += v[n];
                impulses.sizes[k] = size;
            }
            for (size_t n = 0; n < num; ++n)
                if (layer.restless(n) && v[n] != 0) add_start(layer, n, v[n], a[n], later[n], mine.data());
        }
    });
    for (const auto& part : parts)  // in a fixed order: runs repeat bit for bit
        for (size_t i = 0; i < part.size(); ++i) sums[i] += part[i];
    return impulses;
}

// One impulse for each voltage (b, n) that is read at time `at` and has a gradient.
class Peaks {
public:
    template <class T>
    Peaks(const Layer<T>& layer, int batch, const double* at, const T* grad, double* sums) : offsets_{0} {
        std::vector<int> order;
        for (int b = 0; b < batch; ++b) {
            const size_t row = static_cast<size_t>(b) * layer.num;
            order.clear();
            for (int n = 0; n < layer.num; ++n)
                if (grad[row + n] != T(0)) order.push_back(n);
            std::stable_sort(order.begin(), order.end(), [&](int x, int y) { return at[row + x] < at[row + y]; });
            for (const int n : order) {
                times_.push_back(at[row + n]), units_.push_back(n), sizes_.push_back(grad[row + n]);
                sums[kBefore * layer.num + n] += sizes_.back();
                if (layer.restless(n)) add_start(layer, n, sizes_.back(), 0.0, times_.back(), sums);
            }
            offsets_.push_back(static_cast<int64_t>(times_.size()));
        }
    }

    // Valid as long as this is.
    Impulses impulses() { return {times_.data(), units_.data(), offsets_.data(), std::move(sizes_)}; }

private:
    std::vector<double> times_, sizes_;
    std::vector<int32_t> units_;
    std::vector<int64_t> offsets_;
};

}  // namespace eventnet
