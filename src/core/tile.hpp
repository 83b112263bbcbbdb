// A tile of rows side by side, one a lane, nothing folded across lanes: what they bring, their sums and their losses.

// Where a tile lies: rows of a class next to each other, the classes `stride` apart.
template <class E>
struct Strided {
    E* data;
    std::size_t stride;
    CE_INLINE E* at(int c, int row) const { return data + std::size_t(c) * stride + row; }
};

// Logits of storage S are read as In, computed in T and written as Out.
template <class S, class T, class In, class Out, bool transformed>
class TileSums {
 protected:
    using V = Vector<T>;
    using Index = std::conditional_t<std::is_same_v<T, float>, std::int32_t, std::int64_t>;
    static constexpr int kTile = kLanes<T>;

    const Problem& p;
    const int classes;
    const S* const logits;
    S* const matrix;
    S* const diagonal;
    RowValue<S>* const row_values;

    static constexpr std::int64_t kSkipped = -1;

    // One tile: classes x rows, and what each row brings and becomes.
    struct Tile {
        Strided<const In> in;
        Strided<Out> out;                    // may be `in`
        Strided<Out> diagonal;               // if that is wanted
        Strided<const S> next_in, next_out;  // what the next tile will touch
        T (*u)[kTile], (*e)[kTile];
        T (*b)[kTile];           // if the targets are dense
        double (*slope)[kTile];  // du/dz, if transformed

        alignas(64) std::int64_t target[kTile];  // kSkipped: the row does not count
        alignas(64) double weight[kTile], sample[kTile], scale[kTile];
        alignas(64) T highest[kTile], ties[kTile];
        alignas(64) double rest[kTile], spread[kTile], b_rest[kTile], b_highest[kTile];
        // The matrix is softmax_scale * e - target_scale * b, or `without` where softmax_scale is no number.
        alignas(64) double softmax_scale[kTile], target_scale[kTile], at_highest[kTile], without[kTile];
        alignas(64) double log_total[kTile], value[kTile];
        // For the diagonal: p = probability * e, 1 - p at a unique maximum, and what the z-loss adds.
        alignas(64) double probability[kTile], rest_highest[kTile], tail_scale[kTile];
        // For a single target: its logit, exponential, class and part of the matrix.
        alignas(64) T u_target[kTile], e_target[kTile];
        alignas(64) Index class_target[kTile];
        alignas(64) T at_target[kTile];
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
        std::fill(tile.u_target, tile.u_target + kTile, T(0));
        std::fill(tile.class_target, tile.class_target + kTile, kSkipped);
    }

    explicit TileSums(const Problem& problem)
        : p(problem),
          classes(int(problem.classes)),
          logits(static_cast<const S*>(problem.logits)),
          matrix(static_cast<S*>(problem.matrix)),
          diagonal(static_cast<S*>(problem.diagonal)),
          row_values(static_cast<RowValue<S>*>(problem.row_values)) {}

    bool has_single_targets() const { return !p.dense() && p.indices != nullptr; }

    void read_targets(Tile& tile, std::size_t first, int count, Outcome& outcome) const {
        std::fill(tile.target, tile.target + count, 0);
        std::fill(tile.target + count, tile.target + kTile, kSkipped);
        if (p.indices != nullptr) {
            alignas(64) std::int64_t given[kTile];  // read once: another thread may be writing them
            std::memcpy(given, p.indices + first, std::size_t(count) * sizeof *given);
            std::fill(given + count, given + kTile, kSkipped);
            const i64 may_ignore = i64{} - p.ignore_index.has_value();
            i64 bad{};
            for (int i = 0; i < kTile; i += kWidth<double>) {
                const i64 target = load_lanes(given + i), outside = (target < 0) | (target >= std::int64_t(classes));
                const i64 ignored = (target == p.ignore_index.value_or(0)) & may_ignore;
                const i64 kept = outside | ignored ? i64{} + kSkipped : target;
                __builtin_memcpy(tile.target + i, &kept, sizeof kept);
                bad |= outside & ~ignored;
            }
            if (!none(bad)) note_bad_row(given, first, count, outcome);
        }
        if (p.sample_weight != nullptr)
            for (int i = 0; i < count; ++i) {
                if (tile.target[i] == kSkipped) continue;
                tile.sample[i] = p.sample_weight[first + std::size_t(i)];
                if (tile.sample[i] == 0.0) tile.target[i] = kSkipped;
            }
        if (has_single_targets()) std::copy(tile.target, tile.target + kTile, tile.class_target);
        if (p.class_weight != nullptr && p.indices != nullptr)
            for (int i = 0; i < kTile; ++i) tile.weight[i] = p.class_weight[class_of(tile, i)];
        if (p.sample_weight != nullptr || p.grad_output != nullptr)
            for (int i = 0; i < count; ++i)
                tile.scale[i] = p.gradient_scale * tile.sample[i] *
                                (p.grad_output != nullptr ? p.grad_output[first + std::size_t(i)] : 1.0);
    }
    void note_bad_row(const std::int64_t* given, std::size_t first, int count, Outcome& outcome) const {
        for (int i = count - 1; i >= 0; --i)
            if (p.ignore_index != given[i] && std::uint64_t(given[i]) >= p.classes)
                outcome.bad_row = std::min(outcome.bad_row, first + std::size_t(i));
    }
    // The target of a row; some class where there is none.
    static CE_INLINE std::size_t class_of(const Tile& tile, int row) {
        return std::size_t(std::max<std::int64_t>(tile.target[row], 0));
    }

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

    // The (capped) logits of the rows in one vector of T, and their maximum.
    CE_INLINE void read(Tile& tile, int lane) const {
        V m = splat<V>(-kInf);
        for (int c = 0; c < classes; ++c) {
            const V z = load_as<T>(tile.in.at(c, lane)), u = capped(p, z);
            if constexpr (transformed) store(tile.slope[c] + lane, capped_slope(p, z));
            store(tile.u[c] + lane, u);
            m = highest(u, m);
        }
        store(tile.highest + lane, m);
    }

    // The sums over the classes, of the rows in one vector of T; their exponentials go to tile.e.
    template <bool dense>
    CE_INLINE void add_up(Tile& tile, int lane) const {
        const V m = load<V>(tile.highest + lane);
        Sums<kHalves<T>, kCompensated<T>> rest, spread, b_rest, b_highest;
        Integer<V> count_below{};
        const auto add = [&](int c, int count) {
            V e[4] = {}, distance[4] = {}, below[4] = {}, at_m[4] = {};  // the last three weighed by b
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                if (j >= count) break;
                const V u = load<V>(tile.u[c + j] + lane);
                __builtin_prefetch(tile.next_in.at(c + j, lane));
                __builtin_prefetch(tile.next_out.at(c + j, lane), 1);
                const auto is_below = u != m;
                count_below = count_lanes<V>(is_below, count_below);
                const V exponential = exp_below<transformed>(p, u, m);
                store(tile.e[c + j] + lane, exponential);
                e[j] = select<V>(is_below, exponential, V{});
                if constexpr (dense) {
                    const V b = load<V>(tile.b[c + j] + lane);
                    distance[j] = select<V>(b != 0, b * (m - u), V{});
                    below[j] = select<V>(is_below, b, V{});
                    at_m[j] = b - below[j];
                }
            }
            add_four(rest, 0, e);
            if constexpr (dense) {
                add_four(spread, 0, distance);
                add_four(b_rest, 0, below);
                add_four(b_highest, 0, at_m);
            }
        };
        int c = 0;
        for (; c + 4 <= classes; c += 4) add(c, 4);
        if (c < classes) add(c, classes - c);

        store(tile.ties + lane, __builtin_convertvector(classes - count_below, V));
        if constexpr (!dense) store(tile.e_target + lane, exp_below<transformed>(p, load<V>(tile.u_target + lane), m));
#pragma GCC unroll 2
        for (int h = 0; h < kHalves<T>; ++h) {
            const int at = lane + h * kWidth<double>;
            store(tile.rest + at, rest.total(h));
            if constexpr (dense) {
                store(tile.spread + at, spread.total(h));
                store(tile.b_rest + at, b_rest.total(h));
                store(tile.b_highest + at, b_highest.total(h));
            }
        }
    }

    // From the sums of the rows in one vector of float64, their values and what scales their part of the matrix.
    template <bool dense>
    CE_INLINE f64 finish(Tile& tile, int at) const {
        const auto counted = load_lanes(tile.target + at) >= 0;
        const f64 weight = load<f64>(tile.weight + at), row_scale = load<f64>(tile.scale + at), nan = splat<f64>(kNaN);
        const f64 m = load_as<double>(tile.highest + at), ties = load_as<double>(tile.ties + at);
        const f64 u = load_as<double>(tile.u_target + at);
        RowSums sums{m, load<f64>(tile.rest + at) + (ties - 1.0), f64{}, f64{}, f64{}};
        if constexpr (dense) {
            sums.spread = load<f64>(tile.spread + at);
            const auto kept = sums.spread < splat<f64>(kInf);
            if (!none(~kept)) sums.spread = select<f64>(kept, sums.spread, wide_spread(tile, at, m));
            sums.b_rest = load<f64>(tile.b_rest + at);
            sums.b_highest = load<f64>(tile.b_highest + at);
        } else {
            sums.spread = select<f64>(weight == 0, f64{}, weight * (m - u));
            sums.b_rest = select<f64>(u == m, f64{}, weight);
            sums.b_highest = select<f64>(u == m, weight, f64{});
        }
        const RowResult result = row_result(p, sums, {weight, load<f64>(tile.sample + at), row_scale});
        const f64 factor = result.softmax_scale * p.inverse_temperature;
        const f64 scale = select<f64>((factor - factor == 0) & counted, factor, nan);
        const f64 without = select<f64>(counted, nan, f64{});
        const f64 target_scale = row_scale * p.inverse_temperature;
        const f64 at_highest = select<f64>(ties == 1.0, result.at_highest * p.inverse_temperature, nan);
        store(tile.softmax_scale + at, scale);
        store(tile.without + at, without);
        store(tile.target_scale + at, target_scale);
        store(tile.at_highest + at, at_highest);
        store(tile.probability + at, result.probability);
        store(tile.rest_highest + at, select<f64>(ties == 1.0, sums.rest * result.probability, nan));
        store(tile.tail_scale + at, result.tail_scale * p.inverse_temperature);
        if (p.output == Output::log_softmax) store(tile.log_total + at, log1p(sums.rest));
        if constexpr (!dense) {
            f64 g = scale * load_as<double>(tile.e_target + at) - target_scale * weight;
            g = select<f64>((u == m) & (ties == 1.0), at_highest, g);
            if constexpr (transformed)
                for (int i = 0; i < kWidth<double>; ++i) g[i] *= tile.slope[class_of(tile, at + i)][at + i];
            g = select<f64>(scale == scale, g, without);
            if constexpr (std::is_same_v<T, float>) {
                const f32_half narrow_g = kIsHalf<S> ? narrow_to_odd(g) : narrow(g);
                __builtin_memcpy(tile.at_target + at, &narrow_g, sizeof narrow_g);
            } else {
                store(tile.at_target + at, g);
            }
        }
        return select<f64>(counted, p.has_targets() ? result.loss : result.lse, f64{});
    }
};
