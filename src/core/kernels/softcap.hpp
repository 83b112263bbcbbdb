// A soft cap: the exponentials of capped logits k tanh(z / k), and the slopes of the cap.
//
// With D = exp(2 (z - h) / k) and B = exp(-2 h / k), h being the highest logit,
//
//     k tanh(z / k) - k tanh(h / k) = 2 k B / (1 + B) * (D - 1) / (D + B),    sech(z / k)^2 = 4 B D / (D + B)^2:
//
// a difference of two tanh without a cancellation, and its slope from the same exponential.
#pragma once

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
    V gap;    // u - m, as good as 0 where both are as good as the cap
};

// So many soft caps from zero a capped logit is the cap, to more digits than count. Its slope is given up at twice
// that.
template <class T>
constexpr double kSaturated = std::is_same_v<T, float> ? 20.0 : 40.0;

// Of rows whose highest logits are the lanes of h.
template <class V>
class SoftCap {
    using T = Element<V>;
    // In float32 B and D are multiplied by 2^64, so that neither leaves its range.
    static constexpr int kShift = std::is_same_v<T, float> ? 64 : 0;

    V highest_;    // h, or what is capped like it
    V most_;       // the slope of a logit above this is 0
    V least_gap_;  // D of a gap below this is 0
    ExpFactor<V> two_over_cap_;
    V b_, b_rest_, b_error_;  // B, what rounding left out, and that relative to B
    V scale_;                 // 2 k B / (1 + B)
    ExpFactor<V> exponent_;   // that, divided by the temperature

    template <class U>
    static ExpFactor<U> two_over(double cap) {
        return ExpFactor<U>(2.0 / cap, std::fma(-2.0 / cap, cap, 2.0) / cap);
    }
    // x, rounded to T, and what rounding left out.
    static Exact<V> rounded(const Exact<f64> (&x)[kHalves<T>]) {
        f64 rest[kHalves<T>];
#pragma GCC unroll 2
        for (int i = 0; i < kHalves<T>; ++i) rest[i] = x[i].value;
        const V value = narrow(rest);
        widen(value, rest);
#pragma GCC unroll 2
        for (int i = 0; i < kHalves<T>; ++i) rest[i] = x[i].value - rest[i] + x[i].error;
        return {value, narrow(rest)};
    }
    static Exact<f64> product(Exact<f64> a, Exact<f64> b) {
        const f64 value = a.value * b.value;
        return {value, fma(a.value, b.value, -value) + fma(a.value, b.error, a.error * b.value)};
    }

 public:
    SoftCap(const Problem& p, V highest) : two_over_cap_(two_over<V>(p.options.softcap)), exponent_(1.0) {
        const double cap = p.options.softcap;
        const V most = splat<V>(kSaturated<T> * cap);
        highest_ = select<V>(highest > most, most, select<V>(highest < -most, -most, highest));
        most_ = most + most;
        least_gap_ = splat<V>((ExpConstants<T>::lowest - kShift * 0x1.62e42fefa39efp-1) * cap / 2.0);
        const ExpFactor<f64> factor = two_over<f64>(cap);
        const double shift = std::ldexp(1.0, kShift);
        const Exact<f64> two_caps{splat<f64>(2.0 * shift * cap), f64{}},
            inverse_temperature{splat<f64>(p.inverse_temperature), splat<f64>(p.inverse_temperature_error)};
        f64 h[kHalves<T>], scale[kHalves<T>];
        Exact<f64> b[kHalves<T>], exponent[kHalves<T>];
        widen(highest_, h);
#pragma GCC unroll 2
        for (int i = 0; i < kHalves<T>; ++i) {
            const f64 e = exp(Exact<f64>{select<f64>(h[i] > 0, -h[i], h[i]), f64{}}, factor);
            const f64 unshifted = select<f64>(h[i] > 0, e, 1.0 / e);
            const Exact<f64> one_more = two_sum(unshifted, splat<f64>(1.0));
            const f64 share = unshifted / one_more.value;
            const f64 rest = fma(-share, one_more.value, unshifted) - share * one_more.error;
            const Exact<f64> of_caps = product(two_caps, {share, rest / one_more.value});
            b[i] = {shift * unshifted, f64{}};
            scale[i] = of_caps.value;
            exponent[i] = product(of_caps, inverse_temperature);
        }
        const Exact<V> rounded_b = rounded(b), rounded_exponent = rounded(exponent);
        b_ = rounded_b.value, b_rest_ = rounded_b.error, b_error_ = b_rest_ / b_;
        scale_ = narrow(scale);
        exponent_ = ExpFactor<V>(rounded_exponent.value, rounded_exponent.error);
    }

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
        const Exact<V> exact{quotient, rest * inverse};
        const V slope = T(4) * (d * inverse) * (b_ * inverse);
        const V inverse_error = fma(-inverse, sum.value, splat<V>(1.0)) - sum_error * inverse;
        const V slope_error = fma(inverse_error, splat<V>(2.0), b_error_);
        const auto none = z == splat<V>(-kInf);  // stays what it is
        return {select<V>(none, V{}, exp(exact, exponent_)), select<V>(beyond, V{}, fma(slope, slope_error, slope)),
                select<V>(none, z, select<V>(exact.value > 0, V{}, (exact.value + exact.error) * scale_))};
    }
};

CE_END
