// Which numbers of rows are not zero, and which of them are neither 1 nor -1: each number is read once.
#pragma once

#include <cmath>
#include <utility>

#include "parallel.h"

namespace eventnet {

struct Tally {
    int64_t active = 0, graded = 0;
};

// Of one row; `columns`, if there, gets one more where the number is not zero. Written for the compiler to vectorise.
template <class T>
inline Tally tally_row(const T* row, int64_t size, int32_t* columns) {
    Tally found;
    constexpr int64_t kPiece = 1 << 12;  // 32-bit sums, as wide as the numbers, are faster and do not overflow
    for (int64_t first = 0; first < size; first += kPiece) {
        const int64_t last = std::min(first + kPiece, size);
        int32_t active = 0, units = 0;
        for (int64_t i = first; i < last; ++i) {
            active += row[i] != 0;
            units += std::abs(row[i]) == 1;
        }
        if (columns)
            for (int64_t i = first; i < last; ++i) columns[i] += row[i] != 0;
        found.active += active;
        found.graded += active - units;
    }
    return found;
}

// x (rows, size): what is found in all of them, the active ones of each row, and, if `by_column` is there, of each column.
template <class T>
Tally tally(const T* x, int64_t rows, int64_t size, int64_t* by_row, int64_t* by_column, int threads) {
    constexpr int64_t kBlock = 1 << 17;  // numbers that are worth a thread
    const int64_t length = std::max<int64_t>(1, kBlock / std::max<int64_t>(size, 1));
    const int blocks = static_cast<int>((rows + length - 1) / length);
    std::vector<Tally> found(blocks);
    std::mutex mutex;
    parallel_for(blocks, threads, [&](int block) {
        Tally sum;
        std::vector<int32_t> columns(by_column ? size : 0);
        for (int64_t r = block * length; r < std::min((block + 1) * length, rows); ++r) {
            const Tally one = tally_row(x + r * size, size, by_column ? columns.data() : nullptr);
            by_row[r] = one.active, sum.active += one.active, sum.graded += one.graded;
        }
        found[block] = sum;
        if (!by_column) return;
        std::lock_guard lock(mutex);
        for (int64_t i = 0; i < size; ++i) by_column[i] += columns[i];
    });
    Tally all;
    for (const Tally& one : found) all.active += one.active, all.graded += one.graded;
    return all;
}

// Events of samples that last duration[b] each: event k is of sample b from offsets[b] to offsets[b + 1], sorted by time.
template <class T>
struct Sent {
    const T* times;
    const int32_t* units;
    const int64_t* offsets;
    const T* values;  // may be null
    const T* duration;
    int64_t samples;

    // Calls visit(sample, event) for those before the end of their sample whose value is not 0.
    template <class Visit>
    void each(const Visit& visit) const {
        for (int64_t b = 0; b < samples; ++b)
            for (int64_t k = offsets[b], end = last(b); k < end; ++k)
                if (!values || values[k] != 0) visit(b, k);
    }

    int64_t count() const {
        int64_t found = 0;
        if (values)
            each([&](int64_t, int64_t) { ++found; });
        else
            for (int64_t b = 0; b < samples; ++b) found += last(b) - offsets[b];
        return found;
    }

private:
    int64_t last(int64_t b) const {
        return std::lower_bound(times + offsets[b], times + offsets[b + 1], duration[b]) - times;
    }
};

// The step of `dt` seconds that a time is in, of so many that a sample lasts: the last one if it is later.
inline int64_t step_of(double time, double dt, double slack, int64_t steps) {
    return std::clamp<int64_t>(static_cast<int64_t>(time / dt / slack), 0, std::max<int64_t>(steps - 1, 0));
}

// by_step[t]: events of step t of `dt` seconds, of all samples; the last step of a sample has what is later.
template <class T>
void by_step(const T* times, const int64_t* offsets, int64_t samples, const int64_t* steps, double dt, double slack, int64_t* found) {
    for (int64_t b = 0; b < samples; ++b)
        for (int64_t k = offsets[b]; k < offsets[b + 1]; ++k)
            ++found[step_of(times[k], dt, slack, steps[b])];
}

// As `tally`, of the sums of the events of each unit in each step: by_row (steps, samples), by_column (units).
template <class T>
Tally tally_in_steps(const Sent<T>& sent, const int64_t* steps, double dt, double slack, int64_t* by_row, int64_t* by_column, int64_t num) {
    Tally all;
    std::vector<T> sums(num);
    std::vector<int32_t> touched;  // units whose sum is not cleared; one may be there twice
    const auto end_of_step = [&](int64_t row) {
        for (const int32_t unit : touched) {
            const T sum = std::exchange(sums[unit], T(0));
            if (sum == 0) continue;
            ++all.active, ++by_row[row], ++by_column[unit];
            all.graded += std::abs(sum) != 1;
        }
        touched.clear();
    };
    int64_t row = 0;
    sent.each([&](int64_t b, int64_t k) {
        const int64_t now = step_of(sent.times[k], dt, slack, steps[b]) * sent.samples + b;
        if (now != row) end_of_step(row), row = now;
        const int32_t unit = sent.units[k];
        if (sums[unit] == 0) touched.push_back(unit);
        sums[unit] += sent.values ? sent.values[k] : T(1);
    });
    end_of_step(row);
    return all;
}

}  // namespace eventnet
