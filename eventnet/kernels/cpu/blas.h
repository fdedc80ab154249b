// Dense matrix products by torch's own BLAS, whose addresses Python hands over: for steps in which most units tell something.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace eventnet {

// A row-major view: rows of `stride` numbers.
template <class T>
struct Matrix {
    const T* data;
    size_t stride;
};

class Blas {
public:
    static void set(uintptr_t single, uintptr_t twice) {
        single_ = reinterpret_cast<Product<float>>(single), double_ = reinterpret_cast<Product<double>>(twice);
    }
    static bool there() { return single_ && double_; }

    // c (m, n) += a (m, k) b (k, n); b (n, k) if `turned_b`, a (k, m) if `turned_a`.
    template <class T>
    static void add_product(int m, int n, int k, Matrix<T> a, bool turned_a, Matrix<T> b, bool turned_b, T* c, size_t stride) {
        if (m == 0 || n == 0 || k == 0) return;
        // BLAS counts by columns: it is given c transposed, the product of the other two, transposed and in the other order
        const T one = 1;
        const int of_a = static_cast<int>(a.stride), of_b = static_cast<int>(b.stride), of_c = static_cast<int>(stride);
        product<T>()(turned_b ? "T" : "N", turned_a ? "T" : "N", &n, &m, &k, &one, b.data, &of_b, a.data, &of_a, &one, c, &of_c);
    }

private:
    template <class T>
    using Product = void (*)(const char*, const char*, const int*, const int*, const int*, const T*, const T*, const int*, const T*, const int*, const T*, T*, const int*);

    template <class T>
    static Product<T> product() {
        if constexpr (std::is_same_v<T, float>) return single_;
        else return double_;
    }

    inline static Product<float> single_ = nullptr;
    inline static Product<double> double_ = nullptr;
};

}  // namespace eventnet
