// The sums over some of a row's classes, and how those of two parts of a row are joined.
#pragma once

#include "../problem.hpp"
#include "compensated.hpp"
#include "loss.hpp"
#include "mode.hpp"
#include "softcap.hpp"

CE_BEGIN

// As in RowSums, but of the classes of one part of a row.
struct PartialSums {
    double max = 0.0;  // of u; with Mode::capped of the logits
    CompensatedSum exp_sum_without_max, weighted_gap, b_below_max, b_at_max, exp_gap;
    bool unique = false;           // whether one class alone attains the maximum
    std::size_t class_of_max = 0;  // the first class that attains it, if the targets are dense

    CE_INLINE RowSums lanes() const {
        return {splat<f64>(max),
                splat<f64>(exp_sum_without_max.total()),
                splat<f64>(weighted_gap.total()),
                splat<f64>(b_below_max.total()),
                splat<f64>(b_at_max.total()),
                splat<f64>(exp_gap.total())};
    }
};

// exp((lower - higher) / temperature)
template <Mode mode>
CE_INLINE double decay(const Problem& p, double lower, double higher) {
    if (lower == higher) return 1.0;
    if (lower == -kInf) return 0.0;
    if constexpr (mode == Mode::capped)
        return SoftCap<f64>(p, splat<f64>(higher))(splat<f64>(lower)).e[0];
    else
        return exp_below<mode != Mode::plain>(p, splat<f64>(lower), splat<f64>(higher))[0];
}

template <Mode mode>
CE_INLINE PartialSums joined(const Problem& p, const PartialSums& a, const PartialSums& b) {
    PartialSums sums = a.max >= b.max ? a : b;
    const PartialSums& lower = a.max >= b.max ? b : a;
    // One class of the whole row is left out, and it is in the other part: of the lower part all exponentials count,
    // 1 + r. A NaN among them makes r NaN, and stays NaN in the product.
    const double factor = decay<mode>(p, lower.max, sums.max);
    const CompensatedSum exp_sum{1.0 + lower.exp_sum_without_max.sum, lower.exp_sum_without_max.error};
    sums.exp_sum_without_max.add(exp_sum, factor);
    sums.exp_gap.add(lower.exp_gap, factor);
    if (factor != 0.0) sums.exp_gap.add(exp_sum.total() * factor * (sums.max - lower.max));
    sums.weighted_gap.add(lower.weighted_gap);
    sums.b_below_max.add(lower.b_below_max);
    if (lower.max == sums.max) {
        sums.unique = false;
        sums.b_at_max.add(lower.b_at_max);
    } else {
        const double b_of_lower = lower.b_below_max.total() + lower.b_at_max.total();
        if (b_of_lower != 0.0) sums.weighted_gap.add(b_of_lower * (sums.max - lower.max));
        sums.b_below_max.add(lower.b_at_max);
    }
    return sums;
}

CE_END
