// The kernels, compiled once for each instruction set: CMake defines CE_AVX512, CE_AVX2, CE_NEON or CE_BASELINE.
#include <cstddef>
#include <cstdint>

#include "../dispatch.hpp"
#include "../problem.hpp"
#include "../scratch.hpp"
#include "columns.hpp"
#include "rows.hpp"
#include "strided.hpp"

CE_BEGIN

// use(kernel) with the kernel for a problem, its arrays in `scratch`.
template <class S, class T, bool transformed, class Use>
CE_INLINE void with_kernel(const Problem& problem, const ParallelFor* parallel, Scratch& scratch, const Use& use) {
    if (problem.class_stride > 1)
        use(StridedKernel<S, T, transformed>(problem, scratch));
    else if (problem.classes <= std::size_t(kFewClasses))
        use(ColumnKernel<S, T, transformed>(problem, scratch));
    else
        use(RowKernel<S, T, transformed>(problem, parallel, scratch));
}

// T: what logits of type S are computed in, unless a soft cap or a temperature asks for float64.
template <class S, class T>
void run(const Problem& problem, std::size_t begin, std::size_t end, const ParallelFor* parallel, void* memory,
         Outcome& outcome) {
    Scratch scratch(memory);
    const auto use = [&](const auto& kernel) { kernel.run(begin, end, outcome); };
    problem.transformed() ? with_kernel<S, double, true>(problem, parallel, scratch, use)
                          : with_kernel<S, T, false>(problem, parallel, scratch, use);
}

template <class S, class T>
std::size_t scratch_bytes(const Problem& problem) {
    Scratch scratch(nullptr);
    const auto use = [](const auto&) {};
    problem.transformed() ? with_kernel<S, double, true>(problem, nullptr, scratch, use)
                          : with_kernel<S, T, false>(problem, nullptr, scratch, use);
    return scratch.bytes();
}

// Rows whose class index is not ignore_index; any of them out of range is told by `bad`.
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

#define CE_STRING(x) #x
#define CE_NAME(x) CE_STRING(x)
extern const Kernels kernels;
const Kernels kernels{CE_NAME(CE_NAMESPACE),
                      {run<float, float>, run<double, double>, run<float16, float>, run<bfloat16, float>},
                      {scratch_bytes<float, float>, scratch_bytes<double, double>, scratch_bytes<float16, float>,
                       scratch_bytes<bfloat16, float>},
                      count_indices};

CE_END
