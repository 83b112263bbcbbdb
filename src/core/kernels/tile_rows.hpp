// From the sums over the classes of a tile's rows to their losses, and to what their gradients are made of.
#pragma once

#include "../problem.hpp"
#include "lanes.hpp"
#include "loss.hpp"
#include "softcap.hpp"
#include "storage.hpp"
#include "tile.hpp"

CE_BEGIN

// What label smoothing adds to the coefficient of every class, if there are no class weights.
inline double shared_coefficient(const Problem& p) { return p.options.label_smoothing / double(p.classes); }

// The gradient of the entropies of rows with respect to u of a class each, in one vector of float64.
template <class SomeTile>
CE_INLINE f64 entropy_gradient(const Problem& p, const SomeTile& tile, int at, f64 u, f64 e) {
    const f64 gap = (load_as<double>(tile.max + at) - u) * p.inverse_temperature - load<f64>(tile.mean_gap + at);
    return select<f64>(e != 0, load<f64>(tile.entropy_scale + at) * e * gap, f64{});
}

// Of the rows in one vector of float64: the sums over their classes. b, gap: the coefficient of a target apart, and its
// m - u.
template <TileCoefficients kind, class SomeTile>
CE_INLINE RowSums row_sums(const Problem& p, const SomeTile& tile, int at, f64 b, f64 u, f64 m, f64 gap, f64 ties) {
    RowSums sums{m, load<f64>(tile.exp_sum + at), f64{}, f64{}, f64{}, load<f64>(tile.exp_gap + at)};
    if constexpr (kind == TileCoefficients::dense) {
        sums.weighted_gap = load<f64>(tile.weighted_gap + at);
        sums.b_below_max = load<f64>(tile.b_below_max + at);
        sums.b_at_max = load<f64>(tile.b_at_max + at);
    } else {
        sums.weighted_gap = select<f64>(b == 0, f64{}, b * gap);
        sums.b_below_max = select<f64>(u == m, f64{}, b);
        sums.b_at_max = select<f64>(u == m, b, f64{});
    }
    if constexpr (kind == TileCoefficients::shared) {
        const double shared = shared_coefficient(p);
        if (shared != 0.0) sums.weighted_gap += shared * load<f64>(tile.weighted_gap + at);
        sums.b_below_max += shared * (double(p.classes) - ties);
        sums.b_at_max += shared * ties;
    }
    return sums;
}

// The logarithms of all rows. In a loop of its own, since one is a long chain of operations that wait for each other:
// so several rows' are computed at the same time.
template <class SomeTile>
CE_INLINE void take_logarithms(SomeTile& tile) {
    for (int at = 0; at < SomeTile::kRows; at += kWidth<double>) {
        const RowLogarithm logarithm(load<f64>(tile.exp_sum + at));
        store(tile.max_probability + at, logarithm.max_probability);
        store(tile.lse_minus_max + at, logarithm.lse_minus_max);
    }
}

// Whether a row has nothing but a loss and a gradient, and no option that adds a term to them.
inline bool has_plain_rows(const Problem& p) {
    return p.options.z_loss == 0.0 && p.options.focal_gamma == 0.0 && !p.has_entropy() && p.diagonal == nullptr &&
           p.log_probabilities == nullptr && p.output != Output::log_softmax;
}

// From the sums of the rows in one vector of float64: their values, which are returned, and what scales their gradient.
template <TileCoefficients kind, bool plain, class SomeTile>
CE_INLINE f64 finish_rows(const Problem& p, SomeTile& tile, int at) {
    const auto counted = load_integers(tile.target + at) >= 0;
    const f64 nan = splat<f64>(kNaN);
    const f64 m = load_as<double>(tile.max + at), ties = load_as<double>(tile.ties + at);
    const f64 weight = load<f64>(tile.weight + at), u = load_as<double>(tile.u_target + at);
    f64 e_target = load_as<double>(tile.e_target + at), gap = m - u, slope = splat<f64>(1.0);
    if constexpr (SomeTile::mode == Mode::capped) {
        const CappedExp<f64> of_target = SoftCap<f64>(p, m)(u);
        e_target = of_target.e, gap = select<f64>(u == m, f64{}, -of_target.gap), slope = of_target.slope;
    } else if constexpr (SomeTile::general && kind != TileCoefficients::dense) {
        slope = load<f64>(tile.slope_target + at);
    }
    f64 b = p.indices == nullptr && p.has_targets() ? f64{} : weight;  // of a target apart, beside what classes share
    if constexpr (kind == TileCoefficients::shared) b = splat<f64>(1.0 - p.options.label_smoothing);
    // Of plain rows the compiler leaves out what the other options would take.
    const Options options = plain ? Options{} : p.options;
    const double inverse_tau = plain && !SomeTile::scaled ? 1.0 : p.inverse_temperature;
    RowSums sums = row_sums<kind>(p, tile, at, b, u, m, gap, ties);
    if constexpr (SomeTile::mode == Mode::capped) sums.max = capped(p, m);
    const RowResult result =
        row_result(options, inverse_tau, sums,
                   {weight, load<f64>(tile.sample_weight + at), load<f64>(tile.gradient_scale + at),
                    plain ? f64{} : load<f64>(tile.entropy_grad + at), e_target},
                   {load<f64>(tile.max_probability + at), load<f64>(tile.lse_minus_max + at)});
    const f64 scale = result.exp_scale * inverse_tau;
    const f64 entropy_scale = result.entropy_scale * inverse_tau;
    auto scaled = (scale - scale == 0) & counted;
    if constexpr (!plain) scaled &= entropy_scale - entropy_scale == 0;
    const f64 exp_scale = select<f64>(scaled, scale, nan);
    const f64 masked_value = select<f64>(counted, nan, f64{});
    const f64 target_scale = result.target_scale * inverse_tau;
    const f64 gradient_at_max = select<f64>(ties == 1.0, result.gradient_at_max * inverse_tau, nan);
    store(tile.exp_scale + at, exp_scale);
    store(tile.masked_value + at, masked_value);
    if constexpr (kind == TileCoefficients::dense) store(tile.target_term + at, target_scale);
    if constexpr (kind == TileCoefficients::shared) store(tile.target_term + at, target_scale * shared_coefficient(p));
    if constexpr (kind != TileCoefficients::single) store(tile.gradient_at_max + at, gradient_at_max);
    if (!plain && p.diagonal != nullptr) {
        store(tile.gradient_at_max + at, gradient_at_max);
        store(tile.complement_at_max + at,
              select<f64>(ties == 1.0, load<f64>(tile.exp_sum + at) * result.max_probability, nan));
        store(tile.z_curvature + at, result.z_curvature * inverse_tau);
    }
    if (!plain && (p.has_entropy() || p.log_probabilities != nullptr)) {
        store(tile.entropy_scale + at, entropy_scale);
        store(tile.mean_gap + at, result.mean_gap);
        store(tile.entropy + at, result.entropy);
    }
    if constexpr (kind != TileCoefficients::dense) {
        if constexpr (kind == TileCoefficients::shared) b += shared_coefficient(p);
        f64 g = exp_scale * e_target - target_scale * b;
        g = select<f64>((u == m) & (ties == 1.0), gradient_at_max, g);
        if (!plain && p.has_entropy()) g += entropy_gradient(p, tile, at, u, e_target);
        if constexpr (SomeTile::has_slopes) g *= slope;
        g = select<f64>(exp_scale == exp_scale, g, masked_value);
        if constexpr (SomeTile::has_slopes) store(tile.gradient_at_target + at, g);
        store_as(tile.written_at_target + at, g);
    }
    return select<f64>(counted, p.has_targets() ? result.loss : result.lse, f64{});
}

CE_END
