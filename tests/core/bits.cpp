// Prints one hash of the core's outputs on generated inputs: the same on every CPU with fused multiply-add.
//
// Inputs come from integer arithmetic alone, so that they are the same on every machine. CROSSENTROPY_ISA names the
// instruction set.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <vector>

#include "dispatch.hpp"
#include "evaluate.hpp"

using namespace crossentropy;

namespace {

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

struct Hash {  // FNV-1a
    std::uint64_t value = 0xcbf29ce484222325;
    void add(const void* data, std::size_t bytes) {
        const auto* byte = static_cast<const unsigned char*>(data);
        for (std::size_t i = 0; i < bytes; ++i) value = (value ^ byte[i]) * 0x100000001b3;
    }
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

template <class S>
void run(Random& random, Hash& hash, ElementType type) {
    using RowValue = std::conditional_t<sizeof(S) == 8, double, float>;
    const std::size_t rows = random.below(40);
    const std::size_t classes = 1 + (random.below(20) == 0 ? random.below(9000) : random.below(300));
    const double widths[] = {0.01, 1.0, 10.0, 1000.0};
    const double width = widths[random.below(4)];
    std::vector<S> logits(rows * classes), matrix(rows * classes);
    std::vector<RowValue> values(rows);
    for (S& z : logits) {
        z = S(width * random.normal());
        const std::uint64_t special = random.below(500);
        if (special == 0) z = S(-kInf);
        if (special == 1 && random.below(20) == 0) z = S(random.below(2) ? kInf : kNaN);
    }
    std::vector<std::int64_t> indices(rows);
    for (std::int64_t& t : indices) t = random.below(8) == 0 ? -100 : std::int64_t(random.below(classes));
    std::vector<float> probabilities(rows * classes);
    for (float& q : probabilities) q = float(random.uniform());
    std::vector<double> class_weight(classes), sample_weight(rows), grad_output(rows);
    for (double& w : class_weight) w = random.uniform();
    for (double& w : sample_weight) w = random.below(5) == 0 ? 0.0 : random.uniform();
    for (double& g : grad_output) g = random.normal() * (random.below(30) == 0 ? 1e40 : 1.0);

    Problem p;
    p.rows = rows;
    p.classes = classes;
    if (rows > 1 && random.below(3) == 0) {  // the class axis in the middle
        for (p.inner = 1 + random.below(rows); rows % p.inner != 0;) --p.inner;
    }
    p.type = type;
    p.logits = logits.data();
    p.matrix = matrix.data();
    p.row_values = values.data();
    const std::uint64_t targets = random.below(4);
    if (targets == 0) {
        p.output = random.below(2) ? Output::softmax : Output::log_softmax;
    } else {
        if (targets == 1) {
            p.probabilities = probabilities.data();
            p.probabilities_type = ElementType::float32;
        } else {
            p.indices = indices.data();
            p.ignore_index = -100;
        }
        if (random.below(3) == 0) p.class_weight = class_weight.data();
        if (random.below(3) == 0) p.sample_weight = sample_weight.data();
        if (random.below(3) == 0) p.grad_output = grad_output.data();
        if (random.below(3) == 0) p.label_smoothing = 0.1;
        if (random.below(3) == 0) p.z_loss = 0.001;
        if (random.below(3) == 0) p.softcap = 30.0;
        if (random.below(3) == 0) p.set_temperature(0.7);
    }
    const auto reduction = targets == 0 ? Reduction::none : Reduction(int(random.below(3)));
    const Evaluation result = evaluate(p, reduction, 1);
    hash.add(&result.loss, sizeof result.loss);
    hash.add(matrix.data(), matrix.size() * sizeof(S));
    hash.add(values.data(), values.size() * sizeof(RowValue));
}

}  // namespace

int main() {
    Random random;
    Hash hash;
    for (int i = 0; i < 2000; ++i) switch (random.below(4)) {
            case 0:
                run<float>(random, hash, ElementType::float32);
                break;
            case 1:
                run<double>(random, hash, ElementType::float64);
                break;
            case 2:
                run<float16>(random, hash, ElementType::float16);
                break;
            default:
                run<bfloat16>(random, hash, ElementType::bfloat16);
                break;
        }
    std::printf("%-8s %016llx\n", kernels().name, static_cast<unsigned long long>(hash.value));
}
