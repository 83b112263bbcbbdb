// The table of kernels of an instruction set, what they return, and the choice between the sets.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "binary.hpp"
#include "divergence.hpp"
#include "problem.hpp"

namespace crossentropy {

// What a range of rows returns beside its arrays.
struct Outcome {
    double loss = 0.0;             // the sum of its rows' losses
    std::size_t bad_row = kNoRow;  // first row whose class index is out of range
};

// parallel(count, task) calls task(i, scratch) for each i below count, on several threads, each with its own scratch.
using ParallelFor = std::function<void(std::size_t, const std::function<void(std::size_t, void*)>&)>;

// Those of binary.cpp.
struct BinaryKernels {
    // Computes elements [begin, end) of a problem and returns the sum of their losses; one function for each
    // ElementType of the logits.
    double (*elements[kLogitTypes])(const BinaryProblem& problem, std::size_t begin, std::size_t end);
    // The sum of the numbers [begin, end) of an array of weights.
    double (*sum_weights)(const ElementWeights& weights, std::size_t begin, std::size_t end);
};

struct Kernels {
    const char* name;
    // Computes rows [begin, end) of a problem. With `parallel`, which only rows of many contiguous classes may have,
    // threads share the blocks of each row.
    void (*run)(const Problem& problem, std::size_t begin, std::size_t end, const ParallelFor* parallel, void* scratch,
                Outcome& outcome);
    // The bytes of scratch that each thread needs for that.
    std::size_t (*scratch_bytes)(const Problem& problem);
    // How many rows have a class index other than ignore_index; `bad` tells whether one of them is out of range.
    std::size_t (*count_indices)(const Problem& problem, bool& bad);
    // As `join_parts` of evaluate.hpp.
    void (*join_parts)(const Problem& problem, const double* parts, std::size_t count, double* whole);
    const BinaryKernels* binary;
    // The sum of the divergences of rows [begin, end), each written where wanted, and their gradients.
    double (*run_divergence)(const DivergenceProblem& problem, std::size_t begin, std::size_t end, void* scratch);
    std::size_t (*divergence_scratch_bytes)(const DivergenceProblem& problem);
};

// Instruction sets that this build has and this CPU can run, best last.
std::vector<const Kernels*> available_kernels();

// The set in use: the best available, or the one that the environment variable CROSSENTROPY_ISA names. Chosen at the
// first call. Throws std::runtime_error when that one is not available.
const Kernels& kernels();

}  // namespace crossentropy
