// One call: what it computes, from which arrays, and where it writes. Plain data, the same for every instruction set.
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
constexpr std::size_t kRowSize[kLogitTypes] = {4, 8, 4, 4};  // of a row's loss or log-sum-exp

// Classes that are summed in float32 (or float64, by the type that is computed in) before they join a float64 sum, and
// those of a block of a row, in bytes.
constexpr std::size_t kGroupBytes = 512, kBlockBytes = 16384;

// What the coefficients of smoothed index targets share in all rows: w_c epsilon / C of each class c, in the type that
// is computed in, filled up with zeros to whole groups. Without class weights it is the same number for every class: a
// group of it, and then the last group of a row. `evaluate` sets it for rows of contiguous classes.
struct SharedCoefficients {
    const void* of_class = nullptr;
    std::size_t step = 0;               // from one class to the next: 1, or 0
    const double* of_block = nullptr;   // the sum of each block
    double sum = 0.0, sum_error = 0.0;  // of all
};

enum class Output : int { gradient = 0, softmax = 1, log_softmax = 2 };

// What some of a row's classes tell of it, in float64. The first five do where no more than one class has a coefficient
// and the entropy is not wanted.
enum PartField : std::size_t {
    kMax,               // m, of these classes; with Mode::capped of the logits
    kExpSumWithoutMax,  // r, likewise
    kLogitOfTarget,     // 0 where the target is another class
    kWeightOfTarget,    // likewise
    kUniqueMax,         // 1 if one class alone attains the maximum, else 0
    kWeightedGap,       // of the coefficients that are not a single target's, as are the next two
    kBelowMax,
    kAtMax,
    kExpGap,
    kPartFields
};

// Rows whose classes are split into parts, one of which a problem has.
struct Split {
    std::size_t classes = 0;  // of whole rows; 0: nothing is split
    std::size_t first_class = 0;
    bool entropy = false;           // whether the entropy of whole rows is wanted
    double* parts = nullptr;        // if given, all that is written: what the problem's classes tell of each row
    const double* whole = nullptr;  // else what all classes tell of each row: `join_parts`
};

// Symbols in parentheses are those of the definition of the loss in crossentropy._reference.
struct Problem {
    Options options;

    std::size_t rows = 0, classes = 0;
    ElementType type = ElementType::float32;
    const void* logits = nullptr;  // (z): rows x classes
    // How far apart the classes of a row are, in elements; rows lie side by side between them. 1: classes contiguous.
    // The matrix, and probabilities, are laid out as the logits are.
    std::size_t class_stride = 1;
    Split split;

    // The targets: class indices, which count from the first class of whole rows, or probabilities (q), or neither for
    // the softmax functions.
    const std::int64_t* indices = nullptr;  // (t)
    const void* probabilities = nullptr;
    ElementType probabilities_type = ElementType::float64;
    // Sparse distributions: each row names k classes. Then the probabilities are those of these classes, row by row, in
    // float64; without any of them every coefficient is 0.
    const std::int64_t* sparse_indices = nullptr;
    std::size_t k = 0;
    // The mass of each row off these classes, if that is a class of its own: then nothing is dense, and the classes are
    // contiguous.
    const double* remainder = nullptr;

    const double* class_weight = nullptr;   // (w), one a class
    const double* sample_weight = nullptr;  // (s), one a row

    // The upstream gradient: a number for all rows, times one for each row if given.
    double gradient_scale = 1.0;
    const double* grad_output = nullptr;
    const double* entropy_grad_output = nullptr;  // that of each row's entropy, if given

    Output output = Output::gradient;
    void* matrix = nullptr;      // gradient, softmax or log-softmax, of the logits' type; may be the logits
    void* diagonal = nullptr;    // of the Hessian, if given: laid out as the gradient, which is then written too
    void* row_values = nullptr;  // losses, or without targets log-sum-exp; float64 for float64 logits, else float32
    // If given, of that type too: each row's entropy, and the log-probabilities of its k classes. 0 for rows that do
    // not count; a class of -1 has the log-probability 0.
    void* entropies = nullptr;
    void* log_probabilities = nullptr;

    // Set by `evaluate`: 1 / tau, rounded, and what rounding left out.
    double inverse_temperature = 1.0, inverse_temperature_error = 0.0;
    SharedCoefficients shared;
    bool extreme_weights = false;  // set by `evaluate`: class weights that float32 may not hold

    bool is_part() const { return split.classes != 0; }
    std::size_t classes_of_whole() const { return is_part() ? split.classes : classes; }
    bool has_targets() const { return indices != nullptr || probabilities != nullptr || sparse_indices != nullptr; }
    // Targets with a coefficient for every class, not for one only.
    bool dense() const { return (probabilities != nullptr && remainder == nullptr) || options.label_smoothing > 0.0; }
    bool has_single_targets() const { return indices != nullptr && !dense(); }
    bool has_entropy() const {
        return split.entropy || options.entropy_bonus != 0.0 || entropies != nullptr || entropy_grad_output != nullptr;
    }
};

constexpr std::size_t kNoRow = std::numeric_limits<std::size_t>::max();

}  // namespace crossentropy
