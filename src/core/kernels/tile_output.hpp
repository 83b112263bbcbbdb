// What the rows of a tile write: gradient, softmax or log-softmax, and the diagonal of the Hessian.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>

#include "../problem.hpp"
#include "arrays.hpp"
#include "lanes.hpp"
#include "loss.hpp"
#include "storage.hpp"
#include "tile_sums.hpp"

CE_BEGIN

// What the rows in one vector of T write into the matrix, from their exponentials.
template <bool dense, class SomeTile>
CE_INLINE void write_matrix(const Problem& p, SomeTile& tile, int lane) {
    using S = typename SomeTile::S;
    using T = typename SomeTile::T;
    using V = typename SomeTile::V;
    const V m = load<V>(tile.max + lane), at_target = load<V>(tile.written_at_target + lane);
    Integer<V> target;
    __builtin_memcpy(&target, tile.class_target + lane, sizeof target);
    target -= typename SomeTile::Index(tile.first);
    f64 exp_scale[kHalves<T>], target_scale[kHalves<T>], at_max[kHalves<T>], masked_value[kHalves<T>];
    f64 fits[kHalves<T>];  // 1 where T holds the scales
    bool all_fit = true;
#pragma GCC unroll 2
    for (int h = 0; h < kHalves<T>; ++h) {
        const int at = lane + h * kWidth<double>;
        exp_scale[h] = load<f64>(tile.exp_scale + at);
        target_scale[h] = load<f64>(tile.target_scale + at);
        at_max[h] = load<f64>(tile.gradient_at_max + at);
        masked_value[h] = load<f64>(tile.masked_value + at);
        const f64 largest = splat<f64>(double(std::numeric_limits<T>::max()));
        const auto beyond = (exp_scale[h] > largest) | (exp_scale[h] < -largest) | (target_scale[h] > largest) |
                            (target_scale[h] < -largest);
        fits[h] = select<f64>(beyond, f64{}, splat<f64>(1.0));
        all_fit &= none(beyond);
    }
    const V narrow_exp_scale = narrow(exp_scale), minus_target = -narrow(target_scale), masked = narrow(masked_value);
    const V narrow_at_max = narrow_for<S>(at_max), narrow_fits = narrow(fits);
    const auto in_own_type = [&](int c) {
        const V e = load<V>(tile.e[c] + lane);
        V g = e * narrow_exp_scale;
        if constexpr (dense) {
            const auto is_max = (load<V>(tile.u[c] + lane) == m) & (narrow_at_max == narrow_at_max);
            g = select<V>(is_max, narrow_at_max, fma(e, narrow_exp_scale, minus_target * load<V>(tile.b[c] + lane)));
        }
        g = select<V>(narrow_exp_scale == narrow_exp_scale, g, masked);
        if constexpr (!dense) g = select<V>(target == c, at_target, g);
        return g;
    };
    const auto in_double = [&](int c) {
        f64 g[kHalves<T>];
#pragma GCC unroll 2
        for (int h = 0; h < kHalves<T>; ++h) {
            const int at = lane + h * kWidth<double>;
            const f64 u = load_as<double>(tile.u[c] + at);
            const f64 row_m = load_as<double>(tile.max + at);
            if (p.output == Output::log_softmax) {
                g[h] = log_probability(u, row_m, load<f64>(tile.lse_minus_max + at));
            } else {
                g[h] = load_as<double>(tile.e[c] + at) * exp_scale[h];
                if constexpr (dense) {
                    g[h] -= target_scale[h] * load_as<double>(tile.b[c] + at);
                    g[h] = select<f64>((u == row_m) & (at_max[h] == at_max[h]), at_max[h], g[h]);
                }
                if (p.has_entropy()) g[h] += entropy_gradient(p, tile, at, u, load_as<double>(tile.e[c] + at));
                if constexpr (SomeTile::general) g[h] *= load<f64>(tile.slope[c] + at);
            }
            g[h] = select<f64>(exp_scale[h] == exp_scale[h], g[h], masked_value[h]);
        }
        V narrow_g = narrow_for<S>(g);
        if constexpr (!dense) narrow_g = select<V>(target == c, at_target, narrow_g);
        return narrow_g;
    };
    const bool scaled = !SomeTile::general && p.output != Output::log_softmax && !p.has_entropy();
    if (scaled && all_fit)
        for (int c = 0; c < tile.count; ++c) store_as(tile.matrix.at(c, lane), in_own_type(c));
    else
        for (int c = 0; c < tile.count; ++c)
            store_as(tile.matrix.at(c, lane),
                     scaled ? select<V>(narrow_fits == 1, in_own_type(c), in_double(c)) : in_double(c));
}

// What the rows in one vector of T write of the diagonal of the Hessian. To be called before `write_matrix`, which may
// overwrite logits.
template <bool dense, class SomeTile>
inline void write_diagonal(const Problem& p, SomeTile& tile, int lane) {
    using S = typename SomeTile::S;
    using T = typename SomeTile::T;
    for (int c = 0; c < tile.count; ++c) {
        f64 d[kHalves<T>];
        for (int h = 0; h < kHalves<T>; ++h) {
            const int at = lane + h * kWidth<double>;
            const f64 u = load_as<double>(tile.u[c] + at), e = load_as<double>(tile.e[c] + at);
            const f64 scale = load<f64>(tile.exp_scale + at),
                      complement_at_max = load<f64>(tile.complement_at_max + at);
            const f64 probability = e * load<f64>(tile.max_probability + at);
            const auto is_max = (u == load_as<double>(tile.max + at)) & (complement_at_max == complement_at_max);
            const f64 complement = select<f64>(is_max, complement_at_max, 1.0 - probability);
            d[h] = e * (scale * complement + load<f64>(tile.z_curvature + at) * probability);
            if constexpr (SomeTile::general) {
                const f64 target_scale = load<f64>(tile.target_scale + at), slope = load<f64>(tile.slope[c] + at);
                f64 g = e * scale;
                if constexpr (dense) g -= target_scale * load<f64>(tile.b[c] + at);
                g = select<f64>(is_max, load<f64>(tile.gradient_at_max + at), g) * slope;
                if constexpr (!dense)
                    g = select<f64>(load_integers(tile.target + at) == std::int64_t(tile.first) + c,
                                    load<f64>(tile.written_at_target + at), g);
                d[h] = d[h] * p.inverse_temperature * slope * slope + g * capped_curvature(p, u);
            }
            d[h] = select<f64>(scale == scale, d[h], load<f64>(tile.masked_value + at));
        }
        store_as(tile.diagonal.at(c, lane), narrow_for<S>(d));
    }
}

// The losses of many rows, added up lane by lane.
template <class T>
using TotalLoss = Sums<kSums<T>, true>;

template <bool dense, bool chunked, class SomeTile, class Place, class ReadCoefficients, class Finished, class Flush>
inline void compute_rows(const Problem& p, SomeTile& tile, TotalLoss<typename SomeTile::T>& total, const Place& place,
                         const ReadCoefficients& read_coefficients, const Finished& finished, const Flush& flush) {
    using T = typename SomeTile::T;
    constexpr int rows = SomeTile::kRows, width = kWidth<T>;
    const auto read = [&]() CE_INLINE_LAMBDA {
        place(tile);
        for (int lane = 0; lane < rows; lane += width) read_logits<chunked>(p, tile, lane);
        if constexpr (dense) read_coefficients(tile);
    };
    // visit() for all classes, as many at a time as the tile holds.
    const auto for_chunks = [&](const auto& visit) CE_INLINE_LAMBDA {
        if constexpr (!chunked) {
            visit();
        } else {
            for (tile.first = 0; tile.first < p.classes; tile.first += tile.capacity) {
                tile.count = int(std::min(tile.capacity, p.classes - tile.first));
                read();
                visit();
            }
        }
    };

    if (p.has_entropy()) std::fill(tile.exp_gap, tile.exp_gap + rows, 0.0);
    if constexpr (chunked)
        std::fill(tile.max, tile.max + rows, T(-kInf));
    else
        read();
    for_chunks([&]() CE_INLINE_LAMBDA {
        // One by one, and long before they are loaded as vectors: a vector must wait for the stores that it spans.
        if (p.has_single_targets())
            for (int i = 0; i < rows; ++i) read_target<chunked>(tile, i);
    });
    if constexpr (chunked) {
        RunningTileSums<T> sums[rows / width];
        for_chunks([&]() CE_INLINE_LAMBDA {
            for (int lane = 0; lane < rows; lane += width) {
                add_up<dense>(p, tile, lane, sums[lane / width]);
                if (p.has_entropy()) add_gaps(tile, lane);
            }
        });
        for (int lane = 0; lane < rows; lane += width) store_sums<dense>(p, tile, lane, sums[lane / width]);
    } else {
        for (int lane = 0; lane < rows; lane += width) {
            RunningTileSums<T> sums;
            add_up<dense>(p, tile, lane, sums);
            if (p.has_entropy()) add_gaps(tile, lane);
            store_sums<dense>(p, tile, lane, sums);
        }
    }
    if constexpr (dense)
        if (!weighted_gaps_fit(tile)) {
            std::fill(tile.weighted_gap_in_double, tile.weighted_gap_in_double + rows, 0.0);
            for_chunks([&]() CE_INLINE_LAMBDA { add_weighted_gap_in_double(tile); });
            replace_weighted_gaps(tile);
        }
#pragma GCC unroll 2
    for (int at = 0; at < rows; at += kWidth<double>) {
        const f64 value = finish_rows<dense>(p, tile, at);
        store(tile.row_value + at, value);
        total.add(at / kWidth<double>, value);
    }
    finished(tile);
    if (p.matrix == nullptr) return;
    for_chunks([&]() CE_INLINE_LAMBDA {
        for (int lane = 0; lane < rows; lane += width) {
            if constexpr (chunked) compute_exponentials(p, tile, lane);
            if (p.diagonal != nullptr) write_diagonal<dense>(p, tile, lane);
            write_matrix<dense>(p, tile, lane);
        }
        flush(tile);
    });
}

// Computes a tile whose targets have been read, and writes what its rows write. For the classes that the tile is to
// hold next, place(tile) sets where they lie and read_coefficients(tile) reads their b; flush(tile) is called when
// their output is written. finished(tile) is called once, when the values of the rows are known and nothing has been
// written. `chunked`: the tile may not hold all classes.
template <bool chunked, class SomeTile, class Place, class ReadCoefficients, class Finished, class Flush>
inline void compute_tile(const Problem& p, SomeTile& tile, TotalLoss<typename SomeTile::T>& total, const Place& place,
                         const ReadCoefficients& read_coefficients, const Finished& finished, const Flush& flush) {
    p.dense() ? compute_rows<true, chunked>(p, tile, total, place, read_coefficients, finished, flush)
              : compute_rows<false, chunked>(p, tile, total, place, read_coefficients, finished, flush);
}

// Writes the values of `count` rows from `first` on.
template <class SomeTile>
inline void write_values(const Problem& p, const Arrays<typename SomeTile::S>& arrays, const SomeTile& tile,
                         std::size_t first, int count) {
    if (arrays.row_values != nullptr) std::copy(tile.row_value, tile.row_value + count, arrays.row_values + first);
    if (arrays.entropies == nullptr && arrays.log_probabilities == nullptr) return;
    for (int i = 0; i < count; ++i) {
        const std::size_t row = first + std::size_t(i);
        if (tile.target[i] == SomeTile::kSkipped) {
            arrays.skip_row(p, row);
            continue;
        }
        const std::size_t offset = row / p.class_stride * p.classes * p.class_stride + row % p.class_stride;
        arrays.write_row(p, row, tile.entropy[i], double(tile.max[i]), tile.lse_minus_max[i], [&](std::size_t c) {
            return capped(p, splat<f64>(double(arrays.logits[offset + c * p.class_stride])))[0];
        });
    }
}

CE_END
