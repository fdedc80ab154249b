// Vectors of the width that this build's instruction set has, and an exponential for them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#include <sys/mman.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace eventnet {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
    typedef float type __attribute__((vector_size(kVectorBytes)));
    typedef int32_t integer __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
    typedef double type __attribute__((vector_size(kVectorBytes)));
    typedef int64_t integer __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
using IntVec = typename VectorOf<T>::integer;
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

// Numbers in memory that starts with a line of the cache: a vector across two lines costs twice. Large arrays ask for huge pages:
// the first touch of each small page of a new array costs more than what is then written to it.
template <class T>
struct Aligned {
    using value_type = T;
    static constexpr size_t kLine = 64, kHuge = size_t(2) << 20;
    Aligned() = default;
    template <class U>
    Aligned(const Aligned<U>&) {}
    T* allocate(size_t n) {
        if (n > SIZE_MAX / sizeof(T) - kHuge) throw std::bad_alloc();
        const size_t bytes = n * sizeof(T), unit = bytes < 2 * kHuge ? kLine : kHuge, size = (bytes + unit - 1) / unit * unit;
        void* const p = std::aligned_alloc(unit, size);
        if (!p && size) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
        if (unit == kHuge) madvise(p, size, MADV_HUGEPAGE);  // without effect where there are none
#endif
        return static_cast<T*>(p);
    }
    void deallocate(T* p, size_t) { std::free(p); }
    bool operator==(const Aligned&) const { return true; }
};
template <class T>
using Array = std::vector<T, Aligned<T>>;

template <class T>
inline Vec<T> load(const T* p) {
    Vec<T> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
inline void store(T* p, Vec<T> v) {
    std::memcpy(p, &v, sizeof v);
}

template <class T>
inline Vec<T> splat(T x) {
    return x - Vec<T>{};  // unlike a sum with zero, this costs nothing
}

template <class T>
inline Vec<T> select(IntVec<T> mask, Vec<T> yes, Vec<T> no) {
    return mask ? yes : no;
}

// b where a is NaN.
template <class T>
inline Vec<T> max(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_max_ps((__m512)a, (__m512)b);
    else return (Vec<T>)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_max_ps((__m256)a, (__m256)b);
    else return (Vec<T>)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
    return a > b ? a : b;
#endif
}

// Bit l is set where lane l of a comparison is true.
template <class T>
inline uint32_t bits(IntVec<T> mask) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_movepi32_mask((__m512i)mask);
    else return _mm512_movepi64_mask((__m512i)mask);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return _mm256_movemask_ps((__m256)mask);
    else return _mm256_movemask_pd((__m256d)mask);
#elif defined(__SSE2__)
    if constexpr (sizeof(T) == 4) return _mm_movemask_ps((__m128)mask);
    else return _mm_movemask_pd((__m128d)mask);
#else
    uint32_t result = 0;
    for (int l = 0; l < kLanes<T>; ++l) result |= (mask[l] ? 1u : 0u) << l;
    return result;
#endif
}

// Bit l is set where a < b does not hold, NaN included.
template <class T>
inline uint32_t not_less(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NLT_UQ);
    else return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_NLT_UQ);
#else
    return bits<T>(~(a < b));
#endif
}

// The lanes whose bits are set.
template <class T>
inline IntVec<T> mask(uint32_t set) {
    IntVec<T> bit;
    for (int l = 0; l < kLanes<T>; ++l) bit[l] = 1 << l;
    return (bit & static_cast<std::conditional_t<sizeof(T) == 4, int32_t, int64_t>>(set)) != 0;
}

template <class T>
inline Vec<T> square_root(Vec<T> v) {
    for (int l = 0; l < kLanes<T>; ++l) v[l] = std::sqrt(v[l]);  // one instruction for all lanes
    return v;
}

template <class T>
inline T sum(Vec<T> v) {
    T total = 0;
    for (int l = 0; l < kLanes<T>; ++l) total += v[l];
    return total;
}

// from[place[l]] in lane l.
template <class T>
inline Vec<T> gather(const T* from, IntVec<T> place) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_i32gather_ps((__m512i)place, from, 4);
    else return (Vec<T>)_mm512_i64gather_pd((__m512i)place, from, 8);
#else
    Vec<T> v;
    for (int l = 0; l < kLanes<T>; ++l) v[l] = from[place[l]];
    return v;
#endif
}

// from[2 place[l]] and the number after it in lane l.
template <class T>
inline void gather_pairs(const T* from, IntVec<T> place, Vec<T>& a, Vec<T>& b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {  // a pair is read as one number of twice the size
        const __m512i low = (__m512i)_mm512_i32gather_pd(_mm512_castsi512_si256((__m512i)place), from, 8);
        const __m512i high = (__m512i)_mm512_i32gather_pd(_mm512_extracti64x4_epi64((__m512i)place, 1), from, 8);
        const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        a = (Vec<T>)_mm512_permutex2var_epi32(low, even, high);
        b = (Vec<T>)_mm512_permutex2var_epi32(low, _mm512_or_si512(even, _mm512_set1_epi32(1)), high);
        return;
    }
#endif
    a = gather<T>(from, 2 * place), b = gather<T>(from, 2 * place + 1);
}

// Four numbers for each lane of a vector, to be read and written together.
template <class T>
struct FourOf {
    typedef T type __attribute__((vector_size(4 * sizeof(T))));
};
template <class T>
using Four = typename FourOf<T>::type;

// {a[l], b[l], c[l], d[l]} of all lanes; that of lane l is at place_of<T>(l): so no lane crosses a quarter of the vector.
template <class T>
constexpr int place_of(int l) {
#if defined(__AVX512F__)
    if (sizeof(T) == 4) return l % 4 * 4 + l / 4;
#endif
    return l;
}

template <class T>
inline void interleave(Vec<T> a, Vec<T> b, Vec<T> c, Vec<T> d, Four<T>* out) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const __m512d ab = (__m512d)_mm512_unpacklo_ps((__m512)a, (__m512)b), cd = (__m512d)_mm512_unpacklo_ps((__m512)c, (__m512)d);
        const __m512d AB = (__m512d)_mm512_unpackhi_ps((__m512)a, (__m512)b), CD = (__m512d)_mm512_unpackhi_ps((__m512)c, (__m512)d);
        store(reinterpret_cast<T*>(out), (Vec<T>)_mm512_unpacklo_pd(ab, cd));
        store(reinterpret_cast<T*>(out + 4), (Vec<T>)_mm512_unpackhi_pd(ab, cd));
        store(reinterpret_cast<T*>(out + 8), (Vec<T>)_mm512_unpacklo_pd(AB, CD));
        store(reinterpret_cast<T*>(out + 12), (Vec<T>)_mm512_unpackhi_pd(AB, CD));
        return;
    }
#endif
    for (int l = 0; l < kLanes<T>; ++l) out[l] = Four<T>{a[l], b[l], c[l], d[l]};
}

// The first three of four numbers in a row, for each lane.
template <class T>
inline void part(const Four<T>* from, Vec<T>& a, Vec<T>& b, Vec<T>& c) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const T* const in = reinterpret_cast<const T*>(from);
        const __m512 r0 = (__m512)load(in), r1 = (__m512)load(in + 16), r2 = (__m512)load(in + 32), r3 = (__m512)load(in + 48);
        const __m512i every = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
        const __m512i third = _mm512_setr_epi32(2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
        const __m512 ab = _mm512_permutex2var_ps(r0, every, r1), AB = _mm512_permutex2var_ps(r2, every, r3);
        a = (Vec<T>)_mm512_shuffle_f32x4(ab, AB, 0x44), b = (Vec<T>)_mm512_shuffle_f32x4(ab, AB, 0xee);
        c = (Vec<T>)_mm512_shuffle_f32x4(_mm512_permutex2var_ps(r0, third, r1), _mm512_permutex2var_ps(r2, third, r3), 0x44);
        return;
    }
#endif
    for (int l = 0; l < kLanes<T>; ++l) a[l] = from[l][0], b[l] = from[l][1], c[l] = from[l][2];
}

// log(x) for normal x > 0, to a few units in the last place of 1 or of the result, whichever is larger.
// x = 2^n m with m in [sqrt(1/2), sqrt(2)): log m = 2 atanh((m - 1) / (m + 1)), an odd series.
template <class T>
inline Vec<T> log(Vec<T> x) {
    constexpr int kMantissa = sizeof(T) == 4 ? 23 : 52, kTerms = sizeof(T) == 4 ? 5 : 11;
    using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    constexpr Int kRootHalf = sizeof(T) == 4 ? 0x3f3504f3 : 0x3fe6a09e667f3bcd;
    const IntVec<T> bits = (IntVec<T>)x, n = (bits - kRootHalf) >> kMantissa;
    const Vec<T> m = (Vec<T>)(bits - (n << kMantissa)), s = (m - T(1)) / (m + T(1)), square = s * s;
    Vec<T> series = splat(T(1) / (2 * kTerms - 1));
    for (int k = kTerms - 2; k >= 0; --k) series = series * square + T(1) / (2 * k + 1);
    return __builtin_convertvector(n, Vec<T>) * T(0.69314718055994530942) + T(2) * s * series;
}

// e^x for x <= 0, to about one unit in the last place; 0 below the smallest normal number.
// x = n ln 2 + r with |r| <= ln 2 / 2: a Taylor polynomial in r, and 2^n by way of the exponent's bits.
inline Vec<float> exp(Vec<float> x) {
    constexpr float kMagic = 12582912.0f, kLog2e = 1.44269504f, kHigh = 0.693359375f, kLow = -2.12194440e-4f;
    const auto tiny = x < -87.0f;
    x = select<float>(tiny, splat(-87.0f), x);
    const Vec<float> shifted = x * kLog2e + kMagic;
    const Vec<float> n = shifted - kMagic;
    const Vec<float> r = (x - n * kHigh) - n * kLow;
    Vec<float> p = splat(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const IntVec<float> scale = ((IntVec<float>)shifted << 23) + 0x3f800000;
    return select<float>(tiny, Vec<float>{}, p * (Vec<float>)scale);
}

inline Vec<double> exp(Vec<double> x) {
    constexpr double kMagic = 6755399441055744.0, kLog2e = 1.4426950408889634;
    constexpr double kHigh = 6.93147180369123816490e-1, kLow = 1.90821492927058770002e-10;
    const auto tiny = x < -708.0;
    x = select<double>(tiny, splat(-708.0), x);
    const Vec<double> shifted = x * kLog2e + kMagic;
    const Vec<double> n = shifted - kMagic;
    const Vec<double> r = (x - n * kHigh) - n * kLow;
    Vec<double> p = splat(1.0 / 6227020800.0);
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    const IntVec<double> scale = ((IntVec<double>)shifted << 52) + 0x3ff0000000000000LL;
    return select<double>(tiny, Vec<double>{}, p * (Vec<double>)scale);
}

}  // namespace eventnet
