// A row in parts: the sums of each, and the sums of two together. Blocks are joined in order, from the first on.
#pragma once

#include <cstddef>

#include "../problem.hpp"
#include "compensated.hpp"
#include "loss.hpp"

CE_BEGIN

// RowSums of one row or of a part of it, as numbers.
struct PartSums {
    double highest = 0.0;
    CompensatedSum rest, spread, b_rest, b_highest;
    bool unique = false;
    std::size_t class_highest = 0;  // the first class with the maximum, if the targets are dense

    CE_INLINE RowSums lanes() const {
        return {splat<f64>(highest), splat<f64>(rest.total()), splat<f64>(spread.total()), splat<f64>(b_rest.total()),
                splat<f64>(b_highest.total())};
    }
};

// exp((lower - higher) / temperature)
template <bool transformed>
CE_INLINE double decay(const Problem& p, double lower, double higher) {
    if (lower == higher) return 1.0;
    return lower == -kInf ? 0.0 : exp_below<transformed>(p, splat<f64>(lower), splat<f64>(higher))[0];
}

// The sums of two parts of a row together.
template <bool transformed>
CE_INLINE PartSums joined(const Problem& p, const PartSums& a, const PartSums& b) {
    PartSums sums = a.highest >= b.highest ? a : b;
    const PartSums& lower = a.highest >= b.highest ? b : a;
    // 1 + rest is the mass of a part. A NaN is in its `rest`, and stays in the product.
    const double factor = decay<transformed>(p, lower.highest, sums.highest);
    sums.rest.add(CompensatedSum{1.0 + lower.rest.sum, lower.rest.error}, factor);
    sums.spread.add(lower.spread);
    sums.b_rest.add(lower.b_rest);
    if (lower.highest == sums.highest) {
        sums.unique = false;
        sums.b_highest.add(lower.b_highest);
    } else {
        const double b_of_lower = lower.b_rest.total() + lower.b_highest.total();
        if (b_of_lower != 0.0) sums.spread.add(b_of_lower * (sums.highest - lower.highest));
        sums.b_rest.add(lower.b_highest);
    }
    return sums;
}

CE_END
