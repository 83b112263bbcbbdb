// A whole problem: targets checked, rows shared among threads, losses added up.
#pragma once

#include <string>

#include "problem.hpp"

namespace crossentropy {

struct Evaluation {
    double loss = 0.0;             // the reduced loss (for Reduction::none, the sum)
    double total_weight = 0.0;     // what the mean divides by: 0 if no row counts, NaN if weights cancel to 0
    std::size_t bad_row = kNoRow;  // first row whose class index is out of range
};

// The total weight of the rows that count, and the first of them whose class index is out of range.
Evaluation check_targets(const Problem& problem);

// The message of an error: what is wrong with a row whose class index is out of range.
std::string bad_index_message(const Problem& problem, std::size_t row);
std::string bad_index_message(const Problem& problem, std::size_t row, std::int64_t index);

// Fills problem.matrix, problem.diagonal and problem.row_values. A class index out of range is found before anything is
// written (unless another thread changes the targets meanwhile). For Reduction::mean the gradient is that of the mean.
Evaluation evaluate(Problem problem, int threads);

// Joins what `count` parts tell of each row, in order: of the first part all rows, then of the next. What is joined may
// be joined again. Of the problem the rows count, and what decides how logits become exponentials.
void join_parts(Problem problem, const double* parts, std::size_t count, double* whole);

// Asks for huge pages inside a large output, since fresh small pages cost more than the kernel that fills them.
void advise_huge_pages(void* data, std::size_t bytes);

}  // namespace crossentropy
