"""The linear head: logits a chunk of rows at a time, never all at once. Their gradient makes them again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from .._head import rows_of_chunk
from .._options import LossOptions, Reduction, loss_options
from . import _composed, _rules
from ._alike import of_targets
from ._composed import row_dtype
from ._foreign import NONE
from ._functional import as_class_indices_or_probabilities, as_logits, weights
from ._raised import in_range


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
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
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
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap,
    temperature, reduction
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
        entropy_bonus=entropy_bonus,
        focal_gamma=focal_gamma,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    head = as_head(hidden, classifier, bias)
    h, classes, rows = head.hidden, len(head.classifier), head.rows
    t = as_class_indices_or_probabilities(targets, (*rows, classes), len(rows), options, row_dtype(h))
    w = NONE if class_weight is None else weights("class_weight", class_weight, (classes,))
    s = jnp.ones(rows, row_dtype(h)) if sample_weight is None else weights("sample_weight", sample_weight, rows)

    step = step_of(max_logits_bytes, head)
    t = in_range(options, classes, t)
    losses, weight = _losses(options, step, h, head.classifier, head.bias, t, w, s)
    return _composed.reduced(options.reduction, losses, weight.astype(losses.dtype))


@partial(jax.jit, static_argnums=(0, 1))
def _losses(
    options: LossOptions, step: int, h: Array, W: Array, b: Array, t: Array, w: Array, s: Array
) -> tuple[Array, Array]:
    """The losses of rows, and their weights in the mean."""
    of_rows = replace(options, reduction="none")

    def chunk(h: Array, t: Array, s: Array, W: Array, b: Array) -> Array:
        counted = _composed.counted_rows(options, s.shape, t, s)
        return _rules.loss(of_rows, s.ndim, logits_of(h, W, b, counted), t, w, s)

    counted = _composed.counted_rows(options, s.shape, t, s)
    weight = jnp.where(counted, s, 0)
    if t.ndim == s.ndim and w.size:
        weight = weight * of_targets(w, jnp.where(counted, t, 0))
    losses: Array = by_chunks(chunk, step, (h, t, s), (W.astype(row_dtype(W)), b))
    return losses, weight


# What all functions of heads share.


class Head(NamedTuple):
    """A checked head."""

    hidden: Array  # rows + (D,)
    classifier: Array  # (C, D)
    bias: Array  # (C,), or a scalar 0

    @property
    def rows(self) -> tuple[int, ...]:
        return self.hidden.shape[:-1]


def as_head(hidden: ArrayLike, classifier: ArrayLike, bias: ArrayLike | None, prefix: str = "") -> Head:
    """Check a head; the prefix is that of its arguments' names."""
    h, W = as_logits(hidden, f"{prefix}hidden"), as_logits(classifier, f"{prefix}classifier")
    if W.ndim != 2 or not len(W) or h.shape[-1] != W.shape[1]:
        raise ValueError(
            f"{prefix}classifier: expected shape (C, {h.shape[-1]}) for hidden states of shape {h.shape} and at least "
            f"one class, got {W.shape}"
        )
    if bias is not None and jnp.shape(bias) != (len(W),):
        raise ValueError(f"{prefix}bias: expected shape {(len(W),)}, got {jnp.shape(bias)}")
    b = jnp.zeros((), W.dtype) if bias is None else jnp.asarray(bias)
    return Head(h, W, b)


def step_of(max_logits_bytes: int | None, head: Head) -> int:
    """How many rows a chunk has."""
    row_bytes = len(head.classifier) * row_dtype(head.hidden).itemsize
    return min(rows_of_chunk(max_logits_bytes, row_bytes), max(math.prod(head.rows), 1))


def logits_of(h: Array, W: Array, b: Array, counted: Array) -> Array:
    """The logits of some rows. What a row that does not count holds, NaN it may be, has no part in them."""
    h = jnp.where(counted[..., None], h, 0)
    return jnp.matmul(h, W.astype(h.dtype).T, preferred_element_type=row_dtype(h)) + b.astype(row_dtype(h))


def by_chunks(function: Callable[..., Any], step: int, of_rows: Sequence[Array], shared: Sequence[Array]) -> Any:
    """Call ``function(*of_rows, *shared)`` on so many rows at a time; its gradient calls it again.

    The last of the arrays of rows has no other axes. A chunk takes every n-th row of an axis, so that it has some of
    each device that the axis is divided among. Rows that no number of chunks divides are filled up with zeros.
    """
    rows = of_rows[-1].shape
    count = math.prod(rows)
    if count <= step:
        return function(*of_rows, *shared)
    parts = _parts(rows, -(-count // step))
    if parts is None:
        flat = [array.reshape(count, *array.shape[len(rows) :]) for array in of_rows]
        padded = -count % -(-count // step)
        filled = [jnp.pad(array, [(0, padded)] + [(0, 0)] * (array.ndim - 1)) for array in flat]
        results = by_chunks(function, step, filled, shared)
        return jax.tree.map(lambda array: array[:count].reshape(*rows, *array.shape[1:]), results)

    axes, chunk_axes = len(rows), range(1, 2 * len(rows), 2)
    within = [size // part for size, part in zip(rows, parts, strict=True)]

    # An axis at a time: JAX does not follow an explicit sharding through several.
    def chunks(array: Array) -> Array:
        for axis in reversed(range(axes)):
            array = array.reshape(*array.shape[:axis], within[axis], parts[axis], *array.shape[axis + 1 :])
        return jnp.moveaxis(array, chunk_axes, range(axes)).reshape(-1, *within, *array.shape[2 * axes :])

    def joined(array: Array) -> Array:
        array = jnp.moveaxis(array.reshape(*parts, *array.shape[1:]), range(axes), chunk_axes)
        for axis, size in enumerate(rows):
            array = array.reshape(*array.shape[:axis], size, *array.shape[axis + 2 :])
        return array

    def body(nothing: None, of_rows: tuple[Array, ...]) -> tuple[None, Any]:
        return nothing, jax.checkpoint(function)(*of_rows, *shared)

    return jax.tree.map(joined, lax.scan(body, None, tuple(map(chunks, of_rows)))[1])


def _parts(rows: Sequence[int], chunks: int) -> tuple[int, ...] | None:
    """In how many parts to divide each axis of rows for so many chunks, or up to twice as many."""
    parts: list[int] = []
    left = chunks
    for size in reversed(rows):
        parts.insert(0, next(part for part in range(min(left, size), size + 1) if size % part == 0))
        left = -(-left // parts[0])
    return tuple(parts) if math.prod(parts) <= 2 * chunks else None
