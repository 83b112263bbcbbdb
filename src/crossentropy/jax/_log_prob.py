"""The log-probability of chosen classes, and the entropy: from logits, and from hidden states a chunk at a time."""

from __future__ import annotations

from functools import partial
from typing import Literal, overload

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from .._options import LossOptions, loss_options
from ._composed import ignored, row_dtype
from ._functional import as_logits
from ._indices import as_axis, as_indices
from ._linear import as_head, by_chunks, logits_of, step_of
from ._softmax import Scale, log_probs_and_entropy


@overload
def log_prob(
    logits: ArrayLike,
    indices: ArrayLike,
    *,
    axis: int = -1,
    entropy: Literal[False] = False,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> Array: ...


@overload
def log_prob(
    logits: ArrayLike,
    indices: ArrayLike,
    *,
    axis: int = -1,
    entropy: Literal[True],
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> tuple[Array, Array]: ...


def log_prob(
    logits: ArrayLike,
    indices: ArrayLike,
    *,
    axis: int = -1,
    entropy: bool = False,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> Array | tuple[Array, Array]:
    r"""Compute the log-probability of chosen classes under the softmax, in nats, and the entropy of each row.

    .. math:: \log p_t = -\big((m - u_t) + \log(1 + r)\big), \qquad
              H = \log(1 + r) + \sum_c p_c (m - u_c)

    with u the logits after soft cap and temperature, m their maximum, r the sum of :math:`e^{u_c - m}` without it.

    Parameters
    ----------
    logits : array of float16, bfloat16, float32 or float64, shape (..., C, ...)
        Scores before the softmax, the C classes on `axis`.
    indices : array of integers in [0, C)
        One class for each row, of the logits' shape without the class axis; or K, on that axis.
    axis : int
        The class axis of the logits.
    entropy : bool
        Return the entropies too, one a row.
    ignore_index : int or None
        What marks an index that is left out: its log-probability is 0 and has no gradient. A row of nothing but such
        indices does not count: its entropy is 0, and it may hold NaN.
    softcap, temperature
        As for `crossentropy.cross_entropy`.

    Returns
    -------
    Array, or a tuple of two
        The log-probabilities, of the shape of `indices`; with `entropy` also the entropies, of the logits' shape
        without the class axis. float64 for float64 logits, else float32.

    Raises
    ------
    IndexError
        An index is neither in [0, C) nor `ignore_index`. Where a function is traced its indices are not known: that
        number is NaN, and its row's gradient.
    TypeError, ValueError
        Dtypes, shapes or options that do not fit; the message tells what was expected.

    Notes
    -----
    Composed of JAX's operations: all transformations apply, to any order, in both results. The entropy's gradient,
    :math:`p_c ((m - u_c) - \sum_k p_k (m - u_k))`, is computed as it is written, so that it keeps its digits in
    confident rows. In half precision all is computed in float32, and the gradient rounded once. An index whose logit is
    −∞ has log-probability −∞ and a finite gradient; NaN stays in its row.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from crossentropy.jax import log_prob
    >>> logits = jnp.array([[20.0, 0.0, 0.0]])
    >>> log_p, entropy = log_prob(logits, jnp.array([0]), entropy=True)
    >>> print(f"{log_p[0]:.4g} {entropy[0]:.4g}")
    -4.122e-09 8.657e-08
    >>> dlogits = jax.grad(lambda z: log_prob(z, jnp.array([0]), entropy=True)[1].sum())(logits)
    >>> [f"{g:.4g}" for g in dlogits[0]]
    ['-8.245e-08', '4.122e-08', '4.122e-08']
    """
    options = loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature)
    z = as_logits(logits)
    axis = as_axis(axis, z)
    t = as_indices(indices, z.shape, axis, options)
    many = t.ndim == z.ndim
    z = jnp.moveaxis(z, axis, -1)
    t = jnp.moveaxis(t, axis, -1) if many else t[..., None]
    log_p, entropies = _scores(options, z, t)
    log_p = jnp.moveaxis(log_p, -1, axis) if many else log_p[..., 0]
    return (log_p, entropies) if entropy else log_p


@overload
def linear_log_prob(
    hidden: ArrayLike,
    classifier: ArrayLike,
    indices: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    entropy: Literal[False] = False,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    max_logits_bytes: int | None = None,
) -> Array: ...


@overload
def linear_log_prob(
    hidden: ArrayLike,
    classifier: ArrayLike,
    indices: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    entropy: Literal[True],
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    max_logits_bytes: int | None = None,
) -> tuple[Array, Array]: ...


def linear_log_prob(
    hidden: ArrayLike,
    classifier: ArrayLike,
    indices: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    entropy: bool = False,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    max_logits_bytes: int | None = None,
) -> Array | tuple[Array, Array]:
    """Compute `log_prob` of the logits ``hidden @ classifier.T + bias``, a chunk of rows at a time.

    Parameters
    ----------
    hidden : array of float16, bfloat16, float32 or float64, shape (..., D)
        Hidden states.
    classifier : array of the dtype of `hidden`, shape (C, D)
    indices : array of integers in [0, C), shape (...) or (..., K)
    bias : array of shape (C,), optional
    entropy, ignore_index, softcap, temperature
        As for `log_prob`.
    max_logits_bytes : int, optional
        At most so many bytes of logits at a time, 64 MiB by default; at least one row.

    Returns
    -------
    Array, or a tuple of two
        As for `log_prob`.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for `log_prob`.

    Notes
    -----
    The logits are float32 for half-precision hidden states, and so is what adds up the classifier's gradient. The
    gradient makes each chunk of logits again.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from crossentropy.jax import linear_log_prob
    >>> linear_log_prob(jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])).round(4)
    Array([-0.4741], dtype=float32)
    """
    options = loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature)
    head = as_head(hidden, classifier, bias)
    rows, classes = head.rows, len(head.classifier)
    t = as_indices(indices, (*rows, classes), len(rows), options)
    many = t.ndim > len(rows)
    step = step_of(max_logits_bytes, head)
    t = t if many else t[..., None]
    log_p, entropies = _linear_scores(options, step, head.hidden, head.classifier, head.bias, t)
    log_p = log_p if many else log_p[..., 0]
    return (log_p, entropies) if entropy else log_p


@partial(jax.jit, static_argnums=0)
def _scores(options: LossOptions, z: Array, t: Array) -> tuple[Array, Array]:
    """Log-probabilities and entropies; indices of shape rows + (K,)."""
    left_out = ignored(options, t)
    counted = _counted(options, t)
    known = left_out | ((t >= 0) & (t < z.shape[-1]))
    z = jnp.where(counted[..., None], z.astype(row_dtype(z)), 0.0)  # rows that do not count may hold NaN
    scale = Scale(options.softcap, options.temperature)
    log_p, entropies = log_probs_and_entropy(scale, z, jnp.where(known & ~left_out, t, 0))
    log_p = jnp.where(left_out, 0.0, log_p * jnp.where(known, 1.0, jnp.nan))
    return log_p, jnp.where(counted, entropies, 0.0)


@partial(jax.jit, static_argnums=(0, 1))
def _linear_scores(options: LossOptions, step: int, h: Array, W: Array, b: Array, t: Array) -> tuple[Array, Array]:
    def chunk(h: Array, t: Array, counted: Array, W: Array, b: Array) -> tuple[Array, Array]:
        return _scores(options, logits_of(h, W, b, counted), t)

    results: tuple[Array, Array] = by_chunks(chunk, step, (h, t, _counted(options, t)), (W.astype(row_dtype(W)), b))
    return results


def _counted(options: LossOptions, t: Array) -> Array:
    """Which rows count: not those whose indices are all left out. A row of none counts, for its entropy."""
    return ~ignored(options, t).all(-1) if t.shape[-1] else jnp.ones(t.shape[:-1], bool)
