// fuzz SECONDS: generated problems, one after another, for sanitizers to watch. Each is computed twice, by one thread
// and by several, and must come out the same; then once with a class index out of range, which must be reported. Rows
// of class indices are also cut into parts, each of which must find the same losses.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

#include "dispatch.hpp"
#include "problems.hpp"

using namespace crossentropy;

namespace {

[[noreturn]] void fail(const char* what, int problem) {
    std::fprintf(stderr, "problem %d: %s\n", problem, what);
    std::exit(1);
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// The classes [first, end) of a problem with class indices, in arrays that are no longer than they must be.
template <class S>
struct Part {
    Problem p;
    std::vector<S> logits, gradient;
    std::vector<double> class_weight, sums, whole;
    std::vector<double> losses;  // room for float32 too

    Part(const Problem& of, std::size_t first, std::size_t end) : p(of) {
        p.options.reduction = Reduction::none;
        p.classes = end - first;
        p.split.classes = of.classes;
        p.split.first_class = first;
        p.split.entropy = of.entropies != nullptr;
        p.diagonal = p.entropies = p.log_probabilities = nullptr;
        p.entropy_grad_output = nullptr;
        p.sparse_indices = nullptr;
        const S* const z = static_cast<const S*>(of.logits);
        for (std::size_t row = 0; row < p.rows; ++row)
            logits.insert(logits.end(), z + row * of.classes + first, z + row * of.classes + end);
        if (of.class_weight != nullptr) class_weight.assign(of.class_weight + first, of.class_weight + end);
        gradient.resize(logits.size());
        sums.resize(p.rows * kPartFields);
        losses.resize(p.rows);
    }
    void point() {
        p.logits = logits.data();
        p.class_weight = p.class_weight != nullptr ? class_weight.data() : nullptr;
    }
};

template <class S>
bool parts_agree(Random& random, const Problem& of) {
    std::vector<std::size_t> cuts{0, of.classes};
    for (std::uint64_t i = random.below(4); i > 0; --i) cuts.push_back(random.below(of.classes + 1));
    std::sort(cuts.begin(), cuts.end());
    std::vector<Part<S>> parts;
    std::vector<double> sums;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        Part<S>& part = parts.emplace_back(of, cuts[i], cuts[i + 1]);
        part.point();
        part.p.matrix = part.p.row_values = nullptr;
        part.p.split.parts = part.sums.data();
        evaluate(part.p, 1);
        sums.insert(sums.end(), part.sums.begin(), part.sums.end());
    }
    for (Part<S>& part : parts) {
        part.whole.resize(part.sums.size());
        join_parts(part.p, sums.data(), parts.size(), part.whole.data());
        part.p.split.parts = nullptr;
        part.p.split.whole = part.whole.data();
        part.p.matrix = part.gradient.data();
        part.p.row_values = part.losses.data();
        evaluate(part.p, 1 + int(random.below(3)));
        if (!same(part.losses, parts[0].losses)) return false;
    }
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(argc > 1 ? std::atoi(argv[1]) : 20);
    Random random;
    int count = 0;
    for (; std::chrono::steady_clock::now() < end; ++count) {
        if (random.below(3) == 0) {
            generate_divergence(random, [&](auto& problem) {
                auto again = problem;  // its own pointers lead to the first's arrays
                const double one = evaluate_divergence(problem.p, 1);
                const auto written = problem;
                problem.first = again.first;
                problem.second = again.second;
                const double many = evaluate_divergence(problem.p, 2 + int(random.below(4)));
                if (std::memcmp(&one, &many, sizeof one) != 0) fail("another divergence with more threads", count);
                if (!same(written.first, problem.first) || !same(written.second, problem.second) ||
                    !same(written.dfirst, problem.dfirst) || !same(written.dsecond, problem.dsecond) ||
                    !same(written.values, problem.values))
                    fail("another output of a divergence with more threads", count);
                const bool positive =
                    std::all_of(problem.values.begin(), problem.values.end(), [](auto value) { return !(value < 0); });
                if (!positive) fail("a divergence below 0", count);
            });
            continue;
        }
        if (random.below(4) == 0) {
            generate_binary(random, [&](auto& problem) {
                const auto logits = problem.logits;
                const double one = evaluate(problem.p, 1);
                const auto written = problem.logits, dlogits = problem.dlogits;
                const auto losses = problem.losses;
                problem.logits = logits;
                const double many = evaluate(problem.p, 2 + int(random.below(4)));
                if (std::memcmp(&one, &many, sizeof one) != 0) fail("another binary loss with more threads", count);
                if (!same(written, problem.logits) || !same(dlogits, problem.dlogits) || !same(losses, problem.losses))
                    fail("another output of a binary loss with more threads", count);
            });
            continue;
        }
        const std::size_t most_rows = random.below(10) == 0 ? 3000 : 70;
        generate(random, most_rows, [&](auto& problem) {
            const auto logits = problem.logits;
            const Evaluation one = evaluate(problem.p, 1);
            const auto matrix = problem.matrix, diagonal = problem.diagonal, written = problem.logits;
            const auto values = problem.values, entropies = problem.entropies, log_p = problem.log_probabilities;
            problem.logits = logits;
            const Evaluation many = evaluate(problem.p, 2 + int(random.below(4)));
            if (std::memcmp(&one.loss, &many.loss, sizeof one.loss) != 0) fail("another loss with more threads", count);
            if (!same(matrix, problem.matrix) || !same(diagonal, problem.diagonal) || !same(written, problem.logits) ||
                !same(values, problem.values) || !same(entropies, problem.entropies) ||
                !same(log_p, problem.log_probabilities))
                fail("another output with more threads", count);
            if (problem.p.indices == nullptr || problem.p.rows == 0) return;
            using S = typename std::remove_reference_t<decltype(problem.logits)>::value_type;
            if (problem.p.class_stride == 1 && !parts_agree<S>(random, problem.p))
                fail("another loss from another part", count);
            const std::size_t row = random.below(problem.p.rows);
            const std::int64_t bad[] = {-1, std::int64_t(problem.p.classes), INT64_MAX, INT64_MIN};
            problem.indices[row] = bad[random.below(4)];
            if (evaluate(problem.p, 2).bad_row != row) fail("a bad class index went unnoticed", count);
        });
    }
    std::printf("%-8s %d problems\n", kernels().name, count);
}
