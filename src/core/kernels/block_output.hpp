// What is written of one block of a row: gradient, softmax or log-softmax, and the diagonal of the Hessian.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "block_sums.hpp"

CE_BEGIN

// The gradient of a row is softmax * exp(u - m) - target * b, and at_highest at a unique maximum m.
struct Coefficients {
    double softmax, target, at_highest, highest;
    bool unique;
};

// What the diagonal of the Hessian needs beside: p = probability * exp(u - m), 1 - p = rest / (1 + rest) at a unique
// maximum, and the factor of p exp(u - m) that the z-loss adds.
struct DiagonalFactors {
    double probability, tail, rest;
};

template <class S, class T, bool transformed>
class BlockKernel : protected BlockSums<S, T, transformed> {
    using Base = BlockSums<S, T, transformed>;

 protected:
    using Base::p;
    using typename Base::Block, typename Base::V;

    using Base::Base;

    template <bool dense>
    void write_gradient(const Block& block, const S* z, const T* e, S* out, const Coefficients& c) const {
        // Scaled in T unless a factor does not fit.
        const double largest = std::max(std::abs(c.softmax), std::abs(c.target));
        if (transformed || largest > double(std::numeric_limits<T>::max()))
            write_wide<dense>(block, z, e, out, c);
        else if constexpr (dense)
            write_difference(block, e, out, c);
        else
            write_scaled(block.count, e, out, T(c.softmax));
    }

    // Before the gradient, which may overwrite logits and exponentials.
    void write_diagonal(const Block& block, const S* z, const T* e, S* out, const Coefficients& c,
                        const DiagonalFactors& factors) const {
        for (int first = 0; first < block.count; first += kGroup<T>) {
            const int count = std::min(kGroup<T>, block.count - first);
            alignas(64) S group[kGroup<T>];
            alignas(64) T group_e[kGroup<T>] = {};
            alignas(64) double b[kGroup<T>];
            pad(z + first, count, kGroup<T>, group);
            std::copy(e + first, e + first + count, group_e);
            if constexpr (transformed)
                target_coefficients(p, block.row, block.target, block.first + std::size_t(first), count, kGroup<T>, b);
            for (int i = 0; i < kGroup<T>; i += kWidth<double>) {
                const f64 logit = load_as<double>(group + i), u = capped(p, logit);
                const f64 exponential = load_as<double>(group_e + i);
                const f64 probability = exponential * factors.probability;
                const auto confident = (u == c.highest) & (i64{} - c.unique);
                const f64 rest =
                    select<f64>(confident, splat<f64>(factors.rest / (1.0 + factors.rest)), 1.0 - probability);
                f64 d = exponential * (c.softmax * rest + factors.tail * probability);
                if constexpr (transformed) {
                    const f64 g = select<f64>(confident, splat<f64>(c.at_highest),
                                              exponential * c.softmax - c.target * load<f64>(b + i));
                    const f64 slope = capped_slope(p, logit);
                    d = d * p.inverse_temperature * slope * slope + g * slope * capped_curvature(p, u);
                }
                store_as(group + i, d);
            }
            std::copy(group, group + count, out + first);
        }
    }

    void write_log_softmax(const S* z, int count, S* out, double highest, double rest) const {
        const f64 m = splat<f64>(highest), log_total = log1p(splat<f64>(rest));
        for (int first = 0; first < count; first += kWidth<double>) {
            const int n = std::min(kWidth<double>, count - first);
            S values[kWidth<double>];
            std::fill(std::copy(z + first, z + first + n, values), std::end(values), S(0.0));
            store_as(values, log_probability(load_as<double>(values), m, log_total));
            std::copy(values, values + n, out + first);
        }
    }

 private:
    void write_scaled(int count, const T* e, S* out, T factor) const {
        const V scale = splat<V>(double(factor));
        int i = 0;
        for (; i + kWidth<T> <= count; i += kWidth<T>) store_as(out + i, load<V>(e + i) * scale);
        for (; i < count; ++i) out[i] = S(double(e[i] * factor));
    }

    void write_difference(const Block& block, const T* e, S* out, const Coefficients& c) const {
        const BlockTargets<T> b = Base::coefficients(block);
        const V softmax = splat<V>(c.softmax), minus = splat<V>(-c.target);
        const auto write = [&](const T* from, const T* b_group, S* to) {
#pragma GCC unroll 32
            for (int i = 0; i < kGroup<T>; i += kWidth<T>)
                store_as(to + i, fma(load<V>(from + i), softmax, minus * load<V>(b_group + i)));
        };
        int at = 0;
        for (; at + kGroup<T> <= block.count; at += kGroup<T>) write(e + at, b.whole + at, out + at);
        if (at < block.count) {
            alignas(64) S last[kGroup<T>];
            write(e + at, b.last, last);
            std::copy(last, last + (block.count - at), out + at);
        }
    }

    template <bool dense>
    void write_wide(const Block& block, const S* z, const T* e, S* out, const Coefficients& c) const {
        for (int first = 0; first < block.count; first += kGroup<T>) {
            const int count = std::min(kGroup<T>, block.count - first);
            alignas(64) S group[kGroup<T>];
            alignas(64) double b[kGroup<T>];
            pad(z + first, count, kGroup<T>, group);
            if constexpr (dense)
                target_coefficients(p, block.row, block.target, block.first + std::size_t(first), count, kGroup<T>, b);
#pragma GCC unroll 32
            for (int i = 0; i < kGroup<T>; i += kWidth<T>) {
                const V logit = load_as<T>(group + i);
                f64 g[kHalves<T>];
                widen(load_first<V>(e + first + i, count - i), g);
#pragma GCC unroll 2
                for (int h = 0; h < kHalves<T>; ++h) {
                    g[h] *= c.softmax;
                    if constexpr (dense) g[h] -= c.target * load<f64>(b + i + h * kWidth<double>);
                }
                if constexpr (transformed) g[0] *= capped_slope(p, logit);
                store_as(group + i, narrow_for<S>(g));
            }
            std::copy(group, group + count, out + first);
        }
    }
};

CE_END
