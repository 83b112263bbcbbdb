// What a row writes of one block: gradient, softmax or log-softmax, and the diagonal of the Hessian.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "../problem.hpp"
#include "block.hpp"
#include "exponential.hpp"
#include "loss.hpp"
#include "mode.hpp"
#include "storage.hpp"

CE_BEGIN

// The gradient of a row is exp * exp(u - m) - target * b, or at_max at a unique maximum; and that of its entropy, as in
// RowResult.
struct GradientScales {
    double exp, target, at_max, max;
    bool unique;
    double entropy = 0.0, mean_gap = 0.0;
};

// What the entropy adds to the scale of a class's exponential.
CE_INLINE f64 entropy_scale(const Problem& p, const GradientScales& scales, f64 u) {
    return scales.entropy * ((scales.max - u) * p.inverse_temperature - scales.mean_gap);
}

// What the diagonal of the Hessian needs beside; as in RowResult and RowSums.
struct DiagonalFactors {
    double max_probability, z_curvature, exp_sum_without_max;
};

template <class S, class T>
inline void write_scaled(int count, const T* e, S* out, T scale) {
    using V = Vector<T>;
    const V scales = splat<V>(double(scale));
    int i = 0;
    for (; i + kWidth<T> <= count; i += kWidth<T>) store_as(out + i, load<V>(e + i) * scales);
    for (; i < count; ++i) out[i] = S(double(e[i] * scale));
}

template <Coefficients coefficients, class S, class T>
inline void write_difference(const Problem& p, const Block<T>& block, const T* e, S* out,
                             const GradientScales& scales) {
    using V = Vector<T>;
    const BlockCoefficients<T> b = block_coefficients<coefficients>(p, block);
    const V exp_scale = splat<V>(scales.exp), minus_target = splat<V>(-scales.target);
    const auto write = [&](const T* e_group, const T* b_group, S* out_group) {
#pragma GCC unroll 32
        for (int i = 0; i < kGroup<T>; i += kWidth<T>)
            store_as(out_group + i, fma(load<V>(e_group + i), exp_scale, minus_target * load<V>(b_group + i)));
    };
    int at = 0;
    for (; at + kGroup<T> <= block.count; at += kGroup<T>) write(e + at, b.whole + at * b.step, out + at);
    if (at < block.count) {
        alignas(64) S last[kGroup<T>];
        write(e + at, b.last, last);
        std::copy(last, last + (block.count - at), out + at);
    }
}

// Both in T. z may be where they are written.
template <class S, class T>
inline void write_scaled_with_entropy(const Problem& p, const Block<T>& block, const S* z, const T* e, S* out,
                                      const GradientScales& scales) {
    using V = Vector<T>;
    const V scale = splat<V>(scales.exp), entropy = splat<V>(scales.entropy), m = splat<V>(scales.max),
            minus_mean_gap = splat<V>(-scales.mean_gap), inverse_temperature = splat<V>(p.inverse_temperature);
    for (int i = 0; i < block.count; i += kWidth<T>) {
        const int count = std::min(kWidth<T>, block.count - i);
        S last[kWidth<T>];
        const bool whole = count == kWidth<T>;
        if (!whole) pad(z + i, count, kWidth<T>, last);
        const V u = load_as<T>(whole ? z + i : last), exponential = load_first<V>(e + i, count);
        const V g = exponential * fma(entropy, fma(m - u, inverse_temperature, minus_mean_gap), scale);
        store_as(whole ? out + i : last, select<V>(exponential != 0, g, V{}));
        if (!whole) std::copy(last, last + count, out + i);
    }
}

template <Mode mode, Coefficients coefficients, class S, class T>
inline void write_in_double(const Problem& p, const Block<T>& block, const S* z, const T* e, S* out,
                            const GradientScales& scales) {
    using V = Vector<T>;
    for (int first = 0; first < block.count; first += kGroup<T>) {
        const int count = std::min(kGroup<T>, block.count - first);
        alignas(64) S group[kGroup<T>];
        alignas(64) double b[kGroup<T>];
        pad(z + first, count, kGroup<T>, group);
        if constexpr (coefficients != Coefficients::single)
            target_coefficients(p, block.row, block.target, block.first + std::size_t(first), count, kGroup<T>, b);
#pragma GCC unroll 32
        for (int i = 0; i < kGroup<T>; i += kWidth<T>) {
            const V logit = load_as<T>(group + i);
            f64 g[kHalves<T>];
            widen(load_first<V>(e + first + i, count - i), g);
#pragma GCC unroll 2
            for (int h = 0; h < kHalves<T>; ++h) {
                f64 scale = splat<f64>(scales.exp);
                if (scales.entropy != 0.0) {
                    const f64 u = capped(p, load_as<double>(group + i + h * kWidth<double>));
                    scale = select<f64>(g[h] != 0, scale + entropy_scale(p, scales, u), scale);
                }
                g[h] *= scale;
                if constexpr (coefficients != Coefficients::single)
                    g[h] -= scales.target * load<f64>(b + i + h * kWidth<double>);
            }
            if constexpr (mode == Mode::general) g[0] *= capped_slope(p, logit);
            store_as(group + i, narrow_for<S>(g));
        }
        std::copy(group, group + count, out + first);
    }
}

template <Mode mode, Coefficients coefficients, class S, class T>
inline void write_block_gradient(const Problem& p, const Block<T>& block, const S* z, const T* e, S* out,
                                 const GradientScales& scales) {
    // Scaled in T unless a scale does not fit.
    const double largest = std::max({std::abs(scales.exp), std::abs(scales.target), std::abs(scales.entropy)});
    if (mode == Mode::general || largest > double(std::numeric_limits<T>::max()) ||
        (coefficients != Coefficients::single && scales.entropy != 0.0))
        write_in_double<mode, coefficients>(p, block, z, e, out, scales);
    else if (scales.entropy != 0.0)
        write_scaled_with_entropy(p, block, z, e, out, scales);
    else if constexpr (coefficients != Coefficients::single)
        write_difference<coefficients>(p, block, e, out, scales);
    else
        write_scaled(block.count, e, out, T(scales.exp));
}

// To be called before the gradient is written, which may overwrite logits and exponentials.
template <Mode mode, class S, class T>
inline void write_block_diagonal(const Problem& p, const Block<T>& block, const S* z, const T* e, S* out,
                                 const GradientScales& scales, const DiagonalFactors& factors) {
    constexpr bool has_slopes = mode == Mode::general || mode == Mode::capped;
    const auto factor = exponent_factor<mode>(p, splat<f64>(scales.max));
    for (int first = 0; first < block.count; first += kGroup<T>) {
        const int count = std::min(kGroup<T>, block.count - first);
        alignas(64) S group[kGroup<T>];
        alignas(64) T group_e[kGroup<T>] = {};
        alignas(64) double b[kGroup<T>];
        pad(z + first, count, kGroup<T>, group);
        std::copy(e + first, e + first + count, group_e);
        if constexpr (has_slopes)
            target_coefficients(p, block.row, block.target, block.first + std::size_t(first), count, kGroup<T>, b);
        for (int i = 0; i < kGroup<T>; i += kWidth<double>) {
            const f64 logit = load_as<double>(group + i), u = ordered_logit<mode>(p, logit);
            f64 exponential = load_as<double>(group_e + i), slope = splat<f64>(1.0), curvature{};
            if constexpr (mode == Mode::capped) {
                const CappedExp<f64> found = factor(logit);
                exponential = found.e, slope = found.slope, curvature = capped_curvature(p, capped(p, logit));
            } else if constexpr (mode == Mode::general) {
                slope = capped_slope(p, logit), curvature = capped_curvature(p, u);
            }
            const f64 probability = exponential * factors.max_probability;
            const auto at_max = (u == scales.max) & (i64{} - scales.unique);
            const f64 complement = select<f64>(  // 1 - p, which is r / (1 + r) at a unique maximum
                at_max, splat<f64>(factors.exp_sum_without_max / (1.0 + factors.exp_sum_without_max)),
                1.0 - probability);
            f64 d = exponential * (scales.exp * complement + factors.z_curvature * probability);
            if constexpr (mode != Mode::plain) d *= p.inverse_temperature * slope * slope;
            if constexpr (has_slopes) {
                const f64 g = select<f64>(at_max, splat<f64>(scales.at_max),
                                          exponential * scales.exp - scales.target * load<f64>(b + i));
                d += g * slope * curvature;
            }
            store_as(group + i, d);
        }
        std::copy(group, group + count, out + first);
    }
}

template <class S>
inline void write_block_log_softmax(const S* z, int count, S* out, double max, double exp_sum_without_max) {
    const f64 m = splat<f64>(max), lse_minus_max = log1p(splat<f64>(exp_sum_without_max));
    for (int first = 0; first < count; first += kWidth<double>) {
        const int n = std::min(kWidth<double>, count - first);
        S values[kWidth<double>];
        std::fill(std::copy(z + first, z + first + n, values), std::end(values), S(0.0));
        store_as(values, log_probability(load_as<double>(values), m, lse_minus_max));
        std::copy(values, values + n, out + first);
    }
}

CE_END
