// Classes contiguous, one row at a time: the kernel for many classes.
//
// A row is read from memory once: block by block, each block looked at twice while it is in the nearest cache (its
// maximum, then its sums), and the running sums of the blocks merged. The gradient takes a second look at the row.

template <class T>
constexpr int kGroup = 4 * kLanes<T>;  // summed in T before it joins a float64 sum
template <class T>
constexpr int kBlock = 16384 / int(sizeof(T));

// RowSums of one row or of a part of it, as numbers.
struct PartSums {
    double highest = -kInf, rest = -1.0;  // nothing yet: the mass 1 + rest is zero
    double spread = 0.0, b_rest = 0.0, b_highest = 0.0;
    bool unique = false;

    // This part followed by the next one.
    CE_INLINE void append(const PartSums& next) {
        if (highest == next.highest) {
            rest += 1.0 + next.rest;
            spread += next.spread;
            b_rest += next.b_rest;
            b_highest += next.b_highest;
            unique = false;
        } else if (highest > next.highest) {
            absorb(next);
        } else {  // also where one of them is NaN
            PartSums sums = next;
            sums.absorb(*this);
            *this = sums;
        }
    }

   private:
    CE_INLINE void absorb(const PartSums& lower) {
        const Difference<f64> d = two_diff(splat<f64>(lower.highest), splat<f64>(highest));
        const double b = lower.b_rest + lower.b_highest;
        // A NaN in the lower part is in its `rest`, and stays in the product.
        rest += (1.0 + lower.rest) * (lower.highest == -kInf ? 0.0 : exp(d.value, d.error)[0]);
        spread += lower.spread + (b == 0.0 ? 0.0 : b * (highest - lower.highest));
        b_rest += b;
    }
};

template <class S, class T, bool transformed>
class RowKernel {
    using V = Vector<T>;

    const Problem& p;
    const S* const logits;
    S* const matrix;
    S* const row_values;

   public:
    explicit RowKernel(const Problem& problem)
        : p(problem),
          logits(static_cast<const S*>(problem.logits)),
          matrix(static_cast<S*>(problem.matrix)),
          row_values(static_cast<S*>(problem.row_values)) {}

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        for (std::size_t row = begin; row < end; ++row) {
            const double value = p.has_targets() ? loss(row, outcome) : softmax(row);
            if (row_values != nullptr) row_values[row] = S(value);
            outcome.add(value);
        }
    }

   private:
    // Loss of a row, its gradient written if wanted.
    double loss(std::size_t row, Outcome& outcome) const {
        const S* z = logits + row * p.classes;
        const double sample = p.sample_weight != nullptr ? p.sample_weight[row] : 1.0;
        std::int64_t target = 0;
        if (p.indices != nullptr) {
            target = p.indices[row];  // read once: another thread may be writing it
            const bool ignored = p.ignore_index == target;
            if (!ignored && std::uint64_t(target) >= p.classes) outcome.bad_row = std::min(outcome.bad_row, row);
            if (ignored || std::uint64_t(target) >= p.classes) return nothing(row);
        }
        if (sample == 0.0) return nothing(row);

        const double weight = p.indices != nullptr && p.class_weight != nullptr ? p.class_weight[target] : 1.0;
        const double scale = p.gradient_scale * sample * (p.grad_output != nullptr ? p.grad_output[row] : 1.0);
        const bool dense = p.dense();
        PartSums sums = dense ? row_sums<true>(z, row, target) : row_sums<false>(z, row, target);
        const f64 at_target = splat<f64>(double(z[target]));  // read before the gradient may overwrite it
        const f64 u = capped(p, at_target);
        const bool target_highest = u[0] == sums.highest;
        if (!dense) {
            sums.spread = weight == 0.0 ? 0.0 : weight * (sums.highest - u[0]);
            (target_highest ? sums.b_highest : sums.b_rest) = weight;
        }
        const RowResult result =
            row_result(p,
                       {splat<f64>(sums.highest), splat<f64>(sums.rest), splat<f64>(sums.spread),
                        splat<f64>(sums.b_rest), splat<f64>(sums.b_highest)},
                       {splat<f64>(weight), splat<f64>(sample), splat<f64>(scale)});
        if (matrix != nullptr) {
            const double factor = result.softmax_scale[0] * p.inverse_temperature;
            S* gradient = matrix + row * p.classes;
            if (!(factor - factor == 0.0)) {
                std::fill(gradient, gradient + p.classes, std::numeric_limits<S>::quiet_NaN());
            } else if (dense) {
                const Coefficients c{factor, scale * p.inverse_temperature,
                                     result.at_highest[0] * p.inverse_temperature, sums.unique};
                write_gradient<true>(z, gradient, row, target, sums.highest, c);
            } else {
                write_gradient<false>(z, gradient, row, target, sums.highest, {factor, 0.0, 0.0, false});
                double g = factor * exp_below<transformed>(p, u, splat<f64>(sums.highest))[0] -
                           scale * p.inverse_temperature * weight;
                if (target_highest && sums.unique) g = result.at_highest[0] * p.inverse_temperature;
                gradient[target] = S(transformed ? g * capped_slope(p, at_target)[0] : g);
            }
        }
        return result.loss[0];
    }

    // A row that does not count, whatever it holds.
    double nothing(std::size_t row) const {
        if (matrix != nullptr) std::fill(matrix + row * p.classes, matrix + (row + 1) * p.classes, S(0));
        return 0.0;
    }

    // Log-sum-exp of a row, its softmax or log-softmax written if wanted.
    double softmax(std::size_t row) const {
        const S* z = logits + row * p.classes;
        const PartSums sums = row_sums<false>(z, row, 0);
        const RowResult result = row_result(p, {splat<f64>(sums.highest), splat<f64>(sums.rest), f64{}, f64{} + 1.0, f64{}},
                                            {f64{} + 1.0, f64{} + 1.0, f64{} + 1.0});
        if (matrix != nullptr) {
            S* out = matrix + row * p.classes;
            const double scale = result.softmax_scale[0];
            if (scale != scale) {
                std::fill(out, out + p.classes, std::numeric_limits<S>::quiet_NaN());
            } else if (p.output == Output::softmax) {
                write_gradient<false>(z, out, row, 0, sums.highest, {scale, 0.0, 0.0, false});
            } else {
                write_log_softmax(z, out, sums);
            }
        }
        return result.lse[0];
    }

    template <bool dense>
    PartSums row_sums(const S* z, std::size_t row, std::int64_t target) const {
        PartSums sums;
        for (std::size_t first = 0; first < p.classes; first += kBlock<T>) {
            const int count = int(std::min<std::size_t>(kBlock<T>, p.classes - first));
            const PartSums block = block_sums<dense>(z + first, count, row, target, first);
            if (first == 0)
                sums = block;
            else
                sums.append(block);
        }
        return sums;
    }

    template <bool dense>
    CE_INLINE PartSums block_sums(const S* z, int count, std::size_t row, std::int64_t target, std::size_t first) const {
        const int whole = count / kGroup<T>, groups = (count + kGroup<T> - 1) / kGroup<T>;
        alignas(64) S last[kGroup<T>];  // the elements after the last whole group, padded with -inf
        if (groups > whole) {
            std::fill(last, last + kGroup<T>, S(-kInf));
            std::copy(z + whole * kGroup<T>, z + count, last);
        }

        V high[4 * kParts];
#pragma GCC unroll 32
        for (int i = 0; i < 4 * kParts; ++i) high[i] = splat<V>(-kInf);
        for (int g = 0; g < groups; ++g) {
            const S* group = g < whole ? z + g * kGroup<T> : last;
#pragma GCC unroll 32
            for (int i = 0; i < 4 * kParts; ++i)
                high[i] = highest(capped(p, load_as<T>(group + i * kWidth<T>)), high[i]);
        }
#pragma GCC unroll 32
        for (int i = 1; i < 4 * kParts; ++i) high[0] = highest(high[i], high[0]);
        const T block_highest = fold_highest(high[0]);
        const V m = splat<V>(double(block_highest));

        LaneSums<T> rest, spread, b_rest, b_highest;
        Integer<V> ties[kParts] = {};
        for (int g = 0; g < groups; ++g) {
            const S* group = g < whole ? z + g * kGroup<T> : last;
            __builtin_prefetch(group + kBlock<T>);
            alignas(64) double b[kGroup<T>];
            if constexpr (dense)
                target_coefficients(p, row, target, first + std::size_t(g) * kGroup<T>,
                                    std::min(kGroup<T>, count - g * kGroup<T>), kGroup<T>, b);
#pragma GCC unroll 8
            for (int part = 0; part < kParts; ++part) {
                V e[4];
#pragma GCC unroll 4
                for (int j = 0; j < 4; ++j) {
                    const int offset = j * kLanes<T> + part * kWidth<T>;
                    const V u = capped(p, load_as<T>(group + offset));
                    const auto tie = u == m;
                    ties[part] -= tie;
                    e[j] = select<V>(tie, V{}, exp_below<transformed>(p, u, m));
                    if constexpr (dense) {
                        f64 wide_u[kHalves<T>], wide_m[kHalves<T>];
                        widen(u, wide_u);
                        widen(m, wide_m);
#pragma GCC unroll 2
                        for (int h = 0; h < kHalves<T>; ++h) {
                            const int lanes = part * kHalves<T> + h;
                            const f64 bh = load<f64>(b + offset + h * kWidth<double>);
                            const f64 below = select<f64>(wide_u[h] == splat<f64>(-kInf), splat<f64>(kInf), wide_m[h] - wide_u[h]);
                            spread.add(lanes, select<f64>(bh == 0, f64{}, bh * below));
                            b_rest.add(lanes, select<f64>(wide_u[h] == wide_m[h], f64{}, bh));
                            b_highest.add(lanes, select<f64>(wide_u[h] == wide_m[h], bh, f64{}));
                        }
                    }
                }
                f64 sum[kHalves<T>];
                widen((e[0] + e[1]) + (e[2] + e[3]), sum);
#pragma GCC unroll 2
                for (int h = 0; h < kHalves<T>; ++h) rest.add(part * kHalves<T> + h, sum[h]);
            }
        }
        std::int64_t count_highest = 0;
        for (int part = 0; part < kParts; ++part)
            for (int i = 0; i < kWidth<T>; ++i) count_highest += ties[part][i];

        PartSums sums;
        sums.highest = double(block_highest);
        sums.rest = rest.fold() + double(count_highest - 1);
        sums.unique = count_highest == 1;
        if constexpr (dense) {
            sums.spread = spread.fold();
            sums.b_rest = b_rest.fold();
            sums.b_highest = b_highest.fold();
        }
        return sums;
    }

    struct Coefficients {
        double softmax, target, at_highest;
        bool unique;
    };

    // softmax * exp(u - m) - target * b for each class of a row.
    template <bool dense>
    void write_gradient(const S* z, S* out, std::size_t row, std::int64_t target, double highest, const Coefficients& c) const {
        const V m = splat<V>(highest);
        const std::size_t whole = p.classes - p.classes % kGroup<T>;
        alignas(64) double b[kGroup<T>];
        for (std::size_t first = 0; first < whole; first += kGroup<T>) {
            if constexpr (dense) target_coefficients(p, row, target, first, kGroup<T>, kGroup<T>, b);
#pragma GCC unroll 32
            for (int i = 0; i < kGroup<T>; i += kWidth<T>)
                store_as(out + first + i, gradient<dense>(z + first + i, b + i, m, c));
        }
        if (whole < p.classes) {
            alignas(64) S last[kGroup<T>];
            std::fill(last, last + kGroup<T>, S(-kInf));
            std::copy(z + whole, z + p.classes, last);
            if constexpr (dense) target_coefficients(p, row, target, whole, int(p.classes - whole), kGroup<T>, b);
            for (int i = 0; i < kGroup<T>; i += kWidth<T>) store_as(last + i, gradient<dense>(last + i, b + i, m, c));
            std::copy(last, last + (p.classes - whole), out + whole);
        }
    }

    template <bool dense>
    CE_INLINE V gradient(const S* z, const double* b, V m, const Coefficients& c) const {
        const V logit = load_as<T>(z);
        const V u = capped(p, logit);
        const V e = exp_below<transformed>(p, u, m);
        if constexpr (!dense && std::is_same_v<T, float>) {
            if (std::abs(c.softmax) <= double(std::numeric_limits<float>::max())) return e * splat<V>(c.softmax);
        }
        f64 wide[kHalves<T>], wide_u[kHalves<T>], wide_m[kHalves<T>];
        widen(e, wide);
        widen(u, wide_u);
        widen(m, wide_m);
#pragma GCC unroll 2
        for (int h = 0; h < kHalves<T>; ++h) {
            f64& g = wide[h];
            g *= c.softmax;
            if constexpr (dense) {
                g -= c.target * load<f64>(b + h * kWidth<double>);
                if (c.unique) g = select<f64>(wide_u[h] == wide_m[h], splat<f64>(c.at_highest), g);
            }
        }
        if constexpr (transformed) wide[0] *= capped_slope(p, logit);
        return narrow(wide);
    }

    void write_log_softmax(const S* z, S* out, const PartSums& sums) const {
        const f64 m = splat<f64>(sums.highest), log_total = log1p(splat<f64>(sums.rest));
        std::size_t first = 0;
        for (; first < p.classes; first += kWidth<double>) {
            const std::size_t count = std::min<std::size_t>(kWidth<double>, p.classes - first);
            S block[kWidth<double>] = {};
            std::copy(z + first, z + first + count, block);
            const f64 u = load_as<double>(block);
            const Difference<f64> d = two_diff(u, m);
            store_as(block, select<f64>(d.value == splat<f64>(-kInf), d.value, d.value - (log_total - d.error)));
            std::copy(block, block + count, out + first);
        }
    }
};
