"""Probabilities given in the place of logits: the one definition of what looks like them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import BFLOAT16, as_logits, rounds_to_nearest
from ._keywords import teaches_keywords


@teaches_keywords()
@rounds_to_nearest  # and warns of no NaN
def looks_like_probabilities(logits: npt.ArrayLike, *, axis: int = -1) -> bool:
    """Tell whether logits are a softmax already: none is negative, and every row sums to 1.

    The loss of probabilities in the place of logits is a wrong number that looks like a right one: the softmax is taken
    twice. `explain` refuses them, and ``crossentropy eval`` warns of them.

    Parameters
    ----------
    logits : array_like, shape (..., C, ...)
        As for `softmax`.
    axis : int
        The class axis.

    Returns
    -------
    bool
        False for a single class, no rows, or a NaN. Sums may be off by 0.001 (of bfloat16 0.004), as rounding
        leaves them.

    Notes
    -----
    The logarithms of probabilities are logits of theirs: ``np.log(p)``. Logits that only look so become others of the
    same softmax by adding 1 to each.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.looks_like_probabilities([[2.0, 1.0, 0.1]])
    False
    >>> ce.looks_like_probabilities(ce.softmax([[2.0, 1.0, 0.1]]))
    True
    """
    z = as_logits(logits, axis)
    if z.classes == 1 or z.rows == 0 or not z.data.min() >= 0:
        return False
    sums = z.data.sum(-1 if z.moved else z.axis, dtype=np.float64)
    allowed = 2.0**-8 if z.type == BFLOAT16 else 1e-3  # each probability of bfloat16 is rounded by up to 2**-9 of it
    return bool((np.abs(sums - 1.0) <= allowed).all())
