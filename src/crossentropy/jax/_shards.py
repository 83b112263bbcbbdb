"""Rows whose classes are split over the devices of a mesh axis, inside `jax.shard_map`.

What a device's classes tell of a row is a few float64 numbers. They are gathered once; every device joins them by the
core's own code, in the same order, and then has the losses and what it needs for the gradient of its own logits.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import PartitionSpec

from .. import _core
from .._options import LossOptions, as_integer
from ._alike import alike, is_checked, manual_axes, varying
from ._foreign import attributes_of

AxisName = str | tuple[str, ...]

_ELEMENT_TYPES = ("float32", "float64", "float16", "bfloat16")  # in the order of the core's


class Shards(NamedTuple):
    """Shards of equal size; what is beyond the last class is padding."""

    axes: tuple[str, ...]
    size: int  # of each
    classes: int  # of all

    @property
    def first(self) -> Array:
        """The first class of this device's shard."""
        return lax.axis_index(self.axes).astype(np.int32) * self.size


def shards_of(axis_name: AxisName, size: int, num_classes: int | None) -> Shards:
    """Check where shards of a size lie."""
    axes = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    mesh = jax.sharding.get_abstract_mesh()
    if not set(axes) <= set(mesh.manual_axes):
        raise ValueError(
            f"axis_name: expected a mesh axis of the jax.shard_map around the call, one of {mesh.manual_axes}, "
            f"got {axis_name!r}"
        )
    if manual_axes() and not is_checked():
        raise ValueError(
            "expected jax.shard_map with check_vma=True, its default: without it JAX would add up gradients wrongly"
        )
    count = lax.axis_size(axes)
    classes = count * size if num_classes is None else as_integer("num_classes", num_classes, "an integer or None")
    if not 1 <= classes <= count * size:
        raise ValueError(
            f"num_classes: expected an integer in [1, {count * size}] for {count} shards of {size} classes, "
            f"got {classes}"
        )
    return Shards(axes, size, classes)


def check_split(name: str, array: Array, shards: Shards) -> None:
    if not set(shards.axes) <= varying(array):
        raise ValueError(
            f"{name}: expected a shard, which varies over the mesh axes {shards.axes}, got one that is whole"
        )


def check_whole(name: str, array: Array, shards: Shards) -> None:
    if set(shards.axes) & varying(array):
        raise ValueError(
            f"{name}: expected the same on all devices of the mesh axes {shards.axes}, got one that varies"
        )


class Part(NamedTuple):
    """What is known of rows on one device."""

    targets: Array
    class_weight: Array  # of the shard; of size 0 if there are none
    counted: Array  # 1.0, or 0.0 of a row of sample weight 0
    first: Array


class Whole(NamedTuple):
    losses: Array
    class_weight: Array  # of the targets
    words: Array  # what the gradient needs


def tell(options: LossOptions, shards: Shards, z: Array, part: Part) -> Array:
    """What the shard's logits tell of each row. No derivative is taken of it."""
    operands = alike(*map(lax.stop_gradient, (z, *part)))
    fields = _fields(options, part.targets.ndim == z.ndim)
    return _part_p.bind(*operands, options=options, classes=shards.classes, fields=fields)[0]


def join(options: LossOptions, shards: Shards, told: Array, part: Part, dtype: Any) -> Whole:
    """What all shards tell, the same on all devices."""
    gathered = lax.all_gather(told, shards.axes, axis=told.ndim - 1, to="invarying")
    probabilities = part.targets.ndim == told.ndim
    t = jnp.zeros((), np.int32) if probabilities else part.targets
    operands = alike(gathered, t, lax.stop_gradient(part.counted))
    return Whole(
        *_whole_p.bind(
            *operands,
            options=options,
            classes=shards.classes,
            fields=_fields(options, probabilities),
            probabilities=probabilities,
            element_type=np.int64(_ELEMENT_TYPES.index(jnp.dtype(dtype).name)),
        )
    )


def losses(options: LossOptions, shards: Shards, z: Array, part: Part, whole: Whole) -> Array:
    """The losses, of which JAX knows the derivative in the shard's logits."""
    axes = tuple(sorted(frozenset[str]().union(*map(varying, (*part, *whole))) - varying(z)))
    return _losses(options, shards.classes, lax.pcast(z, axes, to="varying"), part, whole)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _losses(options: LossOptions, classes: int, z: Array, part: Part, whole: Whole) -> Array:
    return whole.losses


def _forward(options: LossOptions, classes: int, z: Array, part: Part, whole: Whole) -> tuple[Array, Any]:
    return whole.losses, (z, part, whole.words)


def _backward(options: LossOptions, classes: int, saved: Any, g: Array) -> tuple[Array, None, None]:
    z, part, words = saved
    operands = alike(z, *part, words, g)
    return _gradient_p.bind(*operands, options=options, classes=classes, fields=_core.part_fields)[0], None, None


_losses.defvjp(_forward, _backward)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def constant(name: str, array: Array) -> Array:
    """The same array, of which no derivative is taken: a zero would be a wrong number."""
    return array


@constant.defjvp
def _(name: str, primals: Any, tangents: Any) -> tuple[Array, Array]:
    raise TypeError(f"{name}: expected nothing to be differentiated but logits, or the head, and sample weights")


# The foreign calls.


def _fields(options: LossOptions, dense: bool) -> int:
    """How many numbers tell of a row: five if one class alone has a coefficient and no entropy is wanted."""
    return _core.part_fields if dense or options.label_smoothing or options.entropy_bonus else 5


def _primitive(name: str, types: Callable[..., list[Any]]) -> Primitive:
    target = f"crossentropy_{name}"
    jax.ffi.register_ffi_target(target, getattr(_core, f"xla_{name}"), platform="cpu")
    primitive = Primitive(target)
    primitive.multiple_results = True

    def lowered(context: Any, *operands: Any, options: LossOptions, classes: int, fields: int, **more: Any) -> Any:
        options = replace(options, reduction="none")
        attributes = attributes_of(context, options) | {"classes": np.int64(classes), "fields": np.int64(fields)} | more
        return jax.ffi.ffi_lowering(target)(context, *operands, **attributes)

    primitive.def_abstract_eval(types)
    mlir.register_lowering(primitive, lowered, platform="cpu")
    return primitive


def _words(array: Any, rows: tuple[int, ...], numbers: int) -> Any:
    """Numbers of rows in float64, each as two words."""
    sharding = array.sharding.update(spec=PartitionSpec(*[None] * (len(rows) + 1)))
    return array.update(shape=(*rows, 2 * numbers), dtype=np.dtype(np.uint32), weak_type=False, sharding=sharding)


def _types_of_part(z: Any, *_: Any, fields: int, **__: Any) -> list[Any]:
    return [_words(z, z.shape[:-1], fields)]


def _types_of_whole(told: Any, *_: Any, element_type: np.int64, **__: Any) -> list[Any]:
    words = _words(told, told.shape[:-2], _core.part_fields)
    dtype = np.dtype(np.float64 if _ELEMENT_TYPES[element_type] == "float64" else np.float32)
    of_rows = words.update(
        shape=words.shape[:-1],
        dtype=dtype,
        sharding=words.sharding.update(spec=PartitionSpec(*words.sharding.spec[:-1])),
    )
    return [of_rows, of_rows, words]


_part_p = _primitive("part", _types_of_part)
_whole_p = _primitive("whole", _types_of_whole)
_gradient_p = _primitive("gradient_of_part", lambda z, *_, **__: [z])
