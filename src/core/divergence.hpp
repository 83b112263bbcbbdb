// Divergences between the predictions of two models: one call, and its evaluation.
#pragma once

#include <cstddef>

#include "problem.hpp"

namespace crossentropy {

// The Kullback-Leibler divergence KL(a || b) of the softmax a of the first logits from the softmax b of the second; or
// the Jensen-Shannon divergence, beta KL(a || m) + (1 - beta) KL(b || m) with m = beta a + (1 - beta) b.
struct DivergenceProblem {
    // Of each: its logits and their type, its soft cap, the temperature (the same in both), and where the gradient is
    // written, if it is wanted: `matrix`, which may be the logits. Classes are contiguous.
    Problem first, second;
    std::size_t rows = 0, classes = 0;
    bool jensen_shannon = false;
    double beta = 0.5;

    Reduction reduction = Reduction::none;
    const double* sample_weight = nullptr;  // one a row
    // The upstream gradient: a number for all rows, times one for each row if given.
    double gradient_scale = 1.0;
    const double* grad_output = nullptr;
    void* row_values = nullptr;  // of each row, if wanted; of `wide` rows float64, else float32

    bool wide() const { return first.type == ElementType::float64 || second.type == ElementType::float64; }
    bool capped() const { return first.options.softcap < kInf || second.options.softcap < kInf; }
    // Whether rows are computed in float64.
    bool in_double() const { return wide() || capped() || jensen_shannon || first.options.temperature != 1.0; }
};

// Fills the gradients and row_values, and returns the reduced divergence (for Reduction::none, the sum). For
// Reduction::mean the gradients are those of the mean over the rows' weights; where these add up to 0, all is 0.
double evaluate_divergence(DivergenceProblem problem, int threads);

}  // namespace crossentropy
