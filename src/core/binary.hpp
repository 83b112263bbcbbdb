// Binary cross-entropy: one logit, one target, one loss an element. Plain data, the same for every instruction set.
#pragma once

#include <cstddef>

#include "problem.hpp"

namespace crossentropy {

// Weights of elements: element i has the one at (i / repeat) % period. Without data each is 1.
struct ElementWeights {
    const void* data = nullptr;
    ElementType type = ElementType::float64;  // or float32
    std::size_t repeat = 1, period = 1;
};

// Symbols in parentheses are those of crossentropy._reference.binary_cross_entropy_with_grad.
struct BinaryProblem {
    std::size_t count = 0;
    ElementType type = ElementType::float32;
    const void* logits = nullptr;  // (z)
    ElementType targets_type = ElementType::float32;
    const void* targets = nullptr;  // (y)

    ElementWeights pos_weight, sample_weight;  // (w, s)
    double label_smoothing = 0.0;              // (epsilon)
    double focal_gamma = 0.0;                  // (gamma)
    Reduction reduction = Reduction::none;

    // The upstream gradient: a number for all elements, times one for each if given.
    double gradient_scale = 1.0;
    const double* grad_output = nullptr;

    void* dlogits = nullptr;  // of the logits' type; may be the logits
    void* losses = nullptr;   // float64 for float64 logits, else float32

    bool extreme_weights = false;  // set by `evaluate`: positive weights that float32 may not hold

    // Whether the kernel must compute in float64 whatever the type of the logits.
    bool needs_general_kernel() const { return focal_gamma != 0.0 || extreme_weights; }
    bool weighted() const { return sample_weight.data != nullptr || grad_output != nullptr; }
};

// Fills problem.dlogits and problem.losses; returns the reduced loss, for Reduction::none the sum. For Reduction::mean,
// which divides by the sum of the sample weights, the gradient is that of the mean.
double evaluate(BinaryProblem problem, int threads);

}  // namespace crossentropy
