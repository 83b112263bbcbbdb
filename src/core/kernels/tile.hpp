// A tile: rows side by side, one a lane, so that nothing is folded across lanes.
//
// A tile holds all classes of its rows, or, where there are very many, a chunk of them at a time. Then it is filled
// again for each look at them: for the maximum, for the sums, and for what is written.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <type_traits>

#include "../dispatch.hpp"
#include "../problem.hpp"
#include "../scratch.hpp"
#include "lanes.hpp"
#include "mode.hpp"
#include "vectors.hpp"

CE_BEGIN

// The coefficients b of a row: of one class (or none); of one, and a number that all classes share, as label smoothing
// gives them; or one for each class, in tile.b.
enum class TileCoefficients { single, shared, dense };

// Tiles of a chunk of the classes, and those of float64 for the sake of an option, do without `shared`.
template <bool general>
inline TileCoefficients coefficients_of(const Problem& p) {
    if (!p.dense()) return TileCoefficients::single;
    const bool shared = p.indices != nullptr && p.class_weight == nullptr;
    return shared && !general && p.classes <= kMostClasses ? TileCoefficients::shared : TileCoefficients::dense;
}
// Whether each row has a target of its own, whose gradient is written apart.
template <bool general>
inline bool has_targets_apart(const Problem& p) {
    return p.indices != nullptr && coefficients_of<general>(p) != TileCoefficients::dense;
}

// Classes x rows in memory: rows of a class next to each other, the classes `stride` apart.
template <class E>
struct TileView {
    E* data;
    std::size_t stride;
    CE_INLINE E* at(int c, int row) const { return data + std::size_t(c) * stride + row; }
};

// The scratch of a tile, classes x rows.
template <class T, bool general>
struct TileScratch {
    const std::size_t capacity;  // classes that the tile holds at most
    T (*const u)[kLanes<T>], (*const e)[kLanes<T>], (*const b)[kLanes<T>];
    double (*const slope)[kLanes<T>];

    TileScratch(const Problem& p, Scratch& scratch)
        : capacity(p.classes <= kMostClasses ? p.classes : kClassesOfChunk),
          u(scratch.take<T[kLanes<T>]>(capacity)),
          e(scratch.take<T[kLanes<T>]>(capacity)),
          b(scratch.take<T[kLanes<T>]>(coefficients_of<general>(p) == TileCoefficients::dense ? capacity : 0)),
          slope(scratch.take<double[kLanes<T>]>(general ? capacity : 0)) {}
};

// A tile of logits of storage S, computed in T. Its logits are read, and what it writes is written, as type E.
template <class S_, class T_, class E_, Mode mode_>
struct Tile {
    using S = S_;
    using T = T_;
    using E = E_;
    using V = Vector<T>;
    static constexpr Mode mode = mode_;
    static constexpr bool scaled = mode != Mode::plain, general = mode == Mode::general,
                          has_slopes = general || mode == Mode::capped;
    static constexpr int kRows = kLanes<T>;
    static constexpr std::int64_t kSkipped = -1;  // the target of a row that does not count

    // The classes that the tile holds now, and at most.
    std::size_t first = 0;
    int count;
    const std::size_t capacity;

    // Where their logits are read, and where the matrix (perhaps the same memory) and the diagonal are written.
    TileView<const E> logits;
    TileView<E> matrix, diagonal;
    TileView<const S> next_logits, next_matrix;  // what the next tile will touch, fetched meanwhile

    T (*const u)[kRows], (*const e)[kRows];  // as `ordered_logit`, and what is kept of exp(u - m)
    T (*const b)[kRows];                     // coefficients, if the targets are dense
    double (*const slope)[kRows];            // du/dz, if general

    // From here on one number a row.
    alignas(64) std::int64_t target[kRows];
    alignas(64) std::int64_t some_class[kRows];  // the target, or class 0 in a row that does not count
    alignas(64) double weight[kRows], sample_weight[kRows], gradient_scale[kRows], entropy_grad[kRows];
    // Sums over the classes, as in RowSums; `ties` classes attain the maximum.
    alignas(64) T max[kRows], ties[kRows];
    alignas(64) double exp_sum[kRows];  // without one class that attains the maximum, when all are added up
    // The sum of b_c (m - u_c); without b_c where all classes share a coefficient.
    alignas(64) double weighted_gap[kRows], weighted_gap_in_double[kRows];
    alignas(64) double b_below_max[kRows], b_at_max[kRows];  // if dense
    alignas(64) double exp_gap[kRows];
    alignas(64) double row_value[kRows], max_probability[kRows], lse_minus_max[kRows], entropy[kRows];
    // The gradient is exp_scale * e - target_term * b, or gradient_at_max at a unique maximum (NaN where it is not
    // unique); without b where all classes share a coefficient. Where exp_scale is NaN the whole row is masked_value.
    alignas(64) double exp_scale[kRows], target_term[kRows], gradient_at_max[kRows], masked_value[kRows];
    alignas(64) double entropy_scale[kRows], mean_gap[kRows];  // as in RowResult
    // For the diagonal of the Hessian: as in RowResult, and 1 - p at a unique maximum (else NaN).
    alignas(64) double z_curvature[kRows], complement_at_max[kRows];
    // Of a target apart: its u, exponential, du/dz if general, and what is written there.
    alignas(64) T u_target[kRows], e_target[kRows];
    alignas(64) double slope_target[general ? kRows : 1];
    alignas(64) double gradient_at_target[has_slopes ? kRows : 1];
    alignas(64) S written_at_target[kRows];

    Tile(const Problem& p, const TileScratch<T, general>& scratch)
        : count(int(scratch.capacity)),
          capacity(scratch.capacity),
          u(scratch.u),
          e(scratch.e),
          b(scratch.b),
          slope(scratch.slope) {
        std::fill(weight, weight + kRows, 1.0);
        std::fill(sample_weight, sample_weight + kRows, 1.0);
        std::fill(gradient_scale, gradient_scale + kRows, p.gradient_scale);
        std::fill(entropy_grad, entropy_grad + kRows, 0.0);
        std::fill(exp_gap, exp_gap + kRows, 0.0);
        std::fill(entropy_scale, entropy_scale + kRows, 0.0);
        std::fill(u_target, u_target + kRows, T(0));
        std::fill(slope_target, std::end(slope_target), 1.0);
        std::fill(some_class, some_class + kRows, 0);
    }
};

CE_INLINE i64 load_integers(const std::int64_t* lanes) {
    i64 v;
    __builtin_memcpy(&v, lanes, sizeof v);
    return v;
}

template <int rows>
inline void note_bad_row(const Problem& p, const std::int64_t (&indices)[rows], std::size_t first, int count,
                         Outcome& outcome) {
    for (int i = count - 1; i >= 0; --i)
        if (p.options.ignore_index != indices[i] && std::uint64_t(indices[i]) >= p.classes)
            outcome.bad_row = std::min(outcome.bad_row, first + std::size_t(i));
}

// Targets and weights of `count` rows from `first` on.
template <class SomeTile>
inline void read_targets(const Problem& p, SomeTile& tile, std::size_t first, int count, Outcome& outcome) {
    constexpr int rows = SomeTile::kRows;
    constexpr std::int64_t skipped = SomeTile::kSkipped;
    std::fill(tile.target, tile.target + count, 0);
    std::fill(tile.target + count, tile.target + rows, skipped);
    if (p.indices != nullptr) {
        alignas(64) std::int64_t indices[rows];  // read once: another thread may be writing them
        std::memcpy(indices, p.indices + first, std::size_t(count) * sizeof *indices);
        std::fill(indices + count, indices + rows, skipped);
        const i64 may_ignore = i64{} - p.options.ignore_index.has_value();
        i64 bad{};
        for (int i = 0; i < rows; i += kWidth<double>) {
            const i64 target = load_integers(indices + i), outside = (target < 0) | (target >= std::int64_t(p.classes));
            const i64 ignored = (target == p.options.ignore_index.value_or(0)) & may_ignore;
            const i64 kept = outside | ignored ? i64{} + skipped : target;
            const i64 some_class = kept & ~(kept < 0);
            __builtin_memcpy(tile.target + i, &kept, sizeof kept);
            __builtin_memcpy(tile.some_class + i, &some_class, sizeof some_class);
            bad |= outside & ~ignored;
        }
        if (!none(bad)) note_bad_row(p, indices, first, count, outcome);
    }
    if (p.sample_weight != nullptr)
        for (int i = 0; i < count; ++i) {
            if (tile.target[i] == skipped) continue;
            tile.sample_weight[i] = p.sample_weight[first + std::size_t(i)];
            if (tile.sample_weight[i] == 0.0) tile.target[i] = skipped;
        }
    if (p.entropy_grad_output != nullptr)
        std::copy(p.entropy_grad_output + first, p.entropy_grad_output + first + count, tile.entropy_grad);
    if (p.class_weight != nullptr && p.indices != nullptr)
        for (int i = 0; i < rows; ++i) tile.weight[i] = p.class_weight[tile.some_class[i]];
    if (p.sample_weight != nullptr || p.grad_output != nullptr)
        for (int i = 0; i < count; ++i)
            tile.gradient_scale[i] = p.gradient_scale * tile.sample_weight[i] *
                                     (p.grad_output != nullptr ? p.grad_output[first + std::size_t(i)] : 1.0);
}

CE_END
