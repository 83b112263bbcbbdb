// A tile of rows side by side, one a lane, nothing folded across lanes: what they bring, their sums and their losses.
//
// Where there are very many classes a tile holds a part of them at a time, and is filled anew for each look at them:
// for the maximum, for the sums, and for what is written.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <type_traits>

#include "../dispatch.hpp"
#include "../problem.hpp"
#include "../scratch.hpp"
#include "lanes.hpp"
#include "loss.hpp"
#include "storage.hpp"

CE_BEGIN

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
    const std::size_t held;  // classes of a tile at most

 private:
    T (*const tile_u)[kTile], (*const tile_e)[kTile], (*const tile_b)[kTile];
    double (*const tile_slope)[kTile];

 protected:
    const S* const logits;
    S* const matrix;
    S* const diagonal;
    RowValue<S>* const row_values;

    static constexpr std::int64_t kSkipped = -1;
    // A tile holds up to so many classes, all of them, so that they are read from memory once. Of more it holds so few
    // that three looks at them cost no more (measured); four are added up together.
    static constexpr std::size_t kMostClasses = 32768, kClassesOfPart = 512;

    // Sums over the classes of the rows in one vector of T, as they grow.
    struct RunningSums {
        Sums<kHalves<T>, kCompensated<T>> rest, spread, b_rest, b_highest;
        Integer<V> count_below{};
    };

    // One tile: classes x rows, and what each row brings and becomes.
    struct Tile {
        std::size_t first;  // the classes that it holds
        int count;
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
        alignas(64) double rest[kTile], spread[kTile], wide_spread[kTile], b_rest[kTile], b_highest[kTile];
        // The matrix is softmax_scale * e - target_scale * b, or `without` where softmax_scale is no number.
        alignas(64) double softmax_scale[kTile], target_scale[kTile], at_highest[kTile], without[kTile];
        alignas(64) double log_total[kTile], value[kTile];
        // For the diagonal: p = probability * e, 1 - p at a unique maximum, and what the z-loss adds.
        alignas(64) double probability[kTile], rest_highest[kTile], tail_scale[kTile];
        // For a single target: its logit, du/dz if transformed, exponential, class and part of the matrix.
        alignas(64) T u_target[kTile], e_target[kTile];
        alignas(64) double slope_target[transformed ? kTile : 1];
        alignas(64) Index class_target[kTile];
        alignas(64) T at_target[kTile];
    };

    void prepare(Tile& tile) const {
        tile.u = tile_u;
        tile.e = tile_e;
        tile.b = tile_b;
        tile.slope = tile_slope;
        tile.first = 0;
        tile.count = int(held);
        std::fill(tile.weight, tile.weight + kTile, 1.0);
        std::fill(tile.sample, tile.sample + kTile, 1.0);
        std::fill(tile.scale, tile.scale + kTile, p.gradient_scale);
        std::fill(tile.u_target, tile.u_target + kTile, T(0));
        std::fill(tile.slope_target, std::end(tile.slope_target), 1.0);
        std::fill(tile.class_target, tile.class_target + kTile, kSkipped);
    }

    TileSums(const Problem& problem, Scratch& scratch)
        : p(problem),
          classes(int(problem.classes)),
          held(problem.classes <= kMostClasses ? problem.classes : kClassesOfPart),
          tile_u(scratch.take<T[kTile]>(held)),
          tile_e(scratch.take<T[kTile]>(held)),
          tile_b(scratch.take<T[kTile]>(problem.dense() ? held : 0)),
          tile_slope(scratch.take<double[kTile]>(transformed ? held : 0)),
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
            const i64 may_ignore = i64{} - p.options.ignore_index.has_value();
            i64 bad{};
            for (int i = 0; i < kTile; i += kWidth<double>) {
                const i64 target = load_lanes(given + i), outside = (target < 0) | (target >= std::int64_t(classes));
                const i64 ignored = (target == p.options.ignore_index.value_or(0)) & may_ignore;
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
            if (p.options.ignore_index != given[i] && std::uint64_t(given[i]) >= p.classes)
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

    // Rows whose sum of b_c (m - u_c) overflows T or has a term that is no number have it in float64.
    static bool spreads_fit(const Tile& tile) {
        return std::all_of(tile.spread, tile.spread + kTile, [](double spread) { return spread < kInf; });
    }
    void add_wide_spread(Tile& tile) const {
        for (int c = 0; c < tile.count; ++c)
            for (int i = 0; i < kTile; ++i) {
                const double b = double(tile.b[c][i]);
                if (b != 0.0) tile.wide_spread[i] += b * (double(tile.highest[i]) - double(tile.u[c][i]));
            }
    }
    static void replace_spreads(Tile& tile) {
        for (int i = 0; i < kTile; ++i)
            if (!(tile.spread[i] < kInf)) tile.spread[i] = tile.wide_spread[i];
    }

    // The (capped) logits of the rows in one vector of T, and the maximum so far.
    template <bool in_parts>
    CE_INLINE void read(Tile& tile, int lane) const {
        V m = in_parts ? load<V>(tile.highest + lane) : splat<V>(-kInf);
        for (int c = 0; c < tile.count; ++c) {
            const V z = load_as<T>(tile.in.at(c, lane)), u = capped(p, z);
            if constexpr (transformed) store(tile.slope[c] + lane, capped_slope(p, z));
            store(tile.u[c] + lane, u);
            m = highest(u, m);
        }
        store(tile.highest + lane, m);
    }

    // The exponentials of the rows in one vector of T, where `add_up` has left those of other classes.
    void exponentials(Tile& tile, int lane) const {
        const V m = load<V>(tile.highest + lane);
        for (int c = 0; c < tile.count; ++c)
            store(tile.e[c] + lane, exp_below<transformed>(p, load<V>(tile.u[c] + lane), m));
    }

    // What the target's class brings, if the tile holds it.
    template <bool in_parts>
    CE_INLINE void read_target(Tile& tile, int row) const {
        const std::size_t c = class_of(tile, row) - tile.first;
        if (in_parts && c >= std::size_t(tile.count)) return;
        tile.u_target[row] = tile.u[c][row];
        if constexpr (transformed) tile.slope_target[row] = tile.slope[c][row];
    }

    // The sums with the classes of the tile added, of the rows in one vector of T; their exponentials go to tile.e.
    template <bool dense>
    CE_INLINE void add_up(const Tile& tile, int lane, RunningSums& running) const {
        const V m = load<V>(tile.highest + lane);
        RunningSums sums = running;
        const auto add = [&](int c, int count) CE_INLINE_LAMBDA {
            V e[4] = {}, distance[4] = {}, below[4] = {}, at_m[4] = {};  // the last three weighed by b
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                if (j >= count) break;
                const V u = load<V>(tile.u[c + j] + lane);
                __builtin_prefetch(tile.next_in.at(c + j, lane));
                __builtin_prefetch(tile.next_out.at(c + j, lane), 1);
                const auto is_below = u != m;
                sums.count_below = count_lanes<V>(is_below, sums.count_below);
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
            add_four(sums.rest, 0, e);
            if constexpr (dense) {
                add_four(sums.spread, 0, distance);
                add_four(sums.b_rest, 0, below);
                add_four(sums.b_highest, 0, at_m);
            }
        };
        int c = 0;
        for (; c + 4 <= tile.count; c += 4) add(c, 4);
        if (c < tile.count) add(c, tile.count - c);
        running = sums;
    }

    // The sums over all classes, of the rows in one vector of T.
    template <bool dense>
    CE_INLINE void store_sums(Tile& tile, int lane, const RunningSums& sums) const {
        const V m = load<V>(tile.highest + lane);
        store(tile.ties + lane, __builtin_convertvector(classes - sums.count_below, V));
        if constexpr (!dense) store(tile.e_target + lane, exp_below<transformed>(p, load<V>(tile.u_target + lane), m));
#pragma GCC unroll 2
        for (int h = 0; h < kHalves<T>; ++h) {
            const int at = lane + h * kWidth<double>;
            store(tile.rest + at, sums.rest.total(h));
            if constexpr (dense) {
                store(tile.spread + at, sums.spread.total(h));
                store(tile.b_rest + at, sums.b_rest.total(h));
                store(tile.b_highest + at, sums.b_highest.total(h));
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
            if constexpr (transformed) g *= load<f64>(tile.slope_target + at);
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

CE_END
