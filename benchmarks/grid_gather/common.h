// What all versions share: vectors, aligned memory, the grid, a pool of threads over the samples.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace grid_gather {

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

inline int padded(int n) { return (n + block - 1) / block * block; }

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

struct Batch {
    const float *times;
    const int32_t *units;
    const int64_t *offsets;
    int size;
    Sample operator[](int b) const {
        return {times + offsets[b], units + offsets[b], offsets[b + 1] - offsets[b]};
    }
};

// Events in front of `event` that belong to `step` or later; the first of them.
inline int64_t first_of(const Sample &in, const Grid &grid, int step, int64_t event) {
    while (event > 0 && grid.step(in.times[event - 1]) >= step)
        --event;
    return event;
}

// Per-thread sums of weight gradients, added up in a fixed order.
inline void add_up(const std::vector<Buffer *> &parts, int rows, int n, int width, float *out) {
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

// One working space per thread.
template <class Space> struct Spaces {
    template <class... Size> explicit Spaces(int threads, Size... sizes) {
        for (int t = 0; t < std::max(threads, 1); ++t)
            all.push_back(std::make_unique<Space>(sizes...));
    }
    Space &operator[](int thread) { return *all[thread]; }
    std::vector<std::unique_ptr<Space>> all;
};

} // namespace grid_gather
