// A row of logits as a divergence looks at it several times: its classes in whole groups, its maximum, its
// exponentials; and the row of a gradient.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "../problem.hpp"
#include "block.hpp"
#include "block_sums.hpp"
#include "lanes.hpp"
#include "loss.hpp"
#include "storage.hpp"

CE_BEGIN

// visit(a null pointer to the type of the logits). Those in float64 are not computed in float32.
template <class T, class Visit>
CE_INLINE void with_storage(ElementType type, const Visit& visit) {
    if (type == ElementType::float64) {
        if constexpr (std::is_same_v<T, double>) visit(static_cast<double*>(nullptr));
    } else if (type == ElementType::float32) {
        visit(static_cast<float*>(nullptr));
    } else if (type == ElementType::float16) {
        visit(static_cast<float16*>(nullptr));
    } else {
        visit(static_cast<bfloat16*>(nullptr));
    }
}

// Logits of a row in T. After the last whole group come fewer, padded to a group with -inf.
template <class T>
struct RowView {
    const T *whole, *last;

    CE_INLINE const T* group(int i, int whole_groups) const {
        return i < whole_groups ? whole + i * std::ptrdiff_t(kGroup<T>) : last;
    }
};

template <class T>
struct GroupsOfRow {
    int whole, rest;  // whole groups, and the classes after them

    explicit GroupsOfRow(std::size_t classes)
        : whole(int(classes / std::size_t(kGroup<T>))), rest(int(classes % std::size_t(kGroup<T>))) {}
    int all() const { return rest ? whole + 1 : whole; }
    std::size_t padded() const { return std::size_t(all()) * std::size_t(kGroup<T>); }

    // visit(group, where its first class is, vector, its place in the group): the vectors that have classes, in the
    // order of the lanes. `add(vector)` after each four that are added up in T.
    template <class Four>
    CE_INLINE void for_fours(const Four& four) const {
        for (int g = 0; g < whole; ++g)
#pragma GCC unroll 8
            for (int vector = 0; vector < kVectorsOfLanes; ++vector) four(g, vector, kGroup<T>);
        if (rest)
            for (int vector = 0; vector < kVectorsOfLanes && vector * kWidth<T> < rest; ++vector)
                four(whole, vector, rest);
    }
};

// Reads a row: as it lies where it can be computed with so, else into `copy`, in T and capped.
template <class T>
inline RowView<T> read_row(const Problem& side, std::size_t row, const GroupsOfRow<T>& groups, T* copy, T* last) {
    RowView<T> view{copy, copy + groups.whole * std::ptrdiff_t(kGroup<T>)};
    with_storage<T>(side.type, [&](auto* type) {
        using S = std::remove_pointer_t<decltype(type)>;
        const S* const z = static_cast<const S*>(side.logits) + row * side.classes;
        if constexpr (std::is_same_v<S, T>)
            if (!(side.options.softcap < kInf)) {
                view = {z, last};
                if (groups.rest) pad(z + groups.whole * std::ptrdiff_t(kGroup<T>), groups.rest, kGroup<T>, last);
                return;
            }
        for (int g = 0; g < groups.all(); ++g) {
            const std::ptrdiff_t at = g * std::ptrdiff_t(kGroup<T>);
            alignas(64) S padded[kGroup<T>];
            const S* from = z + at;
            if (g == groups.whole) {
                pad(from, groups.rest, kGroup<T>, padded);
                from = padded;
            }
#pragma GCC unroll 4
            for (int i = 0; i < kGroup<T>; i += kWidth<T>) store(copy + at + i, capped(side, load_as<T>(from + i)));
        }
    });
    return view;
}

// The lanes from `count` on become 0.
template <class V>
inline V pad_with_zero(V v, int count) {
    Element<V> lane[sizeof(V) / sizeof(Element<V>)];
    store(lane, v);
    std::fill(lane + count, std::end(lane), Element<V>(0));
    return load<V>(lane);
}

struct Range {
    double max, least;
};
// The largest and the least of a row's logits. A NaN is left out.
template <class T>
inline Range range_of(const GroupsOfRow<T>& groups, const RowView<T>& z) {
    using V = Vector<T>;
    V max[4], minus_least[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) max[j] = minus_least[j] = splat<V>(-kInf);
    groups.for_fours([&](int g, int vector, int count) CE_INLINE_LAMBDA {
        const T* const u = z.group(g, groups.whole);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            const int at = j * kLanes<T> + vector * kWidth<T>;
            if (at >= count) break;
            const V logit = load<V>(u + at);
            max[j] = highest(logit, max[j]);
            // What pads the last classes is left out.
            minus_least[j] =
                highest(at + kWidth<T> <= count ? -logit : -pad_with_zero(logit, count - at), minus_least[j]);
        }
    });
#pragma GCC unroll 4
    for (int j = 1; j < 4; ++j) {
        max[0] = highest(max[j], max[0]);
        minus_least[0] = highest(minus_least[j], minus_least[0]);
    }
    const auto higher = [](T a, T b) { return a > b ? a : b; };
    return {double(fold_lanes(max[0], higher)), -double(fold_lanes(minus_least[0], higher))};
}

// Stores the exponentials of a row relative to its maximum, and returns the sum of all but one that attains it.
template <class T>
inline double store_exponentials(const Problem& side, const GroupsOfRow<T>& groups, const RowView<T>& z, double max,
                                 T* exponentials) {
    using V = Vector<T>;
    const auto factor = temperature_factor<std::is_same_v<T, double>, V>(side);
    const V m = splat<V>(max);
    LaneSums<T> sums;
    Integer<V> ties[kVectorsOfLanes] = {};
    groups.for_fours([&](int g, int vector, int count) CE_INLINE_LAMBDA {
        const T* const u = z.group(g, groups.whole);
        T* const out = exponentials + g * std::ptrdiff_t(kGroup<T>);
        V e[4] = {};
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            const int at = j * kLanes<T> + vector * kWidth<T>;
            if (at >= count) break;
            const V logit = load<V>(u + at);
            const auto at_max = logit == m;
            ties[vector] = count_lanes<V>(at_max, ties[vector]);
            e[j] = exp_below(logit, m, factor);
            store(out + at, e[j]);
            e[j] = select<V>(at_max, V{}, e[j]);
        }
        add_four(sums, vector * kHalves<T>, e);
    });
#pragma GCC unroll 8
    for (int vector = 1; vector < kVectorsOfLanes; ++vector) ties[0] += ties[vector];
    return sums.fold() + double(fold_lanes(ties[0], [](auto x, auto y) { return x + y; }) - 1);
}

// Writes a row of a gradient, `scale` times value(class of the first lane) and the slope of the soft cap.
template <class T, class Value>
inline void write_row(const Problem& side, std::size_t row, double scale, const Value& value) {
    using V = Vector<T>;
    const bool fits = std::is_same_v<T, double> || scale == 0.0 || (std::abs(scale) > 1e-30 && std::abs(scale) < 1e30);
    with_storage<T>(side.type, [&](auto* type) {
        using S = std::remove_pointer_t<decltype(type)>;
        const S* const z = static_cast<const S*>(side.logits) + row * side.classes;
        S* const out = static_cast<S*>(side.matrix) + row * side.classes;
        const V in_t = splat<V>(fits ? scale : 0.0);
        const auto scaled = [&](std::size_t c, [[maybe_unused]] const S* logits) CE_INLINE_LAMBDA {
            V v = value(c) * in_t;
            if constexpr (std::is_same_v<T, double>)
                if (side.options.softcap < kInf) v *= capped_slope(side, load_as<T>(logits));
            return v;
        };
        const auto write = [&](std::size_t c, const S* logits, S* to) CE_INLINE_LAMBDA {
            if (fits) {
                store_as(to, scaled(c, logits));
                return;
            }
            f64 wide[kHalves<T>];
            widen(value(c), wide);
#pragma GCC unroll 2
            for (int h = 0; h < kHalves<T>; ++h) wide[h] *= scale;
            store_as(to, narrow_for<S>(wide));
        };
        std::size_t c = 0;
        for (; c + std::size_t(kWidth<T>) <= side.classes; c += std::size_t(kWidth<T>)) write(c, z + c, out + c);
        if (c < side.classes) {
            S logits[kWidth<T>], last[kWidth<T>];
            std::fill(std::copy(z + c, z + side.classes, logits), std::end(logits), S(0.0));
            write(c, logits, last);
            std::copy(last, last + (side.classes - c), out + c);
        }
    });
}

inline void fill_row(const Problem& side, std::size_t row, double value) {
    if (side.matrix == nullptr) return;
    with_storage<double>(side.type, [&](auto* type) {
        using S = std::remove_pointer_t<decltype(type)>;
        S* const out = static_cast<S*>(side.matrix) + row * side.classes;
        std::fill(out, out + side.classes, S(value));
    });
}

CE_END
