#include "evaluate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

#include "shared.hpp"
#include "dispatch.hpp"
#include "kernels/compensated.hpp"
#include "parallel.hpp"
#include "scratch.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace crossentropy {

using baseline::CompensatedSum;  // compiled for any CPU, as this file is

// How many rows one task takes: some sixteen thousand elements, or one row. More where classes are strided, so that
// each thread stays with the pages that it reads and writes. The number depends on the shape of a row alone, so that
// losses are added in the same order whatever the number of threads. Where rows are computed side by side it is a
// multiple of the rows of every tile.
static std::size_t rows_of_task(const Problem& p) {
    constexpr std::size_t tile = 32;
    const std::size_t classes = std::max<std::size_t>(1, p.classes);  // a part of a row may have none
    const std::size_t rows = (std::size_t(1) << (p.class_stride > 1 ? 18 : 14)) / classes;
    return p.class_stride > 1 || rows >= tile ? std::max<std::size_t>(1, rows / tile) * tile
                                              : std::max<std::size_t>(1, rows);
}

// Whether threads share the blocks of each row, instead of the rows: for a few long rows, too few for each thread to
// get as many.
static bool shares_rows(const Problem& p, int threads) {
    return p.class_stride == 1 && p.classes >= 2 * kElementsPerThread &&
           p.rows < 2 * std::size_t(std::max(threads, 1)) && p.rows % std::size_t(std::max(threads, 1)) != 0;
}

namespace {

// Scratch for each thread of a call.
class ThreadScratch {
 public:
    // Each thread's begins a page, so that a kernel's time does not depend on where memory happens to be: up to a fifth
    // of it did. Aligned by hand: an aligned `new` costs a small call a tenth of its time.
    ThreadScratch(std::size_t bytes, int threads)
        : bytes_((bytes + kPage - 1) / kPage * kPage), data_(new std::byte[bytes_ * std::size_t(threads) + kPage]) {
        const auto address = reinterpret_cast<std::uintptr_t>(data_.get());
        first_ = data_.get() + (kPage - address % kPage);
    }

    void* of(int thread) const { return first_ + bytes_ * std::size_t(thread); }

 private:
    static constexpr std::size_t kPage = 4096;
    static_assert(kPage % Scratch::kAlignment == 0);

    std::size_t bytes_;
    std::unique_ptr<std::byte[]> data_;
    std::byte* first_;
};

}  // namespace

void advise_huge_pages(void* data, std::size_t bytes) {
#if defined(__linux__)
    constexpr std::uintptr_t page = std::uintptr_t(1) << 21;
    if (data == nullptr || bytes < (std::size_t(1) << 22)) return;
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    const std::uintptr_t begin = (address + page - 1) / page * page, end = (address + bytes) / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}

Evaluation check_targets(const Problem& p) {
    const DefaultFloatingPoint guard;
    Evaluation result;
    bool bad = false;
    if (p.indices != nullptr) {
        result.total_weight = double(kernels().count_indices(p, bad));
        if (!bad && ((p.class_weight == nullptr && p.sample_weight == nullptr) || p.is_part())) return result;
    } else {
        result.total_weight = double(p.rows);
        if (p.sample_weight == nullptr) return result;
    }
    if (!bad && p.class_weight == nullptr && result.total_weight == double(p.rows)) {  // every row counts
        result.total_weight = kernels().binary->sum_weights({p.sample_weight}, 0, p.rows);
        const bool counts = std::any_of(p.sample_weight, p.sample_weight + p.rows, [](double s) { return s != 0.0; });
        if (counts && result.total_weight == 0.0) result.total_weight = kNaN;
        return result;
    }
    // In as many sums, and folded, as `sum_weights` does it: a row that does not count changes no bit.
    std::array<CompensatedSum, 16> sums;
    bool counts = false;
    for (std::size_t row = 0; row < p.rows; ++row) {
        double weight = 1.0;
        if (p.indices != nullptr) {
            const std::int64_t target = p.indices[row];
            if (p.options.ignore_index == target) continue;
            if (std::uint64_t(target) >= p.classes_of_whole()) {
                result.bad_row = row;
                return result;
            }
            if (p.class_weight != nullptr && !p.is_part()) weight = p.class_weight[target];
        }
        if (p.sample_weight != nullptr) weight *= p.sample_weight[row];
        counts |= weight != 0.0;
        sums[row % sums.size()].add(weight);
    }
    std::array<double, sums.size()> totals;
    std::transform(sums.begin(), sums.end(), totals.begin(), [](const CompensatedSum& sum) { return sum.total(); });
    for (std::size_t half = totals.size() / 2; half > 0; half /= 2)
        for (std::size_t i = 0; i < half; ++i) totals[i] += totals[i + half];
    result.total_weight = counts && totals[0] == 0.0 ? kNaN : totals[0];
    return result;
}

std::string bad_index_message(const Problem& p, std::size_t row, std::int64_t index) {
    std::string message = "targets: expected class indices in [0, " + std::to_string(p.classes_of_whole()) + ")";
    if (p.options.ignore_index) message += " or ignore_index " + std::to_string(*p.options.ignore_index);
    return message + ", got " + std::to_string(index) + " in row " + std::to_string(row);
}

std::string bad_index_message(const Problem& p, std::size_t row) { return bad_index_message(p, row, p.indices[row]); }

static void set_inverse_temperature(Problem& p) {
    p.inverse_temperature = 1.0 / p.options.temperature;
    p.inverse_temperature_error = std::fma(-p.inverse_temperature, p.options.temperature, 1.0) * p.inverse_temperature;
}

void join_parts(Problem p, const double* parts, std::size_t count, double* whole) {
    const DefaultFloatingPoint guard;
    set_inverse_temperature(p);
    kernels().join_parts(p, parts, count, whole);
}

Evaluation evaluate(Problem p, int threads) {
    const DefaultFloatingPoint guard;
    // Strided classes are counted in 32 bits.
    if (p.class_stride > 1 && p.classes > std::size_t(std::numeric_limits<std::int32_t>::max()))
        throw std::length_error("logits: expected fewer than 2**31 classes on an axis that is not the last, got " +
                                std::to_string(p.classes));
    set_inverse_temperature(p);
    Evaluation result;
    if (p.has_targets()) {
        result = check_targets(p);
        if (result.bad_row != kNoRow) return result;
    }
    if (p.class_weight != nullptr && p.dense())
        p.extreme_weights = std::any_of(p.class_weight, p.class_weight + p.classes, [](double w) {
            return w != 0.0 && !(std::fabs(w) > 0x1p-60 && std::fabs(w) < 0x1p60);
        });
    const SharedSums shared(p);
    const std::size_t step = rows_of_task(p), tasks = (p.rows + step - 1) / step;
    const bool share = shares_rows(p, threads);
    threads = useful_threads(p.rows * p.classes, threads);
    if (!share) threads = int(std::min(std::size_t(threads), std::max<std::size_t>(tasks, 1)));
    // All memory is taken before anything is written.
    std::vector<Outcome> outcomes(tasks);
    const ThreadScratch scratch(kernels().scratch_bytes(p), threads);

    const std::size_t bytes = p.rows * p.classes * kLogitSize[int(p.type)];
    for (void* const out : {p.matrix, p.diagonal}) advise_huge_pages(out, bytes);
    if (p.options.reduction == Reduction::mean) {
        if (result.total_weight == 0.0) {  // nothing to learn from
            for (void* const out : {p.matrix, p.diagonal})
                if (out != nullptr) std::memset(out, 0, bytes);
            return result;
        }
        p.gradient_scale /= result.total_weight;
    }

    const auto run = kernels().run;
    if (share) {
        const ParallelFor parallel = [&](std::size_t count, const std::function<void(std::size_t, void*)>& task) {
            parallel_for(count, useful_threads(p.classes, threads),
                         [&](std::size_t i, int thread) { task(i, scratch.of(thread)); });
        };
        for (std::size_t i = 0; i < tasks; ++i) run(p, i, i + 1, &parallel, scratch.of(0), outcomes[i]);
    } else {
        parallel_for(tasks, threads, [&](std::size_t i, int thread) {
            run(p, i * step, std::min(p.rows, (i + 1) * step), nullptr, scratch.of(thread), outcomes[i]);
        });
    }

    CompensatedSum total;
    for (const Outcome& outcome : outcomes) {
        total.add(outcome.loss);
        result.bad_row = std::min(result.bad_row, outcome.bad_row);
    }
    result.loss = total.total();
    if (p.options.reduction == Reduction::mean) result.loss /= result.total_weight;
    return result;
}

}  // namespace crossentropy
