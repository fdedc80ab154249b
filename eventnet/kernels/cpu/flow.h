// What a neuron does between two events, in closed form: decays, the first threshold crossing, the peak.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "simd.h"

namespace eventnet {

// Factors over a stretch of s seconds: x = e^{-s/tm}, y = e^{-s/ts}, k = K(s), the voltage that a unit of current leaves.
template <class V>
struct Decay {
    V x, y, k;
};

// Their derivatives in the time constants (x depends on tm alone, y on ts alone).
template <class V>
struct TauSlope {
    V x_tm, y_ts, k_tm, k_ts;
};

// phi(d) = (1 - e^{-d}) / d as a series, for 0 <= d < kNear; beyond, the difference does not cancel.
constexpr double kNear = 0.4;
template <class T>
inline Vec<T> phi_series(Vec<T> d) {
    constexpr int kTerms = sizeof(T) == 4 ? 8 : 15;
    Vec<T> sum = splat(T(1));
    for (int n = kTerms; n >= 2; --n) sum = T(1) - sum * d * (T(1) / n);
    return sum;
}

// phi(d) for all d >= 0, given e = e^{-d}; below, its derivative.
template <class T>
inline Vec<T> phi(Vec<T> d, Vec<T> e) {
    const auto near = d < T(kNear);
    return select<T>(near, phi_series<T>(d), (T(1) - e) / select<T>(near, splat(T(1)), d));
}

template <class T>
inline Vec<T> phi_slope(Vec<T> d, Vec<T> e) {
    const auto near = d < T(kNear);
    constexpr int kTerms = sizeof(T) == 4 ? 8 : 14;
    static constexpr auto kCoefficients = [] {  // of d^{n-1}: (-1)^n n / (n+1)!
        std::array<T, kTerms + 1> c{};
        double factorial = 1;
        for (int n = 1; n <= kTerms; ++n) factorial *= n + 1, c[n] = T((n % 2 ? -n : n) / factorial);
        return c;
    }();
    Vec<T> series{};
    for (int n = kTerms; n >= 1; --n) series = series * d + kCoefficients[n];
    const Vec<T> safe = select<T>(near, splat(T(1)), d);
    return select<T>(near, series, (e * (T(1) + safe) - T(1)) / (safe * safe));
}

// Lanes are stretches (shared time constants) or neurons; p = 1/tm, q = 1/ts.
template <class T>
inline Decay<Vec<T>> decay(Vec<T> s, Vec<T> p, Vec<T> q) {
    Decay<Vec<T>> f;
    f.x = exp(-s * p);
    f.y = exp(-s * q);
    const auto slow_mem = p < q;
    const Vec<T> d = s * select<T>(slow_mem, q - p, p - q);
    const auto near = d < T(kNear);
    const Vec<T> lead = select<T>(slow_mem, f.x, f.y), apart = T(1) / (q - p);
    f.k = p * select<T>(near, s * lead * phi_series<T>(d), (f.x - f.y) * apart);
    return f;
}

template <class T>
inline TauSlope<Vec<T>> tau_slope(Vec<T> s, Vec<T> p, Vec<T> q) {
    const auto slow_mem = p < q;
    const Vec<T> d = s * select<T>(slow_mem, q - p, p - q);
    const Vec<T> e = exp(-d), x = exp(-s * p), y = exp(-s * q);
    const Vec<T> lead = s * select<T>(slow_mem, x, y), value = phi<T>(d, e), slope = phi_slope<T>(d, e);
    // G = K/p is symmetric in p and q; its derivatives in the slower and in the faster rate
    const Vec<T> by_slow = -s * lead * (value + slope), by_fast = s * lead * slope;
    const Vec<T> by_p = select<T>(slow_mem, by_slow, by_fast), by_q = select<T>(slow_mem, by_fast, by_slow);
    TauSlope<Vec<T>> f;
    f.x_tm = s * p * p * x;
    f.y_ts = s * q * q * y;
    f.k_tm = -p * p * (lead * value + p * by_p);
    f.k_ts = -q * q * p * by_q;
    return f;
}

// One neuron, in double: for the few lanes that need more than the factors of their vector.
struct Neuron {
    double tm, ts, p, q, bias, gap, rise;  // gap = threshold - bias, rise = reset - bias

    Neuron(double tau_mem, double tau_syn, double threshold, double reset, double rest)
        : tm(tau_mem), ts(tau_syn), p(1 / tau_mem), q(1 / tau_syn), bias(rest), gap(threshold - rest), rise(reset - rest) {}

    Decay<double> decay(double s) const {
        const double x = std::exp(-s * p), y = std::exp(-s * q);
        if (std::abs(tm - ts) > 1e-2 * tm) return {x, y, ts / (tm - ts) * (x - y)};
        const double d = s * std::abs(q - p);
        const double ratio = d < 1e-12 ? 1 : -std::expm1(-d) / d;
        return {x, y, s * p * (p < q ? x : y) * ratio};
    }

    // Time at which u = V - bias is largest after (u, i); 0 if it falls from the start, infinite if it rises for ever.
    double peak(double u, double i) const {
        if (i <= 0) return INFINITY;
        const double r = u / i, below = ts + r * (tm - ts);
        if (r >= 1) return 0;
        if (below <= 0) return INFINITY;
        if (tm == ts) return tm * ts * (1 - r) / below;
        return tm * ts / (tm - ts) * std::log1p((1 - r) * (tm - ts) / below);
    }

    // Seconds until u first reaches gap within a stretch of h seconds that would end in (u_end, i_end), or -1.
    // At a crossing i becomes the current there.
    double crossing(double u, double& i, double u_end, double i_end, double h, double close) const {
        if (i > 0) return i > u && may_cross(u, i, u_end, i_end, h) ? climb(u, i, h, close) : -1;
        return gap < 0 && u_end >= gap ? bisect(u, i, h) : -1;
    }

private:
    bool may_cross(double u, double i, double u_end, double i_end, double h) const {
        if (u_end >= gap) return true;
        if (i_end >= u_end) return false;  // still rising at the end: no peak inside
        const double top = std::min(peak(u, i), h);
        const Decay<double> at = decay(top);
        return u * at.x + i * at.k >= gap;
    }

    // i > 0: u is concave while it rises, so Newton's steps from any point of the rising branch land below the root and
    // climb to it without overshooting. The start is the root of the second-order expansion.
    double climb(double u, double& i, double h, double close) const {
        const double missing = gap - u, speed = (i - u) * p;
        if (missing <= 0) return 0;
        close *= std::abs(gap) + std::abs(u) + i;
        const double bend = (-i * q - speed) * p, square = speed * speed + 2 * bend * missing;
        double s = square > 0 ? std::min(2 * missing / (speed + std::sqrt(square)), h) : 0;
        for (int step = 0, beyond = 0; step < 100; ++step) {
            const Decay<double> f = decay(s);
            const double at = u * f.x + i * f.k, slope = (i * f.y - at) * p;
            if (slope <= 0) {
                if (at >= gap || beyond++) break;  // a root at the very peak
                s = 0;                             // only the guess can be beyond it: climb from the start instead
                continue;
            }
            s += (gap - at) / slope;
            if (std::abs(gap - at) <= close) break;
        }
        s = std::clamp(s, 0.0, h);
        i *= std::exp(-s * q);
        return s;
    }

    // i <= 0: only a neuron whose bias is above threshold gets here; u may dip first, then rises to the end.
    double bisect(double u, double& i, double h) const {
        double low = 0, high = h;
        for (int step = 0; step < 200 && high - low > 1e-16 * h; ++step) {
            const double middle = 0.5 * (low + high);
            if (middle <= low || middle >= high) break;
            const Decay<double> f = decay(middle);
            (u * f.x + i * f.k >= gap ? high : low) = middle;
        }
        i *= std::exp(-high * q);
        return high;
    }
};

// Voltage and current of a neuron as power series in time, exact to rounding over stretches up to kReach of a time constant.
template <class T>
class Series {
public:
    static constexpr double kReach = 0.31;
    static constexpr int kOrder = sizeof(T) == 4 ? 7 : 13;  // the next term is below kReach^(kOrder + 1) / (kOrder + 1)!

    // u'' and so on by the differential equations: the n-th coefficient is of_u[n] u + of_i[n] i
    Series(double p, double q) {
        of_u_[0] = 1, of_i_[0] = 0, fade_[0] = 1;
        for (int n = 1; n <= kOrder; ++n) {
            of_u_[n] = -p / n * of_u_[n - 1];
            of_i_[n] = p / n * (fade_[n - 1] - of_i_[n - 1]);
            fade_[n] = -q / n * fade_[n - 1];
        }
        for (int n = 0; n <= kOrder; ++n) x_[n] = T(of_u_[n]), y_[n] = T(fade_[n]), k_[n] = T(of_i_[n]);
    }

    // The factors over many stretches.
    Decay<Vec<T>> decay(Vec<T> s) const {
        Decay<Vec<T>> f{splat(x_[kOrder]), splat(y_[kOrder]), splat(k_[kOrder])};
#pragma GCC unroll 16
        for (int n = kOrder - 1; n >= 0; --n) f.x = f.x * s + x_[n], f.y = f.y * s + y_[n], f.k = f.k * s + k_[n];
        return f;
    }

    // The n-th coefficients of e^{-s/tm}, e^{-s/ts} and K(s).
    T x(int n) const { return x_[n]; }
    T y(int n) const { return y_[n]; }
    T k(int n) const { return k_[n]; }

    Decay<double> factors(double s) const { return {sum(of_u_, s), sum(fade_, s), sum(of_i_, s)}; }

    // Voltage s seconds after (u, i).
    double voltage(double u, double i, double s) const { return u * sum(of_u_, s) + i * sum(of_i_, s); }

    // Seconds until u first reaches gap within h seconds, or -1. At a crossing i becomes the current there. Where u rises it
    // is concave: Newton's steps from the left climb to the crossing without overshooting, and pass the end or the peak if
    // there is none.
    double crossing(double u, double& i, double h, double gap, double close) const {
        const double p = of_i_[1], missing = gap - u, speed = (i - u) * p;
        if (speed <= 0 || missing > speed * h) return -1;
        if (missing <= 0) return 0;
        double c[kOrder + 1];
        for (int n = 0; n <= kOrder; ++n) c[n] = of_u_[n] * u + of_i_[n] * i;
        close *= std::abs(gap) + std::abs(u) + std::abs(i);
        const double tangent = missing / speed, bend = c[2] / speed * tangent;
        double s = bend > -0.1 ? tangent * (1 - bend) : tangent;  // the second-order guess, where it is good
        for (int step = 0; step < 50; ++step) {
            const double at = sum(c, s), current = i * sum(fade_, s), slope = (current - at) * p;
            if (slope <= 0) return -1;
            const double ahead = (gap - at) / slope;
            s += ahead;
            if (s > h) return -1;
            if (std::abs(gap - at) > close) continue;
            i = current * (1 + fade_[1] * ahead);
            return std::max(s, 0.0);
        }
        return -1;
    }

private:
    // Even and odd powers apart: two short chains of operations instead of a long one.
    static double sum(const double (&c)[kOrder + 1], double s) {
        static_assert(kOrder % 2);
        const double square = s * s;
        double even = c[kOrder - 1], odd = c[kOrder];
#pragma GCC unroll 8
        for (int n = kOrder - 3; n >= 0; n -= 2) even = even * square + c[n], odd = odd * square + c[n + 1];
        return even + s * odd;
    }

    double of_u_[kOrder + 1], of_i_[kOrder + 1], fade_[kOrder + 1];
    T x_[kOrder + 1], y_[kOrder + 1], k_[kOrder + 1];  // the same in T
};

}  // namespace eventnet
