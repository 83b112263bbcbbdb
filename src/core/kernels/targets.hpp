// The coefficients of the targets: b_c = w_c [(1 - epsilon) q_c + epsilon / C].
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "../problem.hpp"
#include "storage.hpp"

CE_BEGIN

// The formula of a coefficient. Each step is rounded to T.
template <class T>
struct CoefficientFormula {
    double target_share;  // 1 - epsilon
    T uniform_share;      // epsilon / C
    bool weighted;

    explicit CoefficientFormula(const Problem& p)
        : target_share(1.0 - p.options.label_smoothing),
          uniform_share(T(p.options.label_smoothing / double(p.classes_of_whole()))),
          weighted(p.class_weight != nullptr) {}

    // b_c from (1 - epsilon) q_c and w_c, which is not used unless there are class weights.
    CE_INLINE T operator()(T target_part, double weight) const {
        const T smoothed = target_part + uniform_share;
        return weighted ? T(double(smoothed) * weight) : smoothed;
    }
};

// share * q_c of `count` probabilities of type Q. One that is not finite in T becomes NaN, which makes its row NaN.
template <class T, class Q>
inline void scaled_probabilities(const void* probabilities, std::size_t offset, int count, double share, T* b) {
    using V = Vector<T>;
    const Q* q = static_cast<const Q*>(probabilities) + offset;
    int i = 0;
    if constexpr (std::is_same_v<Q, T> || std::is_same_v<Q, float> || kIsHalf<Q>)
        for (; i + kWidth<T> <= count; i += kWidth<T>) {
            const V x = load_as<T>(q + i);
            store(b + i, select<V>(x - x == 0, x * splat<V>(share), splat<V>(kNaN)));
        }
    for (; i < count; ++i) {
        const T x = T(q[i]);
        b[i] = x - x == 0 ? x * T(share) : T(kNaN);
    }
}

// The same for the problem's probabilities, whatever their type.
template <class T>
__attribute__((noinline)) void scaled_probabilities(const Problem& p, std::size_t offset, int count, double share,
                                                    T* b) {
    const auto convert = [&](auto type) {
        scaled_probabilities<T, decltype(type)>(p.probabilities, offset, count, share, b);
    };
    switch (p.probabilities_type) {
        case ElementType::float32:
            convert(float());
            break;
        case ElementType::float64:
            convert(double());
            break;
        case ElementType::float16:
            convert(float16());
            break;
        case ElementType::bfloat16:
            convert(bfloat16());
            break;
        case ElementType::int8:
            convert(std::int8_t());
            break;
        case ElementType::int16:
            convert(std::int16_t());
            break;
        case ElementType::int32:
            convert(std::int32_t());
            break;
        case ElementType::int64:
            convert(std::int64_t());
            break;
        case ElementType::uint8:
            convert(std::uint8_t());
            break;
        case ElementType::uint16:
            convert(std::uint16_t());
            break;
        case ElementType::uint32:
            convert(std::uint32_t());
            break;
        case ElementType::uint64:
            convert(std::uint64_t());
            break;
    }
}

// visit(c, share * q_c) for each class c that a sparse row names. What is not finite in T becomes NaN.
template <class T, class Visit>
CE_INLINE void for_sparse(const Problem& p, std::size_t row, double share, const Visit& visit) {
    const double* q = static_cast<const double*>(p.probabilities) + row * p.k;
    for (std::size_t j = 0; j < p.k; ++j) {
        const T b = T(share * q[j]);
        visit(std::size_t(p.sparse_indices[row * p.k + j]), b - b == 0 ? b : T(kNaN));
    }
}

// The coefficients of `count` classes of a row from `first` on, padded with zeros.
template <class T>
void target_coefficients(const Problem& p, std::size_t row, std::int64_t target, std::size_t first, int count,
                         int padded, T* b) {
    CoefficientFormula<T> formula(p);
    if (p.sparse_indices != nullptr) {
        std::fill(b, b + count, T(0));
        for_sparse<T>(p, row, formula.target_share, [&](std::size_t c, T q) {
            if (c - first < std::size_t(count)) b[c - first] += q;
        });
    } else if (p.probabilities != nullptr) {
        scaled_probabilities(p, row * p.classes + first, count, formula.target_share, b);
    } else {
        std::fill(b, b + count, T(0));
        const std::size_t at = std::size_t(target) - first;
        if (at < std::size_t(count)) b[at] = T(formula.target_share);
    }
    if (formula.uniform_share != 0 || formula.weighted) {
        if (formula.uniform_share == 0) formula.uniform_share = -T(0);  // keeps the sign of a zero, as +0 would not
        for (int i = 0; i < count; ++i)
            b[i] = formula(b[i], formula.weighted ? p.class_weight[first + std::size_t(i)] : 1.0);
    }
    std::fill(b + count, b + padded, T(0));
}

CE_END
