// The sums of one block of a row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "../problem.hpp"
#include "block.hpp"
#include "exponential.hpp"
#include "loss.hpp"
#include "mode.hpp"
#include "partial_sums.hpp"
#include "storage.hpp"

CE_BEGIN

template <class T>
constexpr int kWriteAhead = 4 * kGroup<T>;  // how many elements ahead the output is fetched; measured

// Whether the differences between the logits of a group and a maximum are exact in T.
template <class S, class T>
struct Differences {
    explicit Differences(double) {}
    CE_INLINE bool exact(const S*) const { return false; }
};
// Half precision in float32: mostly they are, since float32 has 24 digits. They are not where a logit is so much
// smaller than the maximum that 24 digits do not reach from the one to the other. Nor are they where the maximum has
// digits below 2^-17, since the exponentials that count belong to differences up to 2^7.
template <int exponent_bits, int mantissa_bits>
struct Differences<Half<exponent_bits, mantissa_bits>, float> {
    using S = Half<exponent_bits, mantissa_bits>;
    std::uint16_t too_small;  // one less than the bits of the smallest logit, 0 apart, whose difference is exact

    explicit Differences(double max) {
        const double size = std::abs(max);
        const int exponent = (S(size).bits >> mantissa_bits) - (23 - mantissa_bits);
        too_small = std::uint16_t(std::max(std::max(exponent, 0) << mantissa_bits, 1) - 1);
        if (size != 0.0 && size < std::ldexp(1.0, mantissa_bits - 17)) too_small = 0xffff;
    }
    CE_INLINE bool exact(const S* group) const {
        u16 least = ~u16{};
#pragma GCC unroll 32
        for (int i = 0; i < kGroup<float>; i += kVectorBytes / int(sizeof(S))) {
            u16 bits;
            __builtin_memcpy(&bits, group + i, sizeof bits);
            least = lowest(least, (bits & 0x7fff) - 1);  // a zero is exact: it becomes the largest
        }
        return !any_below(least, too_small);
    }
};

// The maximum of whole groups of half precision and of a last one (may be null), NaN if there is one. By integers,
// twice as many at a time as in float32.
template <class S>
inline double half_max(const S* z, int groups, const S* last) {
    constexpr int vectors = kGroup<float> * int(sizeof(S)) / kVectorBytes;
    i16 max[vectors];
#pragma GCC unroll 32
    for (int i = 0; i < vectors; ++i) max[i] = i16{} + ordered(std::int16_t(S(-kInf).bits));
    const auto include = [&](const S* group) {
#pragma GCC unroll 32
        for (int i = 0; i < vectors; ++i) {
            i16 bits;
            __builtin_memcpy(&bits, group + i * kVectorBytes / int(sizeof(S)), sizeof bits);
            max[i] = highest(ordered(bits), max[i]);
        }
    };
    for (int g = 0; g < groups; ++g) include(z + g * kGroup<float>);
    if (last != nullptr) include(last);
#pragma GCC unroll 32
    for (int i = 1; i < vectors; ++i) max[0] = highest(max[i], max[0]);
    S result;
    result.bits = std::uint16_t(ordered(fold_lanes(max[0], [](auto a, auto b) { return a > b ? a : b; })));
    return double(result);
}

// The maximum of `ordered_logit` in a block; a NaN is left out, if it is not all there is.
template <Mode mode, class T, class S>
inline double block_max(const Problem& p, const S* z, int groups, const S* last) {
    if constexpr (kIsHalf<S> && mode != Mode::general) {
        const double max = half_max(z, groups, last);
        if (max == max) return max;
    }
    using V = Vector<T>;
    constexpr int vectors = 4 * kVectorsOfLanes;
    V max[vectors];
#pragma GCC unroll 32
    for (int i = 0; i < vectors; ++i) max[i] = splat<V>(-kInf);
    const auto include = [&](const S* group) {
#pragma GCC unroll 32
        for (int i = 0; i < vectors; ++i)
            max[i] = highest(ordered_logit<mode>(p, load_as<T>(group + i * kWidth<T>)), max[i]);
    };
    for (int g = 0; g < groups; ++g) include(z + g * kGroup<T>);
    if (last != nullptr) include(last);
#pragma GCC unroll 32
    for (int i = 1; i < vectors; ++i) max[0] = highest(max[i], max[0]);
    return double(fold_lanes(max[0], [](T a, T b) { return a > b ? a : b; }));
}

// The sums of a block as they grow; exp_sum is without any class that attains the maximum.
template <class T>
struct RunningBlockSums {
    LaneSums<T> exp_sum, gap_sum, b_below_max;       // gap_sum: of b_c (u_c - m)
    LaneSums<T> exp_gap;                             // of exp(u_c - m) (u_c - m)
    Integer<Vector<T>> below[kVectorsOfLanes] = {};  // how many classes are not the maximum
};

// `factor`: what exponents are made with.
template <Mode mode, Coefficients coefficients, bool keep, bool entropy, bool exact, class S, class T, class Factor>
CE_INLINE void add_group(const Problem& p, RunningBlockSums<T>& sums, const S* z, Vector<T> m, const Factor& factor,
                         const T* b, T* exponentials) {
    using V = Vector<T>;
#pragma GCC unroll 8
    for (int vector = 0; vector < kVectorsOfLanes; ++vector) {
        V e[4], gap[4], b_below[4], exp_gap[4];  // the gaps are weighted by b
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            const int at = j * kLanes<T> + vector * kWidth<T>;
            const V u = ordered_logit<mode>(p, load_as<T>(z + at));
            const auto is_below = u != m;
            sums.below[vector] = count_lanes<V>(is_below, sums.below[vector]);
            const Exponential<V> found = exponential<exact>(u, m, factor);
            if constexpr (keep) store(exponentials + at, found.kept);
            e[j] = select<V>(is_below, found.e, V{});
            if constexpr (entropy) exp_gap[j] = select<V>(e[j] != 0, e[j] * (u - m), V{});
            if constexpr (coefficients != Coefficients::single) {
                const V bj = load<V>(b + at);
                gap[j] = select<V>(bj != 0, bj * (u - m), V{});
                if constexpr (coefficients == Coefficients::dense) b_below[j] = select<V>(is_below, bj, V{});
            }
        }
        add_four(sums.exp_sum, vector * kHalves<T>, e);
        if constexpr (entropy) add_four(sums.exp_gap, vector * kHalves<T>, exp_gap);
        if constexpr (coefficients != Coefficients::single) add_four(sums.gap_sum, vector * kHalves<T>, gap);
        if constexpr (coefficients == Coefficients::dense) add_four(sums.b_below_max, vector * kHalves<T>, b_below);
    }
}

// The first of `count` logits that is equal to a value, or the last: another thread may be writing them.
template <class T, class S>
inline std::size_t class_equal_to(const S* z, T value, int count) {
    int c = 0;
    while (c + kWidth<T> <= count && none((i64)(load_as<T>(z + c) == splat<Vector<T>>(double(value))))) c += kWidth<T>;
    while (c + 1 < count && T(double(z[c])) != value) ++c;
    return std::size_t(c);
}

// Adds the coefficients of the classes that attain the maximum, as many as `ties`.
template <class S, class T>
inline void add_ties(const Problem& p, PartialSums& sums, const Block<T>& block, const S* z,
                     const BlockCoefficients<T>& b, int ties) {
    using V = Vector<T>;
    const int whole = block.count / kGroup<T> * kGroup<T>;
    for (int c = 0, found = 0; found < ties && c < block.count; c += kWidth<T>) {
        const int end = std::min(c + kWidth<T>, block.count);
        if (end == c + kWidth<T> && none((i64)(capped(p, load_as<T>(z + c)) == splat<V>(sums.max)))) continue;
        for (int i = c; i < end; ++i)
            if (capped(p, splat<f64>(double(z[i])))[0] == sums.max) {
                if (found++ == 0) sums.class_of_max = block.first + std::size_t(i);
                sums.b_at_max.add(double(i < whole ? b.whole[i] : b.last[i - whole]));
            }
    }
}

// Sum of b_c (m - u_c) in float64: needed where it overflows T or is NaN.
template <class S, class T>
inline double weighted_gap_in_double(const Problem& p, const Block<T>& block, const S* z, double max) {
    double sum = 0.0;
    for (int first = 0; first < block.count; first += kGroup<T>) {
        const int count = std::min(kGroup<T>, block.count - first);
        double b[kGroup<T>];
        target_coefficients(p, block.row, block.target, block.first + std::size_t(first), count, count, b);
        for (int i = 0; i < count; ++i) {
            const double u = capped(p, splat<f64>(double(z[first + i])))[0];
            if (b[i] != 0.0) sum += b[i] * (u == -kInf ? kInf : max - u);
        }
    }
    return sum;
}

// The sums of a block of logits z. If `keep`, the exponentials, relative to the block's maximum, are stored in e; what
// the row writes will be written at `out`, which is fetched meanwhile. `entropy`: with the sum that the entropy needs.
template <Mode mode, Coefficients coefficients, bool keep, bool entropy, class S, class T>
inline PartialSums block_sums(const Problem& p, const Block<T>& block, const S* z, T* e, const S* out) {
    using V = Vector<T>;
    BlockCoefficients<T> b;
    if constexpr (coefficients != Coefficients::single) b = block_coefficients<coefficients>(p, block);
    const int whole = block.count / kGroup<T>, remainder = block.count - whole * kGroup<T>;
    alignas(64) S last[kGroup<T>];  // the logits after the last whole group
    if (remainder) pad(z + whole * kGroup<T>, remainder, kGroup<T>, last);

    const double max = block_max<mode, T>(p, z, whole, remainder ? last : nullptr);
    // A block of nothing but -inf is taken relative to zero: it has no ties, and its exponentials are zero.
    const V m = splat<V>(max == -kInf ? 0.0 : max);
    const auto factor = exponent_factor<mode>(p, splat<V>(max));
    const Differences<S, T> differences(max);
    RunningBlockSums<T> sums;
    for (int g = 0; g < whole; ++g) {
        const int at = g * kGroup<T>;
#pragma GCC unroll 32
        for (int i = 0; i < kGroup<T>; i += 64 / int(sizeof(S))) {
            __builtin_prefetch(z + at + kBlock<T> + i);
            if constexpr (keep) __builtin_prefetch(out + at + kWriteAhead<T> + i, 1);
        }
        if (mode == Mode::plain && differences.exact(z + at))
            add_group<mode, coefficients, keep, entropy, true>(p, sums, z + at, m, factor, b.whole + at * b.step,
                                                               e + at);
        else
            add_group<mode, coefficients, keep, entropy, false>(p, sums, z + at, m, factor, b.whole + at * b.step,
                                                                e + at);
    }
    if (remainder) {
        alignas(64) T last_e[kGroup<T>];
        add_group<mode, coefficients, keep, entropy, false>(p, sums, last, m, factor, b.last, last_e);
        if constexpr (keep) std::copy(last_e, last_e + remainder, e + whole * kGroup<T>);
    }
#pragma GCC unroll 8
    for (int vector = 1; vector < kVectorsOfLanes; ++vector) sums.below[0] += sums.below[vector];
    const auto below = fold_lanes(sums.below[0], [](auto x, auto y) { return x + y; });
    const int ties = (remainder ? whole + 1 : whole) * kGroup<T> - int(below);

    PartialSums result;
    result.max = max;
    result.exp_sum_without_max = {sums.exp_sum.fold() + double(ties - 1)};
    result.unique = ties == 1;
    if constexpr (entropy) result.exp_gap = {-sums.exp_gap.fold()};
    if constexpr (coefficients == Coefficients::shared) {
        result.weighted_gap = {-sums.gap_sum.fold()};
        result.b_below_max = {p.shared.of_block[block.first / kBlock<T>]};
    } else if constexpr (coefficients == Coefficients::dense) {
        double weighted_gap = -sums.gap_sum.fold();
        add_ties(p, result, block, z, b, ties);
        if (!(weighted_gap - weighted_gap == 0.0)) weighted_gap = weighted_gap_in_double(p, block, z, max);
        result.weighted_gap = {weighted_gap};
        result.b_below_max = {sums.b_below_max.fold()};
    }
    return result;
}

CE_END
