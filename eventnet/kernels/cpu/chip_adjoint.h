// The backward pass of LIF neurons with Loihi's integers, straight through what is rounded; the equations are in
// hardware/finetune.py, whose torch version gives the same numbers up to the order of sums.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "parallel.h"

namespace eventnet::chip {

// A population over all steps, (T, B, N); of what comes back to its own spikes, weight and delay (N, N), null if it has none.
struct Steps {
    int64_t steps, batch, size;
    const float* full;      // v before the reset
    const int32_t* spikes;
    const float* of_v;      // gradients of v and of the spikes, null: none
    const float* of_s;
    const float* threshold;  // (N,)
    const float* alpha;
    const float* beta;
    const float* weight;
    const uint8_t* delay;
    float height, half_width;
};

// What a source that sends in step t is worth: the sum over n of weight[n] arrived[t + 1 + delay[n]][n], of one sample (T, N).
inline float worth(const float* weight, const uint8_t* delay, const float* arrived, int64_t t, int64_t steps, int64_t num) {
    float sum = 0;
    if (!delay) {
        const float* const next = arrived + (t + 1) * num;
        for (int64_t n = 0; t + 1 < steps && n < num; ++n) sum += weight[n] * next[n];
        return sum;
    }
    for (int64_t n = 0; n < num; ++n) {
        const int64_t late = t + 1 + delay[n];
        if (late < steps) sum += weight[n] * arrived[late * num + n];
    }
    return sum;
}

// The gradient of what arrives in each step, (B, T, N).
inline void adjoint(const Steps& s, float* of_arrived, int threads) {
    parallel_for(int(s.batch), threads, [&](int b) {
        const int64_t num = s.size;
        float* const arrived = of_arrived + b * s.steps * num;
        std::vector<float> du(num, 0.f), dv(num, 0.f);
        for (int64_t t = s.steps; t-- > 0;) {
            const int64_t here = (t * s.batch + b) * num;
            for (int64_t n = 0; n < num; ++n) {
                const float threshold = s.threshold[n];
                const float near = 1 - std::abs(s.full[here + n] / threshold - 1) / s.half_width;
                const float slope = s.height * std::max(near, 0.f) / threshold;
                float ds = s.of_s ? s.of_s[here + n] : 0.f;
                if (s.weight && slope > 0)
                    ds += worth(s.weight + n * num, s.delay ? s.delay + n * num : nullptr, arrived, t, s.steps, num);
                const bool kept = s.spikes[here + n] == 0;
                const float v = (kept ? dv[n] + (s.of_v ? s.of_v[here + n] : 0.f) : 0.f) + ds * slope;
                const float u = du[n] + v;
                arrived[t * num + n] = 64 * u;
                du[n] = s.alpha[n] * u;
                dv[n] = s.beta[n] * v;
            }
        }
    });
}

// The gradient of weights (I, N) with delays, from what was sent, (T, B, I), and the gradient of what arrived, (B, T, N). Each
// thread has rows of its own.
inline void weight_gradient(const float* sent, const float* arrived, const uint8_t* delay, int64_t steps, int64_t batch, int64_t inputs,
                            int64_t num, float* out, int threads) {
    constexpr int64_t kRows = 32;
    parallel_for(int((inputs + kRows - 1) / kRows), threads, [&](int part) {
        const int64_t first = part * kRows, last = std::min(first + kRows, inputs);
        for (int64_t b = 0; b < batch; ++b) {
            const float* const own = arrived + b * steps * num;
            for (int64_t t = 0; t + 1 < steps; ++t) {
                const float* const row = sent + (t * batch + b) * inputs;
                for (int64_t j = first; j < last; ++j) {
                    if (row[j] == 0) continue;
                    const uint8_t* const late = delay + j * num;
                    float* const onto = out + j * num;
                    for (int64_t n = 0; n < num; ++n) {
                        const int64_t when = t + 1 + late[n];
                        if (when < steps) onto[n] += row[j] * own[when * num + n];
                    }
                }
            }
        }
    });
}

}  // namespace eventnet::chip
