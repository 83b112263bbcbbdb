// A soft cap: the exponentials of capped logits k tanh(z / k), and the slopes of the cap.
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
#include <type_traits>

#include "../problem.hpp"
#include "loss.hpp"
#include "math.hpp"

CE_BEGIN

template <class V>
struct CappedExp {
    V e;      // exp((u - m) / temperature), u and m capped
    V slope;  // du/dz
};

// So many soft caps from zero a capped logit is the cap, to more digits than count. Its slope is given up at twice
// that.
template <class T>
constexpr double kSaturated = std::is_same_v<T, float> ? 20.0 : 40.0;

template <class V>
class SoftCap {
    using T = Element<V>;
    // In float32 B and D are multiplied by 2^64, so that neither leaves its range.
    static constexpr int kShift = std::is_same_v<T, float> ? 64 : 0;

    V highest_;    // h, or what is capped like it
    V most_;       // the slope of a logit above this is 0
    V least_gap_;  // D of a gap below this is 0
    ExpFactor<V> two_over_cap_;
    V b_, b_rest_;        // B
    V b_error_;           // of b_, relative
    ExpFactor<V> scale_;  // 2 k B / (1 + B) / temperature

    template <class U>
    static ExpFactor<U> two_over(double cap) {
        return ExpFactor<U>(2.0 / cap, std::fma(-2.0 / cap, cap, 2.0) / cap);
    }
    static double bounded(double cap, double highest) {
        return double(T(std::clamp(highest, -kSaturated<T> * cap, kSaturated<T> * cap)));
    }
    static double b_of(double cap, double bounded) {
        const f64 e = exp(Exact<f64>{splat<f64>(-std::abs(bounded)), f64{}}, two_over<f64>(cap));
        return bounded > 0 ? e[0] : 1.0 / e[0];
    }
    SoftCap(double cap, double inverse_temperature, double bounded, double b)
        : highest_(splat<V>(bounded)),
          most_(splat<V>(2.0 * kSaturated<T> * cap)),
          least_gap_(splat<V>((ExpConstants<T>::lowest - kShift * 0x1.62e42fefa39efp-1) * cap / 2.0)),
          two_over_cap_(two_over<V>(cap)),
          b_(splat<V>(std::ldexp(b, kShift))),
          b_rest_(splat<V>(std::ldexp(b - double(T(b)), kShift))),
          b_error_(splat<V>((b - double(T(b))) / b)),
          scale_(std::ldexp(2.0 * cap * inverse_temperature * (b / (1.0 + b)), kShift)) {}

 public:
    SoftCap(const Problem& p, double highest)
        : SoftCap(p.options.softcap, p.inverse_temperature, bounded(p.options.softcap, highest),
                  b_of(p.options.softcap, bounded(p.options.softcap, highest))) {}

    // Of logits z, none of which is above the highest.
    CE_INLINE CappedExp<V> operator()(V z) const {
        const auto beyond = z > most_;
        const Exact<V> gap = two_diff(select<V>(beyond, most_, z), highest_);
        const ScaledExp<V> scaled = scaled_exp(gap, two_over_cap_);
        const auto tiny = gap.value < least_gap_;
        V shifted = scaled.power;
        if constexpr (kShift != 0)
            shifted = (V)((Bits<V>)shifted + (std::uint32_t(kShift) << ExpConstants<T>::mantissa));
        const V power = shifted * splat<V>(std::ldexp(1.0, -kShift)), below_one = power - T(1);
        const V d = select<V>(tiny, V{}, fma(shifted, scaled.expm1, shifted));
        const V d_minus_1 = select<V>(tiny, splat<V>(-1.0), fma(power, scaled.expm1, below_one));
        const V d_minus_1_error = select<V>(tiny, V{}, fma(power, scaled.expm1, below_one - d_minus_1));
        const Exact<V> sum = two_sum(d, b_);
        const V sum_error = sum.error + b_rest_;
        const V inverse = T(1) / sum.value;
        const V quotient = d_minus_1 * inverse;
        // What rounding left out: of a difference of 60, half an ULP is a digit of the exponential.
        const V rest = fma(-quotient, sum.value, d_minus_1) + fma(-quotient, sum_error, d_minus_1_error);
        const V e = exp(Exact<V>{quotient, rest * inverse}, scale_);
        const V slope = T(4) * (d * inverse) * (b_ * inverse);
        const V slope_error = fma(sum_error * inverse, splat<V>(-2.0), b_error_);
        return {select<V>(z == splat<V>(-kInf), V{}, e), select<V>(beyond, V{}, fma(slope, slope_error, slope))};
    }
};

CE_END
