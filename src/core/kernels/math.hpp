// exp, tanh and log1p on vectors. No libm: its results differ from one platform to the next.
// ULP figures are the largest errors seen against mpmath by tests/test_accuracy.py.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>

#include "compensated.hpp"
#include "vectors.hpp"

CE_BEGIN

// exp(t) = 1 + t + t^2 S(t) for |t| <= ln(2) / 2. S is the minimax polynomial for the relative error of exp, found by
// the Remez algorithm. ln 2 is in two parts; the first is short enough that n times it is exact, even without a fused
// multiply-add.
template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
    static constexpr double round = 0x1.8p23, ln2_high = 0x1.62e4p-1, ln2_low = 0x1.7f7d1cf79abcap-20;
    static constexpr double lowest = -87.33;  // just above ln(2^-126)
    static constexpr int mantissa = 23;
    static constexpr uint32_t one = 0x3f800000;
    static constexpr double series[] = {0x1.fffffcp-2, 0x1.555492p-3, 0x1.5558f2p-5, 0x1.123a2p-7,
                                        0x1.6a23dp-10};  // error 2^-28
};
template <>
struct ExpConstants<double> {
    static constexpr double round = 0x1.8p52, ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
    static constexpr double lowest = -708.39;  // just above ln(2^-1022)
    static constexpr int mantissa = 52;
    static constexpr uint64_t one = 0x3ff0000000000000;
    static constexpr double series[] = {0x1.000000000000ap-1,  0x1.55555555554f9p-3,  0x1.555555555083ep-5,
                                        0x1.1111111127d0ep-7,  0x1.6c16c18438b08p-10, 0x1.a01a012a0f351p-13,
                                        0x1.a01999e2633fdp-16, 0x1.71df25b3100a2p-19, 0x1.28ad9b8551757p-22,
                                        0x1.ad7f3ee016e7dp-26};  // error 2^-56
};

// exp(x + error) = power (1 + expm1) with power = 2^n and |expm1| < 0.42, for x in [lowest, 0]. The error is optional.
template <class V>
struct ScaledExp {
    V power, expm1;
};
// `shifted`: n, added to C::round. t = x - n ln 2.
template <class V>
CE_INLINE ScaledExp<V> power_and_expm1(V shifted, V t) {
    using C = ExpConstants<Element<V>>;
    constexpr int degree = int(std::size(C::series)) - 1;
    V series = splat<V>(C::series[degree]);
#pragma GCC unroll 16
    for (int k = degree - 1; k >= 0; --k) series = fma(series, t, splat<V>(C::series[k]));
    return {(V)(((Bits<V>)shifted << C::mantissa) + C::one), fma(t * t, series, t)};
}
template <class V, class... Error>
CE_INLINE ScaledExp<V> scaled_exp(V x, Error... error) {
    using C = ExpConstants<Element<V>>;
    const V shifted = fma(x, splat<V>(0x1.71547652b82fep0), splat<V>(C::round));  // log2(e) x + round
    const V n = shifted - splat<V>(C::round);
    V t = fma(n, splat<V>(-C::ln2_high), x);
    t = (fma(n, splat<V>(-C::ln2_low), t) + ... + error);
    return power_and_expm1(shifted, t);
}

// exp(x + error) for x <= 0 and a much smaller error: below 1 ULP. Exactly 1 at 0, exactly 0 below the normal range;
// NaN stays NaN. An infinite x gives 0 whatever the error holds.
template <class V, class... Error>
CE_INLINE V exp(V x, Error... error) {
    const ScaledExp<V> e = scaled_exp(x, error...);
    return select<V>(x < splat<V>(ExpConstants<Element<V>>::lowest), V{}, fma(e.power, e.expm1, e.power));
}

// A factor f > 0, given as a sum of two numbers, and what exp(f * gap) needs of it.
template <class V>
struct ExpFactor {
    V high, low;  // f
    V in_bits;    // f log2(e)
    V lowest;     // the gap below which the result is 0

    explicit ExpFactor(double factor, double rest = 0.0) {
        using E = Element<V>;
        const double most = double(std::numeric_limits<E>::max());
        high = splat<V>(factor);
        low = splat<V>((factor - double(E(factor))) + rest);
        in_bits = splat<V>(factor * 0x1.71547652b82fep0);
        lowest = splat<V>(std::max(ExpConstants<E>::lowest / factor, -most));
    }
    // A factor for each lane, none of them so small that `lowest` would overflow.
    ExpFactor(V factor, V rest)
        : high(factor),
          low(rest),
          in_bits(factor * splat<V>(0x1.71547652b82fep0)),
          lowest(splat<V>(ExpConstants<Element<V>>::lowest) / factor) {}
};

// a b - c, rounded once for a c that is nearly the product.
template <class V>
CE_INLINE V product_minus(V a, V b, V c) {
#if CE_FUSED
    return fma(a, b, -c);
#else
    // Dekker's product of halves; where those overflow, the rounding error is left out.
    constexpr double half = sizeof(Element<V>) == 8 ? 0x1p27 + 1 : 0x1p12 + 1;
    const V product = a * b, large_a = Element<V>(half) * a, large_b = Element<V>(half) * b;
    const V a1 = large_a - (large_a - a), b1 = large_b - (large_b - b), a2 = a - a1, b2 = b - b1;
    const V error = a2 * b2 - (((product - a1 * b1) - a2 * b1) - a1 * b2);
    return (product - c) + select<V>(error == error, error, V{});
#endif
}

// exp(f * gap), as `scaled_exp` and `exp` above. The product is never rounded: a multiple of ln 2 is taken from it as
// it is.
template <class V>
CE_INLINE ScaledExp<V> scaled_exp(const Exact<V>& gap, const ExpFactor<V>& f) {
    using C = ExpConstants<Element<V>>;
    const V shifted = fma(gap.value, f.in_bits, splat<V>(C::round));
    const V n = shifted - splat<V>(C::round);
    const V t = fma(n, splat<V>(-C::ln2_low), product_minus(gap.value, f.high, n * splat<V>(C::ln2_high)));
    return power_and_expm1(shifted, t + fma(gap.value, f.low, gap.error * f.high));
}
template <class V>
CE_INLINE V exp(const Exact<V>& gap, const ExpFactor<V>& f) {
    const ScaledExp<V> e = scaled_exp(gap, f);
    return select<V>(gap.value < f.lowest, V{}, fma(e.power, e.expm1, e.power));
}

// tanh(x) below 3 ULP, and its derivative sech(x)^2 = 4 e / (1 + e)^2 with e = exp(-2 |x|), which keeps its digits
// where tanh is close to one.
struct Tanh {
    f64 value, slope;
};
CE_INLINE Tanh tanh(f64 x) {
    const f64 y = splat<f64>(-2.0) * select<f64>(x < 0, -x, x);
    const ScaledExp<f64> scaled = scaled_exp(y);
    const auto tiny = y < splat<f64>(ExpConstants<double>::lowest);
    const f64 e = select<f64>(tiny, f64{}, fma(scaled.power, scaled.expm1, scaled.power));
    const f64 e_minus_1 = select<f64>(tiny, splat<f64>(-1.0), fma(scaled.power, scaled.expm1, scaled.power - 1.0));
    const f64 value = -e_minus_1 / (1.0 + e);
    return {select<f64>(x < 0, -value, value), 4.0 * e / ((1.0 + e) * (1.0 + e))};
}

// log(1 + r) for finite r >= 0, below 1 ULP. `inverse`: 1 / (1 + r).
// 1 + r = 2^k (1 + f) (1 + error); log(1 + f) is computed from the series of atanh.
CE_INLINE f64 log1p(f64 r, f64 inverse) {
    const f64 u = 1.0 + r;
    const f64 t = u - r;
    const f64 error = ((r - (u - t)) + (1.0 - t)) * inverse;

    const i64 bits = (i64)u;
    const f64 fraction = (f64)((bits & 0x000fffffffffffff) | int64_t(ExpConstants<double>::one));  // in [1, 2)
    const auto large = fraction > splat<f64>(0x1.6a09e667f3bcdp0);
    const f64 f = select<f64>(large, 0.5 * fraction, fraction) - 1.0;
    const i64 exponent = (bits >> 52) - 1023 - (i64)large;
    const f64 k = (f64)(exponent | 0x4330000000000000) - 0x1p52;  // 2^52 + exponent, for an exponent >= 0

    const f64 s = f / (2.0 + f);
    const f64 z = s * s;
    f64 series = splat<f64>(2.0 / 25);
#pragma GCC unroll 16
    for (int n = 11; n >= 1; --n) series = fma(series, z, splat<f64>(2.0 / (2 * n + 1)));
    const f64 correction = s * fma(z, -series, f) - fma(k, splat<f64>(ExpConstants<double>::ln2_low), error);
    return fma(k, splat<f64>(ExpConstants<double>::ln2_high), f - correction);
}
CE_INLINE f64 log1p(f64 r) { return log1p(r, 1.0 / (1.0 + r)); }

CE_END
