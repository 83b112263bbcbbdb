"""`explain`: every number of the loss of a few rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Array, as_logits
from .._call import Call, has_mean, loss, loss_and_gradient, prepare
from .._keywords import teaches_keywords
from .._options import Reduction, loss_options
from .._softmax import log_softmax
from .._targets import Targets, TopKTargets, as_targets
from .._terms import coefficients, row_terms, row_weights
from ._explanation import Explanation
from ._inputs import (
    class_names,
    column_names,
    refuse_many,
    refuse_other_columns,
    refuse_probabilities,
    without_names,
)

MAX_SHOWN = 36  # of more classes than this, only the TOP likeliest and the targets are shown
TOP = 12


@teaches_keywords()
@np.errstate(all="ignore")  # NaN and infinity are shown, not warned of
def explain(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    names: Sequence[str] | None = None,
    *,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Explanation:
    r"""Show the loss of a few rows step by step: from logits to loss and gradient, with every number.

    Parameters
    ----------
    logits : array_like of float16, bfloat16, float32, float64 or integers, shape (N, C) or (C,)
        At most 32 rows; taken as float64. Of a DataFrame the columns are the classes' names.
    targets : array_like
        Class indices, integers of shape (N,) or (), or where there are names, those; or distributions of the logits'
        shape; or `TopKTargets`.
    names : sequence of str, optional
        A name for each class.
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, softcap, temperature, reduction
        As for `cross_entropy`.

    Returns
    -------
    Explanation

    Raises
    ------
    IndexError
        A class index out of range. Where the indices seem to count from 1, the message says so.
    TypeError
        As `cross_entropy`.
    ValueError
        As `cross_entropy`; also more than 32 rows or 2²² logits, logits that are probabilities already, a target that
        is no name, and DataFrames with different columns.

    See Also
    --------
    cross_entropy_with_grad : loss and gradient alone, of arrays of any size.

    Notes
    -----
    Loss, gradient, softmax, its logarithm and the log-sum-exp are what the library's functions return. The other
    intermediates are computed from the inputs and from these by NumPy. The formulas are those of [1]_.

    References
    ----------
    .. [1] I. Goodfellow, Y. Bengio, A. Courville, *Deep Learning*, MIT Press, 2016, section 6.2.2.

    Examples
    --------
    >>> import crossentropy as ce
    >>> explanation = ce.explain([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], [1, 0], names=["cat", "dog", "bird"])
    >>> explanation.p.round(3)
    array([[0.659, 0.242, 0.099],
           [0.073, 0.487, 0.44 ]])
    >>> explanation.losses.round(3), round(explanation.mean, 3)
    (array([1.417, 2.62 ]), 2.019)
    >>> ce.explain([2.0, 1.0, 0.1], "dog", names=["cat", "dog", "bird"]).targets
    array([1])
    """
    options = loss_options(
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    z = as_logits(logits, -1)
    if z.data.ndim > 2 or z.rows == 0:
        raise ValueError(f"logits: expected one row or more of classes, shape (N, C) or (C,), got {z.data.shape}")
    refuse_many("logits", z.data.shape)
    columns = column_names(logits)
    if names is None:
        names = columns
    printable_names = class_names(names, z.classes)
    refuse_other_columns(targets, columns)
    unnamed = targets if names is None else without_names(targets, printable_names)
    t = as_targets(unnamed, z, options.ignore_index, sample_weight)
    if t.remainder is not None:
        raise ValueError("targets: expected TopKTargets without a remainder, of which the lesson does not tell")
    A = z.data.reshape(z.rows, z.classes).astype(np.float64)
    N, C = A.shape
    refuse_probabilities(A)
    indices = None if t.indices is None else t.indices.reshape(N)
    weights = row_weights(options, z, t, class_weight, sample_weight)
    w, s, omega = weights.w, weights.s.reshape(N), weights.omega.reshape(N)
    counted = s != 0
    q = _distributions(t, counted, C)

    def call(sample_weight: Array | None = s, **changed: Any) -> Call:
        given = q if indices is None else indices
        # Without weights of classes, not with weights of 1: the last bit may be another.
        weighted = None if class_weight is None else w
        return prepare(
            replace(options, **changed), A, given, class_weight=weighted, sample_weight=sample_weight, num_threads=1
        )

    cross = loss(call(None, z_loss=0.0, reduction="none"))
    losses = loss(call(reduction="none"))
    total, dtotal = loss_and_gradient(call(reduction="sum"))
    if has_mean(t, w, s):
        mean, dmean = loss_and_gradient(call(reduction="mean"))
        total_weight = float(weights.in_mean.reshape(N)[counted].sum())
    else:
        mean, dmean, total_weight = math.nan, np.full_like(dtotal, math.nan), math.nan
    reduced, dlogits = loss_and_gradient(call())

    smoothed, b, B = coefficients(q, w, counted, options.label_smoothing)
    terms = row_terms(options, A, omega, B)
    u, p = terms.u, terms.p
    m = u.max(-1)
    shifted = u - m[:, None]
    e = np.exp(shifted)
    top = np.arange(C) == u.argmax(-1)[:, None]
    r = np.where(top & ~np.isnan(e), 0.0, e).sum(-1)
    return Explanation(
        names=printable_names,
        shown=_shown(p, q),
        options=options,
        logits=A,
        targets=indices,
        q=q,
        w=w,
        s=s,
        omega=omega,
        smoothed=smoothed,
        b=b,
        B=B,
        u=u,
        slope=terms.slope,
        m=m,
        shifted=shifted,
        e=e,
        r=r,
        S=1 + r,
        lse=terms.lse,
        p=p,
        rest=np.where(top, (r / (1 + r))[:, None], 1 - p),
        log_p=log_softmax(u),
        cross=np.asarray(cross),
        a=terms.a,
        losses=np.asarray(losses),
        total=float(total),
        mean=float(mean),
        total_weight=total_weight,
        dtotal=dtotal,
        dmean=dmean,
        loss=reduced,
        dlogits=dlogits,
    )


def _distributions(targets: Targets, counted: Array, C: int) -> Array:
    """Each row's targets as probabilities of all classes; one-hot for an index, 0 for one that does not count."""
    N = len(counted)
    if targets.indices is not None:
        classes = np.where(counted, targets.indices.reshape(N), 0)
        return np.where(counted[:, None], np.arange(C) == classes[:, None], 0.0)
    assert targets.probabilities is not None
    if targets.sparse_indices is None:
        return targets.probabilities.reshape(N, C).astype(np.float64)
    q = np.zeros((N, C))
    np.add.at(q, (np.arange(N)[:, None], targets.sparse_indices), targets.probabilities)
    return q


def _shown(p: Array, q: Array) -> tuple[int, ...]:
    """The classes that text and picture show."""
    C = p.shape[1]
    if C <= MAX_SHOWN:
        return tuple(range(C))
    weight = np.nan_to_num(np.maximum(p, np.abs(q))).max(0)
    targets = np.unique(q.argmax(-1)[q.max(-1) == 1])
    weight[targets] = math.inf
    return tuple(sorted(np.argsort(-weight, kind="stable")[: TOP + len(targets)].tolist()))
