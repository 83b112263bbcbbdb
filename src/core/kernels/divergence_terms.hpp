// The terms of a divergence for one class, from the logarithm of the ratio of its two probabilities.
#pragma once

#include <cstddef>
#include <iterator>
#include <type_traits>

#include "../problem.hpp"
#include "compensated.hpp"
#include "lanes.hpp"
#include "math.hpp"

CE_BEGIN

template <class V>
CE_INLINE V magnitude(V x) {
    return select<V>(x < 0, -x, x);
}

// phi(x) = exp(x) - 1 - x = x^2 P(x) for |x| <= 1. P is the minimax polynomial for the relative error of phi, found by
// the Remez algorithm; the series of exp, as `math.hpp` has it, is biased by 2e-7 there.
template <class T>
struct PhiConstants;
template <>
struct PhiConstants<float> {
    static constexpr double series[] = {0x1p-1,        0x1.555556p-3,  0x1.55557ap-5,  0x1.1110ep-7,
                                        0x1.6bffbp-10, 0x1.a028cap-13, 0x1.a9622cp-16, 0x1.741702p-19};  // 2^-26.5
};
template <>
struct PhiConstants<double> {
    static constexpr double series[] = {0x1p-1,
                                        0x1.5555555555555p-3,
                                        0x1.5555555555506p-5,
                                        0x1.111111111124bp-7,
                                        0x1.6c16c16c20d8ap-10,
                                        0x1.a01a019ff4f0dp-13,
                                        0x1.a01a0190d4b4ep-16,
                                        0x1.71de3a7237b5ap-19,
                                        0x1.27e50672c9b5ep-22,
                                        0x1.ae6442c10f76cp-26,
                                        0x1.1ee57742d7300p-29,
                                        0x1.6128d3cba751dp-33,
                                        0x1.997e20df4cdd0p-37,
                                        0x1.b054802499e3cp-41};  // error 2^-54.2
};
// By Estrin's scheme: a chain of eight fused multiply-adds would be most of the time that a class takes.
template <class V>
CE_INLINE V phi(V x) {
    constexpr auto& c = PhiConstants<Element<V>>::series;
    constexpr int terms = int(std::size(c));
    static_assert(terms % 2 == 0);
    const V x2 = x * x, x4 = x2 * x2;
    V pair[terms / 2];
#pragma GCC unroll 8
    for (int k = 0; k < terms / 2; ++k) pair[k] = fma(splat<V>(c[2 * k + 1]), x, splat<V>(c[2 * k]));
    constexpr int quads = terms / 4;
    V quad[quads];
#pragma GCC unroll 8
    for (int k = 0; k < quads; ++k) quad[k] = fma(pair[2 * k + 1], x2, pair[2 * k]);
    V series = terms % 4 ? pair[terms / 2 - 1] : quad[quads - 1];
#pragma GCC unroll 8
    for (int k = terms % 4 ? quads - 1 : quads - 2; k >= 0; --k) series = fma(series, x4, quad[k]);
    return x2 * series;
}

// log(1 + x) = x - psi(x) for the tiny x that is left of a sum that would be 0 without rounding.
inline double psi_of_tiny(double x) { return x * x * (0.5 - x * (1.0 / 3 - x * 0.25)); }

// What is subtracted from the difference of two logits of a class to have the logarithm of the ratio of its
// probabilities: the difference of the maxima, and that of log-sum-exp from the maximum.
template <class T>
struct RowShift;

// An infinity stays what it is; two logits of -inf, whose difference is NaN, count as equal.
template <bool finite, class V>
CE_INLINE V with_errors(V value, V error) {
    if constexpr (finite) return value + error;
    const V kept = select<V>(value == value, value, V{});
    return select<V>(value - value == 0, value + error, kept);
}
template <>
struct RowShift<float> {
    f32 high, low;

    RowShift(const Problem&, double max_a, double max_b, double lse_difference) {
        const double shift = (max_b - max_a) + lse_difference;
        const float rounded = float(shift);
        high = splat<f32>(rounded);
        low = splat<f32>(shift - double(rounded));
    }
    // The difference is exact: value + error.
    template <bool finite>
    CE_INLINE f32 log_ratio(Exact<f32> difference) const {
        const Exact<f32> shifted = two_diff(difference.value, high);
        return with_errors<finite>(shifted.value, shifted.error + (difference.error - low));
    }
};
template <>
struct RowShift<double> {
    f64 high, low, lse, inverse, inverse_error;

    RowShift(const Problem& p, double max_a, double max_b, double lse_difference)
        : lse(splat<f64>(lse_difference)),
          inverse(splat<f64>(p.inverse_temperature)),
          inverse_error(splat<f64>(p.inverse_temperature_error)) {
        const Exact<double> shift = two_diff(max_b, max_a);
        high = splat<f64>(shift.value);
        low = splat<f64>(shift.error);
    }
    // The maxima go first: what differs by a constant only leaves 0, whatever the temperature.
    template <bool finite>
    CE_INLINE f64 log_ratio(Exact<f64> difference) const {
        const Exact<f64> shifted = two_diff(difference.value, high);
        const f64 error = shifted.error + (difference.error - low);
        const f64 x = shifted.value * inverse;
        const f64 x_error = fma(shifted.value, inverse, -x) + fma(shifted.value, inverse_error, error * inverse);
        const Exact<f64> ratio = two_diff(x, lse);
        return with_errors<finite>(ratio.value, ratio.error + x_error);
    }
};

// A class in KL(a || b).
template <class V>
struct KlTerm {
    V value;    // a phi(delta), which is b - a - a delta: at least 0
    V change;   // a expm1(delta), which is b - a
    V a_delta;  // 0 where delta is infinite, which is a class that is impossible in `a`
};
// `finite`: delta is, of every class.
template <bool finite, class V>
CE_INLINE KlTerm<V> kl_term(V a, V b, V delta) {
    const auto near = delta * delta <= splat<V>(1.0);
    const V phi_delta = phi(delta);  // of any meaning only where that is so
    const V change = b - a;
    V a_delta = a * delta;
    if constexpr (!finite) a_delta = select<V>(delta < splat<V>(kInf), a_delta, V{});
    V value = select<V>(near, a * phi_delta, change - a_delta);
    if constexpr (finite)
        value = highest(value, V{});  // also where a NaN pads the last group
    else
        value = select<V>(value < 0, V{}, value);  // a NaN stays
    return {value, select<V>(near, fma(a, phi_delta, a_delta), change), a_delta};
}

// psi(y) = y - log(1 + y) for s = y / (2 + y) of a size up to 1/4: s y - 2 (s^3 / 3 + s^5 / 5 + ...).
CE_INLINE f64 psi_series(f64 s, f64 y) {
    const f64 z = s * s;
    f64 series = splat<f64>(2.0 / 29);
#pragma GCC unroll 16
    for (int n = 12; n >= 0; --n) series = fma(series, z, splat<f64>(2.0 / (2 * n + 3)));
    return s * fma(-z, series, y);
}

// A class in the Jensen-Shannon divergence, m = beta a + (1 - beta) b, delta = log(b / a).
struct JsTerm {
    f64 value;                   // beta a psi(m / a - 1) + (1 - beta) b psi(m / b - 1): at least 0
    f64 a_lambda_a, b_lambda_b;  // lambda: log(m / a), log(m / b)
};
// Of the two probabilities, `more` is the larger. All is a function of exp(-|delta|): nothing overflows, and all sums
// are of positive numbers.
CE_INLINE JsTerm js_term(f64 a, f64 b, f64 delta, double beta) {
    const auto b_is_more = delta >= 0;
    const f64 size = magnitude(delta);
    const f64 more = select<f64>(b_is_more, b, a), less = select<f64>(b_is_more, a, b);
    const f64 weight_a = splat<f64>(beta), weight_b = splat<f64>(1.0 - beta);
    const f64 weight_more = select<f64>(b_is_more, weight_b, weight_a);
    const f64 weight_less = select<f64>(b_is_more, weight_a, weight_b);

    const auto near = size <= splat<f64>(1.0);
    // 1 - less / more, and less / more: neither from the other where that would lose its digits.
    const f64 e = exp(-size);
    const f64 gap = select<f64>(near, size - phi(-size), 1.0 - e), ratio = select<f64>(near, 1.0 - gap, e);
    const auto possible = ratio > 0;
    // m / less - 1, and more / m - 1.
    const f64 r_less = weight_more * gap / select<f64>(possible, ratio, splat<f64>(1.0));
    const f64 r_more = weight_less * gap / (weight_more + weight_less * ratio);
    const f64 minus_lambda_more = log1p(r_more);
    const f64 lambda_less = select<f64>(possible, log1p(r_less), size - minus_lambda_more);
    const f64 less_lambda = select<f64>(less > 0, less * lambda_less, f64{});

    const f64 limit = splat<f64>(2.0 / 3);
    const f64 s_less = r_less / (2.0 + r_less), s_more = -r_more / (2.0 + r_more), y_more = -weight_less * gap;
    const f64 value_less = select<f64>((r_less <= limit) & possible, less * psi_series(s_less, r_less),
                                       weight_more * gap * more - less_lambda);
    const f64 psi_more = select<f64>(r_more <= limit, psi_series(s_more, y_more), y_more + minus_lambda_more);
    const f64 value = weight_less * value_less + weight_more * more * psi_more;
    const f64 more_lambda = -more * minus_lambda_more;
    return {select<f64>(value < 0, f64{}, value), select<f64>(b_is_more, less_lambda, more_lambda),
            select<f64>(b_is_more, more_lambda, less_lambda)};
}

CE_END
