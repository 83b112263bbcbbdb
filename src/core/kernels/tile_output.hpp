// What the rows of a tile write: gradient, softmax or log-softmax, and the diagonal of the Hessian.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "../problem.hpp"
#include "exponential.hpp"
#include "lanes.hpp"
#include "loss.hpp"
#include "storage.hpp"
#include "tile_rows.hpp"

CE_BEGIN

// What the gradient of the rows in some vectors of T is made of, in T.
template <class V, int vectors>
struct TileScales {
    V exp[vectors], minus_target[vectors];
    V unique_max[vectors], at_max[vectors];  // NaN where no class alone attains the maximum
    Integer<V> masked[vectors];              // rows that are masked_value
    V masked_value[vectors];
    Integer<V> fits[vectors];  // rows whose scales T holds
    bool all_fit = true, none_masked = true;
};

template <TileCoefficients kind, int vectors, class SomeTile>
CE_INLINE TileScales<typename SomeTile::V, vectors> tile_scales(const SomeTile& tile, int lane) {
    using T = typename SomeTile::T;
    using V = typename SomeTile::V;
    const f64 largest = splat<f64>(double(std::numeric_limits<T>::max()));
    TileScales<V, vectors> scales;
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) {
        const int first = lane + i * kWidth<T>;
        f64 exp[kHalves<T>], target[kHalves<T>], at_max[kHalves<T>], masked_value[kHalves<T>], fits[kHalves<T>];
#pragma GCC unroll 2
        for (int h = 0; h < kHalves<T>; ++h) {
            const int at = first + h * kWidth<double>;
            exp[h] = load<f64>(tile.exp_scale + at);
            masked_value[h] = load<f64>(tile.masked_value + at);
            auto beyond = (exp[h] > largest) | (exp[h] < -largest);
            if constexpr (kind != TileCoefficients::single) {
                target[h] = load<f64>(tile.target_term + at);
                at_max[h] = load<f64>(tile.gradient_at_max + at);
                beyond |= (target[h] > largest) | (target[h] < -largest);
            }
            fits[h] = select<f64>(beyond, f64{}, splat<f64>(1.0));
            scales.all_fit &= none(beyond);
            scales.none_masked &= none(exp[h] != exp[h]);
        }
        scales.exp[i] = narrow(exp);
        scales.masked[i] = scales.exp[i] != scales.exp[i];
        scales.masked_value[i] = narrow(masked_value);
        scales.fits[i] = narrow(fits) == 1;
        if constexpr (kind != TileCoefficients::single) {
            scales.minus_target[i] = -narrow(target);
            const V unique = narrow_for<typename SomeTile::S>(at_max);
            scales.at_max[i] = unique;
            scales.unique_max[i] = select<V>(unique == unique, load<V>(tile.max + first), unique);
        }
    }
    return scales;
}

// The gradient of a class, or its softmax, in T.
template <TileCoefficients kind, bool masked, class V, int vectors>
CE_INLINE V scaled(const TileScales<V, vectors>& scales, int i, const Element<V>* e, const Element<V>* u,
                   const Element<V>* b) {
    V g;
    if constexpr (kind == TileCoefficients::single)
        g = load<V>(e) * scales.exp[i];
    else if constexpr (kind == TileCoefficients::shared)
        g = fma(load<V>(e), scales.exp[i], scales.minus_target[i]);
    else
        g = fma(load<V>(e), scales.exp[i], scales.minus_target[i] * load<V>(b));
    if constexpr (kind != TileCoefficients::single)
        g = select<V>(load<V>(u) == scales.unique_max[i], scales.at_max[i], g);
    if constexpr (masked) g = select<V>(scales.masked[i], scales.masked_value[i], g);
    return g;
}

// What the rows in one vector of T write of a class, computed in float64.
template <TileCoefficients kind, class SomeTile>
inline typename SomeTile::V written_in_double(const Problem& p, const SomeTile& tile, int c, int lane) {
    using T = typename SomeTile::T;
    f64 g[kHalves<T>];
#pragma GCC unroll 2
    for (int h = 0; h < kHalves<T>; ++h) {
        const int at = lane + h * kWidth<double>;
        const f64 u = load_as<double>(tile.u[c] + at), m = load_as<double>(tile.max + at);
        const f64 exp_scale = load<f64>(tile.exp_scale + at);
        if (p.output == Output::log_softmax) {
            g[h] = log_probability(u, m, load<f64>(tile.lse_minus_max + at));
        } else {
            const f64 e = load_as<double>(tile.e[c] + at);
            g[h] = e * exp_scale;
            if constexpr (kind != TileCoefficients::single) {
                const f64 target_term = load<f64>(tile.target_term + at), at_max = load<f64>(tile.gradient_at_max + at);
                g[h] -= kind == TileCoefficients::dense ? target_term * load_as<double>(tile.b[c] + at) : target_term;
                g[h] = select<f64>((u == m) & (at_max == at_max), at_max, g[h]);
            }
            if (p.has_entropy()) g[h] += entropy_gradient(p, tile, at, u, e);
            if constexpr (SomeTile::general) g[h] *= load<f64>(tile.slope[c] + at);
        }
        g[h] = select<f64>(exp_scale == exp_scale, g[h], load<f64>(tile.masked_value + at));
    }
    return narrow_for<typename SomeTile::S>(g);
}

// What the rows in some vectors of T write into the matrix, from their exponentials; but not at targets apart.
template <TileCoefficients kind, int vectors, class SomeTile>
CE_INLINE void write_matrix(const Problem& p, SomeTile& tile, int lane) {
    using T = typename SomeTile::T;
    using V = typename SomeTile::V;
    const auto scales = tile_scales<kind, vectors>(tile, lane);
    // visit(i, e, u, b, where to write, class) for each vector of each class.
    const auto for_all = [&](const auto& visit) CE_INLINE_LAMBDA {
        const T *e = tile.e[0] + lane, *u = tile.u[0] + lane,
                *b = kind == TileCoefficients::dense ? tile.b[0] + lane : e;
        typename SomeTile::E* to = tile.matrix.at(0, lane);
        const std::size_t stride = tile.matrix.stride;
        for (int c = 0, count = tile.count; c < count; ++c, to += stride) {
#pragma GCC unroll 8
            for (int i = 0; i < vectors; ++i) {
                const int at = i * kWidth<T>;
                store_as(to + at, visit(i, e + at, u + at, b + at, c));
            }
            e += SomeTile::kRows, u += SomeTile::kRows, b += SomeTile::kRows;
        }
    };
    const bool in_own_type = !SomeTile::general && p.output != Output::log_softmax && !p.has_entropy();
    if (in_own_type && scales.all_fit && scales.none_masked)
        for_all([&](int i, const T* e, const T* u, const T* b, int)
                    CE_INLINE_LAMBDA { return scaled<kind, false>(scales, i, e, u, b); });
    else if (in_own_type && scales.all_fit)
        for_all([&](int i, const T* e, const T* u, const T* b, int)
                    CE_INLINE_LAMBDA { return scaled<kind, true>(scales, i, e, u, b); });
    else
        for_all([&](int i, const T* e, const T* u, const T* b, int c) CE_INLINE_LAMBDA {
            const V in_double = written_in_double<kind>(p, tile, c, lane + i * kWidth<T>);
            return in_own_type ? select<V>(scales.fits[i], scaled<kind, true>(scales, i, e, u, b), in_double)
                               : in_double;
        });
}

// The same at targets apart, in memory where rows and classes are so far apart.
template <bool chunked, class SomeTile>
CE_INLINE void write_at_targets(const SomeTile& tile, int rows, typename SomeTile::S* to, std::size_t row_stride,
                                std::size_t class_stride) {
    const std::int64_t* some_class = tile.some_class;
    const typename SomeTile::S* value = tile.written_at_target;
    const std::size_t first = chunked ? tile.first : 0, count = std::size_t(tile.count);
    for (int row = 0; row < rows; ++row, to += row_stride) {
        const std::size_t c = std::size_t(some_class[row]) - first;
        if (chunked && c >= count) continue;
        to[c * class_stride] = value[row];
    }
}

// What the rows in one vector of T write of the diagonal of the Hessian. To be called before `write_matrix`, which may
// overwrite logits.
template <TileCoefficients kind, class SomeTile>
inline void write_diagonal(const Problem& p, SomeTile& tile, int lane) {
    using S = typename SomeTile::S;
    using T = typename SomeTile::T;
    for (int c = 0; c < tile.count; ++c) {
        f64 d[kHalves<T>];
        for (int h = 0; h < kHalves<T>; ++h) {
            const int at = lane + h * kWidth<double>;
            const f64 u = load_as<double>(tile.u[c] + at), m = load_as<double>(tile.max + at);
            const f64 scale = load<f64>(tile.exp_scale + at),
                      complement_at_max = load<f64>(tile.complement_at_max + at);
            f64 e = load_as<double>(tile.e[c] + at), slope = splat<f64>(1.0), curvature{};
            if constexpr (SomeTile::mode == Mode::capped) {
                const CappedExp<f64> found = SoftCap<f64>(p, m)(u);
                e = found.e, slope = found.slope, curvature = capped_curvature(p, capped(p, u));
            } else if constexpr (SomeTile::general) {
                slope = load<f64>(tile.slope[c] + at), curvature = capped_curvature(p, u);
            }
            const f64 probability = e * load<f64>(tile.max_probability + at);
            const auto is_max = (u == m) & (complement_at_max == complement_at_max);
            const f64 complement = select<f64>(is_max, complement_at_max, 1.0 - probability);
            d[h] = e * (scale * complement + load<f64>(tile.z_curvature + at) * probability);
            if constexpr (SomeTile::scaled) d[h] *= p.inverse_temperature * slope * slope;
            if constexpr (SomeTile::has_slopes) {
                f64 g = e * scale;
                if constexpr (kind == TileCoefficients::dense)
                    g -= load<f64>(tile.target_term + at) * load<f64>(tile.b[c] + at);
                if constexpr (kind == TileCoefficients::shared) g -= load<f64>(tile.target_term + at);
                g = select<f64>(is_max, load<f64>(tile.gradient_at_max + at), g) * slope;
                if constexpr (kind != TileCoefficients::dense)
                    g = select<f64>(load_integers(tile.target + at) == std::int64_t(tile.first) + c,
                                    load<f64>(tile.gradient_at_target + at), g);
                d[h] += g * curvature;
            }
            d[h] = select<f64>(scale == scale, d[h], load<f64>(tile.masked_value + at));
        }
        store_as(tile.diagonal.at(c, lane), narrow_for<S>(d));
    }
}

CE_END
