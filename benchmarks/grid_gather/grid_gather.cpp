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
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
constexpr int tile = 4;   // vectors of neurons kept in registers at a time
constexpr int block = 64; // a row is padded to a multiple of this: whole tiles on every instruction set
typedef float vec __attribute__((vector_size(lanes * sizeof(float))));
typedef float unaligned_vec __attribute__((vector_size(lanes * sizeof(float)), aligned(4), may_alias));

inline vec load(const float *p) { return *reinterpret_cast<const unaligned_vec *>(p); }
inline void store(float *p, vec x) { *reinterpret_cast<unaligned_vec *>(p) = x; }
inline vec spread(float x) { return x - vec{}; }

inline unsigned reached(vec u, vec threshold) { // one bit per lane with u >= threshold
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(u, threshold, _CMP_GE_OQ);
#elif defined(__AVX2__)
    return _mm256_movemask_ps(_mm256_cmp_ps(u, threshold, _CMP_GE_OQ));
#else
    unsigned bits = 0;
    for (int l = 0; l < lanes; ++l)
        bits |= unsigned(u[l] >= threshold[l]) << l;
    return bits;
#endif
}

// Plain aligned memory that is not set to zero.
struct Buffer {
    explicit Buffer(size_t n)
        : data(static_cast<float *>(::operator new[](n * sizeof(float), std::align_val_t(64)))) {}
    ~Buffer() { ::operator delete[](data, std::align_val_t(64)); }
    Buffer(const Buffer &) = delete;
    float *data;
};

int padded(int n) { return (n + block - 1) / block * block; }

// Rows of n floats, padded to whole tiles with zeros; no copy where they already are.
struct Rows {
    Rows(const float *source, int rows, int n)
        : width(padded(n)), copy(width == n ? 0 : size_t(rows) * width) {
        data = source;
        if (width == n)
            return;
        data = copy.data;
        for (int r = 0; r < rows; ++r) {
            std::memcpy(copy.data + size_t(r) * width, source + size_t(r) * n, n * sizeof(float));
            std::memset(copy.data + size_t(r) * width + n, 0, (width - n) * sizeof(float));
        }
    }
    int width;
    Buffer copy;
    const float *data;
};

struct Grid {
    int steps;
    float inverse_dt, a, b, k;
    std::vector<float> g; // weight of a spike of each step in the readout's mean
    Grid(int steps, double dt, double tau_mem, double tau_syn)
        : steps(steps), inverse_dt(float(1 / dt)), g(steps) {
        const double da = std::exp(-dt / tau_syn), db = std::exp(-dt / tau_mem),
                     x = dt * (1 / tau_syn - 1 / tau_mem);
        const double dk = dt / tau_mem * db * (x == 0 ? 1 : -std::expm1(-x) / x);
        a = float(da), b = float(db), k = float(dk);
        double p_v = 0, p_i = 0;
        for (int s = steps - 1; s >= 0; --s) {
            p_v = 1.0 / steps + db * p_v;
            p_i = dk * p_v + da * p_i;
            g[s] = float(p_i);
        }
    }
    // The factor makes float(k dt) fall into step k.
    int step(float time) const { return int(time * inverse_dt * 1.0000005f); }
};

template <class Work> void on_threads(int threads, int samples, Work work) {
    std::atomic<int> next{0};
    auto run = [&](int thread) {
        for (int b; (b = next.fetch_add(1)) < samples;)
            work(thread, b);
    };
    std::vector<std::thread> others;
    for (int t = 1; t < std::min(threads, samples); ++t)
        others.emplace_back(run, t);
    run(0);
    for (auto &t : others)
        t.join();
}

struct Sample {
    const float *times;
    const int32_t *units;
    int64_t count;
};

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

// Per-thread sums of weight gradients, added up in a fixed order.
void add_up(const std::vector<Buffer *> &parts, int rows, int n, int width, float *out) {
    for (int r = 0; r < rows; ++r) {
        float *to = out + size_t(r) * n;
        std::memcpy(to, parts[0]->data + size_t(r) * width, n * sizeof(float));
        for (size_t t = 1; t < parts.size(); ++t)
            for (int j = 0; j < n; ++j)
                to[j] += parts[t]->data[size_t(r) * width + j];
    }
}

struct Parts {
    Parts(int threads, size_t size) {
        for (int t = 0; t < threads; ++t) {
            all.push_back(new Buffer(size));
            std::memset(all.back()->data, 0, size * sizeof(float));
        }
    }
    ~Parts() {
        for (Buffer *b : all)
            delete b;
    }
    std::vector<Buffer *> all;
};

} // namespace

extern "C" {

int grid_gather_width(int n) { return padded(n); }

// w1 (inputs, hidden), kept (batch, steps, width) or null, s (batch, width) zeros, spikes (batch).
void grid_gather_forward(const float *times, const int32_t *units, const int64_t *offsets, int batch,
                         const float *w1, int inputs, int hidden, int steps, double dt, double tau_mem,
                         double tau_syn, float threshold, int threads, float *kept, float *s,
                         int64_t *spikes) {
    const Grid grid(steps, dt, tau_mem, tau_syn);
    const Rows w(w1, inputs, hidden);
    const int n = w.width;
    Buffer state(size_t(threads) * 2 * n);
    on_threads(threads, batch, [&](int thread, int b) {
        const Sample in{times + offsets[b], units + offsets[b], offsets[b + 1] - offsets[b]};
        spikes[b] = forward_sample(in, w, grid, threshold, kept ? kept + size_t(b) * steps * n : nullptr,
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
    Buffer state(size_t(used) * 2 * n);
    on_threads(used, batch, [&](int thread, int b) {
        const Sample in{times + offsets[b], units + offsets[b], offsets[b + 1] - offsets[b]};
        backward_sample(in, grid, n, threshold, slope, kept + size_t(b) * steps * n, q + size_t(b) * n,
                        state.data + size_t(thread) * 2 * n, sums.all[thread]->data);
    });
    add_up(sums.all, inputs, hidden, n, dw1);
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
