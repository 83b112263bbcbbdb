// From logits to exponentials, in each mode.
#pragma once

#include <type_traits>

#include "../problem.hpp"
#include "loss.hpp"
#include "mode.hpp"
#include "softcap.hpp"

CE_BEGIN

// u; with Mode::capped z, which has the same order.
template <Mode mode, class V>
CE_INLINE V ordered_logit(const Problem& p, V z) {
    return mode == Mode::general ? capped(p, z) : z;
}

// What exponents are made with, of rows whose largest `ordered_logit` are the lanes of `max`.
template <Mode mode, class V>
CE_INLINE auto exponent_factor(const Problem& p, V max) {
    if constexpr (mode == Mode::capped)
        return SoftCap<V>(p, max);
    else
        return temperature_factor<mode != Mode::plain, V>(p);
}

// exp((u - m) / temperature), and what of it is kept for the gradient: a soft cap's slope is a factor of that.
template <class V>
struct Exponential {
    V e, kept;
};
template <bool exact = false, class V, class Factor>
CE_INLINE Exponential<V> exponential(V u, V max, const Factor& factor) {
    if constexpr (std::is_same_v<Factor, SoftCap<V>>) {
        const CappedExp<V> found = factor(u);
        return {found.e, found.e * found.slope};
    } else {
        const V e = exp_below<exact>(u, max, factor);
        return {e, e};
    }
}

CE_END
