// A block of a row: classes that stay in the nearest cache while they are looked at twice, for their maximum and for
// their sums.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "../problem.hpp"
#include "lanes.hpp"
#include "targets.hpp"

CE_BEGIN

template <class T>
constexpr int kGroup = 4 * kLanes<T>;  // classes that are summed in T before they join a float64 sum
template <class T>
constexpr int kBlock = 16384 / int(sizeof(T));  // classes of a block

template <class T>
struct Block {
    std::size_t row;
    std::int64_t target;
    std::size_t first;  // its first class
    int count;          // of its classes
    T* b_scratch;       // room for kBlock<T> coefficients
};

// The coefficients b of a block: of its whole groups, and of the classes after them, padded to a group.
template <class T>
struct BlockCoefficients {
    const T *whole = nullptr, *last = nullptr;
};

template <class T>
inline BlockCoefficients<T> block_coefficients(const Problem& p, const Block<T>& block) {
    T* const scratch = block.b_scratch;
    const int whole = block.count / kGroup<T> * kGroup<T>, remainder = block.count - whole;
    constexpr ElementType own = std::is_same_v<T, float> ? ElementType::float32 : ElementType::float64;
    if (p.probabilities == nullptr || p.sparse_indices != nullptr || p.probabilities_type != own ||
        p.options.label_smoothing > 0.0 || p.class_weight != nullptr) {
        target_coefficients(p, block.row, block.target, block.first, block.count, whole + (remainder ? kGroup<T> : 0),
                            scratch);
        return {scratch, scratch + whole};
    }
    // The probabilities are the coefficients: whole groups are read where they lie.
    const T* const q = static_cast<const T*>(p.probabilities) + block.row * p.classes + block.first;
    std::fill(std::copy(q + whole, q + block.count, scratch), scratch + kGroup<T>, T(0));
    return {q, scratch};
}

CE_END
