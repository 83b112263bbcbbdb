// Classes strided: the class axis is not the last. Positions that follow each other in memory are rows side by side.
//
// A tile is read where it lies, once, and written where it belongs. What the next one touches is fetched meanwhile. As
// many streams as classes, a power of two apart, evict each other from the nearest cache: so u and exp(u - m) are kept
// in compact scratch, since a second look at the logits would find them gone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../dispatch.hpp"
#include "../problem.hpp"
#include "../scratch.hpp"
#include "arrays.hpp"
#include "targets.hpp"
#include "tile_coefficients.hpp"
#include "tile_kernel.hpp"

CE_BEGIN

template <class S, class T, Mode mode>
class StridedKernel {
    using StridedTile = Tile<S, T, S, mode>;
    static constexpr int kRows = StridedTile::kRows;

    const Problem& p;
    const TileScratch<T, mode == Mode::general> tile_scratch;
    const Arrays<S> arrays;
    S *const staged, *const staged_diagonal;  // stand in for a tile that is not in one piece

    // Positions of a tile that lie in one piece of memory.
    struct Segment {
        std::size_t offset;  // of the first position's first class, in elements
        std::size_t at;      // which row of the tile the first position is
        std::size_t length;
    };

 public:
    StridedKernel(const Problem& problem, Scratch& scratch)
        : p(problem),
          tile_scratch(problem, scratch),
          arrays(problem),
          staged(scratch.take<S>(tile_scratch.capacity * kRows)),
          staged_diagonal(scratch.take<S>(p.diagonal != nullptr ? tile_scratch.capacity * kRows : 0)) {}

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        StridedTile tile(p, tile_scratch);
        TotalLoss<T> total;
        for (std::size_t first = begin; first < end; first += kRows) {
            const int rows = int(std::min<std::size_t>(kRows, end - first));
            const bool in_place = rows == kRows && first % p.class_stride + kRows <= p.class_stride;
            read_targets(p, tile, first, rows, outcome);
            const auto place = [&](StridedTile& classes) {
                const std::size_t offset = offset_of(first, classes.first);
                const bool last = classes.first + std::size_t(classes.count) == p.classes;
                const std::size_t next = last ? offset_of(std::min(first + kRows, end - 1), 0)
                                              : offset_of(first, classes.first + classes.capacity);
                set_views(classes, in_place, offset, next);
                if (!in_place) stage(classes, first, rows);
            };
            const auto coefficients = [&](StridedTile& classes) {
                read_coefficients(p, classes, first, rows,
                                  [&](double share) { read_probabilities(classes, first, rows, share); });
            };
            const bool chunked = tile_scratch.capacity != p.classes;
            const auto flush = [&](const StridedTile& classes) {
                if (has_targets_apart<mode == Mode::general>(p)) {
                    const TileView<S>& to = classes.matrix;
                    chunked ? write_at_targets<true>(classes, rows, to.data, 1, to.stride)
                            : write_at_targets<false>(classes, rows, to.data, 1, to.stride);
                }
                if (in_place) return;
                unstage(classes, first, rows, staged, arrays.matrix);
                if (arrays.diagonal != nullptr) unstage(classes, first, rows, staged_diagonal, arrays.diagonal);
            };
            const auto finished = [&](const StridedTile& all) { write_values(p, arrays, all, first, rows); };
            if constexpr (mode == Mode::plain || mode == Mode::general)  // the others are for tiles of all classes
                if (chunked) {
                    compute_tile<true>(p, tile, total, place, coefficients, finished, flush);
                    continue;
                }
            compute_tile<false>(p, tile, total, place, coefficients, finished, flush);
        }
        outcome.loss = total.fold();
    }

 private:
    std::size_t offset_of(std::size_t position, std::size_t c) const {
        return (position / p.class_stride * p.classes + c) * p.class_stride + position % p.class_stride;
    }

    // Where the classes of a tile are read and written, and those that come next.
    void set_views(StridedTile& tile, bool in_place, std::size_t offset, std::size_t next) const {
        const auto view = [&](S* array, S* stand_in) {
            return in_place && array != nullptr ? TileView<S>{array + offset, p.class_stride}
                                                : TileView<S>{stand_in, kRows};
        };
        tile.logits =
            in_place ? TileView<const S>{arrays.logits + offset, p.class_stride} : TileView<const S>{staged, kRows};
        tile.matrix = view(arrays.matrix, staged);
        tile.diagonal = view(arrays.diagonal, staged_diagonal);
        tile.next_logits = {arrays.logits + next, p.class_stride};
        tile.next_matrix = {(arrays.matrix != nullptr ? arrays.matrix : arrays.logits) + next, p.class_stride};
    }

    void stage(const StridedTile& tile, std::size_t first, int rows) const {
        std::fill(staged, staged + std::size_t(tile.count) * kRows, S(0.0));
        for_segments(first, std::size_t(rows), [&](const Segment& s) {
            const S* const from = arrays.logits + s.offset + tile.first * p.class_stride;
            for (std::size_t c = 0; c < std::size_t(tile.count); ++c)
                std::memcpy(staged + c * kRows + s.at, from + c * p.class_stride, s.length * sizeof(S));
        });
    }
    void unstage(const StridedTile& tile, std::size_t first, int rows, const S* from, S* to) const {
        for_segments(first, std::size_t(rows), [&](const Segment& s) {
            S* const out = to + s.offset + tile.first * p.class_stride;
            for (std::size_t c = 0; c < std::size_t(tile.count); ++c)
                std::memcpy(out + c * p.class_stride, from + c * kRows + s.at, s.length * sizeof(S));
        });
    }

    template <class Visit>
    CE_INLINE void for_segments(std::size_t first, std::size_t count, const Visit& visit) const {
        for (std::size_t at = 0; at < count;) {
            const std::size_t outer = (first + at) / p.class_stride, position = (first + at) % p.class_stride;
            const std::size_t length = std::min(p.class_stride - position, count - at);
            visit(Segment{outer * p.classes * p.class_stride + position, at, length});
            at += length;
        }
    }

    void read_probabilities(StridedTile& tile, std::size_t first, int rows, double share) const {
        for (int c = 0; c < tile.count; ++c) {
            for_segments(first, std::size_t(rows), [&](const Segment& s) {
                const std::size_t offset = s.offset + (tile.first + std::size_t(c)) * p.class_stride;
                scaled_probabilities(p, offset, int(s.length), share, tile.b[c] + s.at);
            });
            std::fill(tile.b[c] + rows, tile.b[c] + kRows, T(0));
        }
    }
};

CE_END
