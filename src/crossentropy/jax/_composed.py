"""The loss in JAX's own operations: for devices other than the CPU, and for derivatives that the core lacks."""

import jax.numpy as jnp
from jax import Array, lax

from .._options import LossOptions, Reduction
from ._alike import of_targets
from ._softmax import Scale, entropy, focal


def loss(options: LossOptions, axis: int, z: Array, t: Array, *weights: Array) -> Array:
    """The reduced loss; a row whose class index is out of range is NaN.

    The class that attains the maximum m, j, never enters a sum with the others: r sums exp(u - m) without it, and
    log1p(r) and r / (1 + r), which JAX derives from it, keep the digits that log(1 + r) and p - 1 would lose.
    """
    dtype, classes = row_dtype(z), z.shape[axis]
    z = jnp.moveaxis(z, axis, -1).astype(dtype)
    w, s = (array.astype(dtype) if array.size else None for array in weights)
    probabilities = t.ndim == z.ndim
    counted = counted_rows(options, z.shape[:-1], t, s)
    if not probabilities:
        known = ~counted | ((t >= 0) & (t < classes))
        t = jnp.where(counted & known, t, 0)
    z = jnp.where(counted[..., None], z, 0.0)  # rows that do not count may hold NaN
    u = z
    if options.softcap < jnp.inf:
        u = jnp.where(jnp.isinf(z), lax.stop_gradient(z), options.softcap * jnp.tanh(z / options.softcap))
    if options.temperature != 1.0:
        u = u / options.temperature

    top = jnp.arange(classes) == jnp.argmax(u, -1, keepdims=True)
    m = jnp.where(top, u, 0.0).sum(-1)  # its derivative goes to one class; that of `max` is shared among equal ones
    below = jnp.where(top, 0.0, m[..., None] - u)
    r = jnp.where(top, 0.0, jnp.exp(-below)).sum(-1)
    log_total = jnp.log1p(r) * jnp.where(jnp.isinf(m), jnp.nan, 1.0)  # nothing but -inf, or a +inf

    omega = jnp.ones_like(m) if w is None or probabilities else of_targets(w, t)
    scale = Scale(options.softcap, options.temperature)
    if options.focal_gamma > 0.0:
        losses = jnp.where(omega == 0, 0.0 * log_total, omega * focal(scale, options.focal_gamma, z, t))
    elif not probabilities and options.label_smoothing == 0.0:
        distance = jnp.take_along_axis(below, t[..., None], -1)[..., 0]
        losses = omega * (jnp.where(omega == 0, 0.0, distance) + log_total)
    else:
        if probabilities:
            q = jnp.moveaxis(t, axis, -1).astype(dtype)
            q = jnp.where(jnp.isfinite(q), q, jnp.nan)
        else:
            q = (jnp.arange(classes) == t[..., None]).astype(dtype)
        b = (1.0 - options.label_smoothing) * q + options.label_smoothing / classes
        b = b if w is None else b * w
        distance = jnp.where((b == 0) & jnp.isinf(below), 0.0, below)
        losses = (b * distance).sum(-1) + b.sum(-1) * log_total
    if options.z_loss > 0.0:
        losses = losses + options.z_loss * omega * (m + log_total) ** 2
    if options.entropy_bonus != 0.0:
        losses = losses - options.entropy_bonus * omega * entropy(scale, z)
    if not probabilities:
        losses = losses * jnp.where(known, 1.0, jnp.nan)
    weight = omega if s is None else omega * s
    losses = jnp.where(counted, losses if s is None else s * losses, 0.0)
    return reduced(options.reduction, losses, jnp.where(counted, weight, 0.0))


def counted_rows(options: LossOptions, rows: tuple[int, ...], t: Array, s: Array | None) -> Array:
    """Which rows count."""
    counted = jnp.ones(rows, bool) if s is None else s != 0
    return counted & ~ignored(options, t) if t.ndim == len(rows) else counted


def ignored(options: LossOptions, indices: Array) -> Array:
    """Which indices are `ignore_index`; none, if it is a number that their dtype cannot hold."""
    info = jnp.iinfo(indices.dtype)
    if options.ignore_index is None or not info.min <= options.ignore_index <= info.max:
        return jnp.zeros(indices.shape, bool)
    return indices == options.ignore_index


def reduced(reduction: Reduction, losses: Array, weights: Array) -> Array:
    """Reduce the losses of rows; the mean over nothing that counts is 0."""
    if reduction == "none":
        return losses
    total = losses.sum()
    if reduction == "sum":
        return total
    by, counts = divisor(weights)
    return jnp.where(counts, total / by, 0.0)


def divisor(weights: Array) -> tuple[Array, Array]:
    """What the mean divides by, and whether anything counts; then it is NaN if weights of both signs add up to 0."""
    total, counts = weights.sum(), jnp.any(weights != 0)
    # A NaN among what is not chosen would reach the gradient.
    return jnp.where(counts, jnp.where(total == 0, jnp.nan, total), 1.0), counts


def row_dtype(z: Array) -> jnp.dtype:
    """The dtype of losses. It is never half precision, which has only two or three digits."""
    return jnp.dtype(jnp.float64 if z.dtype == jnp.float64 else jnp.float32)
