// Products of a weight (3H, inputs) with inputs most of which are zero, and their gradients.
//
// A position is a step of a sample. The weight is packed with a row for each input, so that a product adds up the rows of the
// inputs that are not zero. Everything goes by blocks of a few vectors of the 3H: the part of the weight that a block reads stays in the
// cache while all positions pass.
#pragma once

#include "parallel.h"
#include "simd.h"

namespace eventnet {

template <class T>
constexpr int padded_to_vectors(int n) {
    return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// Numbers from one row of three gates to the next: an odd number of lines. Rows that are a multiple of 4096 bytes apart would all
// want the same few places in the cache.
template <class T>
constexpr int row_of(int padded) {
    constexpr int kLine = 64 / sizeof(T);
    const int lines = (3 * padded + kLine - 1) / kLine;
    return (lines | 1) * kLine;
}

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

// A weight (3H, sources) with a row for each source, its three gates padded: (sources, row).
template <class T>
void pack(const T* weight, int sources, int hidden, T* to, int threads) {
    constexpr int kTile = 16;
    const size_t padded = padded_to_vectors<T>(hidden), row = row_of<T>(static_cast<int>(padded));
    parallel_for((sources + kTile - 1) / kTile, threads, [&](int tile) {
        const int first = tile * kTile, last = std::min(first + kTile, sources);
        for (int gate = 0; gate < 3; ++gate)
            for (int n = 0; n < hidden; ++n) {
                const T* const from = weight + (static_cast<size_t>(gate) * hidden + n) * sources;
                for (int j = first; j < last; ++j) to[j * row + gate * padded + n] = from[j];
            }
        for (int j = first; j < last; ++j) {
            for (size_t gate = 0; gate < 3; ++gate) std::fill(to + j * row + gate * padded + hidden, to + j * row + (gate + 1) * padded, T(0));
            std::fill(to + j * row + 3 * padded, to + (j + 1) * row, T(0));
        }
    });
}

// The inputs of each position that are not zero, and what they are: of position p those from start[p] to start[p + 1].
template <class T>
struct Active {
    std::vector<size_t> start;
    std::vector<int> units;
    Array<T> values;

    // row(p): where the inputs of position p are.
    template <class Row>
    Active(size_t positions, int inputs, int threads, const Row& row) : start(count(positions, inputs, threads, row)) {
        units.resize(start[positions]), values.resize(start[positions]);
        each(positions, threads, [&](size_t first, size_t last) {
            for (size_t p = first; p < last; ++p) {
                size_t at = start[p];
                for (int c = 0; c < inputs; c += kLanes<T>) {
                    const Vec<T> x = load_of(row(p), c, inputs);
                    for (uint32_t there = bits<T>(x != 0); there; there &= there - 1, ++at) {
                        const int l = __builtin_ctz(there);
                        units[at] = c + l, values[at] = x[l];
                    }
                }
            }
        });
    }

    size_t positions() const { return start.size() - 1; }

    // How many there are before each position, and in all.
    template <class Row>
    static std::vector<size_t> count(size_t positions, int inputs, int threads, const Row& row) {
        std::vector<size_t> before(positions + 1, 0);
        each(positions, threads, [&](size_t first, size_t last) {
            for (size_t p = first; p < last; ++p)
                for (int c = 0; c < inputs; c += kLanes<T>) before[p + 1] += __builtin_popcount(bits<T>(load_of(row(p), c, inputs) != 0));
        });
        for (size_t p = 0; p < positions; ++p) before[p + 1] += before[p];
        return before;
    }

private:
    template <class Job>
    static void each(size_t positions, int threads, const Job& job) {
        const int parts = static_cast<int>(std::min<size_t>(positions, 4 * static_cast<size_t>(threads)));
        parallel_for(parts, threads, [&](int part) { job(positions * part / parts, positions * (part + 1) / parts); });
    }
};

constexpr int kBlock = 8;  // vectors

// A block of the 3H: up to kBlock vectors, each within one gate.
template <class T>
struct Block {
    int from, vectors, padded;

    Block(int padded_units, int number) : from(number * kBlock * kLanes<T>), vectors(std::min(kBlock, 3 * padded_units / kLanes<T> - number * kBlock)), padded(padded_units) {}
    static int count(int padded) { return (3 * padded / kLanes<T> + kBlock - 1) / kBlock; }
    int gate(int i) const { return (from + i * kLanes<T>) / padded; }
    int unit(int i) const { return (from + i * kLanes<T>) % padded; }
};

// out (positions, 3H): the bias and the product with the packed weight.
template <class T>
void sparse_product(const T* packed, const T* bias, int hidden, const Active<T>& x, T* out, int threads) {
    const int padded = padded_to_vectors<T>(hidden), blocks = Block<T>::count(padded);
    const size_t row = row_of<T>(padded), positions = x.positions();
    const int parts = static_cast<int>(std::clamp<size_t>(positions / 256, 1, 2 * static_cast<size_t>(threads)));
    parallel_for(blocks * parts, threads, [&](int job) {
        const Block<T> block(padded, job / parts);
        const int part = job % parts;
        Vec<T> start[kBlock] = {};
        for (int i = 0; i < block.vectors; ++i)
            if (block.unit(i) < hidden) start[i] = load_of(bias + static_cast<size_t>(block.gate(i)) * hidden, block.unit(i), hidden);
        for (size_t p = positions * part / parts, end = positions * (part + 1) / parts; p < end; ++p) {
            Vec<T> sum[kBlock];
            for (int i = 0; i < kBlock; ++i) sum[i] = start[i];
            for (size_t k = x.start[p]; k < x.start[p + 1]; ++k) {
                const T* const column = packed + x.units[k] * row + block.from;
                const T value = x.values[k];
                if (block.vectors == kBlock) {
#pragma GCC unroll 8
                    for (int i = 0; i < kBlock; ++i) sum[i] += value * load(column + i * kLanes<T>);
                } else {
                    for (int i = 0; i < block.vectors; ++i) sum[i] += value * load(column + i * kLanes<T>);
                }
            }
            for (int i = 0; i < block.vectors; ++i)
                if (block.unit(i) < hidden) store_of(out + (p * 3 + block.gate(i)) * hidden, block.unit(i), hidden, sum[i]);
        }
    });
}

// weight (3H, inputs): a column for each input that was not zero. cotangent(p, gate, n): a vector of those of the products.
template <class T, class Cotangent>
void sparse_weight_gradient(const Active<T>& x, int inputs, int hidden, const Cotangent& cotangent, T* weight, int threads) {
    const int padded = padded_to_vectors<T>(hidden);
    parallel_for(Block<T>::count(padded), threads, [&](int number) {
        const Block<T> block(padded, number);
        Array<T> found(static_cast<size_t>(inputs) * kBlock * kLanes<T>, T(0));
        for (size_t p = 0; p < x.positions(); ++p) {
            if (x.start[p] == x.start[p + 1]) continue;
            Vec<T> d[kBlock] = {};
            for (int i = 0; i < block.vectors; ++i)
                if (block.unit(i) < hidden) d[i] = cotangent(p, block.gate(i), block.unit(i));
            for (size_t k = x.start[p]; k < x.start[p + 1]; ++k) {
                T* const column = &found[static_cast<size_t>(x.units[k]) * kBlock * kLanes<T>];
                const T value = x.values[k];
#pragma GCC unroll 8
                for (int i = 0; i < kBlock; ++i) store(column + i * kLanes<T>, load(column + i * kLanes<T>) + value * d[i]);
            }
        }
        for (int i = 0; i < block.vectors; ++i)
            for (int l = 0; l < kLanes<T> && block.unit(i) + l < hidden; ++l) {
                T* const row = weight + (static_cast<size_t>(block.gate(i)) * hidden + block.unit(i) + l) * inputs;
                for (int j = 0; j < inputs; ++j) row[j] = found[(static_cast<size_t>(j) * kBlock + i) * kLanes<T> + l];
            }
    });
}

// of_x (positions, inputs), zero before: for the inputs that `needed` names, products of their rows with the cotangents (positions, 3H).
template <class T>
void sparse_input_gradient(const T* packed, const T* cotangents, int hidden, const Active<T>& needed, int inputs, T* of_x, int threads) {
    const int padded = padded_to_vectors<T>(hidden), blocks = Block<T>::count(padded);
    const size_t row = row_of<T>(padded), positions = needed.positions();
    const int parts = static_cast<int>(std::min<size_t>(positions, 2 * static_cast<size_t>(threads)));
    parallel_for(parts, threads, [&](int part) {
        for (int number = 0; number < blocks; ++number) {
            const Block<T> block(padded, number);
            for (size_t p = positions * part / parts, end = positions * (part + 1) / parts; p < end; ++p) {
                Vec<T> d[kBlock] = {};
                for (int i = 0; i < block.vectors; ++i)
                    if (block.unit(i) < hidden) d[i] = load_of(cotangents + (p * 3 + block.gate(i)) * hidden, block.unit(i), hidden);
                for (size_t k = needed.start[p]; k < needed.start[p + 1]; ++k) {
                    const T* const column = packed + needed.units[k] * row + block.from;
                    Vec<T> sum[2] = {};
                    if (block.vectors == kBlock) {
#pragma GCC unroll 8
                        for (int i = 0; i < kBlock; ++i) sum[i % 2] += d[i] * load(column + i * kLanes<T>);
                    } else {
                        for (int i = 0; i < block.vectors; ++i) sum[0] += d[i] * load(column + i * kLanes<T>);
                    }
                    of_x[p * inputs + needed.units[k]] += eventnet::sum<T>(sum[0] + sum[1]);
                }
            }
        }
    });
}

}  // namespace eventnet
