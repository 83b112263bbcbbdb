// A row of contiguous classes, block by block: its sums, and what is written of it.
//
// The sums of its blocks are joined in order, so that threads may share the blocks. A gradient needs the sum of the
// whole row first. Until that is known the exponentials wait, each relative to the maximum of its block: in the row's
// own gradient where the logits are not needed again, else in a scratch row.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "../dispatch.hpp"
#include "../problem.hpp"
#include "../scratch.hpp"
#include "arrays.hpp"
#include "block_output.hpp"
#include "block_sums.hpp"
#include "parts.hpp"

CE_BEGIN

template <class S, class T, Mode mode>
class RowBlocks {
    const Problem& p;
    const Arrays<S> arrays;
    const ParallelFor* const parallel;  // null: this thread computes every block
    const std::size_t blocks;           // of a row
    T* const b_scratch;                 // coefficients of a block, if the targets are dense; for this thread
    PartialSums* const sums_of_blocks;  // of the current row
    T* const scratch_row_;              // if there is a matrix to write

 public:
    RowBlocks(const Problem& problem, const ParallelFor* parallel_for_blocks, Scratch& scratch)
        : p(problem),
          arrays(problem),
          parallel(parallel_for_blocks),
          blocks((problem.classes + kBlock<T> - 1) / kBlock<T>),
          b_scratch(take_b_scratch(problem, scratch)),
          sums_of_blocks(scratch.take<PartialSums>(blocks)),
          scratch_row_(scratch.take<T>(
              problem.matrix != nullptr ? (problem.classes + kGroup<T> - 1) / kGroup<T> * kGroup<T> : 0)) {}

    T* scratch_row() const { return scratch_row_; }
    T* row_for_exponentials(std::size_t row) const {
        if constexpr (std::is_same_v<S, T> && mode != Mode::general)
            return arrays.matrix + row * p.classes;
        else
            return scratch_row_;
    }

    // visit(block, where it lies in the logits) for each block of a row, in any order.
    template <class Visit>
    CE_INLINE void for_blocks(std::size_t row, std::int64_t target, const Visit& visit) const {
        const auto one = [&](std::size_t i, T* scratch) {
            const std::size_t first = i * kBlock<T>;
            visit(Block<T>{row, target, first, int(std::min<std::size_t>(kBlock<T>, p.classes - first)), scratch},
                  row * p.classes + first);
        };
        constexpr std::size_t together = 16;  // neighbours, which the CPU fetches ahead
        if (parallel == nullptr)
            for (std::size_t i = 0; i < blocks; ++i) one(i, b_scratch);
        else
            (*parallel)((blocks + together - 1) / together, [&](std::size_t task, void* memory) {
                Scratch scratch(memory);
                T* const of_thread = take_b_scratch(p, scratch);
                for (std::size_t i = task * together; i < std::min(blocks, (task + 1) * together); ++i)
                    one(i, of_thread);
            });
    }

    // Whether the coefficients are those that every row has in shared, but for the target's.
    bool has_shared() const { return (mode == Mode::plain || mode == Mode::scaled) && p.shared.of_class != nullptr; }
    double shared_of(std::size_t c) const {
        return double(static_cast<const T*>(p.shared.of_class)[c * p.shared.step]);
    }

    // Completes the sums of a row whose coefficients are shared; the target has no more than the others.
    void complete_shared(PartialSums& sums, const S* z, std::size_t row) const {
        const double gap = sums.weighted_gap.total();
        if (!(gap - gap == 0.0)) {
            constexpr std::int64_t none = -1;
            sums.weighted_gap = {};
            for_blocks(row, none, [&](const Block<T>& block, std::size_t) {
                sums.weighted_gap.add(weighted_gap_in_double(p, block, z + block.first, sums.max));
            });
        }
        sums.b_below_max = {p.shared.sum, p.shared.sum_error};
        sums.b_at_max = {};
        if (!sums.unique) return;
        std::size_t of_max = 0;
        while (of_max + 1 < blocks && sums_of_blocks[of_max].max != sums.max) ++of_max;
        const std::size_t first = of_max * std::size_t(kBlock<T>);
        const int count = int(std::min(p.classes - first, std::size_t(kBlock<T>)));
        sums.class_of_max = first + class_equal_to(z + first, T(sums.max), count);
        sums.b_at_max = {shared_of(sums.class_of_max)};
        sums.b_below_max.add(-shared_of(sums.class_of_max));
    }

    // The sums of a row of logits z. Its exponentials are stored in e, if that is given.
    PartialSums row_sums(const S* z, T* e, std::size_t row, std::int64_t target) const {
        if constexpr (mode == Mode::plain || mode == Mode::scaled)
            if (has_shared()) return row_sums<Coefficients::shared>(z, e, row, target);
        if constexpr (mode != Mode::capped)
            if (p.dense()) return row_sums<Coefficients::dense>(z, e, row, target);
        return row_sums<Coefficients::single>(z, e, row, target);
    }
    void write_gradient(const T* e, std::size_t row, std::int64_t target, const GradientScales& scales) const {
        if constexpr (mode == Mode::plain || mode == Mode::scaled)
            if (has_shared()) return write_gradient<Coefficients::shared>(e, row, target, scales);
        if constexpr (mode != Mode::capped)
            if (p.dense()) return write_gradient<Coefficients::dense>(e, row, target, scales);
        write_gradient<Coefficients::single>(e, row, target, scales);
    }

    void write_diagonal(const T* e, std::size_t row, std::int64_t target, const GradientScales& scales,
                        const DiagonalFactors& factors) const {
        for_blocks(row, target, [&](const Block<T>& block, std::size_t at) {
            GradientScales of_block = scales;
            DiagonalFactors factors_of_block = factors;
            const double scale =
                mode == Mode::capped ? 1.0 : decay_of(block, scales.max);  // which has its own exponentials
            of_block.exp *= scale;
            factors_of_block.max_probability *= scale;
            factors_of_block.z_curvature *= scale;
            write_block_diagonal<mode>(p, block, arrays.logits + at, e + block.first, arrays.diagonal + at, of_block,
                                       factors_of_block);
        });
    }

 private:
    template <Coefficients coefficients>
    PartialSums row_sums(const S* all, T* e, std::size_t row, std::int64_t target) const {
        for_blocks(row, target, [&](const Block<T>& block, std::size_t at) {
            const S* const z = all + block.first;
            PartialSums& sums = sums_of_blocks[block.first / kBlock<T>];
            if constexpr (coefficients != Coefficients::shared && mode != Mode::capped)
                if (p.has_entropy()) {
                    sums = block_sums<mode, coefficients, true, true>(
                        p, block, z, e != nullptr ? e + block.first : block.b_scratch + kBlock<T>,
                        arrays.matrix != nullptr ? arrays.matrix + at : z);
                    return;
                }
            if (e != nullptr)
                sums = block_sums<mode, coefficients, true, false>(p, block, z, e + block.first, arrays.matrix + at);
            else
                sums = block_sums<mode, coefficients, false, false, S, T>(p, block, z, nullptr, nullptr);
        });
        if (blocks == 0) return no_sums();
        PartialSums sums = sums_of_blocks[0];
        for (std::size_t i = 1; i < blocks; ++i) sums = joined<mode>(p, sums, sums_of_blocks[i]);
        return sums;
    }

    // What turns an exponential of a block, relative to the block's maximum, into one relative to the row's.
    double decay_of(const Block<T>& block, double max) const {
        return decay<mode>(p, sums_of_blocks[block.first / kBlock<T>].max, max);
    }

    template <Coefficients coefficients>
    void write_gradient(const T* e, std::size_t row, std::int64_t target, const GradientScales& scales) const {
        for_blocks(row, target, [&](const Block<T>& block, std::size_t at) {
            GradientScales of_block = scales;
            const double scale = decay_of(block, scales.max);
            of_block.exp *= scale;
            of_block.entropy *= scale;
            write_block_gradient<mode, coefficients>(p, block, arrays.logits + at, e + block.first, arrays.matrix + at,
                                                     of_block);
        });
    }

    // The first piece of any thread's scratch: a block's coefficients, or its exponentials where only the entropy needs
    // them.
    static T* take_b_scratch(const Problem& problem, Scratch& scratch) {
        return scratch.take<T>(problem.dense() || problem.has_entropy() ? 2 * kBlock<T> : 0);
    }
};

CE_END
