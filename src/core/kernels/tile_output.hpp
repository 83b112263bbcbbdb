// What a tile of rows writes: gradient, softmax or log-softmax, and the diagonal of the Hessian.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>

#include "tile_sums.hpp"

CE_BEGIN

template <class S, class T, class In, class Out, bool transformed>
class TileKernel : protected TileSums<S, T, In, Out, transformed> {
    using Base = TileSums<S, T, In, Out, transformed>;

 protected:
    using Base::p, Base::matrix, Base::diagonal, Base::kTile;
    using typename Base::Tile, typename Base::V;

    using Base::Base;

    // With its rows' targets filled in: the rows' values and what they write. For the classes that a tile is to hold,
    // fill(tile) tells where they lie, coefficients(tile) reads tile.b, flush(tile) follows when they are written.
    // `in_parts`: the tile may not hold all classes.
    template <bool in_parts, class Fill, class Coefficients, class Flush>
    void compute(Tile& tile, Sums<kSums<T>, true>& total, const Fill& fill, const Coefficients& coefficients,
                 const Flush& flush) const {
        p.dense() ? compute<true, in_parts>(tile, total, fill, coefficients, flush)
                  : compute<false, in_parts>(tile, total, fill, coefficients, flush);
    }

 private:
    template <bool dense, bool in_parts, class Fill, class Coefficients, class Flush>
    void compute(Tile& tile, Sums<kSums<T>, true>& total, const Fill& fill, const Coefficients& coefficients,
                 const Flush& flush) const {
        const auto read = [&]() CE_INLINE_LAMBDA {
            fill(tile);
            for (int lane = 0; lane < kTile; lane += kWidth<T>) Base::template read<in_parts>(tile, lane);
            if constexpr (dense) coefficients(tile);
        };
        // visit() for all classes, as many at a time as the tile holds.
        const auto for_parts = [&](const auto& visit) CE_INLINE_LAMBDA {
            if constexpr (!in_parts) {
                visit();
            } else {
                for (tile.first = 0; tile.first < p.classes; tile.first += Base::held) {
                    tile.count = int(std::min(Base::held, p.classes - tile.first));
                    read();
                    visit();
                }
            }
        };

        if constexpr (in_parts)
            std::fill(tile.highest, tile.highest + kTile, T(-kInf));
        else
            read();
        for_parts([&]() CE_INLINE_LAMBDA {
            // One by one, and long before they are loaded as vectors: a vector must wait for the stores that it spans.
            if (Base::has_single_targets())
                for (int i = 0; i < kTile; ++i) Base::template read_target<in_parts>(tile, i);
        });
        if constexpr (in_parts) {
            typename Base::RunningSums sums[kTile / kWidth<T>];
            for_parts([&]() CE_INLINE_LAMBDA {
                for (int lane = 0; lane < kTile; lane += kWidth<T>)
                    Base::template add_up<dense>(tile, lane, sums[lane / kWidth<T>]);
            });
            for (int lane = 0; lane < kTile; lane += kWidth<T>)
                Base::template store_sums<dense>(tile, lane, sums[lane / kWidth<T>]);
        } else {
            for (int lane = 0; lane < kTile; lane += kWidth<T>) {
                typename Base::RunningSums sums;
                Base::template add_up<dense>(tile, lane, sums);
                Base::template store_sums<dense>(tile, lane, sums);
            }
        }
        if constexpr (dense)
            if (!Base::spreads_fit(tile)) {
                std::fill(tile.wide_spread, tile.wide_spread + kTile, 0.0);
                for_parts([&]() CE_INLINE_LAMBDA { Base::add_wide_spread(tile); });
                Base::replace_spreads(tile);
            }
#pragma GCC unroll 2
        for (int at = 0; at < kTile; at += kWidth<double>) {
            const f64 value = Base::template finish<dense>(tile, at);
            store(tile.value + at, value);
            total.add(at / kWidth<double>, value);
        }
        if (matrix == nullptr) return;
        for_parts([&]() CE_INLINE_LAMBDA {
            for (int lane = 0; lane < kTile; lane += kWidth<T>) {
                if constexpr (in_parts) Base::exponentials(tile, lane);
                if (diagonal != nullptr) write_diagonal<dense>(tile, lane);
                write<dense>(tile, lane);
            }
            flush(tile);
        });
    }

    // What the rows in one vector of T write into the matrix, from their exponentials.
    template <bool dense>
    CE_INLINE void write(Tile& tile, int lane) const {
        const V m = load<V>(tile.highest + lane), at_target = load<V>(tile.at_target + lane);
        Integer<V> target;
        __builtin_memcpy(&target, tile.class_target + lane, sizeof target);
        target -= typename Base::Index(tile.first);
        f64 scale[kHalves<T>], target_scale[kHalves<T>], at_highest[kHalves<T>], without[kHalves<T>];
        f64 fits[kHalves<T>];  // 1 where T holds the scales
        bool all_fit = true;
#pragma GCC unroll 2
        for (int h = 0; h < kHalves<T>; ++h) {
            const int at = lane + h * kWidth<double>;
            scale[h] = load<f64>(tile.softmax_scale + at);
            target_scale[h] = load<f64>(tile.target_scale + at);
            at_highest[h] = load<f64>(tile.at_highest + at);
            without[h] = load<f64>(tile.without + at);
            const f64 largest = splat<f64>(double(std::numeric_limits<T>::max()));
            const auto beyond = (scale[h] > largest) | (scale[h] < -largest) | (target_scale[h] > largest) |
                                (target_scale[h] < -largest);
            fits[h] = select<f64>(beyond, f64{}, splat<f64>(1.0));
            all_fit &= none(beyond);
        }
        const V softmax = narrow(scale), minus_target = -narrow(target_scale), missing = narrow(without);
        const V confident = narrow_for<S>(at_highest), narrow_fits = narrow(fits);
        const auto plain = [&](int c) {
            const V e = load<V>(tile.e[c] + lane);
            V g = e * softmax;
            if constexpr (dense) {
                const auto at_m = (load<V>(tile.u[c] + lane) == m) & (confident == confident);
                g = select<V>(at_m, confident, fma(e, softmax, minus_target * load<V>(tile.b[c] + lane)));
            }
            g = select<V>(softmax == softmax, g, missing);
            if constexpr (!dense) g = select<V>(target == c, at_target, g);
            return g;
        };
        const auto wide = [&](int c) {
            f64 g[kHalves<T>];
#pragma GCC unroll 2
            for (int h = 0; h < kHalves<T>; ++h) {
                const int at = lane + h * kWidth<double>;
                const f64 u = load_as<double>(tile.u[c] + at);
                const f64 row_m = load_as<double>(tile.highest + at);
                if (p.output == Output::log_softmax) {
                    g[h] = log_probability(u, row_m, load<f64>(tile.log_total + at));
                } else {
                    g[h] = load_as<double>(tile.e[c] + at) * scale[h];
                    if constexpr (dense) {
                        g[h] -= target_scale[h] * load_as<double>(tile.b[c] + at);
                        g[h] = select<f64>((u == row_m) & (at_highest[h] == at_highest[h]), at_highest[h], g[h]);
                    }
                    if constexpr (transformed) g[h] *= load<f64>(tile.slope[c] + at);
                }
                g[h] = select<f64>(scale[h] == scale[h], g[h], without[h]);
            }
            V narrow_g = narrow_for<S>(g);
            if constexpr (!dense) narrow_g = select<V>(target == c, at_target, narrow_g);
            return narrow_g;
        };
        const bool scaled = !transformed && p.output != Output::log_softmax;
        if (scaled && all_fit)
            for (int c = 0; c < tile.count; ++c) store_as(tile.out.at(c, lane), plain(c));
        else
            for (int c = 0; c < tile.count; ++c)
                store_as(tile.out.at(c, lane), scaled ? select<V>(narrow_fits == 1, plain(c), wide(c)) : wide(c));
    }

    // What the rows in one vector of T write of the diagonal of the Hessian: before `write`, which may overwrite
    // logits.
    template <bool dense>
    void write_diagonal(Tile& tile, int lane) const {
        for (int c = 0; c < tile.count; ++c) {
            f64 d[kHalves<T>];
            for (int h = 0; h < kHalves<T>; ++h) {
                const int at = lane + h * kWidth<double>;
                const f64 u = load_as<double>(tile.u[c] + at), e = load_as<double>(tile.e[c] + at);
                const f64 scale = load<f64>(tile.softmax_scale + at), highest = load<f64>(tile.rest_highest + at);
                const f64 probability = e * load<f64>(tile.probability + at);
                const auto confident = (u == load_as<double>(tile.highest + at)) & (highest == highest);
                const f64 rest = select<f64>(confident, highest, 1.0 - probability);
                d[h] = e * (scale * rest + load<f64>(tile.tail_scale + at) * probability);
                if constexpr (transformed) {
                    const f64 target_scale = load<f64>(tile.target_scale + at), slope = load<f64>(tile.slope[c] + at);
                    f64 g = e * scale;
                    if constexpr (dense) g -= target_scale * load<f64>(tile.b[c] + at);
                    g = select<f64>(confident, load<f64>(tile.at_highest + at), g) * slope;
                    if constexpr (!dense)
                        g = select<f64>(Base::load_lanes(tile.target + at) == std::int64_t(tile.first) + c,
                                        load<f64>(tile.at_target + at), g);
                    d[h] = d[h] * p.inverse_temperature * slope * slope + g * capped_curvature(p, u);
                }
                d[h] = select<f64>(scale == scale, d[h], load<f64>(tile.without + at));
            }
            store_as(tile.diagonal.at(c, lane), narrow_for<S>(d));
        }
    }
};

CE_END
