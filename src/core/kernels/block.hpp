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
constexpr int kGroup = int(kGroupBytes / sizeof(T));
template <class T>
constexpr int kBlock = int(kBlockBytes / sizeof(T));
static_assert(kGroup<float> == 4 * kLanes<float>);

// Which classes of a row have a coefficient that is not zero.
enum class Coefficients {
    single,  // one, or none
    shared,  // all: what they have is the same in every row, but for one class, which has more
    dense    // all
};

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
    int step = 1;  // from one class of the whole groups to the next
};

template <Coefficients coefficients, class T>
inline BlockCoefficients<T> block_coefficients(const Problem& p, const Block<T>& block) {
    T* const scratch = block.b_scratch;
    const int whole = block.count / kGroup<T> * kGroup<T>, remainder = block.count - whole;
    if constexpr (coefficients == Coefficients::shared) {
        const T* const all = static_cast<const T*>(p.shared.of_class);
        if (p.shared.step == 0) return {all, all + kGroup<T>, 0};
        return {all + block.first, all + block.first + whole};
    }
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
