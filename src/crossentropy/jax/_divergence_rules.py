"""Divergences of two models' rows as functions that JAX differentiates, to any order.

As in `_softmax`, they are closed: the rule of each function is made of the functions here. In the rules u and v are the
changes of log p and log q along the tangents, `u_dot` and `v_dot` those of the scaled logits.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from ._pairs import Scales, kl_terms, log_mixed, mixed_terms, pair, spread
from ._softmax import change_of_log, dot, probabilities


class Moves(NamedTuple):
    """What tangents of both logits change. All is 0.0 of logits that do not move."""

    p: Array
    q: Array
    u_dot: Array | float
    v_dot: Array | float
    u: Array | float
    v: Array | float


def _moves(scales: Scales, primals: Any, tangents: Any) -> Moves:
    dots = [dot(scale, x, dx) for scale, x, dx in zip(scales, primals, tangents, strict=True)]
    p, q = (probabilities(scale, x) for scale, x in zip(scales, primals, strict=True))
    u_dot, v_dot = (0.0 if d is None else d for d in dots)
    return Moves(p, q, u_dot, v_dot, change_of_log(p, dots[0]), change_of_log(q, dots[1]))


Rule = Callable[..., Array | float]


def _function(rule: Rule) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Decorate a function of scales, beta, and both logits: the rule takes the same and the moves.

    Where logits do not move their gradient is not computed: it may be infinite, and 0 times it NaN.
    """

    def decorate(function: Callable[..., Array]) -> Callable[..., Array]:
        differentiable = jax.custom_jvp(function, nondiff_argnums=(0, 1))

        def jvp(scales: Scales, beta: float, primals: Any, tangents: Any) -> tuple[Array, Array]:
            value = differentiable(scales, beta, *primals)
            if all(isinstance(tangent, SymbolicZero) for tangent in tangents):
                return value, jnp.zeros_like(value)
            change = rule(scales, beta, *primals, _moves(scales, primals, tangents))
            return value, jnp.broadcast_to(change, value.shape).astype(value.dtype)

        differentiable.defjvp(jvp, symbolic_zeros=True)
        return differentiable

    return decorate


def _along(gradient: Callable[..., Array], at: Any, tangent: Array | float) -> Array | float:
    """How a sum changes along a tangent, one number a row."""
    return 0.0 if isinstance(tangent, float) else (gradient(*at) * tangent).sum(-1, keepdims=True)


# Kullback and Leibler's divergences. (They have no beta; it is there for the rules to be alike.)


def _excess_rule(scales: Scales, beta: float, z: Array, y: Array, by: Moves) -> Array:
    return by.p * by.u - by.q * by.v


@_function(_excess_rule)
def excess(scales: Scales, beta: float, z: Array, y: Array) -> Array:
    """Compute p - q, the gradient of the forward divergence by u, and of the reverse one by -v."""
    return pair(scales, z, y).excess


def _teachers_rule(scales: Scales, beta: float, z: Array, y: Array, by: Moves) -> Array:
    here = (scales, beta, z, y)
    change = _along(excess, here, by.u_dot) + _along(teachers_forward, here, by.v_dot)
    return teachers_forward(*here) * by.v - by.q * (by.u - by.v + change)


@_function(_teachers_rule)
def teachers_forward(scales: Scales, beta: float, z: Array, y: Array) -> Array:
    """The gradient of the forward divergence by v."""
    of = pair(scales, z, y)
    return spread(of.q, of.delta)


def _students_rule(scales: Scales, beta: float, z: Array, y: Array, by: Moves) -> Array:
    here = (scales, beta, z, y)
    change = _along(students_reverse, here, by.u_dot) - _along(excess, here, by.v_dot)
    return students_reverse(*here) * by.u + by.p * (by.u - by.v - change)


@_function(_students_rule)
def students_reverse(scales: Scales, beta: float, z: Array, y: Array) -> Array:
    """The gradient of the reverse divergence by u."""
    of = pair(scales, z, y)
    return spread(of.p, -of.delta)


def _forward_rule(*at: Any) -> Array | float:
    *here, by = at
    return _one(_along(excess, here, by.u_dot) + _along(teachers_forward, here, by.v_dot))


@_function(_forward_rule)
def forward(scales: Scales, beta: float, z: Array, y: Array) -> Array:
    """KL(q || p), the teacher's q first."""
    of = pair(scales, z, y)
    return kl_terms(of.p, of.q, of.delta).sum(-1)


def _reverse_rule(*at: Any) -> Array | float:
    *here, by = at
    return _one(_along(students_reverse, here, by.u_dot) - _along(excess, here, by.v_dot))


@_function(_reverse_rule)
def reverse(scales: Scales, beta: float, z: Array, y: Array) -> Array:
    """KL(p || q)."""
    of = pair(scales, z, y)
    return kl_terms(of.q, of.p, -of.delta).sum(-1)


# Jensen and Shannon's, of the mixture m = beta q + (1 - beta) p.


def _share_rule(scales: Scales, beta: float, z: Array, y: Array, by: Moves) -> Array:
    a = teachers_share(scales, beta, z, y)
    return a * (1.0 - a) * (by.v - by.u)


@_function(_share_rule)
def teachers_share(scales: Scales, beta: float, z: Array, y: Array) -> Array:
    """What the teacher has of the mixture, beta q / m."""
    return jax.nn.sigmoid(math.log(beta) - math.log1p(-beta) - pair(scales, z, y).delta)


def _students_mixed_rule(scales: Scales, beta: float, z: Array, y: Array, by: Moves) -> Array:
    here = (scales, beta, z, y)
    g = students_mixed(*here)
    change = teachers_share(*here) * (by.v - by.u)  # of log(m / p)
    mean = (by.p * change).sum(-1, keepdims=True) - (g * by.u).sum(-1, keepdims=True) / (1.0 - beta)
    return g * by.u + (1.0 - beta) * by.p * (mean - change)


@_function(_students_mixed_rule)
def students_mixed(scales: Scales, beta: float, z: Array, y: Array) -> Array:
    """The gradient by u."""
    of = pair(scales, z, y)
    return (1.0 - beta) * spread(of.p, log_mixed(beta, 1.0 - beta, -of.delta))


def _teachers_mixed_rule(scales: Scales, beta: float, z: Array, y: Array, by: Moves) -> Array:
    here = (scales, beta, z, y)
    g = teachers_mixed(*here)
    change = (1.0 - teachers_share(*here)) * (by.u - by.v)  # of log(m / q)
    mean = (by.q * change).sum(-1, keepdims=True) - (g * by.v).sum(-1, keepdims=True) / beta
    return g * by.v + beta * by.q * (mean - change)


@_function(_teachers_mixed_rule)
def teachers_mixed(scales: Scales, beta: float, z: Array, y: Array) -> Array:
    """The gradient by v."""
    of = pair(scales, z, y)
    return beta * spread(of.q, log_mixed(1.0 - beta, beta, of.delta))


def _mixture_rule(*at: Any) -> Array | float:
    *here, by = at
    return _one(_along(students_mixed, here, by.u_dot) + _along(teachers_mixed, here, by.v_dot))


@_function(_mixture_rule)
def mixture(scales: Scales, beta: float, z: Array, y: Array) -> Array:
    """Compute beta KL(q || m) + (1 - beta) KL(p || m)."""
    of = pair(scales, z, y)
    of_teacher = beta * mixed_terms(1.0 - beta, beta, of.q, of.p, of.delta)
    return (of_teacher + (1.0 - beta) * mixed_terms(beta, 1.0 - beta, of.p, of.q, -of.delta)).sum(-1)


def _one(change: Array | float) -> Array | float:
    """Without the class axis, that `_along` keeps."""
    return change if isinstance(change, float) else change[..., 0]
