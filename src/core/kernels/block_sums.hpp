// One block of a row: its sums.
//
// A block is looked at twice while it is in the nearest cache: for its maximum, then for its sums.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "../problem.hpp"
#include "lanes.hpp"
#include "loss.hpp"
#include "partial_sums.hpp"
#include "storage.hpp"
#include "targets.hpp"

CE_BEGIN

template <class T>
constexpr int kGroup = 4 * kLanes<T>;  // summed in T before it joins a float64 sum
template <class T>
constexpr int kWriteAhead = 4 * kGroup<T>;  // elements; measured
template <class T>
constexpr int kBlock = 16384 / int(sizeof(T));

// The coefficients b of the classes of a block: of its whole groups, and of a last one that is not whole, padded.
template <class T>
struct BlockTargets {
    const T *whole = nullptr, *last = nullptr;
};

// Whether the differences between the logits of a group and a maximum are exact in T.
template <class S, class T>
struct Differences {
    explicit Differences(double) {}
    CE_INLINE bool exact(const S*) const { return false; }
};
// Those of half precision mostly are in float32, which has 24 digits. They need more where a logit is much smaller than
// the maximum, by `small`; and everywhere where the maximum has digits below 2^-17, since those that count reach 2^7.
template <int exponent_bits, int mantissa_bits>
struct Differences<Half<exponent_bits, mantissa_bits>, float> {
    using S = Half<exponent_bits, mantissa_bits>;
    std::uint16_t small;  // the bits of a number below the maximum by 24 digits less those of S, less 1

    explicit Differences(double maximum) {
        const double size = std::abs(maximum);
        const int exponent = (S(size).bits >> mantissa_bits) - (23 - mantissa_bits);
        small = std::uint16_t(std::max(std::max(exponent, 0) << mantissa_bits, 1) - 1);
        if (size != 0.0 && size < std::ldexp(1.0, mantissa_bits - 17)) small = 0xffff;
    }
    CE_INLINE bool exact(const S* group) const {
        u16 least = ~u16{};
#pragma GCC unroll 32
        for (int i = 0; i < kGroup<float>; i += kVectorBytes / int(sizeof(S))) {
            u16 bits;
            __builtin_memcpy(&bits, group + i, sizeof bits);
            least = lowest(least, (bits & 0x7fff) - 1);  // a zero is exact: it becomes the largest
        }
        return !any_below(least, small);
    }
};

template <class S, class T, bool transformed>
class BlockSums {
 protected:
    using V = Vector<T>;

    const Problem& p;

    explicit BlockSums(const Problem& problem) : p(problem) {}

    // A row and a block of it: `count` classes from `first` on.
    struct Block {
        std::size_t row;
        std::int64_t target;
        std::size_t first;
        int count;
        T* made;  // where its coefficients are made: kBlock<T> of them
    };

    // Where the targets are the coefficients themselves they are read where they lie; else they are made in `made`.
    BlockTargets<T> coefficients(const Block& block) const {
        T* const made = block.made;
        const int whole = block.count / kGroup<T> * kGroup<T>, rest = block.count - whole;
        constexpr ElementType own = std::is_same_v<T, float> ? ElementType::float32 : ElementType::float64;
        if (p.probabilities == nullptr || p.sparse_indices != nullptr || p.probabilities_type != own ||
            p.options.label_smoothing > 0.0 || p.class_weight != nullptr) {
            target_coefficients(p, block.row, block.target, block.first, block.count, whole + (rest ? kGroup<T> : 0),
                                made);
            return {made, made + whole};
        }
        const T* const given = static_cast<const T*>(p.probabilities) + block.row * p.classes + block.first;
        std::fill(std::copy(given + whole, given + block.count, made), made + kGroup<T>, T(0));
        return {given, made};
    }

    // The sums of a block of logits z. If `keep`, their exponentials, relative to the block's maximum, go to e; the
    // matrix will be written at `out`.
    template <bool dense, bool keep>
    PartSums block_sums(const Block& block, const S* z, T* e, const S* out) const {
        BlockTargets<T> b;
        if constexpr (dense) b = coefficients(block);
        const int whole = block.count / kGroup<T>, rest = block.count - whole * kGroup<T>;
        alignas(64) S last[kGroup<T>];  // the elements after the last whole group
        if (rest) pad(z + whole * kGroup<T>, rest, kGroup<T>, last);

        const double highest = block_maximum(z, whole, rest ? last : nullptr);
        // Relative to zero, a block of nothing but -inf has no ties and no mass.
        const V m = splat<V>(highest == -kInf ? 0.0 : highest);
        const Differences<S, T> differences(highest);
        Accumulated sums;
        for (int g = 0; g < whole; ++g) {
            const int at = g * kGroup<T>;
#pragma GCC unroll 32
            for (int i = 0; i < kGroup<T>; i += 64 / int(sizeof(S))) {
                __builtin_prefetch(z + at + kBlock<T> + i);
                if constexpr (keep) __builtin_prefetch(out + at + kWriteAhead<T> + i, 1);
            }
            if (differences.exact(z + at))
                add_group<dense, keep, true>(sums, z + at, m, b.whole + at, e + at);
            else
                add_group<dense, keep, false>(sums, z + at, m, b.whole + at, e + at);
        }
        if (rest) {
            alignas(64) T last_e[kGroup<T>];
            add_group<dense, keep, false>(sums, last, m, b.last, last_e);
            if constexpr (keep) std::copy(last_e, last_e + rest, e + whole * kGroup<T>);
        }
#pragma GCC unroll 8
        for (int part = 1; part < kParts; ++part) {
            sums.below[0] += sums.below[part];
            sums.b_signs[0] |= sums.b_signs[part];
        }
        const auto below = fold_lanes(sums.below[0], [](auto x, auto y) { return x + y; });
        const int count_highest = (rest ? whole + 1 : whole) * kGroup<T> - int(below);

        PartSums result;
        result.highest = highest;
        result.rest = {sums.rest.fold() + double(count_highest - 1)};
        result.unique = count_highest == 1;
        if constexpr (dense) {
            double spread = -sums.spread.fold(), b_rest = sums.b_rest.fold();
            add_highest(result, block, z, b, count_highest);
            using Integers = Integer<V>;
            const bool sign = fold_lanes((Integers)sums.b_signs[0], [](auto x, auto y) { return x | y; }) < 0;
            if (sign || !(spread < kInf)) {
                spread = wide_spread(block, z, highest);
                if (spread != spread) b_rest = kNaN;
            }
            result.spread = {spread};
            result.b_rest = {b_rest};
        }
        return result;
    }

 private:
    struct Accumulated {
        LaneSums<T> rest, spread, b_rest;
        Integer<V> below[kParts] = {};  // how many are not the maximum
        Bits<V> b_signs[kParts] = {};   // of all coefficients together
    };

    double block_maximum(const S* z, int whole, const S* last) const {
        if constexpr (kIsHalf<S> && !transformed) {
            const double highest = half_maximum(z, whole, last);
            if (highest == highest) return highest;
        }
        V high[4 * kParts];
#pragma GCC unroll 32
        for (int i = 0; i < 4 * kParts; ++i) high[i] = splat<V>(-kInf);
        const auto look = [&](const S* group) {
#pragma GCC unroll 32
            for (int i = 0; i < 4 * kParts; ++i)
                high[i] = highest(capped(p, load_as<T>(group + i * kWidth<T>)), high[i]);
        };
        for (int g = 0; g < whole; ++g) look(z + g * kGroup<T>);
        if (last != nullptr) look(last);
#pragma GCC unroll 32
        for (int i = 1; i < 4 * kParts; ++i) high[0] = highest(high[i], high[0]);
        return double(fold_lanes(high[0], [](T a, T b) { return a > b ? a : b; }));
    }

    // By integers, twice as many at a time; NaN if there is one.
    double half_maximum(const S* z, int whole, const S* last) const {
        constexpr int vectors = kGroup<T> * int(sizeof(S)) / kVectorBytes;
        i16 high[vectors];
#pragma GCC unroll 32
        for (int i = 0; i < vectors; ++i) high[i] = i16{} + ordered(std::int16_t(S(-kInf).bits));
        const auto look = [&](const S* group) {
#pragma GCC unroll 32
            for (int i = 0; i < vectors; ++i) {
                i16 bits;
                __builtin_memcpy(&bits, group + i * kVectorBytes / int(sizeof(S)), sizeof bits);
                high[i] = highest(ordered(bits), high[i]);
            }
        };
        for (int g = 0; g < whole; ++g) look(z + g * kGroup<T>);
        if (last != nullptr) look(last);
#pragma GCC unroll 32
        for (int i = 1; i < vectors; ++i) high[0] = highest(high[i], high[0]);
        S result;
        result.bits = std::uint16_t(ordered(fold_lanes(high[0], [](auto a, auto b) { return a > b ? a : b; })));
        return double(result);
    }

    template <bool dense, bool keep, bool exact>
    CE_INLINE void add_group(Accumulated& sums, const S* z, V m, const T* b, T* exponentials) const {
#pragma GCC unroll 8
        for (int part = 0; part < kParts; ++part) {
            V e[4], spread[4], below[4];  // the last two weighed by b
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                const int at = j * kLanes<T> + part * kWidth<T>;
                const V u = capped(p, load_as<T>(z + at));
                const auto is_below = u != m;
                sums.below[part] = count_lanes<V>(is_below, sums.below[part]);
                e[j] = exp_below<transformed, exact>(p, u, m);
                if constexpr (keep) store(exponentials + at, e[j]);
                e[j] = select<V>(is_below, e[j], V{});
                if constexpr (dense) {
                    const V bj = load<V>(b + at);
                    sums.b_signs[part] |= (Bits<V>)bj;
                    spread[j] = select<V>(bj != 0, bj * (u - m), V{});
                    below[j] = select<V>(is_below, bj, V{});
                }
            }
            add_four(sums.rest, part * kHalves<T>, e);
            if constexpr (dense) {
                add_four(sums.spread, part * kHalves<T>, spread);
                add_four(sums.b_rest, part * kHalves<T>, below);
            }
        }
    }

    // What the classes that attain the maximum, as many as `ties`, add to the sums.
    void add_highest(PartSums& sums, const Block& block, const S* z, const BlockTargets<T>& b, int ties) const {
        const int whole = block.count / kGroup<T> * kGroup<T>;
        for (int c = 0, found = 0; found < ties && c < block.count; c += kWidth<T>) {
            const int end = std::min(c + kWidth<T>, block.count);
            if (end == c + kWidth<T> && none((i64)(capped(p, load_as<T>(z + c)) == splat<V>(sums.highest)))) continue;
            for (int i = c; i < end; ++i)
                if (capped(p, splat<f64>(double(z[i])))[0] == sums.highest) {
                    if (found++ == 0) sums.class_highest = block.first + std::size_t(i);
                    sums.b_highest.add(double(i < whole ? b.whole[i] : b.last[i - whole]));
                }
        }
    }

    // Sum of b_c (m - u_c) in float64, where it overflows T or has a term that is no number or a negative coefficient.
    double wide_spread(const Block& block, const S* z, double highest) const {
        double sum = 0.0;
        for (int first = 0; first < block.count; first += kGroup<T>) {
            const int count = std::min(kGroup<T>, block.count - first);
            double b[kGroup<T>];
            target_coefficients(p, block.row, block.target, block.first + std::size_t(first), count, count, b);
            for (int i = 0; i < count; ++i) {
                const double u = capped(p, splat<f64>(double(z[first + i])))[0];
                if (b[i] != 0.0) sum += b[i] * (u == -kInf ? kInf : highest - u);
            }
        }
        return sum;
    }
};

CE_END
