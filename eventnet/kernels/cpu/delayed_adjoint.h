// Backward pass of delayed_forward.h: every arrival is a look-up of its target's costates.
//
// Between a neuron's impulses its costates r = dL/dI and v = dL/dV are closed form, so those at an arrival follow from the first
// impulse after it. Spikes are taken from the last to the first: by then all that they cause is known.
//   arrival at a: dL/dw += value r(a),   dL/da = value w (r / ts - v / tm)
//   own spike k: dL/dV before = -(dL/dt_k + its arrivals - v V' at the end of its refractory period) / V' before; after it v is 0
// (Wunderlich & Pehle 2021, with delays and refractory periods.) The derivatives (c, a) of (r, v) in tau_mem and d of r in tau_syn
// give the gradients of the time constants; a reset takes the voltage that it ended from all later ones: hence the term with a.
#pragma once

#include "delayed_forward.h"
#include "impulse.h"

namespace eventnet {

// Gradients of a delayed matrix of weights: the same shapes, and for each event those of its time and value.
template <class T>
struct DelayedGradients {
    std::vector<double> weight, delay;

    void make_room(const Delayed<T>& synapses, int inputs) {
        if (!synapses.weight) return;
        weight.assign(static_cast<size_t>(inputs) * synapses.num, 0.0);
        delay.assign(static_cast<size_t>(inputs) * synapses.num, 0.0);
    }
};

template <class T>
class DelayedAdjoint {
public:
    // Rows of the sums over the batch, after those of impulse.h.
    enum { kRefractory = kSums, kCurrent, kRows };

    DelayedAdjoint(const Batch<T>& batch, const Layer<T>& layer, const Options<T>& options, bool with_taus)
        : batch_(batch), layer_(layer), options_(options), with_taus_(with_taus) {}

    struct Found {
        DelayedGradients<T> input, recurrent;
        std::vector<double> sums;
    };

    // times and values: of the events, or null.
    Found run(const Reals& grads, const int64_t* offsets, const int32_t* units, const double* spike_times, const double* currents,
              const double* release_currents, const double* release_voltages, double* times, double* values, int threads) const {
        const Split parts = split(batch_, layer_.columns, std::min(threads, std::max(batch_.size, 1)));
        std::vector<Found> found(parts.chunks());
        parallel_for(parts.chunks(), threads, [&](int chunk) {
            Found& mine = found[chunk];
            mine.input.make_room(options_.input, batch_.inputs);
            mine.recurrent.make_room(options_.recurrent, layer_.num);
            mine.sums.assign(static_cast<size_t>(kRows) * layer_.num, 0.0);
            Worker worker{*this, mine};
            for (int b = parts.samples[chunk]; b < parts.samples[chunk + 1]; ++b) {
                worker.spikes(grads, offsets[b], offsets[b + 1], units, spike_times, currents, release_currents, release_voltages, batch_.duration[b]);
                worker.start();
                const int64_t stop = batch_.counted(b);
                for (int64_t e = batch_.offsets[b]; e < stop; ++e) {
                    const auto [by_time, by_value] = worker.arrive(options_.input, mine.input, batch_.times[e], batch_.units[e], batch_.value(e), batch_.duration[b]);
                    if (times) times[e] = by_time;
                    if (values) values[e] = by_value;
                }
            }
        });
        for (size_t part = 1; part < found.size(); ++part) {  // in a fixed order: runs repeat bit for bit
            add(found[0].input.weight, found[part].input.weight), add(found[0].input.delay, found[part].input.delay);
            add(found[0].recurrent.weight, found[part].recurrent.weight), add(found[0].recurrent.delay, found[part].recurrent.delay);
            add(found[0].sums, found[part].sums);
        }
        return std::move(found[0]);
    }

private:
    static void add(std::vector<double>& to, const std::vector<double>& from) {
        for (size_t k = 0; k < from.size(); ++k) to[k] += from[k];
    }

    // Costates just before an impulse.
    struct State {
        double time = INFINITY;
        Costate at{};
    };

    struct Worker {
        const DelayedAdjoint& all;
        Found& found;
        const Layer<T>& layer = all.layer_;
        std::vector<int64_t> order{};   // spikes by the ends of their refractory periods, the last one first
        std::vector<double> pulls{};    // dL/d(these)
        std::vector<std::vector<State>> states = std::vector<std::vector<State>>(all.layer_.num);  // from the last impulse to the first

        double& sum(int row, int n) { return found.sums[static_cast<size_t>(row) * layer.num + n]; }

        // The costates of neuron n at a time before those of `later`.
        Costate back(int n, const State& later, double time) const {
            if (std::isinf(later.time)) return {};
            return later.at.earlier(std::max(later.time - time, 0.0), layer.neurons[n], all.with_taus_);
        }

        void spikes(const Reals& grads, int64_t first, int64_t last, const int32_t* units, const double* times, const double* currents,
                    const double* release_currents, const double* release_voltages, double duration) {
            for (auto& list : states) list.assign(1, State{});
            const auto release = [&](int64_t k) { return times[k] + double(all.options_.refractory[units[k]]); };
            order.clear();
            for (int64_t k = last; k-- > first;)
                if (release(k) < duration) order.push_back(k);
            std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return release(x) > release(y); });
            pulls.assign(last - first, 0.0);
            size_t next = 0;
            for (int64_t k = last; k-- > first;) {
                for (; next < order.size() && release(order[next]) >= times[k]; ++next) {
                    const int64_t of = order[next];
                    pulls[of - first] = reset(units[of], release(of), release_currents[of], release_voltages[of]);
                }
                const int n = units[k];
                const Neuron& neuron = layer.neurons[n];
                double grad = grads[k] + pulls[k - first];
                if (all.options_.recurrent.weight)
                    grad += arrive(all.options_.recurrent, found.recurrent, times[k], n, T(1), duration).first;
                Costate at = back(n, states[n].back(), times[k]);
                // the slope before a spike is positive; float32 rounding must not make that of a grazing one zero or negative
                const double least = std::numeric_limits<T>::epsilon() * (std::abs(neuron.gap) + std::abs(currents[k]));
                at.v += -grad * neuron.tm / std::max(currents[k] - neuron.gap, least);
                sum(kBefore, n) += at.v;
                states[n].push_back({times[k], at});
            }
        }

        // The end of a refractory period: what comes after it sees the voltage from its reset on only. Returns dL/d(its time).
        double reset(int n, double time, double current, double voltage) {
            const Neuron& neuron = layer.neurons[n];
            Costate at = back(n, states[n].back(), time);
            const double by_time = -at.v * (current - neuron.rise) * neuron.p;
            sum(kAfter, n) += at.v;
            sum(kRefractory, n) += by_time;
            sum(kTauMem, n) -= (voltage - neuron.rise) * at.a;
            at.v = 0;
            states[n].push_back({time, at});
            return by_time;
        }

        void start() {
            for (int n = 0; n < layer.num; ++n) {
                const Costate at = back(n, states[n].back(), 0.0);
                const double current = all.options_.current[n];
                sum(kStart, n) += at.v, sum(kStartTau, n) += at.a, sum(kCurrent, n) += at.r;
                sum(kTauMem, n) += current * at.c, sum(kTauSyn, n) += current * at.d;
            }
        }

        // Adds what an event does by all its arrivals; returns dL/d(time), dL/d(value).
        std::pair<double, double> arrive(const Delayed<T>& synapses, DelayedGradients<T>& gradients, double time, int unit, T value, double duration) {
            double by_time = 0, by_value = 0;
            for (int n = 0; n < layer.num; ++n) {
                const double at = time + synapses.delay_of(unit, n);
                if (at >= duration) continue;
                const auto& list = states[n];  // times fall: the last one after `at`
                const auto later = std::partition_point(list.begin(), list.end(), [&](const State& s) { return s.time > at; }) - 1;
                if (std::isinf(later->time)) continue;
                const Costate here = back(n, *later, at);
                const Neuron& neuron = layer.neurons[n];
                const double w = synapses.weight_of(unit, n), pull = w * (here.r * neuron.q - here.v * neuron.p);
                const size_t place = static_cast<size_t>(unit) * layer.num + n;
                gradients.weight[place] += value * here.r;
                gradients.delay[place] += value * pull;
                by_time += value * pull, by_value += w * here.r;
                if (all.with_taus_) sum(kTauMem, n) += value * w * here.c, sum(kTauSyn, n) += value * w * here.d;
            }
            return {by_time, by_value};
        }
    };

    const Batch<T>& batch_;
    const Layer<T>& layer_;
    const Options<T>& options_;
    const bool with_taus_;
};

}  // namespace eventnet
