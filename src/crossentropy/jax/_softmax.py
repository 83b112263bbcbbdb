"""The softmax of one model's logits, from differences of logits, and the rules of its derivatives.

Of logits z with the classes last, after soft cap and temperature u: p = softmax(u), m = max u, r the sum of exp(u - m)
without the class that attains it, A = sum p (m - u). What is differentiated is closed: the rule of each function is
made of the functions here, so that derivatives of every order exist and no digits are lost in the first. Derivatives
that JAX would take of the values lose them: p - 1, or an entropy's gradient expanded into powers of u.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero


class Scale(NamedTuple):
    """What is done to logits before the softmax. An infinite soft cap means none."""

    softcap: float = math.inf
    temperature: float = 1.0


class Row(NamedTuple):
    """Terms of rows. Those of one number a row have no class axis; rows with +inf, or nothing but -inf, are NaN."""

    top: Array  # a class that attains the maximum
    gap: Array  # m - u of each class, at least 0
    r: Array
    p: Array

    @property
    def log_total(self) -> Array:
        """Of all exp(u - m)."""
        return jnp.log1p(self.r)


@partial(jax.jit, static_argnums=0)  # traced once, not for each of the rules that need it
def row(scale: Scale, z: Array) -> Row:
    top = jnp.argmax(z, -1)
    m = at(z, top)
    m = jnp.where(jnp.isinf(m), jnp.nan, m)
    gap, error = difference(scale, m[..., None], z)
    is_top = jnp.arange(z.shape[-1]) == top[..., None]
    exponentials = jnp.where(is_top, 1.0, jnp.exp(-gap) * (1.0 - error))
    r = jnp.where(jnp.isnan(m), jnp.nan, jnp.where(is_top, 0.0, exponentials).sum(-1))
    return Row(top, jnp.where(is_top, 0.0, gap), r, exponentials / (1.0 + r[..., None]))


def at(values: Array, index: Array) -> Array:
    """The value of one class of each row."""
    return jnp.take_along_axis(values, index[..., None], -1)[..., 0]


def two_difference(a: Array, b: Array) -> tuple[Array, Array]:
    """The difference, and what rounding took from it; 0 where that is not finite. (Knuth, TAOCP 2, section 4.2.2.)"""
    d = a - b
    back = d - a
    error = (a - (d - back)) - (b + back)
    return d, jnp.where(jnp.isfinite(d), error, 0.0)


def difference(scale: Scale, a: Array, b: Array) -> tuple[Array, Array]:
    """u(a) - u(b) to its own digits, and the rest that rounding left. The soft cap leaves infinite logits alone."""
    d, error = two_difference(a, b)
    if scale.softcap < math.inf:
        # tanh x - tanh y, x > y, is the product below; both tanh may round to 1.
        cap = held(scale.softcap, a.dtype)
        x, y = jnp.maximum(a, b) / cap, jnp.minimum(a, b) / cap
        size = (
            -jnp.expm1(-2.0 * (jnp.abs(d) + jnp.sign(d) * error) / cap) * jax.nn.sigmoid(2 * x) * jax.nn.sigmoid(-2 * y)
        )
        capped = jnp.sign(d) * 2.0 * size * held(scale.softcap / scale.temperature, a.dtype)
        return jnp.where(jnp.isinf(d) | jnp.isnan(d), d, capped), jnp.zeros_like(d)
    if scale.temperature != 1.0:
        temperature = held(scale.temperature, a.dtype)
        return d / temperature, error / temperature
    return d, error


def slope(scale: Scale, z: Array) -> Array | float:
    """du/dz; 0 under a soft cap where z is infinite."""
    if scale.softcap == math.inf:
        return 1.0 / held(scale.temperature, z.dtype)
    x = 2.0 * z / held(scale.softcap, z.dtype)
    return 4.0 * jax.nn.sigmoid(x) * jax.nn.sigmoid(-x) / held(scale.temperature, z.dtype)


def held(option: float, dtype: Any) -> float:
    """The nearest number to an option that a dtype holds: float32 has neither 1e-100 nor 1e100."""
    info = jnp.finfo(dtype)
    return min(max(option, float(info.tiny)), float(info.max))


# Derivatives. Tangents are of z; `dot` is that of u, or None where the logits do not move.


def dot(scale: Scale, z: Array, dz: Any) -> Array | None:
    return None if isinstance(dz, SymbolicZero) else slope(scale, z) * dz


def change_of_log(p: Array, u_dot: Array | None) -> Array | float:
    """The change of log p. A class of more than half of the mass is taken out first: 1 - p would lose its digits."""
    if u_dot is None:
        return 0.0
    top = jnp.argmax(p, -1, keepdims=True)
    leads = jnp.take_along_axis(p, top, -1) > 0.5
    relative = u_dot - jnp.where(leads, jnp.take_along_axis(u_dot, top, -1), 0.0)
    return relative - (p * relative).sum(-1, keepdims=True)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def probabilities(scale: Scale, z: Array) -> Array:
    """The softmax of u."""
    return row(scale, z).p


@probabilities.defjvp
def _(scale: Scale, primals: Any, tangents: Any) -> tuple[Array, Array]:
    p = probabilities(scale, *primals)
    return p, p * change_of_log(p, dot(scale, *primals, *tangents))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def entropy_gradient(scale: Scale, z: Array) -> Array:
    """The gradient of the entropy with respect to u: p ((m - u) - A), never expanded."""
    of = row(scale, z)
    gap = jnp.where(of.p == 0, 0.0, of.gap)
    return of.p * (gap - (of.p * gap).sum(-1, keepdims=True))


@entropy_gradient.defjvp
def _(scale: Scale, primals: Any, tangents: Any) -> tuple[Array, Array]:
    p, g = probabilities(scale, *primals), entropy_gradient(scale, *primals)
    u_dot = dot(scale, *primals, *tangents)
    return g, (g - p) * change_of_log(p, u_dot) - p * (g * u_dot).sum(-1, keepdims=True)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def log_probs_and_entropy(scale: Scale, z: Array, t: Array) -> tuple[Array, Array]:
    """The log-probabilities of classes t in range, of shape rows + (K,); and the entropies."""
    of = row(scale, z)
    gap = jnp.where(of.p == 0, 0.0, of.gap)
    log_p = -(jnp.take_along_axis(of.gap, t, -1) + of.log_total[..., None])
    return log_p, of.log_total + (of.p * gap).sum(-1)


@log_probs_and_entropy.defjvp
def _(scale: Scale, primals: Any, tangents: Any) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    z, t = primals
    u_dot = dot(scale, z, tangents[0])
    changes = change_of_log(probabilities(scale, z), u_dot)
    entropy_dot = (entropy_gradient(scale, z) * u_dot).sum(-1)
    return log_probs_and_entropy(scale, z, t), (jnp.take_along_axis(changes, t, -1), entropy_dot)


def entropy(scale: Scale, z: Array) -> Array:
    """The entropies alone."""
    none = jnp.zeros((*z.shape[:-1], 0), jnp.int32)
    return log_probs_and_entropy(scale, z, none)[1]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_odds(scale: Scale, z: Array, t: Array) -> Array:
    """The log odds against class t of each row, log((1 - p) / p); some other class is finite."""
    rest = jnp.where(jnp.arange(z.shape[-1]) == t[..., None], -jnp.inf, z)
    of = row(scale, rest)
    return difference(scale, at(rest, of.top), at(z, t))[0] + of.log_total


@_log_odds.defjvp
def _(scale: Scale, primals: Any, tangents: Any) -> tuple[Array, Array]:
    z, t = primals
    u_dot = dot(scale, z, tangents[0])
    rest = jnp.where(jnp.arange(z.shape[-1]) == t[..., None], -jnp.inf, z)
    return _log_odds(scale, z, t), (probabilities(scale, rest) * u_dot).sum(-1) - at(u_dot, t)


def focal(scale: Scale, gamma: float, z: Array, t: Array) -> Array:
    """Compute (1 - p)^gamma (-log p) of the class t of each row, for gamma above 0.

    It is a function of the log odds alone, whose derivatives are sums of terms of one sign.
    """
    others = jnp.where(jnp.arange(z.shape[-1]) == t[..., None], -jnp.inf, z)
    alone = (others == -jnp.inf).all(-1)  # 1 - p is 0, and the other classes have no softmax
    log_odds = _log_odds(scale, jnp.where(alone[..., None], 0.0, z), t)
    impossible = log_odds == jnp.inf
    x = jnp.where(impossible, 0.0, log_odds)
    losses = jnp.exp(-gamma * jax.nn.softplus(-x)) * jax.nn.softplus(x)
    return jnp.where(alone, 0.0, jnp.where(impossible, log_odds, losses))
