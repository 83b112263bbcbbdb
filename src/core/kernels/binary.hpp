// The definition of the binary loss of an element and its gradient, from the logit z and the coefficients
// a+ = w y', a- = 1 - y' of the smoothed target y' = (1 - epsilon) y + epsilon / 2. With t = exp(-|z|):
//
//   loss = (a+ + a-) log1p(t) + |z| (z > 0 ? a- : a+)
//   dz   = (a- - a+ t) / (1 + t)  for z >= 0,   (a- t - a+) / (1 + t)  for z < 0
//
// Neither log(1 + t) nor sigmoid - 1 occurs, which lose every digit of a confident logit.
#pragma once

#include "../options.hpp"
#include "math.hpp"

CE_BEGIN

// log(1 + t) for t in [0, 1], and x / (1 + t).
template <class V>
struct Unit;

// In float32 t + t^2 S(t), S the minimax polynomial for the relative error of log1p, found by the Remez algorithm, its
// coefficients rounded one by one: error 2^-27.5, with the rounding of the last two steps below 1 ULP.
template <>
struct Unit<f32> {
    f32 t;
    CE_INLINE explicit Unit(f32 x) : t(x) {}
    CE_INLINE f32 log1p() const {
        constexpr double series[] = {-0x1.ffffd2p-2, 0x1.554ddp-2,   -0x1.ff23e6p-3, 0x1.934b54p-3, -0x1.3a435ep-3,
                                     0x1.b4ae08p-4,  -0x1.d6b08cp-5, 0x1.4917cep-6,  -0x1.af49cep-9};
        f32 s = splat<f32>(series[8]);
#pragma GCC unroll 16
        for (int k = 7; k >= 0; --k) s = fma(s, t, splat<f32>(series[k]));
        return fma(t * t, s, t);
    }
    CE_INLINE f32 divide(f32 x) const { return x / (1 + t); }
};
template <>
struct Unit<f64> {
    f64 t, inverse;  // one division for both
    CE_INLINE explicit Unit(f64 x) : t(x), inverse(1.0 / (1.0 + x)) {}
    CE_INLINE f64 log1p() const { return CE_NAMESPACE::log1p(t, inverse); }
    CE_INLINE f64 divide(f64 x) const { return x * inverse; }
};

// What the loss is made of: the coefficients on the logit's own side and on the other, and t.
template <class V>
struct BinaryParts {
    Bits<V> sign;          // of z, as its highest bit
    V size, right, wrong;  // |z|; the coefficient of the class that z speaks for, and of the other one
    Unit<V> unit;

    CE_INLINE BinaryParts(V z, V plus, V minus)
        : sign((Bits<V>)z & kSign),
          size((V)((Bits<V>)z & ~kSign)),
          right(negative(z, minus, plus)),
          wrong(negative(z, plus, minus)),
          unit(exp((V)((Bits<V>)z | kSign))) {}

    CE_INLINE V loss() const {
        const V distance = select<V>(wrong == 0, V{}, size * wrong);  // 0 inf = 0
        return fma(right + wrong, unit.log1p(), distance);
    }
    CE_INLINE V gradient() const { return (V)((Bits<V>)unit.divide(fma(-right, unit.t, wrong)) ^ sign); }

    static constexpr auto kSign = decltype(Bits<V>{}[0] + 0)(1) << (8 * sizeof(Element<V>) - 1);
    CE_INLINE static V negative(V z, V yes, V no) { return select<V>((Integer<V>)z < 0, yes, no); }
};
// The same times (1 - p)^gamma, p = sigmoid(z) y + (1 - sigmoid(z)) (1 - y), for gamma > 0. y and 1 - y come without
// weights; a target outside [0, 1] gives NaN.
struct FocalElement {
    f64 loss, gradient;
};
CE_INLINE FocalElement focal_element(const BinaryParts<f64>& plain, f64 y, f64 not_y, double gamma) {
    const f64 t = plain.unit.t, loss = plain.loss();
    const f64 side = (f64)plain.sign;
    const f64 right = plain.negative(side, not_y, y), wrong = plain.negative(side, y, not_y);
    const f64 p = fma(t, wrong, right), q = fma(t, right, wrong);  // p and 1 - p, times 1 + t
    // q^gamma from the odds, whose logarithm keeps its digits where q is close to 1.
    const f64 power = exp(-gamma * log1p(p / q));
    const f64 factor = select<f64>((right >= 0) & (wrong >= 0), select<f64>(q == 0, f64{}, power), splat<f64>(kNaN));
    // The derivative of log q; where t is 0 the loss may be infinite, and it counts for nothing.
    const f64 slope =
        select<f64>((t == 0) | (q == 0), f64{}, loss * (gamma * (plain.unit.divide(t * (not_y - y)) / q)));
    return {select<f64>(factor == 0, f64{}, factor * loss), factor * (plain.gradient() + slope)};
}

CE_END
