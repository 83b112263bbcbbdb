"""The core as a call that XLA compiles, and its derivatives."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .. import _core
from .._config import resolve_threads
from .._evaluate import REDUCTION_CODES
from .._options import LossOptions
from . import _composed
from ._composed import row_dtype

# In place of weights that are not given.
NONE = np.zeros(0, np.float32)
_TARGET = "crossentropy_loss"
jax.ffi.register_ffi_target(_TARGET, _core.xla_loss, platform="cpu")


def _from_core(
    options: LossOptions, axis: int, batch: int, z: Array, t: Array, w: Array, s: Array, g: Array, *, gradient: bool
) -> tuple[Array, ...]:
    """Losses of problems along the first `batch` axes, and their gradients times g if wanted."""
    axes = z.shape[batch:]
    rows = axes[:axis] + axes[axis + 1 :] if options.reduction == "none" else ()
    results = [jax.ShapeDtypeStruct(z.shape[:batch] + rows, row_dtype(z))]
    if gradient:
        results.append(jax.ShapeDtypeStruct(z.shape, z.dtype))
    attributes = {
        "axes": np.int64(len(axes)),
        "axis": np.int64(axis),
        "label_smoothing": np.float64(options.label_smoothing),
        "z_loss": np.float64(options.z_loss),
        "softcap": np.float64(options.softcap),
        "temperature": np.float64(options.temperature),
        "reduction": np.int64(REDUCTION_CODES[options.reduction]),
        "num_threads": np.int64(resolve_threads(None)),
    }
    if options.ignore_index is not None:
        attributes["ignore_index"] = np.int64(options.ignore_index)
    return tuple(jax.ffi.ffi_call(_TARGET, results, vmap_method="broadcast_all")(z, t, w, s, g, **attributes))


def _composed_gradient(options: LossOptions, axis: int, z: Array, *rest: Array) -> Array:
    *others, g = rest
    value, vjp = jax.vjp(lambda z: _composed.loss(options, axis, z, *others), z)
    return vjp(jnp.broadcast_to(g, value.shape).astype(value.dtype))[0]


def _composed_tangent(options: LossOptions, axis: int, z: Array, *rest: Array) -> Array:
    *others, v = rest
    return jax.jvp(lambda z: _composed.loss(options, axis, z, *others), (z,), (v,))[1]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def loss(options: LossOptions, axis: int, z: Array, t: Array, w: Array, s: Array) -> Array:
    """The reduced loss of logits z, targets t, class weights w and sample weights s (size 0: none).

    The classes are on `axis`, which is not negative.
    """
    return lax.platform_dependent(
        z,
        t,
        w,
        s,
        cpu=lambda *arrays: _from_core(options, axis, 0, *arrays, NONE, gradient=False)[0],
        default=partial(_composed.loss, options, axis),
    )


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _loss_and_gradient(options: LossOptions, axis: int, *arrays: Array) -> tuple[Array, Array]:
    def composed(*arrays: Array) -> tuple[Array, Array]:
        return _composed.loss(options, axis, *arrays), _composed_gradient(options, axis, *arrays, jnp.ones(()))

    return lax.platform_dependent(
        *arrays,
        cpu=lambda *arrays: _from_core(options, axis, 0, *arrays, NONE, gradient=True),
        default=composed,
    )


@_loss_and_gradient.defjvp
def _(options: LossOptions, axis: int, primals: Any, tangents: Any) -> tuple[Any, Any]:
    def composed(*arrays: Array) -> tuple[Array, Array]:
        return _composed.loss(options, axis, *arrays), _composed_gradient(options, axis, *arrays, jnp.ones(()))

    return _loss_and_gradient(options, axis, *primals), jax.jvp(composed, primals, tangents)[1]


@partial(loss.defjvp, symbolic_zeros=True)
def _(options: LossOptions, axis: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    z, *others = primals
    dz, *others_dot = (None if isinstance(tangent, SymbolicZero) else tangent for tangent in tangents)
    if dz is not None and z.dtype == row_dtype(z):
        # One pass makes both, for an upstream gradient of 1, which XLA leaves out where it is one.
        value, gradient = _loss_and_gradient(options, axis, *primals)
        tangent = (gradient * dz).sum(axis if options.reduction == "none" else None)
    else:
        value = loss(options, axis, *primals)
        tangent = jnp.zeros_like(value) if dz is None else tangent_p.bind(*primals, dz, options=options, axis=axis, batch=0)
    known = {i: other for i, other in enumerate(others_dot) if other is not None and other.dtype != jax.dtypes.float0}
    if known:  # probabilities or weights
        of_others = _partial(partial(_composed.loss, options, axis, z), others, list(known))
        tangent += jax.jvp(of_others, [others[i] for i in known], list(known.values()))[1]
    return value, tangent


def _partial(function: Callable[..., Array], values: list[Array], places: list[int]) -> Callable[..., Array]:
    """The function of the values at some places, the others fixed."""

    def of_places(*given: Array) -> Array:
        full = list(values)
        for place, value in zip(places, given, strict=True):
            full[place] = value
        return function(*full)

    return of_places


# The tangent of a loss is linear in the tangent v of its logits, the gradient in what multiplies it, g: each is the
# other transposed. So what multiplies a gradient enters the core, before the gradient is rounded.

tangent_p = Primitive("crossentropy_tangent")  # z, t, w, s, v
gradient_p = Primitive("crossentropy_gradient")  # z, t, w, s, g


def _gradient(*arrays: Array, options: LossOptions, axis: int, batch: int) -> Array:
    return lax.platform_dependent(
        *arrays,
        cpu=lambda *arrays: _from_core(options, axis, batch, *arrays, gradient=True)[1],
        default=_mapped(partial(_composed_gradient, options, axis), batch),
    )


def _tangent(z: Array, *rest: Array, options: LossOptions, axis: int, batch: int) -> Array:
    *others, v = rest
    wide = z.astype(row_dtype(z))
    per_row = options.reduction == "none"
    rows = tuple(n for i, n in enumerate(z.shape) if i != batch + axis) if per_row else z.shape[:batch]
    gradient = _gradient(wide, *others, jnp.ones(rows, wide.dtype), options=options, axis=axis, batch=batch)
    return (gradient * v.astype(wide.dtype)).sum(batch + axis if per_row else tuple(range(batch, z.ndim)))


def _mapped(function: Callable[..., Array], batch: int) -> Callable[..., Array]:
    for _ in range(batch):
        function = jax.vmap(function)
    return function


def _define(
    primitive: Primitive, transposed: Primitive, function: Callable[..., Array], composed: Callable[..., Array]
) -> None:
    """Give a primitive its value, its derivatives, its transpose and its batches."""

    def aval(*arrays: Any, **parameters: Any) -> Any:
        result = jax.eval_shape(partial(function, **parameters), *arrays)
        return jax.core.ShapedArray(result.shape, result.dtype)

    def jvp(primals: Any, tangents: Any, *, options: LossOptions, axis: int, batch: int) -> tuple[Array, Any]:
        bind = partial(primitive.bind, options=options, axis=axis, batch=batch)
        value, tangent = bind(*primals), None
        if not isinstance(tangents[-1], ad.Zero):
            tangent = bind(*primals[:-1], tangents[-1])
        known = [i for i, dot in enumerate(tangents[:-1]) if not isinstance(dot, ad.Zero)]
        if known:
            of_known = _partial(_mapped(partial(composed, options, axis), batch), list(primals), known)
            more = jax.jvp(of_known, [primals[i] for i in known], [tangents[i] for i in known])[1]
            tangent = more if tangent is None else tangent + more
        return value, ad.Zero.from_primal_value(value) if tangent is None else tangent

    def transpose(cotangent: Array, *arrays: Any, **parameters: Any) -> list[Any]:
        return [*[None] * (len(arrays) - 1), transposed.bind(*arrays[:-1], cotangent, **parameters)]

    def map_over(arrays: Any, axes: Any, *, batch: int, **parameters: Any) -> tuple[Array, int]:
        size = next(array.shape[d] for array, d in zip(arrays, axes, strict=True) if d is not batching.not_mapped)
        front = (batching.bdim_at_front(array, d, size) for array, d in zip(arrays, axes, strict=True))
        return primitive.bind(*front, batch=batch + 1, **parameters), 0

    primitive.def_impl(jax.jit(function, static_argnames=("options", "axis", "batch")))
    primitive.def_abstract_eval(aval)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = map_over


_define(tangent_p, gradient_p, _tangent, _composed_tangent)
_define(gradient_p, tangent_p, _gradient, _composed_gradient)
