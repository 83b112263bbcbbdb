// Classes contiguous, one row at a time: the kernel for many classes.
//
// A row is read from memory once, block by block. The sums of its blocks are joined in order, so that threads may share
// the blocks. A gradient needs the sum of the whole row first. Until that is known the exponentials wait, each relative
// to the maximum of its block: in the row's own gradient where the logits are not needed again, else in a scratch row.
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
#include "remainder.hpp"

CE_BEGIN

template <class S, class T, Mode mode>
class RowKernel {
    static constexpr bool scaled = mode != Mode::plain;

    const Problem& p;
    const Arrays<S> arrays;
    const ParallelFor* const parallel;  // null: this thread computes every block
    const std::size_t blocks;           // of a row
    T* const b_scratch;                 // coefficients of a block, if the targets are dense; for this thread
    PartialSums* const sums_of_blocks;  // of the current row
    T* const scratch_row;               // if there is a matrix to write
    // The logits without those that sparse targets name, and those, if the targets leave a remainder.
    S* const masked_row;
    NamedClass* const named_scratch;

 public:
    RowKernel(const Problem& problem, const ParallelFor* parallel_for_blocks, Scratch& scratch)
        : p(problem),
          arrays(problem),
          parallel(parallel_for_blocks),
          blocks((problem.classes + kBlock<T> - 1) / kBlock<T>),
          b_scratch(take_b_scratch(problem, scratch)),
          sums_of_blocks(scratch.take<PartialSums>(blocks)),
          scratch_row(scratch.take<T>(
              problem.matrix != nullptr ? (problem.classes + kGroup<T> - 1) / kGroup<T> * kGroup<T> : 0)),
          masked_row(scratch.take<S>(problem.remainder != nullptr ? problem.classes : 0)),
          named_scratch(scratch.take<NamedClass>(problem.remainder != nullptr ? problem.k : 0)) {}

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        CompensatedSum total;
        for (std::size_t row = begin; row < end; ++row) {
            double value;
            if (p.remainder != nullptr)
                value = loss_with_remainder(row);
            else if constexpr (mode != Mode::plain)  // the softmax functions have no options
                value = loss(row, outcome);
            else
                value = p.has_targets() ? loss(row, outcome) : softmax(row);
            if (arrays.row_values != nullptr) arrays.row_values[row] = RowValue<S>(value);
            total.add(value);
        }
        outcome.loss = total.total();
    }

 private:
    // The first piece of any thread's scratch: a block's coefficients, or its exponentials where only the entropy needs
    // them.
    static T* take_b_scratch(const Problem& problem, Scratch& scratch) {
        return scratch.take<T>(problem.dense() || problem.has_entropy() ? 2 * kBlock<T> : 0);
    }

    // The loss of a row. Its gradient, and the diagonal of its Hessian, are written if wanted.
    double loss(std::size_t row, Outcome& outcome) const {
        const S* z = arrays.logits + row * p.classes;
        const double sample_weight = p.sample_weight != nullptr ? p.sample_weight[row] : 1.0;
        std::int64_t target = 0;
        if (p.indices != nullptr) {
            target = p.indices[row];  // read once: another thread may be writing it
            const bool ignored = p.options.ignore_index == target;
            if (!ignored && std::uint64_t(target) >= p.classes) outcome.bad_row = std::min(outcome.bad_row, row);
            if (ignored || std::uint64_t(target) >= p.classes) return skip(row);
        }
        if (sample_weight == 0.0) return skip(row);

        const bool dense = p.dense(), shared = has_shared();
        const double weight = p.indices != nullptr && p.class_weight != nullptr ? p.class_weight[target] : 1.0;
        // Of the target, if it is a single one, or what it has more than the others.
        const double b = p.indices != nullptr ? weight * (shared ? 1.0 - p.options.label_smoothing : 1.0) : 0.0;
        const double scale = p.gradient_scale * sample_weight * (p.grad_output != nullptr ? p.grad_output[row] : 1.0);
        const f64 z_target =
            splat<f64>(dense && !shared ? 0.0 : double(z[target]));  // read before the gradient may overwrite it
        T* const e = arrays.matrix == nullptr   ? nullptr
                     : dense || p.has_entropy() ? scratch_row
                                                : row_for_exponentials(row);
        PartialSums sums = row_sums_of(z, e, row, target);
        const f64 u_target = capped(p, z_target);
        bool target_at_max = u_target[0] == sums.max;
        double gap = sums.max - u_target[0];  // m - u of the target
        f64 e_target;
        double slope = 1.0;  // du/dz of the target
        const f64 highest = splat<f64>(sums.max);
        if constexpr (mode == Mode::capped) {
            target_at_max = z_target[0] == sums.max;
            const CappedExp<f64> of_target = SoftCap<f64>(p, highest)(z_target);
            gap = target_at_max ? 0.0 : -of_target.gap[0];
            e_target = of_target.e;
            slope = of_target.slope[0];
        } else {
            e_target = exp_below<scaled>(p, u_target, highest);
            if constexpr (mode == Mode::general) slope = capped_slope(p, z_target)[0];
        }
        if (shared) {
            add_target(sums, z, row, std::size_t(target), b, gap);
        } else if (!dense) {
            sums.weighted_gap = {b == 0.0 ? 0.0 : b * gap};
            (target_at_max ? sums.b_at_max : sums.b_below_max) = {b};
        }
        RowSums lanes = sums.lanes();
        if constexpr (mode == Mode::capped) lanes.max = capped(p, lanes.max);
        const double entropy_grad = p.entropy_grad_output != nullptr ? p.entropy_grad_output[row] : 0.0;
        const RowResult result = row_result(
            p, lanes,
            {splat<f64>(weight), splat<f64>(sample_weight), splat<f64>(scale), splat<f64>(entropy_grad), e_target});
        write_values(row, result, sums);
        if (arrays.matrix != nullptr) {
            S* gradient = arrays.matrix + row * p.classes;
            const GradientScales scales = gradient_scales(result, sums);
            if (!(scales.exp - scales.exp == 0.0 && scales.entropy - scales.entropy == 0.0)) {
                fill(row, kNaN);
                return result.loss[0];
            }
            if (arrays.diagonal != nullptr)
                write_diagonal(e, row, target, scales,
                               {result.max_probability[0], result.z_curvature[0] * p.inverse_temperature,
                                sums.exp_sum_without_max.total()});
            double at_max = scales.at_max - scales.entropy * scales.mean_gap;
            if (dense && mode == Mode::general)  // before the logits may be overwritten
                at_max *= capped_slope(p, splat<f64>(double(z[sums.class_of_max])))[0];
            write_gradient_of(e, row, target, scales);
            if (dense && scales.unique) gradient[sums.class_of_max] = S(at_max);
            if (!dense || (shared && !(target_at_max && scales.unique))) {
                double g = scales.exp * e_target[0] - scales.target * (shared ? b + shared_of(target) : b);
                if (target_at_max && scales.unique) g = scales.at_max;
                if (scales.entropy != 0.0 && e_target[0] != 0.0)
                    g += e_target[0] * entropy_scale(p, scales, u_target)[0];
                gradient[target] = S(g * slope);
            }
        }
        return result.loss[0];
    }

    // The loss of a row whose sparse targets leave a remainder: a class of its own, of which a class that they do not
    // name has the share that its exponential has among those. These are summed alone, relative to their own maximum.
    double loss_with_remainder(std::size_t row) const {
        const double sample_weight = p.sample_weight != nullptr ? p.sample_weight[row] : 1.0;
        if (sample_weight == 0.0) return skip(row);
        const S* const z = arrays.logits + row * p.classes;
        const double scale = p.gradient_scale * sample_weight * (p.grad_output != nullptr ? p.grad_output[row] : 1.0);
        std::copy(z, z + p.classes, masked_row);
        const NamedClasses named = named_classes<mode>(p, row, z, masked_row, named_scratch);
        T* const e = arrays.matrix == nullptr ? nullptr : scratch_row;
        const PartialSums sums = row_sums<Coefficients::single>(masked_row, e, row, 0);
        const RemainderResult result = remainder_result<mode>(p, named, sums, p.remainder[row]);
        if (arrays.matrix != nullptr) {
            const GradientScales scales{scale * result.exp_scale * p.inverse_temperature, 0.0, 0.0, sums.max, false};
            if (!(scales.exp - scales.exp == 0.0)) {
                fill(row, kNaN);
            } else {
                write_gradient<Coefficients::single>(e, row, 0, scales);
                for (int i = 0; i < named.count; ++i) {
                    const NamedClass& n = named.first[i];
                    arrays.matrix[row * p.classes + n.c] =
                        S(scale * p.inverse_temperature * named_gradient(named, n, result) * n.slope);
                }
            }
        }
        return sample_weight * result.loss;
    }

    // The loss of a row that does not count, whatever it holds.
    double skip(std::size_t row) const {
        arrays.skip_row(p, row);
        if (arrays.matrix != nullptr) fill(row, 0.0);
        return 0.0;
    }

    GradientScales gradient_scales(const RowResult& result, const PartialSums& sums) const {
        return {result.exp_scale[0] * p.inverse_temperature,
                result.target_scale[0] * p.inverse_temperature,
                result.gradient_at_max[0] * p.inverse_temperature,
                sums.max,
                sums.unique,
                result.entropy_scale[0] * p.inverse_temperature,
                result.mean_gap[0]};
    }

    // Entropy and log-probabilities of a row, where wanted.
    void write_values(std::size_t row, const RowResult& result, const PartialSums& sums) const {
        if (arrays.entropies == nullptr && arrays.log_probabilities == nullptr) return;
        const S* const z = arrays.logits + row * p.classes;
        arrays.write_row(p, row, result.entropy[0], sums.max, log1p(splat<f64>(sums.exp_sum_without_max.total()))[0],
                         [&](std::size_t c) { return capped(p, splat<f64>(double(z[c])))[0]; });
    }

    void fill(std::size_t row, double value) const {
        for (S* const out : {arrays.matrix, arrays.diagonal})
            if (out != nullptr) std::fill(out + row * p.classes, out + (row + 1) * p.classes, S(value));
    }

    T* row_for_exponentials(std::size_t row) const {
        if constexpr (std::is_same_v<S, T> && mode != Mode::general)
            return arrays.matrix + row * p.classes;
        else
            return scratch_row;
    }

    // The log-sum-exp of a row. Its softmax or log-softmax is written if wanted.
    double softmax(std::size_t row) const {
        const bool keep = arrays.matrix != nullptr && p.output == Output::softmax;
        T* const e = keep ? row_for_exponentials(row) : nullptr;
        PartialSums sums = row_sums<Coefficients::single>(arrays.logits + row * p.classes, e, row, 0);
        sums.b_below_max = {1.0};
        const double exp_sum_without_max = sums.exp_sum_without_max.total();
        const f64 one = splat<f64>(1.0);
        const RowResult result = row_result(p, sums.lanes(), {one, one, one, f64{}, f64{}});
        if (arrays.matrix != nullptr) {
            S* out = arrays.matrix + row * p.classes;
            const double scale = result.exp_scale[0];
            if (scale != scale)
                std::fill(out, out + p.classes, S(kNaN));
            else if (keep)
                write_gradient<Coefficients::single>(e, row, 0, {scale, 0.0, 0.0, sums.max, false});
            else
                for_blocks(row, 0, [&](const Block<T>& block, std::size_t at) {
                    write_block_log_softmax(arrays.logits + at, block.count, arrays.matrix + at, sums.max,
                                            exp_sum_without_max);
                });
        }
        return result.lse[0];
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

    // Adds to the sums of a row, which are those of the shared coefficients, what the target has more, b, and its m -
    // u; and finds the class of a unique maximum.
    void add_target(PartialSums& sums, const S* z, std::size_t row, std::size_t target, double b,
                    double gap_of_target) const {
        const double gap = sums.weighted_gap.total();
        if (!(gap - gap == 0.0)) {
            sums.weighted_gap = {};
            for_blocks(row, std::int64_t(target), [&](const Block<T>& block, std::size_t) {
                sums.weighted_gap.add(weighted_gap_in_double(p, block, z + block.first, sums.max));
            });
        } else if (b != 0.0) {
            sums.weighted_gap.add(b * gap_of_target);
        }
        sums.b_below_max = {p.shared.sum, p.shared.sum_error};
        sums.b_at_max = {};
        std::size_t highest = p.classes;
        if (sums.unique) {
            std::size_t of_max = 0;
            while (of_max + 1 < blocks && sums_of_blocks[of_max].max != sums.max) ++of_max;
            const std::size_t first = of_max * std::size_t(kBlock<T>);
            const int count = int(std::min(p.classes - first, std::size_t(kBlock<T>)));
            highest = first + class_equal_to(z + first, T(sums.max), count);
            sums.class_of_max = highest;
            sums.b_at_max = {shared_of(highest)};
            sums.b_below_max.add(-shared_of(highest));
        }
        (highest == target ? sums.b_at_max : sums.b_below_max).add(b);
    }

    PartialSums row_sums_of(const S* z, T* e, std::size_t row, std::int64_t target) const {
        if constexpr (mode == Mode::plain || mode == Mode::scaled)
            if (has_shared()) return row_sums<Coefficients::shared>(z, e, row, target);
        if constexpr (mode != Mode::capped)
            if (p.dense()) return row_sums<Coefficients::dense>(z, e, row, target);
        return row_sums<Coefficients::single>(z, e, row, target);
    }
    void write_gradient_of(const T* e, std::size_t row, std::int64_t target, const GradientScales& scales) const {
        if constexpr (mode == Mode::plain || mode == Mode::scaled)
            if (has_shared()) return write_gradient<Coefficients::shared>(e, row, target, scales);
        if constexpr (mode != Mode::capped)
            if (p.dense()) return write_gradient<Coefficients::dense>(e, row, target, scales);
        write_gradient<Coefficients::single>(e, row, target, scales);
    }

    // The sums of a row of logits z. Its exponentials are stored in e, if that is given.
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
};

CE_END
