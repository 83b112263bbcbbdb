// The kernels, compiled once for each instruction set: CMake defines CE_AVX512, CE_AVX2, CE_NEON or CE_BASELINE.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../dispatch.hpp"
#include "../problem.hpp"
#include "parts.hpp"
#include "run.hpp"

CE_BEGIN

// Without fused multiply-adds there are no others than Mode::plain and Mode::general.
static void run_mode(const Problem& problem, std::size_t begin, std::size_t end, const ParallelFor* parallel,
                     void* scratch, Outcome& outcome) {
    [[maybe_unused]] const Mode mode = mode_of(problem);
    if (mode == Mode::plain) return run<Mode::plain>(problem, begin, end, parallel, scratch, outcome);
#if CE_FUSED
    if (mode == Mode::scaled) return run<Mode::scaled>(problem, begin, end, parallel, scratch, outcome);
    if (mode == Mode::capped) return run<Mode::capped>(problem, begin, end, parallel, scratch, outcome);
#endif
    run<Mode::general>(problem, begin, end, parallel, scratch, outcome);
}

static std::size_t scratch_of_mode(const Problem& problem) {
    [[maybe_unused]] const Mode mode = mode_of(problem);
    if (mode == Mode::plain) return scratch_bytes<Mode::plain>(problem);
#if CE_FUSED
    if (mode == Mode::scaled) return scratch_bytes<Mode::scaled>(problem);
    if (mode == Mode::capped) return scratch_bytes<Mode::capped>(problem);
#endif
    return scratch_bytes<Mode::general>(problem);
}

// The losses of a problem alone, without the entropies that it asks for beside.
static Problem losses_of(Problem problem) {
    problem.entropies = nullptr;
    problem.entropy_grad_output = nullptr;
    problem.matrix = problem.diagonal = nullptr;
    return problem;
}

// Whether losses are computed apart: entropies under a soft cap need another mode, and a loss has the same bits whether
// its entropy is asked for or not.
static bool has_losses_apart(const Problem& problem) {
    return !problem.is_part() && mode_of(problem) == Mode::general && mode_of(losses_of(problem)) == Mode::capped;
}

static void run(const Problem& problem, std::size_t begin, std::size_t end, const ParallelFor* parallel, void* scratch,
                Outcome& outcome) {
    if (!has_losses_apart(problem)) return run_mode(problem, begin, end, parallel, scratch, outcome);
    run_mode(losses_of(problem), begin, end, parallel, scratch, outcome);
    Problem others = problem;
    others.row_values = nullptr;
    Outcome of_losses;  // known by now
    run_mode(others, begin, end, parallel, scratch, of_losses);
}

static std::size_t scratch_bytes(const Problem& problem) {
    return has_losses_apart(problem) ? std::max(scratch_of_mode(problem), scratch_of_mode(losses_of(problem)))
                                     : scratch_of_mode(problem);
}

// How many rows have a class index other than ignore_index; `bad` tells whether one of them is out of range.
static std::size_t count_indices(const Problem& problem, bool& bad) {
    const std::int64_t ignored = problem.options.ignore_index.value_or(-1);
    const bool may_ignore = problem.options.ignore_index.has_value();
    const std::size_t classes = problem.classes_of_whole();
    std::size_t counted = 0, outside = 0;
    for (std::size_t row = 0; row < problem.rows; ++row) {
        const std::int64_t target = problem.indices[row];
        const bool keep = !(may_ignore & (target == ignored));
        counted += keep;
        outside += keep & (std::uint64_t(target) >= classes);
    }
    bad = outside != 0;
    return counted;
}

template <Mode mode>
static void join_parts_of(const Problem& problem, const double* parts, std::size_t count, double* whole) {
    for (std::size_t at = 0; at < problem.rows * kPartFields; at += kPartFields)
        join_row<mode>(problem, parts + at, count, problem.rows * kPartFields, whole + at);
}

static void join_parts(const Problem& problem, const double* parts, std::size_t count, double* whole) {
    const Mode mode = mode_of(problem);
    if (mode == Mode::plain) return join_parts_of<Mode::plain>(problem, parts, count, whole);
#if CE_FUSED
    if (mode == Mode::capped) return join_parts_of<Mode::capped>(problem, parts, count, whole);
#endif
    join_parts_of<Mode::general>(problem, parts, count, whole);
}

// divergence.cpp
double run_divergence(const DivergenceProblem& p, std::size_t begin, std::size_t end, void* memory);
std::size_t divergence_scratch_bytes(const DivergenceProblem& p);

#define CE_STRING(x) #x
#define CE_NAME(x) CE_STRING(x)
extern const BinaryKernels binary_kernels;
extern const Kernels kernels;
const Kernels kernels{
    CE_NAME(CE_NAMESPACE),   run, scratch_bytes, count_indices, join_parts, &binary_kernels, run_divergence,
    divergence_scratch_bytes};

CE_END
