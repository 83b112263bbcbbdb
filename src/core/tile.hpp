// The loss of a tile of rows side by side, one a lane: nothing is folded across lanes.

template <class S, class T, bool transformed>
class TileKernel {
 protected:
    using V = Vector<T>;
    static constexpr int kTile = kLanes<T>;

    const Problem& p;
    const int classes;
    const S* const logits;
    S* const matrix;
    RowValue<S>* const row_values;

    static constexpr std::int64_t kSkipped = -1;

    // One tile: classes x rows, and what each row brings.
    struct Tile {
        T (*u)[kTile], (*e)[kTile];
        T (*b)[kTile];           // if the targets are dense
        double (*slope)[kTile];  // du/dz, if transformed
        alignas(64) double weight[kTile], sample[kTile], scale[kTile], target_u[kTile], value[kTile], at_target[kTile];
        alignas(64) std::int64_t target[kTile];  // kSkipped: the row does not count; `classes`: no single target
    };

    // Of the arrays of a tile, in the order that `prepare` lays them out.
    static constexpr std::size_t bytes_of_tile(std::size_t classes) {
        return classes * kTile * (3 * sizeof(T) + (transformed ? sizeof(double) : 0));
    }
    void prepare(Tile& tile, void* memory) const {
        tile.u = static_cast<T(*)[kTile]>(memory);
        tile.e = tile.u + classes;
        tile.b = tile.e + classes;
        tile.slope = reinterpret_cast<double (*)[kTile]>(tile.b + classes);
        std::fill(tile.weight, tile.weight + kTile, 1.0);
        std::fill(tile.sample, tile.sample + kTile, 1.0);
        std::fill(tile.scale, tile.scale + kTile, p.gradient_scale);
    }

    explicit TileKernel(const Problem& problem)
        : p(problem),
          classes(int(problem.classes)),
          logits(static_cast<const S*>(problem.logits)),
          matrix(static_cast<S*>(problem.matrix)),
          row_values(static_cast<RowValue<S>*>(problem.row_values)) {}

    // With tile.u, its rows' targets and its coefficients filled in.
    void compute(Tile& tile, Sums<kSums<T>, true>& total) const {
        for (int part = 0; part < kParts; ++part)
            p.dense() ? compute<true>(tile, part, total) : compute<false>(tile, part, total);
    }

    void transform(Tile& tile) const {
        for (int c = 0; c < classes; ++c)
            for (int i = 0; i < kTile; i += kWidth<double>) {
                const f64 logit = load<f64>(tile.u[c] + i);
                store(tile.u[c] + i, capped(p, logit));
                store(tile.slope[c] + i, capped_slope(p, logit));
            }
    }

    void read_targets(Tile& tile, std::size_t first, int count, Outcome& outcome) const {
        for (int i = 0; i < kTile; ++i) {
            std::int64_t target = i < count ? std::int64_t(classes) : kSkipped;
            if (p.indices != nullptr && i < count) {
                target = p.indices[first + std::size_t(i)];  // read once: another thread may be writing it
                const bool outside = std::uint64_t(target) >= p.classes, ignored = p.ignore_index == target;
                if (outside && !ignored) outcome.bad_row = std::min(outcome.bad_row, first + std::size_t(i));
                target = outside || ignored ? kSkipped : target;
            }
            if (p.sample_weight != nullptr && target != kSkipped) {
                tile.sample[i] = p.sample_weight[first + std::size_t(i)];
                target = tile.sample[i] == 0.0 ? kSkipped : target;
            }
            tile.target[i] = target;
        }
        for (int i = 0; i < kTile; ++i)
            tile.target_u[i] = has_target(tile, i) ? double(tile.u[tile.target[i]][i]) : kNaN;
        if (p.class_weight != nullptr)
            for (int i = 0; i < kTile; ++i) tile.weight[i] = has_target(tile, i) ? p.class_weight[tile.target[i]] : 1.0;
        if (p.sample_weight != nullptr || p.grad_output != nullptr)
            for (int i = 0; i < count; ++i)
                tile.scale[i] = p.gradient_scale * tile.sample[i] *
                                (p.grad_output != nullptr ? p.grad_output[first + std::size_t(i)] : 1.0);
    }
    bool has_target(const Tile& tile, int row) const { return std::uint64_t(tile.target[row]) < p.classes; }

    static CE_INLINE i64 load_lanes(const std::int64_t* lanes) {
        i64 v;
        __builtin_memcpy(&v, lanes, sizeof v);
        return v;
    }

    // Sum of b_c (m - u_c) in float64, for rows where it overflows T or has a term that is no number.
    f64 wide_spread(const Tile& tile, int at, f64 highest) const {
        f64 sum{};
        for (int c = 0; c < classes; ++c) {
            f64 u, b;
            for (int i = 0; i < kWidth<double>; ++i) {
                u[i] = double(tile.u[c][at + i]);
                b[i] = double(tile.b[c][at + i]);
            }
            sum += select<f64>(b == 0, f64{}, b * (highest - u));
        }
        return sum;
    }

    template <class SumsOfPart>
    static CE_INLINE void add_four(SumsOfPart& sums, const V (&v)[4]) {
        f64 sum[kHalves<T>];
        widen((v[0] + v[1]) + (v[2] + v[3]), sum);
#pragma GCC unroll 2
        for (int h = 0; h < kHalves<T>; ++h) sums.add(h, sum[h]);
    }

    // The rows in one vector of T: their values, and what they write into the matrix, left in tile.e.
    template <bool dense>
    CE_INLINE void compute(Tile& tile, int part, Sums<kSums<T>, true>& total) const {
        const int lane = part * kWidth<T>;
        V m = splat<V>(-kInf);
        for (int c = 0; c < classes; ++c) m = highest(load<V>(tile.u[c] + lane), m);
        f64 wide_m[kHalves<T>];
        widen(m, wide_m);

        Sums<kHalves<T>, kCompensated<T>> rest, spread, b_rest, b_highest;
        Integer<V> ties{};
        for (int c = 0; c < classes; c += 4) {
            V e[4] = {}, distance[4] = {}, below[4] = {}, at_m[4] = {};  // the last three weighed by b
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                if (c + j >= classes) break;
                const V u = load<V>(tile.u[c + j] + lane);
                const auto tie = u == m;
                ties = count_lanes<V>(tie, ties);
                const V exponential = exp_below<transformed>(p, u, m);
                store(tile.e[c + j] + lane, exponential);
                e[j] = select<V>(tie, V{}, exponential);
                if constexpr (dense) {
                    const V b = load<V>(tile.b[c + j] + lane);
                    distance[j] = select<V>(b == 0, V{}, b * (m - u));
                    below[j] = select<V>(tie, V{}, b);
                    at_m[j] = select<V>(tie, b, V{});
                }
            }
            add_four(rest, e);
            if constexpr (dense) {
                add_four(spread, distance);
                add_four(b_rest, below);
                add_four(b_highest, at_m);
            }
        }
        f64 wide_ties[kHalves<T>];
        widen(__builtin_convertvector(ties, V), wide_ties);

        // The matrix is scale * e - target_scale * b, or `without` where scale is no number.
        f64 scale[kHalves<T>], target_scale[kHalves<T>], at_highest[kHalves<T>], log_total[kHalves<T>],
            without[kHalves<T>];
        f64 fits[kHalves<T>];  // 1 where T holds the scales
        bool all_fit = true;
#pragma GCC unroll 2
        for (int h = 0; h < kHalves<T>; ++h) {
            const int at = lane + h * kWidth<double>;
            const auto counted = load_lanes(tile.target + at) >= 0;
            const f64 weight = load<f64>(tile.weight + at), u = load<f64>(tile.target_u + at);
            const f64 row_scale = load<f64>(tile.scale + at), nan = splat<f64>(kNaN);
            RowSums sums{wide_m[h], rest.total(h) + (wide_ties[h] - 1.0), spread.total(h), b_rest.total(h),
                         b_highest.total(h)};
            if constexpr (dense) {
                const auto kept = sums.spread < splat<f64>(kInf);
                if (!none(~kept)) sums.spread = select<f64>(kept, sums.spread, wide_spread(tile, at, wide_m[h]));
            } else {
                sums.spread = select<f64>(weight == 0, f64{}, weight * (wide_m[h] - u));
                sums.b_rest = select<f64>(u == wide_m[h], f64{}, weight);
                sums.b_highest = select<f64>(u == wide_m[h], weight, f64{});
            }
            const RowResult result = row_result(p, sums, {weight, load<f64>(tile.sample + at), row_scale});
            const f64 value = select<f64>(counted, p.has_targets() ? result.loss : result.lse, f64{});
            total.add(part * kHalves<T> + h, value);
            store(tile.value + at, value);

            const f64 factor = result.softmax_scale * p.inverse_temperature;
            scale[h] = select<f64>((factor - factor == 0) & counted, factor, nan);
            without[h] = select<f64>(counted, nan, f64{});
            target_scale[h] = row_scale * p.inverse_temperature;
            at_highest[h] = select<f64>(wide_ties[h] == 1.0, result.at_highest * p.inverse_temperature, nan);
            log_total[h] = log1p(sums.rest);
            const f64 largest = splat<f64>(double(std::numeric_limits<T>::max()));
            const f64 size = select<f64>(target_scale[h] < 0, -target_scale[h], target_scale[h]);
            const auto beyond = (scale[h] > largest) | (scale[h] < -largest) | (size > largest);
            fits[h] = select<f64>(beyond, f64{}, splat<f64>(1.0));
            all_fit &= none(beyond);
            if constexpr (!dense) {
                // At the one target of each row.
                for (int i = at; i < at + kWidth<double>; ++i)
                    tile.at_target[i] = has_target(tile, i) ? double(tile.e[tile.target[i]][i]) : 0.0;
                const f64 g = scale[h] * load<f64>(tile.at_target + at) - target_scale[h] * weight;
                const auto confident = (u == wide_m[h]) & (wide_ties[h] == 1.0);
                store(tile.at_target + at,
                      select<f64>(scale[h] == scale[h], select<f64>(confident, at_highest[h], g), without[h]));
            }
        }
        if (matrix == nullptr) return;

        const bool plain = !transformed && p.output != Output::log_softmax;
        const V plain_scale = narrow(scale), plain_target = narrow(target_scale), plain_without = narrow(without);
        const V plain_highest = narrow_for<S>(at_highest), plain_fits = narrow(fits);
        for (int c = 0; c < classes; ++c) {
            const V e = load<V>(tile.e[c] + lane), b = dense ? load<V>(tile.b[c] + lane) : V{};
            V narrow_g{};
            if (plain) {
                narrow_g = e * plain_scale;
                if constexpr (dense) {
                    const auto confident = (load<V>(tile.u[c] + lane) == m) & (plain_highest == plain_highest);
                    narrow_g = select<V>(confident, plain_highest, fma(e, plain_scale, -plain_target * b));
                }
                narrow_g = select<V>(plain_scale == plain_scale, narrow_g, plain_without);
                if (all_fit) {
                    store(tile.e[c] + lane, narrow_g);
                    continue;
                }
            }
            f64 g[kHalves<T>], u[kHalves<T>], wide_b[kHalves<T>];
            widen(e, g);
            widen(b, wide_b);
            widen(load<V>(tile.u[c] + lane), u);
#pragma GCC unroll 2
            for (int h = 0; h < kHalves<T>; ++h) {
                const int at = lane + h * kWidth<double>;
                if (p.output == Output::log_softmax) {
                    g[h] = log_probability(u[h], wide_m[h], log_total[h]);
                } else {
                    g[h] *= scale[h];
                    if constexpr (dense) {
                        g[h] -= target_scale[h] * wide_b[h];
                        g[h] = select<f64>((u[h] == wide_m[h]) & (wide_ties[h] == 1.0), at_highest[h], g[h]);
                    }
                    if constexpr (transformed) g[h] *= load<f64>(tile.slope[c] + at);
                }
                g[h] = select<f64>(scale[h] == scale[h], g[h], without[h]);
            }
            const V wide_g = narrow_for<S>(g);
            store(tile.e[c] + lane, plain ? select<V>(plain_fits == 1, narrow_g, wide_g) : wide_g);
        }
        if constexpr (!dense)
            for (int i = lane; i < lane + kWidth<T>; ++i)
                if (has_target(tile, i)) {
                    double g = tile.at_target[i];
                    if constexpr (transformed) g *= tile.slope[tile.target[i]][i];
                    tile.e[tile.target[i]][i] = T(kIsHalf<S> ? double(S(g)) : g);
                }
    }
};
