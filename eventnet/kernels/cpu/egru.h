// Event-based gated units over a whole sequence, and its backward pass (equations: reference_egru.py).
//
// Most units tell nothing in a step (y = 0), so the products with what they told are sums of those columns of the recurrent weight
// whose units did: 3 H (share that told) multiplications a step. Going back, a unit's own cotangent is needed only if it fired or is
// near enough to its threshold: the others' rows of the product are left out. The gradient of the weight has the forward pass's share.
// Products go by blocks of columns, or by rows, with all samples in turn: what they read stays in the cache. In steps in which many
// units of many samples are active, dense products are faster, and taken.
// The weight is packed, and its gradient added up, as for inputs that are mostly zero (sparse_inputs.h).
#pragma once

#include "blas.h"
#include "parallel.h"
#include "simd.h"
#include "sparse_inputs.h"

#include <numeric>

namespace eventnet {

template <class T>
struct GatedLayer {
    int hidden;
    const T *columns, *bias, *threshold;  // the weight, packed; (3H,), (H,)
    T height, half_width;
    int padded, row;

    GatedLayer(int units, const T* packed, const T* biases, const T* thresholds, T high, T half)
        : hidden(units), columns(packed), bias(biases), threshold(thresholds), height(high), half_width(half), padded(padded_to_vectors<T>(units)),
          row(row_of<T>(padded)) {}

    const T* column(int unit) const { return columns + static_cast<size_t>(unit) * row; }
};

// A sequence, (steps, batch, ...), and the state before it, (batch, H) each.
template <class T>
struct Sequence {
    int steps, batch;
    const T *drive, *c, *y;
    const uint8_t* kept;  // where true a unit keeps its c for the step, or null
    T zoneout;            // the share that all keep instead
};

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

// Units that told something, and what.
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
    // Those among [from, to) of y that are not zero.
    void read(const T* y, int from, int to, int size) {
        clear();
        for (int c = from; c < to; c += kLanes<T>) {
            const Vec<T> v = load_of(y, c, size);
            add(v, bits<T>(v != 0), c);
        }
    }
};

// Bit l is set where lane l of a vector from c on is one of `size` units.
template <class T>
inline uint32_t lanes_of(int c, int size) {
    return size - c < kLanes<T> ? (1u << (size - c)) - 1 : kLanes<T> < 32 ? (1u << kLanes<T>) - 1 : ~0u;
}

// Where dense products are faster, by the share that is active (measured at 128 to 1024 units): of what is told, of cotangents that
// are needed, and for the gradient of the weight. With few samples sparse ones always are.
constexpr double kDense = 0.4, kDenseBack = 0.4, kDenseWeight = 0.35;
constexpr int kDenseBatch = 16;

template <class T>
bool dense_is_faster(double active, double all, int batch, double limit) {
    return Blas::there() && batch >= kDenseBatch && active > limit * all;
}

// A step has to be worth the waiting for each other.
template <class T>
int threads_for(const GatedLayer<T>& layer, int batch, int threads) {
    constexpr double kWorth = 262144;  // multiplications of a dense step
    const double work = 3.0 * layer.hidden * layer.hidden * batch;
    return std::max(1, std::min({threads, layer.padded / kLanes<T>, static_cast<int>(std::min(work / kWorth, 1e6))}));
}

// Units [from, to) of a part: whole vectors.
template <class T>
std::pair<int, int> units_of(int padded, int parts, int part) {
    const int vectors = padded / kLanes<T>;
    return {vectors * part / parts * kLanes<T>, vectors * (part + 1) / parts * kLanes<T>};
}

// Adds the columns of what was told to N vectors of sums.
template <class T, int N>
inline void add_columns(const T* columns, int row, const int* units, const T* values, size_t count, int start, T* sums) {
    Vec<T> sum[N];
    for (int i = 0; i < N; ++i) sum[i] = load(sums + i * kLanes<T>);
    for (size_t k = 0; k < count; ++k) {
        const T* const column = columns + static_cast<size_t>(units[k]) * row + start;
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) sum[i] += values[k] * load(column + i * kLanes<T>);
    }
    for (int i = 0; i < N; ++i) store(sums + i * kLanes<T>, sum[i]);
}

// What each sample was told, by all parts: sorted by units.
template <class T>
class Heard {
public:
    explicit Heard(int batch) : all_(batch), next_(batch) {}

    void gather(const std::vector<Told<T>>& told, int stride, int parts) {
        for (size_t b = 0; b < all_.size(); ++b) {
            all_[b].clear();
            for (int part = 0; part < parts; ++part) {
                const Told<T>& one = told[b * stride + part];
                all_[b].units.insert(all_[b].units.end(), one.units.begin(), one.units.end());
                all_[b].values.insert(all_[b].values.end(), one.values.begin(), one.values.end());
            }
        }
    }

    // Adds N vectors of every column, from `start` on, to those of each sample's sums. Where samples are many, some units at a time:
    // what they tell then stays in the nearest cache.
    template <int N>
    void add(const GatedLayer<T>& layer, int start, T* sums) {
        constexpr int kTile = 32768 / (N * kVectorBytes);
        const int tile = all_.size() < 8 ? layer.hidden : kTile;
        std::fill(next_.begin(), next_.end(), 0);
        for (int last = tile; last < layer.hidden + tile; last += tile)
            for (size_t b = 0; b < all_.size(); ++b) {
                const Told<T>& mine = all_[b];
                const size_t from = next_[b], count = mine.units.size();
                size_t to = from;
                while (to < count && mine.units[to] < last) ++to;
                if (to > from) add_columns<T, N>(layer.columns, layer.row, &mine.units[from], &mine.values[from], to - from, start, sums + b * layer.row + start);
                next_[b] = to;
            }
    }

private:
    std::vector<Told<T>> all_;
    std::vector<size_t> next_;
};

// What a step makes of a vector of units: gates, and values before the threshold is taken off. From the products of the input, those of
// what was told, and c.
template <class T>
struct Moved {
    Vec<T> r, z, g, value;

    Moved(Vec<T> x_r, Vec<T> x_z, Vec<T> x_n, Vec<T> back_r, Vec<T> back_z, Vec<T> back_n, Vec<T> c)
        : r(sigmoid<T>(x_r + back_r)), z(sigmoid<T>(x_z + back_z)), g(hyperbolic_tangent<T>(x_n + r * back_n)), value(z * c + (T(1) - z) * g) {}
};

// What is not a number is told.
template <class T>
inline IntVec<T> fires(Vec<T> value, Vec<T> threshold) {
    return ~(value <= threshold);
}

// y and v (steps, batch, H) and, if not null, gates (steps, batch, 4, H): r, z, n and what r multiplies. Each thread has some of the
// units, for all samples; once a step they tell each other.
template <class T>
void gated_forward(const GatedLayer<T>& layer, const Sequence<T>& in, T* y, T* v, T* gates, int threads) {
    const int hidden = layer.hidden, padded = layer.padded, most = threads_for(layer, in.batch, threads);
    Array<T> biases(3 * padded, T(0)), state(static_cast<size_t>(in.batch) * padded, T(0)), back(static_cast<size_t>(in.batch) * layer.row);
    for (int gate = 0; gate < 3; ++gate) std::copy_n(layer.bias + static_cast<size_t>(gate) * hidden, hidden, &biases[gate * padded]);
    std::vector<Told<T>> told[2];
    for (auto& list : told) list.resize(static_cast<size_t>(in.batch) * most);
    std::vector<size_t> firing[2];  // how many, by part
    for (auto& counts : firing) counts.resize(most);
    const double all = static_cast<double>(in.batch) * hidden;
    team(most, [&](int part, int parts, Barrier& barrier) {
        const auto [from, to] = units_of<T>(padded, parts, part);
        Heard<T> heard(in.batch);
        for (int b = 0; b < in.batch; ++b) {
            const size_t row = static_cast<size_t>(b) * hidden;
            for (int n = from; n < to; n += kLanes<T>) store(&state[static_cast<size_t>(b) * padded + n], load_of(in.c + row, n, hidden));
            Told<T>& first = told[0][static_cast<size_t>(b) * most + part];
            first.read(in.y + row, from, to, hidden), firing[0][part] += first.units.size();
        }
        bool dense = false;
        for (int t = 0; t < in.steps; ++t) {
            barrier.wait();
            // What was told in step t - 1 decides whether step t + 1 is dense; if so, step t keeps no lists for it.
            const bool next = dense_is_faster<T>(std::accumulate(firing[t % 2].begin(), firing[t % 2].begin() + parts, size_t(0)), all, in.batch, kDense);
            size_t mine_firing = 0;
            if (!dense) heard.gather(told[t % 2], most, parts);
            for (int b = 0; b < in.batch; ++b)
                for (int gate = 0; gate < 3; ++gate)
                    std::copy(&biases[gate * padded + from], &biases[gate * padded] + to, &back[static_cast<size_t>(b) * layer.row + gate * padded + from]);
            const Matrix<T> last{t > 0 ? y + static_cast<size_t>(t - 1) * in.batch * hidden : in.y, static_cast<size_t>(hidden)};
            for (int gate = 0; gate < 3 && dense; ++gate) {
                const int start = gate * padded + from;
                Blas::add_product<T>(in.batch, to - from, hidden, last, false, {layer.columns + start, size_t(layer.row)}, false, &back[start], layer.row);
            }
            for (int gate = 0; gate < 3 && !dense; ++gate)
                for (int start = gate * padded + from, left = (to - from) / kLanes<T>; left > 0;) {
                    const int count = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
                    if (count == 8) heard.template add<8>(layer, start, back.data());
                    else if (count == 4) heard.template add<4>(layer, start, back.data());
                    else if (count == 2) heard.template add<2>(layer, start, back.data());
                    else heard.template add<1>(layer, start, back.data());
                    start += count * kLanes<T>, left -= count;
                }
            for (int b = 0; b < in.batch; ++b) {
                const size_t at = static_cast<size_t>(t) * in.batch + b;
                const T *const drive = in.drive + at * 3 * hidden, *const mine = &back[static_cast<size_t>(b) * layer.row];
                T* const c = &state[static_cast<size_t>(b) * padded];
                Told<T>& tells = told[(t + 1) % 2][static_cast<size_t>(b) * most + part];
                tells.clear();
                for (int n = from; n < to; n += kLanes<T>) {
                    const Vec<T> before = load(c + n), theta = load_of(layer.threshold, n, hidden), h = load(mine + 2 * padded + n);
                    const Moved<T> unit(load_of(drive, n, hidden), load_of(drive + hidden, n, hidden), load_of(drive + 2 * hidden, n, hidden),
                                        load(mine + n), load(mine + padded + n), h, before);
                    Vec<T> value = unit.value;
                    if (in.zoneout > 0) value = in.zoneout * before + (T(1) - in.zoneout) * value;
                    if (in.kept)
                        for (int l = 0; l < std::min(kLanes<T>, hidden - n); ++l)
                            if (in.kept[at * hidden + n + l]) value[l] = before[l];
                    const IntVec<T> fired = eventnet::fires<T>(value, theta);
                    const Vec<T> out = select<T>(fired, value, Vec<T>{});
                    store(c + n, select<T>(fired, value - theta, value));
                    const uint32_t fires = bits<T>(fired) & lanes_of<T>(n, hidden);
                    mine_firing += __builtin_popcount(fires);
                    if (!next) tells.add(out, fires, n);
                    store_of(y + at * hidden, n, hidden, out), store_of(v + at * hidden, n, hidden, value);
                    if (!gates) continue;
                    T* const kept = gates + at * 4 * hidden;
                    store_of(kept, n, hidden, unit.r), store_of(kept + hidden, n, hidden, unit.z);
                    store_of(kept + 2 * hidden, n, hidden, unit.g), store_of(kept + 3 * hidden, n, hidden, h);
                }
            }
            dense = next, firing[(t + 1) % 2][part] = mine_firing;
        }
    });
}

// One step of c and y (batch, H), in place, from x (batch, inputs): of both products only the columns of what is not zero. The input's
// weight is packed as the recurrent one, its bias (3H,).
template <class T>
void gated_step(const GatedLayer<T>& layer, const T* input_columns, const T* input_bias, const T* x, int inputs, int batch, T zoneout, T* c, T* y, int threads) {
    const int hidden = layer.hidden, padded = layer.padded;
    const size_t row = layer.row;
    Array<T> all_sums(2 * row * batch, T(0));  // of each sample: of its input, of what was told
    team(threads_for(layer, batch, threads), [&](int part, int parts, Barrier& barrier) {
        const auto [from, to] = units_of<T>(padded, parts, part);
        std::vector<Told<T>> heard(2 * batch);
        for (int b = 0; b < batch; ++b) {
            heard[2 * b].read(x + static_cast<size_t>(b) * inputs, 0, inputs, inputs);
            heard[2 * b + 1].read(y + static_cast<size_t>(b) * hidden, 0, hidden, hidden);
        }
        barrier.wait();  // y changes from here on
        for (int b = 0; b < 2 * batch; ++b) {
            const T *const columns = b % 2 ? layer.columns : input_columns, *const bias = b % 2 ? layer.bias : input_bias;
            T* const sums = &all_sums[b * row];
            const Told<T>& told = heard[b];
            for (int gate = 0; gate < 3; ++gate) {
                for (int n = from; n < std::min(to, hidden); ++n) sums[gate * padded + n] = bias[gate * hidden + n];
                int start = gate * padded + from, left = (to - from) / kLanes<T>;
                for (; left >= 8; left -= 8, start += 8 * kLanes<T>)
                    add_columns<T, 8>(columns, layer.row, told.units.data(), told.values.data(), told.units.size(), start, sums + start);
                for (; left > 0; --left, start += kLanes<T>)
                    add_columns<T, 1>(columns, layer.row, told.units.data(), told.values.data(), told.units.size(), start, sums + start);
            }
        }
        for (int b = 0; b < batch; ++b) {
            const T *const of_x = &all_sums[2 * b * row], *const of_y = of_x + row;
            T *const my_c = c + static_cast<size_t>(b) * hidden, *const my_y = y + static_cast<size_t>(b) * hidden;
            for (int n = from; n < to; n += kLanes<T>) {
                const Vec<T> theta = load_of(layer.threshold, n, hidden), before = load_of(my_c, n, hidden);
                const Moved<T> unit(load(of_x + n), load(of_x + padded + n), load(of_x + 2 * padded + n), load(of_y + n), load(of_y + padded + n),
                                    load(of_y + 2 * padded + n), before);
                const Vec<T> value = zoneout > 0 ? zoneout * before + (T(1) - zoneout) * unit.value : unit.value;
                const IntVec<T> fired = fires<T>(value, theta);
                store_of(my_c, n, hidden, select<T>(fired, value - theta, value));
                store_of(my_y, n, hidden, select<T>(fired, value, Vec<T>{}));
            }
        }
    });
}

// Gradients: drive (steps, batch, 3H), weight (3H, H) or null, bias (3H,), threshold (H,), c and y (batch, H); those added to are zero before.
template <class T>
struct GatedGradients {
    T *drive, *weight, *c, *y;
    bool first;  // whether y is asked for
    double *bias, *threshold;
};

// The product of a column with the rows of N samples, to a place of each of them.
template <class T, int N>
inline void products(const T* column, const T* rows, const int* samples, int size, T* to, int stride) {
    const T* row[N];
    Vec<T> sum[N] = {};
    for (int i = 0; i < N; ++i) row[i] = rows + static_cast<size_t>(samples[i]) * size;
    for (int n = 0; n < size; n += kLanes<T>) {
        const Vec<T> one = load(column + n);
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) sum[i] += one * load(row[i] + n);
    }
    for (int i = 0; i < N; ++i) to[static_cast<size_t>(samples[i]) * stride] = eventnet::sum<T>(sum[i]);
}

// The gradient of the weight, from those of the drive: of each unit's column from the steps after those in which it told something.
template <class T>
void weight_gradient(const GatedLayer<T>& layer, const Sequence<T>& in, const T* y, const T* gates, const GatedGradients<T>& out, int threads) {
    const int hidden = layer.hidden;
    const size_t batch = in.batch, positions = batch * in.steps, row = 3 * static_cast<size_t>(hidden);
    const auto cotangent = [&](size_t at, int gate, int n) {
        const Vec<T> d = load_of(out.drive + (at * 3 + gate) * hidden, n, hidden);
        return gate == 2 ? d * load_of(gates + at * 4 * hidden, n, hidden) : d;  // of what r multiplies
    };
    const auto told = [&](size_t at) { return at < batch ? in.y + at * hidden : y + (at - batch) * hidden; };
    const size_t active = Active<T>::count(positions, hidden, threads, told).back();
    if (!dense_is_faster<T>(active, static_cast<double>(positions) * hidden, in.batch, kDenseWeight)) {
        sparse_weight_gradient<T>(Active<T>(positions, hidden, threads, told), hidden, hidden, cotangent, out.weight, threads);
        return;
    }
    Array<T> of_told(positions * hidden);  // the third gate's cotangents
    parallel_for(in.steps, threads, [&](int t) {
        for (size_t at = t * batch; at < (t + 1) * batch; ++at)
            for (int n = 0; n < hidden; n += kLanes<T>) store_of(&of_told[at * hidden], n, hidden, cotangent(at, 2, n));
    });
    std::fill_n(out.weight, row * hidden, T(0));
    const int parts = std::min(threads, hidden);
    parallel_for(3 * parts, threads, [&](int job) {
        const int gate = job / parts, from = hidden * (job % parts) / parts, size = hidden * (job % parts + 1) / parts - from;
        const Matrix<T> d = gate < 2 ? Matrix<T>{out.drive + static_cast<size_t>(gate) * hidden + from, row} : Matrix<T>{&of_told[from], size_t(hidden)};
        T* const weight = out.weight + (static_cast<size_t>(gate) * hidden + from) * hidden;
        const Matrix<T> first{in.y, size_t(hidden)}, others{y, size_t(hidden)}, later{d.data + batch * d.stride, d.stride};
        Blas::add_product<T>(size, hidden, in.batch, d, true, first, false, weight, hidden);
        Blas::add_product<T>(size, hidden, static_cast<int>(positions - batch), later, true, others, false, weight, hidden);
    });
}

// From those of y and v (each may be null), with y, v and gates of the forward pass.
template <class T>
void gated_backward(const GatedLayer<T>& layer, const Sequence<T>& in, const T* y, const T* v, const T* gates, const T* of_y,
                    const T* of_v, const GatedGradients<T>& out, int threads) {
    const int hidden = layer.hidden, padded = layer.padded, most = threads_for(layer, in.batch, threads);
    Array<T> d_c(static_cast<size_t>(in.batch) * padded, T(0)), d_y(d_c.size(), T(0)), d_back[2];
    for (auto& one : d_back) one.assign(static_cast<size_t>(in.batch) * layer.row, T(0));
    std::vector<size_t> needing[2];  // how many cotangents, by part
    for (auto& counts : needing) counts.resize(most);
    team(most, [&](int part, int parts, Barrier& barrier) {
        const auto [from, to] = units_of<T>(padded, parts, part);
        std::vector<std::vector<int>> needed(to - from);         // samples by unit
        Array<T> sums(4 * static_cast<size_t>(to - from), T(0));  // of a step, over the samples: three gates and the threshold
        const int own = std::max(0, std::min(to, hidden) - from);
        bool dense = false;  // as in the forward pass, decided a step ahead, and for all parts alike
        for (int t = in.steps; t-- > 0;) {
            size_t active = 0;
            std::fill(sums.begin(), sums.end(), T(0));
            for (auto& list : needed) list.clear();
            Array<T>& told_back = d_back[t % 2];
            for (int b = 0; b < in.batch; ++b) {
                const size_t at = static_cast<size_t>(t) * in.batch + b, before = at - in.batch;
                T *const my_c = &d_c[static_cast<size_t>(b) * padded], *const my_y = &d_y[static_cast<size_t>(b) * padded];
                T* const my_back = &told_back[static_cast<size_t>(b) * layer.row];
                const T* const kept = gates + at * 4 * hidden;
                T* const of_drive = out.drive + at * 3 * hidden;
                for (int n = from; n < to; n += kLanes<T>) {
                    const Vec<T> theta = load_of(layer.threshold, n, hidden), value = load_of(v + at * hidden, n, hidden);
                    const Vec<T> above = value - theta, of_c = load(my_c + n);
                    Vec<T> of_told = load(my_y + n);
                    if (of_y) of_told += load_of(of_y + at * hidden, n, hidden);
                    const IntVec<T> fired = above > 0;
                    const Vec<T> slope = layer.height * max<T>(T(1) - absolute<T>(above) / layer.half_width, Vec<T>{});
                    const Vec<T> of_above = (value * of_told - theta * of_c) * slope;
                    Vec<T> of_value = select<T>(fired, of_told, Vec<T>{}) + of_above + of_c;
                    if (of_v) of_value += load_of(of_v + at * hidden, n, hidden);
                    const Vec<T> earlier = t > 0 ? load_of(v + before * hidden, n, hidden) : load_of(in.c + static_cast<size_t>(b) * hidden, n, hidden);
                    const Vec<T> old = t > 0 ? select<T>(earlier > theta, earlier - theta, earlier) : earlier;
                    Vec<T> stays{}, moves = of_value;  // its parts by c of the step before and by the new value
                    if (in.zoneout > 0) stays = in.zoneout * of_value, moves = (T(1) - in.zoneout) * of_value;
                    if (in.kept)
                        for (int l = 0; l < std::min(kLanes<T>, hidden - n); ++l)
                            if (in.kept[at * hidden + n + l]) stays[l] = of_value[l], moves[l] = 0;
                    const Vec<T> r = load_of(kept, n, hidden), z = load_of(kept + hidden, n, hidden), g = load_of(kept + 2 * hidden, n, hidden);
                    const Vec<T> h = load_of(kept + 3 * hidden, n, hidden);
                    const Vec<T> of_n = (T(1) - z) * moves * (T(1) - g * g), of_z = (old - g) * moves * z * (T(1) - z);
                    const Vec<T> of_r = of_n * h * r * (T(1) - r), of_h = of_n * r;
                    store(my_c + n, stays + z * moves), store(my_y + n, Vec<T>{});
                    store_of(of_drive, n, hidden, of_r), store_of(of_drive + hidden, n, hidden, of_z), store_of(of_drive + 2 * hidden, n, hidden, of_n);
                    store(my_back + n, of_r), store(my_back + padded + n, of_z), store(my_back + 2 * padded + n, of_h);
                    const Vec<T> of_theta = -of_above - select<T>(fired, of_c, Vec<T>{});
                    T* sum = &sums[4 * (n - from)];
                    for (const Vec<T>& one : {of_r, of_z, of_h, of_theta}) store(sum, load(sum) + one), sum += kLanes<T>;
                    // whose cotangent of y the step before asks for
                    uint32_t lanes = lanes_of<T>(n, hidden);
                    if (t > 0) lanes &= bits<T>((earlier > theta) | (absolute<T>(earlier - theta) < layer.half_width));
                    else if (!out.first) lanes = 0;
                    active += __builtin_popcount(lanes);
                    for (; lanes && !dense; lanes &= lanes - 1) needed[n - from + __builtin_ctz(lanes)].push_back(b);
                }
            }
            for (int n = from; n < std::min(to, hidden); ++n) {
                const T* const sum = &sums[4 * ((n - from) / kLanes<T> * kLanes<T>) + (n - from) % kLanes<T>];
                for (int gate = 0; gate < 3; ++gate) out.bias[gate * hidden + n] += sum[gate * kLanes<T>];
                out.threshold[n] += sum[3 * kLanes<T>];
            }
            needing[t % 2][part] = active;
            barrier.wait();
            if (dense && (t > 0 || out.first))
                Blas::add_product<T>(in.batch, own, 3 * padded, {told_back.data(), size_t(layer.row)}, false, {layer.column(from), size_t(layer.row)}, true,
                                     &d_y[from], padded);
            for (int j = from; j < std::min(to, hidden); ++j) {
                const std::vector<int>& list = needed[j - from];
                const size_t count = list.size();
                size_t k = 0;
                for (; k + 4 <= count; k += 4) products<T, 4>(layer.column(j), told_back.data(), &list[k], layer.row, &d_y[j], padded);
                for (; k < count; ++k) products<T, 1>(layer.column(j), told_back.data(), &list[k], layer.row, &d_y[j], padded);
            }
            const size_t all_active = std::accumulate(needing[t % 2].begin(), needing[t % 2].begin() + parts, size_t(0));
            dense = dense_is_faster<T>(all_active, static_cast<double>(in.batch) * hidden, in.batch, kDenseBack);
        }
        for (int b = 0; b < in.batch; ++b)
            for (int n = from; n < std::min(to, hidden); ++n) {
                const size_t mine = static_cast<size_t>(b) * padded + n, to_place = static_cast<size_t>(b) * hidden + n;
                out.c[to_place] = d_c[mine], out.y[to_place] = d_y[mine];
            }
    });

    if (out.weight) weight_gradient(layer, in, y, gates, out, threads);
}

}  // namespace eventnet
