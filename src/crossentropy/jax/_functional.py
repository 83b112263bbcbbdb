"""The losses as JAX's users call them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .._arrays import Layout, as_array, as_weights
from .._call import check_options, total_weight
from .._options import LossOptions, Reduction, loss_options
from .._targets import Targets, TopKTargets, accepted_targets, as_targets
from . import _rules
from ._composed import row_dtype
from ._foreign import NONE
from ._indices import as_axis, check_narrowed, is_traced
from ._raised import in_range

_LOGIT_TYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
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
    overwrite_logits: bool = False,
) -> Array:
    r"""Compute the softmax cross-entropy between logits and targets, in nats.

    Parameters
    ----------
    logits : array of float16, bfloat16, float32 or float64, shape (..., C, ...)
        Scores before the softmax, the C classes on `axis`. Integers are taken as floating-point numbers.
    targets : array
        Either class indices, integers in [0, C), of the logits' shape without the class axis; or probabilities, real
        or boolean, of the logits' shape, which need not sum to one.
    axis : int
        The class axis of the logits.
    where : boolean array, optional
        Of the logits' shape: the classes that take part, as in `jax.nn.softmax`. Of that shape without the class axis:
        the rows that count.
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature
        As for `crossentropy.cross_entropy`.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides the sum by the total weight of the rows that count, which may be negative. Where no row counts
        the loss is 0; where weights of both signs add up to 0 it is NaN.
    overwrite_logits : bool
        The gradient takes the memory of the logits: of an argument that is donated, as by
        ``jax.jit(..., donate_argnums=0)``, or of logits that the compiled function makes itself. Logits that are still
        needed are copied before: the values are the same, but it takes longer. Those of half precision are read twice
        and not overwritten.

    Returns
    -------
    Array
        A scalar, or for 'none' one loss a row: float64 for float64 logits, else float32.

    Raises
    ------
    IndexError
        A class index is neither in [0, C) nor `ignore_index`. Where a function is traced its targets are not known: on
        the CPU the runtime's error carries the message, elsewhere that row's loss is NaN.
    TypeError, ValueError
        Dtypes, shapes or options that do not fit; the message tells what was expected.

    Notes
    -----
    On the CPU loss and gradient are the core's, called by XLA; elsewhere they are composed of JAX's operations. All
    transformations apply, to any order. The gradient of half-precision logits is computed in float32 and rounded once.
    A traced function keeps the number of threads that was set when it was traced.

    Where `jax.jit` splits the rows over devices, and inside `jax.shard_map`, each device computes its own, and no
    logits are gathered; see `vocab_parallel_cross_entropy` for classes that are split. With class weights and smoothed
    or given probabilities a program that `jax.jit` splits composes the loss. A class index out of range is an error on
    all devices; under ``check_vma=False`` that row is NaN.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from crossentropy.jax import cross_entropy
    >>> logits = jnp.array([[20.0, 0.0, 0.0]])
    >>> loss, dlogits = jax.value_and_grad(cross_entropy)(logits, jnp.array([0]))
    >>> print(f"{loss:.4g}", [f"{g:.4g}" for g in dlogits[0]])
    4.122e-09 ['-4.122e-09', '2.061e-09', '2.061e-09']
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
    z = as_logits(logits)
    axis = as_axis(axis, z)
    rows = z.shape[:axis] + z.shape[axis + 1 :]
    t = as_class_indices_or_probabilities(targets, z.shape, axis, options, row_dtype(z))
    w = NONE if class_weight is None else weights("class_weight", class_weight, z.shape[axis : axis + 1])
    s = NONE if sample_weight is None else weights("sample_weight", sample_weight, rows)
    if where is not None:
        z, t, s = _restricted(jnp.asarray(where), z, t, s, axis)
    t = in_range(options, z.shape[axis], t)
    return _loss(options, axis, z, t, w, s, overwrite=overwrite_logits)


_loss = jax.jit(_rules.loss, static_argnums=(0, 1), static_argnames="overwrite")


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Compute the cross-entropy of each row against probabilities, in place of `optax.softmax_cross_entropy`.

    Parameters
    ----------
    logits : array of a floating-point dtype, shape (..., C, ...)
    labels : array that broadcasts to the logits' shape
        Probabilities, which need not sum to one.
    axis : int, tuple of ints or None
        The class axis, or axes that together are the classes; None: all of them.
    where : boolean array, optional
        Of the logits' shape: the classes that take part. Of that shape without the class axis: the rows that count.

    Returns
    -------
    Array
        One loss a row, float64 for float64 logits, else float32.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from crossentropy.jax import softmax_cross_entropy
    >>> losses = softmax_cross_entropy(jnp.array([[2.0, 1.0, 0.1]]), jnp.array([[0.0, 1.0, 0.0]]))
    >>> print([f"{loss:.4f}" for loss in losses])
    ['1.4170']
    """
    z = as_logits(logits)
    t = jnp.broadcast_to(jnp.asarray(labels), z.shape)
    axes = _axes(z, axis)
    return cross_entropy(
        _joined(z, axes), _joined(t, axes), where=_where(where, z, axes), ignore_index=None, reduction="none"
    )


def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: int | tuple[int, ...] = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Compute the cross-entropy of each row against a class, in place of optax's function of this name.

    Parameters
    ----------
    logits : array of a floating-point dtype, shape (..., C, ...)
    labels : array of integers in [0, C), of the logits' shape without the class axis
        For several axes a flat index.
    axis : int or tuple of ints
        The class axis, or axes that together are the classes.
    where : boolean array, optional
        Of the logits' shape: the classes that take part. Of that shape without the class axis: the rows that count.

    Returns
    -------
    Array
        One loss a row, float64 for float64 logits, else float32.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from crossentropy.jax import softmax_cross_entropy_with_integer_labels
    >>> losses = softmax_cross_entropy_with_integer_labels(jnp.array([[2.0, 1.0, 0.1]]), jnp.array([1]))
    >>> print([f"{loss:.4f}" for loss in losses])
    ['1.4170']
    """
    z = as_logits(logits)
    axes = _axes(z, axis)
    return cross_entropy(_joined(z, axes), labels, where=_where(where, z, axes), ignore_index=None, reduction="none")


# Checks.


def as_logits(logits: ArrayLike, name: str = "logits") -> Array:
    z = jnp.asarray(logits)
    if z.ndim == 0:
        raise ValueError(f"{name}: expected at least one axis, got a scalar")
    if jnp.issubdtype(z.dtype, jnp.integer):
        z = z.astype(float)
    if z.dtype not in _LOGIT_TYPES:
        raise TypeError(f"{name}: expected float16, bfloat16, float32, float64 or integers, got {z.dtype}")
    return z


def as_class_indices_or_probabilities(
    targets: ArrayLike, shape: tuple[int, ...], axis: int, options: LossOptions, dtype: Any
) -> Array:
    """Targets as the core reads them: 32- or 64-bit integers, or floating-point numbers.

    Where class indices are known, one that is out of range raises IndexError here.
    """
    rows = shape[:axis] + shape[axis + 1 :]
    layout = Layout(math.prod(rows), shape[axis], shape, rows, axis)
    if isinstance(targets, TopKTargets):
        raise TypeError(f"targets: expected {accepted_targets(layout)}, got TopKTargets, which are for NumPy arrays")
    # As they came: JAX may be about to narrow them to 32 bits.
    t: Any = targets if is_traced(targets) or isinstance(targets, Array) else as_array("targets", targets)
    t = t if hasattr(t, "dtype") else jnp.asarray(t)
    integers = jnp.issubdtype(t.dtype, jnp.integer)
    if t.shape == rows and rows != shape:
        if not integers:
            raise TypeError(f"targets: expected {accepted_targets(layout)}, got dtype {t.dtype} and shape {t.shape}")
        if not is_traced(t):
            total_weight(options, layout, as_targets(np.asarray(t), layout, options.ignore_index))
            check_narrowed("targets", np.asarray(t))
        t = jnp.asarray(t)
        return t if t.dtype.itemsize >= 4 else t.astype(jnp.int32)
    t = jnp.asarray(t)
    if t.shape != shape:
        raise ValueError(f"targets: expected {accepted_targets(layout)}, got shape {t.shape}")
    check_options(options, Targets(), None)
    if integers or t.dtype == bool:
        return t.astype(dtype)
    if t.dtype not in _LOGIT_TYPES:
        raise TypeError(f"targets: expected probabilities of a real or boolean dtype, got {t.dtype}")
    return t


def weights(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Class or sample weights. Known values are checked here, traced ones by the core."""
    if not is_traced(values):
        check_narrowed(name, as_weights(name, np.asarray(values), shape))
    array = jnp.asarray(values)
    if array.dtype.kind not in "fiub" and array.dtype not in _LOGIT_TYPES:
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _restricted(where: Array, z: Array, t: Array, s: Array, axis: int) -> tuple[Array, Array, Array]:
    """Leave out the classes, or the rows, for which `where` is false."""
    ones = jnp.ones(z.shape[:axis] + z.shape[axis + 1 :], jnp.float32) if s is NONE else s
    if where.ndim != z.ndim:
        pairs = zip(reversed(where.shape), reversed(ones.shape), strict=False)
        if where.ndim > ones.ndim or any(given not in (1, rows) for given, rows in pairs):
            raise ValueError(f"where: expected shape {z.shape} or {ones.shape}, got {where.shape}")
        return z, t, jnp.where(where, ones, 0)
    where = jnp.broadcast_to(where, z.shape)
    z = jnp.where(where, z, -jnp.inf)
    t = jnp.where(where, t, 0) if t.ndim == z.ndim else t
    return z, t, jnp.where(where.any(axis), ones, 0)


def _axes(z: Array, axis: int | Sequence[int] | None) -> tuple[int, ...]:
    axes = range(z.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    if any(not -z.ndim <= a < z.ndim for a in axes):
        raise ValueError(f"axis: expected integers in [{-z.ndim}, {z.ndim}) for logits of shape {z.shape}, got {axis}")
    return tuple(a % z.ndim for a in axes)


def _joined(array: Array, axes: tuple[int, ...]) -> Array:
    """The axes moved to the end and made one."""
    moved = jnp.moveaxis(array, axes, range(array.ndim - len(axes), array.ndim))
    return moved.reshape(*moved.shape[: array.ndim - len(axes)], -1)


def _where(where: ArrayLike | None, z: Array, axes: tuple[int, ...]) -> Array | None:
    if where is None:
        return None
    where = jnp.asarray(where)
    return _joined(jnp.broadcast_to(where, z.shape), axes) if where.ndim == z.ndim else where
