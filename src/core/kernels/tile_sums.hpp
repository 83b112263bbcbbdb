// The sums over the classes of a tile's rows, and what the rows' losses and gradients are made of.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "../problem.hpp"
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

// u of the rows in one vector of T, and the maximum so far.
template <bool chunked, class SomeTile>
CE_INLINE void read_logits(const Problem& p, SomeTile& tile, int lane) {
    using T = typename SomeTile::T;
    using V = typename SomeTile::V;
    V m = chunked ? load<V>(tile.max + lane) : splat<V>(-kInf);
    for (int c = 0; c < tile.count; ++c) {
        const V z = load_as<T>(tile.logits.at(c, lane)), u = capped(p, z);
        if constexpr (SomeTile::general) store(tile.slope[c] + lane, capped_slope(p, z));
        store(tile.u[c] + lane, u);
        m = highest(u, m);
    }
    store(tile.max + lane, m);
}

// The exponentials of the rows in one vector of T: of a chunk, where `add_up` has left those of another.
template <class SomeTile>
inline void compute_exponentials(const Problem& p, SomeTile& tile, int lane) {
    using V = typename SomeTile::V;
    const V m = load<V>(tile.max + lane);
    for (int c = 0; c < tile.count; ++c)
        store(tile.e[c] + lane, exp_below<SomeTile::general>(p, load<V>(tile.u[c] + lane), m));
}

// u and du/dz of a row's target, if the tile holds it.
template <bool chunked, class SomeTile>
CE_INLINE void read_target(SomeTile& tile, int row) {
    const std::size_t c = tile.class_of(row) - tile.first;
    if (chunked && c >= std::size_t(tile.count)) return;
    tile.u_target[row] = tile.u[c][row];
    if constexpr (SomeTile::general) tile.slope_target[row] = tile.slope[c][row];
}

// Adds the classes of the tile to the sums of the rows in one vector of T. Their exponentials are stored in tile.e.
template <bool dense, class SomeTile>
CE_INLINE void add_up(const Problem& p, const SomeTile& tile, int lane,
                      RunningTileSums<typename SomeTile::T>& running) {
    using V = typename SomeTile::V;
    const V m = load<V>(tile.max + lane);
    RunningTileSums<typename SomeTile::T> sums = running;
    const auto add = [&](int c, int count) CE_INLINE_LAMBDA {
        V e[4] = {}, gap[4] = {}, b_below[4] = {}, b_at[4] = {};  // the gaps are weighted by b
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            if (j >= count) break;
            const V u = load<V>(tile.u[c + j] + lane);
            __builtin_prefetch(tile.next_logits.at(c + j, lane));
            __builtin_prefetch(tile.next_matrix.at(c + j, lane), 1);
            const auto is_below = u != m;
            sums.count_below = count_lanes<V>(is_below, sums.count_below);
            const V exponential = exp_below<SomeTile::general>(p, u, m);
            store(tile.e[c + j] + lane, exponential);
            e[j] = select<V>(is_below, exponential, V{});
            if constexpr (dense) {
                const V b = load<V>(tile.b[c + j] + lane);
                gap[j] = select<V>(b != 0, b * (m - u), V{});
                b_below[j] = select<V>(is_below, b, V{});
                b_at[j] = b - b_below[j];
            }
        }
        add_four(sums.exp_sum, 0, e);
        if constexpr (dense) {
            add_four(sums.weighted_gap, 0, gap);
            add_four(sums.b_below_max, 0, b_below);
            add_four(sums.b_at_max, 0, b_at);
        }
    };
    int c = 0;
    for (; c + 4 <= tile.count; c += 4) add(c, 4);
    if (c < tile.count) add(c, tile.count - c);
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
template <bool dense, class SomeTile>
CE_INLINE void store_sums(const Problem& p, SomeTile& tile, int lane,
                          const RunningTileSums<typename SomeTile::T>& sums) {
    using T = typename SomeTile::T;
    using V = typename SomeTile::V;
    const V m = load<V>(tile.max + lane);
    store(tile.ties + lane, __builtin_convertvector(int(p.classes) - sums.count_below, V));
    if constexpr (!dense)
        store(tile.e_target + lane, exp_below<SomeTile::general>(p, load<V>(tile.u_target + lane), m));
#pragma GCC unroll 2
    for (int h = 0; h < kHalves<T>; ++h) {
        const int at = lane + h * kWidth<double>;
        store(tile.exp_sum + at, sums.exp_sum.total(h));
        if constexpr (dense) {
            store(tile.weighted_gap + at, sums.weighted_gap.total(h));
            store(tile.b_below_max + at, sums.b_below_max.total(h));
            store(tile.b_at_max + at, sums.b_at_max.total(h));
        }
    }
}

// Rows whose sum of b_c (m - u_c) overflows T or is NaN have it computed in float64.
template <class SomeTile>
inline bool weighted_gaps_fit(const SomeTile& tile) {
    return std::all_of(tile.weighted_gap, tile.weighted_gap + SomeTile::kRows,
                       [](double gap) { return gap - gap == 0.0; });
}
template <class SomeTile>
inline void add_weighted_gap_in_double(SomeTile& tile) {
    for (int c = 0; c < tile.count; ++c)
        for (int i = 0; i < SomeTile::kRows; ++i) {
            const double b = double(tile.b[c][i]);
            if (b != 0.0) tile.weighted_gap_in_double[i] += b * (double(tile.max[i]) - double(tile.u[c][i]));
        }
}
template <class SomeTile>
inline void replace_weighted_gaps(SomeTile& tile) {
    for (int i = 0; i < SomeTile::kRows; ++i)
        if (!(tile.weighted_gap[i] - tile.weighted_gap[i] == 0.0))
            tile.weighted_gap[i] = tile.weighted_gap_in_double[i];
}

// The gradient of the entropies of rows with respect to u of a class each, in one vector of float64.
template <class SomeTile>
CE_INLINE f64 entropy_gradient(const Problem& p, const SomeTile& tile, int at, f64 u, f64 e) {
    const f64 gap = (load_as<double>(tile.max + at) - u) * p.inverse_temperature - load<f64>(tile.mean_gap + at);
    return select<f64>(e != 0, load<f64>(tile.entropy_scale + at) * e * gap, f64{});
}

// From the sums of the rows in one vector of float64: their values, which are returned, and what scales their gradient.
template <bool dense, class SomeTile>
CE_INLINE f64 finish_rows(const Problem& p, SomeTile& tile, int at) {
    using S = typename SomeTile::S;
    using T = typename SomeTile::T;
    const auto counted = load_integers(tile.target + at) >= 0;
    const f64 weight = load<f64>(tile.weight + at), b = p.indices == nullptr && p.has_targets() ? f64{} : weight,
              gradient_scale = load<f64>(tile.gradient_scale + at);
    const f64 nan = splat<f64>(kNaN);
    const f64 m = load_as<double>(tile.max + at), ties = load_as<double>(tile.ties + at);
    const f64 u = load_as<double>(tile.u_target + at);
    RowSums sums{m, load<f64>(tile.exp_sum + at) + (ties - 1.0), f64{}, f64{}, f64{}, load<f64>(tile.exp_gap + at)};
    if constexpr (dense) {
        sums.weighted_gap = load<f64>(tile.weighted_gap + at);
        sums.b_below_max = load<f64>(tile.b_below_max + at);
        sums.b_at_max = load<f64>(tile.b_at_max + at);
    } else {
        sums.weighted_gap = select<f64>(b == 0, f64{}, b * (m - u));
        sums.b_below_max = select<f64>(u == m, f64{}, b);
        sums.b_at_max = select<f64>(u == m, b, f64{});
    }
    const f64 e_target = load_as<double>(tile.e_target + at);
    const RowResult result = row_result(
        p, sums,
        {weight, load<f64>(tile.sample_weight + at), gradient_scale, load<f64>(tile.entropy_grad + at), e_target});
    const f64 scale = result.exp_scale * p.inverse_temperature;
    const f64 entropy_scale = result.entropy_scale * p.inverse_temperature;
    const f64 exp_scale =
        select<f64>((scale - scale == 0) & (entropy_scale - entropy_scale == 0) & counted, scale, nan);
    const f64 masked_value = select<f64>(counted, nan, f64{});
    const f64 target_scale = result.target_scale * p.inverse_temperature;
    const f64 gradient_at_max = select<f64>(ties == 1.0, result.gradient_at_max * p.inverse_temperature, nan);
    store(tile.exp_scale + at, exp_scale);
    store(tile.masked_value + at, masked_value);
    store(tile.target_scale + at, target_scale);
    store(tile.gradient_at_max + at, gradient_at_max);
    store(tile.max_probability + at, result.max_probability);
    store(tile.complement_at_max + at,
          select<f64>(ties == 1.0, sums.exp_sum_without_max * result.max_probability, nan));
    store(tile.z_curvature + at, result.z_curvature * p.inverse_temperature);
    if (p.output == Output::log_softmax || p.log_probabilities != nullptr)
        store(tile.lse_minus_max + at, log1p(sums.exp_sum_without_max));
    store(tile.entropy_scale + at, entropy_scale);
    store(tile.mean_gap + at, result.mean_gap);
    store(tile.entropy + at, result.entropy);
    if constexpr (!dense) {
        f64 g = exp_scale * e_target - target_scale * b;
        g = select<f64>((u == m) & (ties == 1.0), gradient_at_max, g);
        if (p.has_entropy()) g += entropy_gradient(p, tile, at, u, e_target);
        if constexpr (SomeTile::general) g *= load<f64>(tile.slope_target + at);
        g = select<f64>(exp_scale == exp_scale, g, masked_value);
        if constexpr (std::is_same_v<T, float>) {
            const f32_half narrow_g = kIsHalf<S> ? narrow_to_odd(g) : narrow(g);
            __builtin_memcpy(tile.written_at_target + at, &narrow_g, sizeof narrow_g);
        } else {
            store(tile.written_at_target + at, g);
        }
    }
    return select<f64>(counted, p.has_targets() ? result.loss : result.lse, f64{});
}

CE_END
