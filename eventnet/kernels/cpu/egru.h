// Event-based gated units over a whole sequence, and its backward pass (equations: reference_egru.py).
//
// Most units tell nothing in a step (y = 0), so the products with what they told are sums of those columns of the recurrent weight
// whose units did: 3 H (share that told) multiplications a step. Going back, a unit's own cotangent is needed only if it fired or is
// near enough to its threshold: the others' rows of the product are left out. The gradient of the weight has the forward pass's share.
// Products go by blocks of columns, or by rows, with all samples of a thread in turn: what they read stays in the cache.
#pragma once

#include "parallel.h"
#include "simd.h"

namespace eventnet {

template <class T>
struct GatedLayer {
    int hidden;
    const T *weight, *bias, *threshold;  // (3H, H), (3H,), (H,)
    T height, half_width;
};

// A sequence, (steps, batch, ...), and the state before it, (batch, H) each.
template <class T>
struct Sequence {
    int steps, batch;
    const T *drive, *c, *y;
    const uint8_t* kept;  // where true a unit keeps its c for the step, or null
    T zoneout;            // the share that all keep instead
};

// The recurrent weight with a row for each unit that tells, its three gates padded to whole vectors.
template <class T>
class Columns {
public:
    const int hidden, padded;

    Columns(const GatedLayer<T>& layer, int threads)
        : hidden(layer.hidden), padded((hidden + kLanes<T> - 1) / kLanes<T> * kLanes<T>), data_(static_cast<size_t>(3 * padded) * hidden, T(0)) {
        constexpr int kTile = 16;
        parallel_for((hidden + kTile - 1) / kTile, threads, [&](int tile) {
            const int first = tile * kTile, last = std::min(first + kTile, hidden);
            for (int gate = 0; gate < 3; ++gate)
                for (int n = 0; n < hidden; ++n) {
                    const T* const from = layer.weight + (static_cast<size_t>(gate) * hidden + n) * hidden;
                    for (int j = first; j < last; ++j) data_[static_cast<size_t>(j) * 3 * padded + gate * padded + n] = from[j];
                }
        });
    }

    const T* operator[](int unit) const { return &data_[static_cast<size_t>(unit) * 3 * padded]; }

private:
    Array<T> data_;
};

// Numbers [c, c + a vector) of a row of `size`; beyond it 0.
template <class T>
inline Vec<T> load_of(const T* row, int c, int size) {
    if (c + kLanes<T> <= size) return load(row + c);
    Vec<T> v{};
    std::memcpy(&v, row + c, (size - c) * sizeof(T));
    return v;
}

template <class T>
inline void store_of(T* row, int c, int size, Vec<T> v) {
    std::memcpy(row + c, &v, std::min(kLanes<T>, size - c) * sizeof(T));
}

template <class T>
inline Vec<T> absolute(Vec<T> x) {
    return max<T>(x, -x);
}

template <class T>
inline Vec<T> sigmoid(Vec<T> x) {
    const Vec<T> e = exp(-absolute<T>(x));
    return select<T>(x < 0, e, splat(T(1))) / (e + T(1));
}

// (1 - e^{-2|x|}) / (1 + e^{-2|x|}), with a series where the difference cancels.
template <class T>
inline Vec<T> hyperbolic_tangent(Vec<T> x) {
    constexpr T kSmall = sizeof(T) == 4 ? T(0.1) : T(0.02);
    const Vec<T> size = absolute<T>(x), e = exp(T(-2) * size), square = x * x;
    const Vec<T> series = x * (T(1) + square * (T(-1.0 / 3) + square * (T(2.0 / 15) + square * (T(-17.0 / 315) + square * T(62.0 / 2835)))));
    const Vec<T> whole = (T(1) - e) / (T(1) + e);
    return select<T>(size < kSmall, series, select<T>(x < 0, -whole, whole));
}

// What a sample's units told: which, and what.
template <class T>
struct Told {
    std::vector<int> units;
    std::vector<T> values;

    void clear() { units.clear(), values.clear(); }
    void add(Vec<T> y, uint32_t fired, int c) {
        for (; fired; fired &= fired - 1) {
            const int l = __builtin_ctz(fired);
            units.push_back(c + l), values.push_back(y[l]);
        }
    }
    // Those of y that are not zero.
    void read(const T* y, int size) {
        clear();
        for (int c = 0; c < size; c += kLanes<T>) {
            const Vec<T> v = load_of(y, c, size);
            add(v, bits<T>(v != 0), c);
        }
    }
};

// Samples [first, last) of a thread, by the number of threads.
inline std::pair<int, int> share(int batch, int jobs, int job) { return {int64_t(batch) * job / jobs, int64_t(batch) * (job + 1) / jobs}; }

// y and v (steps, batch, H) and, if not null, gates (steps, batch, 4, H): r, z, n and what r multiplies.
template <class T>
void gated_forward(const GatedLayer<T>& layer, const Sequence<T>& in, T* y, T* v, T* gates, int threads) {
    constexpr int kBlock = 8;  // vectors of sums at a time
    const Columns<T> columns(layer, threads);
    const int hidden = layer.hidden, padded = columns.padded, jobs = std::max(1, std::min(threads, in.batch));
    Array<T> biases(3 * padded, T(0));
    for (int gate = 0; gate < 3; ++gate) std::copy_n(layer.bias + static_cast<size_t>(gate) * hidden, hidden, &biases[gate * padded]);
    parallel_for(jobs, jobs, [&](int job) {
        const auto [first, last] = share(in.batch, jobs, job);
        const int samples = last - first;
        std::vector<Told<T>> told(samples);
        Array<T> state(static_cast<size_t>(samples) * padded, T(0)), back(static_cast<size_t>(samples) * 3 * padded);
        for (int b = 0; b < samples; ++b) {
            std::copy_n(in.c + static_cast<size_t>(first + b) * hidden, hidden, &state[static_cast<size_t>(b) * padded]);
            told[b].read(in.y + static_cast<size_t>(first + b) * hidden, hidden);
        }
        for (int t = 0; t < in.steps; ++t) {
            for (int block = 0; block < 3 * padded; block += kBlock * kLanes<T>) {
                const int vectors = std::min(kBlock, (3 * padded - block) / kLanes<T>);
                for (int b = 0; b < samples; ++b) {
                    Vec<T> sums[kBlock];
                    for (int i = 0; i < vectors; ++i) sums[i] = load(&biases[block + i * kLanes<T>]);
                    const size_t count = told[b].units.size();
                    if (vectors == kBlock) {
                        for (size_t k = 0; k < count; ++k) {
                            const T* const column = columns[told[b].units[k]] + block;
                            const T value = told[b].values[k];
#pragma GCC unroll 8
                            for (int i = 0; i < kBlock; ++i) sums[i] += value * load(column + i * kLanes<T>);
                        }
                    } else {
                        for (size_t k = 0; k < count; ++k)
                            for (int i = 0; i < vectors; ++i)
                                sums[i] += told[b].values[k] * load(columns[told[b].units[k]] + block + i * kLanes<T>);
                    }
                    for (int i = 0; i < vectors; ++i) store(&back[static_cast<size_t>(b) * 3 * padded + block + i * kLanes<T>], sums[i]);
                }
            }
            for (int b = 0; b < samples; ++b) {
                const size_t at = static_cast<size_t>(t) * in.batch + first + b;
                const T *const drive = in.drive + at * 3 * hidden, *const mine = &back[static_cast<size_t>(b) * 3 * padded];
                T* const c = &state[static_cast<size_t>(b) * padded];
                told[b].clear();
                for (int n = 0; n < hidden; n += kLanes<T>) {
                    const Vec<T> r = sigmoid<T>(load_of(drive, n, hidden) + load(mine + n));
                    const Vec<T> z = sigmoid<T>(load_of(drive + hidden, n, hidden) + load(mine + padded + n));
                    const Vec<T> h = load(mine + 2 * padded + n), g = hyperbolic_tangent<T>(load_of(drive + 2 * hidden, n, hidden) + r * h);
                    const Vec<T> before = load(c + n), theta = load_of(layer.threshold, n, hidden);
                    Vec<T> value = z * before + (T(1) - z) * g;
                    if (in.zoneout > 0) value = in.zoneout * before + (T(1) - in.zoneout) * value;
                    if (in.kept)
                        for (int l = 0; l < std::min(kLanes<T>, hidden - n); ++l)
                            if (in.kept[at * hidden + n + l]) value[l] = before[l];
                    const IntVec<T> fired = value > theta;
                    const Vec<T> out = select<T>(fired, value, Vec<T>{});
                    store(c + n, select<T>(fired, value - theta, value));
                    const uint32_t lanes = hidden - n < kLanes<T> ? (1u << (hidden - n)) - 1 : ~0u;
                    told[b].add(out, bits<T>(fired) & lanes, n);
                    store_of(y + at * hidden, n, hidden, out), store_of(v + at * hidden, n, hidden, value);
                    if (!gates) continue;
                    T* const kept = gates + at * 4 * hidden;
                    store_of(kept, n, hidden, r), store_of(kept + hidden, n, hidden, z);
                    store_of(kept + 2 * hidden, n, hidden, g), store_of(kept + 3 * hidden, n, hidden, h);
                }
            }
        }
    });
}

// Gradients: drive (steps, batch, 3H), weight (3H, H), bias (3H,), threshold (H,), c and y (batch, H); all zero before.
template <class T>
struct GatedGradients {
    T *drive, *weight, *c, *y;
    double *bias, *threshold;
};

// From those of y and v (each may be null), with y, v and gates of the forward pass.
template <class T>
void gated_backward(const GatedLayer<T>& layer, const Sequence<T>& in, const T* y, const T* v, const T* gates, const T* of_y,
                    const T* of_v, const GatedGradients<T>& out, int threads) {
    const Columns<T> columns(layer, threads);
    const int hidden = layer.hidden, padded = columns.padded, jobs = std::max(1, std::min(threads, in.batch));
    std::vector<std::vector<double>> bias(jobs), threshold(jobs);
    parallel_for(jobs, jobs, [&](int job) {
        const auto [first, last] = share(in.batch, jobs, job);
        const int samples = last - first;
        bias[job].assign(3 * padded, 0.0), threshold[job].assign(padded, 0.0);
        Array<T> d_c(static_cast<size_t>(samples) * padded, T(0)), d_y(d_c.size(), T(0)), d_back(static_cast<size_t>(samples) * 3 * padded, T(0));
        std::vector<std::vector<int>> needed(hidden);  // samples by unit
        Array<T> sums(4 * static_cast<size_t>(padded));  // of a step, over the samples: three gates and the threshold
        for (int t = in.steps; t-- > 0;) {
            std::fill(sums.begin(), sums.end(), T(0));
            for (auto& list : needed) list.clear();
            for (int b = 0; b < samples; ++b) {
                const size_t at = static_cast<size_t>(t) * in.batch + first + b, before = at - in.batch;
                T *const my_c = &d_c[static_cast<size_t>(b) * padded], *const my_y = &d_y[static_cast<size_t>(b) * padded];
                T* const my_back = &d_back[static_cast<size_t>(b) * 3 * padded];
                const T* const kept = gates + at * 4 * hidden;
                T* const of_drive = out.drive + at * 3 * hidden;
                for (int n = 0; n < hidden; n += kLanes<T>) {
                    const Vec<T> theta = load_of(layer.threshold, n, hidden), value = load_of(v + at * hidden, n, hidden);
                    const Vec<T> above = value - theta, of_c = load(my_c + n);
                    Vec<T> of_told = load(my_y + n);
                    if (of_y) of_told += load_of(of_y + at * hidden, n, hidden);
                    const IntVec<T> fired = above > 0;
                    const Vec<T> slope = layer.height * max<T>(T(1) - absolute<T>(above) / layer.half_width, Vec<T>{});
                    const Vec<T> of_above = (value * of_told - theta * of_c) * slope;
                    Vec<T> of_value = select<T>(fired, of_told, Vec<T>{}) + of_above + of_c;
                    if (of_v) of_value += load_of(of_v + at * hidden, n, hidden);
                    Vec<T> old;
                    if (t > 0) {
                        const Vec<T> earlier = load_of(v + before * hidden, n, hidden);
                        old = select<T>(earlier > theta, earlier - theta, earlier);
                    } else {
                        old = load_of(in.c + (first + b) * static_cast<size_t>(hidden), n, hidden);
                    }
                    Vec<T> stays{}, moves = of_value;  // its parts by c of the step before and by the new value
                    if (in.zoneout > 0) stays = in.zoneout * of_value, moves = (T(1) - in.zoneout) * of_value;
                    if (in.kept)
                        for (int l = 0; l < std::min(kLanes<T>, hidden - n); ++l)
                            if (in.kept[at * hidden + n + l]) stays[l] = of_value[l], moves[l] = 0;
                    const Vec<T> r = load_of(kept, n, hidden), z = load_of(kept + hidden, n, hidden), g = load_of(kept + 2 * hidden, n, hidden);
                    const Vec<T> h = load_of(kept + 3 * hidden, n, hidden);
                    const Vec<T> of_n = (T(1) - z) * moves * (T(1) - g * g), of_z = (old - g) * moves * z * (T(1) - z);
                    const Vec<T> of_r = of_n * h * r * (T(1) - r), of_h = of_n * r;
                    store(my_c + n, stays + z * moves);
                    store_of(of_drive, n, hidden, of_r), store_of(of_drive + hidden, n, hidden, of_z), store_of(of_drive + 2 * hidden, n, hidden, of_n);
                    store(my_back + n, of_r), store(my_back + padded + n, of_z), store(my_back + 2 * padded + n, of_h);
                    T* const sum = &sums[n];
                    store(sum, load(sum) + of_r), store(sum + padded, load(sum + padded) + of_z), store(sum + 2 * padded, load(sum + 2 * padded) + of_h);
                    store(sum + 3 * padded, load(sum + 3 * padded) - of_above - select<T>(fired, of_c, Vec<T>{}));
                    store(my_y + n, Vec<T>{});
                    // whose cotangent of y is asked for in the step before
                    uint32_t lanes = ~0u;
                    if (t > 0) {
                        const Vec<T> distance = load_of(v + before * hidden, n, hidden) - theta;
                        lanes = bits<T>((distance > 0) | (absolute<T>(distance) < layer.half_width));
                    }
                    if (hidden - n < kLanes<T>) lanes &= (1u << (hidden - n)) - 1;
                    if (kLanes<T> < 32) lanes &= (1u << kLanes<T>) - 1;
                    for (; lanes; lanes &= lanes - 1) needed[n + __builtin_ctz(lanes)].push_back(b);
                }
            }
            for (int n = 0; n < padded; ++n) {
                for (int gate = 0; gate < 3; ++gate) bias[job][gate * padded + n] += sums[gate * padded + n];
                threshold[job][n] += sums[3 * padded + n];
            }
            for (int j = 0; j < hidden; ++j) {
                const T* const column = columns[j];
                for (const int b : needed[j]) {
                    const T* const mine = &d_back[static_cast<size_t>(b) * 3 * padded];
                    Vec<T> a{}, c{};
                    int n = 0;
                    for (; n + 2 * kLanes<T> <= 3 * padded; n += 2 * kLanes<T>)
                        a += load(column + n) * load(mine + n), c += load(column + n + kLanes<T>) * load(mine + n + kLanes<T>);
                    if (n < 3 * padded) a += load(column + n) * load(mine + n);
                    d_y[static_cast<size_t>(b) * padded + j] = sum<T>(a + c);
                }
            }
        }
        for (int b = 0; b < samples; ++b) {
            std::copy_n(&d_c[static_cast<size_t>(b) * padded], hidden, out.c + static_cast<size_t>(first + b) * hidden);
            std::copy_n(&d_y[static_cast<size_t>(b) * padded], hidden, out.y + static_cast<size_t>(first + b) * hidden);
        }
    });
    for (int job = 0; job < jobs; ++job)  // in a fixed order: runs repeat bit for bit
        for (int n = 0; n < hidden; ++n) {
            for (int gate = 0; gate < 3; ++gate) out.bias[gate * hidden + n] += bias[job][gate * padded + n];
            out.threshold[n] += threshold[job][n];
        }

    // The weight: a block of its rows at a time, a column for each unit that told.
    constexpr int kRows = 8;  // vectors
    const int blocks = (3 * padded / kLanes<T> + kRows - 1) / kRows;
    parallel_for(blocks, threads, [&](int block) {
        const int from = block * kRows * kLanes<T>, vectors = std::min(kRows, 3 * padded / kLanes<T> - block * kRows);
        Array<T> found(static_cast<size_t>(hidden) * kRows * kLanes<T>, T(0));
        Told<T> told;
        for (int t = 0; t < in.steps; ++t)
            for (int b = 0; b < in.batch; ++b) {
                const size_t at = static_cast<size_t>(t) * in.batch + b;
                told.read(t > 0 ? y + (at - in.batch) * hidden : in.y + static_cast<size_t>(b) * hidden, hidden);
                if (told.units.empty()) continue;
                Vec<T> d[kRows] = {};
                for (int i = 0; i < vectors; ++i) {
                    const int place = from + i * kLanes<T>, gate = place / padded, n = place % padded;
                    if (n >= hidden) continue;
                    d[i] = load_of(out.drive + (at * 3 + gate) * hidden, n, hidden);
                    if (gate == 2) d[i] *= load_of(gates + at * 4 * hidden, n, hidden);  // of what r multiplies
                }
                for (size_t k = 0; k < told.units.size(); ++k) {
                    T* const column = &found[static_cast<size_t>(told.units[k]) * kRows * kLanes<T>];
                    const T value = told.values[k];
#pragma GCC unroll 8
                    for (int i = 0; i < kRows; ++i) store(column + i * kLanes<T>, load(column + i * kLanes<T>) + value * d[i]);
                }
            }
        for (int i = 0; i < vectors; ++i) {
            const int place = from + i * kLanes<T>, gate = place / padded, n = place % padded;
            for (int l = 0; l < kLanes<T> && n + l < hidden; ++l) {
                T* const row = out.weight + (static_cast<size_t>(gate) * hidden + n + l) * hidden;
                for (int j = 0; j < hidden; ++j) row[j] = found[(static_cast<size_t>(j) * kRows + i) * kLanes<T> + l];
            }
        }
    });
}

}  // namespace eventnet
