// The hidden layer without connections to itself and without delays; see grid_gather.cpp for the equations.
#pragma once
#include "common.h"

namespace grid_gather {

int64_t forward_sample(const Sample &in, const Rows &w, const Grid &grid, float threshold, float *kept,
                       float *state, float *s) {
    const int n = w.width;
    float *v = state, *i = state + n;
    std::memset(state, 0, 2 * n * sizeof(float));
    const vec a = spread(grid.a), b = spread(grid.b), k = spread(grid.k), limit = spread(threshold);
    int64_t event = 0, spikes = 0;
    for (int step = 0; step < grid.steps; ++step) {
        int64_t end = event;
        while (end < in.count && grid.step(in.times[end]) <= step)
            ++end;
        for (int base = 0; base < n; base += tile * lanes) {
            vec current[tile];
            for (int j = 0; j < tile; ++j)
                current[j] = a * load(i + base + j * lanes);
            for (int64_t e = event; e < end; ++e) {
                const float *row = w.data + size_t(in.units[e]) * n + base;
                for (int j = 0; j < tile; ++j)
                    current[j] += load(row + j * lanes);
            }
            for (int j = 0; j < tile; ++j) {
                const int at = base + j * lanes;
                store(i + at, current[j]);
                const vec u = b * load(v + at) + k * current[j];
                if (kept)
                    store(kept + size_t(step) * n + at, u);
                store(v + at, u < limit ? u : vec{});
                for (unsigned bits = reached(u, limit); bits; bits &= bits - 1) {
                    s[at + __builtin_ctz(bits)] += grid.g[step];
                    ++spikes;
                }
            }
        }
        event = end;
    }
    return spikes;
}

void backward_sample(const Sample &in, const Grid &grid, int n, float threshold, float slope,
                     const float *kept, const float *q, float *state, float *dw) {
    float *p_u = state, *p_i = state + n;
    std::memset(state, 0, 2 * n * sizeof(float));
    const vec a = spread(grid.a), b = spread(grid.b), k = spread(grid.k), limit = spread(threshold);
    int64_t end = in.count;
    while (end > 0 && grid.step(in.times[end - 1]) >= grid.steps)
        --end;
    for (int step = grid.steps - 1; step >= 0; --step) {
        int64_t event = end;
        while (event > 0 && grid.step(in.times[event - 1]) >= step)
            --event;
        const vec g = spread(grid.g[step]);
        for (int base = 0; base < n; base += tile * lanes) {
            vec costate[tile];
            for (int j = 0; j < tile; ++j) {
                const int at = base + j * lanes;
                const vec u = load(kept + size_t(step) * n + at), x = u - limit;
                const vec d = 1 + slope * (x < 0 ? -x : x);
                vec p = b * load(p_u + at);
                p = (x < 0 ? p : vec{}) + g * load(q + at) / (d * d);
                store(p_u + at, p);
                costate[j] = a * load(p_i + at) + k * p;
                store(p_i + at, costate[j]);
            }
            for (int64_t e = event; e < end; ++e) {
                float *row = dw + size_t(in.units[e]) * n + base;
                for (int j = 0; j < tile; ++j)
                    store(row + j * lanes, load(row + j * lanes) + costate[j]);
            }
        }
        end = event;
    }
}

} // namespace grid_gather
