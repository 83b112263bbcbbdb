// The definition of the loss: from the sums over the classes of a row to its loss, and to the numbers with which its
// gradient is a softmax(u) - b. One row a lane.
//
// Here u is the logit, or the capped logit, before it is divided by the temperature; m is the maximum of a row's u.
#pragma once

#include <type_traits>

#include "../problem.hpp"
#include "compensated.hpp"
#include "lanes.hpp"
#include "math.hpp"

CE_BEGIN

// Sums over the classes of a row. One class that attains the maximum is left out of the sum of exponentials: log1p(r)
// and r / (1 + r) keep the digits that log(1 + r) and 1 - p would lose.
struct RowSums {
    f64 max;                  // m
    f64 exp_sum_without_max;  // r: sum of exp(u_c - m) over every class but one with u_c = m
    f64 weighted_gap;         // sum of b_c (m - u_c)
    f64 b_below_max;          // sum of b_c where u_c < m
    f64 b_at_max;             // sum of b_c where u_c = m
    f64 exp_gap;              // sum of exp(u_c - m) (m - u_c), if the entropy is wanted
};

struct RowFactors {
    f64 weight;          // omega: the target's class weight, or 1 for probabilities
    f64 sample_weight;   // s
    f64 gradient_scale;  // the upstream gradient times s
    f64 entropy_scale;   // the upstream gradient of the entropy
    f64 e_target;        // exp(u - m) of a single target
};

struct RowResult {
    f64 lse, loss;
    f64 exp_scale;        // the gradient is exp_scale * exp(u - m) - gradient_scale * b
    f64 gradient_at_max;  // the gradient at a unique maximum, without the cancellation of p - 1
    f64 max_probability;  // p = max_probability * exp(u - m)
    f64 z_curvature;      // the diagonal of the Hessian in u is exp(u - m) (exp_scale (1 - p) + z_curvature p)
    f64 target_scale;     // gradient_scale, times the gradient's focal factor
    f64 entropy;
    // To the gradient is added entropy_scale * exp(u - m) ((m - u) / tau - mean_gap). It must not be expanded: in
    // float32 a gap of 40 would then lose every digit.
    f64 entropy_scale, mean_gap;
};

// What the focal loss multiplies a row's loss and its gradient by (Lin et al. 2017): Q^gamma, and
// Q^gamma (1 + gamma log1p(o) / o), with the odds o = Q / P of every other class, Q = 1 - P. Without a focal loss 1.
struct FocalFactors {
    f64 loss, gradient;
};

CE_INLINE FocalFactors focal_factors(double gamma, f64 exp_sum_without_max, f64 e_target) {
    const f64 one = splat<f64>(1.0);
    if (!(gamma > 0.0)) return {one, one};
    // For a target at the maximum this is r, without a cancellation.
    const f64 odds = (exp_sum_without_max + (1.0 - e_target)) / e_target, inverse = 1.0 / odds;
    const auto none = odds == 0, all = odds == splat<f64>(kInf);
    const f64 log_q = -log1p(inverse);
    const f64 power = select<f64>(none, f64{}, exp(gamma * log_q));
    const f64 factor = select<f64>(all, one, 1.0 + gamma * log1p(odds) * inverse);
    return {power, select<f64>(none, f64{}, power * factor)};
}

// What is slow to compute of a row: its largest probability 1 / (1 + r), and log1p(r).
struct RowLogarithm {
    f64 max_probability, lse_minus_max;

    CE_INLINE explicit RowLogarithm(f64 r)
        : max_probability(1.0 / (1.0 + r)), lse_minus_max(log1p(r, max_probability)) {}
    CE_INLINE RowLogarithm(f64 probability, f64 logarithm) : max_probability(probability), lse_minus_max(logarithm) {}
};

CE_INLINE RowResult row_result(const Options& options, double inverse_tau, const RowSums& given, const RowFactors& row,
                               const RowLogarithm& logarithm) {
    RowSums sums = given;
    const f64 inverse_temperature = splat<f64>(inverse_tau), r = sums.exp_sum_without_max;
    const auto finite = (sums.max < splat<f64>(kInf)) & (sums.max > splat<f64>(-kInf)) & (r == r);
    const auto valid = finite & (sums.b_below_max + sums.b_at_max == sums.b_below_max + sums.b_at_max);
    const f64 max_probability = logarithm.max_probability, lse_minus_max = logarithm.lse_minus_max;
    const f64 lse = fma(sums.max, inverse_temperature, lse_minus_max);

    f64 b = sums.b_below_max + sums.b_at_max;
    f64 loss = fma(b, lse_minus_max, sums.weighted_gap * inverse_temperature);
    const FocalFactors focal = focal_factors(options.focal_gamma, r, row.e_target);
    if (options.focal_gamma > 0.0) {
        loss = select<f64>(loss == 0, loss, loss * focal.loss);
        b *= focal.gradient;
        sums.b_below_max *= focal.gradient;
        sums.b_at_max *= focal.gradient;
    }
    f64 z_term{};  // what the z-loss adds to a
    if (options.z_loss > 0.0) {
        const f64 factor = options.z_loss * row.weight;
        loss += select<f64>(factor != 0, factor * lse * lse, f64{});
        z_term = select<f64>(factor != 0, 2.0 * factor * lse, f64{});
    }
    const f64 scale = row.gradient_scale * max_probability;
    const f64 nan = splat<f64>(kNaN);
    RowResult result;
    result.mean_gap = sums.exp_gap * inverse_temperature * max_probability;
    result.entropy = select<f64>(finite, lse_minus_max + result.mean_gap, nan);
    result.entropy_scale = row.entropy_scale * max_probability;
    if (options.entropy_bonus != 0.0) {
        const f64 factor = options.entropy_bonus * row.weight;
        loss -= select<f64>(factor != 0, factor * result.entropy, f64{});
        result.entropy_scale -= select<f64>(factor != 0, factor * scale, f64{});
    }
    result.target_scale = row.gradient_scale * focal.gradient;
    // Without finite logits log-sum-exp is still -inf or +inf, unless one of them is NaN.
    result.lse = select<f64>(finite, lse, select<f64>(r == r, sums.max, nan));
    result.loss = select<f64>(valid, row.sample_weight * loss, nan);
    result.exp_scale = select<f64>(valid, scale * (b + z_term), nan);
    result.max_probability = max_probability;
    result.z_curvature = scale * 2.0 * options.z_loss * row.weight;
    result.gradient_at_max = scale * ((sums.b_below_max - sums.b_at_max * r) + z_term);
    return result;
}
CE_INLINE RowResult row_result(const Problem& p, const RowSums& sums, const RowFactors& row) {
    return row_result(p.options, p.inverse_temperature, sums, row, RowLogarithm(sums.exp_sum_without_max));
}

// u: the logit, or the capped logit. A soft cap is computed in float64 only.
template <class V>
CE_INLINE V capped(const Problem& p, V z) {
    if constexpr (std::is_same_v<V, f64>) {
        if (p.options.softcap < kInf) {
            const f64 cap = splat<f64>(p.options.softcap);
            const f64 size = select<f64>(z < 0, -z, z);
            return select<f64>(size == splat<f64>(kInf), z, cap * tanh(z / cap).value);
        }
    }
    return z;
}

// du/dz.
CE_INLINE f64 capped_slope(const Problem& p, f64 z) {
    return p.options.softcap < kInf ? tanh(z / p.options.softcap).slope : splat<f64>(1.0);
}

// The second derivative of u divided by the first, from the capped logit u.
CE_INLINE f64 capped_curvature(const Problem& p, f64 u) {
    if (!(p.options.softcap < kInf)) return f64{};
    const f64 tanh = u / p.options.softcap;
    return -2.0 / p.options.softcap * select<f64>(tanh < -1, splat<f64>(-1.0), tanh);
}

// log p = u - lse, from m and lse - m; -inf stays -inf.
CE_INLINE f64 log_probability(f64 u, f64 max, f64 lse_minus_max) {
    const Exact<f64> gap = two_diff(u, max);
    return select<f64>(gap.value == splat<f64>(-kInf), gap.value, gap.value - (lse_minus_max - gap.error));
}

// 1 / temperature, where there is one: without it nothing is multiplied.
struct NoFactor {};
template <bool scaled, class V>
CE_INLINE auto temperature_factor(const Problem& p) {
    if constexpr (scaled)
        return ExpFactor<V>(p.inverse_temperature, p.inverse_temperature_error);
    else
        return NoFactor{};
}

// exp((u - m) / temperature). The rounding error of the difference is carried along: alone, rounding u - m to float32
// costs 64 ULP of a small probability. `exact`: the difference is known to have no error.
template <bool exact = false, class V>
CE_INLINE V exp_below(V u, V max, NoFactor) {
    if constexpr (exact) return exp(u - max);
    const Exact<V> gap = two_diff(u, max);
    return exp(gap.value, gap.error);
}
template <bool exact = false, class V>
CE_INLINE V exp_below(V u, V max, const ExpFactor<V>& factor) {
    return exp(two_diff(u, max), factor);
}
template <bool scaled, class V>
CE_INLINE V exp_below(const Problem& p, V u, V max) {
    return exp_below(u, max, temperature_factor<scaled, V>(p));
}

CE_END
