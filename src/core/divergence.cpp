#include "divergence.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

#include "dispatch.hpp"
#include "evaluate.hpp"
#include "kernels/compensated.hpp"
#include "parallel.hpp"
#include "scratch.hpp"

namespace crossentropy {

using baseline::CompensatedSum;  // compiled for any CPU, as this file is

// What the mean divides by: 0 if no row counts, NaN if weights cancel to 0.
static double total_weight(const DivergenceProblem& p) {
    if (p.sample_weight == nullptr) return double(p.rows);
    CompensatedSum total;
    for (std::size_t row = 0; row < p.rows; ++row) total.add(p.sample_weight[row]);
    const bool counts = std::any_of(p.sample_weight, p.sample_weight + p.rows, [](double s) { return s != 0.0; });
    return counts && total.total() == 0.0 ? kNaN : total.total();
}

double evaluate_divergence(DivergenceProblem p, int threads) {
    const DefaultFloatingPoint guard;
    for (Problem* const side : {&p.first, &p.second}) {
        side->inverse_temperature = 1.0 / side->options.temperature;
        side->inverse_temperature_error =
            std::fma(-side->inverse_temperature, side->options.temperature, 1.0) * side->inverse_temperature;
    }
    // The rows of a task depend on the shape of a row alone: losses are added in the same order by any threads.
    const std::size_t step = std::max<std::size_t>(1, (std::size_t(1) << 14) / p.classes);
    const std::size_t tasks = (p.rows + step - 1) / step;
    threads = int(std::min(std::size_t(useful_threads(p.rows * p.classes, threads)), std::max<std::size_t>(tasks, 1)));
    // All memory is taken before anything is written. Each thread's begins a page, as for the loss.
    constexpr std::size_t page = 4096;
    const std::size_t bytes = (kernels().divergence_scratch_bytes(p) + page - 1) / page * page;
    const std::unique_ptr<std::byte[]> memory(new std::byte[bytes * std::size_t(threads) + page]);
    std::byte* const scratch = memory.get() + (page - reinterpret_cast<std::uintptr_t>(memory.get()) % page);
    std::vector<double> sums(tasks);

    const double weight = p.reduction == Reduction::mean ? total_weight(p) : 1.0;
    for (const Problem* const side : {&p.first, &p.second}) {
        const std::size_t size = p.rows * p.classes * kLogitSize[int(side->type)];
        advise_huge_pages(side->matrix, size);
        if (weight == 0.0 && side->matrix != nullptr) std::memset(side->matrix, 0, size);
    }
    if (weight == 0.0) return 0.0;  // nothing to learn from
    p.gradient_scale /= weight;

    parallel_for(tasks, threads, [&](std::size_t i, int thread) {
        sums[i] = kernels().run_divergence(p, i * step, std::min(p.rows, (i + 1) * step),
                                           scratch + bytes * std::size_t(thread));
    });
    CompensatedSum total;
    for (const double sum : sums) total.add(sum);
    return total.total() / weight;
}

}  // namespace crossentropy
