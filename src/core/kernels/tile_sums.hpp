// The sums over the classes of a tile's rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "../problem.hpp"
#include "exponential.hpp"
#include "lanes.hpp"
#include "loss.hpp"
#include "storage.hpp"
#include "tile.hpp"

CE_BEGIN

// Sums over the classes, of the rows in one vector of T, as they grow.
template <class T>
struct RunningTileSums {
    Sums<kHalves<T>, kCompensated<T>> exp_sum, weighted_gap, b_below_max, b_at_max;
    Integer<Vector<T>> count_below{};
};

// u of all rows, and the maximum so far. A class at a time: its rows lie next to each other in memory.
template <bool chunked, class SomeTile>
CE_INLINE void read_logits(const Problem& p, SomeTile& tile) {
    using T = typename SomeTile::T;
    using V = typename SomeTile::V;
    constexpr int vectors = SomeTile::kRows / kWidth<T>;
    V m[vectors];
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) m[i] = chunked ? load<V>(tile.max + i * kWidth<T>) : splat<V>(-kInf);
    const typename SomeTile::E* logits = tile.logits.at(0, 0);
    T* to = tile.u[0];
    for (int c = 0; c < tile.count; ++c, logits += tile.logits.stride, to += SomeTile::kRows) {
#pragma GCC unroll 8
        for (int i = 0; i < vectors; ++i) {
            const V z = load_as<T>(logits + i * kWidth<T>), u = ordered_logit<SomeTile::mode>(p, z);
            if constexpr (SomeTile::general) store(tile.slope[c] + i * kWidth<T>, capped_slope(p, z));
            store(to + i * kWidth<T>, u);
            m[i] = highest(u, m[i]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) store(tile.max + i * kWidth<T>, m[i]);
}

// The exponentials of the rows in one vector of T: of a chunk, where `add_up` has left those of another.
template <class SomeTile>
inline void compute_exponentials(const Problem& p, SomeTile& tile, int lane) {
    using V = typename SomeTile::V;
    const V m = load<V>(tile.max + lane);
    const auto factor = exponent_factor<SomeTile::mode>(p, m);
    for (int c = 0; c < tile.count; ++c)
        store(tile.e[c] + lane, exponential(load<V>(tile.u[c] + lane), m, factor).kept);
}

// u and du/dz of the rows' targets that the tile holds.
template <bool chunked, class SomeTile>
CE_INLINE void read_targets_apart(SomeTile& tile) {
#pragma GCC unroll 32
    for (int row = 0; row < SomeTile::kRows; ++row) {
        const std::size_t c = std::size_t(tile.some_class[row]) - (chunked ? tile.first : 0);
        if (chunked && c >= std::size_t(tile.count)) continue;
        tile.u_target[row] = tile.u[c][row];
        if constexpr (SomeTile::general) tile.slope_target[row] = tile.slope[c][row];
    }
}

// Fetches what the next tile will touch. Each look at one vector of rows fetches its share of the cache lines.
template <class SomeTile>
class Ahead {
    using S = typename SomeTile::S;
    static constexpr int kInLine = 64 / int(sizeof(S)), kPasses = SomeTile::kRows / kWidth<typename SomeTile::T>;
    static constexpr int kLines = std::max(SomeTile::kRows / kInLine, 1), kShare = std::max(2 * kLines / kPasses, 1);
    const S* next[kShare];
    std::size_t stride[kShare];

 public:
    CE_INLINE Ahead(const SomeTile& tile, int lane) {
#pragma GCC unroll 8
        for (int i = 0; i < kShare; ++i) {
            const int line = (lane / kWidth<typename SomeTile::T> * kShare + i) % (2 * kLines);
            const TileView<const S>& view = line % 2 == 0 ? tile.next_logits : tile.next_matrix;
            next[i] = view.at(0, line / 2 * kInLine);
            stride[i] = view.stride;
        }
    }
    CE_INLINE void fetch_a_class() {
#pragma GCC unroll 8
        for (int i = 0; i < kShare; ++i) {
            __builtin_prefetch(next[i]);
            next[i] += stride[i];
        }
    }
};

// Adds the classes of the tile to the sums of the rows in one vector of T. Their exponentials are stored in tile.e.
template <TileCoefficients kind, class SomeTile>
CE_INLINE void add_up(const Problem& p, const SomeTile& tile, int lane,
                      RunningTileSums<typename SomeTile::T>& running) {
    using T = typename SomeTile::T;
    using V = typename SomeTile::V;
    constexpr bool dense = kind == TileCoefficients::dense, gaps = kind != TileCoefficients::single;
    const V m = load<V>(tile.max + lane);
    RunningTileSums<T> sums = running;
    const auto factor = exponent_factor<SomeTile::mode>(p, m);
    Ahead<SomeTile> ahead(tile, lane);
    // Where the next four classes lie: a store might change what the tile holds, which would be read again each time.
    const T *logits = tile.u[0] + lane, *coefficients = dense ? tile.b[0] + lane : nullptr;
    T* exponentials = tile.e[0] + lane;
    const auto add = [&](int count) CE_INLINE_LAMBDA {
        V e[4] = {}, gap[4] = {}, b_below[4] = {}, b_at[4] = {};  // dense: the gaps are weighted by b
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            if (j >= count) break;
            const int at = j * SomeTile::kRows;
            const V u = load<V>(logits + at);
            ahead.fetch_a_class();
            const auto is_below = u != m;
            sums.count_below = count_lanes<V>(is_below, sums.count_below);
            const Exponential<V> found = exponential(u, m, factor);
            store(exponentials + at, found.kept);
            e[j] = select<V>(is_below, found.e, V{});
            if constexpr (gaps) gap[j] = m - u;
            if constexpr (dense) {
                const V b = load<V>(coefficients + at);
                gap[j] = select<V>(b != 0, b * gap[j], V{});
                b_below[j] = select<V>(is_below, b, V{});
                b_at[j] = b - b_below[j];
            }
        }
        logits += 4 * SomeTile::kRows;
        exponentials += 4 * SomeTile::kRows;
        if constexpr (dense) coefficients += 4 * SomeTile::kRows;
        add_four(sums.exp_sum, 0, e);
        if constexpr (gaps) add_four(sums.weighted_gap, 0, gap);
        if constexpr (dense) {
            add_four(sums.b_below_max, 0, b_below);
            add_four(sums.b_at_max, 0, b_at);
        }
    };
    const int count = tile.count;
    for (int c = 4; c <= count; c += 4) add(4);
    if (count % 4 != 0) add(count % 4);
    running = sums;
}

// Adds what the entropy needs of the classes that `add_up` has just looked at, of the rows in one vector of T.
template <class SomeTile>
inline void add_gaps(SomeTile& tile, int lane) {
    using T = typename SomeTile::T;
    using V = typename SomeTile::V;
    Sums<kHalves<T>, kCompensated<T>> sums;
    const V m = load<V>(tile.max + lane);
    for (int c = 0; c < tile.count; c += 4) {
        V gap[4] = {};
        for (int j = 0; j < std::min(4, tile.count - c); ++j) {
            const V e = load<V>(tile.e[c + j] + lane);
            gap[j] = select<V>(e != 0, e * (m - load<V>(tile.u[c + j] + lane)), V{});
        }
        add_four(sums, 0, gap);
    }
    for (int h = 0; h < kHalves<T>; ++h) {
        const int at = lane + h * kWidth<double>;
        store(tile.exp_gap + at, load<f64>(tile.exp_gap + at) + sums.total(h));
    }
}

// Stores the sums over all classes, of the rows in one vector of T.
template <TileCoefficients kind, class SomeTile>
CE_INLINE void store_sums(const Problem& p, SomeTile& tile, int lane,
                          const RunningTileSums<typename SomeTile::T>& sums) {
    using T = typename SomeTile::T;
    using V = typename SomeTile::V;
    const V m = load<V>(tile.max + lane);
    const V ties = __builtin_convertvector(int(p.classes) - sums.count_below, V);
    f64 wide_ties[kHalves<T>];
    widen(ties, wide_ties);
    store(tile.ties + lane, ties);
    if constexpr (kind != TileCoefficients::dense && SomeTile::mode != Mode::capped)
        store(tile.e_target + lane,
              exponential(load<V>(tile.u_target + lane), m, exponent_factor<SomeTile::mode>(p, m)).e);
#pragma GCC unroll 2
    for (int h = 0; h < kHalves<T>; ++h) {
        const int at = lane + h * kWidth<double>;
        store(tile.exp_sum + at, sums.exp_sum.total(h) + (wide_ties[h] - 1.0));
        if constexpr (kind != TileCoefficients::single) store(tile.weighted_gap + at, sums.weighted_gap.total(h));
        if constexpr (kind == TileCoefficients::dense) {
            store(tile.b_below_max + at, sums.b_below_max.total(h));
            store(tile.b_at_max + at, sums.b_at_max.total(h));
        }
    }
}

// Rows whose sum of b_c (m - u_c) overflows T or is NaN have it computed in float64. No algorithm of the standard
// library looks for them: compiled for any CPU, it would wait for the upper halves of the vectors in use.
template <class SomeTile>
CE_INLINE bool weighted_gaps_fit(const SomeTile& tile) {
    i64 beyond{};
    for (int at = 0; at < SomeTile::kRows; at += kWidth<double>) {
        const f64 gap = load<f64>(tile.weighted_gap + at);
        beyond |= gap - gap != 0;
    }
    return none(beyond);
}
template <TileCoefficients kind, class SomeTile>
inline void add_weighted_gap_in_double(SomeTile& tile) {
    for (int c = 0; c < tile.count; ++c)
        for (int i = 0; i < SomeTile::kRows; ++i) {
            const double b = kind == TileCoefficients::dense ? double(tile.b[c][i]) : 1.0;
            if (b != 0.0) tile.weighted_gap_in_double[i] += b * (double(tile.max[i]) - double(tile.u[c][i]));
        }
}
template <class SomeTile>
inline void replace_weighted_gaps(SomeTile& tile) {
    for (int i = 0; i < SomeTile::kRows; ++i)
        if (!(tile.weighted_gap[i] - tile.weighted_gap[i] == 0.0))
            tile.weighted_gap[i] = tile.weighted_gap_in_double[i];
}

CE_END
