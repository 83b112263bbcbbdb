// How a kernel turns logits into exponentials: with what accuracy each option can be had in which type.
#pragma once

#include "../problem.hpp"
#include "target.hpp"

// Whether fma rounds once: else a temperature needs float64.
#if defined(CE_AVX512) || defined(CE_AVX2) || defined(CE_NEON)
#define CE_FUSED 1
#else
#define CE_FUSED 0
#endif

CE_BEGIN

enum class Mode {
    plain,   // no soft cap, no temperature
    scaled,  // a temperature
    capped,  // a soft cap, perhaps a temperature: for the loss of one class a row and its gradient
    general  // everything, in float64
};

inline Mode mode_of(const Problem& p) {
    const auto fits = [](double factor) { return factor > 0x1p-20 && factor < 0x1p20; };
    const bool capped = p.options.softcap < kInf, scaled = p.options.temperature != 1.0;
    if (p.extreme_weights) return Mode::general;
    if (!capped && !scaled) return Mode::plain;
    const bool special = p.diagonal != nullptr || p.remainder != nullptr || !fits(p.options.temperature) || !CE_FUSED;
    if (special) return Mode::general;
    if (!capped) return Mode::scaled;
    const bool single = !p.dense() && !p.has_entropy() && p.log_probabilities == nullptr;
    return single && fits(p.options.softcap) && fits(p.options.softcap / p.options.temperature) ? Mode::capped
                                                                                                : Mode::general;
}

CE_END
