// Logical lanes: a fixed number of lanes, made of whatever vectors the CPU has.
//
// Lane k of kLanes<T> sees the same elements in the same order on every instruction set, and lanes are folded in one
// fixed order: hence the same bits.
#pragma once

#include <type_traits>

#include "compensated.hpp"
#include "vectors.hpp"

CE_BEGIN

template <class T>
constexpr int kLanes = 128 / int(sizeof(T));         // logical lanes: 32 of float, 16 of double
constexpr int kVectorsOfLanes = 128 / kVectorBytes;  // vectors that hold them

// How many float64 vectors hold a sum for each logical lane of T.
template <class T>
constexpr int kSums = kLanes<T> / kWidth<double>;

// The lanes of a vector combined into one, lane k with lane k + half: the same order for every vector width.
template <class V, class Combine>
CE_INLINE auto fold_lanes(V v, Combine combine) {
    using E = std::remove_reference_t<decltype(v[0])>;
    constexpr int width = int(sizeof(V) / sizeof(E));
    E lane[width];
    __builtin_memcpy(lane, &v, sizeof lane);
#pragma GCC unroll 16
    for (int half = width / 2; half > 0; half /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < half; ++i) lane[i] = combine(lane[i], lane[i + half]);
    return lane[0];
}

// Sums of n vectors of float64 lanes. Compensated, a sum carries its rounding errors along.
template <int n, bool compensated>
struct Sums {
    f64 sum[n] = {};
    f64 error[n] = {};

    CE_INLINE void add(int i, f64 x) {
        if constexpr (compensated) {
            const Exact<f64> next = two_sum(sum[i], x);
            sum[i] = next.value;
            error[i] += next.error;
        } else {
            sum[i] += x;
        }
    }
    CE_INLINE f64 total(int i) const {
        if constexpr (compensated) return with_error(sum[i], error[i]);
        return sum[i];
    }
    CE_INLINE double fold() const {
        f64 v[n];
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) v[i] = total(i);
#pragma GCC unroll 16
        for (int half = n / 2; half > 0; half /= 2)
#pragma GCC unroll 16
            for (int i = 0; i < half; ++i) v[i] += v[i + half];
        return fold_lanes(v[0], [](double a, double b) { return a + b; });
    }
};

// Adds four vectors, which are summed in their own type first, to the sums from the one at `first` on.
template <int n, bool compensated, class V>
CE_INLINE void add_four(Sums<n, compensated>& sums, int first, const V (&v)[4]) {
    constexpr int halves = kHalves<Element<V>>;
    f64 sum[halves];
    widen((v[0] + v[1]) + (v[2] + v[3]), sum);
#pragma GCC unroll 2
    for (int h = 0; h < halves; ++h) sums.add(first + h, sum[h]);
}

// 29 spare bits make a float64 sum of float32 terms exact enough; a sum of float64 terms needs its errors, so that a
// row of a million classes is as exact as one of ten.
template <class T>
constexpr bool kCompensated = std::is_same_v<T, double>;
template <class T>
using LaneSums = Sums<kSums<T>, kCompensated<T>>;

CE_END
