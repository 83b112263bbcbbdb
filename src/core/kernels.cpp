// The kernels, compiled once for each instruction set: CMake defines CE_AVX512, CE_AVX2, CE_NEON or CE_BASELINE.
//
// The instruction set is switched on for this file's own functions only, after the standard headers: an inline
// function that other files share is never emitted with instructions that an older CPU lacks.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <type_traits>

#include "dispatch.hpp"
#include "problem.hpp"

#if defined(CE_AVX512)
#define CE_NAMESPACE avx512
#define CE_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
#elif defined(CE_AVX2)
#define CE_NAMESPACE avx2
#define CE_TARGET "avx2,fma,f16c"
#elif defined(CE_NEON)
#define CE_NAMESPACE neon
#else
#define CE_NAMESPACE baseline
#endif

#if defined(CE_AVX512) || defined(CE_AVX2)
#include <immintrin.h>
#elif defined(CE_NEON)
#include <arm_neon.h>
#endif

#define CE_PRAGMA(x) _Pragma(#x)
#if defined(CE_TARGET) && defined(__clang__)
#define CE_PUSH(names) CE_PRAGMA(clang attribute push(__attribute__((target(names))), apply_to = function))
#define CE_POP CE_PRAGMA(clang attribute pop)
#elif defined(CE_TARGET)
#define CE_PUSH(names) CE_PRAGMA(GCC push_options) CE_PRAGMA(GCC target(names))
#define CE_POP CE_PRAGMA(GCC pop_options)
#else
#define CE_TARGET ""
#define CE_PUSH(names)
#define CE_POP
#endif

CE_PUSH(CE_TARGET)
namespace crossentropy::CE_NAMESPACE {
// clang-format off: each header needs the one before it
#include "vectors.hpp"
#include "storage.hpp"
#include "lanes.hpp"
#include "exp.hpp"
#include "coefficients.hpp"
#include "parts.hpp"
#include "blocks.hpp"
#include "block_matrix.hpp"
#include "rows.hpp"
#include "tile.hpp"
#include "tile_matrix.hpp"
#include "columns.hpp"
#include "strided.hpp"
// clang-format on

// use(kernel) with the kernel for a problem, its arrays in `scratch`.
template <class S, class T, bool transformed, class Use>
CE_INLINE void with_kernel(const Problem& problem, const Tasks* tasks, Scratch& scratch, const Use& use) {
    if (problem.class_stride > 1)
        use(StridedKernel<S, T, transformed>(problem, scratch));
    else if (problem.classes <= std::size_t(kFewClasses))
        use(ColumnKernel<S, T, transformed>(problem, scratch));
    else
        use(RowKernel<S, T, transformed>(problem, tasks, scratch));
}

// T: what logits of type S are computed in, unless a soft cap or a temperature asks for float64.
template <class S, class T>
void run(const Problem& problem, std::size_t begin, std::size_t end, const Tasks* tasks, void* memory,
         Outcome& outcome) {
    Scratch scratch(memory);
    const auto use = [&](const auto& kernel) { kernel.run(begin, end, outcome); };
    problem.transformed() ? with_kernel<S, double, true>(problem, tasks, scratch, use)
                          : with_kernel<S, T, false>(problem, tasks, scratch, use);
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
}  // namespace crossentropy::CE_NAMESPACE

CE_POP
