"""The loss as primitives of JAX: called from the core by XLA on the CPU, composed elsewhere, and their derivatives.

Of logits z, targets t, class weights w and sample weights s there are

    loss_p      z, t, w, s      the reduced loss
    both_p      z, t, w, s      the loss and its gradient, in one pass
    gradient_p  z, t, w, s, g   the gradient times g, before it is rounded
    tangent_p   z, t, w, s, v   how the loss changes along v: linear in v, as the gradient is in g, and its transpose

Second and further derivatives are those of the composed loss. (With `jax.custom_jvp` the rules would be lost where JAX
evaluates a function in part, as for `jax.checkpoint`: what is left there is a foreign call, which has no derivative.)
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .._options import LossOptions
from . import _composed
from ._alike import alike
from ._composed import row_dtype
from ._foreign import by_rows, can_be_partitioned, is_partitioned, over_batch, type_of_losses, whole


def loss(options: LossOptions, axis: int, z: Array, t: Array, w: Array, s: Array, *, overwrite: bool = False) -> Array:
    """The reduced loss; the classes are on `axis`, which is not negative.

    With `overwrite` the gradient takes the memory of the logits, where they are read once. XLA copies them before,
    should anyone still need them.
    """
    return loss_p.bind(*alike(z, t, w, s), options=options, axis=axis, batch=0, overwrite=overwrite and _one_pass(z))[0]


# Values: of problems along the first `batch` axes, one a problem. `core` is `whole` or `by_rows` of `_foreign`.

_Values = Callable[..., list[Array]]


def _loss(core: _Values, *arguments: Any) -> list[Array]:
    return core(*arguments)


def _both(core: _Values, *arguments: Any) -> list[Array]:
    return core(*arguments, gradient=True)


def _gradient(core: _Values, *arguments: Any) -> list[Array]:
    return core(*arguments, gradient=True)[1:]


def _tangent(
    core: _Values, options: LossOptions, axis: int, batch: int, overwrite: bool, z: Array, *rest: Array
) -> list[Array]:
    *others, v = rest
    wide = z.astype(row_dtype(z))
    gradient = core(options, axis, batch, overwrite, wide, *others, gradient=True)[1]
    over = batch + axis if options.reduction == "none" else tuple(range(batch, z.ndim))
    return [(gradient * v.astype(wide.dtype)).sum(over)]


def _composed_loss(options: LossOptions, axis: int, *arrays: Array) -> list[Array]:
    return [_composed.loss(options, axis, *arrays)]


def _composed_gradient(options: LossOptions, axis: int, z: Array, *rest: Array) -> list[Array]:
    *others, g = rest
    value, vjp = jax.vjp(lambda z: _composed.loss(options, axis, z, *others), z)
    return [vjp((g * jnp.ones_like(value)).astype(value.dtype))[0]]


def _composed_both(options: LossOptions, axis: int, *arrays: Array) -> list[Array]:
    ones = jnp.ones((), row_dtype(arrays[0]))
    return [_composed.loss(options, axis, *arrays), *_composed_gradient(options, axis, *arrays, ones)]


def _composed_tangent(options: LossOptions, axis: int, z: Array, *rest: Array) -> list[Array]:
    *others, v = rest
    return [jax.jvp(lambda z: _composed.loss(options, axis, z, *others), (z,), (v,))[1]]


# Derivatives.


def _of_some(function: Callable[..., list[Array]], values: Sequence[Any], places: Sequence[int]) -> Callable[..., Any]:
    """The function of only the arguments at some places, the others fixed."""

    def of_places(*given: Array) -> list[Array]:
        full = list(values)
        for place, value in zip(places, given, strict=True):
            full[place] = value
        return function(*full)

    return of_places


def _composed_jvp(function: Callable[..., list[Array]], primals: Any, tangents: Any) -> list[Any] | None:
    """The tangents of a composed function, or None where no argument has one."""
    moving = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]
    if not moving:
        return None
    of_moving = _of_some(function, primals, moving)
    return jax.jvp(of_moving, [primals[i] for i in moving], [tangents[i] for i in moving])[1]


def _loss_jvp(primals: Any, tangents: Any, **parameters: Any) -> tuple[list[Array], list[Any]]:
    z, *others = primals
    dz, *others_dot = tangents
    if isinstance(dz, ad.Zero):
        values = loss_p.bind(*primals, **parameters)
        found = None
    elif _one_pass(z):
        *values, gradient = both_p.bind(*primals, **parameters)
        batch, axis = parameters["batch"], parameters["axis"]
        over = batch + axis if parameters["options"].reduction == "none" else tuple(range(batch, z.ndim))
        found = [(gradient * dz).sum(over)]
    else:
        values = loss_p.bind(*primals, **parameters)
        found = tangent_p.bind(*primals, dz, **parameters)
    of_others = _mapped(_composed_loss, **parameters)
    more = _composed_jvp(lambda *others: of_others(z, *others), others, others_dot)
    return values, _sum(values, found, more)


def _one_pass(z: Array) -> bool:
    """Whether the gradient for an upstream gradient of 1 is made with the loss, and multiplied by another one later.

    Not in half precision, where the product would be rounded again.
    """
    return z.dtype == row_dtype(z)


def _both_jvp(primals: Any, tangents: Any, **parameters: Any) -> tuple[list[Array], list[Any]]:
    values = both_p.bind(*primals, **parameters)
    return values, _sum(values, _composed_jvp(_mapped(_composed_both, **parameters), primals, tangents), None)


def _linear_jvp(
    primitive: Primitive, composed: Callable[..., list[Array]], primals: Any, tangents: Any, **parameters: Any
) -> tuple[list[Array], list[Any]]:
    """Of a primitive that is linear in its last argument."""
    values = primitive.bind(*primals, **parameters)
    found = None
    if not isinstance(tangents[-1], ad.Zero):
        found = primitive.bind(*primals[:-1], tangents[-1], **parameters)
    of_others = _mapped(composed, **parameters)
    more = _composed_jvp(lambda *others: of_others(*others, primals[-1]), primals[:-1], tangents[:-1])
    return values, _sum(values, found, more)


def _sum(values: list[Array], a: list[Array] | None, b: list[Array] | None) -> list[Any]:
    if a is None or b is None:
        return a or b or [ad.Zero.from_primal_value(value) for value in values]
    return [x + y for x, y in zip(a, b, strict=True)]


def _transpose(transposed: Primitive, cotangents: Any, *arrays: Any, **parameters: Any) -> list[Any]:
    return [*[None] * (len(arrays) - 1), *transposed.bind(*arrays[:-1], *cotangents, **parameters)]


# Primitives.


def _mapped(
    composed: Callable[..., list[Array]], *, options: LossOptions, axis: int, batch: int, overwrite: bool
) -> Callable[..., list[Array]]:
    """A composed function, of batches. Whose memory its results take is XLA's to say."""
    return over_batch(partial(composed, options, axis), batch)


def _primitive(
    name: str,
    values: _Values,
    composed: Callable[..., list[Array]],
    jvp: Callable[..., Any] | None = None,
    *,
    loss: bool = False,
    gradient: bool = False,
) -> Primitive:
    """A primitive whose results are a loss, a gradient, or both; linear in its last argument if no `jvp` is given."""
    primitive = Primitive(f"crossentropy_{name}")
    primitive.multiple_results = True

    def anywhere(*arrays: Array, **parameters: Any) -> list[Array]:
        return _mapped(composed, **parameters)(*arrays)

    def on_cpu(context: Any, *operands: Any, **parameters: Any) -> Any:
        core: _Values = whole
        if is_partitioned(context):
            if not can_be_partitioned(parameters["options"], *context.avals_in[:3]):
                return mlir.lower_fun(anywhere)(context, *operands, **parameters)
            core = by_rows

        def function(*arrays: Array, options: LossOptions, axis: int, batch: int, overwrite: bool) -> list[Array]:
            return values(core, options, axis, batch, overwrite, *arrays)

        return mlir.lower_fun(function)(context, *operands, **parameters)

    def types(z: Any, *_: Any, options: LossOptions, axis: int, batch: int, overwrite: bool) -> list[Any]:
        return [type_of_losses(options, axis, batch, z)] * loss + [z] * gradient

    def map_over(arrays: Any, axes: Any, *, batch: int, **parameters: Any) -> tuple[list[Array], list[int]]:
        size = next(array.shape[d] for array, d in zip(arrays, axes, strict=True) if d is not None)
        front = (batching.bdim_at_front(array, d, size) for array, d in zip(arrays, axes, strict=True))
        return primitive.bind(*front, batch=batch + 1, **parameters), [0] * (loss + gradient)

    primitive.def_impl(jax.jit(primitive.bind, static_argnames=("options", "axis", "batch", "overwrite")))
    primitive.def_abstract_eval(types)
    mlir.register_lowering(primitive, mlir.lower_fun(anywhere))
    mlir.register_lowering(primitive, on_cpu, platform="cpu")
    ad.primitive_jvps[primitive] = jvp or partial(_linear_jvp, primitive, composed)
    batching.primitive_batchers[primitive] = map_over
    return primitive


loss_p = _primitive("loss", _loss, _composed_loss, _loss_jvp, loss=True)
both_p = _primitive("loss_and_gradient", _both, _composed_both, _both_jvp, loss=True, gradient=True)
gradient_p = _primitive("gradient", _gradient, _composed_gradient, gradient=True)
tangent_p = _primitive("tangent", _tangent, _composed_tangent, loss=True)
ad.primitive_transposes[gradient_p] = partial(_transpose, tangent_p)
ad.primitive_transposes[tangent_p] = partial(_transpose, gradient_p)
