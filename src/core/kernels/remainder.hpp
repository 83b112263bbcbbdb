// Sparse targets with a remainder: what they leave off the classes that they name is a class of its own, against the
// whole probability of the classes that they do not name.
//
// The logits of both kinds of classes are summed apart, each relative to its own maximum: a difference from the whole
// would have no digits left where the named classes have nearly all of the probability.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "../problem.hpp"
#include "compensated.hpp"
#include "loss.hpp"
#include "math.hpp"
#include "partial_sums.hpp"

CE_BEGIN

// A class that a row's targets name.
struct NamedClass {
    std::size_t c;
    double u, slope;  // its (capped) logit, and du/dz
    double q;         // its probability, from every slot that names it
    double e;         // exp((u - m) / tau), m the maximum of the named classes
};

struct NamedClasses {
    NamedClass* first;
    int count = 0;
    double max = -kInf, exp_sum_without_max = 0.0;
    double q_sum = 0.0;
};

// The classes that a row names, which become -inf in `masked`, a copy of its logits. A class that is named twice is
// one.
template <Mode mode, class S>
inline NamedClasses named_classes(const Problem& p, std::size_t row, const S* z, S* masked, NamedClass* scratch) {
    const double* const q = static_cast<const double*>(p.probabilities) + row * p.k;
    NamedClasses all{scratch};
    int likeliest = 0;
    for (std::size_t j = 0; j < p.k; ++j) {
        const std::size_t c = std::size_t(p.sparse_indices[row * p.k + j]);
        if (c >= p.classes) continue;  // an empty slot
        NamedClass* const end = scratch + all.count;
        NamedClass* const known = double(masked[c]) == -kInf
                                      ? std::find_if(scratch, end, [&](const NamedClass& n) { return n.c == c; })
                                      : end;
        all.q_sum += q[j];
        if (known != end) {
            known->q += q[j];
            continue;
        }
        const f64 logit = splat<f64>(double(z[c]));
        *end = {c, capped(p, logit)[0], capped_slope(p, logit)[0], q[j], 0.0};
        if (!(end->u <= all.max)) {  // a NaN stays
            all.max = end->u;
            likeliest = all.count;
        }
        masked[c] = S(-kInf);
        ++all.count;
    }
    CompensatedSum sum;
    for (int i = 0; i < all.count; ++i) {
        NamedClass& n = scratch[i];
        n.e = n.u == all.max ? 1.0
              : n.u == -kInf ? 0.0
                             : exp_below<mode != Mode::plain>(p, splat<f64>(n.u), splat<f64>(all.max))[0];
        if (i != likeliest) sum.add(n.e);
    }
    all.exp_sum_without_max = sum.total();
    return all;
}

struct RemainderResult {
    double loss;  // before the sample weight
    double a;     // the gradient is a p - b
    double tail;  // what the z-loss adds to a
    double mass;  // that of the remainder
    double p_named, p_rest;
    double exp_scale;  // the gradient of a class that is not named is exp_scale * exp(u - m), m their maximum
};

CE_INLINE double log1p(double r) { return log1p(splat<f64>(r))[0]; }

template <Mode mode>
inline RemainderResult remainder_result(const Problem& p, const NamedClasses& named, const PartialSums& rest,
                                        double mass) {
    const double inverse = p.inverse_temperature, r_rest = rest.exp_sum_without_max.total();
    const bool no_named = named.max == -kInf, no_rest = rest.max == -kInf;
    const double log_named = no_named ? 0.0 : log1p(named.exp_sum_without_max),
                 log_rest = no_rest ? 0.0 : log1p(r_rest);
    // log P_named - log P_rest; and the sums of both, since exp(-d) would not have all digits.
    const double d = (named.max - rest.max) * inverse + (log_named - log_rest);
    const double sum_of_named =
        no_named ? 0.0 : decay<mode>(p, named.max, std::max(named.max, rest.max)) * (1.0 + named.exp_sum_without_max);
    const double sum_of_rest = no_rest ? 0.0 : decay<mode>(p, rest.max, std::max(named.max, rest.max)) * (1.0 + r_rest);
    const bool named_lead = sum_of_named >= sum_of_rest;
    const double log_sum = log1p(named_lead ? sum_of_rest / sum_of_named : sum_of_named / sum_of_rest);
    const double loss_of_named = named_lead ? log_sum : log_sum - d, loss_of_rest = named_lead ? log_sum + d : log_sum;
    RemainderResult result{};
    result.p_named = sum_of_named / (sum_of_named + sum_of_rest);
    result.p_rest = sum_of_rest / (sum_of_named + sum_of_rest);
    result.mass = mass;
    CompensatedSum loss;
    for (int i = 0; i < named.count; ++i) {
        const NamedClass& n = named.first[i];
        if (n.q != 0.0) loss.add(n.q * (n.u == -kInf ? kInf : (named.max - n.u) * inverse + log_named + loss_of_named));
    }
    if (mass != 0.0) loss.add(mass * loss_of_rest);
    result.loss = loss.total();
    if (p.options.z_loss > 0.0) {
        const double lse =
            named_lead ? named.max * inverse + log_named + loss_of_named : rest.max * inverse + log_rest + loss_of_rest;
        result.loss += p.options.z_loss * lse * lse;
        result.tail = 2.0 * p.options.z_loss * lse;
    }
    result.a = named.q_sum + mass + result.tail;
    const bool valid = named.max < kInf && rest.max < kInf && r_rest == r_rest && d == d && result.a - result.a == 0.0;
    // a P_rest - mass, with 1 - P_rest from the named classes.
    result.exp_scale =
        no_rest ? 0.0 : ((named.q_sum + result.tail) * result.p_rest - mass * result.p_named) / (1.0 + r_rest);
    if (!valid) result.loss = result.exp_scale = kNaN;
    return result;
}

// The derivative of a row's loss with respect to u of a named class. Likelier than not, it is computed from 1 - p.
inline double named_gradient(const NamedClasses& named, const NamedClass& n, const RemainderResult& result) {
    const double share = 1.0 / (1.0 + named.exp_sum_without_max), p = result.p_named * n.e * share;
    if (!(p > 0.5)) return result.a * p - n.q;
    CompensatedSum others;
    for (int i = 0; i < named.count; ++i)
        if (named.first[i].c != n.c) others.add(named.first[i].q);
    const double complement = result.p_rest + result.p_named * named.exp_sum_without_max * share;
    return (others.total() + result.mass + result.tail) * p - n.q * complement;
}

CE_END
