// Few classes, contiguous: the kernel for many rows side by side, where one row would leave most lanes empty.
//
// Rows are copied into scratch class by class, so that rows become columns; then they are computed as one tile.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "../dispatch.hpp"
#include "../problem.hpp"
#include "../scratch.hpp"
#include "arrays.hpp"
#include "targets.hpp"
#include "tile_output.hpp"

CE_BEGIN

// Up to so many classes the copy costs less than computing row by row (measured with AVX-512 and AVX2).
constexpr int kFewClasses = 192;

template <class S, class T, bool general>
class ColumnKernel {
    using ColumnTile = Tile<S, T, T, general>;
    using Staged = std::conditional_t<kIsHalf<S>, T, S>;  // rows that become columns: half precision is widened first
    static constexpr int kRows = ColumnTile::kRows;

    const Problem& p;
    const int classes;
    const TileScratch<T, general> tile_scratch;
    const Arrays<S> arrays;
    T (*const columns)[kRows], (*const columns_of_diagonal)[kRows];
    Staged* const staged;  // rows of a tile, where they are not whole or not of a type that can be transposed

 public:
    ColumnKernel(const Problem& problem, Scratch& scratch)
        : p(problem),
          classes(int(problem.classes)),
          tile_scratch(problem, scratch),
          arrays(problem),
          columns(scratch.take<T[kRows]>(p.classes)),
          columns_of_diagonal(scratch.take<T[kRows]>(p.diagonal != nullptr ? p.classes : 0)),
          staged(scratch.take<Staged>(p.classes * kRows)) {}

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        ColumnTile tile(p, tile_scratch);
        tile.logits = {*columns, kRows};
        tile.matrix = {*columns, kRows};
        tile.diagonal = {*columns_of_diagonal, kRows};
        TotalLoss<T> total;
        for (std::size_t first = begin; first < end; first += kRows) {
            const int count = int(std::min<std::size_t>(kRows, end - first));
            const std::size_t elements = std::size_t(count) * p.classes, offset = first * p.classes;
            const bool in_place = count == kRows && !kIsHalf<S>;
            if (!in_place) stage(arrays.logits + offset, elements, staged);
            transpose(in_place ? as_staged(arrays.logits + offset) : staged, columns);
            const std::size_t next = std::min(first + kRows, end - 1) * p.classes;
            tile.next_logits = {arrays.logits + next, kRows};
            tile.next_matrix = {(arrays.matrix != nullptr ? arrays.matrix : arrays.logits) + next, kRows};
            read_targets(p, tile, first, count, outcome);
            const auto read = [&](ColumnTile& all) { read_coefficients(all, first); };
            const auto nothing = [](const ColumnTile&) {};
            const auto finished = [&](const ColumnTile& all) { write_values(p, arrays, all, first, count); };
            compute_tile<false>(p, tile, total, nothing, read, finished, nothing);
            if (arrays.matrix == nullptr) continue;
            const auto write = [&](const T(*from)[kRows], S* to) {
                transpose_back(from, in_place ? as_staged(to) : staged);
                if (!in_place) unstage(staged, elements, to);
            };
            write(columns, arrays.matrix + offset);
            if (arrays.diagonal != nullptr) write(columns_of_diagonal, arrays.diagonal + offset);
        }
        outcome.loss = total.fold();
    }

 private:
    void read_coefficients(ColumnTile& tile, std::size_t first) const {
        for (int i = 0; i < kRows; ++i) {
            T b[kFewClasses];
            if (tile.target[i] == ColumnTile::kSkipped)
                std::fill(b, b + classes, T(0));
            else
                target_coefficients(p, first + std::size_t(i), tile.target[i], 0, classes, classes, b);
            for (int c = 0; c < classes; ++c) tile.b[c][i] = b[c];
        }
    }

    // Below, pointers are arguments: a store through one might change a member, which would be read again each time.

    // Rows in memory that need no staging.
    template <class E>
    static Staged* as_staged(E* rows) {
        if constexpr (kIsHalf<S>)
            return nullptr;
        else
            return const_cast<Staged*>(rows);
    }
    void stage(const S* rows, std::size_t elements, Staged* to) const {
        std::size_t i = 0;
        if constexpr (kIsHalf<S>)
            for (; i + kWidth<T> <= elements; i += kWidth<T>) store(to + i, load_as<T>(rows + i));
        for (; i < elements; ++i) to[i] = Staged(rows[i]);
        std::fill(to + i, to + kRows * classes, Staged(0));
    }
    void unstage(const Staged* from, std::size_t elements, S* rows) const {
        std::size_t i = 0;
        if constexpr (kIsHalf<S>)
            for (; i + kWidth<T> <= elements; i += kWidth<T>) store_as(rows + i, load<Vector<T>>(from + i));
        for (; i < elements; ++i) rows[i] = S(from[i]);
    }

    void transpose(const Staged* rows, T (*to)[kRows]) const {
        if constexpr (std::is_same_v<Staged, float> && std::is_same_v<T, float>) {
            if (classes >= 4)
                return for_squares(
                    [&](int c, int i) { transpose_square(rows + i * classes + c, classes, &to[c][i], kRows); });
        }
        for (int c = 0; c < classes; ++c)
#pragma GCC unroll 32
            for (int i = 0; i < kRows; ++i) to[c][i] = T(rows[i * classes + c]);
    }
    void transpose_back(const T (*from)[kRows], Staged* rows) const {
        if constexpr (std::is_same_v<Staged, float> && std::is_same_v<T, float>) {
            if (classes >= 4)
                return for_squares(
                    [&](int c, int i) { transpose_square(&from[c][i], kRows, rows + i * classes + c, classes); });
        }
        for (int c = 0; c < classes; ++c)
#pragma GCC unroll 32
            for (int i = 0; i < kRows; ++i) rows[i * classes + c] = Staged(from[c][i]);
    }
    // visit(class, row) for squares of four by four that cover a tile. The last classes overlap the ones before.
    template <class Visit>
    CE_INLINE void for_squares(const Visit& visit) const {
        for (int c = 0; c < classes; c += 4)
            for (int i = 0; i < kRows; i += 4) visit(std::min(c, classes - 4), i);
    }
};

CE_END
