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
    RowValue<S>* const row_values;

    explicit Arrays(const Problem& p)
        : logits(static_cast<const S*>(p.logits)),
          matrix(static_cast<S*>(p.matrix)),
          diagonal(static_cast<S*>(p.diagonal)),
          row_values(static_cast<RowValue<S>*>(p.row_values)) {}
};

CE_END
