// Elements as they lie in memory. Half precision is only loaded and stored; all arithmetic is wider.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "../options.hpp"
#include "vectors.hpp"

CE_BEGIN

// A number of 16 bits: sign, exponent, mantissa.
template <int exponent_bits, int mantissa_bits>
struct Half {
    static constexpr int bias = (1 << (exponent_bits - 1)) - 1;
    static constexpr std::uint16_t infinity = ((1 << exponent_bits) - 1) << mantissa_bits;

    std::uint16_t bits;

    Half() = default;
    // Rounded once, to the nearest, ties to even.
    explicit __attribute__((noinline)) Half(double x) {
        const double size = std::abs(x);
        std::uint64_t wide;
        if (!(size >= std::ldexp(1.0, 1 - bias))) {  // subnormal: a multiple of the smallest number
            const double sum = size + std::ldexp(1.0, 52 + 1 - bias - mantissa_bits);
            __builtin_memcpy(&wide, &sum, sizeof wide);
            wide &= (1u << (mantissa_bits + 1)) - 1;
        } else {
            __builtin_memcpy(&wide, &size, sizeof wide);
            constexpr int dropped = 52 - mantissa_bits;
            wide += (std::uint64_t(1) << (dropped - 1)) - 1 + ((wide >> dropped) & 1);
            wide = std::min((wide >> dropped) - (std::uint64_t(1023 - bias) << mantissa_bits), std::uint64_t(infinity));
        }
        if (x != x) wide = infinity | (1u << (mantissa_bits - 1));
        bits = std::uint16_t(wide | (std::signbit(x) && x == x ? 0x8000u : 0u));
    }
    explicit __attribute__((noinline)) operator double() const {
        const int exponent = (bits & infinity) >> mantissa_bits, mantissa = bits & ((1 << mantissa_bits) - 1);
        double size;
        if ((bits & infinity) == infinity)
            size = mantissa != 0 ? kNaN : kInf;
        else if (exponent == 0)
            size = mantissa * std::ldexp(1.0, 1 - bias - mantissa_bits);
        else
            size = std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
        return (bits & 0x8000) != 0 ? -size : size;
    }
    explicit operator float() const { return float(double(*this)); }
};
using float16 = Half<5, 10>;
using bfloat16 = Half<8, 7>;

// The bits of a half as an integer that has the order of the numbers (NaN beyond infinity, -0 below 0). Applied twice,
// it gives the bits back.
template <class I>
CE_INLINE I ordered(I bits) {
    return I(bits ^ ((bits >> 15) & 0x7fff));
}

template <class S>
constexpr bool kIsHalf = std::is_same_v<S, float16> || std::is_same_v<S, bfloat16>;
// The type of a row's loss. Half precision would leave it two or three digits.
template <class S>
using RowValue = std::conditional_t<std::is_same_v<S, double>, double, float>;

typedef uint32_t u32_half __attribute__((vector_size(kVectorBytes / 2)));
typedef uint16_t u16_half __attribute__((vector_size(kVectorBytes / 2)));     // as many lanes as f32
typedef uint16_t u16_quarter __attribute__((vector_size(kVectorBytes / 4)));  // as many lanes as f64, and as f32_half

// The compiler's own conversion between 16 and 32 bits takes several instructions where x86 has one.
#if defined(CE_AVX512)
CE_INLINE u32 widen_bits(u16_half bits) { return (u32)_mm512_cvtepu16_epi32((__m256i)bits); }
CE_INLINE u16_half narrow_bits(u32 bits) { return (u16_half)_mm512_cvtepi32_epi16((__m512i)bits); }
#elif defined(CE_AVX2)
CE_INLINE u32 widen_bits(u16_half bits) { return (u32)_mm256_cvtepu16_epi32((__m128i)bits); }
CE_INLINE u16_half narrow_bits(u32 bits) {
    const __m256i v = (__m256i)bits;
    return (u16_half)_mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}
#else
CE_INLINE u32 widen_bits(u16_half bits) { return __builtin_convertvector(bits, u32); }
CE_INLINE u16_half narrow_bits(u32 bits) { return __builtin_convertvector(bits, u16_half); }
#endif

// By integers, since the CPU's instruction flushes subnormal numbers. The canonical NaN stays as it is.
template <class Wide>
CE_INLINE Wide rounded_to_bfloat16(Wide bits) {
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
CE_INLINE f32 from_bits(u16_half bits, const bfloat16*) { return (f32)(widen_bits(bits) << 16); }
CE_INLINE f32_half from_bits(u16_quarter bits, const bfloat16*) {
    return (f32_half)(__builtin_convertvector(bits, u32_half) << 16);
}
CE_INLINE u16_half to_bits(f32 v, const bfloat16*) { return narrow_bits(rounded_to_bfloat16((u32)v)); }
CE_INLINE u16_quarter to_bits(f32_half v, const bfloat16*) {
    return __builtin_convertvector(rounded_to_bfloat16((u32_half)v), u16_quarter);
}

#if defined(CE_AVX512)
CE_INLINE f32 from_bits(u16_half bits, const float16*) { return _mm512_cvtph_ps((__m256i)bits); }
CE_INLINE f32_half from_bits(u16_quarter bits, const float16*) { return _mm256_cvtph_ps((__m128i)bits); }
CE_INLINE u16_half to_bits(f32 v, const float16*) { return (u16_half)_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
CE_INLINE u16_quarter to_bits(f32_half v, const float16*) {
    return (u16_quarter)_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(CE_AVX2)
CE_INLINE f32 from_bits(u16_half bits, const float16*) { return _mm256_cvtph_ps((__m128i)bits); }
CE_INLINE f32_half from_bits(u16_quarter bits, const float16*) {
    return _mm_cvtph_ps(_mm_cvtsi64_si128((long long)bits));
}
CE_INLINE u16_half to_bits(f32 v, const float16*) { return (u16_half)_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
CE_INLINE u16_quarter to_bits(f32_half v, const float16*) {
    return (u16_quarter)_mm_cvtsi128_si64(_mm_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(CE_NEON)
CE_INLINE f32 from_bits(u16_half bits, const float16*) { return (f32)vcvt_f32_f16((float16x4_t)bits); }
CE_INLINE f32_half from_bits(u16_quarter bits, const float16*) {
    u16_half both{};
    __builtin_memcpy(&both, &bits, sizeof bits);
    return low(from_bits(both, (const float16*)nullptr));
}
CE_INLINE u16_half to_bits(f32 v, const float16*) { return (u16_half)vcvt_f16_f32((float32x4_t)v); }
CE_INLINE u16_quarter to_bits(f32_half v, const float16*) {
    const u16_half both = to_bits(join(v, v), (const float16*)nullptr);
    u16_quarter bits;
    __builtin_memcpy(&bits, &both, sizeof bits);
    return bits;
}
#else
template <class V, class Packed>
CE_INLINE V float16_lanes(Packed bits) {
    V v;
    for (int i = 0; i < int(sizeof(Packed) / 2); ++i) {
        float16 h;
        h.bits = bits[i];
        v[i] = float(h);
    }
    return v;
}
template <class Packed, class V>
CE_INLINE Packed float16_bits(V v) {
    Packed bits;
    for (int i = 0; i < int(sizeof(Packed) / 2); ++i) bits[i] = float16(double(v[i])).bits;
    return bits;
}
CE_INLINE f32 from_bits(u16_half bits, const float16*) { return float16_lanes<f32>(bits); }
CE_INLINE f32_half from_bits(u16_quarter bits, const float16*) { return float16_lanes<f32_half>(bits); }
CE_INLINE u16_half to_bits(f32 v, const float16*) { return float16_bits<u16_half>(v); }
CE_INLINE u16_quarter to_bits(f32_half v, const float16*) { return float16_bits<u16_quarter>(v); }
#endif

// float64 to float32, rounded to odd: rounding the result to half precision then gives what rounding once would.
CE_INLINE f32_half narrow_to_odd(f64 v) {
    typedef int32_t i32_half __attribute__((vector_size(kVectorBytes / 2)));
    const f32_half nearest = narrow(v);
    const f64 back = widen(nearest);
    const f64 size = v < 0 ? -v : v, back_size = back < 0 ? -back : back;
    i32_half bits = (i32_half)nearest;
    bits += __builtin_convertvector(back_size > size, i32_half);  // -1 where it was rounded away from zero
    bits |= __builtin_convertvector(back != v, i32_half) & 1;
    return (f32_half)bits;
}

// kWidth<T> elements of storage S as a vector of T.
template <class T, class S>
CE_INLINE Vector<T> load_as(const S* p) {
    if constexpr (std::is_same_v<S, T>) {
        return load<Vector<T>>(p);
    } else if constexpr (std::is_same_v<S, float>) {
        f32_half v;
        __builtin_memcpy(&v, p, sizeof v);
        return widen(v);
    } else if constexpr (std::is_same_v<T, float>) {
        u16_half bits;
        __builtin_memcpy(&bits, p, sizeof bits);
        return from_bits(bits, p);
    } else {
        u16_quarter bits;
        __builtin_memcpy(&bits, p, sizeof bits);
        return widen(from_bits(bits, p));
    }
}
// A vector as elements of storage S, rounded once.
template <class S, class V>
CE_INLINE void store_as(S* p, V v) {
    if constexpr (std::is_same_v<S, Element<V>>) {
        store(p, v);
    } else if constexpr (std::is_same_v<S, float>) {
        const f32_half half = narrow(v);
        __builtin_memcpy(p, &half, sizeof half);
    } else if constexpr (std::is_same_v<V, f32>) {
        const u16_half bits = to_bits(v, p);
        __builtin_memcpy(p, &bits, sizeof bits);
    } else {
        const u16_quarter bits = to_bits(narrow_to_odd(v), p);
        __builtin_memcpy(p, &bits, sizeof bits);
    }
}
// float64 lanes as the vector of T that `store_as` rounds to S.
template <class S>
CE_INLINE f32 narrow_for(const f64 (&wide)[2]) {
    if constexpr (kIsHalf<S>) return join(narrow_to_odd(wide[0]), narrow_to_odd(wide[1]));
    return narrow(wide);
}
template <class S>
CE_INLINE f64 narrow_for(const f64 (&wide)[1]) {
    return wide[0];
}

// Copies `count` elements, and fills up with -inf to `padded`. It stores whole vectors, which loads that follow at once
// can take from the store buffer. Nothing beyond `count` is read.
template <class S>
CE_INLINE void pad(const S* from, int count, int padded, S* to) {
    if constexpr (kIsHalf<S>)
        std::fill(std::copy(from, from + count, to), to + padded, S(-kInf));
    else
        for (int i = 0; i < padded; i += kWidth<S>) store(to + i, load_first<Vector<S>>(from + i, count - i));
}

CE_END
