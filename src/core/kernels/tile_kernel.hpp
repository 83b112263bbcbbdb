// A tile from its logits to what its rows write.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "../problem.hpp"
#include "arrays.hpp"
#include "lanes.hpp"
#include "tile_output.hpp"
#include "tile_rows.hpp"
#include "tile_sums.hpp"

CE_BEGIN

// The losses of many rows, added up lane by lane.
template <class T>
using TotalLoss = Sums<kSums<T>, true>;

template <TileCoefficients kind, bool chunked, class SomeTile, class Place, class ReadCoefficients, class Finished,
          class Flush>
inline void compute_rows(const Problem& p, SomeTile& tile, TotalLoss<typename SomeTile::T>& total, const Place& place,
                         const ReadCoefficients& read_coefficients, const Finished& finished, const Flush& flush) {
    using T = typename SomeTile::T;
    constexpr int rows = SomeTile::kRows, width = kWidth<T>;
    // As many vectors of rows are written together as the registers hold.
    constexpr int together = std::min(rows / width, kind == TileCoefficients::single ? 4 : 2);
    const auto read = [&]() CE_INLINE_LAMBDA {
        place(tile);
        read_logits<chunked>(p, tile);
        if constexpr (kind == TileCoefficients::dense) read_coefficients(tile);
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
        if (kind != TileCoefficients::dense && p.indices != nullptr) read_targets_apart<chunked>(tile);
    });
    if constexpr (chunked) {
        RunningTileSums<T> sums[rows / width];
        for_chunks([&]() CE_INLINE_LAMBDA {
            for (int lane = 0; lane < rows; lane += width) {
                add_up<kind>(p, tile, lane, sums[lane / width]);
                if (p.has_entropy()) add_gaps(tile, lane);
            }
        });
        for (int lane = 0; lane < rows; lane += width) store_sums<kind>(p, tile, lane, sums[lane / width]);
    } else {
        for (int lane = 0; lane < rows; lane += width) {
            RunningTileSums<T> sums;
            add_up<kind>(p, tile, lane, sums);
            if (p.has_entropy()) add_gaps(tile, lane);
            store_sums<kind>(p, tile, lane, sums);
        }
    }
    if constexpr (kind != TileCoefficients::single)
        if (!weighted_gaps_fit(tile)) {
            std::fill(tile.weighted_gap_in_double, tile.weighted_gap_in_double + rows, 0.0);
            for_chunks([&]() CE_INLINE_LAMBDA { add_weighted_gap_in_double<kind>(tile); });
            replace_weighted_gaps(tile);
        }
    take_logarithms(tile);
    const auto finish = [&](auto plain) CE_INLINE_LAMBDA {
        for (int at = 0; at < rows; at += kWidth<double>) {
            const f64 value = finish_rows<kind, decltype(plain)::value>(p, tile, at);
            store(tile.row_value + at, value);
            total.add(at / kWidth<double>, value);
        }
    };
    if (!SomeTile::general && has_plain_rows(p))
        finish(std::true_type());
    else
        finish(std::false_type());
    finished(tile);
    if (p.matrix == nullptr) return;
    for_chunks([&]() CE_INLINE_LAMBDA {
        for (int lane = 0; lane < rows; lane += width) {
            if constexpr (chunked) compute_exponentials(p, tile, lane);
            if (p.diagonal != nullptr) write_diagonal<kind>(p, tile, lane);
        }
        for (int lane = 0; lane < rows; lane += together * width) write_matrix<kind, together>(p, tile, lane);
        flush(tile);
    });
}

// Computes a tile whose targets have been read, and writes what its rows write, but for what belongs at targets apart.
// For the classes that the tile is to hold next, place(tile) sets where they lie and read_coefficients(tile) reads
// their b; flush(tile) is called when their output is written. finished(tile) is called once, when the values of the
// rows are known and nothing has been written. `chunked`: the tile may not hold all classes.
template <bool chunked, class SomeTile, class Place, class ReadCoefficients, class Finished, class Flush>
inline void compute_tile(const Problem& p, SomeTile& tile, TotalLoss<typename SomeTile::T>& total, const Place& place,
                         const ReadCoefficients& read_coefficients, const Finished& finished, const Flush& flush) {
    const auto compute = [&](auto kind) {
        compute_rows<decltype(kind)::value, chunked>(p, tile, total, place, read_coefficients, finished, flush);
    };
    const TileCoefficients kind = coefficients_of<SomeTile::general>(p);
    if (SomeTile::mode == Mode::capped || kind == TileCoefficients::single)
        return compute(std::integral_constant<TileCoefficients, TileCoefficients::single>());
    if constexpr (SomeTile::mode != Mode::capped) {
        if constexpr (!chunked && !SomeTile::general)
            if (kind == TileCoefficients::shared)
                return compute(std::integral_constant<TileCoefficients, TileCoefficients::shared>());
        compute(std::integral_constant<TileCoefficients, TileCoefficients::dense>());
    }
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
