#include "binary.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "dispatch.hpp"
#include "evaluate.hpp"
#include "kernels/compensated.hpp"
#include "parallel.hpp"

namespace crossentropy {

using baseline::CompensatedSum;  // compiled for any CPU, as this file is

// How many elements one task takes. It does not depend on the number of threads, so that losses are added in one order.
constexpr std::size_t kBinaryBlock = std::size_t(1) << 14;

// The sum of task(begin, end) over the blocks of `count` elements, in order.
template <class Task>
static double sum_of_blocks(std::size_t count, int threads, const Task& task) {
    const std::size_t blocks = (count + kBinaryBlock - 1) / kBinaryBlock;
    std::vector<double> sums(blocks);
    parallel_for(blocks, useful_threads(count, threads), [&](std::size_t i, int) {
        sums[i] = task(i * kBinaryBlock, std::min(count, (i + 1) * kBinaryBlock));
    });
    CompensatedSum total;
    for (const double sum : sums) total.add(sum);
    return total.total();
}

template <class W>
static bool any_extreme(const void* data, std::size_t count) {
    const W* w = static_cast<const W*>(data);
    bool extreme = false;
    for (std::size_t i = 0; i < count; ++i) {
        const W size = std::fabs(w[i]);
        extreme |= (size != 0) & !((size > W(0x1p-60)) & (size < W(0x1p60)));
    }
    return extreme;
}

static bool any_extreme(const ElementWeights& weights) {
    if (weights.data == nullptr) return false;
    return weights.type == ElementType::float32 ? any_extreme<float>(weights.data, weights.period)
                                                : any_extreme<double>(weights.data, weights.period);
}

double evaluate(BinaryProblem p, int threads) {
    const DefaultFloatingPoint guard;
    const BinaryKernels& run = *kernels().binary;
    p.extreme_weights = any_extreme(p.pos_weight);
    const std::size_t bytes = p.count * kLogitSize[int(p.type)];
    double total_weight = double(p.count);
    if (p.reduction == Reduction::mean) {
        const ElementWeights& s = p.sample_weight;
        if (s.data != nullptr && p.count != 0)
            total_weight =
                double(p.count / s.period) * sum_of_blocks(s.period, threads, [&](std::size_t begin, std::size_t end) {
                    return run.sum_weights(s, begin, end);
                });
        if (total_weight == 0.0) {  // nothing to learn from
            if (p.dlogits != nullptr) std::memset(p.dlogits, 0, bytes);
            return 0.0;
        }
        p.gradient_scale /= total_weight;
    }
    advise_huge_pages(p.dlogits, bytes);
    const auto of_elements = run.elements[int(p.type)];
    const double loss =
        sum_of_blocks(p.count, threads, [&](std::size_t begin, std::size_t end) { return of_elements(p, begin, end); });
    return p.reduction == Reduction::mean ? loss / total_weight : loss;
}

}  // namespace crossentropy
