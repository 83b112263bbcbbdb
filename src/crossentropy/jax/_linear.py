"""The linear head: logits a chunk of rows at a time, never all at once. Their gradient makes them again."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from .._head import rows_of_chunk
from .._options import LossOptions, Reduction, loss_options
from . import _composed, _rules
from ._composed import row_dtype
from ._functional import as_class_indices_or_probabilities, as_logits, weights
from ._rules import NONE


def linear_cross_entropy(
    hidden: ArrayLike,
    classifier: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    max_logits_bytes: int | None = None,
) -> Array:
    r"""Compute the cross-entropy of the logits ``hidden @ classifier.T + bias``, a chunk of rows at a time.

    Parameters
    ----------
    hidden : array of float16, bfloat16, float32 or float64, shape (..., D)
        Hidden states.
    classifier : array of the dtype of `hidden`, shape (C, D)
    targets : array
        Class indices of shape (...), or probabilities of shape (..., C).
    bias : array of shape (C,), optional
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, softcap, temperature, reduction
        As for `cross_entropy`.
    max_logits_bytes : int, optional
        At most so many bytes of logits at a time, 64 MiB by default; at least one row.

    Returns
    -------
    Array
        As for `cross_entropy`.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for `cross_entropy`.

    Notes
    -----
    The logits are float32 for half-precision hidden states, and so is what adds up the classifier's gradient. The
    gradient makes each chunk of logits again: four products in all. All transformations apply, to any order.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from crossentropy.jax import linear_cross_entropy
    >>> jax.grad(linear_cross_entropy)(jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])).round(4)
    Array([[-0.3775,  0.3775]], dtype=float32)
    """
    options = loss_options(
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    h, W = as_logits(hidden, "hidden"), as_logits(classifier, "classifier")
    if W.ndim != 2 or not len(W) or h.shape[-1] != W.shape[1]:
        raise ValueError(
            f"classifier: expected shape (C, {h.shape[-1]}) for hidden states of shape {h.shape} and at least one "
            f"class, got {W.shape}"
        )
    classes, rows = len(W), h.shape[:-1]
    if bias is not None and jnp.shape(bias) != (classes,):
        raise ValueError(f"bias: expected shape {(classes,)}, got {jnp.shape(bias)}")
    t = as_class_indices_or_probabilities(targets, (*rows, classes), len(rows), options, row_dtype(h))
    w = NONE if class_weight is None else weights("class_weight", class_weight, (classes,))
    s = jnp.ones(rows, row_dtype(h)) if sample_weight is None else weights("sample_weight", sample_weight, rows)

    count = math.prod(rows)
    step = min(rows_of_chunk(max_logits_bytes, classes * row_dtype(h).itemsize), max(count, 1))
    flat = t.reshape(count, *t.shape[len(rows) :])
    b = jnp.zeros((), W.dtype) if bias is None else jnp.asarray(bias)
    losses, weight = _losses(options, step, h.reshape(count, h.shape[-1]), W, b, flat, w, s.reshape(count))
    if options.reduction == "none":
        return losses.reshape(rows)
    return _composed.reduced(options, losses, weight)


@partial(jax.jit, static_argnums=(0, 1))
def _losses(
    options: LossOptions, step: int, h: Array, W: Array, b: Array, t: Array, w: Array, s: Array
) -> tuple[Array, Array]:
    """The losses of rows, and their weights in the mean."""
    count, dtype = len(h), h.dtype
    wide = W.astype(row_dtype(W))  # where the chunks' gradients are added up
    of_rows = replace(options, reduction="none")

    def chunk(h: Array, W: Array, b: Array, t: Array, s: Array) -> Array:
        counted = _composed.counted_rows(options, s.shape, t, s)
        h = jnp.where(counted[:, None], h, 0)  # rows that do not count may hold NaN
        z = jnp.matmul(h, W.astype(dtype).T, preferred_element_type=row_dtype(h)) + b.astype(row_dtype(h))
        return _rules.loss(of_rows, 1, z, t, w, s)

    counted = _composed.counted_rows(options, s.shape, t, s)
    weight = jnp.where(counted, s, 0)
    if t.ndim == 1 and w.size:
        weight = weight * w[jnp.where(counted, t, 0)]
    if count <= step:
        return chunk(h, wide, b, t, s), weight
    padded = -count % step

    def chunks(array: Array) -> Array:
        filled = jnp.pad(array, [(0, padded)] + [(0, 0)] * (array.ndim - 1))  # with rows of sample weight 0
        return filled.reshape(-1, step, *array.shape[1:])

    def body(nothing: None, rows: tuple[Array, ...]) -> tuple[None, Array]:
        h, t, s = rows
        return nothing, jax.checkpoint(chunk)(h, wide, b, t, s)

    losses = lax.scan(body, None, (chunks(h), chunks(t), chunks(s)))[1]
    return losses.reshape(-1)[:count], weight
