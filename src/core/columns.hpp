// Many rows side by side, one a lane: the kernel for few classes, where one row would leave most lanes empty.
//
// A tile of kLanes<T> rows is copied into compact scratch, class by class; nothing is folded across lanes.

constexpr int kFewClasses = 32;

template <class S, class T, bool transformed>
class ColumnKernel {
    using V = Vector<T>;
    static constexpr int kTile = kLanes<T>;

    const Problem& p;
    const S* const logits;
    S* const matrix;
    S* const row_values;

    static constexpr std::int64_t kSkipped = -1;

    // One tile: classes x rows, and what each row brings.
    struct Tile {
        alignas(64) T u[kFewClasses][kTile], e[kFewClasses][kTile];
        alignas(64) double slope[kFewClasses][kTile];  // du/dz, if transformed
        alignas(64) double b[kFewClasses][kTile];      // if the targets are dense
        alignas(64) double weight[kTile], sample[kTile], scale[kTile], target_u[kTile], value[kTile];
        alignas(64) std::int64_t target[kTile];  // kSkipped: the row does not count; `classes`: no single target
    };

   public:
    explicit ColumnKernel(const Problem& problem)
        : p(problem),
          logits(static_cast<const S*>(problem.logits)),
          matrix(static_cast<S*>(problem.matrix)),
          row_values(static_cast<S*>(problem.row_values)) {}

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        Tile tile;
        const bool dense = p.dense();
        Sums<kSums<T>, true> total;
        for (std::size_t first = begin; first < end; first += kTile) {
            const int count = int(std::min<std::size_t>(kTile, end - first));
            read_logits(tile, first, count);
            read_targets(tile, first, count, outcome);
            for (int part = 0; part < kParts; ++part)
                dense ? compute<true>(tile, part, total) : compute<false>(tile, part, total);
            write(tile, first, count);
        }
        outcome.add(total.fold());
    }

   private:
    int classes() const { return int(p.classes); }
    int padded_classes() const { return (classes() + 3) / 4 * 4; }

    void read_logits(Tile& tile, std::size_t first, int count) const {
        const S* z = logits + first * p.classes;
        for (int c = 0; c < classes(); ++c) {
            for (int i = 0; i < count; ++i) tile.u[c][i] = T(z[std::size_t(i) * p.classes + std::size_t(c)]);
            for (int i = count; i < kTile; ++i) tile.u[c][i] = T(0);
        }
        for (int c = classes(); c < padded_classes(); ++c) std::fill(tile.u[c], tile.u[c] + kTile, T(-kInf));
        if constexpr (transformed) {
            for (int c = 0; c < classes(); ++c)
                for (int i = 0; i < kTile; i += kWidth<double>) {
                    const f64 logit = load<f64>(tile.u[c] + i);
                    store(tile.u[c] + i, capped(p, logit));
                    store(tile.slope[c] + i, capped_slope(p, logit));
                }
        }
    }

    void read_targets(Tile& tile, std::size_t first, int count, Outcome& outcome) const {
        for (int i = 0; i < kTile; ++i) {
            const std::size_t row = first + std::size_t(i);
            std::int64_t target = kSkipped;
            double weight = 1.0, sample = 1.0, scale = p.gradient_scale, u = kNaN;
            if (i < count && p.indices != nullptr) {
                target = p.indices[row];  // read once: another thread may be writing it
                if (p.ignore_index == target) {
                    target = kSkipped;
                } else if (std::uint64_t(target) >= p.classes) {
                    outcome.bad_row = std::min(outcome.bad_row, row);
                    target = kSkipped;
                } else {
                    u = double(tile.u[target][i]);
                    if (p.class_weight != nullptr) weight = p.class_weight[target];
                }
            } else if (i < count) {
                target = std::int64_t(p.classes);
            }
            if (target != kSkipped) {
                if (p.sample_weight != nullptr) sample = p.sample_weight[row];
                if (sample == 0.0) target = kSkipped;
                scale *= sample;
                if (p.grad_output != nullptr) scale *= p.grad_output[row];
            }
            tile.target[i] = target;
            tile.weight[i] = weight;
            tile.sample[i] = sample;
            tile.scale[i] = scale;
            tile.target_u[i] = u;
            if (p.dense()) {
                double b[kFewClasses] = {};
                if (target != kSkipped) target_coefficients(p, row, target, 0, classes(), kFewClasses, b);
                for (int c = 0; c < padded_classes(); ++c) tile.b[c][i] = b[c];
            }
        }
    }

    static CE_INLINE i64 load_lanes(const std::int64_t* lanes) {
        i64 v;
        __builtin_memcpy(&v, lanes, sizeof v);
        return v;
    }

    // The rows in one vector of T: their values, and what they write into the matrix, left in tile.e.
    template <bool dense>
    CE_INLINE void compute(Tile& tile, int part, Sums<kSums<T>, true>& total) const {
        const int lane = part * kWidth<T>;
        V m = splat<V>(-kInf);
        for (int c = 0; c < classes(); ++c) m = highest(load<V>(tile.u[c] + lane), m);
        f64 wide_m[kHalves<T>];
        widen(m, wide_m);

        Sums<kHalves<T>, kCompensated<T>> rest, spread, b_rest, b_highest;
        Integer<V> ties{};
        for (int c = 0; c < padded_classes(); c += 4) {
            V e[4];
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                const V u = load<V>(tile.u[c + j] + lane);
                const auto tie = u == m;
                ties -= tie;
                const V exponential = exp_below<transformed>(p, u, m);
                store(tile.e[c + j] + lane, exponential);
                e[j] = select<V>(tie, V{}, exponential);
                if constexpr (dense) {
                    f64 wide_u[kHalves<T>];
                    widen(u, wide_u);
#pragma GCC unroll 2
                    for (int h = 0; h < kHalves<T>; ++h) {
                        const f64 b = load<f64>(tile.b[c + j] + lane + h * kWidth<double>);
                        const f64 below = wide_m[h] - wide_u[h];
                        spread.add(h, select<f64>(b == 0, f64{}, b * below));
                        b_rest.add(h, select<f64>(wide_u[h] == wide_m[h], f64{}, b));
                        b_highest.add(h, select<f64>(wide_u[h] == wide_m[h], b, f64{}));
                    }
                }
            }
            f64 sum[kHalves<T>];
            widen((e[0] + e[1]) + (e[2] + e[3]), sum);
#pragma GCC unroll 2
            for (int h = 0; h < kHalves<T>; ++h) rest.add(h, sum[h]);
        }
        f64 wide_ties[kHalves<T>];
        widen(__builtin_convertvector(ties, V), wide_ties);

        f64 softmax_scale[kHalves<T>], target_scale[kHalves<T>], at_highest[kHalves<T>], log_total[kHalves<T>];
#pragma GCC unroll 2
        for (int h = 0; h < kHalves<T>; ++h) {
            const int at = lane + h * kWidth<double>;
            const auto counted = load_lanes(tile.target + at) >= 0;
            const f64 weight = load<f64>(tile.weight + at), scale = load<f64>(tile.scale + at), u = load<f64>(tile.target_u + at);
            RowSums sums{wide_m[h], rest.total(h) + (wide_ties[h] - 1.0), spread.total(h), b_rest.total(h), b_highest.total(h)};
            if constexpr (!dense) {
                sums.spread = select<f64>(weight == 0, f64{}, weight * (wide_m[h] - u));
                sums.b_rest = select<f64>(u == wide_m[h], f64{}, weight);
                sums.b_highest = select<f64>(u == wide_m[h], weight, f64{});
            }
            const RowResult result = row_result(p, sums, {weight, load<f64>(tile.sample + at), scale});
            const f64 value = select<f64>(counted, p.has_targets() ? result.loss : result.lse, f64{});
            total.add(part * kHalves<T> + h, value);
            store(tile.value + at, value);
            const f64 factor = result.softmax_scale * p.inverse_temperature;
            softmax_scale[h] = select<f64>(factor - factor == 0, factor, splat<f64>(kNaN));
            target_scale[h] = scale * p.inverse_temperature;
            at_highest[h] = select<f64>(wide_ties[h] == 1.0, result.at_highest * p.inverse_temperature, softmax_scale[h]);
            log_total[h] = log1p(sums.rest);
        }
        if (matrix == nullptr) return;

        for (int c = 0; c < classes(); ++c) {
            f64 wide[kHalves<T>], wide_u[kHalves<T>];
            widen(load<V>(tile.e[c] + lane), wide);
            widen(load<V>(tile.u[c] + lane), wide_u);
#pragma GCC unroll 2
            for (int h = 0; h < kHalves<T>; ++h) {
                const int at = lane + h * kWidth<double>;
                const i64 target = load_lanes(tile.target + at);
                f64& g = wide[h];
                if (p.output == Output::log_softmax) {
                    g = log_probability(wide_u[h], wide_m[h], log_total[h]);
                } else {
                    const f64 b = dense ? load<f64>(tile.b[c] + at)
                                        : select<f64>(target == std::int64_t(c), load<f64>(tile.weight + at), f64{});
                    g = g * softmax_scale[h] - target_scale[h] * b;
                    g = select<f64>((wide_u[h] == wide_m[h]) & (wide_ties[h] == 1.0), at_highest[h], g);
                    if constexpr (transformed) g *= load<f64>(tile.slope[c] + at);
                }
                g = select<f64>(target >= 0, select<f64>(softmax_scale[h] == softmax_scale[h], g, splat<f64>(kNaN)), f64{});
            }
            store(tile.e[c] + lane, narrow(wide));
        }
    }

    void write(const Tile& tile, std::size_t first, int count) const {
        if (row_values != nullptr) std::copy(tile.value, tile.value + count, row_values + first);
        if (matrix == nullptr) return;
        S* out = matrix + first * p.classes;
        for (int c = 0; c < classes(); ++c)
            for (int i = 0; i < count; ++i) out[std::size_t(i) * p.classes + std::size_t(c)] = S(tile.e[c][i]);
    }
};
