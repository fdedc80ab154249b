// The hidden layer with connections R to itself: a spike of step k reaches its targets `delay` >= 1 steps
// later.
//     I[k] = a I[k-1] + rows of step k's events + rows of R of the spikes of step k - delay
// Backward, a spike is worth what it adds to the readout and what its targets make of it:
//     ds[k] = g[k] q + R pI[k + delay],   pU[k] = (1 - s[k]) b pU[k+1] + ds[k] surrogate(U[k])
//     dR[n, :] += pI[k + delay] for every spike n of step k
// The surrogate derivative is nowhere zero, so R pI is a full product at every step. It is done for a group
// of samples at a time: R streams past once for all of them, and the sums stay in registers.
#pragma once
#include "common.h"

namespace grid_gather {

#if defined(__AVX512F__)
constexpr int group = 8; // samples that backward takes through time together
#else
constexpr int group = 4;
#endif
constexpr int panel = 2; // vectors of neurons per panel of the transposed R

struct Recurrence {
    const Rows &w, &r;
    const Grid &grid;
    int delay;
    float threshold;
};

// What a thread needs to run one sample forwards.
struct ForwardSpace {
    ForwardSpace(int n, int steps) : state(2 * size_t(n)), ends(steps) {}
    Buffer state;
    std::vector<int32_t> fired; // the sample's spikes, step by step
    std::vector<size_t> ends;   // how many there were after each step
    std::vector<const float *> rows;
};

int64_t forward_recurrent(const Sample &in, const Recurrence &net, float *kept, ForwardSpace &space,
                          float *s) {
    const Grid &grid = net.grid;
    const int n = net.w.width;
    float *v = space.state.data, *i = v + n;
    std::memset(v, 0, 2 * n * sizeof(float));
    auto &fired = space.fired;
    auto &rows = space.rows;
    fired.clear();
    const vec a = spread(grid.a), b = spread(grid.b), k = spread(grid.k), limit = spread(net.threshold);
    int64_t event = 0;
    size_t arrived = 0;
    for (int step = 0; step < grid.steps; ++step) {
        rows.clear();
        for (; event < in.count && grid.step(in.times[event]) <= step; ++event)
            rows.push_back(net.w.data + size_t(in.units[event]) * n);
        if (step >= net.delay)
            for (; arrived < space.ends[step - net.delay]; ++arrived)
                rows.push_back(net.r.data + size_t(fired[arrived]) * n);
        for (int base = 0; base < n; base += tile * lanes) {
            vec current[tile];
            for (int j = 0; j < tile; ++j)
                current[j] = a * load(i + base + j * lanes);
            for (const float *row : rows)
                for (int j = 0; j < tile; ++j)
                    current[j] += load(row + base + j * lanes);
            for (int j = 0; j < tile; ++j) {
                const int at = base + j * lanes;
                store(i + at, current[j]);
                const vec u = b * load(v + at) + k * current[j];
                if (kept)
                    store(kept + size_t(step) * n + at, u);
                store(v + at, u < limit ? u : vec{});
                for (unsigned bits = reached(u, limit); bits; bits &= bits - 1) {
                    const int neuron = at + __builtin_ctz(bits);
                    s[neuron] += grid.g[step];
                    fired.push_back(neuron);
                }
            }
        }
        space.ends[step] = fired.size();
    }
    return int64_t(fired.size());
}

// R transposed, cut into panels of `panel` vectors of sources that are contiguous over the targets.
struct Panels {
    Panels(const Rows &r, int hidden) : hidden(hidden), width(r.width), buffer(size_t(hidden) * r.width) {
        constexpr int columns = panel * lanes;
        for (int base = 0; base < width; base += columns)
            for (int target = 0; target < hidden; ++target)
                for (int c = 0; c < columns; ++c)
                    buffer.data[size_t(base) * hidden + size_t(target) * columns + c] =
                        base + c < hidden ? r.data[size_t(base + c) * width + target] : 0;
    }
    // out (group, width) = p (group, width) R^T
    void product(const float *p, float *out) const {
        for (int base = 0; base < width; base += panel * lanes) {
            vec sum[group][panel] = {};
            const float *row = buffer.data + size_t(base) * hidden;
            for (int target = 0; target < hidden; ++target, row += panel * lanes)
                for (int member = 0; member < group; ++member)
                    for (int j = 0; j < panel; ++j)
                        sum[member][j] += spread(p[size_t(member) * width + target]) * load(row + j * lanes);
            for (int member = 0; member < group; ++member)
                for (int j = 0; j < panel; ++j)
                    store(out + size_t(member) * width + base + j * lanes, sum[member][j]);
        }
    }
    int hidden, width;
    Buffer buffer;
};

// What a thread needs to run a group backwards; dw, dr collect its share of the gradients.
struct BackwardSpace {
    BackwardSpace(int n, int delay)
        : p_u(size_t(group) * n), worth(size_t(group) * n), p_i(size_t(group) * n * (delay + 1)),
          slots(delay + 1), size(size_t(group) * n) {}
    float *slot(int step) { return p_i.data + size * (step % slots); }
    Buffer p_u, worth, p_i;
    int slots;
    size_t size;
    std::vector<int> fired;
};

struct Kept {
    const float *u, *q; // (batch, steps, width), (batch, width)
    float slope;
};

// One sample's step: its events end before `end`, which moves to the first event of the step.
inline void backward_step(const Sample &in, const Recurrence &net, const Kept &kept, int b, int step,
                          int64_t &end, int member, BackwardSpace &space, float *dw, float *dr) {
    const Grid &grid = net.grid;
    const int n = net.w.width, late = step + net.delay;
    const size_t at_member = size_t(member) * n;
    const float *u_row = kept.u + (size_t(b) * grid.steps + step) * n, *q = kept.q + size_t(b) * n;
    float *p_u = space.p_u.data + at_member, *p_i = space.slot(step) + at_member;
    const float *next = space.slot(step + 1) + at_member, *worth = space.worth.data + at_member;
    const vec a = spread(grid.a), decay = spread(grid.b), k = spread(grid.k), limit = spread(net.threshold);
    const vec g = spread(grid.g[step]);
    const int64_t event = first_of(in, grid, step, end);
    space.fired.clear();
    for (int base = 0; base < n; base += tile * lanes) {
        vec costate[tile];
        for (int j = 0; j < tile; ++j) {
            const int at = base + j * lanes;
            const vec u = load(u_row + at), x = u - limit;
            const vec d = 1 + kept.slope * (x < 0 ? -x : x);
            vec p = decay * load(p_u + at);
            p = (x < 0 ? p : vec{}) + (g * load(q + at) + load(worth + at)) / (d * d);
            store(p_u + at, p);
            costate[j] = a * load(next + at) + k * p;
            store(p_i + at, costate[j]);
            for (unsigned bits = reached(u, limit); bits; bits &= bits - 1)
                space.fired.push_back(at + __builtin_ctz(bits));
        }
        for (int64_t e = event; e < end; ++e) {
            float *row = dw + size_t(in.units[e]) * n + base;
            for (int j = 0; j < tile; ++j)
                store(row + j * lanes, load(row + j * lanes) + costate[j]);
        }
    }
    end = event;
    if (late >= grid.steps)
        return;
    const float *arrival = space.slot(late) + at_member;
    for (const int neuron : space.fired)
        for (int at = 0; at < n; at += lanes)
            store(dr + size_t(neuron) * n + at, load(dr + size_t(neuron) * n + at) + load(arrival + at));
}

// Samples first ... first + members - 1.
void backward_recurrent(const Batch &batch, const Recurrence &net, const Panels &panels, const Kept &kept,
                        int first, int members, BackwardSpace &space, float *dw, float *dr) {
    const int steps = net.grid.steps;
    std::memset(space.p_u.data, 0, space.size * sizeof(float));
    std::memset(space.p_i.data, 0, space.size * space.slots * sizeof(float));
    std::memset(space.worth.data, 0, space.size * sizeof(float));
    int64_t ends[group];
    for (int m = 0; m < members; ++m)
        ends[m] = first_of(batch[first + m], net.grid, steps, batch[first + m].count);
    for (int step = steps - 1; step >= 0; --step) {
        if (step + net.delay < steps)
            panels.product(space.slot(step + net.delay), space.worth.data);
        for (int m = 0; m < members; ++m)
            backward_step(batch[first + m], net, kept, first + m, step, ends[m], m, space, dw, dr);
    }
}

} // namespace grid_gather
