"""`explain`: what it accepts, and every number it shows."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Array, Shape, as_logits, as_weights
from .._call import Call, loss, loss_and_gradient, prepare
from .._options import LossOptions, Reduction, loss_options
from .._softmax import log_softmax, logsumexp, scaled, softmax
from .._targets import Targets, TopKTargets, as_targets
from ._explanation import Explanation

MAX_ROWS, MAX_LOGITS = 32, 1 << 22
MAX_SHOWN = 36  # more classes than this are folded to the TOP likeliest and the targets
TOP = 12


@np.errstate(all="ignore")  # what is not finite shows in the numbers
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
    logits : array_like of float32 or float64, shape (N, C) or (C,)
        At most 32 rows; taken as float64.
    targets : array_like
        Class indices, integers of shape (N,) or (); or distributions of the logits' shape.
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
        A class index out of range; where indices seem to count from 1, the message says so.
    TypeError
        As `cross_entropy`.
    ValueError
        As `cross_entropy`; also more rows than a reader would read, and logits that are probabilities already.

    See Also
    --------
    cross_entropy_with_grad : loss and gradient alone, of arrays of any size.

    Notes
    -----
    Loss, gradient, softmax, its logarithm and the log-sum-exp are what the library's functions return; the other
    intermediates are one NumPy operation on those away. The formulas are those of [1]_.

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
    t = as_targets(targets, z, options.ignore_index)
    A = z.data.reshape(z.rows, z.classes).astype(np.float64)
    N, C = A.shape
    _refuse_probabilities(A)
    indices = _indices(t, N, C, options)
    labels = _labels(names, C)
    w = np.ones(C) if class_weight is None else as_weights("class_weight", class_weight, (C,))
    weights = None if sample_weight is None else as_weights("sample_weight", sample_weight, z.row_shape).reshape(N)
    s = np.ones(N) if weights is None else weights.copy()
    if indices is None:
        assert t.probabilities is not None
        given = t.probabilities.reshape(N, -1)
        if t.sparse_indices is not None:
            given = np.zeros((N, C))
            np.add.at(given, (np.arange(N)[:, None], t.sparse_indices), t.probabilities)
        if t.ignored is not None:
            s[t.ignored.reshape(N)] = 0
            weights = s.copy()
    else:
        given = indices

    def call(sample_weight: Array | None, **changed: Any) -> Call:
        return prepare(
            replace(options, **changed), A, given, class_weight=w, sample_weight=sample_weight, num_threads=1
        )

    cross = loss(call(None, z_loss=0.0, reduction="none"))
    losses = loss(call(weights, reduction="none"))
    total, dtotal = loss_and_gradient(call(weights, reduction="sum"))
    mean, dmean = loss_and_gradient(call(weights, reduction="mean"))
    reduced, dlogits = loss_and_gradient(call(weights))

    if indices is None:
        q, omega = given.astype(np.float64), np.ones(N)
    else:
        if options.ignore_index is not None:
            s[indices == options.ignore_index] = 0
        kept = np.where(s > 0, indices, 0)
        q = np.where(s[:, None] > 0, np.arange(C) == kept[:, None], 0.0)
        omega = w[kept]

    eps = options.label_smoothing
    u, slope, _ = scaled(A, options)
    m = u.max(-1)
    shifted = u - m[:, None]
    e = np.exp(shifted)
    top = np.arange(C) == u.argmax(-1)[:, None]
    r = np.where(top, 0.0, e).sum(-1)
    p, lse = softmax(u), np.asarray(logsumexp(u))
    smoothed = np.where(s[:, None] > 0, (1 - eps) * q + eps / C, 0.0)
    b = w * smoothed
    B = b.sum(-1)
    tail = np.zeros(N) if options.z_loss == 0 else 2 * options.z_loss * omega * lse
    rest = np.where(top, (r / (1 + r))[:, None], 1 - p)
    return Explanation(
        names=labels,
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
        slope=slope,
        m=m,
        shifted=shifted,
        e=e,
        r=r,
        S=1 + r,
        lse=lse,
        p=p,
        rest=rest,
        log_p=log_softmax(u),
        cross=np.asarray(cross),
        a=B + tail,
        losses=np.asarray(losses),
        total=float(total),
        mean=float(mean),
        total_weight=float((s * omega)[s > 0].sum()),
        dtotal=dtotal,
        dmean=dmean,
        loss=reduced,
        dlogits=dlogits,
    )


def refuse_many(name: str, shape: Shape) -> None:
    """Refuse by its shape what is too large to explain: a file before it is read."""
    rows, classes = math.prod(shape[:-1]), math.prod(shape[-1:])
    if rows > MAX_ROWS or rows * classes > MAX_LOGITS:
        raise ValueError(
            f"{name}: expected at most {MAX_ROWS} rows and {MAX_LOGITS:,} numbers to explain, got {rows:,} rows of "
            f"{classes:,} classes; choose some, as in logits[:8], or score them all with 'crossentropy eval'"
        )


def _refuse_probabilities(A: Array) -> None:
    if A.shape[1] > 1 and (A >= 0).all() and (np.abs(A.sum(-1) - 1) <= 1e-3).all():
        raise ValueError(
            "logits: these look like probabilities: no number is negative and every row sums to 1, so the softmax "
            "would be taken twice. Expected logits, the scores before the softmax; np.log(probabilities) are some. If "
            "these are logits, add 1 to each: that changes no probability"
        )


def _indices(targets: Targets, N: int, C: int, options: LossOptions) -> Array | None:
    if targets.indices is None:
        return None
    indices = targets.indices.reshape(N)
    counted = indices[indices != options.ignore_index] if options.ignore_index is not None else indices
    if counted.size and counted.min() >= 1 and counted.max() == C:
        meant = np.where(indices == options.ignore_index, indices, indices - 1).tolist()
        raise IndexError(
            f"targets: expected class indices in [0, {C}), got {C}: classes count from 0: did you mean {meant}?"
        )
    return indices


def _labels(names: Sequence[str] | None, C: int) -> tuple[str, ...]:
    """One printable line for each class."""
    if names is None:
        return tuple(map(str, range(C)))
    if isinstance(names, str) or len(names) != C:
        got = repr(names) if isinstance(names, str) else f"{len(names)}"
        raise ValueError(f"names: expected {C}, one for each class, got {got}")
    lines = (" ".join(str(name).split()) for name in names)
    return tuple("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) for line in lines)


def _shown(p: Array, q: Array) -> tuple[int, ...]:
    C = p.shape[1]
    if C <= MAX_SHOWN:
        return tuple(range(C))
    weight = np.nan_to_num(np.maximum(p, q)).max(0)
    targets = np.unique(q.argmax(-1)[q.max(-1) == 1])
    weight[targets] = math.inf
    return tuple(sorted(np.argsort(-weight, kind="stable")[: TOP + len(targets)].tolist()))
