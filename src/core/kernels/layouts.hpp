// A problem's kernel by its layout and the type of its logits.
#pragma once

#include <cstddef>
#include <type_traits>

#include "../scratch.hpp"
#include "columns.hpp"
#include "rows.hpp"
#include "run.hpp"
#include "strided.hpp"

CE_BEGIN

// visit(kernel) with the kernel for the layout of a problem, its arrays in `scratch`. Logits of type S are computed in
// T.
template <Mode mode, class S, class T, class Visit>
CE_INLINE void visit_layout(const Problem& problem, const ParallelFor* parallel, Scratch& scratch, const Visit& visit) {
    if (problem.class_stride > 1)
        visit(StridedKernel<S, T, mode>(problem, scratch));
    else if (problem.classes <= std::size_t(kFewClasses) && problem.remainder == nullptr && !problem.is_part())
        visit(ColumnKernel<S, T, mode>(problem, scratch));
    else
        visit(RowKernel<S, T, mode>(problem, parallel, scratch));
}

template <Mode mode, class Visit>
CE_INLINE void visit_kernel(const Problem& problem, const ParallelFor* parallel, Scratch& scratch, const Visit& visit) {
    using T = std::conditional_t<mode == Mode::general, double, float>;
    switch (problem.type) {
        case ElementType::float32:
            return visit_layout<mode, float, T>(problem, parallel, scratch, visit);
        case ElementType::float64:
            return visit_layout<mode, double, double>(problem, parallel, scratch, visit);
        case ElementType::float16:
            return visit_layout<mode, float16, T>(problem, parallel, scratch, visit);
        default:
            return visit_layout<mode, bfloat16, T>(problem, parallel, scratch, visit);
    }
}

template <Mode mode>
void run(const Problem& problem, std::size_t begin, std::size_t end, const ParallelFor* parallel, void* memory,
         Outcome& outcome) {
    Scratch scratch(memory);
    visit_kernel<mode>(problem, parallel, scratch, [&](const auto& kernel) { kernel.run(begin, end, outcome); });
}

template <Mode mode>
std::size_t scratch_bytes(const Problem& problem) {
    Scratch scratch(nullptr);
    visit_kernel<mode>(problem, nullptr, scratch, [](const auto&) {});
    return scratch.bytes();
}

#define CE_COMPILE(mode)                                                                                    \
    template void run<mode>(const Problem&, std::size_t, std::size_t, const ParallelFor*, void*, Outcome&); \
    template std::size_t scratch_bytes<mode>(const Problem&);

CE_END
