// The coefficients b of a tile's rows, where each class has its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../problem.hpp"
#include "targets.hpp"
#include "tile.hpp"

CE_BEGIN

// Of class indices, smoothed: each class has the coefficient that it has off the target, but for the
// target.
template <class SomeTile>
inline void smoothed_targets(const Problem& p, SomeTile& tile,
                             const CoefficientFormula<typename SomeTile::T>& formula) {
    using T = typename SomeTile::T;
    const auto weight = [&](std::size_t c) { return formula.weighted ? p.class_weight[c] : 1.0; };
    for (int c = 0; c < tile.count; ++c)
        std::fill(tile.b[c], tile.b[c] + SomeTile::kRows, formula(T(0), weight(tile.first + std::size_t(c))));
    const T share = T(formula.target_share);
    for (int row = 0; row < SomeTile::kRows; ++row) {
        const std::size_t target = std::size_t(tile.some_class[row]), c = target - tile.first;
        if (c < std::size_t(tile.count)) tile.b[c][row] = formula(share, weight(target));
    }
}

// Makes coefficients of shares of probabilities.
template <class SomeTile>
inline void smooth_and_weight(const Problem& p, SomeTile& tile,
                              const CoefficientFormula<typename SomeTile::T>& formula) {
    using T = typename SomeTile::T;
    using V = Vector<T>;
    const V uniform = splat<V>(formula.uniform_share != 0 ? formula.uniform_share : -T(0));  // -0 keeps a zero's sign
    for (int c = 0; c < tile.count; ++c) {
        const f64 weight = splat<f64>(formula.weighted ? p.class_weight[tile.first + std::size_t(c)] : 1.0);
        for (int lane = 0; lane < SomeTile::kRows; lane += kWidth<T>) {
            T* const b = tile.b[c] + lane;
            const V smoothed = load<V>(b) + uniform;
            f64 weighted[kHalves<T>];
            widen(smoothed, weighted);
            for (f64& half : weighted) half *= weight;
            store(b, formula.weighted ? narrow(weighted) : smoothed);
        }
    }
}

// Reads the coefficients of `rows` rows from `first` on, of the classes that the tile holds. read_probabilities(share)
// puts probabilities, times `share`, into tile.b. Rows that do not count may have any coefficients.
template <class SomeTile, class ReadProbabilities>
inline void read_coefficients(const Problem& p, SomeTile& tile, std::size_t first, int rows,
                              const ReadProbabilities& read_probabilities) {
    using T = typename SomeTile::T;
    const CoefficientFormula<T> formula(p);
    if (p.indices != nullptr) return smoothed_targets(p, tile, formula);
    if (p.sparse_indices == nullptr) {
        read_probabilities(formula.target_share);
    } else {
        std::fill(tile.b[0], tile.b[tile.count], T(0));
        for (int i = 0; i < rows; ++i)
            for_sparse<T>(p, first + std::size_t(i), formula.target_share, [&](std::size_t c, T q) {
                if (c - tile.first < std::size_t(tile.count)) tile.b[c - tile.first][i] += q;
            });
    }
    if (formula.uniform_share != 0 || formula.weighted) smooth_and_weight(p, tile, formula);
}

CE_END
