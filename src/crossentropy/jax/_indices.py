"""Axes and class indices: what is known of them is checked as it came, before JAX narrows it to 32 bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .._arrays import as_array
from .._options import LossOptions, as_integer
from .._targets import accepted_indices


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
    # As they came: JAX may be about to narrow them to 32 bits.
    t: Any = indices if is_traced(indices) or isinstance(indices, Array) else as_array("indices", indices)
    t = t if hasattr(t, "dtype") else jnp.asarray(t)
    of_many = ", ".join(map(str, (*shape[:axis], "K", *shape[axis + 1 :])))
    if t.shape != rows and (t.ndim != len(shape) or t.shape[:axis] + t.shape[axis + 1 :] != rows):
        raise ValueError(f"indices: expected class indices of shape {rows} or ({of_many}), got shape {t.shape}")
    if not jnp.issubdtype(t.dtype, jnp.integer):
        raise TypeError(f"indices: expected class indices (integers), got {t.dtype}")
    if not is_traced(t):
        known = np.asarray(t)
        bad = (known < 0) | (known >= shape[axis])
        if options.ignore_index is not None:
            bad &= known != options.ignore_index
        if bad.any():
            of_rows = bad if bad.shape == rows else np.moveaxis(bad, axis, -1)
            known = known if bad.shape == rows else np.moveaxis(known, axis, -1)
            place = int(np.argmax(of_rows))
            row = place if bad.shape == rows else place // of_rows.shape[-1]
            accepted = accepted_indices(shape[axis], options.ignore_index)
            raise IndexError(f"indices: expected {accepted}, got {known.reshape(-1)[place]} in row {row}")
        check_narrowed("indices", known)
    t = jnp.asarray(t)
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
