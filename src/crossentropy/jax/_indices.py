"""Axes and class indices: what is known of them is checked as it came, before JAX narrows it to 32 bits."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .._arrays import Layout, as_array
from .._call import total_weight
from .._log_prob_call import as_named, named_indices
from .._options import LossOptions, as_integer
from .._targets import shape_of_k


def as_axis(axis: int, z: Array) -> int:
    """The class axis, which has at least one class, counted from the front."""
    axis = as_integer("axis", axis)
    if not -z.ndim <= axis < z.ndim:
        raise ValueError(
            f"axis: expected an integer in [{-z.ndim}, {z.ndim}) for logits of shape {z.shape}, got {axis}"
        )
    axis %= z.ndim
    if z.shape[axis] == 0:
        raise ValueError(f"logits: expected at least one class, got shape {z.shape} with the classes on axis {axis}")
    return axis


def as_indices(indices: ArrayLike, shape: tuple[int, ...], axis: int, options: LossOptions) -> Array:
    """Class indices of 32 or 64 bits, of the logits' shape without the class axis or with K on it.

    Where they are known, one that is out of range raises IndexError here.
    """
    rows = shape[:axis] + shape[axis + 1 :]
    layout = Layout(math.prod(rows), shape[axis], shape, rows, axis)
    if is_traced(indices):
        t = jnp.asarray(indices)
        accepted = f"class indices (integers) of shape {rows} or {shape_of_k(layout)}"
        if not jnp.issubdtype(t.dtype, jnp.integer):
            raise TypeError(f"indices: expected {accepted}, got dtype {t.dtype}")
        if t.shape != rows and (t.ndim != len(shape) or t.shape[:axis] + t.shape[axis + 1 :] != rows):
            raise ValueError(f"indices: expected {accepted}, got shape {t.shape}")
    else:
        # As they came: JAX may be about to narrow them to 32 bits.
        known = np.asarray(indices) if isinstance(indices, Array) else as_array("indices", indices)
        named = as_named(known, layout, options.ignore_index)
        if named.empty is None:
            with named_indices():
                total_weight(options, layout, named.targets)
        check_narrowed("indices", known)
        t = jnp.asarray(known if known.size else known.astype(np.int32))
    return t if t.dtype.itemsize >= 4 else t.astype(jnp.int32)


def is_traced(values: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def check_narrowed(name: str, known: np.ndarray[Any, Any]) -> None:
    """Refuse indices and weights that change when JAX narrows them to 32 bits."""
    with np.errstate(over="ignore"):
        narrow = known.astype(jax.dtypes.canonicalize_dtype(known.dtype))
    changed = narrow != known if known.dtype.kind in "iu" else np.isinf(narrow) | ((narrow == 0) != (known == 0))
    if changed.any():
        raise ValueError(
            f"{name}: expected values that {narrow.dtype} holds, since JAX's mode of 64 bits is off, "
            f"got {known[changed][0]}"
        )
