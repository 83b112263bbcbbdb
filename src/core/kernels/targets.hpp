// The coefficients b of the targets.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "../problem.hpp"
#include "storage.hpp"

CE_BEGIN

// given * q_c; what is no probability makes its row NaN.
template <class T, class Q>
inline void given_probabilities(const void* probabilities, std::size_t offset, int count, double given, T* b) {
    using V = Vector<T>;
    const Q* q = static_cast<const Q*>(probabilities) + offset;
    int i = 0;
    if constexpr (std::is_same_v<Q, T> || std::is_same_v<Q, float> || kIsHalf<Q>)
        for (; i + kWidth<T> <= count; i += kWidth<T>) {
            const V x = load_as<T>(q + i);
            const auto valid = (x >= 0) & (x < splat<V>(kInf));
            store(b + i, select<V>(valid, x * splat<V>(given), splat<V>(kNaN)));
        }
    for (; i < count; ++i) {
        const T x = T(q[i]);
        b[i] = x >= 0 && x < T(kInf) ? x * T(given) : T(kNaN);
    }
}

template <class T>
__attribute__((noinline)) void probabilities_of_type(const Problem& p, std::size_t offset, int count, double given,
                                                     T* b) {
    const auto convert = [&](auto type) {
        given_probabilities<T, decltype(type)>(p.probabilities, offset, count, given, b);
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

// The classes of a sparse row and given * q_c, for each of its slots; what is no probability makes its row NaN.
template <class Visit>
CE_INLINE void for_sparse(const Problem& p, std::size_t row, double given, const Visit& visit) {
    const double* q = static_cast<const double*>(p.probabilities) + row * p.k;
    for (std::size_t j = 0; j < p.k; ++j)
        visit(std::size_t(p.sparse_indices[row * p.k + j]), q[j] >= 0.0 && q[j] < kInf ? given * q[j] : kNaN);
}

// b_c = w_c [(1 - epsilon) q_c + epsilon / C] of `count` classes from `first` on, padded with zeros.
template <class T>
void target_coefficients(const Problem& p, std::size_t row, std::int64_t target, std::size_t first, int count,
                         int padded, T* b) {
    const T uniform = T(p.options.label_smoothing / double(p.classes));
    const double given = 1.0 - p.options.label_smoothing;
    if (p.sparse_indices != nullptr) {
        std::fill(b, b + count, T(0));
        for_sparse(p, row, given, [&](std::size_t c, double q) {
            if (c - first < std::size_t(count)) b[c - first] += T(q);
        });
    } else if (p.probabilities != nullptr) {
        probabilities_of_type(p, row * p.classes + first, count, given, b);
    } else {
        std::fill(b, b + count, T(0));
        const std::size_t at = std::size_t(target) - first;
        if (at < std::size_t(count)) b[at] = T(given);
    }
    if (uniform != 0)
        for (int i = 0; i < count; ++i) b[i] += uniform;
    if (p.class_weight != nullptr)
        for (int i = 0; i < count; ++i) b[i] = T(double(b[i]) * p.class_weight[first + std::size_t(i)]);
    std::fill(b + count, b + padded, T(0));
}

CE_END
