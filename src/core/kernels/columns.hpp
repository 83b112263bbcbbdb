// Many rows side by side, one a lane: the kernel for few classes, where one row would leave most lanes empty.
//
// A tile of kLanes<T> rows is copied into compact scratch, class by class; nothing is folded across lanes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "targets.hpp"
#include "tile_output.hpp"

CE_BEGIN

// Up to here the copy into the tile costs less than a row of its own (measured with AVX-512 and AVX2).
constexpr int kFewClasses = 192;

template <class S, class T, bool transformed>
class ColumnKernel : TileKernel<S, T, T, T, transformed> {
    using Base = TileKernel<S, T, T, T, transformed>;
    using Base::p, Base::classes, Base::logits, Base::matrix, Base::diagonal, Base::row_values, Base::kTile;
    using typename Base::Tile, typename Base::V;
    using Staged = std::conditional_t<kIsHalf<S>, T, S>;  // rows that become columns: half precision is widened first

    T (*const columns)[kTile], (*const columns_of_diagonal)[kTile];
    Staged* const staged;  // stands in for a whole tile at the end

 public:
    ColumnKernel(const Problem& problem, Scratch& scratch)
        : Base(problem, scratch),
          columns(scratch.take<T[kTile]>(p.classes)),
          columns_of_diagonal(scratch.take<T[kTile]>(p.diagonal != nullptr ? p.classes : 0)),
          staged(scratch.take<Staged>(p.classes * kTile)) {}

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        Tile tile;
        Base::prepare(tile);
        tile.in = {*columns, kTile};
        tile.out = {*columns, kTile};
        tile.diagonal = {*columns_of_diagonal, kTile};
        Sums<kSums<T>, true> total;
        for (std::size_t first = begin; first < end; first += kTile) {
            const int count = int(std::min<std::size_t>(kTile, end - first));
            const std::size_t elements = std::size_t(count) * p.classes, offset = first * p.classes;
            const bool whole = count == kTile && !kIsHalf<S>;
            if (!whole) stage(logits + offset, elements, staged);
            transpose(whole ? tile_of(logits + offset) : staged, columns);
            const std::size_t next = std::min(first + kTile, end - 1) * p.classes;
            tile.next_in = {logits + next, kTile};
            tile.next_out = {(matrix != nullptr ? matrix : logits) + next, kTile};
            Base::read_targets(tile, first, count, outcome);
            const auto read = [&](Tile& all) { read_coefficients(all, first); };
            const auto nothing = [](const Tile&) {};
            Base::template compute<false>(tile, total, nothing, read, nothing);
            if (row_values != nullptr) std::copy(tile.value, tile.value + count, row_values + first);
            if (matrix == nullptr) continue;
            const auto write = [&](const T(*from)[kTile], S* to) {
                transpose_back(from, whole ? tile_of(to) : staged);
                if (!whole) unstage(staged, elements, to);
            };
            write(columns, matrix + offset);
            if (diagonal != nullptr) write(columns_of_diagonal, diagonal + offset);
        }
        outcome.loss = total.fold();
    }

 private:
    void read_coefficients(Tile& tile, std::size_t first) const {
        for (int i = 0; i < kTile; ++i) {
            T b[kFewClasses];
            if (tile.target[i] == Base::kSkipped)
                std::fill(b, b + classes, T(0));
            else
                target_coefficients(p, first + std::size_t(i), tile.target[i], 0, classes, classes, b);
            for (int c = 0; c < classes; ++c) tile.b[c][i] = b[c];
        }
    }

    // Rows in memory that need no staging.
    template <class E>
    static Staged* tile_of(E* rows) {
        if constexpr (kIsHalf<S>)
            return nullptr;
        else
            return const_cast<Staged*>(rows);
    }
    void stage(const S* rows, std::size_t elements, Staged* staged) const {
        std::size_t i = 0;
        if constexpr (kIsHalf<S>)
            for (; i + kWidth<T> <= elements; i += kWidth<T>) store(staged + i, load_as<T>(rows + i));
        for (; i < elements; ++i) staged[i] = Staged(rows[i]);
        std::fill(staged + i, staged + kTile * classes, Staged(0));
    }
    void unstage(const Staged* staged, std::size_t elements, S* rows) const {
        std::size_t i = 0;
        if constexpr (kIsHalf<S>)
            for (; i + kWidth<T> <= elements; i += kWidth<T>) store_as(rows + i, load<V>(staged + i));
        for (; i < elements; ++i) rows[i] = S(staged[i]);
    }

    void transpose(const Staged* rows, T (*columns)[kTile]) const {
        if constexpr (std::is_same_v<Staged, float> && std::is_same_v<T, float>) {
            if (classes >= 4)
                return for_squares(
                    [&](int c, int i) { transpose_square(rows + i * classes + c, classes, &columns[c][i], kTile); });
        }
        for (int c = 0; c < classes; ++c)
#pragma GCC unroll 32
            for (int i = 0; i < kTile; ++i) columns[c][i] = T(rows[i * classes + c]);
    }
    void transpose_back(const T (*columns)[kTile], Staged* rows) const {
        if constexpr (std::is_same_v<Staged, float> && std::is_same_v<T, float>) {
            if (classes >= 4)
                return for_squares(
                    [&](int c, int i) { transpose_square(&columns[c][i], kTile, rows + i * classes + c, classes); });
        }
        for (int c = 0; c < classes; ++c)
#pragma GCC unroll 32
            for (int i = 0; i < kTile; ++i) rows[i * classes + c] = Staged(columns[c][i]);
    }
    // Class and row of squares of four by four that cover a tile; the last classes overlap the ones before.
    template <class Visit>
    CE_INLINE void for_squares(const Visit& visit) const {
        for (int c = 0; c < classes; c += 4)
            for (int i = 0; i < kTile; i += 4) visit(std::min(c, classes - 4), i);
    }
};

CE_END
