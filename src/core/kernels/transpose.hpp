// Four classes of some rows: from rows one after another to rows side by side, and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "storage.hpp"
#include "vectors.hpp"

CE_BEGIN

constexpr int kQuarters = kVectorBytes / 16;    // of a vector: 128 bits, four floats
constexpr int kTransposedRows = 4 * kQuarters;  // so many rows at a time
typedef float f32x4 __attribute__((vector_size(16)));

#if defined(CE_AVX512)
CE_INLINE f32 join(const f32x4 (&quarter)[4]) {
    const __m512 half = _mm512_insertf32x4(_mm512_castps128_ps512(quarter[0]), quarter[1], 1);
    return _mm512_insertf32x4(_mm512_insertf32x4(half, quarter[2], 2), quarter[3], 3);
}
CE_INLINE void split(f32 v, f32x4 (&quarter)[4]) {
    quarter[0] = _mm512_castps512_ps128(v);
    quarter[1] = _mm512_extractf32x4_ps(v, 1);
    quarter[2] = _mm512_extractf32x4_ps(v, 2);
    quarter[3] = _mm512_extractf32x4_ps(v, 3);
}
CE_INLINE f32 interleave_low(f32 a, f32 b) { return _mm512_unpacklo_ps(a, b); }
CE_INLINE f32 interleave_high(f32 a, f32 b) { return _mm512_unpackhi_ps(a, b); }
CE_INLINE f32 low_pairs(f32 a, f32 b) { return (f32)_mm512_unpacklo_pd((__m512d)a, (__m512d)b); }
CE_INLINE f32 high_pairs(f32 a, f32 b) { return (f32)_mm512_unpackhi_pd((__m512d)a, (__m512d)b); }
#elif defined(CE_AVX2)
CE_INLINE f32 join(const f32x4 (&quarter)[2]) { return join(quarter[0], quarter[1]); }
CE_INLINE void split(f32 v, f32x4 (&quarter)[2]) {
    quarter[0] = low(v);
    quarter[1] = high(v);
}
CE_INLINE f32 interleave_low(f32 a, f32 b) { return _mm256_unpacklo_ps(a, b); }
CE_INLINE f32 interleave_high(f32 a, f32 b) { return _mm256_unpackhi_ps(a, b); }
CE_INLINE f32 low_pairs(f32 a, f32 b) { return (f32)_mm256_unpacklo_pd((__m256d)a, (__m256d)b); }
CE_INLINE f32 high_pairs(f32 a, f32 b) { return (f32)_mm256_unpackhi_pd((__m256d)a, (__m256d)b); }
#else
#if defined(__clang__)
#define CE_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define CE_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, i32{i, j, k, l})
#endif
CE_INLINE f32 join(const f32x4 (&quarter)[1]) { return quarter[0]; }
CE_INLINE void split(f32 v, f32x4 (&quarter)[1]) { quarter[0] = v; }
CE_INLINE f32 interleave_low(f32 a, f32 b) { return CE_SHUFFLE(a, b, 0, 4, 1, 5); }
CE_INLINE f32 interleave_high(f32 a, f32 b) { return CE_SHUFFLE(a, b, 2, 6, 3, 7); }
CE_INLINE f32 low_pairs(f32 a, f32 b) { return CE_SHUFFLE(a, b, 0, 1, 4, 5); }
CE_INLINE f32 high_pairs(f32 a, f32 b) { return CE_SHUFFLE(a, b, 2, 3, 6, 7); }
#undef CE_SHUFFLE
#endif

// Four elements of storage S.
template <class S>
using Four = std::conditional_t<kIsHalf<S>, std::uint64_t, f32x4>;

template <class S>
CE_INLINE f32 join_as(const Four<S> (&quarter)[kQuarters]) {
    if constexpr (kIsHalf<S>) {
        u16_half bits;
        __builtin_memcpy(&bits, quarter, sizeof bits);
        return from_bits(bits, static_cast<const S*>(nullptr));
    } else {
        return join(quarter);
    }
}
template <class S>
CE_INLINE void split_as(f32 v, Four<S> (&quarter)[kQuarters]) {
    if constexpr (kIsHalf<S>) {
        const u16_half bits = to_bits(v, static_cast<const S*>(nullptr));
        __builtin_memcpy(quarter, &bits, sizeof bits);
    } else {
        split(v, quarter);
    }
}

// Four by four in each quarter: from v[i] with four classes of row i to v[c] with four rows of class c, and back.
CE_INLINE void transpose_quarters(f32 (&v)[4]) {
    const f32 low01 = interleave_low(v[0], v[1]), high01 = interleave_high(v[0], v[1]);
    const f32 low23 = interleave_low(v[2], v[3]), high23 = interleave_high(v[2], v[3]);
    v[0] = low_pairs(low01, low23);
    v[1] = high_pairs(low01, low23);
    v[2] = low_pairs(high01, high23);
    v[3] = high_pairs(high01, high23);
}

// Four elements of each of kTransposedRows rows, `stride` apart. Of these the first `classes` are stored, as vectors of
// all rows, `to_stride` apart.
template <class S>
CE_INLINE void transpose_rows(const S* rows, std::size_t stride, float* to, std::size_t to_stride, int classes = 4) {
    f32 v[4];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) {
        Four<S> quarter[kQuarters];
#pragma GCC unroll 4
        for (std::size_t k = 0; k < kQuarters; ++k)
            __builtin_memcpy(&quarter[k], rows + (4 * k + i) * stride, 4 * sizeof(S));
        v[i] = join_as<S>(quarter);
    }
    transpose_quarters(v);
#pragma GCC unroll 4
    for (int c = 0; c < classes; ++c) store(to + std::size_t(c) * to_stride, v[c]);
}

// And back. Four elements of each row are written, row after row: of fewer classes, a row overwrites what the one
// before it has written of it.
template <class S>
CE_INLINE void transpose_columns(const float* columns, std::size_t from_stride, S* rows, std::size_t stride,
                                 int classes = 4) {
    f32 v[4] = {};
#pragma GCC unroll 4
    for (int c = 0; c < classes; ++c) v[c] = load<f32>(columns + std::size_t(c) * from_stride);
    transpose_quarters(v);
    Four<S> quarter[4][kQuarters];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) split_as<S>(v[i], quarter[i]);
#pragma GCC unroll 4
    for (std::size_t k = 0; k < kQuarters; ++k)
#pragma GCC unroll 4
        for (std::size_t i = 0; i < 4; ++i)
            __builtin_memcpy(rows + (4 * k + i) * stride, &quarter[i][k], 4 * sizeof(S));
}

CE_END
