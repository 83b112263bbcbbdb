// The kernels of divergences, compiled once for each instruction set.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "../divergence.hpp"
#include "../scratch.hpp"
#include "divergence_row.hpp"
#include "divergence_terms.hpp"

CE_BEGIN

// A row is looked at four times: for the maxima of both models, for their exponentials, for the divergence, and for the
// gradients. What waits between these lies in scratch, so that the gradients may be written over the logits.
template <class T>
class DivergenceKernel {
    using V = Vector<T>;
    static constexpr bool kInDouble = std::is_same_v<T, double>;

    const DivergenceProblem& p;
    const GroupsOfRow<T> groups;
    const bool difference_of_caps;  // equal soft caps: the difference of capped logits from that of the logits
    T* const copies[2];             // of the logits, where they are not computed with as they lie
    T* const last[2];               // their last groups
    T* const a_row;                 // exponentials, then probabilities
    T* const b_row;                 // the same; for KL then their changes b - a
    T* const delta_row;             // logarithms of the ratios; for KL times a

    bool copied(const Problem& side) const {
        return p.jensen_shannon || side.options.softcap < kInf ||
               side.type != (kInDouble ? ElementType::float64 : ElementType::float32);
    }

 public:
    DivergenceKernel(const DivergenceProblem& problem, Scratch& scratch)
        : p(problem),
          groups(problem.classes),
          difference_of_caps(kInDouble && problem.first.options.softcap < kInf &&
                             problem.first.options.softcap == problem.second.options.softcap),
          copies{scratch.take<T>(copied(problem.first) ? groups.padded() : 0),
                 scratch.take<T>(copied(problem.second) ? groups.padded() : 0)},
          last{scratch.take<T>(kGroup<T>), scratch.take<T>(kGroup<T>)},
          a_row(scratch.take<T>(groups.padded())),
          b_row(scratch.take<T>(groups.padded())),
          delta_row(scratch.take<T>(groups.padded())) {}

    // The divergence of a row that counts. Its gradients are written if wanted, times `scale`. Returns false, with
    // nothing written, where float32 does not hold what it takes.
    bool row(std::size_t row, double scale, double& value) const {
        const RowView<T> za = read(p.first, 0, row), zb = read(p.second, 1, row);
        const Range of_a = range_of(groups, za), of_b = range_of(groups, zb);
        const double max_a = of_a.max, max_b = of_b.max;
        if (!(std::abs(max_a) < kInf && std::abs(max_b) < kInf)) return invalid(row, value);
        // One double holds the difference of the maxima and what log-sum-exp adds to it only so far.
        if (!kInDouble && std::abs(max_b - max_a) > 0x1p30) return false;
        const double r_a = store_exponentials(p.first, groups, za, max_a, a_row);
        const double r_b = store_exponentials(p.second, groups, zb, max_b, b_row);
        if (!(r_a + r_b < kInf)) return invalid(row, value);

        f64 r = splat<f64>(r_a);
        r[1] = r_b;
        const f64 lse = log1p(r);
        const RowShift<T> shift(p.first, max_a, max_b, lse[1] - lse[0]);
        if (difference_of_caps) store_differences_of_caps(row);
        // Differences that may be infinite take more instructions.
        constexpr double largest = double(std::numeric_limits<T>::max()) / 8;
        const bool finite = max_a < largest && max_b < largest && of_a.least > -largest && of_b.least > -largest;
        const auto [sum, excess] = finite ? sums<true>(za, zb, shift, r_a, r_b) : sums<false>(za, zb, shift, r_a, r_b);
        return p.jensen_shannon ? js(row, scale, excess, value) : kl(row, scale, sum, excess, za, zb, value);
    }

 private:
    // The sums over the classes of KL's terms and of the changes b - a. Exponentials become probabilities.
    struct RowSumsOfTerms {
        double value, change;
    };
    template <bool finite>
    RowSumsOfTerms sums(const RowView<T>& za, const RowView<T>& zb, const RowShift<T>& shift, double r_a,
                        double r_b) const {
        const V scale_a = splat<V>(1.0 / (1.0 + r_a)), scale_b = splat<V>(1.0 / (1.0 + r_b));
        LaneSums<T> values, changes;
        // In locals: the compiler cannot tell that what is stored leaves the members as they are.
        const bool js_terms = kInDouble && p.jensen_shannon, from_caps = difference_of_caps;
        const bool keep_change = p.first.matrix != nullptr || p.second.matrix != nullptr || js_terms;
        const bool keep_delta = p.first.matrix != nullptr || js_terms;
        T *const a_of = a_row, *const b_of = b_row, *const delta_of = delta_row;
        groups.for_fours([&](int g, int vector, int count) CE_INLINE_LAMBDA {
            const T *const u_a = za.group(g, groups.whole), *const u_b = zb.group(g, groups.whole);
            const std::size_t first = std::size_t(g) * std::size_t(kGroup<T>);
            V value_of[4] = {}, change_of[4] = {};
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                const int in_group = j * kLanes<T> + vector * kWidth<T>;
                if (in_group >= count) break;
                const std::size_t at = first + std::size_t(in_group);
                Exact<V> difference;
                if (kInDouble && from_caps)
                    difference = {load<V>(delta_of + at), V{}};
                else
                    difference = two_diff(load<V>(u_b + in_group), load<V>(u_a + in_group));
                const V delta = shift.template log_ratio<finite>(difference);
                const V a = load<V>(a_of + at) * scale_a, b = load<V>(b_of + at) * scale_b;
                const KlTerm<V> term = kl_term<finite>(a, b, delta);
                value_of[j] = term.value;
                change_of[j] = term.change;
                if (keep_change) {
                    store(a_of + at, a);
                    store(b_of + at, js_terms ? b : term.change);
                }
                // In lanes that pad the last group delta may be NaN.
                if (keep_delta) store(delta_of + at, js_terms ? select<V>(delta == delta, delta, V{}) : term.a_delta);
            }
            add_four(values, vector * kHalves<T>, value_of);
            add_four(changes, vector * kHalves<T>, change_of);
        });
        return {values.fold(), changes.fold()};
    }

    RowView<T> read(const Problem& side, int i, std::size_t row) const {
        if constexpr (kInDouble)
            if (side.type == ElementType::float64 && copied(side) && !(side.options.softcap < kInf)) {
                const double* const z = static_cast<const double*>(side.logits) + row * p.classes;
                std::fill(std::copy(z, z + p.classes, copies[i]), copies[i] + groups.padded(), -kInf);
                return {copies[i], copies[i] + groups.whole * std::ptrdiff_t(kGroup<T>)};
            }
        return read_row(side, row, groups, copies[i], last[i]);
    }

    bool invalid(std::size_t row, double& value) const {
        fill_row(p.first, row, kNaN);
        fill_row(p.second, row, kNaN);
        value = kNaN;
        return true;
    }

    // tanh x - tanh y = t sech^2(y) / (1 + t tanh y) with t = tanh(x - y): as exact as x - y.
    void store_differences_of_caps(std::size_t row) const {
        if constexpr (kInDouble) {
            const f64 cap = splat<f64>(p.first.options.softcap);
            with_storage<T>(p.first.type, [&](auto* type_a) {
                with_storage<T>(p.second.type, [&](auto* type_b) {
                    using A = std::remove_pointer_t<decltype(type_a)>;
                    using B = std::remove_pointer_t<decltype(type_b)>;
                    const A* const z_a = static_cast<const A*>(p.first.logits) + row * p.classes;
                    const B* const z_b = static_cast<const B*>(p.second.logits) + row * p.classes;
                    for (std::size_t c = 0; c < p.classes; c += std::size_t(kWidth<T>)) {
                        const int n = int(std::min(std::size_t(kWidth<T>), p.classes - c));
                        A a[kWidth<T>];
                        B b[kWidth<T>];
                        std::fill(std::copy(z_a + c, z_a + c + n, a), std::end(a), A(-kInf));
                        std::fill(std::copy(z_b + c, z_b + c + n, b), std::end(b), B(-kInf));
                        const f64 x = load_as<T>(b), y = load_as<T>(a);
                        const f64 t = tanh((x - y) / cap).value;
                        const Tanh at_y = tanh(y / cap);
                        const f64 far = load<f64>(copies[1] + c) - load<f64>(copies[0] + c);
                        const f64 near = cap * t * at_y.slope / (1.0 + t * at_y.value);
                        store(delta_row + c, select<f64>(magnitude(t) <= splat<f64>(0.5), near, far));
                    }
                });
            });
        }
    }

    bool kl(std::size_t row, double scale, double sum, double excess, const RowView<T>& za, const RowView<T>& zb,
            double& value) const {
        const double psi = psi_of_tiny(excess);
        bool infinite = false;  // a class is possible in `a`, not in `b`
        if (!(sum < kInf && std::abs(excess) < kInf)) {
            for (std::size_t c = 0; c < p.classes && !infinite; ++c) {
                const int g = int(c / std::size_t(kGroup<T>)), at = int(c % std::size_t(kGroup<T>));
                infinite =
                    double(zb.group(g, groups.whole)[at]) == -kInf && double(za.group(g, groups.whole)[at]) != -kInf;
            }
            if (!infinite || !(std::abs(excess) < kInf)) return kInDouble ? invalid(row, value) : false;
        }
        value = infinite ? kInf : std::max(0.0, sum - psi);
        if (p.first.matrix == nullptr && p.second.matrix == nullptr) return true;
        if (!(std::abs(scale) < kInf)) {
            const double kept = value;
            invalid(row, value);
            value = kept;
            return true;
        }
        const double scale_u = scale * p.first.inverse_temperature;
        const V minus_excess = splat<V>(-excess), zero{};
        // The gradient in b is b - a, from the change with all constants that rounding has left taken out.
        if (p.second.matrix != nullptr)
            write_row<T>(p.second, row, scale_u / (1.0 + excess), [&](std::size_t c) CE_INLINE_LAMBDA {
                return fma(load<V>(a_row + c), minus_excess, load<V>(b_row + c));
            });
        if (p.first.matrix == nullptr) return true;
        if (infinite) {
            Problem uncapped = p.first;
            uncapped.options.softcap = kInf;
            const V sign = splat<V>(scale > 0.0 ? kInf : -kInf);
            write_row<T>(uncapped, row, 1.0, [&](std::size_t c) CE_INLINE_LAMBDA {
                const V a_delta = load<V>(delta_row + c), a = load<V>(a_row + c);
                const V infinity = select<V>(a_delta - a_delta == 0, -sign, sign);
                const auto none = (a_delta - a_delta == 0) & (a == 0);
                return scale == 0.0 ? zero : select<V>(none, zero, infinity);
            });
            return true;
        }
        const V divergence = splat<V>(value - (excess - psi));
        write_row<T>(p.first, row, scale_u, [&](std::size_t c) CE_INLINE_LAMBDA {
            return zero - fma(load<V>(a_row + c), divergence, load<V>(delta_row + c));
        });
        return true;
    }

    bool js(std::size_t row, double scale, double excess, double& value) const {
        if constexpr (kInDouble) {
            const f64 kappa = splat<f64>(excess - psi_of_tiny(excess));
            T *const a_lambda = copies[0], *const b_lambda = copies[1];
            LaneSums<T> values, lambdas_a, lambdas_b;
            groups.for_fours([&](int g, int vector, int count) {
                f64 of[3][4] = {};
                for (int j = 0; j < 4; ++j) {
                    const int in_group = j * kLanes<T> + vector * kWidth<T>;
                    if (in_group >= count) break;
                    const std::size_t at = std::size_t(g) * std::size_t(kGroup<T>) + std::size_t(in_group);
                    const JsTerm term =
                        js_term(load<V>(a_row + at), load<V>(b_row + at), load<V>(delta_row + at) - kappa, p.beta);
                    of[0][j] = term.value;
                    of[1][j] = term.a_lambda_a;
                    of[2][j] = term.b_lambda_b;
                    store(a_lambda + at, term.a_lambda_a);
                    store(b_lambda + at, term.b_lambda_b);
                }
                add_four(values, vector, of[0]);
                add_four(lambdas_a, vector, of[1]);
                add_four(lambdas_b, vector, of[2]);
            });
            value = values.fold();
            if (!(value < kInf)) return invalid(row, value);
            if (!(std::abs(scale) < kInf)) {
                const double kept = value;
                invalid(row, value);
                value = kept;
                return true;
            }
            const double scale_u = scale * p.first.inverse_temperature;
            const auto write = [&](const Problem& side, double weight, double mean, const T* probabilities,
                                   const T* lambdas) {
                if (side.matrix == nullptr) return;
                const f64 means = splat<f64>(mean);
                write_row<T>(side, row, scale_u * weight, [&](std::size_t c) CE_INLINE_LAMBDA {
                    return fma(load<V>(probabilities + c), means, -load<V>(lambdas + c));
                });
            };
            write(p.first, p.beta, lambdas_a.fold(), a_row, a_lambda);
            write(p.second, 1.0 - p.beta, lambdas_b.fold(), b_row, b_lambda);
            return true;
        }
        (void)row, (void)scale, (void)excess, (void)value;
        return false;
    }
};

double run_divergence(const DivergenceProblem& p, std::size_t begin, std::size_t end, void* memory);
double run_divergence(const DivergenceProblem& p, std::size_t begin, std::size_t end, void* memory) {
    Scratch scratch(memory), scratch_in_double(memory);
    const DivergenceKernel<float> kernel(p, scratch);
    const DivergenceKernel<double> kernel_in_double(p, scratch_in_double);
    CompensatedSum total;
    for (std::size_t row = begin; row < end; ++row) {
        const double weight = p.sample_weight != nullptr ? p.sample_weight[row] : 1.0;
        double value = 0.0;
        if (weight == 0.0) {
            fill_row(p.first, row, 0.0);
            fill_row(p.second, row, 0.0);
        } else {
            const double scale = p.gradient_scale * weight * (p.grad_output != nullptr ? p.grad_output[row] : 1.0);
            if (p.in_double() || !kernel.row(row, scale, value)) kernel_in_double.row(row, scale, value);
            value *= weight;
        }
        if (p.row_values != nullptr) {
            if (p.wide())
                static_cast<double*>(p.row_values)[row] = value;
            else
                static_cast<float*>(p.row_values)[row] = float(value);
        }
        total.add(value);
    }
    return total.total();
}

std::size_t divergence_scratch_bytes(const DivergenceProblem& p);
std::size_t divergence_scratch_bytes(const DivergenceProblem& p) {
    Scratch scratch(nullptr), scratch_in_double(nullptr);
    const DivergenceKernel<float> kernel(p, scratch);
    const DivergenceKernel<double> kernel_in_double(p, scratch_in_double);
    return std::max(scratch.bytes(), scratch_in_double.bytes());
}

CE_END
