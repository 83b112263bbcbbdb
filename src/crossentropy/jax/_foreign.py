"""The core as XLA calls it: with a whole problem on one device, with its own rows on each of several.

A partitioned program must not gather the logits. So all that a call takes and returns there leads with the rows, of
which XLA gives each device its own: a weight a class becomes that of each row's target, a reduction is XLA's.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Primitive
from jax.extend.mlir import ir
from jax.interpreters import mlir
from jax.sharding import PartitionSpec

from .. import _core
from .._config import resolve_threads
from .._options import LossOptions
from ._alike import alike, of_targets
from ._composed import counted_rows, divisor, reduced, row_dtype

# In place of weights that are not given.
NONE = np.zeros(0, np.float32)
_TARGET = "crossentropy_loss"
jax.ffi.register_ffi_target(_TARGET, _core.xla_loss, platform="cpu")
jax.ffi.register_ffi_target_as_batch_partitionable(_TARGET)


def is_partitioned(context: Any) -> bool:
    """Whether XLA is to divide what is lowered here among devices; inside `jax.shard_map` it is divided already."""
    axes = context.module_context.axis_context
    if isinstance(axes, mlir.SPMDAxisContext):
        return any(size > 1 for axis, size in axes.mesh.shape.items() if axis not in axes.manual_axes)
    return isinstance(axes, mlir.ShardingContext) and axes.num_devices > 1


def _devices(context: Any) -> int:
    """How many devices run the program."""
    axes = context.module_context.axis_context
    return axes.mesh.size if isinstance(axes, mlir.SPMDAxisContext) else getattr(axes, "num_devices", 1)


def can_be_partitioned(options: LossOptions, z: Any, t: Any, w: Any) -> bool:
    """Whether no row needs the weights of all classes."""
    return w.size == 0 or (t.ndim < z.ndim and options.label_smoothing == 0.0)


def type_of_losses(options: LossOptions, axis: int, batch: int, z: Any) -> Any:
    """The abstract value of what is left of the logits': the batch, and for reduction 'none' the rows."""
    kept = [i for i in range(z.ndim) if i < batch or (options.reduction == "none" and i != batch + axis)]
    shape, spec = (tuple(of[i] for i in kept) for of in (z.shape, z.sharding.spec))
    sharding = z.sharding.update(spec=PartitionSpec(*spec))
    return z.update(shape=shape, dtype=row_dtype(z), weak_type=False, sharding=sharding)


def over_batch(function: Callable[..., Any], batch: int) -> Callable[..., Any]:
    for _ in range(batch):
        function = jax.vmap(function)
    return function


def whole(
    options: LossOptions, axis: int, batch: int, overwrite: bool, *arrays: Array, gradient: bool = False
) -> list[Array]:
    """The loss, and the gradient, in one call."""
    z, t, w, s, g = arrays if len(arrays) == 5 else (*arrays, NONE)
    return _call(options, axis, batch, *alike(z, t, w, s, g), gradient=gradient, overwrite=overwrite)


def by_rows(
    options: LossOptions, axis: int, batch: int, overwrite: bool, *arrays: Array, gradient: bool = False
) -> list[Array]:
    """The same from a call that XLA may divide by rows. What it leaves to XLA is in float64, as in the core."""
    z, t, w, s, g = arrays if len(arrays) == 5 else (*arrays, None)
    place = batch + axis
    t = jnp.moveaxis(t, place, -1) if t.ndim == z.ndim else t
    z = jnp.moveaxis(z, place, -1)
    rows = z.shape[:-1]
    counted = counted_rows(options, rows, t, s if s.size else None)
    ones = jnp.where(counted, 1.0, 1.0).astype(jnp.float32)  # on the devices that have the targets
    omega, s = ones, s if s.size else ones
    if w.size:
        of_target = over_batch(of_targets, batch)
        omega = of_target(w, jnp.where(counted & (t >= 0) & (t < z.shape[-1]), t, 0))
    with jax.enable_x64(True):
        weights = jnp.where(counted, omega.astype(float) * s.astype(float), 0.0)
        scale = jnp.ones((), float) if g is None else g.astype(float)
        if options.reduction == "mean":
            total, counts = over_batch(divisor, batch)(weights)
            scale = jnp.where(counts, scale / total, 0.0)
        if options.reduction != "none":
            scale = scale.reshape(scale.shape + (1,) * (len(rows) - scale.ndim))
        scale = scale * ones.astype(float)
    losses, *gradients = _call(
        replace(options, reduction="none"),
        len(rows) - batch,
        batch,
        *alike(z, t, omega, s, scale),
        gradient=gradient,
        overwrite=overwrite,
        by_rows=True,
        weighted=w.size > 0,
    )
    with jax.enable_x64(True):
        loss = over_batch(partial(reduced, options.reduction), batch)(losses.astype(float), weights)
        loss = loss.astype(losses.dtype)
    return [loss, *(jnp.moveaxis(each, -1, place) for each in gradients)]


# The call as a primitive, which tells how XLA may divide it.


def _call(
    options: LossOptions, axis: int, batch: int, *arrays: Array, gradient: bool, overwrite: bool, **how: bool
) -> list[Array]:
    parameters = {"by_rows": False, "weighted": False, **how}
    overwrite = gradient and overwrite
    return _call_p.bind(
        *arrays, options=options, axis=axis, batch=batch, gradient=gradient, overwrite=overwrite, **parameters
    )


def attributes_of(context: Any, options: LossOptions) -> dict[str, Any]:
    """What every call is told: the options, and its share of the threads: the devices of a process run at once."""
    threads = max(resolve_threads(None) // min(_devices(context), jax.local_device_count("cpu")), 1)
    return {field.name: attribute(getattr(options, field.name)) for field in fields(options)} | {
        "num_threads": np.int64(threads)
    }


def attribute(option: float | str | None) -> Any:
    """An option as XLA passes it on; it has no None, and takes False in its place."""
    if isinstance(option, float | int):
        return np.float64(option) if isinstance(option, float) else np.int64(option)
    return False if option is None else option


def _types(z: Any, *_: Any, options: LossOptions, axis: int, batch: int, gradient: bool, **__: bool) -> list[Any]:
    return [type_of_losses(options, axis, batch, z)] + [z] * gradient


def _lowered(
    context: Any,
    *operands: Any,
    options: LossOptions,
    axis: int,
    batch: int,
    gradient: bool,
    overwrite: bool,
    by_rows: bool,
    weighted: bool,
) -> Any:
    z = context.avals_in[0]
    attributes = attributes_of(context, options) | {
        "axes": np.int64(z.ndim - batch),
        "axis": np.int64(axis),
        "by_rows": by_rows,
        "weighted": weighted,
        "marks_bad_rows": by_rows or _devices(context) > 1,
    }
    more = None
    if by_rows and z.size and z.ndim > 1:
        more = {
            "mhlo.frontend_attributes": mlir.ir_attribute({"num_batch_dims": str(z.ndim - 1)}),
            "sdy.sharding_rule": ir.Attribute.parse(_sharding_rule(context.avals_in, context.avals_out)),
        }
    aliases = {0: 1} if overwrite else None
    rule = jax.ffi.ffi_lowering(_TARGET, operand_output_aliases=aliases, extra_attributes=more)
    return rule(context, *operands, **attributes)


def _sharding_rule(operands: Any, results: Any) -> str:
    """Shardy's: axes of rows are divided alike in all arrays, the classes, the last axis of some, never."""
    names = list("ijklmnopqrstuvwxy") + [f"z_{k}" for k in range(1, 100)]
    sizes = operands[0].shape
    factors = names[: len(sizes)]

    def written(avals: Any) -> str:
        return ", ".join(f"[{', '.join(factors[: aval.ndim])}]" for aval in avals)

    all_sizes = ", ".join(f"{name}={size}" for name, size in zip(factors, sizes, strict=True))
    return (
        f"#sdy.op_sharding_rule<({written(operands)})->({written(results)}) {{{all_sizes}}} "
        f"need_replication={{{factors[-1]}}}, custom>"
    )


_call_p = Primitive("crossentropy_call")
_call_p.multiple_results = True
_call_p.def_abstract_eval(_types)
mlir.register_lowering(_call_p, _lowered, platform="cpu")
