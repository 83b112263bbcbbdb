// The vectors of the CPU, whatever their width.
//
// Arithmetic is spelled with GCC and Clang vector extensions; only what they cannot express (fused multiply-add, max,
// conversions of half a vector) is an intrinsic of each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "target.hpp"

CE_BEGIN

#if defined(CE_AVX512)
constexpr int kVectorBytes = 64;
#elif defined(CE_AVX2)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

typedef float f32 __attribute__((vector_size(kVectorBytes)));
typedef double f64 __attribute__((vector_size(kVectorBytes)));
typedef int32_t i32 __attribute__((vector_size(kVectorBytes)));
typedef int64_t i64 __attribute__((vector_size(kVectorBytes)));
typedef uint32_t u32 __attribute__((vector_size(kVectorBytes)));
typedef uint64_t u64 __attribute__((vector_size(kVectorBytes)));
typedef int16_t i16 __attribute__((vector_size(kVectorBytes)));
typedef uint16_t u16 __attribute__((vector_size(kVectorBytes)));
typedef float f32_half __attribute__((vector_size(kVectorBytes / 2)));

template <class V>
struct vector_traits;
template <>
struct vector_traits<f32> {
    using element = float;
    using integer = i32;
    using bits = u32;
};
template <>
struct vector_traits<f64> {
    using element = double;
    using integer = i64;
    using bits = u64;
};
template <class T>
struct vector_of;
template <>
struct vector_of<float> {
    using type = f32;
};
template <>
struct vector_of<double> {
    using type = f64;
};

template <class T>
using Vector = typename vector_of<T>::type;
template <class V>
using Element = typename vector_traits<V>::element;
template <class V>
using Integer = typename vector_traits<V>::integer;
template <class V>
using Bits = typename vector_traits<V>::bits;

template <class T>
constexpr int kWidth = kVectorBytes / int(sizeof(T));  // lanes of one vector
template <class V>
CE_INLINE V splat(double x) {
    return Element<V>(x) - V{};  // keeps the sign of a zero
}

template <class V>
CE_INLINE V load(const Element<V>* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

template <class V>
CE_INLINE void store(Element<V>* p, V v) {
    __builtin_memcpy(p, &v, sizeof v);
}

// The first `count` elements, which may be none, or more than a vector holds. The lanes after them are -inf. Nothing
// beyond `count` is read.
template <class V>
CE_INLINE V load_first(const Element<V>* p, int count) {
    using E = Element<V>;
    constexpr int width = int(sizeof(V) / sizeof(E));
    const V padding = V{} - std::numeric_limits<E>::infinity();
    if (count >= width) return load<V>(p);
    if (count <= 0) return padding;
#if defined(CE_AVX512)
    // A masked load is a store and a load less than going through memory.
    if constexpr (std::is_same_v<E, float>) return _mm512_mask_loadu_ps(padding, __mmask16((1u << count) - 1), p);
    if constexpr (std::is_same_v<E, double>) return _mm512_mask_loadu_pd(padding, __mmask8((1u << count) - 1), p);
#else
    E lane[width];
    store(lane, padding);
    __builtin_memcpy(lane, p, std::size_t(count) * sizeof(E));
    return load<V>(lane);
#endif
}

template <class V>
CE_INLINE V select(Integer<V> mask, V yes, V no) {
    return mask ? yes : no;
}

// counts + 1 in the lanes of a mask.
template <class V>
CE_INLINE Integer<V> count_lanes(Integer<V> mask, Integer<V> counts) {
#if defined(CE_AVX512)
    return mask ? counts + 1 : counts;  // one masked addition
#else
    return counts - mask;
#endif
}

// Whether a mask has no lane set.
CE_INLINE bool none(i64 mask) {
#if defined(CE_AVX512)
    return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) == 0;
#elif defined(CE_AVX2)
    return _mm256_testz_si256((__m256i)mask, (__m256i)mask) != 0;
#else
    return (mask[0] | mask[1]) == 0;
#endif
}

// fma(a, b, c) = a b + c, rounded once. highest(a, b) returns b where a is NaN: it loses a NaN, which the sum of
// exponentials finds.
#if defined(CE_AVX512)
CE_INLINE f32 fma(f32 a, f32 b, f32 c) { return _mm512_fmadd_ps(a, b, c); }
CE_INLINE f64 fma(f64 a, f64 b, f64 c) { return _mm512_fmadd_pd(a, b, c); }
CE_INLINE f32 highest(f32 a, f32 b) { return _mm512_max_ps(a, b); }
CE_INLINE f64 highest(f64 a, f64 b) { return _mm512_max_pd(a, b); }
CE_INLINE f32_half low(f32 v) { return _mm512_castps512_ps256(v); }
CE_INLINE f32_half high(f32 v) { return _mm512_extractf32x8_ps(v, 1); }
CE_INLINE f32 join(f32_half a, f32_half b) { return _mm512_insertf32x8(_mm512_castps256_ps512(a), b, 1); }
CE_INLINE f64 widen(f32_half v) { return _mm512_cvtps_pd(v); }
CE_INLINE f32_half narrow(f64 v) { return _mm512_cvtpd_ps(v); }
#elif defined(CE_AVX2)
CE_INLINE f32 fma(f32 a, f32 b, f32 c) { return _mm256_fmadd_ps(a, b, c); }
CE_INLINE f64 fma(f64 a, f64 b, f64 c) { return _mm256_fmadd_pd(a, b, c); }
CE_INLINE f32 highest(f32 a, f32 b) { return _mm256_max_ps(a, b); }
CE_INLINE f64 highest(f64 a, f64 b) { return _mm256_max_pd(a, b); }
CE_INLINE f32_half low(f32 v) { return _mm256_castps256_ps128(v); }
CE_INLINE f32_half high(f32 v) { return _mm256_extractf128_ps(v, 1); }
CE_INLINE f32 join(f32_half a, f32_half b) { return _mm256_insertf128_ps(_mm256_castps128_ps256(a), b, 1); }
CE_INLINE f64 widen(f32_half v) { return _mm256_cvtps_pd(v); }
CE_INLINE f32_half narrow(f64 v) { return _mm256_cvtpd_ps(v); }
#elif defined(CE_NEON)
CE_INLINE f32 fma(f32 a, f32 b, f32 c) { return f32(vfmaq_f32(float32x4_t(c), float32x4_t(a), float32x4_t(b))); }
CE_INLINE f64 fma(f64 a, f64 b, f64 c) { return f64(vfmaq_f64(float64x2_t(c), float64x2_t(a), float64x2_t(b))); }
CE_INLINE f32 highest(f32 a, f32 b) { return f32(vmaxnmq_f32(float32x4_t(a), float32x4_t(b))); }
CE_INLINE f64 highest(f64 a, f64 b) { return f64(vmaxnmq_f64(float64x2_t(a), float64x2_t(b))); }
CE_INLINE f32_half low(f32 v) { return f32_half(vget_low_f32(float32x4_t(v))); }
CE_INLINE f32_half high(f32 v) { return f32_half(vget_high_f32(float32x4_t(v))); }
CE_INLINE f32 join(f32_half a, f32_half b) { return f32(vcombine_f32(float32x2_t(a), float32x2_t(b))); }
CE_INLINE f64 widen(f32_half v) { return f64(vcvt_f64_f32(float32x2_t(v))); }
CE_INLINE f32_half narrow(f64 v) { return f32_half(vcvt_f32_f64(float64x2_t(v))); }
#else  // baseline: any CPU, and as accurate, but not the same bits
CE_INLINE f32 fma(f32 a, f32 b, f32 c) { return a * b + c; }
CE_INLINE f64 fma(f64 a, f64 b, f64 c) { return a * b + c; }
CE_INLINE f32 highest(f32 a, f32 b) { return a > b ? a : b; }
CE_INLINE f64 highest(f64 a, f64 b) { return a > b ? a : b; }
CE_INLINE f32_half low(f32 v) { return f32_half{v[0], v[1]}; }
CE_INLINE f32_half high(f32 v) { return f32_half{v[2], v[3]}; }
CE_INLINE f32 join(f32_half a, f32_half b) { return f32{a[0], a[1], b[0], b[1]}; }
CE_INLINE f64 widen(f32_half v) { return __builtin_convertvector(v, f64); }
CE_INLINE f32_half narrow(f64 v) { return __builtin_convertvector(v, f32_half); }
#endif

// Of 16-bit numbers: the higher, the lower; whether any is below a limit.
#if defined(CE_AVX512)
CE_INLINE i16 highest(i16 a, i16 b) { return (i16)_mm512_max_epi16((__m512i)a, (__m512i)b); }
CE_INLINE u16 lowest(u16 a, u16 b) { return (u16)_mm512_min_epu16((__m512i)a, (__m512i)b); }
CE_INLINE bool any_below(u16 v, std::uint16_t limit) {
    return _mm512_cmplt_epu16_mask((__m512i)v, _mm512_set1_epi16(short(limit))) != 0;
}
#elif defined(CE_AVX2)
CE_INLINE i16 highest(i16 a, i16 b) { return (i16)_mm256_max_epi16((__m256i)a, (__m256i)b); }
CE_INLINE u16 lowest(u16 a, u16 b) { return (u16)_mm256_min_epu16((__m256i)a, (__m256i)b); }
CE_INLINE bool any_below(u16 v, std::uint16_t limit) {
    const __m256i missing = _mm256_subs_epu16(_mm256_set1_epi16(short(limit)), (__m256i)v);
    return _mm256_testz_si256(missing, missing) == 0;
}
#elif defined(CE_NEON)
CE_INLINE i16 highest(i16 a, i16 b) { return (i16)vmaxq_s16((int16x8_t)a, (int16x8_t)b); }
CE_INLINE u16 lowest(u16 a, u16 b) { return (u16)vminq_u16((uint16x8_t)a, (uint16x8_t)b); }
CE_INLINE bool any_below(u16 v, std::uint16_t limit) { return vminvq_u16((uint16x8_t)v) < limit; }
#else
CE_INLINE i16 highest(i16 a, i16 b) { return a > b ? a : b; }
CE_INLINE u16 lowest(u16 a, u16 b) { return a < b ? a : b; }
CE_INLINE bool any_below(u16 v, std::uint16_t limit) {
    bool any = false;
    for (int i = 0; i < kVectorBytes / 2; ++i) any |= v[i] < limit;
    return any;
}
#endif

template <class T>
constexpr int kHalves = int(sizeof(double) / sizeof(T));  // vectors of float64 that hold one vector of T

CE_INLINE void widen(f32 v, f64 (&wide)[2]) {
    wide[0] = widen(low(v));
    wide[1] = widen(high(v));
}
CE_INLINE void widen(f64 v, f64 (&wide)[1]) { wide[0] = v; }

CE_INLINE f32 narrow(const f64 (&wide)[2]) { return join(narrow(wide[0]), narrow(wide[1])); }
CE_INLINE f64 narrow(const f64 (&wide)[1]) { return wide[0]; }

CE_END
