// The kernels, compiled once for each instruction set: CMake defines CE_AVX512, CE_AVX2, CE_NEON or CE_BASELINE.
#include <cstddef>
#include <cstdint>

#include "../dispatch.hpp"
#include "../problem.hpp"
#include "run.hpp"

CE_BEGIN

static void run(const Problem& problem, std::size_t begin, std::size_t end, const ParallelFor* parallel, void* scratch,
                Outcome& outcome) {
    switch (mode_of(problem)) {
        case Mode::plain:
            return run<Mode::plain>(problem, begin, end, parallel, scratch, outcome);
        case Mode::scaled:
            return run<Mode::scaled>(problem, begin, end, parallel, scratch, outcome);
        case Mode::capped:
            return run<Mode::capped>(problem, begin, end, parallel, scratch, outcome);
        case Mode::general:
            return run<Mode::general>(problem, begin, end, parallel, scratch, outcome);
    }
}

static std::size_t scratch_bytes(const Problem& problem) {
    switch (mode_of(problem)) {
        case Mode::plain:
            return scratch_bytes<Mode::plain>(problem);
        case Mode::scaled:
            return scratch_bytes<Mode::scaled>(problem);
        case Mode::capped:
            return scratch_bytes<Mode::capped>(problem);
        case Mode::general:
            return scratch_bytes<Mode::general>(problem);
    }
    return 0;
}

// How many rows have a class index other than ignore_index; `bad` tells whether one of them is out of range.
static std::size_t count_indices(const Problem& problem, bool& bad) {
    const std::int64_t ignored = problem.options.ignore_index.value_or(-1);
    const bool may_ignore = problem.options.ignore_index.has_value();
    std::size_t counted = 0, outside = 0;
    for (std::size_t row = 0; row < problem.rows; ++row) {
        const std::int64_t target = problem.indices[row];
        const bool keep = !(may_ignore & (target == ignored));
        counted += keep;
        outside += keep & (std::uint64_t(target) >= problem.classes);
    }
    bad = outside != 0;
    return counted;
}

// divergence.cpp
double run_divergence(const DivergenceProblem& p, std::size_t begin, std::size_t end, void* memory);
std::size_t divergence_scratch_bytes(const DivergenceProblem& p);

#define CE_STRING(x) #x
#define CE_NAME(x) CE_STRING(x)
extern const BinaryKernels binary_kernels;
extern const Kernels kernels;
const Kernels kernels{CE_NAME(CE_NAMESPACE),   run, scratch_bytes, count_indices, &binary_kernels, run_divergence,
                      divergence_scratch_bytes};

CE_END
