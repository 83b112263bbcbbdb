// What a kernel is asked for: plain data, the same for every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "options.hpp"

namespace crossentropy {

// Element types: the first four of logits, all of them of probability targets.
enum class ElementType : int {
    float32,
    float64,
    float16,
    bfloat16,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64
};
constexpr int kLogitTypes = 4;
constexpr std::size_t kElementSize[] = {4, 8, 2, 2, 1, 2, 4, 8, 1, 2, 4, 8};
constexpr std::size_t kLogitSize[kLogitTypes] = {4, 8, 2, 2};
constexpr std::size_t kRowSize[kLogitTypes] = {4, 8, 4, 4};  // of a number for each row

enum class Output : int { gradient = 0, softmax = 1, log_softmax = 2 };

// Symbols in parentheses are those of the definition of the loss in crossentropy.reference.
struct Problem {
    Options options;

    std::size_t rows = 0, classes = 0;
    ElementType type = ElementType::float32;
    const void* logits = nullptr;  // (z): rows x classes
    // How far apart the classes of a row lie; the rows between them follow each other in memory. 1: classes contiguous.
    // The matrix, and probabilities, are laid out as the logits are.
    std::size_t class_stride = 1;

    // The targets: class indices, or probabilities (q), or neither for the softmax functions.
    const std::int64_t* indices = nullptr;  // (t)
    const void* probabilities = nullptr;
    ElementType probabilities_type = ElementType::float64;
    // Sparse distributions: k classes a row. The probabilities are theirs then, float64, and lie row by row.
    const std::int64_t* sparse_indices = nullptr;
    std::size_t k = 0;

    const double* class_weight = nullptr;   // (w), one a class
    const double* sample_weight = nullptr;  // (s), one a row

    // What multiplies the gradient: a number for all rows, and if given one a row.
    double gradient_scale = 1.0;
    const double* grad_output = nullptr;

    Output output = Output::gradient;
    void* matrix = nullptr;      // gradient, softmax or log-softmax, of the logits' type; may be the logits
    void* diagonal = nullptr;    // of the Hessian, if given: laid out as the gradient, which is then written too
    void* row_values = nullptr;  // losses, or without targets log-sum-exp; float64 for float64 logits, else float32

    // Set by `evaluate`: 1 / tau, rounded, and what rounding left out; whether float32 may not hold the class weights.
    double inverse_temperature = 1.0, inverse_temperature_error = 0.0;
    bool extreme_weights = false;

    bool has_targets() const { return indices != nullptr || probabilities != nullptr; }
    // Targets with a coefficient for every class, not for one only.
    bool dense() const { return probabilities != nullptr || options.label_smoothing > 0.0; }
    // Whether exponentials and coefficients are computed in float64.
    bool transformed() const { return options.softcap < kInf || options.temperature != 1.0 || extreme_weights; }
};

constexpr std::size_t kNoRow = std::numeric_limits<std::size_t>::max();

}  // namespace crossentropy
