// Classes contiguous, one row at a time: the kernel for many classes.
//
// A row is read from memory once: block by block, each block looked at twice while it is in the nearest cache (its
// maximum, then its sums), and the sums of the blocks merged. For a gradient the exponentials, each relative to the
// maximum of its block, wait until the sum of the whole row is known: in the gradient's own row where nothing else will
// look at the logits again, else in a scratch row.

template <class T>
constexpr int kGroup = 4 * kLanes<T>;  // summed in T before it joins a float64 sum
template <class T>
constexpr int kWriteAhead = 4 * kGroup<T>;  // elements; measured
template <class T>
constexpr int kBlock = 16384 / int(sizeof(T));

template <class S, class T, bool transformed>
class RowKernel {
    using V = Vector<T>;

    const Problem& p;
    const S* const logits;
    S* const matrix;
    RowValue<S>* const row_values;
    T* scratch_row = nullptr;
    double* block_highest = nullptr;  // of the row at hand, if there is a matrix to write

 public:
    RowKernel(const Problem& problem, Scratch& scratch)
        : p(problem),
          logits(static_cast<const S*>(problem.logits)),
          matrix(static_cast<S*>(problem.matrix)),
          row_values(static_cast<RowValue<S>*>(problem.row_values)) {
        if (matrix == nullptr) return;
        const std::size_t padded = (p.classes + kGroup<T> - 1) / kGroup<T> * kGroup<T>;
        const std::size_t blocks = (p.classes + kBlock<T> - 1) / kBlock<T>;
        scratch_row = static_cast<T*>(scratch.reserve(padded * sizeof(T) + blocks * sizeof(double)));
        block_highest = reinterpret_cast<double*>(scratch_row + padded);
    }

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        for (std::size_t row = begin; row < end; ++row) {
            double value;
            if constexpr (transformed)  // without targets nothing is
                value = loss(row, outcome);
            else
                value = p.has_targets() ? loss(row, outcome) : softmax(row);
            if (row_values != nullptr) row_values[row] = RowValue<S>(value);
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
        const f64 at_target = splat<f64>(double(z[target]));  // read before the gradient may overwrite it
        T* const e = dense ? scratch_row : row_for_exponentials(row);
        PartSums sums = dense ? row_sums<true>(z, e, row, target) : row_sums<false>(z, e, row, target);
        const f64 u = capped(p, at_target);
        const bool target_highest = u[0] == sums.highest;
        if (!dense) {
            sums.spread = weight == 0.0 ? 0.0 : weight * (sums.highest - u[0]);
            (target_highest ? sums.b_highest : sums.b_rest) = weight;
        }
        const RowResult result =
            row_result(p, sums.lanes(), {splat<f64>(weight), splat<f64>(sample), splat<f64>(scale)});
        if (matrix != nullptr) {
            S* gradient = matrix + row * p.classes;
            const Coefficients c{result.softmax_scale[0] * p.inverse_temperature, scale * p.inverse_temperature,
                                 result.at_highest[0] * p.inverse_temperature, sums.highest, sums.unique};
            if (!(c.softmax - c.softmax == 0.0)) {
                std::fill(gradient, gradient + p.classes, S(kNaN));
            } else if (dense) {
                const std::size_t confident = c.unique ? highest_class(z, c.highest) : p.classes;
                double g = c.at_highest;
                if (transformed && confident < p.classes)  // before the logits may be overwritten
                    g *= capped_slope(p, splat<f64>(double(z[confident])))[0];
                write_gradient<true>(z, e, gradient, row, target, c);
                if (confident < p.classes) gradient[confident] = S(g);
            } else {
                write_gradient<false>(z, e, gradient, row, target, c);
                double g = c.softmax * exp_below<transformed>(p, u, splat<f64>(c.highest))[0] - c.target * weight;
                if (target_highest && c.unique) g = c.at_highest;
                gradient[target] = S(transformed ? g * capped_slope(p, at_target)[0] : g);
            }
        }
        return result.loss[0];
    }

    // A row that does not count, whatever it holds.
    double nothing(std::size_t row) const {
        if (matrix != nullptr) std::fill(matrix + row * p.classes, matrix + (row + 1) * p.classes, S(0.0));
        return 0.0;
    }

    T* row_for_exponentials(std::size_t row) const {
        if constexpr (std::is_same_v<S, T> && !transformed)
            return matrix != nullptr ? matrix + row * p.classes : nullptr;
        else
            return scratch_row;
    }

    // Log-sum-exp of a row, its softmax or log-softmax written if wanted.
    double softmax(std::size_t row) const {
        const S* z = logits + row * p.classes;
        T* const e = p.output == Output::softmax ? row_for_exponentials(row) : nullptr;
        PartSums sums = row_sums<false>(z, e, row, 0);
        sums.b_rest = 1.0;
        const f64 one = splat<f64>(1.0);
        const RowResult result = row_result(p, sums.lanes(), {one, one, one});
        if (matrix != nullptr) {
            S* out = matrix + row * p.classes;
            const double scale = result.softmax_scale[0];
            if (scale != scale)
                std::fill(out, out + p.classes, S(kNaN));
            else if (p.output == Output::softmax)
                write_gradient<false>(z, e, out, row, 0, {scale, 0.0, 0.0, sums.highest, false});
            else
                write_log_softmax(z, out, sums);
        }
        return result.lse[0];
    }

    template <bool dense>
    PartSums row_sums(const S* z, T* e, std::size_t row, std::int64_t target) const {
        PartSums sums = block_sums<dense>(z, e, row, target, 0);
        for (std::size_t first = kBlock<T>; first < p.classes; first += kBlock<T>)
            sums = joined<transformed>(p, sums, block_sums<dense>(z, e, row, target, first));
        sums.rest += sums.rest_error;
        return sums;
    }

    // The block of a row that starts at class `first`; its exponentials go to `exponentials`, if that is given.
    template <bool dense>
    CE_INLINE PartSums block_sums(const S* z, T* exponentials, std::size_t row, std::int64_t target,
                                  std::size_t first) const {
        const int count = int(std::min<std::size_t>(kBlock<T>, p.classes - first));
        const int whole = count / kGroup<T>, groups = (count + kGroup<T> - 1) / kGroup<T>;
        alignas(64) S last[kGroup<T>];  // the elements after the last whole group
        if (groups > whole) pad(z + first + whole * kGroup<T>, count - whole * kGroup<T>, kGroup<T>, last);

        V high[4 * kParts];
#pragma GCC unroll 32
        for (int i = 0; i < 4 * kParts; ++i) high[i] = splat<V>(-kInf);
        for (int g = 0; g < groups; ++g) {
            const S* group = g < whole ? z + first + g * kGroup<T> : last;
#pragma GCC unroll 32
            for (int i = 0; i < 4 * kParts; ++i)
                high[i] = highest(capped(p, load_as<T>(group + i * kWidth<T>)), high[i]);
        }
#pragma GCC unroll 32
        for (int i = 1; i < 4 * kParts; ++i) high[0] = highest(high[i], high[0]);
        const double block_maximum = double(fold_lanes(high[0], [](T a, T b) { return a > b ? a : b; }));
        if (exponentials != nullptr) block_highest[first / kBlock<T>] = block_maximum;
        // Relative to zero, a block of nothing but -inf has no ties and no mass.
        const V m = splat<V>(block_maximum == -kInf ? 0.0 : block_maximum);

        LaneSums<T> rest, spread, b_rest, b_highest;
        Integer<V> ties[kParts] = {};
        for (int g = 0; g < groups; ++g) {
            const S* group = g < whole ? z + first + g * kGroup<T> : last;
            const std::size_t class_of_group = first + std::size_t(g) * kGroup<T>;
            alignas(64) T last_exponentials[kGroup<T>];
            T* const written = exponentials != nullptr && g < whole ? exponentials + class_of_group : last_exponentials;
            alignas(64) T b[kGroup<T>];
            if constexpr (dense)
                target_coefficients(p, row, target, class_of_group, std::min(kGroup<T>, count - g * kGroup<T>),
                                    kGroup<T>, b);
#pragma GCC unroll 8
            for (int part = 0; part < kParts; ++part) {
                V e[4], distance[4], below[4], at_highest[4];  // the last three weighed by b
#pragma GCC unroll 4
                for (int j = 0; j < 4; ++j) {
                    const int offset = j * kLanes<T> + part * kWidth<T>;
                    __builtin_prefetch(group + kBlock<T> + offset);
                    if (exponentials != nullptr)
                        __builtin_prefetch(matrix + row * p.classes + class_of_group + kWriteAhead<T> + offset, 1);
                    const V u = capped(p, load_as<T>(group + offset));
                    const auto tie = u == m;
                    ties[part] = count_lanes<V>(tie, ties[part]);
                    e[j] = exp_below<transformed>(p, u, m);
                    if (exponentials != nullptr) store(written + offset, e[j]);
                    e[j] = select<V>(tie, V{}, e[j]);
                    if constexpr (dense) {
                        const V bj = load<V>(b + offset);
                        distance[j] = select<V>(bj == 0, V{}, bj * (m - u));
                        below[j] = select<V>(tie, V{}, bj);
                        at_highest[j] = select<V>(tie, bj, V{});
                    }
                }
                add_four(rest, part, e);
                if constexpr (dense) {
                    add_four(spread, part, distance);
                    add_four(b_rest, part, below);
                    add_four(b_highest, part, at_highest);
                }
            }
            if (exponentials != nullptr && g == whole)
                std::copy(last_exponentials, last_exponentials + (count - g * kGroup<T>),
                          exponentials + class_of_group);
        }
#pragma GCC unroll 8
        for (int part = 1; part < kParts; ++part) ties[0] += ties[part];
        const auto count_highest = fold_lanes(ties[0], [](auto a, auto b) { return a + b; });

        PartSums sums;
        sums.highest = block_maximum;
        sums.rest = rest.fold() + double(count_highest - 1);
        sums.unique = count_highest == 1;
        if constexpr (dense) {
            sums.spread = spread.fold();
            if (!(std::abs(sums.spread) < kInf)) sums.spread = wide_spread(z, row, target, first, block_maximum);
            sums.b_rest = b_rest.fold();
            sums.b_highest = b_highest.fold();
        }
        return sums;
    }

    static CE_INLINE void add_four(LaneSums<T>& sums, int part, const V (&v)[4]) {
        f64 sum[kHalves<T>];
        widen((v[0] + v[1]) + (v[2] + v[3]), sum);
#pragma GCC unroll 2
        for (int h = 0; h < kHalves<T>; ++h) sums.add(part * kHalves<T> + h, sum[h]);
    }

    // Sum of b_c (m - u_c) in float64, where it overflows T or has a term that is no number.
    double wide_spread(const S* z, std::size_t row, std::int64_t target, std::size_t first, double highest) const {
        double sum = 0.0;
        for (std::size_t c = first; c < std::min<std::size_t>(p.classes, first + kBlock<T>); ++c) {
            double b;
            target_coefficients(p, row, target, c, 1, 1, &b);
            const double u = capped(p, splat<f64>(double(z[c])))[0];
            if (b != 0.0) sum += b * (u == -kInf ? kInf : highest - u);
        }
        return sum;
    }

    // The class of a row's maximum.
    std::size_t highest_class(const S* z, double highest) const {
        std::size_t c = 0;
        while (block_highest[c / kBlock<T>] != highest) c += kBlock<T>;
        const auto missing = [&](const S* from) {
            return none((i64)(capped(p, load_as<T>(from)) == splat<V>(highest)));
        };
        while (c + kWidth<T> <= p.classes && missing(z + c)) c += kWidth<T>;
        while (capped(p, splat<f64>(double(z[c])))[0] != highest) ++c;
        return c;
    }

    struct Coefficients {
        double softmax, target, at_highest, highest;
        bool unique;
    };

    // softmax * exp(u - m) - target * b for each class of a row.
    template <bool dense>
    void write_gradient(const S* z, const T* e, S* out, std::size_t row, std::int64_t target,
                        const Coefficients& c) const {
        for (std::size_t first = 0; first < p.classes; first += kBlock<T>) {
            const std::size_t end = std::min<std::size_t>(first + kBlock<T>, p.classes);
            Coefficients block = c;
            block.softmax *= decay<transformed>(p, block_highest[first / kBlock<T>], c.highest);
            // Scaled in float32 unless the factor does not fit.
            const double largest = std::max(std::abs(block.softmax), std::abs(block.target));
            const bool wide = largest > double(std::numeric_limits<T>::max());
            if constexpr (transformed)
                write_block<dense>(z, e, out, row, target, first, end, block);
            else if (wide)
                write_block<dense>(z, e, out, row, target, first, end, block);
            else if constexpr (dense)
                difference_block(e, out, row, target, first, end, block);
            else
                scale_block(e, first, end, T(block.softmax), out);
        }
    }

    void scale_block(const T* e, std::size_t first, std::size_t end, T factor, S* out) const {
        const V scale = splat<V>(double(factor));
        std::size_t i = first;
        for (; i + kWidth<T> <= end; i += kWidth<T>) store_as(out + i, load<V>(e + i) * scale);
        for (; i < end; ++i) out[i] = S(double(e[i] * factor));
    }

    void difference_block(const T* e, S* out, std::size_t row, std::int64_t target, std::size_t first, std::size_t end,
                          const Coefficients& c) const {
        const V softmax = splat<V>(c.softmax), minus = splat<V>(-c.target);
        for (; first < end; first += kGroup<T>) {
            const int count = int(std::min<std::size_t>(kGroup<T>, end - first));
            alignas(64) T b[kGroup<T>];
            target_coefficients(p, row, target, first, count, kGroup<T>, b);
            alignas(64) S last[kGroup<T>];
            S* const group = count == kGroup<T> ? out + first : last;
#pragma GCC unroll 32
            for (int i = 0; i < kGroup<T>; i += kWidth<T>)
                store_as(group + i, fma(load<V>(e + first + i), softmax, minus * load<V>(b + i)));
            if (group == last) std::copy(last, last + count, out + first);
        }
    }

    template <bool dense>
    void write_block(const S* z, const T* e, S* out, std::size_t row, std::int64_t target, std::size_t first,
                     std::size_t end, const Coefficients& c) const {
        for (; first < end; first += kGroup<T>) {
            const int count = int(std::min<std::size_t>(kGroup<T>, end - first));
            alignas(64) S group[kGroup<T>];
            alignas(64) double b[kGroup<T>];
            pad(z + first, count, kGroup<T>, group);
            if constexpr (dense) target_coefficients(p, row, target, first, count, kGroup<T>, b);
#pragma GCC unroll 32
            for (int i = 0; i < kGroup<T>; i += kWidth<T>) {
                const V logit = load_as<T>(group + i);
                f64 g[kHalves<T>];
                widen(load_first<V>(e + first + i, count - i), g);
#pragma GCC unroll 2
                for (int h = 0; h < kHalves<T>; ++h) {
                    g[h] *= c.softmax;
                    if constexpr (dense) g[h] -= c.target * load<f64>(b + i + h * kWidth<double>);
                }
                if constexpr (transformed) g[0] *= capped_slope(p, logit);
                store_as(group + i, narrow_for<S>(g));
            }
            std::copy(group, group + count, out + first);
        }
    }

    void write_log_softmax(const S* z, S* out, const PartSums& sums) const {
        const f64 m = splat<f64>(sums.highest), log_total = log1p(splat<f64>(sums.rest));
        for (std::size_t first = 0; first < p.classes; first += kWidth<double>) {
            const std::size_t count = std::min<std::size_t>(kWidth<double>, p.classes - first);
            S block[kWidth<double>];
            std::fill(std::copy(z + first, z + first + count, block), std::end(block), S(0.0));
            store_as(block, log_probability(load_as<double>(block), m, log_total));
            std::copy(block, block + count, out + first);
        }
    }
};
