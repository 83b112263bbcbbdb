// The loss's numbers: the only C++ list of them. crossentropy._options.LossOptions is the only Python one.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string_view>

namespace crossentropy {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

enum class Reduction : int { none, sum, mean };

inline Reduction reduction_of(std::string_view name) {
    if (name == "none") return Reduction::none;
    if (name == "sum") return Reduction::sum;
    if (name == "mean") return Reduction::mean;
    throw std::invalid_argument("expected the name of a reduction");
}

// Symbols in parentheses are those of the definition of the loss in crossentropy._reference.
struct Options {
    std::optional<std::int64_t> ignore_index;
    double label_smoothing = 0.0;  // (epsilon)
    double z_loss = 0.0;           // (zeta)
    double entropy_bonus = 0.0;    // (beta)
    double focal_gamma = 0.0;      // (gamma)
    double softcap = kInf;         // (k), infinite: none
    double temperature = 1.0;      // (tau)
    Reduction reduction = Reduction::none;

    // visit(name, option) for each of them.
    template <class Visit>
    void for_each(const Visit& visit) {
        visit("ignore_index", ignore_index);
        visit("label_smoothing", label_smoothing);
        visit("z_loss", z_loss);
        visit("entropy_bonus", entropy_bonus);
        visit("focal_gamma", focal_gamma);
        visit("softcap", softcap);
        visit("temperature", temperature);
        visit("reduction", reduction);
    }
};

}  // namespace crossentropy
