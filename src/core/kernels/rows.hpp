// Classes contiguous, one row at a time: the kernel for many classes, and for rows whose classes are split into parts.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "parts.hpp"
#include "remainder.hpp"
#include "row_blocks.hpp"

CE_BEGIN

template <class S, class T, Mode mode>
class RowKernel {
    static constexpr bool scaled = mode != Mode::plain;

    const Problem& p;
    const Arrays<S> arrays;
    const RowBlocks<S, T, mode> blocks;
    // The logits without those that sparse targets name, and those, if the targets leave a remainder.
    S* const masked_row;
    NamedClass* const named_scratch;

 public:
    RowKernel(const Problem& problem, const ParallelFor* parallel, Scratch& scratch)
        : p(problem),
          arrays(problem),
          blocks(problem, parallel, scratch),
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
    // What is known of the target of a row before its logits are read.
    struct Target {
        std::int64_t c;  // its class, from the first of the problem's
        bool held;       // whether the problem has that class
        double weight;   // its class weight, if its coefficient is of it alone
        double z;        // its logit, likewise
    };

    // The loss of a row. Its gradient, and the diagonal of its Hessian, are written if wanted; or what the problem's
    // classes tell of it, if they are some of them.
    double loss(std::size_t row, Outcome& outcome) const {
        const S* z = arrays.logits + row * p.classes;
        const double sample_weight = p.sample_weight != nullptr ? p.sample_weight[row] : 1.0;
        const double* const whole = p.split.whole != nullptr ? p.split.whole + row * kPartFields : nullptr;
        std::int64_t index = 0;
        if (p.indices != nullptr) {
            index = p.indices[row];  // read once: another thread may be writing it
            const bool ignored = p.options.ignore_index == index,
                       outside = std::uint64_t(index) >= p.classes_of_whole();
            if (!ignored && outside) outcome.bad_row = std::min(outcome.bad_row, row);
            if (ignored || outside) return skip(row);
        }
        if (sample_weight == 0.0) return skip(row);

        const bool dense = p.dense(), shared = blocks.has_shared(), single = !dense || shared;
        const Target target = target_of(index - std::int64_t(p.split.first_class), z, whole, single);
        T* const e = arrays.matrix == nullptr   ? nullptr
                     : dense || p.has_entropy() ? blocks.scratch_row()
                                                : blocks.row_for_exponentials(row);
        // Of whole rows that are known, the logits are read again for the gradient alone.
        PartialSums sums;
        if (whole == nullptr || arrays.matrix != nullptr) {
            sums = blocks.row_sums(z, e, row, target.c);
            if (shared) blocks.complete_shared(sums, z, row);
        }
        if (p.split.parts != nullptr) {
            if (shared && target.held)
                add_target(sums, more_of(target), target.z == sums.max && sums.unique, sums.max - target.z);
            write_part(sums, target.weight, target.z, p.split.parts + row * kPartFields);
            return 0.0;
        }
        bool has_max = true;
        if (whole != nullptr) {
            has_max = sums.max == whole[kMax];
            const std::size_t class_of_max = sums.class_of_max;
            sums = read_part(whole);
            sums.class_of_max = class_of_max;
        }
        return loss_of_sums(row, sums, has_max, target, e, sample_weight);
    }

    // `c`: the class, from the first of the problem's. `single`: one class has a coefficient that the others have not.
    Target target_of(std::int64_t c, const S* z, const double* whole, bool single) const {
        const bool held = std::uint64_t(c) < p.classes;
        if (p.indices == nullptr) return {c, held, 1.0, single && held ? double(z[c]) : 0.0};
        if (whole != nullptr) return {c, held, whole[kWeightOfTarget], whole[kLogitOfTarget]};
        if (!held) return {c, held, 0.0, 0.0};
        return {c, held, p.class_weight != nullptr ? p.class_weight[c] : 1.0, single ? double(z[c]) : 0.0};
    }

    // The coefficient of a row's target, if it is a single one, or what it has more than the others.
    double more_of(const Target& target) const {
        if (p.indices == nullptr) return 0.0;
        return target.weight * (blocks.has_shared() ? 1.0 - p.options.label_smoothing : 1.0);
    }

    static void add_target(PartialSums& sums, double b, bool at_max, double gap) {
        if (b != 0.0) sums.weighted_gap.add(b * gap);
        (at_max ? sums.b_at_max : sums.b_below_max).add(b);
    }

    // The loss of a row by its sums. `has_max`: a class of the problem's attains the maximum.
    double loss_of_sums(std::size_t row, PartialSums sums, bool has_max, const Target& target, T* e,
                        double sample_weight) const {
        const S* const z = arrays.logits + row * p.classes;
        const bool dense = p.dense(), shared = blocks.has_shared();
        const double b = more_of(target);
        const double scale = p.gradient_scale * sample_weight * (p.grad_output != nullptr ? p.grad_output[row] : 1.0);
        const f64 z_target = splat<f64>(target.z), highest = splat<f64>(sums.max), u_target = capped(p, z_target);
        bool target_at_max = u_target[0] == sums.max;
        double gap = sums.max - u_target[0];  // m - u of the target
        f64 e_target;
        double slope = 1.0;  // du/dz of the target
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
        if (!dense || (shared && p.split.whole == nullptr))  // a part has it where smoothed targets are dense too
            add_target(sums, b, target_at_max && (sums.unique || !shared), gap);
        RowSums lanes = sums.lanes();
        if constexpr (mode == Mode::capped) lanes.max = capped(p, lanes.max);
        const double entropy_grad = p.entropy_grad_output != nullptr ? p.entropy_grad_output[row] : 0.0;
        const RowResult result = row_result(p, lanes,
                                            {splat<f64>(target.weight), splat<f64>(sample_weight), splat<f64>(scale),
                                             splat<f64>(entropy_grad), e_target});
        write_values(row, result, sums);
        if (arrays.matrix == nullptr) return result.loss[0];
        S* gradient = arrays.matrix + row * p.classes;
        const GradientScales scales = gradient_scales(result, sums.max, sums.unique && has_max);
        if (!(scales.exp - scales.exp == 0.0 && scales.entropy - scales.entropy == 0.0)) {
            fill(row, kNaN);
            return result.loss[0];
        }
        if (arrays.diagonal != nullptr)
            blocks.write_diagonal(e, row, target.c, scales,
                                  {result.max_probability[0], result.z_curvature[0] * p.inverse_temperature,
                                   sums.exp_sum_without_max.total()});
        double at_max = scales.at_max - scales.entropy * scales.mean_gap;
        if (dense && scales.unique && mode == Mode::general)  // before the logits may be overwritten
            at_max *= capped_slope(p, splat<f64>(double(z[sums.class_of_max])))[0];
        blocks.write_gradient(e, row, target.c, scales);
        if (dense && scales.unique) gradient[sums.class_of_max] = S(at_max);
        if (target.held && (!dense || (shared && !(target_at_max && scales.unique)))) {
            double g =
                scales.exp * e_target[0] - scales.target * (shared ? b + blocks.shared_of(std::size_t(target.c)) : b);
            if (target_at_max && scales.unique) g = scales.at_max;
            if (scales.entropy != 0.0 && e_target[0] != 0.0) g += e_target[0] * entropy_scale(p, scales, u_target)[0];
            gradient[target.c] = S(g * slope);
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
        T* const e = arrays.matrix == nullptr ? nullptr : blocks.scratch_row();
        const PartialSums sums = blocks.row_sums(masked_row, e, row, 0);
        const RemainderResult result = remainder_result<mode>(p, named, sums, p.remainder[row]);
        if (arrays.matrix != nullptr) {
            const GradientScales scales{scale * result.exp_scale * p.inverse_temperature, 0.0, 0.0, sums.max, false};
            if (!(scales.exp - scales.exp == 0.0)) {
                fill(row, kNaN);
            } else {
                blocks.write_gradient(e, row, 0, scales);
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
        if (p.split.parts != nullptr) write_part(no_sums(), 0.0, 0.0, p.split.parts + row * kPartFields);
        arrays.skip_row(p, row);
        if (arrays.matrix != nullptr) fill(row, 0.0);
        return 0.0;
    }

    GradientScales gradient_scales(const RowResult& result, double max, bool unique) const {
        return {result.exp_scale[0] * p.inverse_temperature,
                result.target_scale[0] * p.inverse_temperature,
                result.gradient_at_max[0] * p.inverse_temperature,
                max,
                unique,
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

    // The log-sum-exp of a row. Its softmax or log-softmax is written if wanted.
    double softmax(std::size_t row) const {
        const bool keep = arrays.matrix != nullptr && p.output == Output::softmax;
        T* const e = keep ? blocks.row_for_exponentials(row) : nullptr;
        PartialSums sums = blocks.row_sums(arrays.logits + row * p.classes, e, row, 0);
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
                blocks.write_gradient(e, row, 0, {scale, 0.0, 0.0, sums.max, false});
            else
                blocks.for_blocks(row, 0, [&](const Block<T>& block, std::size_t at) {
                    write_block_log_softmax(arrays.logits + at, block.count, arrays.matrix + at, sums.max,
                                            exp_sum_without_max);
                });
        }
        return result.lse[0];
    }
};

CE_END
