// What the options make of a row: its loss, and the numbers with which its gradient is a softmax(u) - b.
#pragma once

#include <type_traits>

#include "../problem.hpp"
#include "compensated.hpp"
#include "lanes.hpp"
#include "math.hpp"

CE_BEGIN

// Sums over the classes of a row, one row a lane. `rest` (r) is the sum of exp(u - m) over every class but one that
// attains the maximum m: log1p(rest) and rest / (1 + rest) keep the digits that log(1 + rest) and 1 - p would lose.
struct RowSums {
    f64 highest;    // m
    f64 rest;       // r
    f64 spread;     // sum of b_c (m - u_c)
    f64 b_rest;     // sum of b_c where u_c < m
    f64 b_highest;  // sum of b_c where u_c = m
};

struct RowFactors {
    f64 weight;  // omega: the target's class weight, or 1 for probabilities
    f64 sample;  // s
    f64 scale;   // of the gradient, s included
};

struct RowResult {
    f64 lse, loss;
    f64 softmax_scale;  // the gradient is softmax_scale * exp(u - m) - scale * b
    f64 at_highest;     // the gradient at a unique maximum, without the cancellation of p - 1
    f64 probability;    // p = probability * exp(u - m)
    f64 tail_scale;     // the diagonal of the Hessian in u is exp(u - m) (softmax_scale (1 - p) + tail_scale p)
};

CE_INLINE RowResult row_result(const Problem& p, const RowSums& sums, const RowFactors& row) {
    const f64 inverse_temperature = splat<f64>(p.inverse_temperature);
    const auto finite =
        (sums.highest < splat<f64>(kInf)) & (sums.highest > splat<f64>(-kInf)) & (sums.rest == sums.rest);
    const f64 b = sums.b_rest + sums.b_highest;
    const auto valid = finite & (b == b);
    const f64 inverse = 1.0 / (1.0 + sums.rest);
    const f64 log_total = log1p(sums.rest, inverse);
    const f64 lse = fma(sums.highest, inverse_temperature, log_total);

    f64 loss = fma(b, log_total, sums.spread * inverse_temperature);
    f64 tail{};  // what the z-loss adds to a
    if (p.options.z_loss > 0.0) {
        const f64 factor = p.options.z_loss * row.weight;
        loss += select<f64>(factor != 0, factor * lse * lse, f64{});
        tail = select<f64>(factor != 0, 2.0 * factor * lse, f64{});
    }
    const f64 per_total = row.scale * inverse;
    const f64 nan = splat<f64>(kNaN);
    RowResult result;
    // Without finite logits log-sum-exp is still -inf or +inf, unless one of them is NaN.
    result.lse = select<f64>(finite, lse, select<f64>(sums.rest == sums.rest, sums.highest, nan));
    result.loss = select<f64>(valid, row.sample * loss, nan);
    result.softmax_scale = select<f64>(valid, per_total * (b + tail), nan);
    result.probability = inverse;
    result.tail_scale = per_total * 2.0 * p.options.z_loss * row.weight;
    result.at_highest = per_total * ((sums.b_rest - sums.b_highest * sums.rest) + tail);
    return result;
}

// The value of a class as the softmax sees it before the temperature: the logit, or the capped logit.
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

// du/dz before the temperature.
CE_INLINE f64 capped_slope(const Problem& p, f64 z) {
    return p.options.softcap < kInf ? tanh(z / p.options.softcap).slope : splat<f64>(1.0);
}

// The second derivative over the first, from the capped logit u.
CE_INLINE f64 capped_curvature(const Problem& p, f64 u) {
    if (!(p.options.softcap < kInf)) return f64{};
    const f64 tanh = u / p.options.softcap;
    return -2.0 / p.options.softcap * select<f64>(tanh < -1, splat<f64>(-1.0), tanh);
}

// log p = u - lse, from u - m and log1p(r); -inf stays -inf.
CE_INLINE f64 log_probability(f64 u, f64 m, f64 log_total) {
    const Exact<f64> d = two_diff(u, m);
    return select<f64>(d.value == splat<f64>(-kInf), d.value, d.value - (log_total - d.error));
}

// exp((u - m) / temperature), with the rounding errors of the difference and of the quotient carried along:
// alone, rounding u - m to float32 costs 64 ULP of a small probability. `exact`: the difference is known to have no
// error.
template <bool transformed, bool exact = false, class V>
CE_INLINE V exp_below(const Problem& p, V u, V highest) {
    if constexpr (exact && !transformed) return exp(u - highest);
    const Exact<V> d = two_diff(u, highest);
    if constexpr (!transformed) {
        return exp(d.value, d.error);
    } else {
        const V inverse = splat<V>(p.inverse_temperature);
        const V x = d.value * inverse;
        const V error = d.value * splat<V>(p.inverse_temperature_error) + d.error * inverse;
        return exp(x, fma(d.value, inverse, -x) + error);
    }
}

CE_END
