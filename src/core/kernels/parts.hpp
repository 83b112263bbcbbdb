// What some of a row's classes tell of it, as the numbers that another process can read.
#pragma once

#include <cstddef>

#include "../problem.hpp"
#include "partial_sums.hpp"

CE_BEGIN

// The sums over no classes.
CE_INLINE PartialSums no_sums() {
    PartialSums sums;
    sums.max = -kInf;
    sums.exp_sum_without_max = {-1.0};  // which has no class at the maximum to leave out
    return sums;
}

inline void write_part(const PartialSums& sums, double target_weight, double target_logit, double* part) {
    part[kMax] = sums.max;
    part[kExpSumWithoutMax] = sums.exp_sum_without_max.total();
    part[kLogitOfTarget] = target_logit;
    part[kWeightOfTarget] = target_weight;
    part[kUniqueMax] = sums.unique ? 1.0 : 0.0;
    part[kWeightedGap] = sums.weighted_gap.total();
    part[kBelowMax] = sums.b_below_max.total();
    part[kAtMax] = sums.b_at_max.total();
    part[kExpGap] = sums.exp_gap.total();
}

inline PartialSums read_part(const double* part) {
    PartialSums sums;
    sums.max = part[kMax];
    sums.exp_sum_without_max = {part[kExpSumWithoutMax]};
    sums.unique = part[kUniqueMax] != 0.0;
    sums.weighted_gap = {part[kWeightedGap]};
    sums.b_below_max = {part[kBelowMax]};
    sums.b_at_max = {part[kAtMax]};
    sums.exp_gap = {part[kExpGap]};
    return sums;
}

// Joins `count` parts of a row, in order, each `step` numbers after the one before.
template <Mode mode>
inline void join_row(const Problem& p, const double* parts, std::size_t count, std::size_t step, double* whole) {
    PartialSums sums = read_part(parts);
    double weight = parts[kWeightOfTarget], logit = parts[kLogitOfTarget];
    for (std::size_t i = 1; i < count; ++i) {
        const double* const part = parts + i * step;
        sums = joined<mode>(p, sums, read_part(part));
        weight += part[kWeightOfTarget];  // 0 but in one of them
        logit += part[kLogitOfTarget];
    }
    write_part(sums, weight, logit, whole);
}

CE_END
