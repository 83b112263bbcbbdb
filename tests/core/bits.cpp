// Prints one hash of the core's outputs on generated inputs: the same on every CPU with fused multiply-add.
// CROSSENTROPY_ISA names the instruction set.
#include <cstdio>

#include "dispatch.hpp"
#include "problems.hpp"

using namespace crossentropy;

namespace {

struct Hash {  // FNV-1a
    std::uint64_t value = 0xcbf29ce484222325;
    void add(const void* data, std::size_t bytes) {
        const auto* byte = static_cast<const unsigned char*>(data);
        for (std::size_t i = 0; i < bytes; ++i) value = (value ^ byte[i]) * 0x100000001b3;
    }
};

}  // namespace

int main() {
    Random random;
    Hash hash;
    for (int i = 0; i < 2000; ++i)
        generate(random, 40, [&](auto& problem) {
            const Evaluation result = evaluate(problem.p, 1);
            hash.add(&result.loss, sizeof result.loss);
            for (const auto* array : {&problem.logits, &problem.matrix, &problem.diagonal})
                hash.add(array->data(), array->size() * sizeof(*array)[0]);
            for (const auto* array : {&problem.values, &problem.entropies, &problem.log_probabilities})
                hash.add(array->data(), array->size() * sizeof(*array)[0]);
        });
    for (int i = 0; i < 1000; ++i)
        generate_divergence(random, [&](auto& problem) {
            const double result = evaluate_divergence(problem.p, 1);
            hash.add(&result, sizeof result);
            problem.for_written([&](const auto& array) { hash.add(array.data(), array.size() * sizeof array[0]); });
        });
    for (int i = 0; i < 1000; ++i)
        generate_binary(random, [&](auto& problem) {
            const double result = evaluate(problem.p, 1);
            hash.add(&result, sizeof result);
            for (const auto* array : {&problem.logits, &problem.dlogits})
                hash.add(array->data(), array->size() * sizeof(*array)[0]);
            hash.add(problem.losses.data(), problem.losses.size() * sizeof problem.losses[0]);
        });
    std::printf("%-8s %016llx\n", kernels().name, static_cast<unsigned long long>(hash.value));
}
