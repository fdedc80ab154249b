// From gradients at points in time to impulses: the weights with which voltages at these points enter the loss.
//
// Written with its resets, V(t) = bias + start e^{-t/tm} + sum_e w K(t - t_e) - sum_{t_k < t} (threshold - reset) e^{-(t - t_k)/tm}
// depends on the weights only by the arrivals t_e, so every gradient is a sum over impulses: dL/dw = sum_k size_k dV(t_k)/dw.
// A spike moves by -dV / V' and takes its reset along. Hence sizes follow from a neuron's last spike to its first:
//   size_k = -(dL/dt_k) / V'(before) + (V'(after) / V'(before) - 1) v,   v = sum_{m > k} size_m e^{-(t_m - t_k)/tm}
// with v the costate of the voltage just after the spike (the jump of EventProp: Wunderlich & Pehle 2021). A floor on the slope
// takes the place of a smaller V'(before): dL/dV before, -(dL/dt_k - v V'(after)) / V'(before), is then limited.
#pragma once

#include <algorithm>
#include <limits>

#include "batch.h"
#include "parallel.h"

namespace eventnet {

// Sums over the batch, for each neuron. `After` and `Before` an impulse, its costate v and v's derivative in tau_mem.
enum Sum { kBefore, kAfter, kAfterTau, kStart, kStartTau, kTauMem, kTauSyn, kDelay, kSums };

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

// Costates of one neuron, of its voltage (v) and its current (r); the derivatives of both in tau_mem (a, c) and of r in tau_syn (d).
struct Costate {
    double v = 0, r = 0, a = 0, c = 0, d = 0;

    // The same s seconds earlier.
    Costate earlier(double s, const Neuron& neuron, bool with_taus) const {
        const Decay<double> f = neuron.decay(s);
        Costate to{v * f.x, r * f.y + v * f.k};
        if (!with_taus) return to;
        const TauSlope<Vec<double>> g = tau_slope<double>(splat(s), splat(neuron.p), splat(neuron.q));
        to.a = a * f.x + v * g.x_tm[0];
        to.c = c * f.y + a * f.k + v * g.k_tm[0];
        to.d = d * f.y + r * g.y_ts[0] + v * g.k_ts[0];
        return to;
    }
};

// What the voltage at time 0 of a neuron that starts away from rest gets from costates v, a at time t.
template <class T>
void add_start(const Layer<T>& layer, size_t n, double v, double a, double t, double* sums) {
    const double p = layer.neurons[n].p, x = std::exp(-t * p);
    sums[kStart * layer.num + n] += v * x;
    sums[kStartTau * layer.num + n] += (a + v * t * p * p) * x;
}

// What the impulses make of an arrival at any time before them, for all neurons: traces that flow backwards.
//   dL/d(arrival time) = -sum_n w_n sum_k size_k K'(t_k - a),   K' = (e^{-s/ts} - K) / tm
template <class T>
class Costates {
public:
    explicit Costates(const Layer<T>& layer) : layer_(layer), voltage_(layer.columns), current_(layer.columns) {}

    void start(double end) {
        std::fill(voltage_.begin(), voltage_.end(), T(0));
        std::fill(current_.begin(), current_.end(), T(0));
        now_ = end;
    }

    void add(int n, double time, double size) {
        flow(time);
        current_[n] += T(size);
    }

    // dL/d(time) of an arrival that adds `row` to the currents.
    double pull(const T* row, double time) {
        flow(time);
        Vec<T> sum{};
        for (int c = 0; c < layer_.columns; c += kLanes<T>)
            sum += load(row + c) * (load(&voltage_[c]) - load(&current_[c])) * load(&layer_.p[c]);
        return eventnet::sum<T>(sum);
    }

private:
    void flow(double time) {
        const T h = T(now_ - time);
        now_ = time;
        if (h <= 0) return;
        const Decay<double> one = layer_.neurons[0].decay(h);
        Decay<Vec<T>> f{splat(T(one.x)), splat(T(one.y)), splat(T(one.k))};
        for (int c = 0; c < layer_.columns; c += kLanes<T>) {
            if (!layer_.shared) f = decay<T>(splat(h), load(&layer_.p[c]), load(&layer_.q[c]));
            const Vec<T> v = load(&voltage_[c]), i = load(&current_[c]);
            store(&voltage_[c], v * f.x + i * f.k), store(&current_[c], i * f.y);
        }
    }

    const Layer<T>& layer_;
    Array<T> voltage_, current_;
    double now_ = 0;
};

// The spikes of a batch and what the kernel kept of them.
template <class T>
struct Spikes {
    const double* times;
    const int32_t* units;
    const int64_t* offsets;
    const double* currents;
    const Recurrent<T>* recurrent;  // null: they do not come back to the layer
    Reals duration;
    double slope_floor;             // volts per second
};

// What comes back to one of the neurons' further branches: a layer with the time constants of these.
template <class T>
struct FurtherBranch {
    const Layer<T>* layer;
    const Recurrent<T>* recurrent;
};

// tm V' just before a spike, by which its gradient is divided; not below the floor.
template <class T>
double rise_before(const Neuron& neuron, double current, double slope_floor) {
    // the slope is positive; float32 rounding must not make that of a grazing spike zero or negative
    const double least = std::numeric_limits<T>::epsilon() * (std::abs(neuron.gap) + std::abs(current));
    return std::max({current - neuron.gap, least, slope_floor * neuron.tm});
}

// Turns grads = dL/d(spike times) into impulses, and adds to the sums of parameters other than weight and time constants.
template <class T>
Impulses impulses_of_spikes(const Layer<T>& layer, int batch, const Spikes<T>& spikes, Reals grads, double* sums, int threads,
                            const std::vector<FurtherBranch<T>>& further = {}) {
    const double *const times = spikes.times, *const currents = spikes.currents;
    const int32_t* const units = spikes.units;
    const int64_t* const offsets = spikes.offsets;
    Impulses impulses{times, units, offsets, std::vector<double>(offsets[batch])};
    const size_t num = layer.num;
    if (offsets[batch] < 1000) threads = 1;  // less work than waking a thread costs
    std::vector<std::vector<double>> parts(threads);
    parallel_for(threads, threads, [&](int part) {
        std::vector<double>& mine = parts[part];
        mine.assign(kSums * num, 0.0);
        std::vector<double> v(num), a(num), later(num), fade, wait, back;
        std::vector<int64_t> order;  // spikes by their arrivals, the last one first
        std::vector<Costates<T>> costates{Costates<T>(layer)};  // of each branch
        for (const FurtherBranch<T>& branch : further) costates.emplace_back(*branch.layer);
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
            const auto arrival = [&](int64_t k) { return times[k] + double(spikes.recurrent->delay[units[k]]); };
            size_t next = 0;  // in order
            order.clear();
            if (spikes.recurrent) {
                back.assign(last - first, 0.0);
                for (int64_t k = last; k-- > first;)
                    if (arrival(k) < spikes.duration[b]) order.push_back(k);
                std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return arrival(x) > arrival(y); });
                for (Costates<T>& branch : costates) branch.start(spikes.duration[b]);
            }
            for (int64_t k = last; k-- > first;) {
                const int n = units[k];
                for (; next < order.size() && arrival(order[next]) >= times[k]; ++next) {
                    const int64_t sent = order[next];
                    double pull = costates[0].pull(spikes.recurrent->weight[units[sent]], arrival(sent));
                    for (size_t i = 0; i < further.size(); ++i)
                        pull += costates[i + 1].pull(further[i].recurrent->weight[units[sent]], arrival(sent));
                    back[sent - first] = pull;
                    mine[kDelay * num + units[sent]] += back[sent - first];
                }
                const Neuron& neuron = layer.neurons[n];
                const double x = fade[k - first];
                a[n] = a[n] * x + v[n] * x * wait[k - first] * neuron.p * neuron.p;
                v[n] *= x;
                const double before = rise_before<T>(neuron, currents[k], spikes.slope_floor), after = currents[k] - neuron.rise;
                const double grad = grads[k] + (spikes.recurrent ? back[k - first] : 0.0);
                const double size = ((after - before) * v[n] - grad * neuron.tm) / before;
                mine[kAfter * num + n] += v[n];
                mine[kAfterTau * num + n] += a[n];
                v[n] += size;
                mine[kBefore * num + n] += v[n];
                impulses.sizes[k] = size;
                if (!spikes.recurrent) continue;
                for (Costates<T>& branch : costates) branch.add(n, times[k], size);
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
