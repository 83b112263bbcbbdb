// Classes strided: the class axis is not the last. Positions that follow each other in memory are rows side by side.
//
// A tile is read where it lies, once, into compact scratch, and written where it belongs. What the next one touches is
// fetched meanwhile: as many streams as classes, a power of two apart, evict each other from the nearest cache, and a
// second look would find them gone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "targets.hpp"
#include "tile_output.hpp"

CE_BEGIN

template <class S, class T, bool transformed>
class StridedKernel : TileKernel<S, T, S, S, transformed> {
    using Base = TileKernel<S, T, S, S, transformed>;
    using Base::p, Base::logits, Base::matrix, Base::diagonal, Base::row_values, Base::kTile;
    using typename Base::Tile, typename Base::V;

    S *const staged, *const staged_diagonal;  // stand in for a tile that is not in one piece

    // Positions of one tile, `length` of them in one piece of memory.
    struct Segment {
        std::size_t offset, at, length;
    };

 public:
    StridedKernel(const Problem& problem, Scratch& scratch)
        : Base(problem, scratch),
          staged(scratch.take<S>(Base::held * kTile)),
          staged_diagonal(scratch.take<S>(p.diagonal != nullptr ? Base::held * kTile : 0)) {}

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        Tile tile;
        Base::prepare(tile);
        Sums<kSums<T>, true> total;
        for (std::size_t first = begin; first < end; first += kTile) {
            const int rows = int(std::min<std::size_t>(kTile, end - first));
            const bool whole = rows == kTile && first % p.class_stride + kTile <= p.class_stride;
            Base::read_targets(tile, first, rows, outcome);
            const auto fill = [&](Tile& classes) {
                const std::size_t offset = offset_of(first, classes.first);
                const bool last = classes.first + std::size_t(classes.count) == p.classes;
                const std::size_t next = last ? offset_of(std::min(first + kTile, end - 1), 0)
                                              : offset_of(first, classes.first + Base::held);
                place(classes, whole, offset, next);
                if (!whole) stage(classes, first, rows);
            };
            const auto coefficients = [&](Tile& classes) { read_coefficients(classes, first, rows); };
            const auto flush = [&](const Tile& classes) {
                if (whole) return;
                unstage(classes, first, rows, staged, matrix);
                if (diagonal != nullptr) unstage(classes, first, rows, staged_diagonal, diagonal);
            };
            if (Base::held == p.classes)
                Base::template compute<false>(tile, total, fill, coefficients, flush);
            else
                Base::template compute<true>(tile, total, fill, coefficients, flush);
            if (row_values != nullptr) std::copy(tile.value, tile.value + rows, row_values + first);
        }
        outcome.loss = total.fold();
    }

 private:
    std::size_t offset_of(std::size_t position, std::size_t c) const {
        return (position / p.class_stride * p.classes + c) * p.class_stride + position % p.class_stride;
    }

    // Where the classes of a tile are read and written, and those that come next.
    void place(Tile& tile, bool whole, std::size_t offset, std::size_t next) const {
        tile.in = whole ? Strided<const S>{logits + offset, p.class_stride} : Strided<const S>{staged, kTile};
        tile.out = whole && matrix != nullptr ? Strided<S>{matrix + offset, p.class_stride} : Strided<S>{staged, kTile};
        tile.diagonal = whole && diagonal != nullptr ? Strided<S>{diagonal + offset, p.class_stride}
                                                     : Strided<S>{staged_diagonal, kTile};
        tile.next_in = {logits + next, p.class_stride};
        tile.next_out = {(matrix != nullptr ? matrix : logits) + next, p.class_stride};
    }

    void stage(const Tile& tile, std::size_t first, int rows) const {
        std::fill(staged, staged + std::size_t(tile.count) * kTile, S(0.0));
        for_segments(first, std::size_t(rows), [&](const Segment& s) {
            const S* const from = logits + s.offset + tile.first * p.class_stride;
            for (std::size_t c = 0; c < std::size_t(tile.count); ++c)
                std::memcpy(staged + c * kTile + s.at, from + c * p.class_stride, s.length * sizeof(S));
        });
    }
    void unstage(const Tile& tile, std::size_t first, int rows, const S* from, S* to) const {
        for_segments(first, std::size_t(rows), [&](const Segment& s) {
            S* const out = to + s.offset + tile.first * p.class_stride;
            for (std::size_t c = 0; c < std::size_t(tile.count); ++c)
                std::memcpy(out + c * p.class_stride, from + c * kTile + s.at, s.length * sizeof(S));
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

    // b_c = w_c [(1 - epsilon) q_c + epsilon / C], class by class.
    void read_coefficients(Tile& tile, std::size_t first, int rows) const {
        const T given = T(1.0 - p.options.label_smoothing), uniform = T(p.options.label_smoothing / double(p.classes));
        if (p.sparse_indices != nullptr) {
            std::fill(tile.b[0], tile.b[tile.count], T(0));
            for (int i = 0; i < rows; ++i)
                for_sparse(p, first + std::size_t(i), double(given), [&](std::size_t c, double q) {
                    if (c - tile.first < std::size_t(tile.count)) tile.b[c - tile.first][i] += T(q);
                });
        }
        for (int c = 0; c < tile.count; ++c) {
            const std::size_t in_row = tile.first + std::size_t(c);
            T* const b = tile.b[c];
            if (p.sparse_indices == nullptr) std::fill(b, b + kTile, T(0));
            if (p.indices != nullptr)
                for (int i = 0; i < rows; ++i) b[i] = tile.target[i] == std::int64_t(in_row) ? given : T(0);
            else if (p.sparse_indices == nullptr)
                for_segments(first, std::size_t(rows), [&](const Segment& s) {
                    const std::size_t offset = s.offset + in_row * p.class_stride;
                    probabilities_of_type(p, offset, int(s.length), double(given), b + s.at);
                });
            const double weight = p.class_weight != nullptr ? p.class_weight[in_row] : 1.0;
            for (int i = 0; i < kTile; ++i) {
                b[i] += uniform;
                if (p.class_weight != nullptr) b[i] = T(double(b[i]) * weight);
                if (tile.target[i] == Base::kSkipped) b[i] = T(0);
            }
        }
    }
};

CE_END
