// How a kernel turns logits into exponentials: with what accuracy each option can be had in which type.
#pragma once

#include <cstddef>

#include "../problem.hpp"
#include "target.hpp"

CE_BEGIN

enum class Mode {
    plain,   // no soft cap, no temperature
    scaled,  // a temperature
    capped,  // a soft cap, perhaps a temperature: for the loss of one class a row and its gradient
    general  // everything, in float64
};

// Up to so many classes a tile of rows side by side holds all of them, so that they are read from memory once. Of more
// it holds so few that three looks at them cost no more (measured). A multiple of four, since four are added up
// together.
constexpr std::size_t kMostClasses = 32768, kClassesOfChunk = 512;

inline Mode mode_of(const Problem& p) {
    const auto fits = [](double factor) { return factor > 0x1p-20 && factor < 0x1p20; };
    const bool capped = p.options.softcap < kInf, scaled = p.options.temperature != 1.0;
    if (p.extreme_weights) return Mode::general;
    if (!capped && !scaled) return Mode::plain;
    const bool special = p.remainder != nullptr || !fits(p.options.temperature) ||
                         (p.class_stride > 1 && p.classes > kMostClasses) || !CE_FUSED;
    if (special) return Mode::general;
    if (!capped) return Mode::scaled;
    const bool single = !p.dense() && !p.has_entropy() && p.log_probabilities == nullptr;
    return single && fits(p.options.softcap) && fits(p.options.softcap / p.options.temperature) ? Mode::capped
                                                                                                : Mode::general;
}

CE_END
