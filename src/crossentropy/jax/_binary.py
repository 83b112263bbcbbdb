"""The binary loss as JAX's users call it, in JAX's own operations."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .._binary_call import BinaryOptions, as_element_weights, binary_options, broadcasts_to
from .._options import Reduction
from ._composed import row_dtype

_LOGIT_TYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)


def binary_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    pos_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> Array:
    r"""Compute the cross-entropy of two classes given as one logit (sigmoid, logistic loss), in nats.

    Parameters
    ----------
    logits : array of float16, bfloat16, float32 or float64, any shape
        The log-odds of class 1. Integers are taken as floating-point numbers.
    targets : array of the logits' shape, of a real or boolean dtype
        1 or True for class 1, 0 or False for class 0; or the probability of class 1.
    pos_weight, sample_weight : array that broadcasts to the logits' shape, optional
        A factor of the terms of class 1, and a weight for each element, as for `crossentropy.binary_cross_entropy`.
    label_smoothing, focal_gamma
        As for `crossentropy.binary_cross_entropy`.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the sample weights of all elements, without weights by their number. Where nothing
        counts the loss is 0; where weights of both signs add up to 0 it is NaN.

    Returns
    -------
    Array
        A scalar, or for 'none' one loss an element: float64 for float64 logits, else float32.

    Raises
    ------
    TypeError, ValueError
        Dtypes, shapes or options that do not fit; the message tells what was expected.

    Notes
    -----
    Composed of JAX's operations on every device, so that XLA joins it with what is before and after; all
    transformations apply, to any order. The gradient of half-precision logits is computed in float32 and rounded once.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from crossentropy.jax import binary_cross_entropy
    >>> loss, dlogits = jax.value_and_grad(binary_cross_entropy)(jnp.array([-40.0, 40.0]), jnp.array([0.0, 1.0]))
    >>> print(f"{loss:.4g}", [f"{g:.4g}" for g in dlogits])
    4.248e-18 ['2.124e-18', '-2.124e-18']
    """
    options = binary_options(label_smoothing, focal_gamma, reduction)
    z = _as_logits(logits)
    y = jnp.asarray(targets)
    if y.shape != z.shape:
        raise ValueError(f"targets: expected the shape of the logits, {z.shape}, got {y.shape}")
    if y.dtype.kind not in "fiub" and y.dtype not in _LOGIT_TYPES:
        raise TypeError(f"targets: expected numbers of a real or boolean dtype, got {y.dtype}")
    w = None if pos_weight is None else _as_weights("pos_weight", pos_weight, z.shape)
    s = None if sample_weight is None else _as_weights("sample_weight", sample_weight, z.shape)
    return _reduced(options, z, y, w, s)


def sigmoid_binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Compute the binary cross-entropy of each element, in place of `optax.sigmoid_binary_cross_entropy`.

    Parameters
    ----------
    logits : array of a floating-point dtype
    labels : array that broadcasts with the logits
        Probabilities of class 1.

    Returns
    -------
    Array
        One loss an element, float64 for float64 logits, else float32.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from crossentropy.jax import sigmoid_binary_cross_entropy
    >>> losses = sigmoid_binary_cross_entropy(jnp.array([2.0, -40.0]), jnp.array([1.0, 0.0]))
    >>> print([f"{loss:.4g}" for loss in losses])
    ['0.1269', '4.248e-18']
    """
    z, y = _with_labels(logits, labels)
    return _losses(z, y)


def sigmoid_focal_loss(
    logits: ArrayLike, labels: ArrayLike, *, alpha: ArrayLike | None = None, gamma: ArrayLike = 2.0
) -> Array:
    """Compute the focal loss of each element, in place of `optax.sigmoid_focal_loss`.

    Parameters
    ----------
    logits : array of a floating-point dtype
    labels : array that broadcasts with the logits
        Probabilities of class 1.
    alpha : float or array, optional
        A weight of class 1, in (0, 1); that of class 0 is 1 - alpha.
    gamma : float or array
        Each loss is multiplied by (1 - p)^gamma, p the probability of the label.

    Returns
    -------
    Array
        One loss an element, float64 for float64 logits, else float32.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from crossentropy.jax import sigmoid_focal_loss
    >>> losses = sigmoid_focal_loss(jnp.array([2.0, -20.0]), jnp.array([1.0, 0.0]))
    >>> print([f"{loss:.4g}" for loss in losses])
    ['0.001804', '8.757e-27']
    """
    z, y = _with_labels(logits, labels)
    losses = _losses(z, y, None, jnp.asarray(gamma, row_dtype(z)))
    if alpha is None:
        return losses
    weight = jnp.asarray(alpha, losses.dtype)
    labels = y.astype(losses.dtype)
    return (weight * labels + (1.0 - weight) * (1.0 - labels)) * losses


def element_losses(
    z: Array, y: Array, pos_weight: Array | None = None, gamma: Array | None = None, eps: float = 0.0
) -> Array:
    """One loss an element, differentiable by JAX to any order.

    With t = exp(-|z|) neither log(1 + t) nor sigmoid - 1 occurs, in none of the derivatives: those of log1p(t) are
    fractions of t and 1 + t. |z| is made so that JAX knows its derivative at 0 too.
    """
    dtype = row_dtype(z)
    z, y = z.astype(dtype), y.astype(jnp.promote_types(y.dtype, dtype))
    y = jnp.where(jnp.isfinite(y), y, jnp.nan)
    minus, smoothed = (((1.0 - eps) * part + 0.5 * eps).astype(dtype) for part in (1.0 - y, y))
    plus = smoothed if pos_weight is None else pos_weight.astype(dtype) * smoothed

    positive = z > 0
    size = jnp.where(positive, z, -z)
    t = jnp.exp(-size)
    wrong = jnp.where(positive, minus, plus)
    distance = jnp.where((wrong == 0) & jnp.isinf(size), 0.0, size)  # 0 inf = 0
    losses = (plus + minus) * jnp.log1p(t) + wrong * distance
    if gamma is None:
        return losses
    right, other = jnp.where(positive, smoothed, minus), jnp.where(positive, minus, smoothed)
    q = (other + t * right) / (1.0 + t)  # 1 - p of the target
    none = q == 0
    factor = jnp.where(none, 1.0, q) ** gamma
    factor = jnp.where((right >= 0) & (other >= 0), factor, jnp.nan)
    # Constant where the loss is infinite: its derivative is 0, and 0 inf = 0.
    factor = jnp.where(jnp.isinf(losses), jax.lax.stop_gradient(factor), factor)
    return jnp.where(none, 0.0, losses) * factor


_losses = jax.jit(element_losses, static_argnames="eps")


@partial(jax.jit, static_argnums=0)
def _reduced(options: BinaryOptions, z: Array, y: Array, w: Array | None, s: Array | None) -> Array:
    if s is not None:  # what does not count may hold NaN
        s = jnp.broadcast_to(s, z.shape).astype(row_dtype(z))
        counted = (s != 0) | (jnp.isfinite(z) & jnp.isfinite(y))
        z, y = jnp.where(counted, z, 0), jnp.where(counted, y, 0)
    gamma = jnp.asarray(options.focal_gamma, row_dtype(z)) if options.focal_gamma else None
    losses = element_losses(z, y, w, gamma, options.label_smoothing)
    losses = losses if s is None else s * losses
    if options.reduction == "none":
        return losses
    if options.reduction == "sum" or (s is None and losses.size):
        return losses.sum() if options.reduction == "sum" else losses.mean()
    if s is None:
        return jnp.zeros((), losses.dtype)
    total, counts = s.sum(), jnp.any(s != 0)
    total = jnp.where(total == 0, jnp.nan, total)  # weights of both signs add up to 0
    # A NaN among what is not chosen would reach the gradient.
    return jnp.where(counts, losses.sum() / jnp.where(counts, total, 1.0), 0.0)


# Checks.


def _as_logits(logits: ArrayLike) -> Array:
    z = jnp.asarray(logits)
    if jnp.issubdtype(z.dtype, jnp.integer):
        z = z.astype(float)
    if z.dtype not in _LOGIT_TYPES:
        raise TypeError(f"logits: expected float16, bfloat16, float32, float64 or integers, got {z.dtype}")
    return z


def _with_labels(logits: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    z, y = jnp.asarray(logits), jnp.asarray(labels)
    if z.dtype not in _LOGIT_TYPES:
        raise ValueError(f"logits: expected a floating-point dtype, got {z.dtype}")
    y = y.astype(row_dtype(z))
    shape = jnp.broadcast_shapes(z.shape, y.shape)
    return jnp.broadcast_to(z, shape), jnp.broadcast_to(y, shape)


def _as_weights(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Weights that broadcast to a shape; known values are checked."""
    traced: Any = values
    if not isinstance(traced, jax.core.Tracer):
        as_element_weights(name, np.asarray(values), shape)
    array = jnp.asarray(values)
    if array.dtype.kind not in "fiub" and array.dtype not in _LOGIT_TYPES:
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    if not broadcasts_to(array.shape, shape):
        raise ValueError(f"{name}: expected a number or an array that broadcasts to shape {shape}, got {array.shape}")
    return array
