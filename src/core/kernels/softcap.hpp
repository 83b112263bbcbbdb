// A soft cap in float32: the exponentials of capped logits k tanh(z / k), and the slopes of the cap.
//
// With D = exp(2 (z - h) / k) and B = exp(-2 h / k), h being the highest logit,
//
//     k tanh(z / k) - k tanh(h / k) = 2 k B / (1 + B) * (D - 1) / (D + B),    sech(z / k)^2 = 4 B D / (D + B)^2:
//
// a difference of two tanh without a cancellation, and its slope from the same exponential.
#pragma once

#include <algorithm>
#include <cmath>

#include "../problem.hpp"
#include "loss.hpp"
#include "math.hpp"

CE_BEGIN

template <class V>
struct CappedExp {
    V e;      // exp((u - m) / temperature), u and m capped
    V slope;  // du/dz
};

// Up to so many soft caps from zero a logit is told from the cap itself, to float64's digits.
constexpr double kCapped = 20.0;

template <class V>
class SoftCap {
    V highest_;  // h, kept so close to zero that neither B nor D leaves the range of float32
    V most_;     // D of a logit above this would, and its slope is below that range
    ExpFactor<V> two_over_cap_;
    V b_, b_rest_;        // B
    ExpFactor<V> scale_;  // 2 k B / (1 + B) / temperature

    static double bounded(const Problem& p, double highest) {
        const double most = kCapped * p.options.softcap;
        return double(Element<V>(std::clamp(highest, -most, most)));
    }
    static double exp_of(const Problem& p, double bounded) {
        const f64 e = exp(splat<f64>(-2.0 * std::abs(bounded) / p.options.softcap));
        return bounded > 0 ? e[0] : 1.0 / e[0];
    }
    SoftCap(const Problem& p, double bounded, double b)
        : highest_(splat<V>(bounded)),
          most_(splat<V>(3.0 * kCapped * p.options.softcap)),
          two_over_cap_(2.0 / p.options.softcap),
          b_(splat<V>(b)),
          b_rest_(splat<V>(b - double(Element<V>(b)))),
          scale_(2.0 * p.options.softcap * p.inverse_temperature * (b / (1.0 + b))) {}

 public:
    SoftCap(const Problem& p, double highest) : SoftCap(p, bounded(p, highest), exp_of(p, bounded(p, highest))) {}

    // Of logits z, none of which is above the highest.
    CE_INLINE CappedExp<V> operator()(V z) const {
        const Exact<V> gap = two_diff(select<V>(z > most_, most_, z), highest_);
        const ScaledExp<V> scaled = scaled_exp(gap, two_over_cap_);
        const auto tiny = gap.value < two_over_cap_.lowest;
        const V below_one = scaled.power - 1.0f;
        const V d = select<V>(tiny, V{}, fma(scaled.power, scaled.expm1, scaled.power));
        const V d_minus_1 = select<V>(tiny, splat<V>(-1.0), fma(scaled.power, scaled.expm1, below_one));
        const V d_error = select<V>(tiny, V{}, fma(scaled.power, scaled.expm1, below_one - d_minus_1));
        const Exact<V> sum = two_sum(d, b_);
        const V inverse = 1.0f / sum.value;
        const V quotient = d_minus_1 * inverse;
        // What rounding left out, numerator and denominator included: of a difference of 60 half an ULP is a digit of
        // the exponential.
        const V rest = fma(-quotient, sum.value, d_minus_1) + fma(-quotient, sum.error + b_rest_, d_error);
        const V e = exp(Exact<V>{quotient, rest * inverse}, scale_);
        return {select<V>(z == splat<V>(-kInf), V{}, e), 4.0f * (d * inverse) * (b_ * inverse)};
    }
};

CE_END
