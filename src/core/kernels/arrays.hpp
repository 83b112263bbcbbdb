// The arrays of a problem by the type S of their elements.
#pragma once

#include "../problem.hpp"
#include "storage.hpp"

CE_BEGIN

template <class S>
struct Arrays {
    const S* const logits;
    S* const matrix;
    S* const diagonal;
    RowValue<S>*const row_values, *const entropies, *const log_probabilities;

    explicit Arrays(const Problem& p)
        : logits(static_cast<const S*>(p.logits)),
          matrix(static_cast<S*>(p.matrix)),
          diagonal(static_cast<S*>(p.diagonal)),
          row_values(static_cast<RowValue<S>*>(p.row_values)),
          entropies(static_cast<RowValue<S>*>(p.entropies)),
          log_probabilities(static_cast<RowValue<S>*>(p.log_probabilities)) {}

    // Beside its loss and its gradient, what a row that counts writes. `u(c)`: the (capped) logit of a class.
    template <class Logit>
    void write_row(const Problem& p, std::size_t row, double entropy, double max, double lse_minus_max,
                   const Logit& u) const {
        if (entropies != nullptr) entropies[row] = RowValue<S>(entropy);
        if (log_probabilities == nullptr) return;
        for (std::size_t j = row * p.k; j < (row + 1) * p.k; ++j) {
            const std::size_t c = std::size_t(p.sparse_indices[j]);  // read once: another thread may be writing it
            const double gap = c < p.classes ? (max - u(c)) * p.inverse_temperature + lse_minus_max : 0.0;
            log_probabilities[j] = RowValue<S>(entropy == entropy ? 0.0 - gap : kNaN);
        }
    }
    // And one that does not.
    void skip_row(const Problem& p, std::size_t row) const {
        if (entropies != nullptr) entropies[row] = RowValue<S>(0);
        if (log_probabilities != nullptr)
            std::fill(log_probabilities + row * p.k, log_probabilities + (row + 1) * p.k, RowValue<S>(0));
    }
};

CE_END
