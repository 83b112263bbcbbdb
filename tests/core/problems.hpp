// Generated problems: the same on every machine, from integer arithmetic alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "binary.hpp"
#include "divergence.hpp"
#include "evaluate.hpp"

namespace crossentropy {

struct Random {  // splitmix64
    std::uint64_t state = 2026;
    std::uint64_t bits() {
        std::uint64_t x = state += 0x9e3779b97f4a7c15;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
        x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
        return x ^ (x >> 31);
    }
    std::uint64_t below(std::uint64_t n) { return bits() % n; }
    double uniform() { return double(bits() >> 11) * 0x1p-53; }
    // Roughly normal: logits of a model.
    double normal() { return 2.0 * (uniform() + uniform() + uniform() - 1.5); }
};

// Half precision as the core has it in memory: a number's leading digits, the others cut off.
template <int exponent_bits, int mantissa_bits>
struct Half {
    std::uint16_t bits = 0;
    Half() = default;
    explicit Half(double x) {
        constexpr int bias = (1 << (exponent_bits - 1)) - 1, infinity = ((1 << exponent_bits) - 1) << mantissa_bits;
        int exponent = 0;
        const double size = std::abs(x), fraction = 2.0 * std::frexp(size, &exponent) - 1.0;
        exponent += bias - 1;
        unsigned number = 0;
        if (!(size - size == 0.0) || exponent >= 2 * bias + 1)
            number = unsigned(infinity) + (x != x ? 1u << (mantissa_bits - 1) : 0u);
        else if (exponent > 0)
            number = (unsigned(exponent) << mantissa_bits) + unsigned(fraction * (1 << mantissa_bits));
        bits = std::uint16_t(number | (std::signbit(x) ? 0x8000u : 0u));
    }
};
using float16 = Half<5, 10>;
using bfloat16 = Half<8, 7>;

// Logits of type S with targets, weights and options, in arrays that are no longer than they must be.
template <class S>
struct Generated {
    using RowValue = std::conditional_t<sizeof(S) == 8, double, float>;

    Problem p;
    std::vector<S> logits, matrix, diagonal;
    std::vector<RowValue> values, entropies, log_probabilities;
    std::vector<std::int64_t> indices, sparse_indices;
    std::vector<double> sparse_probabilities, remainder, class_weight, sample_weight, grad_output, entropy_grad_output;
    std::vector<RowValue> own_probabilities;   // of the type that logits are computed in
    std::vector<unsigned char> probabilities;  // of some other type

    Generated(Random& random, ElementType type, std::size_t most_rows) {
        std::size_t rows = random.below(most_rows);
        std::size_t classes = 1 + (random.below(20) == 0 ? random.below(9000) : random.below(300));
        rows = std::min<std::size_t>(rows, 100000 / classes);
        if (random.below(100) == 0) {  // long enough for threads to share it
            rows = 1;
            classes = (1 << 19) + random.below(9000);
        }
        const bool in_parts = random.below(40) == 0;  // more classes than a tile holds
        if (in_parts) {
            rows = 2;
            classes = (1 << 15) + random.below(2000);
        }
        const double widths[] = {0.01, 1.0, 10.0, 1000.0};
        const double width = widths[random.below(4)];
        logits.resize(rows * classes);
        matrix.resize(rows * classes);
        values.resize(rows);
        for (S& z : logits) {
            z = S(width * random.normal());
            const std::uint64_t special = random.below(500);
            if (special == 0) z = S(-kInf);
            if (special == 1 && random.below(20) == 0) z = S(random.below(2) ? kInf : kNaN);
        }
        for (std::size_t i = 0; i < rows; ++i) {
            indices.push_back(random.below(8) == 0 ? -100 : std::int64_t(random.below(classes)));
            sample_weight.push_back(random.below(5) == 0 ? 0.0 : random.uniform());
            grad_output.push_back(random.normal() * (random.below(30) == 0 ? 1e40 : 1.0));
        }
        const bool extreme = random.below(10) == 0;
        for (std::size_t c = 0; c < classes; ++c) class_weight.push_back(random.uniform() * (extreme ? 1e30 : 1.0));

        p.rows = rows;
        p.classes = classes;
        if (rows > 1 && (in_parts || random.below(3) == 0))  // the class axis in the middle
            for (p.class_stride = 1 + random.below(rows); rows % p.class_stride != 0;) --p.class_stride;
        p.type = type;
        p.logits = logits.data();
        p.matrix = random.below(5) == 0 ? nullptr : random.below(4) == 0 ? logits.data() : matrix.data();
        p.row_values = values.data();
        const std::uint64_t targets = random.below(6);
        if (targets == 0) {
            p.output = random.below(2) ? Output::softmax : Output::log_softmax;
            return;
        }
        if (targets == 1) {
            for (std::size_t i = 0; i < rows * classes; ++i)
                own_probabilities.push_back(RowValue(random.uniform() - (random.below(20000) == 0 ? 1.0 : 0.0)));
            p.probabilities = own_probabilities.data();
            p.probabilities_type = sizeof(RowValue) == 8 ? ElementType::float64 : ElementType::float32;
        } else if (targets == 2) {
            constexpr std::size_t sizes[] = {4, 8, 2, 2, 1, 2, 4, 8, 1, 2, 4, 8};
            p.probabilities_type = ElementType(random.below(12));
            probabilities.resize(rows * classes * sizes[int(p.probabilities_type)]);
            for (unsigned char& byte : probabilities) byte = (unsigned char)(random.below(64));
            p.probabilities = probabilities.data();
        } else if (targets == 3) {
            p.k = random.below(9);
            for (std::size_t i = 0; i < rows * p.k; ++i) {
                sparse_indices.push_back(std::int64_t(random.below(classes)));
                sparse_probabilities.push_back(random.uniform());
            }
            sparse_indices.reserve(1);
            p.sparse_indices = sparse_indices.data();
            sparse_probabilities.reserve(1);
            p.probabilities = sparse_probabilities.data();
        } else {
            p.indices = indices.data();
            p.options.ignore_index = -100;
        }
        if (random.below(3) == 0) p.class_weight = class_weight.data();
        if (random.below(3) == 0) p.sample_weight = sample_weight.data();
        if (random.below(3) == 0) p.grad_output = grad_output.data();
        if (random.below(3) == 0) p.options.label_smoothing = 0.1;
        if (random.below(3) == 0) p.options.z_loss = 0.001;
        if (random.below(3) == 0) p.options.softcap = 30.0;
        if (random.below(3) == 0) p.options.temperature = 0.7;
        if (random.below(3) == 0) p.options.entropy_bonus = 0.1;
        if (random.below(3) == 0 && p.has_single_targets()) p.options.focal_gamma = 2.0;
        if (random.below(2) == 0) {
            entropies.resize(rows);
            p.entropies = entropies.data();
        }
        if (random.below(3) == 0) {
            for (std::size_t i = 0; i < rows; ++i) entropy_grad_output.push_back(random.normal());
            p.entropy_grad_output = entropy_grad_output.data();
        }
        if (p.sparse_indices != nullptr) {
            if (random.below(2) == 0) {
                log_probabilities.resize(rows * p.k);
                log_probabilities.reserve(1);
                p.log_probabilities = log_probabilities.data();
                if (random.below(2) == 0) {
                    p.probabilities = nullptr;
                    p.options.label_smoothing = 0.0;
                }
            } else if (p.class_stride == 1 && random.below(2) == 0) {
                for (std::size_t i = 0; i < rows; ++i) remainder.push_back(random.uniform());
                remainder.reserve(1);
                p.remainder = remainder.data();
                p.entropies = nullptr;
                p.entropy_grad_output = nullptr;
                p.options.label_smoothing = p.options.entropy_bonus = 0.0;
                p.class_weight = nullptr;
            }
            for (std::int64_t& c : sparse_indices)
                if (p.remainder != nullptr || p.log_probabilities != nullptr)
                    if (random.below(10) == 0) c = -1;
        }
        p.options.reduction = Reduction(int(random.below(3)));
        if (p.matrix != nullptr && p.remainder == nullptr && (p.indices != nullptr || p.probabilities != nullptr) &&
            random.below(3) == 0) {
            diagonal.resize(rows * classes);
            diagonal.reserve(1);
            p.diagonal = diagonal.data();
        }
    }
};

// Logits of types A and B of two models, and where their gradients go.
template <class A, class B>
struct GeneratedDivergence {
    using RowValue = std::conditional_t<sizeof(A) == 8 || sizeof(B) == 8, double, float>;

    DivergenceProblem p;
    std::vector<A> first, dfirst;
    std::vector<B> second, dsecond;
    std::vector<RowValue> values;
    std::vector<double> sample_weight, grad_output;

    GeneratedDivergence(Random& random, ElementType a, ElementType b) {
        const std::size_t classes = 1 + (random.below(20) == 0 ? random.below(9000) : random.below(300));
        const std::size_t rows = std::min<std::size_t>(random.below(70), 100000 / classes);
        const double widths[] = {0.01, 1.0, 10.0, 1000.0}, distances[] = {0.0, 1e-8, 1e-3, 1.0, 1e39};
        const double width = widths[random.below(4)], distance = distances[random.below(5)];
        for (std::size_t i = 0; i < rows * classes; ++i) {
            const double z = width * random.normal();
            const std::uint64_t special = random.below(2000);
            first.push_back(A(special == 0 ? -kInf : special == 1 && random.below(20) == 0 ? kNaN : z));
            second.push_back(B(random.below(1000) == 0 ? -kInf : z + distance * random.normal()));
        }
        for (std::size_t i = 0; i < rows; ++i) {
            sample_weight.push_back(random.below(5) == 0 ? 0.0 : random.uniform());
            grad_output.push_back(random.normal() * (random.below(30) == 0 ? 1e40 : 1.0));
        }
        dfirst.resize(rows * classes);
        dsecond.resize(rows * classes);
        values.resize(rows);
        p.rows = p.first.rows = p.second.rows = rows;
        p.classes = p.first.classes = p.second.classes = classes;
        p.first.type = a;
        p.second.type = b;
        p.first.logits = first.data();
        p.second.logits = second.data();
        p.first.matrix = random.below(3) == 0 ? nullptr : random.below(3) == 0 ? first.data() : dfirst.data();
        p.second.matrix = random.below(3) == 0 ? nullptr : random.below(3) == 0 ? second.data() : dsecond.data();
        p.row_values = values.data();
        p.jensen_shannon = random.below(3) == 0;
        p.beta = 0.001 + 0.998 * random.uniform();
        if (random.below(4) == 0) p.first.options.softcap = 30.0;
        if (random.below(4) == 0) p.second.options.softcap = random.below(2) ? 30.0 : 5.0;
        if (random.below(3) == 0) p.first.options.temperature = p.second.options.temperature = 0.7;
        if (random.below(3) == 0) p.sample_weight = sample_weight.data();
        if (random.below(3) == 0) p.grad_output = grad_output.data();
        p.reduction = Reduction(int(random.below(3)));
    }

    // visit(array) for each that a call may have written.
    template <class Visit>
    void for_written(const Visit& visit) {
        visit(first);
        visit(second);
        visit(dfirst);
        visit(dsecond);
        visit(values);
    }
};

// visit(problem) for a generated pair of models, of any two types of logits.
template <class Visit>
void generate_divergence(Random& random, const Visit& visit) {
    const auto with_type = [&](const auto& go) {
        switch (random.below(4)) {
            case 0:
                return go(float(), ElementType::float32);
            case 1:
                return go(double(), ElementType::float64);
            case 2:
                return go(float16(), ElementType::float16);
            default:
                return go(bfloat16(), ElementType::bfloat16);
        }
    };
    with_type([&](auto a, ElementType type_a) {
        with_type([&](auto b, ElementType type_b) {
            GeneratedDivergence<decltype(a), decltype(b)> problem(random, type_a, type_b);
            visit(problem);
        });
    });
}

// Logits of type S with binary targets and weights, in arrays that are no longer than they must be.
template <class S>
struct GeneratedBinary {
    using RowValue = std::conditional_t<sizeof(S) == 8, double, float>;

    BinaryProblem p;
    std::vector<S> logits, dlogits;
    std::vector<RowValue> losses;
    std::vector<unsigned char> targets;
    std::vector<double> pos_weight, grad_output;
    std::vector<float> sample_weight;

    GeneratedBinary(Random& random, ElementType type) {
        const std::size_t period = 1 + random.below(40), repeat = random.below(2) ? 1 : 1 + random.below(400);
        const std::size_t times = random.below(random.below(20) == 0 ? 200 : 9);
        const std::size_t count = period * repeat * times;
        const double widths[] = {0.01, 1.0, 10.0, 1000.0};
        const double width = widths[random.below(4)];
        for (std::size_t i = 0; i < count; ++i) {
            const std::uint64_t special = random.below(500);
            logits.push_back(S(special == 0   ? kInf
                               : special == 1 ? -kInf
                               : special == 2 ? kNaN
                                              : width * random.normal()));
            grad_output.push_back(random.normal() * (random.below(30) == 0 ? 1e40 : 1.0));
        }
        p.targets_type = ElementType(random.below(12));
        const bool real = p.targets_type == ElementType::float32;
        targets.resize(count * kElementSize[int(p.targets_type)]);
        for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = (unsigned char)(random.below(2));
        for (std::size_t i = 0; real && i < count; ++i) {
            const float y = random.below(1000) == 0 ? float(kInf) : float(random.uniform());
            std::memcpy(targets.data() + i * sizeof y, &y, sizeof y);
        }
        const bool extreme = random.below(10) == 0;
        for (std::size_t i = 0; i < period; ++i) {
            pos_weight.push_back(random.uniform() * (extreme ? 1e30 : 1.0));
            sample_weight.push_back(random.below(5) == 0 ? 0.0f : float(random.uniform()));
        }
        dlogits.resize(count);
        losses.resize(count);
        p.count = count;
        p.type = type;
        p.logits = logits.data();
        p.targets = targets.data();
        if (random.below(3) == 0) p.pos_weight = {pos_weight.data(), ElementType::float64, repeat, period};
        if (random.below(3) == 0) p.sample_weight = {sample_weight.data(), ElementType::float32, repeat, period};
        if (random.below(3) == 0) p.grad_output = grad_output.data();
        if (random.below(3) == 0) p.label_smoothing = 0.1;
        if (random.below(4) == 0) p.focal_gamma = random.below(2) ? 2.0 : 0.5;
        p.gradient_scale = random.below(20) == 0 ? 1e-30 : 1.0;
        p.reduction = Reduction(int(random.below(3)));
        p.dlogits = random.below(5) == 0 ? nullptr : random.below(4) == 0 ? logits.data() : dlogits.data();
        if (random.below(2)) p.losses = losses.data();
    }
};

// visit(problem) for a generated problem of any type of logits.
template <class Visit>
void generate_binary(Random& random, const Visit& visit) {
    const auto visit_type = [&](auto element, ElementType type) {
        GeneratedBinary<decltype(element)> problem(random, type);
        visit(problem);
    };
    switch (random.below(4)) {
        case 0:
            return visit_type(float(), ElementType::float32);
        case 1:
            return visit_type(double(), ElementType::float64);
        case 2:
            return visit_type(float16(), ElementType::float16);
        default:
            return visit_type(bfloat16(), ElementType::bfloat16);
    }
}

// visit(problem, type) for a generated problem of any type of logits.
template <class Visit>
void generate(Random& random, std::size_t most_rows, const Visit& visit) {
    const auto visit_type = [&](auto element, ElementType type) {
        Generated<decltype(element)> problem(random, type, most_rows);
        visit(problem);
    };
    switch (random.below(4)) {
        case 0:
            visit_type(float(), ElementType::float32);
            break;
        case 1:
            visit_type(double(), ElementType::float64);
            break;
        case 2:
            visit_type(float16(), ElementType::float16);
            break;
        default:
            visit_type(bfloat16(), ElementType::bfloat16);
            break;
    }
}

}  // namespace crossentropy
