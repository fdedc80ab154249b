// Neurons with dendritic branches: each branch has a current with a time constant of its own, the soma hears their sum.
//
//   u' = (sum_k i_k - u) / tm,   i_k' = -i_k / ts_k,   u = V - bias
// Between events u is a sum of exponentials that may rise and fall several times. Its first crossing of the threshold is found from
// bound to bound, so that none is passed, however narrow: see BranchedNeuron::crossing.
#pragma once

#include <memory>

#include "batch.h"

namespace eventnet {

// A layer for each branch. They differ in their synaptic time constants and share all else, and the weights: K rows of each input.
template <class T>
struct Branches {
    std::vector<std::unique_ptr<const Layer<T>>> layers;
    bool shared;                   // one set of time constants for all neurons
    double shortest_tau = INFINITY;

    // tau_syn: (K, N), or (K, 1) if `common`.
    Branches(const T* weight, int inputs, int n, int branches, Parameter<T> tau_mem, const T* tau_syn, bool common, Parameter<T> threshold,
             Parameter<T> reset, Parameter<T> bias)
        : shared(tau_mem.shared && common) {
        for (int k = 0; k < branches; ++k) {
            const Parameter<T> own{tau_syn + (common ? k : static_cast<size_t>(k) * n), common};
            layers.push_back(std::make_unique<const Layer<T>>(weight, k ? 0 : inputs, n, tau_mem, own, threshold, reset, bias, branches));
            if (n > 0) shortest_tau = std::min(shortest_tau, layers.back()->shortest_tau());
        }
    }

    int count() const { return static_cast<int>(layers.size()); }
    const Layer<T>& operator[](int k) const { return *layers[k]; }
    const Layer<T>& first() const { return *layers[0]; }
};

// One neuron, in double, from the start of a stretch without events on.
class BranchedNeuron {
public:
    explicit BranchedNeuron(int branches) : start_(branches), now_(start_), own_(branches) {}

    double voltage = 0;                                // u at the start
    std::vector<double>& currents() { return start_; }  // at the start

    // branch(k): a neuron with the synaptic time constant of branch k.
    template <class F>
    void be(const F& branch) {
        for (size_t k = 0; k < own_.size(); ++k) own_[k] = branch(static_cast<int>(k));
    }

    // Seconds until u first reaches the threshold within h, or -1.
    //
    // u relaxes towards the sum of the currents. Over the next `look` seconds this sum is at most S, the positive currents as they
    // are now and the negative ones as they will be then. So u stays below what relaxes towards S, whose crossing is known; to go
    // there, or to the end of the look, is safe. Close to the crossing of u this bound is as steep as u: the steps converge
    // quadratically, and from below.
    double crossing(double h, double close) {
        const Neuron& soma = *own_[0];
        double at = 0, u = voltage;
        now_ = start_;
        for (;;) {
            const double missing = soma.gap - u, top = std::max(soma.gap, u), left = h - at;
            if (left <= 0) return -1;
            double total = 0, size = 0, bend = 0;
            for (size_t k = 0; k < now_.size(); ++k) {
                total += now_[k], size += std::abs(now_[k]), bend += std::abs(now_[k]) * own_[k]->q;
            }
            const double speed = total - u;  // times tm
            if (missing <= close * (std::abs(soma.gap) + std::abs(u) + size) && speed >= 0) {
                const double ahead = std::max(missing, 0.0);  // one step of Newton's is left, where the peak is not too near for it
                if (ahead * (bend + soma.p * speed) <= 1e-3 * soma.p * speed * speed) at += ahead / speed * soma.tm;
                return std::min(at, h);
            }
            const double tangent = total > top ? relaxed(u, total, top) : INFINITY;  // if all currents stayed as they are
            double safe = 0;
            for (double look = left; look > kShortest * h && safe < 0.5 * tangent;) {
                const double until = relaxed(u, most(look), top);
                safe = std::max(safe, std::min(until, look));
                if (until >= look) {
                    if (look == left) return -1;
                    break;
                }
                look = std::min(0.5 * look, 2 * tangent);
            }
            if (at + safe == at) return at;  // on it, for all that double precision can tell
            at += safe;
            u = flow(at, now_);
        }
    }

    // The neuron s seconds after the start: its voltage, and its currents.
    double flow(double s, std::vector<double>& to) const {
        double u = voltage * std::exp(-s * own_[0]->p);
        for (size_t k = 0; k < start_.size(); ++k) {
            const Decay<double> f = own_[k]->decay(s);
            u += start_[k] * f.k, to[k] = start_[k] * f.y;
        }
        return u;
    }

    // After a spike `s` seconds after the start: from there on. Returns the sum of the currents.
    double spike(double s) {
        flow(s, start_);
        voltage = own_[0]->rise;
        double total = 0;
        for (const double i : start_) total += i;
        return total;
    }

    double end(double s) { return flow(s, now_); }

private:
    static constexpr double kShortest = 1e-18;  // look, of a stretch: less does not move the time

    // An upper bound of the sum of the currents in the next `look` seconds.
    double most(double look) const {
        double sum = 0;
        for (size_t k = 0; k < now_.size(); ++k) sum += now_[k] > 0 ? now_[k] : now_[k] * std::exp(-look * own_[k]->q);
        return sum;
    }

    // Seconds that a voltage u that relaxes towards `rest` takes to reach `top`.
    double relaxed(double u, double rest, double top) const {
        return rest > top ? -std::log1p(-(top - u) / (rest - u)) * own_[0]->tm : INFINITY;
    }

    std::vector<double> start_, now_;
    std::vector<const Neuron*> own_;
};

}  // namespace eventnet
