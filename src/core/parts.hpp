// A row in parts: the sums of each, and the sums of two together. Blocks are joined in order, from the first on.

// RowSums of one row or of a part of it, as numbers.
struct PartSums {
    double highest, rest;
    double rest_error = 0.0;  // what rounding left out of `rest` when parts were joined
    double spread = 0.0, b_rest = 0.0, b_highest = 0.0;
    bool unique = false;
    std::size_t class_highest = 0;  // the first class with the maximum, if the targets are dense

    CE_INLINE RowSums lanes() const {
        return {splat<f64>(highest), splat<f64>(rest), splat<f64>(spread), splat<f64>(b_rest), splat<f64>(b_highest)};
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
    const double lower_b = lower.b_rest + lower.b_highest;
    // 1 + rest is the mass of a part. A NaN is in its `rest`, and stays in the product.
    const double factor = decay<transformed>(p, lower.highest, sums.highest), added = (1.0 + lower.rest) * factor;
    const double total = sums.rest + added, t = total - sums.rest;
    sums.rest_error += (sums.rest - (total - t)) + (added - t) + lower.rest_error * factor;
    sums.rest = total;
    if (lower.highest == sums.highest) {
        sums.unique = false;
        sums.spread += lower.spread;
        sums.b_rest += lower.b_rest;
        sums.b_highest += lower.b_highest;
    } else {
        sums.spread += lower.spread + (lower_b == 0.0 ? 0.0 : lower_b * (sums.highest - lower.highest));
        sums.b_rest += lower_b;
    }
    return sums;
}
