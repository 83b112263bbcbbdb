// Few classes, contiguous: the kernel for many rows side by side, where one row would leave most lanes empty.
//
// Rows are copied into scratch class by class, so that rows become columns; then they are computed as one tile.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "../dispatch.hpp"
#include "../problem.hpp"
#include "../scratch.hpp"
#include "arrays.hpp"
#include "targets.hpp"
#include "tile_coefficients.hpp"
#include "tile_kernel.hpp"
#include "transpose.hpp"

CE_BEGIN

// Up to so many classes the copy costs less than computing row by row (measured with AVX-512 and AVX2).
constexpr int kFewClasses = 192;
constexpr int kFour = 4;  // classes that are transposed together

template <class S, class T, Mode mode>
class ColumnKernel {
    using ColumnTile = Tile<S, T, T, mode>;
    // Rows that become columns. Half precision is widened first, but to float32 on the way.
    using Staged = std::conditional_t<kIsHalf<S> && std::is_same_v<T, double>, T, S>;
    static constexpr bool kInPlace = std::is_same_v<Staged, S>;
    static constexpr int kRows = ColumnTile::kRows;

    const Problem& p;
    const int classes;
    const TileScratch<T, mode == Mode::general> tile_scratch;
    const Arrays<S> arrays;
    T (*const columns_of_diagonal)[kRows];
    Staged* const staged;    // rows of a tile that cannot be transposed where they lie
    T* const probabilities;  // of a tile

 public:
    ColumnKernel(const Problem& problem, Scratch& scratch)
        : p(problem),
          classes(int(problem.classes)),
          tile_scratch(problem, scratch),
          arrays(problem),
          columns_of_diagonal(scratch.take<T[kRows]>(p.diagonal != nullptr ? p.classes : 0)),
          staged(scratch.take<Staged>(p.classes * kRows + kFour)),
          probabilities(scratch.take<T>(p.dense() && p.indices == nullptr ? p.classes * kRows + kFour : 0)) {}

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        ColumnTile tile(p, tile_scratch);
        // Logits become u where they are, and exponentials what is written.
        tile.logits = {*tile.u, kRows};
        tile.matrix = {*tile.e, kRows};
        tile.diagonal = {*columns_of_diagonal, kRows};
        TotalLoss<T> total;
        for (std::size_t first = begin; first < end; first += kRows) {
            const int count = int(std::min<std::size_t>(kRows, end - first));
            const std::size_t elements = std::size_t(count) * p.classes, offset = first * p.classes;
            // Of rows of fewer than four elements the next ones are read as well.
            const bool in_place = kInPlace && count == kRows && (classes >= kFour || first + kRows + kFour <= end);
            if (!in_place) stage(arrays.logits + offset, elements, staged);
            transpose(in_place ? as_staged(arrays.logits + offset) : staged, tile.u);
            const std::size_t next = std::min(first + kRows, end - 1) * p.classes;
            tile.next_logits = {arrays.logits + next, kRows};
            tile.next_matrix = {(arrays.matrix != nullptr ? arrays.matrix : arrays.logits) + next, kRows};
            read_targets(p, tile, first, count, outcome);
            const auto read = [&](ColumnTile& all) {
                read_coefficients(p, all, first, count,
                                  [&](double share) { read_probabilities(all, offset, elements, share); });
            };
            const auto nothing = [](const ColumnTile&) {};
            const auto finished = [&](const ColumnTile& all) { write_values(p, arrays, all, first, count); };
            const auto flush = [&](const ColumnTile& all) {
                const auto write = [&](const T(*from)[kRows], S* to) {
                    transpose_back(from, in_place ? as_staged(to) : staged);
                    if (!in_place) unstage(staged, elements, to);
                };
                S* const matrix = arrays.matrix + offset;
                write(all.e, matrix);
                if (has_targets_apart<mode == Mode::general>(p))
                    write_at_targets<false>(all, count, matrix, p.classes, 1);
                if (arrays.diagonal != nullptr) write(columns_of_diagonal, arrays.diagonal + offset);
            };
            compute_tile<false>(p, tile, total, nothing, read, finished, flush);
        }
        outcome.loss = total.fold();
    }

 private:
    // The probabilities of a tile, as many as `elements`.
    void read_probabilities(ColumnTile& tile, std::size_t offset, std::size_t elements, double share) const {
        scaled_probabilities(p, offset, int(elements), share, probabilities);
        std::fill(probabilities + elements, probabilities + kRows * classes + kFour, T(0));
        transpose(probabilities, tile.b);
    }

    // Below, pointers are arguments: a store through one might change a member, which would be read again each time.

    // Rows in memory that need no staging.
    template <class E>
    static Staged* as_staged(E* rows) {
        if constexpr (kInPlace)
            return const_cast<Staged*>(rows);
        else
            return nullptr;
    }
    void stage(const S* rows, std::size_t elements, Staged* to) const {
        std::size_t i = 0;
        if constexpr (!kInPlace)
            for (; i + kWidth<T> <= elements; i += kWidth<T>) store(to + i, load_as<T>(rows + i));
        for (; i < elements; ++i) to[i] = Staged(rows[i]);
        std::fill(to + i, to + kRows * classes + kFour, Staged(0.0));
    }
    void unstage(const Staged* from, std::size_t elements, S* rows) const {
        std::size_t i = 0;
        if constexpr (!kInPlace)
            for (; i + kWidth<T> <= elements; i += kWidth<T>) store_as(rows + i, load<Vector<T>>(from + i));
        for (; i < elements; ++i) rows[i] = S(from[i]);
    }

    template <class From>
    void transpose(const From* rows, T (*to)[kRows]) const {
        if constexpr (std::is_same_v<T, float>) {
            const std::size_t stride = p.classes;
            for (int i = 0; i < kRows; i += kTransposedRows, rows += kTransposedRows * stride)
                for_fours([&](int c, int count)
                              CE_INLINE_LAMBDA { transpose_rows(rows + c, stride, &to[c][i], kRows, count); });
        } else {
            for (int c = 0; c < classes; ++c)
#pragma GCC unroll 32
                for (int i = 0; i < kRows; ++i) to[c][i] = T(rows[i * classes + c]);
        }
    }
    void transpose_back(const T (*from)[kRows], Staged* rows) const {
        if constexpr (std::is_same_v<T, float>) {
            const std::size_t stride = p.classes, elements = kTransposedRows * stride;
            for (int i = 0; i < kRows; i += kTransposedRows, rows += elements) {
                const auto write = [&](Staged* to) CE_INLINE_LAMBDA {
                    for_fours([&](int c, int count)
                                  CE_INLINE_LAMBDA { transpose_columns(&from[c][i], kRows, to + c, stride, count); });
                };
                if (classes >= kFour || i + kTransposedRows < kRows) {
                    write(rows);
                } else {  // nothing is written behind the last row
                    Staged last[kTransposedRows * kFour];
                    write(last);
                    std::memcpy(rows, last, elements * sizeof *rows);
                }
            }
        } else {
            for (int c = 0; c < classes; ++c)
#pragma GCC unroll 32
                for (int i = 0; i < kRows; ++i) rows[i * classes + c] = Staged(from[c][i]);
        }
    }
    // visit(class, how many) for fours that cover all classes. The last ones overlap those before.
    template <class Visit>
    CE_INLINE void for_fours(const Visit& visit) const {
        switch (classes) {
            case 1:
                return visit(0, 1);
            case 2:
                return visit(0, 2);
            case 3:
                return visit(0, 3);
        }
        for (int c = 0; c < classes; c += kFour) visit(std::min(c, classes - kFour), kFour);
    }
};

CE_END
