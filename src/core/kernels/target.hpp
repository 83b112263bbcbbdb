// The instruction set that a kernel is compiled for. CMake defines CE_AVX512, CE_AVX2 or CE_NEON; else it is baseline.
//
// A header of kernels includes what it needs first, and has its own code between CE_BEGIN and CE_END. The instruction
// set is switched on between the two only. An inline function of a standard header, which other files share, is thus
// never compiled to instructions that an older CPU lacks.
#pragma once

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

// Whether fma rounds once.
#if defined(CE_AVX512) || defined(CE_AVX2) || defined(CE_NEON)
#define CE_FUSED 1
#else
#define CE_FUSED 0
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

#define CE_BEGIN CE_PUSH(CE_TARGET) namespace crossentropy::CE_NAMESPACE {
#define CE_END \
    }          \
    CE_POP

// Losing the inlining of a hot function costs up to 30 %.
#define CE_INLINE inline __attribute__((always_inline))
#define CE_INLINE_LAMBDA __attribute__((always_inline))
