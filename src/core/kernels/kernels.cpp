// The kernels, compiled once for each instruction set: CMake defines CE_AVX512, CE_AVX2, CE_NEON or CE_BASELINE.
#include <cstddef>
#include <cstdint>

#include "../dispatch.hpp"
#include "../problem.hpp"
#include "../scratch.hpp"
#include "columns.hpp"
#include "mode.hpp"
#include "rows.hpp"
#include "strided.hpp"

CE_BEGIN

// visit(kernel) with the kernel for rows side by side, if a problem's are, its arrays in `scratch`; whether they are.
template <class S, class T, Mode mode, class Visit>
CE_INLINE bool visit_tiles(const Problem& problem, Scratch& scratch, const Visit& visit) {
    if (problem.class_stride > 1)
        visit(StridedKernel<S, T, mode>(problem, scratch));
    else if (problem.classes <= std::size_t(kFewClasses) && problem.remainder == nullptr)
        visit(ColumnKernel<S, T, mode>(problem, scratch));
    else
        return false;
    return true;
}
// A soft cap is computed in float64, and so is a temperature with more classes than a tile holds.
template <class S, class T, class Visit>
CE_INLINE bool visit_tiles(Mode mode, const Problem& problem, Scratch& scratch, const Visit& visit) {
    if (mode == Mode::plain) return visit_tiles<S, T, Mode::plain>(problem, scratch, visit);
    if constexpr (kFused)
        if (mode == Mode::scaled && problem.classes <= kMostClasses)
            return visit_tiles<S, T, Mode::scaled>(problem, scratch, visit);
    return visit_tiles<S, double, Mode::general>(problem, scratch, visit);
}

// Logits of type S are computed in T, unless the problem needs Mode::general, which computes in float64.
template <class S, class T, class Visit>
CE_INLINE void visit_kernel(const Problem& problem, const ParallelFor* parallel, Scratch& scratch, const Visit& visit) {
    const Mode mode = mode_of(problem);
    if (visit_tiles<S, T>(mode, problem, scratch, visit)) return;
    if (mode == Mode::plain) return visit(RowKernel<S, T, Mode::plain>(problem, parallel, scratch));
    if constexpr (kFused) {
        if (mode == Mode::scaled) return visit(RowKernel<S, T, Mode::scaled>(problem, parallel, scratch));
        if constexpr (std::is_same_v<T, float>)
            if (mode == Mode::capped) return visit(RowKernel<S, T, Mode::capped>(problem, parallel, scratch));
    }
    visit(RowKernel<S, double, Mode::general>(problem, parallel, scratch));
}

template <class S, class T>
void run(const Problem& problem, std::size_t begin, std::size_t end, const ParallelFor* parallel, void* memory,
         Outcome& outcome) {
    Scratch scratch(memory);
    visit_kernel<S, T>(problem, parallel, scratch, [&](const auto& kernel) { kernel.run(begin, end, outcome); });
}

template <class S, class T>
std::size_t scratch_bytes(const Problem& problem) {
    Scratch scratch(nullptr);
    visit_kernel<S, T>(problem, nullptr, scratch, [](const auto&) {});
    return scratch.bytes();
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
const Kernels kernels{CE_NAME(CE_NAMESPACE),
                      {run<float, float>, run<double, double>, run<float16, float>, run<bfloat16, float>},
                      {scratch_bytes<float, float>, scratch_bytes<double, double>, scratch_bytes<float16, float>,
                       scratch_bytes<bfloat16, float>},
                      count_indices,
                      &binary_kernels,
                      run_divergence,
                      divergence_scratch_bytes};

CE_END
