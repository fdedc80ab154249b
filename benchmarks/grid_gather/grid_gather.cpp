// The honest baseline: current-based LIF on a time grid, surrogate-gradient BPTT, one weight row gathered per
// event.
//
// Step k of length dt holds the events of [k dt, (k+1) dt); with the exact flow over a step
//     I[k] = a I[k-1] + sum of the rows of step k's events      a = e^{-dt/ts}
//     U[k] = b V[k-1] + K I[k]                                  b = e^{-dt/tm},  K = ts/(tm-ts) (b - a)
//     s[k] = U[k] >= threshold,   V[k] = s[k] ? 0 : U[k]
// The readout is the same recursion without a threshold and the loss sees only its mean over the steps. That
// mean is linear in the hidden spikes: a spike of step k counts g[k], the readout's answer to one impulse. So
// forward keeps S[j] = sum of g[k] over the spikes of j (mean = S W2), and backward needs no readout
// recursion either. BPTT keeps U, (T, N) floats per sample, and nothing else. Backward (reset detached,
// derivative of the fast sigmoid 1 / (1 + slope |U - threshold|)^2):
//     pU[k] = (1 - s[k]) b pU[k+1] + g[k] q surrogate(U[k])     q = W2 dL/dmean
//     pI[k] = a pI[k+1] + K pU[k],   dW[unit, :] += pI[k] for every event of step k
//
// Here are the functions that Python calls. recurrent.h has the hidden layer with connections to itself,
// delayed.h the one with a delay per synapse.
#include "delayed.h"
#include "feed_forward.h"
#include "recurrent.h"

using namespace grid_gather;

extern "C" {

int grid_gather_width(int n) { return padded(n); }
int grid_gather_lanes(int n) { return whole_lanes(n); }

// w1 (inputs, hidden), kept (batch, steps, width) or null, s (batch, width) zeros, spikes (batch).
void grid_gather_forward(const float *times, const int32_t *units, const int64_t *offsets, int batch,
                         const float *w1, int inputs, int hidden, int steps, double dt, double tau_mem,
                         double tau_syn, float threshold, int threads, float *kept, float *s,
                         int64_t *spikes) {
    const Grid grid(steps, dt, tau_mem, tau_syn);
    const Rows w(w1, inputs, hidden);
    const int n = w.width;
    const Batch samples{times, units, offsets, batch};
    Buffer state(size_t(threads) * 2 * n);
    on_threads(threads, batch, [&](int thread, int b) {
        spikes[b] =
            forward_sample(samples[b], w, grid, threshold, kept ? kept + size_t(b) * steps * n : nullptr,
                           state.data + size_t(thread) * 2 * n, s + size_t(b) * n);
    });
}

// q (batch, width) = dL/dmean W2^T, padded with zeros; dw1 (inputs, hidden) is written.
void grid_gather_backward(const float *times, const int32_t *units, const int64_t *offsets, int batch,
                          int inputs, int hidden, int steps, double dt, double tau_mem, double tau_syn,
                          float threshold, float slope, int threads, const float *kept, const float *q,
                          float *dw1) {
    const Grid grid(steps, dt, tau_mem, tau_syn);
    const int n = padded(hidden), used = std::max(1, std::min(threads, batch));
    Parts sums(used, size_t(inputs) * n);
    const Batch samples{times, units, offsets, batch};
    Buffer state(size_t(used) * 2 * n);
    on_threads(used, batch, [&](int thread, int b) {
        backward_sample(samples[b], grid, n, threshold, slope, kept + size_t(b) * steps * n,
                        q + size_t(b) * n, state.data + size_t(thread) * 2 * n, sums.all[thread]->data);
    });
    add_up(sums.all, inputs, hidden, n, dw1);
}

// r (hidden, hidden); a spike reaches its targets `delay` >= 1 steps later.
void recurrent_forward(const float *times, const int32_t *units, const int64_t *offsets, int size,
                       const float *w1, int inputs, int hidden, int steps, double dt, double tau_mem,
                       double tau_syn, float threshold, int threads, const float *r, int delay, float *kept,
                       float *s, int64_t *spikes) {
    const Grid grid(steps, dt, tau_mem, tau_syn);
    const Rows w(w1, inputs, hidden), own(r, hidden, hidden);
    const Batch batch{times, units, offsets, size};
    const int n = w.width;
    Spaces<ForwardSpace> spaces(threads, n, steps);
    on_threads(threads, size, [&](int thread, int b) {
        spikes[b] = forward_recurrent(batch[b], {w, own, grid, delay, threshold},
                                      kept ? kept + size_t(b) * steps * n : nullptr, spaces[thread],
                                      s + size_t(b) * n);
    });
}

// dw1 (inputs, hidden) and dr (hidden, hidden) are written.
void recurrent_backward(const float *times, const int32_t *units, const int64_t *offsets, int size,
                        const float *w1, int inputs, int hidden, int steps, double dt, double tau_mem,
                        double tau_syn, float threshold, int threads, const float *r, int delay, float slope,
                        const float *kept, const float *q, float *dw1, float *dr) {
    const Grid grid(steps, dt, tau_mem, tau_syn);
    const Rows w(w1, inputs, hidden), own(r, hidden, hidden);
    const Batch batch{times, units, offsets, size};
    const Panels panels(own, hidden);
    const int n = w.width, used = std::max(1, std::min(threads, size));
    Parts dws(used, size_t(inputs) * n), drs(used, size_t(hidden) * n);
    Spaces<BackwardSpace> spaces(used, n, delay);
    on_threads(used, (size + group - 1) / group, [&](int thread, int job) {
        const int first = job * group;
        backward_recurrent(batch, {w, own, grid, delay, threshold}, panels, {kept, q, slope}, first,
                           std::min(group, size - first), spaces[thread], dws.all[thread]->data,
                           drs.all[thread]->data);
    });
    add_up(dws.all, inputs, hidden, n, dw1);
    add_up(drs.all, hidden, hidden, n, dr);
}

// delay (inputs, hidden), seconds; kept (batch, whole_lanes(hidden), steps) in forward_delayed's order; s
// (batch, width).
void delayed_forward(const float *times, const int32_t *units, const int64_t *offsets, int size,
                     const float *w1, int inputs, int hidden, int steps, double dt, double tau_mem,
                     double tau_syn, float threshold, int threads, const float *delay, float *kept, float *s,
                     int64_t *spikes) {
    const Grid grid(steps, dt, tau_mem, tau_syn);
    const Synapses synapses(w1, delay, inputs, hidden, steps, dt, threads);
    const Batch batch{times, units, offsets, size};
    Spaces<LineSpace> spaces(threads, synapses.line);
    on_threads(threads, size, [&](int thread, int b) {
        spikes[b] = forward_delayed(batch[b], synapses, grid, threshold,
                                    kept ? kept + size_t(b) * steps * synapses.width : nullptr,
                                    spaces[thread], s + size_t(b) * padded(hidden));
    });
}

// dw1 and d_delay (inputs, hidden) are written.
void delayed_backward(const float *times, const int32_t *units, const int64_t *offsets, int size,
                      const float *w1, int inputs, int hidden, int steps, double dt, double tau_mem,
                      double tau_syn, float threshold, int threads, const float *delay, float slope,
                      const float *kept, const float *q, float *dw1, float *d_delay) {
    const Grid grid(steps, dt, tau_mem, tau_syn);
    const Synapses synapses(w1, delay, inputs, hidden, steps, dt, threads);
    const Batch batch{times, units, offsets, size};
    const int used = std::max(1, std::min(threads, size));
    Parts sums(used, size_t(inputs) * synapses.width * 2);
    Spaces<LineSpace> spaces(used, synapses.line);
    on_threads(used, size, [&](int thread, int b) {
        backward_delayed(batch[b], synapses, grid, threshold, slope,
                         kept + size_t(b) * steps * synapses.width, q + size_t(b) * padded(hidden),
                         spaces[thread], reinterpret_cast<pair *>(sums.all[thread]->data));
    });
    finish_delayed(synapses, sums.all, threads, dw1, d_delay);
}

// The floor: one load and one fused multiply-add per lane and event, the sums in registers. Returns a
// checksum so that nothing is left out.
float floor_forward(const int32_t *units, const int64_t *offsets, int batch, const float *w1, int inputs,
                    int hidden, int threads) {
    const Rows w(w1, inputs, hidden);
    const int n = w.width;
    std::vector<float> sums(batch);
    on_threads(threads, batch, [&](int, int b) {
        vec total{};
        for (int base = 0; base < n; base += tile * lanes) {
            vec sum[tile] = {};
            float decay = 1;
            for (int64_t e = offsets[b]; e < offsets[b + 1]; ++e, decay *= 0.9999f) {
                const float *row = w.data + size_t(units[e]) * n + base;
                for (int j = 0; j < tile; ++j)
                    sum[j] += decay * load(row + j * lanes);
            }
            for (int j = 0; j < tile; ++j)
                total += sum[j];
        }
        for (int l = 0; l < lanes; ++l)
            sums[b] += total[l];
    });
    float sum = 0;
    for (float x : sums)
        sum += x;
    return sum;
}

// The same for the reverse sweep: a load, a fused multiply-add and a store per lane and event into the
// gradient's rows.
void floor_backward(const int32_t *units, const int64_t *offsets, int batch, int inputs, int hidden,
                    int threads, float *dw1) {
    const int n = padded(hidden), used = std::max(1, std::min(threads, batch));
    Parts parts(used, size_t(inputs) * n);
    on_threads(used, batch, [&](int thread, int b) {
        float *dw = parts.all[thread]->data;
        for (int base = 0; base < n; base += tile * lanes) {
            vec costate[tile];
            for (int j = 0; j < tile; ++j)
                costate[j] = spread(1e-3f * float(j + 1));
            float decay = 1;
            for (int64_t e = offsets[b + 1] - 1; e >= offsets[b]; --e, decay *= 0.9999f) {
                float *row = dw + size_t(units[e]) * n + base;
                for (int j = 0; j < tile; ++j)
                    store(row + j * lanes, load(row + j * lanes) + decay * costate[j]);
            }
        }
    });
    add_up(parts.all, inputs, hidden, n, dw1);
}
}
