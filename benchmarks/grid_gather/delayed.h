// The hidden layer with a delay d per synapse that is learnt. An event of step k counts in the two steps
// around k + d/dt, by linear interpolation (f is the fraction of d/dt, l its integer part):
//     x[k + l] += (1 - f) w,   x[k + l + 1] += f w,   I[k] = a I[k-1] + x[k]
// which is what makes the delay learnable on a grid; rounded delays have no gradient. Backward
//     dw = sum of (1 - f) pI[k + l] + f pI[k + l + 1],   dd = w / dt sum of pI[k + l + 1] - pI[k + l]
// over the synapse's events: both follow from the two sums of pI.
//
// An event is as many scattered additions as it has targets, so the order of the work is all that counts. x
// of one neuron is a line over all steps: both of an event's additions are one of eight bytes. Four neurons
// are done at a time, unit by unit, the unit's events innermost: base address and weights stay in registers,
// the lines in the level-1 cache. Backward does the same with lines of pI, and its sums stay in registers.
#pragma once
#include "common.h"

namespace grid_gather {

constexpr int quad = 4;
constexpr int chunk = 16; // steps that are transposed at a time
typedef float pair __attribute__((vector_size(8)));
typedef float unaligned_pair __attribute__((vector_size(8), aligned(4), may_alias));

inline pair load_pair(const float *p) { return *reinterpret_cast<const unaligned_pair *>(p); }
inline void add_pair(float *p, pair x) {
    auto *to = reinterpret_cast<unaligned_pair *>(p);
    *to = *to + x;
}

// A unit's synapses on four neurons: l, and (1 - f) w and f w.
struct Taps {
    int32_t first[quad];
    pair weight[quad];
};

// l and f of a delay; one beyond the last step is as good as any other such.
struct Place {
    int32_t whole;
    float fraction;
    Place(double steps_late, int steps)
        : whole(int32_t(std::min(steps_late, double(steps)))),
          fraction(float(std::min(steps_late, double(steps)) - whole)) {}
};

inline int whole_lanes(int n) { return (n + lanes - 1) / lanes * lanes; }

struct Synapses {
    const float *w, *delay; // (inputs, hidden)
    int inputs, hidden, steps;
    double dt;
    int width, line; // a line holds all steps and, where nothing is read, what arrives after the last one
    std::vector<Taps> taps; // (width / quad, inputs)
    Synapses(const float *w, const float *delay, int inputs, int hidden, int steps, double dt, int threads)
        : w(w), delay(delay), inputs(inputs), hidden(hidden), steps(steps), dt(dt),
          width(whole_lanes(hidden)), taps(size_t(width / quad) * inputs) {
        on_threads(threads, width / quad, [&](int, int q) {
            for (int i = 0; i < inputs; ++i) {
                Taps &tap = taps[size_t(q) * inputs + i];
                for (int j = 0; j < quad; ++j) {
                    const int neuron = q * quad + j;
                    if (neuron >= hidden)
                        continue; // padding: no weight
                    const size_t at = size_t(i) * hidden + neuron;
                    const Place place = where(at);
                    tap.first[j] = place.whole;
                    tap.weight[j] = pair{(1 - place.fraction) * w[at], place.fraction * w[at]};
                }
            }
        });
        int32_t reach = 0;
        for (const Taps &tap : taps)
            reach = std::max(reach, *std::max_element(tap.first, tap.first + quad));
        line = steps + std::max(reach + 2, chunk);
    }
    Place where(size_t at) const { return {delay[at] / dt, steps}; }
};

// The steps of a sample's events, unit by unit.
struct ByUnit {
    std::vector<int32_t> starts, steps, place;
    void sort(const Sample &in, const Grid &grid, int inputs) {
        starts.assign(inputs + 1, 0);
        steps.resize(in.count);
        int64_t count = 0;
        for (; count < in.count && grid.step(in.times[count]) < grid.steps; ++count)
            ++starts[in.units[count] + 1];
        for (int i = 0; i < inputs; ++i)
            starts[i + 1] += starts[i];
        place.assign(starts.begin(), starts.end());
        for (int64_t e = 0; e < count; ++e)
            steps[place[in.units[e]]++] = grid.step(in.times[e]);
    }
};

// What a thread needs for one sample.
struct LineSpace {
    explicit LineSpace(int line) : lines(size_t(lanes) * line) {}
    Buffer lines; // of as many neurons as a vector has lanes
    ByUnit events;
};

// x of four neurons.
inline void scatter(const Synapses &synapses, const ByUnit &events, int q, float *lines) {
    const int line = synapses.line;
    const Taps *taps = synapses.taps.data() + size_t(q) * synapses.inputs;
    for (int i = 0; i < synapses.inputs; ++i) {
        const Taps tap = taps[i];
        float *x0 = lines + tap.first[0], *x1 = lines + line + tap.first[1],
              *x2 = lines + 2 * line + tap.first[2], *x3 = lines + 3 * line + tap.first[3];
        for (int e = events.starts[i]; e < events.starts[i + 1]; ++e) {
            const ptrdiff_t step = events.steps[e];
            add_pair(x0 + step, tap.weight[0]);
            add_pair(x1 + step, tap.weight[1]);
            add_pair(x2 + step, tap.weight[2]);
            add_pair(x3 + step, tap.weight[3]);
        }
    }
}

// The two sums of pI of four neurons' synapses, added to sums (inputs, quad).
inline void collect(const Synapses &synapses, const ByUnit &events, int q, const float *lines, pair *sums) {
    const int line = synapses.line;
    const Taps *taps = synapses.taps.data() + size_t(q) * synapses.inputs;
    for (int i = 0; i < synapses.inputs; ++i) {
        const int32_t *first = taps[i].first;
        const float *x0 = lines + first[0], *x1 = lines + line + first[1], *x2 = lines + 2 * line + first[2],
                    *x3 = lines + 3 * line + first[3];
        pair s0{}, s1{}, s2{}, s3{};
        for (int e = events.starts[i]; e < events.starts[i + 1]; ++e) {
            const ptrdiff_t step = events.steps[e];
            s0 += load_pair(x0 + step);
            s1 += load_pair(x1 + step);
            s2 += load_pair(x2 + step);
            s3 += load_pair(x3 + step);
        }
        pair *to = sums + size_t(i) * quad;
        to[0] += s0, to[1] += s1, to[2] += s2, to[3] += s3;
    }
}

// kept (width / lanes, steps, lanes) or null; s (width) += g[k] for every spike.
int64_t forward_delayed(const Sample &in, const Synapses &synapses, const Grid &grid, float threshold,
                        float *kept, LineSpace &space, float *s) {
    const vec a = spread(grid.a), b = spread(grid.b), k = spread(grid.k), limit = spread(threshold);
    const int line = synapses.line;
    float *lines = space.lines.data;
    space.events.sort(in, grid, synapses.inputs);
    int64_t spikes = 0;
    for (int base = 0; base < synapses.width; base += lanes) {
        std::memset(lines, 0, size_t(lanes) * line * sizeof(float));
        for (int j = 0; j < lanes; j += quad)
            scatter(synapses, space.events, (base + j) / quad, lines + size_t(j) * line);
        vec v{}, i{};
        alignas(64) float x[chunk * lanes];
        for (int step = 0; step < grid.steps; ++step) {
            if (step % chunk == 0)
                for (int l = 0; l < lanes; ++l)
                    for (int c = 0; c < chunk; ++c)
                        x[c * lanes + l] = lines[size_t(l) * line + step + c];
            i = a * i + load(x + step % chunk * lanes);
            const vec u = b * v + k * i;
            if (kept)
                store(kept + (size_t(base) * grid.steps + size_t(step) * lanes), u);
            v = u < limit ? u : vec{};
            for (unsigned bits = reached(u, limit); bits; bits &= bits - 1) {
                s[base + __builtin_ctz(bits)] += grid.g[step];
                ++spikes;
            }
        }
    }
    return spikes;
}

// q (width) = W2 dL/dmean; sums (width / quad, inputs, quad).
void backward_delayed(const Sample &in, const Synapses &synapses, const Grid &grid, float threshold,
                      float slope, const float *kept, const float *q, LineSpace &space, pair *sums) {
    const vec a = spread(grid.a), b = spread(grid.b), k = spread(grid.k), limit = spread(threshold);
    const int line = synapses.line;
    float *lines = space.lines.data;
    space.events.sort(in, grid, synapses.inputs);
    for (int l = 0; l < lanes; ++l)
        std::memset(lines + size_t(l) * line + grid.steps, 0, (line - grid.steps) * sizeof(float));
    for (int base = 0; base < synapses.width; base += lanes) {
        vec p_u{}, p_i{};
        const vec worth = load(q + base);
        alignas(64) float p[chunk * lanes];
        for (int step = grid.steps - 1; step >= 0; --step) {
            const vec u = load(kept + (size_t(base) * grid.steps + size_t(step) * lanes)), x = u - limit;
            const vec d = 1 + slope * (x < 0 ? -x : x);
            p_u = b * p_u;
            p_u = (x < 0 ? p_u : vec{}) + grid.g[step] * worth / (d * d);
            p_i = a * p_i + k * p_u;
            store(p + step % chunk * lanes, p_i);
            if (step % chunk == 0) {
                const int full = std::min(chunk, grid.steps - step);
                for (int l = 0; l < lanes; ++l)
                    for (int c = 0; c < full; ++c)
                        lines[size_t(l) * line + step + c] = p[c * lanes + l];
            }
        }
        for (int j = 0; j < lanes; j += quad)
            collect(synapses, space.events, (base + j) / quad, lines + size_t(j) * line,
                    sums + size_t(base + j) * synapses.inputs);
    }
}

// The gradients from the sums of all threads.
void finish_delayed(const Synapses &synapses, const std::vector<Buffer *> &sums, int threads, float *dw,
                    float *d_delay) {
    on_threads(threads, synapses.width / quad, [&](int, int q) {
        for (int i = 0; i < synapses.inputs; ++i)
            for (int j = 0; j < quad && q * quad + j < synapses.hidden; ++j) {
                const size_t from = (size_t(q) * synapses.inputs + i) * quad + j,
                             to = size_t(i) * synapses.hidden + q * quad + j;
                pair sum{};
                for (const Buffer *part : sums)
                    sum += load_pair(part->data + 2 * from);
                const float f = synapses.where(to).fraction;
                dw[to] = (1 - f) * sum[0] + f * sum[1];
                d_delay[to] = float(synapses.w[to] / synapses.dt) * (sum[1] - sum[0]);
            }
    });
}

} // namespace grid_gather
