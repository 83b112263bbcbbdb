"""Class indices out of range where several devices run one program: an error on all of them.

A foreign call that failed on one device alone would leave the others waiting for it in the next collective, until the
runtime ends the process. So what is wrong is joined first, and every device is told the same.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from .. import _core
from .._options import LossOptions
from ._alike import is_checked, manual_axes, varying
from ._composed import ignored
from ._foreign import attribute, is_partitioned, over_batch
from ._indices import is_traced

_TARGET = "crossentropy_raise"
jax.ffi.register_ffi_target(_TARGET, _core.xla_raise, platform="cpu")


def in_range(options: LossOptions, classes: int, t: Array) -> Array:
    """Return targets as they are. What uses them waits until the class indices of all devices are known to be in range.

    What is known was looked at before. One device looks itself, in the core. So it does under `jax.shard_map` without
    its check of what varies, where it is not known which devices to ask: there a row whose index is out of range is
    NaN.
    """
    if not is_traced(t) or not jnp.issubdtype(t.dtype, jnp.integer):
        return t
    if not manual_axes():
        return _in_range_p.bind(t, options=options, classes=classes, batch=0)[0]
    return _raised(t, *_first_bad(options, classes, t), options, classes) if is_checked() else t


def _first_bad(options: LossOptions, classes: int, t: Array) -> tuple[Array, Array]:
    """The first row whose index is out of range and that index; beyond all rows if there is none."""
    axes = tuple(sorted(varying(t)))

    def lowest(values: Array, none: int) -> Array:
        lowest = values.min(initial=none)
        return lax.pmin(lowest, axes) if axes else lowest

    bad = ~(ignored(options, t) | ((t >= 0) & (t < classes)))
    with jax.enable_x64(True):
        row = jnp.arange(t.size).reshape(t.shape)
        first = lowest(jnp.where(bad, row, t.size), t.size)
        none = jnp.iinfo(row.dtype).max
        return first, lowest(jnp.where(bad & (row == first), t.astype(row.dtype), none), none)


def _raised(t: Array, row: Array, index: Array, options: LossOptions, classes: int) -> Array:
    return _raised_p.bind(t, row, index, options=options, classes=classes, batch=0)[0]


def _raise(t: Array, row: Array, index: Array, *, options: LossOptions, classes: int, batch: int) -> list[Array]:
    rows = math.prod(t.shape[batch:])
    if batch:
        row, index = row.ravel(), index.ravel()
        one = jnp.argmin(row)
        row, index = row[one], index[one]
    call = jax.ffi.ffi_call(_TARGET, jax.ShapeDtypeStruct((), np.int32))
    ignored = attribute(options.ignore_index)
    nothing = call(row, index, rows=np.int64(rows), classes=np.int64(classes), ignore_index=ignored)
    return [t + nothing.astype(t.dtype)]


def _of_partitioned(context: Any, t: Any, *, options: LossOptions, classes: int, batch: int) -> Any:
    if not is_partitioned(context):
        return [t]

    def function(t: Array) -> list[Array]:
        of_batch = over_batch(partial(_first_bad, options, classes), batch)
        return _raise(t, *of_batch(t), options=options, classes=classes, batch=batch)

    return mlir.lower_fun(function)(context, t)


def _primitive(name: str, on_cpu: Any) -> Primitive:
    """A primitive whose result is its first operand."""
    primitive = Primitive(f"crossentropy_{name}")
    primitive.multiple_results = True

    def map_over(arrays: Any, axes: Any, *, batch: int, **parameters: Any) -> tuple[list[Array], list[int]]:
        size = next(array.shape[d] for array, d in zip(arrays, axes, strict=True) if d is not None)
        front = (batching.bdim_at_front(array, d, size) for array, d in zip(arrays, axes, strict=True))
        return primitive.bind(*front, batch=batch + 1, **parameters), [0]

    primitive.def_impl(jax.jit(primitive.bind, static_argnames=("options", "classes", "batch")))
    primitive.def_abstract_eval(lambda t, *_, **__: [t])
    mlir.register_lowering(primitive, lambda _, t, *__, **___: [t])
    mlir.register_lowering(primitive, on_cpu, platform="cpu")
    batching.primitive_batchers[primitive] = map_over
    return primitive


_in_range_p = _primitive("in_range", _of_partitioned)
_raised_p = _primitive("raised", mlir.lower_fun(_raise))
