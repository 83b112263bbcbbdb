"""Arrays inside `jax.shard_map`, where each has the mesh axes over which its values vary in its type."""

from typing import Any

import jax
from jax import Array
from jax.typing import ArrayLike


def varying(array: ArrayLike) -> frozenset[str]:
    """The mesh axes over which an array varies."""
    return frozenset(jax.typeof(array).manual_axis_type.varying)


def manual_axes() -> tuple[str, ...]:
    """The mesh axes of more than one device over which `jax.shard_map` runs what is being traced."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(axis for axis in mesh.manual_axes if mesh.shape[axis] > 1)


def is_checked() -> bool:
    """Whether it keeps account of what varies."""
    axes = manual_axes()
    kept = jax.eval_shape(lambda: jax.lax.axis_index(axes)).manual_axis_type
    return kept is not None and bool(kept.varying)


def alike(*arrays: Any) -> list[Array]:
    """The arrays, all of them taken to vary over the axes over which any does, as one operation on them requires."""
    axes = frozenset[str]().union(*map(varying, arrays))
    return [jax.lax.pcast(array, tuple(sorted(axes - varying(array))), to="varying") for array in arrays]


def of_targets(weights: Array, indices: Array) -> Array:
    """The weights of some classes, one an index; where its mesh is explicit, on the devices that have the index."""
    sharding = jax.typeof(indices).sharding
    return weights.at[indices].get(out_sharding=sharding if any(sharding.spec) else None)
