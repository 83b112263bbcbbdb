// fuzz SECONDS: generated problems, one after another, for sanitizers to watch. Each is computed twice, by one thread
// and by several, and must come out the same; then once with a class index out of range, which must be reported.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

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
            const std::size_t row = random.below(problem.p.rows);
            const std::int64_t bad[] = {-1, std::int64_t(problem.p.classes), INT64_MAX, INT64_MIN};
            problem.indices[row] = bad[random.below(4)];
            if (evaluate(problem.p, 2).bad_row != row) fail("a bad class index went unnoticed", count);
        });
    }
    std::printf("%-8s %d problems\n", kernels().name, count);
}
