// Classes contiguous, one row at a time: the kernel for many classes.
//
// A row is read from memory once: block by block, and the sums of the blocks joined in order, so that threads may share
// them. For a gradient the exponentials, each relative to the maximum of its block, wait until the sum of the whole row
// is known: in the gradient's own row where nothing else will look at the logits again, else in a scratch row.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "../dispatch.hpp"
#include "../scratch.hpp"
#include "block_output.hpp"

CE_BEGIN

template <class S, class T, bool transformed>
class RowKernel : BlockKernel<S, T, transformed> {
    using Base = BlockKernel<S, T, transformed>;
    using Base::p;
    using typename Base::Block;

    const S* const logits;
    S* const matrix;
    S* const diagonal;
    RowValue<S>* const row_values;
    const ParallelFor* const parallel;  // null: this thread computes every block itself
    const std::size_t blocks;
    T* const made;          // coefficients of a block, if the targets are dense: of this thread
    PartSums* const parts;  // of the row at hand, one a block
    T* const scratch_row;   // if there is a matrix to write

 public:
    RowKernel(const Problem& problem, const ParallelFor* parallel_for_blocks, Scratch& scratch)
        : Base(problem),
          logits(static_cast<const S*>(problem.logits)),
          matrix(static_cast<S*>(problem.matrix)),
          diagonal(static_cast<S*>(problem.diagonal)),
          row_values(static_cast<RowValue<S>*>(problem.row_values)),
          parallel(parallel_for_blocks),
          blocks((problem.classes + kBlock<T> - 1) / kBlock<T>),
          made(take_made(problem, scratch)),
          parts(scratch.take<PartSums>(blocks)),
          scratch_row(
              scratch.take<T>(matrix != nullptr ? (problem.classes + kGroup<T> - 1) / kGroup<T> * kGroup<T> : 0)) {}

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        CompensatedSum total;
        for (std::size_t row = begin; row < end; ++row) {
            double value;
            if constexpr (transformed)  // without targets nothing is
                value = loss(row, outcome);
            else
                value = p.has_targets() ? loss(row, outcome) : softmax(row);
            if (row_values != nullptr) row_values[row] = RowValue<S>(value);
            total.add(value);
        }
        outcome.loss = total.total();
    }

 private:
    // The first piece of any thread's scratch.
    static T* take_made(const Problem& problem, Scratch& scratch) {
        return scratch.take<T>(problem.dense() ? kBlock<T> : 0);
    }

    // Loss of a row, its gradient written if wanted.
    double loss(std::size_t row, Outcome& outcome) const {
        const S* z = logits + row * p.classes;
        const double sample = p.sample_weight != nullptr ? p.sample_weight[row] : 1.0;
        std::int64_t target = 0;
        if (p.indices != nullptr) {
            target = p.indices[row];  // read once: another thread may be writing it
            const bool ignored = p.options.ignore_index == target;
            if (!ignored && std::uint64_t(target) >= p.classes) outcome.bad_row = std::min(outcome.bad_row, row);
            if (ignored || std::uint64_t(target) >= p.classes) return nothing(row);
        }
        if (sample == 0.0) return nothing(row);

        const bool dense = p.dense();
        const double weight = p.indices != nullptr && p.class_weight != nullptr ? p.class_weight[target] : 1.0;
        const double scale = p.gradient_scale * sample * (p.grad_output != nullptr ? p.grad_output[row] : 1.0);
        const f64 at_target = splat<f64>(dense ? 0.0 : double(z[target]));  // read before the gradient may overwrite it
        T* const e = matrix == nullptr ? nullptr : dense ? scratch_row : row_for_exponentials(row);
        PartSums sums = dense ? row_sums<true>(e, row, target) : row_sums<false>(e, row, target);
        const f64 u = capped(p, at_target);
        const bool target_highest = u[0] == sums.highest;
        if (!dense) {
            sums.spread = {weight == 0.0 ? 0.0 : weight * (sums.highest - u[0])};
            (target_highest ? sums.b_highest : sums.b_rest) = {weight};
        }
        const RowResult result =
            row_result(p, sums.lanes(), {splat<f64>(weight), splat<f64>(sample), splat<f64>(scale)});
        if (matrix != nullptr) {
            S* gradient = matrix + row * p.classes;
            const Coefficients c{result.softmax_scale[0] * p.inverse_temperature, scale * p.inverse_temperature,
                                 result.at_highest[0] * p.inverse_temperature, sums.highest, sums.unique};
            if (!(c.softmax - c.softmax == 0.0)) {
                fill(row, kNaN);
                return result.loss[0];
            }
            if (diagonal != nullptr)
                write_diagonal(
                    e, row, target, c,
                    {result.probability[0], result.tail_scale[0] * p.inverse_temperature, sums.rest.total()});
            if (dense) {
                double g = c.at_highest;
                if constexpr (transformed)  // before the logits may be overwritten
                    g *= capped_slope(p, splat<f64>(double(z[sums.class_highest])))[0];
                write_gradient<true>(e, row, target, c);
                if (c.unique) gradient[sums.class_highest] = S(g);
            } else {
                write_gradient<false>(e, row, target, c);
                double g = c.softmax * exp_below<transformed>(p, u, splat<f64>(c.highest))[0] - c.target * weight;
                if (target_highest && c.unique) g = c.at_highest;
                gradient[target] = S(transformed ? g * capped_slope(p, at_target)[0] : g);
            }
        }
        return result.loss[0];
    }

    // A row that does not count, whatever it holds.
    double nothing(std::size_t row) const {
        if (matrix != nullptr) fill(row, 0.0);
        return 0.0;
    }

    void fill(std::size_t row, double value) const {
        for (S* const out : {matrix, diagonal})
            if (out != nullptr) std::fill(out + row * p.classes, out + (row + 1) * p.classes, S(value));
    }

    T* row_for_exponentials(std::size_t row) const {
        if constexpr (std::is_same_v<S, T> && !transformed)
            return matrix + row * p.classes;
        else
            return scratch_row;
    }

    // Log-sum-exp of a row, its softmax or log-softmax written if wanted.
    double softmax(std::size_t row) const {
        const bool keep = matrix != nullptr && p.output == Output::softmax;
        T* const e = keep ? row_for_exponentials(row) : nullptr;
        PartSums sums = row_sums<false>(e, row, 0);
        sums.b_rest = {1.0};
        const double rest = sums.rest.total();
        const f64 one = splat<f64>(1.0);
        const RowResult result = row_result(p, sums.lanes(), {one, one, one});
        if (matrix != nullptr) {
            S* out = matrix + row * p.classes;
            const double scale = result.softmax_scale[0];
            if (scale != scale)
                std::fill(out, out + p.classes, S(kNaN));
            else if (keep)
                write_gradient<false>(e, row, 0, {scale, 0.0, 0.0, sums.highest, false});
            else
                for_blocks(row, 0, [&](const Block& block, std::size_t at) {
                    Base::write_log_softmax(logits + at, block.count, matrix + at, sums.highest, rest);
                });
        }
        return result.lse[0];
    }

    // visit(block, where it lies in the logits) for each block of a row, in any order.
    template <class Visit>
    CE_INLINE void for_blocks(std::size_t row, std::int64_t target, const Visit& visit) const {
        const auto one = [&](std::size_t i, T* coefficients) {
            const std::size_t first = i * kBlock<T>;
            visit(Block{row, target, first, int(std::min<std::size_t>(kBlock<T>, p.classes - first)), coefficients},
                  row * p.classes + first);
        };
        constexpr std::size_t together = 16;  // neighbours, which the CPU fetches ahead
        if (parallel == nullptr)
            for (std::size_t i = 0; i < blocks; ++i) one(i, made);
        else
            (*parallel)((blocks + together - 1) / together, [&](std::size_t task, void* memory) {
                Scratch scratch(memory);
                T* const coefficients = take_made(p, scratch);
                for (std::size_t i = task * together; i < std::min(blocks, (task + 1) * together); ++i)
                    one(i, coefficients);
            });
    }

    // The sums of a row; its exponentials go to e, if that is given.
    template <bool dense>
    PartSums row_sums(T* e, std::size_t row, std::int64_t target) const {
        for_blocks(row, target, [&](const Block& block, std::size_t at) {
            PartSums& part = parts[block.first / kBlock<T>];
            part = e != nullptr
                       ? Base::template block_sums<dense, true>(block, logits + at, e + block.first, matrix + at)
                       : Base::template block_sums<dense, false>(block, logits + at, nullptr, nullptr);
        });
        PartSums sums = parts[0];
        for (std::size_t i = 1; i < blocks; ++i) sums = joined<transformed>(p, sums, parts[i]);
        return sums;
    }

    template <bool dense>
    void write_gradient(const T* e, std::size_t row, std::int64_t target, const Coefficients& c) const {
        for_blocks(row, target, [&](const Block& block, std::size_t at) {
            Coefficients of_block = c;
            of_block.softmax *= decay<transformed>(p, parts[block.first / kBlock<T>].highest, c.highest);
            Base::template write_gradient<dense>(block, logits + at, e + block.first, matrix + at, of_block);
        });
    }

    void write_diagonal(const T* e, std::size_t row, std::int64_t target, const Coefficients& c,
                        const DiagonalFactors& factors) const {
        for_blocks(row, target, [&](const Block& block, std::size_t at) {
            Coefficients of_block = c;
            DiagonalFactors factors_of_block = factors;
            const double scale = decay<transformed>(p, parts[block.first / kBlock<T>].highest, c.highest);
            of_block.softmax *= scale;
            factors_of_block.probability *= scale;
            factors_of_block.tail *= scale;
            Base::write_diagonal(block, logits + at, e + block.first, diagonal + at, of_block, factors_of_block);
        });
    }
};

CE_END
