// The table of kernels for each instruction set, and the choice between them.
#pragma once

#include <string>
#include <vector>

#include "problem.hpp"

namespace crossentropy {

struct Kernels {
    const char* name;
    // Rows [begin, end) of a problem, by ElementType of the logits. With `tasks` the blocks of each row are shared out:
    // for many classes, contiguous, alone.
    void (*run[kLogitTypes])(const Problem& problem, std::size_t begin, std::size_t end, const Tasks* tasks,
                             void* scratch, Outcome& outcome);
    // The bytes of scratch that a thread needs for it.
    std::size_t (*scratch_bytes[kLogitTypes])(const Problem& problem);
    // Rows whose class index is not ignore_index; `bad` tells whether one of them is out of range.
    std::size_t (*count_indices)(const Problem& problem, bool& bad);
};

// Instruction sets that this build has and this CPU can run, best last.
std::vector<const Kernels*> available_kernels();

// The set in use: the best available, or the one that the environment variable CROSSENTROPY_ISA names. Chosen at the
// first call. Throws std::runtime_error when that one is not available.
const Kernels& kernels();

}  // namespace crossentropy
