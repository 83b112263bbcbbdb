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
#include <cstdint>

#include "../problem.hpp"
#include "loss.hpp"
#include "math.hpp"

CE_BEGIN

template <class V>
struct CappedExp {
    V e;      // exp((u - m) / temperature), u and m capped
    V slope;  // du/dz
};

// So many soft caps from zero, a capped logit is the cap, to float64's digits.
constexpr double kCapped = 20.0;

template <class V>
class SoftCap {
    // B and D are multiplied by 2^64: then both, and so the slopes, keep their digits from a soft cap's 40-fold on
    // either side of zero.
    static constexpr int kShift = 64;

    V highest_;  // h, or what it is capped like
    V most_;     // beyond that on either side a slope is below the range of float32
    V least_gap_;
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
          most_(splat<V>(2.0 * kCapped * p.options.softcap)),
          least_gap_(splat<V>((ExpConstants<float>::lowest - kShift * 0x1.62e42fefa39efp-1) * p.options.softcap / 2)),
          two_over_cap_(2.0 / p.options.softcap),
          b_(splat<V>(std::ldexp(b, kShift))),
          b_rest_(splat<V>(std::ldexp(b - double(Element<V>(b)), kShift))),
          scale_(std::ldexp(2.0 * p.options.softcap * p.inverse_temperature * (b / (1.0 + b)), kShift)) {}

 public:
    SoftCap(const Problem& p, double highest) : SoftCap(p, bounded(p, highest), exp_of(p, bounded(p, highest))) {}

    // Of logits z, none of which is above the highest.
    CE_INLINE CappedExp<V> operator()(V z) const {
        const auto beyond = z > most_;
        const Exact<V> gap = two_diff(select<V>(beyond, most_, z), highest_);
        const ScaledExp<V> scaled = scaled_exp(gap, two_over_cap_);
        const auto tiny = gap.value < least_gap_;
        const V shifted = (V)((Bits<V>)scaled.power + (std::uint32_t(kShift) << ExpConstants<float>::mantissa));
        const V power = shifted * splat<V>(std::ldexp(1.0, -kShift)), below_one = power - 1.0f;
        const V d = select<V>(tiny, V{}, fma(shifted, scaled.expm1, shifted));
        const V d_minus_1 = select<V>(tiny, splat<V>(-1.0), fma(power, scaled.expm1, below_one));
        const V d_error = select<V>(tiny, V{}, fma(power, scaled.expm1, below_one - d_minus_1));
        const Exact<V> sum = two_sum(d, b_);
        const V inverse = 1.0f / sum.value;
        const V quotient = d_minus_1 * inverse;
        // What rounding left out, numerator and denominator included: of a difference of 60 half an ULP is a digit of
        // the exponential.
        const V rest = fma(-quotient, sum.value, d_minus_1) + fma(-quotient, sum.error + b_rest_, d_error);
        const V e = exp(Exact<V>{quotient, rest * inverse}, scale_);
        const V slope = 4.0f * (d * inverse) * (b_ * inverse);
        return {select<V>(z == splat<V>(-kInf), V{}, e), select<V>(beyond, V{}, slope)};
    }
};

CE_END
