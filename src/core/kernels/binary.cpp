// Binary cross-entropy, element by element; compiled once for each instruction set, as kernels.cpp.
#include "../binary.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "../dispatch.hpp"
#include "binary.hpp"
#include "lanes.hpp"
#include "storage.hpp"

CE_BEGIN

// Elements whose coefficients are computed together: few enough for the stack.
template <class T>
constexpr int kChunk = 1024 / int(sizeof(T));

// The weights of elements [at, at + count).
template <class W, class T>
void spread_from(const ElementWeights& weights, std::size_t at, int count, T* to) {
    const W* w = static_cast<const W*>(weights.data);
    const std::size_t repeat = weights.repeat, period = weights.period;
    if (repeat == 1) {
        const int once = int(std::min<std::size_t>(period, std::size_t(count)));
        std::size_t from = at % period;
        for (int i = 0; i < once;) {
            const int n = int(std::min<std::size_t>(period - from, std::size_t(once - i)));
            for (int j = 0; j < n; ++j) to[i + j] = T(w[from + std::size_t(j)]);
            i += n;
            from = 0;
        }
        for (int i = once; i < count; i *= 2) std::copy(to, to + std::min(i, count - i), to + i);
        return;
    }
    std::size_t from = at / repeat % period, within = at % repeat;
    for (int i = 0; i < count;) {
        const int n = int(std::min<std::size_t>(repeat - within, std::size_t(count - i)));
        std::fill(to + i, to + i + n, T(w[from]));
        i += n;
        within = 0;
        from = from + 1 == period ? 0 : from + 1;
    }
}

template <class T>
void spread(const ElementWeights& weights, std::size_t at, int count, T* to) {
    if (weights.data == nullptr)
        std::fill(to, to + count, T(1));
    else if (weights.type == ElementType::float32)
        spread_from<float>(weights, at, count, to);
    else
        spread_from<double>(weights, at, count, to);
}

template <class T, class Q>
inline void convert_from(const void* targets, std::size_t at, int count, T* y) {
    const Q* q = static_cast<const Q*>(targets) + at;
    int i = 0;
    if constexpr (std::is_same_v<Q, T> || std::is_same_v<Q, float> || kIsHalf<Q>)
        for (; i + kWidth<T> <= count; i += kWidth<T>) store(y + i, load_as<T>(q + i));
    for (; i < count; ++i) y[i] = T(q[i]);
}

// Targets [at, at + count) in T.
template <class T>
void convert_targets(const BinaryProblem& p, std::size_t at, int count, T* y) {
    const auto convert = [&](auto type) { convert_from<T, decltype(type)>(p.targets, at, count, y); };
    switch (p.targets_type) {
        case ElementType::float32:
            convert(float());
            break;
        case ElementType::float64:
            convert(double());
            break;
        case ElementType::float16:
            convert(float16());
            break;
        case ElementType::bfloat16:
            convert(bfloat16());
            break;
        case ElementType::int8:
            convert(std::int8_t());
            break;
        case ElementType::int16:
            convert(std::int16_t());
            break;
        case ElementType::int32:
            convert(std::int32_t());
            break;
        case ElementType::int64:
            convert(std::int64_t());
            break;
        case ElementType::uint8:
            convert(std::uint8_t());
            break;
        case ElementType::uint16:
            convert(std::uint16_t());
            break;
        case ElementType::uint32:
            convert(std::uint32_t());
            break;
        case ElementType::uint64:
            convert(std::uint64_t());
            break;
    }
}

// a+ and a- of a chunk, in T; for the focal loss y' too.
template <class T>
struct Coefficients {
    alignas(64) T plus[kChunk<T>], minus[kChunk<T>];
    alignas(64) T smoothed[kChunk<T>];
};

// Computed in U. The elements from `count` to `padded` are zeros, which contribute nothing.
template <class U, class T>
__attribute__((noinline)) void fill_coefficients(const BinaryProblem& p, std::size_t at, int count, int padded,
                                                 Coefficients<T>& a) {
    using V = Vector<U>;
    alignas(64) U y_scratch[kChunk<T>], w[kChunk<T>];
    const U* y = y_scratch;
    if (count == padded && p.targets_type == (std::is_same_v<U, float> ? ElementType::float32 : ElementType::float64)) {
        y = static_cast<const U*>(p.targets) + at;
    } else {
        convert_targets(p, at, count, y_scratch);
        std::fill(y_scratch + count, y_scratch + padded, U(0));
    }
    const bool weighted = p.pos_weight.data != nullptr;
    if (weighted) {
        spread(p.pos_weight, at, count, w);
        std::fill(w + count, w + padded, U(0));
    }
    const V share = splat<V>(1.0 - p.label_smoothing), half = splat<V>(0.5 * p.label_smoothing);
    for (int i = 0; i < padded; i += kWidth<U>) {
        const V given = load<V>(y + i);
        const V target = select<V>(given - given == 0, given, splat<V>(kNaN));  // no infinite ones
        const V smoothed = fma(share, target, half);
        store_as(a.plus + i, weighted ? load<V>(w + i) * smoothed : smoothed);
        store_as(a.minus + i, fma(share, 1 - target, half));
        if constexpr (std::is_same_v<T, double>) store_as(a.smoothed + i, smoothed);
    }
    std::fill(a.minus + count, a.minus + padded, T(0));
    std::fill(a.plus + count, a.plus + padded, T(0));
}

template <class V>
CE_INLINE V canonical(V x) {
    return select<V>(x == x, x, splat<V>(kNaN));
}

// Sums of losses, one for each logical lane. Those of float32 are added in float32 over four groups of all lanes first.
template <class T>
class GroupSums {
    using V = Vector<T>;
    static constexpr int kTogether = 4;

    LaneSums<T> sums_;
    V few_[kVectorsOfLanes] = {};
    int groups_ = 0;

 public:
    // Of the vector v of a group.
    CE_INLINE void add(int v, V x) {
        if constexpr (std::is_same_v<T, double>)
            sums_.add(v, x);
        else
            few_[v] += x;
    }
    // One half of that vector, in float64.
    CE_INLINE void add_wide(int at, f64 x) { sums_.add(at, x); }
    CE_INLINE void end_group() {
        if constexpr (!std::is_same_v<T, double>)
            if (++groups_ == kTogether) flush();
    }
    CE_INLINE void flush() {
        groups_ = 0;
#pragma GCC unroll 8
        for (int v = 0; v < kVectorsOfLanes; ++v) {
            f64 wide[kHalves<T>];
            widen(few_[v], wide);
#pragma GCC unroll 2
            for (int h = 0; h < kHalves<T>; ++h) sums_.add(v * kHalves<T> + h, wide[h]);
            few_[v] = V{};
        }
    }
    double total() {
        if constexpr (!std::is_same_v<T, double>) flush();
        const double sum = sums_.fold();
        return sum == sum ? sum : kNaN;
    }
};

// The same for whole groups without weights or smoothing, with float32 targets: nothing but logits and targets is read.
// Returns where it ended.
template <bool with_gradient>
std::size_t plain_elements(const BinaryProblem& p, std::size_t begin, std::size_t end, GroupSums<float>& sums) {
    constexpr int lanes = kLanes<float>;
    const f32 scale = splat<f32>(p.gradient_scale);
    const float* const z = static_cast<const float*>(p.logits);
    const float* const y = static_cast<const float*>(p.targets);
    float* const dlogits = static_cast<float*>(p.dlogits);
    std::size_t at = begin;
    for (; at + lanes <= end; at += lanes) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectorsOfLanes; ++v) {
            const std::size_t here = at + std::size_t(v * kWidth<float>);
            const f32 target = load<f32>(y + here);
            const BinaryParts<f32> parts(load<f32>(z + here), target, 1 - target);
            const f32 loss = parts.loss();  // NaN for an infinite target too: the sum of the coefficients is
            sums.add(v, loss);
            if constexpr (with_gradient)
                store(dlogits + here, select<f32>(loss == loss, parts.gradient() * scale, splat<f32>(kNaN)));
        }
        sums.end_group();
    }
    return at;
}

// Elements [begin, end) with logits of type S, computed in T; returns the sum of their losses.
template <class S, class T, bool weighted>
double binary_elements(const BinaryProblem& p, std::size_t begin, std::size_t end) {
    using V = Vector<T>;
    constexpr int lanes = kLanes<T>, halves = kHalves<T>, wide = kWidth<double>;
    const S* const logits = static_cast<const S*>(p.logits);
    S* const dlogits = static_cast<S*>(p.dlogits);
    RowValue<S>* const losses = static_cast<RowValue<S>*>(p.losses);
    const auto finite = [](double scale) { return scale - scale == 0.0 ? scale : kNaN; };
    const V scale_of_all = splat<V>(finite(p.gradient_scale));

    Coefficients<T> a;
    alignas(64) double weight[weighted ? kChunk<T> : 1], scale[weighted ? kChunk<T> : 1];
    GroupSums<T> sums;
    if constexpr (std::is_same_v<S, float> && std::is_same_v<T, float> && !weighted)
        if (p.targets_type == ElementType::float32 && p.pos_weight.data == nullptr && p.label_smoothing == 0.0 &&
            losses == nullptr)
            begin = dlogits != nullptr ? plain_elements<true>(p, begin, end, sums)
                                       : plain_elements<false>(p, begin, end, sums);
    for (std::size_t at = begin; at < end; at += std::size_t(kChunk<T>)) {
        const int count = int(std::min<std::size_t>(std::size_t(kChunk<T>), end - at));
        const int padded = (count + lanes - 1) / lanes * lanes;
        if (std::is_same_v<T, float> && p.targets_type == ElementType::float64)
            fill_coefficients<double>(p, at, count, padded, a);  // 1 - y needs all digits of y
        else
            fill_coefficients<T>(p, at, count, padded, a);
        if constexpr (weighted) {
            spread(p.sample_weight, at, count, weight);
            for (int i = 0; i < count; ++i)
                scale[i] = finite(p.gradient_scale * weight[i] *
                                  (p.grad_output != nullptr ? p.grad_output[at + std::size_t(i)] : 1.0));
            std::fill(weight + count, weight + padded, 0.0);
            std::fill(scale + count, scale + padded, 0.0);
        }
        // A group of all lanes, its coefficients from `a`, i on.
        const auto group = [&](int i, const S* z, S* gradient, RowValue<S>* loss) CE_INLINE_LAMBDA {
#pragma GCC unroll 8
            for (int v = 0; v < kVectorsOfLanes; ++v) {
                const int j = v * kWidth<T>, k = i + j;
                const V minus = load<V>(a.minus + k);
                const BinaryParts<V> parts(load_as<T>(z + j), load<V>(a.plus + k), minus);
                V one_loss, one_gradient{};
                if (std::is_same_v<T, double> && p.focal_gamma != 0.0) {
                    if constexpr (std::is_same_v<T, double>) {
                        const FocalElement focal = focal_element(parts, load<V>(a.smoothed + k), minus, p.focal_gamma);
                        one_loss = focal.loss;
                        one_gradient = focal.gradient;
                    }
                } else {
                    one_loss = parts.loss();
                    if (gradient != nullptr) one_gradient = parts.gradient();
                }
                if constexpr (weighted) {
                    f64 l[halves], g[halves];
                    widen(one_loss, l);
                    widen(one_gradient, g);
#pragma GCC unroll 2
                    for (int h = 0; h < halves; ++h) {
                        const f64 s = load<f64>(weight + k + h * wide);
                        l[h] = select<f64>(s == 0, f64{}, l[h] * s);
                        sums.add_wide(v * halves + h, l[h]);
                        if (loss != nullptr) store_as(loss + j + h * wide, canonical(l[h]));
                        g[h] = select<f64>(s == 0, f64{}, canonical(g[h] * load<f64>(scale + k + h * wide)));
                    }
                    if (gradient != nullptr) store_as(gradient + j, narrow_for<S>(g));
                } else {
                    sums.add(v, one_loss);
                    if (loss != nullptr) store(loss + j, canonical(one_loss));
                    if (gradient != nullptr) store_as(gradient + j, canonical(one_gradient * scale_of_all));
                }
            }
            sums.end_group();
        };
        int i = 0;
        for (; i + lanes <= count; i += lanes) {
            const std::size_t here = at + std::size_t(i);
            group(i, logits + here, dlogits == nullptr ? nullptr : dlogits + here,
                  losses == nullptr ? nullptr : losses + here);
        }
        if (i < count) {
            alignas(64) S z[lanes], gradient[lanes];
            alignas(64) RowValue<S> loss[lanes];
            const std::size_t here = at + std::size_t(i);
            const int rest = count - i;
            pad(logits + here, rest, lanes, z);
            group(i, z, gradient, loss);
            if (dlogits != nullptr) std::copy(gradient, gradient + rest, dlogits + here);
            if (losses != nullptr) std::copy(loss, loss + rest, losses + here);
        }
    }
    return sums.total();
}

template <class S>
double elements(const BinaryProblem& p, std::size_t begin, std::size_t end) {
    using T = RowValue<S>;
    if constexpr (!std::is_same_v<S, double>)
        if (p.needs_general_kernel()) return binary_elements<S, double, true>(p, begin, end);
    // A factor of all gradients may be out of the range of T.
    const double scale = std::fabs(p.gradient_scale);
    const bool extreme = scale != 0.0 && !(scale > 0x1p-60 && scale < 0x1p60);
    return p.weighted() || extreme ? binary_elements<S, T, true>(p, begin, end)
                                   : binary_elements<S, T, false>(p, begin, end);
}

template <class W>
double sum_weights(const void* data, std::size_t begin, std::size_t end) {
    constexpr int lanes = kLanes<double>, wide = kWidth<double>;
    const W* const w = static_cast<const W*>(data);
    LaneSums<double> sums;
    std::size_t at = begin;
    const auto group = [&](const W* from) CE_INLINE_LAMBDA {
#pragma GCC unroll 8
        for (int v = 0; v < lanes / wide; ++v) sums.add(v, load_as<double>(from + v * wide));
    };
    for (; at + lanes <= end; at += lanes) group(w + at);
    W rest[lanes] = {};
    std::copy(w + at, w + end, rest);
    group(rest);
    return sums.fold();
}

// The sum of the numbers [begin, end) of an array of weights.
static double sum_of_weights(const ElementWeights& weights, std::size_t begin, std::size_t end) {
    return weights.type == ElementType::float32 ? sum_weights<float>(weights.data, begin, end)
                                                : sum_weights<double>(weights.data, begin, end);
}

extern const BinaryKernels binary_kernels;
const BinaryKernels binary_kernels{{elements<float>, elements<double>, elements<float16>, elements<bfloat16>},
                                   sum_of_weights};

CE_END
