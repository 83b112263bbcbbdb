// What the options make of a row: its loss, and the numbers with which its gradient is a softmax(u) - b.

// Sums over the classes of a row, one row a lane. `rest` (r) is the sum of exp(u - m) over every class but one that
// attains the maximum m: log1p(rest) and rest / (1 + rest) keep the digits that log(1 + rest) and 1 - p would lose.
struct RowSums {
    f64 highest;    // m
    f64 rest;       // r
    f64 spread;     // sum of b_c (m - u_c)
    f64 b_rest;     // sum of b_c where u_c < m
    f64 b_highest;  // sum of b_c where u_c = m
};

struct RowFactors {
    f64 weight;  // omega: the target's class weight, or 1 for probabilities
    f64 sample;  // s
    f64 scale;   // of the gradient, s included
};

struct RowResult {
    f64 lse, loss;
    f64 softmax_scale;  // the gradient is softmax_scale * exp(u - m) - scale * b
    f64 at_highest;     // the gradient at a unique maximum, without the cancellation of p - 1
    f64 probability;    // p = probability * exp(u - m)
    f64 tail_scale;     // the diagonal of the Hessian in u is exp(u - m) (softmax_scale (1 - p) + tail_scale p)
};

CE_INLINE RowResult row_result(const Problem& p, const RowSums& sums, const RowFactors& row) {
    const f64 inverse_temperature = splat<f64>(p.inverse_temperature);
    const auto finite =
        (sums.highest < splat<f64>(kInf)) & (sums.highest > splat<f64>(-kInf)) & (sums.rest == sums.rest);
    const f64 b = sums.b_rest + sums.b_highest;
    const auto valid = finite & (b == b);
    const f64 inverse = 1.0 / (1.0 + sums.rest);
    const f64 log_total = log1p(sums.rest, inverse);
    const f64 lse = fma(sums.highest, inverse_temperature, log_total);

    f64 loss = fma(b, log_total, sums.spread * inverse_temperature);
    f64 tail{};  // what the z-loss adds to a
    if (p.options.z_loss > 0.0) {
        const f64 factor = p.options.z_loss * row.weight;
        loss += select<f64>(factor != 0, factor * lse * lse, f64{});
        tail = select<f64>(factor != 0, 2.0 * factor * lse, f64{});
    }
    const f64 per_total = row.scale * inverse;
    const f64 nan = splat<f64>(kNaN);
    RowResult result;
    // Without finite logits log-sum-exp is still -inf or +inf, unless one of them is NaN.
    result.lse = select<f64>(finite, lse, select<f64>(sums.rest == sums.rest, sums.highest, nan));
    result.loss = select<f64>(valid, row.sample * loss, nan);
    result.softmax_scale = select<f64>(valid, per_total * (b + tail), nan);
    result.probability = inverse;
    result.tail_scale = per_total * 2.0 * p.options.z_loss * row.weight;
    result.at_highest = per_total * ((sums.b_rest - sums.b_highest * sums.rest) + tail);
    return result;
}

// The value of a class as the softmax sees it before the temperature: the logit, or the capped logit.
template <class V>
CE_INLINE V capped(const Problem& p, V z) {
    if constexpr (std::is_same_v<V, f64>) {
        if (p.options.softcap < kInf) {
            const f64 cap = splat<f64>(p.options.softcap);
            const f64 size = select<f64>(z < 0, -z, z);
            return select<f64>(size == splat<f64>(kInf), z, cap * tanh(z / cap).value);
        }
    }
    return z;
}

// du/dz before the temperature.
CE_INLINE f64 capped_slope(const Problem& p, f64 z) {
    return p.options.softcap < kInf ? tanh(z / p.options.softcap).slope : splat<f64>(1.0);
}

// The second derivative over the first, from the capped logit u.
CE_INLINE f64 capped_curvature(const Problem& p, f64 u) {
    if (!(p.options.softcap < kInf)) return f64{};
    const f64 tanh = u / p.options.softcap;
    return -2.0 / p.options.softcap * select<f64>(tanh < -1, splat<f64>(-1.0), tanh);
}

// log p = u - lse, from u - m and log1p(r); -inf stays -inf.
CE_INLINE f64 log_probability(f64 u, f64 m, f64 log_total) {
    const Difference<f64> d = two_diff(u, m);
    return select<f64>(d.value == splat<f64>(-kInf), d.value, d.value - (log_total - d.error));
}

// exp((u - m) / temperature), with the rounding errors of the difference and of the quotient carried along:
// alone, rounding u - m to float32 costs 64 ULP of a small probability. `exact`: the difference is known to have no
// error.
template <bool transformed, bool exact = false, class V>
CE_INLINE V exp_below(const Problem& p, V u, V highest) {
    if constexpr (exact && !transformed) return exp(u - highest);
    const Difference<V> d = two_diff(u, highest);
    if constexpr (!transformed) {
        return exp(d.value, d.error);
    } else {
        const V inverse = splat<V>(p.inverse_temperature);
        const V x = d.value * inverse;
        const V error = d.value * splat<V>(p.inverse_temperature_error) + d.error * inverse;
        return exp(x, fma(d.value, inverse, -x) + error);
    }
}

// given * q_c; what is no probability makes its row NaN.
template <class T, class Q>
inline void given_probabilities(const void* probabilities, std::size_t offset, int count, double given, T* b) {
    using V = Vector<T>;
    const Q* q = static_cast<const Q*>(probabilities) + offset;
    int i = 0;
    if constexpr (std::is_same_v<Q, T> || std::is_same_v<Q, float> || kIsHalf<Q>)
        for (; i + kWidth<T> <= count; i += kWidth<T>) {
            const V x = load_as<T>(q + i);
            const auto valid = (x >= 0) & (x < splat<V>(kInf));
            store(b + i, select<V>(valid, x * splat<V>(given), splat<V>(kNaN)));
        }
    for (; i < count; ++i) {
        const T x = T(q[i]);
        b[i] = x >= 0 && x < T(kInf) ? x * T(given) : T(kNaN);
    }
}

template <class T>
__attribute__((noinline)) void probabilities_of_type(const Problem& p, std::size_t offset, int count, double given,
                                                     T* b) {
    const auto convert = [&](auto type) {
        given_probabilities<T, decltype(type)>(p.probabilities, offset, count, given, b);
    };
    switch (p.probabilities_type) {
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

// The classes of a sparse row and given * q_c, for each of its slots; what is no probability makes its row NaN.
template <class Visit>
CE_INLINE void for_sparse(const Problem& p, std::size_t row, double given, const Visit& visit) {
    const double* q = static_cast<const double*>(p.probabilities) + row * p.k;
    for (std::size_t j = 0; j < p.k; ++j)
        visit(std::size_t(p.sparse_indices[row * p.k + j]), q[j] >= 0.0 && q[j] < kInf ? given * q[j] : kNaN);
}

// b_c = w_c [(1 - epsilon) q_c + epsilon / C] of `count` classes from `first` on, padded with zeros.
template <class T>
void target_coefficients(const Problem& p, std::size_t row, std::int64_t target, std::size_t first, int count,
                         int padded, T* b) {
    const T uniform = T(p.options.label_smoothing / double(p.classes));
    const double given = 1.0 - p.options.label_smoothing;
    if (p.sparse_indices != nullptr) {
        std::fill(b, b + count, T(0));
        for_sparse(p, row, given, [&](std::size_t c, double q) {
            if (c - first < std::size_t(count)) b[c - first] += T(q);
        });
    } else if (p.probabilities != nullptr) {
        probabilities_of_type(p, row * p.classes + first, count, given, b);
    } else {
        std::fill(b, b + count, T(0));
        const std::size_t at = std::size_t(target) - first;
        if (at < std::size_t(count)) b[at] = T(given);
    }
    if (uniform != 0)
        for (int i = 0; i < count; ++i) b[i] += uniform;
    if (p.class_weight != nullptr)
        for (int i = 0; i < count; ++i) b[i] = T(double(b[i]) * p.class_weight[first + std::size_t(i)]);
    std::fill(b + count, b + padded, T(0));
}
