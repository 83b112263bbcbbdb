"""Two models' rows: divergences from differences of logits, and the rules of their derivatives.

The student has logits z, after soft cap and temperature u, and probabilities p; the teacher y, v and q. All comes from
delta = log(p / q), found without the two logarithms: of nearly equal models these agree in almost all their digits.
None of it is differentiated: `_divergence_rules` has the derivatives.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ._softmax import Scale, at, difference, row, two_difference

# Below it log1p is not used. XLA's, in float64, is off by up to 3e-14 between -0.42 and -0.36.
_LOW = -0.3


class Scales(NamedTuple):
    student: Scale
    teacher: Scale


class Pair(NamedTuple):
    p: Array
    q: Array
    delta: Array  # log(p / q): -inf where only p is 0 for a logit of -inf, inf where only q is, 0 where both are
    excess: Array  # p - q, relative to q delta and not to q


@partial(jax.jit, static_argnums=0)  # traced once, not for each of the rules that need it
def pair(scales: Scales, z: Array, y: Array) -> Pair:
    """Find delta from D, the differences u - v relative to that of the likeliest class j of the teacher.

    exp(delta) = exp(D) / E, where E = sum q exp(D). What D is relative to is never added back.
    """
    student, teacher = row(scales.student, z), row(scales.teacher, y)
    p, q = student.p, teacher.p
    no_p, no_q = z == -jnp.inf, y == -jnp.inf
    j = jnp.argmax(jnp.where(no_p, -jnp.inf, y), -1)
    D = jnp.where(no_p | no_q, 0.0, _relative(scales, jnp.where(no_p, 0.0, z), jnp.where(no_q, 0.0, y), j))

    # E - 1; where D is large its exponential would overflow, and q may be 0: there q exp(D) = exp(u - u_j) q_j.
    over_j = at(student.gap, j)[..., None] - student.gap  # u - u_j
    q_j = at(q, j)[..., None]
    raised = jnp.exp(over_j) * q_j - q
    terms = jnp.where(D <= 1.0, q * jnp.expm1(jnp.minimum(D, 1.0)), raised)
    terms = jnp.where(no_p, -q, jnp.where(no_q, raised, terms))
    E = terms.sum(-1)
    # Far from 1 the logarithm of E keeps its digits as the difference of log p_j and log q_j.
    apart = at(student.gap, j) + student.log_total - at(teacher.gap, j) - teacher.log_total
    near = (E >= _LOW) & (E <= 1.0)
    log_E = jnp.where(near, jnp.log1p(jnp.where(near, E, 0.0)), apart)[..., None]

    delta = _marked(D - log_E, no_p, no_q)
    # The sum of p - q is 0. What it is tells how far log E was off, relative to the size of delta.
    off = jnp.log1p(_excess(p, q, delta).sum(-1, keepdims=True))
    delta = _marked(delta - off, no_p, no_q)
    bad = jnp.isnan(student.r) | jnp.isnan(teacher.r)  # one of them has +inf, or nothing but -inf
    delta = jnp.where(bad[..., None], jnp.nan, delta)
    return Pair(p, q, delta, _excess(p, q, delta))


def _relative(scales: Scales, z: Array, y: Array, j: Array) -> Array:
    """Return u - v, relative to that of class j, with the rounding errors of the differences carried along."""
    if scales.student == scales.teacher and scales.student.softcap < math.inf:
        d, error = difference(scales.student, z, y)  # the soft cap may round what is nearly equal to the same
    elif scales.student.softcap == scales.teacher.softcap == math.inf:
        d, error = two_difference(z, y)
    else:
        zero = jnp.zeros((), z.dtype)
        d, error = two_difference(*(difference(scale, x, zero)[0] for scale, x in zip(scales, (z, y), strict=True)))
    relative, rest = two_difference(d, at(d, j)[..., None])
    relative = relative + ((error - at(error, j)[..., None]) + rest)
    if scales.student.softcap == scales.teacher.softcap == math.inf:
        relative = difference(Scale(temperature=scales.student.temperature), relative, jnp.zeros((), z.dtype))[0]
    return relative


def _marked(delta: Array, no_p: Array, no_q: Array) -> Array:
    infinite = jnp.where(no_p, -jnp.inf, jnp.inf)
    return jnp.where(no_p & no_q, 0.0, jnp.where(no_p | no_q, infinite, delta))


def _excess(p: Array, q: Array, delta: Array) -> Array:
    return jnp.where(jnp.abs(delta) <= 0.35, q * jnp.expm1(delta), p - q)


# Of each class, from p, q and delta.


def kl_terms(b: Array, a: Array, x: Array) -> Array:
    """Compute b - a - a x where x = log(b / a): a (exp(x) - 1 - x), at least 0. Its sum is KL(a || b)."""
    small = jnp.abs(x) <= 1.0
    within, total = jnp.where(small, x, 0.0), jnp.ones_like(x)
    for k in range(20 if x.dtype == jnp.float64 else 12, 2, -1):
        total = 1.0 + within / k * total
    apart = jnp.where(x < 0.0, a * (jnp.expm1(jnp.minimum(x, 0.0)) - x), b - a - a * x)
    return jnp.where(a == 0, b, jnp.where(small, a * (0.5 * within * within * total), apart))


def mixed_terms(kappa: float, rest: float, a: Array, b: Array, x: Array) -> Array:
    """Compute a psi(kappa (b / a - 1)), psi(s) = s - log1p(s), where x = log(b / a) and rest = 1 - kappa."""
    ratio = jnp.where(x <= 1.0, jnp.expm1(jnp.minimum(x, 1.0)), (b - a) / jnp.where(a == 0, 1.0, a))
    s = kappa * ratio
    small = jnp.abs(s) <= 0.5
    within = jnp.where(small, s, 0.0)
    h = within / (2.0 + within)  # log1p(s) = 2 artanh(h), and s - 2 h = h s
    square, total = h * h, jnp.zeros_like(h)
    for k in range(41 if x.dtype == jnp.float64 else 17, 1, -2):
        total = 1.0 / k + square * total
    psi = jnp.where(small, h * (within - 2.0 * square * total), s - log_mixed(kappa, rest, x))
    return jnp.where(a == 0, kappa * b, a * psi)


def log_mixed(kappa: float, rest: float, x: Array) -> Array:
    """Compute log(rest + kappa exp(x)), rest = 1 - kappa, both above 0."""
    limit = math.log(float(jnp.finfo(x.dtype).max)) - 1.0
    within = kappa * jnp.expm1(jnp.minimum(x, limit))
    low = within < _LOW  # towards -1 the sum 1 + within would keep few of its digits
    of_low = jnp.log(jnp.where(low, rest + kappa * jnp.exp(jnp.minimum(x, 0.0)), 1.0))
    logarithm = jnp.where(low, of_low, jnp.log1p(jnp.where(low, 0.0, within)))
    return jnp.where(x > limit, jnp.logaddexp(math.log(rest), x + math.log(kappa)), logarithm)


def spread(weights: Array, values: Array) -> Array:
    """Compute w (sum w x - x). A value of -inf outweighs all others: there it is inf."""
    mean = (weights * jnp.where(weights == 0, 0.0, values)).sum(-1, keepdims=True)
    of_finite = weights * (mean - jnp.where(jnp.isneginf(values), 0.0, values))
    return jnp.where(weights == 0, 0.0, jnp.where(jnp.isneginf(values), jnp.inf, of_finite))
