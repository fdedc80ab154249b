// A hardware graph of LIF neurons with Loihi's integers, step by step; the equations are in hardware/lif.py and
// hardware/loihi.py, whose torch version gives the same numbers. Samples are independent: one thread for each.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "parallel.h"

namespace eventnet::chip {

constexpr int32_t kTop = 1 << 23;  // M

// Arrays of all samples; those of a sample lie size apart within a step (or a slot).
struct Population {
    int64_t size;
    int32_t* spikes;  // (T, B, N); of inputs they are given, and nothing else is there
    const int32_t* keep_u = nullptr;
    const int32_t* keep_v = nullptr;
    const int32_t* bias = nullptr;
    const int32_t* threshold = nullptr;
    const int32_t* refractory = nullptr;
    int64_t interval = 0, offset = 0;
    int32_t* u = nullptr;
    int32_t* v = nullptr;
    int32_t* waiting = nullptr;
    int32_t* pending = nullptr;  // (slots, B, N)
    int64_t slots = 0;
    int32_t* told_u = nullptr;  // (T, B, N), if they are recorded
    int32_t* told_v = nullptr;
};

// Rows of a dense matrix (source, target), or of synapses one by one, from first[row] to first[row + 1].
struct Projection {
    int64_t source, target;
    const int16_t* weight;    // -256 ... 255, shifted up by at most 7
    const uint8_t* delay;     // null: 0
    const int64_t* first;     // null: dense
    const int32_t* columns;
    int shift;                // down, of the sum; upwards the weights are shifted already
    int64_t delays;           // longest delay + 1
    bool graded;
};

inline int32_t add(int32_t a, int32_t b) { return int32_t(uint32_t(a) + uint32_t(b)); }  // wraps, as int32 does in NumPy

// One sample at a time.
class Sample {
public:
    Sample(const std::vector<Population>& populations, const std::vector<Projection>& projections, int64_t batch, int64_t sample)
        : populations_(populations), projections_(projections), batch_(batch), sample_(sample), pending_(populations.size()) {}

    // Steps first + 1 ... first + steps; overflows of each population are added up.
    void run(int64_t first, int64_t steps, std::vector<int64_t>& overflows) {
        // what is on its way lies together here, and not a batch apart as in the state
        for (size_t p = 0; p < populations_.size(); ++p) {
            pending_[p].resize(populations_[p].slots * populations_[p].size);
            for (int64_t s = 0; s < populations_[p].slots; ++s)
                std::copy_n(populations_[p].pending + at(s, populations_[p]), populations_[p].size, slot(p, s));
        }
        for (int64_t k = 0; k < steps; ++k) {
            for (size_t p = 0; p < populations_.size(); ++p)
                if (populations_[p].u) overflows[p] += update(populations_[p], slot(p, first + k), k, first + k);
            for (const Projection& each : projections_) deliver(each, first + k, k);
        }
        for (size_t p = 0; p < populations_.size(); ++p)
            for (int64_t s = 0; s < populations_[p].slots; ++s)
                std::copy_n(slot(p, s), populations_[p].size, populations_[p].pending + at(s, populations_[p]));
    }

private:
    int64_t at(int64_t step, const Population& p) const { return (step * batch_ + sample_) * p.size; }

    int32_t* slot(size_t population, int64_t step) {
        const Population& p = populations_[population];
        return pending_[population].data() + step % p.slots * p.size;
    }

    int64_t update(const Population& p, int32_t* arriving, int64_t k, int64_t step) const {
        const int64_t num = p.size, own = sample_ * num, here = at(k, p);
        int32_t* const u = p.u + own;
        int32_t* const v = p.v + own;
        int32_t* const spikes = p.spikes + here;
        if (p.interval && (step + 1) % p.interval == p.offset) std::fill_n(u, num, 0), std::fill_n(v, num, 0);
        int64_t overflows = 0;
        for (int64_t n = 0; n < num; ++n) {
            // products are exact in double (43 bits), and the conversion rounds towards zero
            int32_t x = int32_t(double(u[n]) * p.keep_u[n] * (1.0 / 4096));
            x = add(x, int32_t(uint32_t(arriving[n]) << 6));
            const bool high = x > kTop, low = x <= -kTop;
            x = high ? add(x, -2 * kTop) : low ? add(x, 2 * kTop) : x;
            const int32_t moved = add(add(int32_t(double(v[n]) * p.keep_v[n] * (1.0 / 4096)), x), p.bias[n]);
            const int32_t y = std::clamp(moved, -kTop + 1, kTop - 1);
            overflows += (high || low) + (moved != y);
            u[n] = x;
            v[n] = y;
            arriving[n] = 0;
        }
        if (p.waiting) {
            int32_t* const waiting = p.waiting + own;
            for (int64_t n = 0; n < num; ++n) {
                v[n] = waiting[n] > 0 ? 0 : v[n];
                waiting[n] = v[n] > p.threshold[n] ? p.refractory[n] : std::max(waiting[n] - 1, 0);
            }
        }
        for (int64_t n = 0; n < num; ++n) {
            const bool fired = v[n] > p.threshold[n];
            spikes[n] = fired;
            v[n] = fired ? 0 : v[n];
        }
        if (p.told_u) std::copy_n(u, num, p.told_u + here), std::copy_n(v, num, p.told_v + here);
        return overflows;
    }

    void deliver(const Projection& p, int64_t step, int64_t k) {
        const Population& source = populations_[p.source];
        const Population& target = populations_[p.target];
        const int32_t* const spikes = source.spikes + at(k, source);
        const int64_t num = target.size;
        bool started = false;
        for (int64_t j = 0; j < source.size; ++j) {
            if (!spikes[j]) continue;
            if (!started) start(p, step), started = true;
            const int32_t value = p.graded ? spikes[j] : 1;
            const int64_t row = p.first ? p.first[j] : j * num, count = p.first ? p.first[j + 1] - row : num;
            const int16_t* const weight = p.weight + row;
            if (!p.first && !p.delay) {
                int32_t* const onto = slots_[0];
                for (int64_t n = 0; n < num; ++n) onto[n] = add(onto[n], int32_t(uint32_t(int32_t(weight[n])) * uint32_t(value)));
                continue;
            }
            const int32_t* const columns = p.first ? p.columns + row : nullptr;
            const uint8_t* const delay = p.delay ? p.delay + row : nullptr;
            for (int64_t s = 0; s < count; ++s) {
                int32_t& onto = slots_[delay ? delay[s] : 0][columns ? columns[s] : s];
                onto = add(onto, int32_t(uint32_t(int32_t(weight[s])) * uint32_t(value)));
            }
        }
        if (started && p.shift > 0) finish(p, step);
    }

    // Where the weights of each delay are added: what is on its way, or sums of their own where the sum is to be shifted.
    void start(const Projection& p, int64_t step) {
        const int64_t num = populations_[p.target].size;
        slots_.resize(p.delays);
        if (p.shift > 0) sums_.assign(p.delays * num, 0);
        for (int64_t d = 0; d < p.delays; ++d)
            slots_[d] = p.shift > 0 ? sums_.data() + d * num : slot(p.target, step + 1 + d);
    }

    void finish(const Projection& p, int64_t step) {
        const int64_t num = populations_[p.target].size;
        for (int64_t d = 0; d < p.delays; ++d) {
            int32_t* const onto = slot(p.target, step + 1 + d);
            const int32_t* const sums = sums_.data() + d * num;
            for (int64_t n = 0; n < num; ++n) onto[n] = add(onto[n], sums[n] >> p.shift);
        }
    }

    const std::vector<Population>& populations_;
    const std::vector<Projection>& projections_;
    const int64_t batch_, sample_;
    std::vector<std::vector<int32_t>> pending_;
    std::vector<int32_t*> slots_;
    std::vector<int32_t> sums_;
};

// All samples; returns how often a current wrapped or a voltage was clipped, of each population.
inline std::vector<int64_t> run(const std::vector<Population>& populations, const std::vector<Projection>& projections,
                                int64_t batch, int64_t first, int64_t steps, int threads) {
    std::vector<std::vector<int64_t>> each(batch, std::vector<int64_t>(populations.size(), 0));
    parallel_for(int(batch), threads,
                 [&](int b) { Sample(populations, projections, batch, b).run(first, steps, each[b]); });
    std::vector<int64_t> overflows(populations.size(), 0);
    for (const auto& one : each)
        for (size_t p = 0; p < one.size(); ++p) overflows[p] += one[p];
    return overflows;
}

}  // namespace eventnet::chip
