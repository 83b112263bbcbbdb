"""What an array, a target and an axis are: the only place that raises for them."""

import math
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.generic]

# Codes of the core's ElementType.
ELEMENT_TYPES: dict[np.dtype[np.generic], int] = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
_INT64 = np.dtype(np.int64)


def _contiguous(array: Array, dtype: np.dtype[np.generic]) -> Array:
    """The array as the core reads it: C-ordered, aligned, native; itself where it already is."""
    return np.require(array, dtype, ["C", "A"])


class Logits(NamedTuple):
    """Logits as the core reads them: the class axis last."""

    data: Array  # (..., C), contiguous
    given: Array  # as the caller has them, an ndarray
    axis: int  # of the classes, in `given`; not negative
    rows: int

    @property
    def classes(self) -> int:
        return self.data.shape[-1]

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.data.shape[:-1]


def as_logits(logits: npt.ArrayLike, axis: int) -> Logits:
    """Check logits and bring the class axis last."""
    given = logits if type(logits) is np.ndarray else np.asarray(logits)
    ndim = given.ndim
    if ndim == 0:
        raise ValueError("logits: expected at least one axis, got a scalar")
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis: expected an integer in [{-ndim}, {ndim}) for logits of shape {given.shape}, got {axis}")
    axis %= ndim
    data = given
    if data.dtype not in ELEMENT_TYPES:
        data = _converted_logits(given)
    if axis != ndim - 1:
        data = np.moveaxis(data, axis, -1)
    flags = data.flags
    if not (flags.c_contiguous and flags.aligned):
        data = _contiguous(data, data.dtype)
    classes = data.shape[-1]
    if classes == 0:
        raise ValueError(f"logits: expected at least one class, got shape {given.shape} with the classes on axis {axis}")
    return Logits(data, given, axis, data.size // classes)


def _converted_logits(given: Array) -> Array:
    if given.dtype.kind in "iu":
        return given.astype(np.float64)
    native = given.dtype.newbyteorder("=")
    if native not in ELEMENT_TYPES:
        raise TypeError(f"logits: expected float32, float64 or integers, got {given.dtype}")
    return given.astype(native)


class Targets(NamedTuple):
    """Targets as the core reads them: one of the two."""

    indices: Array | None  # (rows), int64
    probabilities: Array | None  # (rows, C)
    given: Array


def as_targets(targets: npt.ArrayLike, logits: Logits) -> Targets:
    """Tell class indices from probabilities, by shape."""
    given = targets if type(targets) is np.ndarray else np.asarray(targets)
    if given.shape == logits.row_shape:
        if given.dtype is _INT64 and given.flags.carray:
            return Targets(given, None, given)
        return Targets(_as_indices(given, targets, logits), None, given)
    if given.shape == logits.given.shape:
        if given.dtype.kind not in "fiub" or given.dtype.itemsize > 8:
            raise TypeError(f"targets: expected probabilities of a real or boolean dtype, got {given.dtype}")
        moved = np.moveaxis(given, logits.axis, -1)
        native = given.dtype.newbyteorder("=")
        return Targets(None, _contiguous(moved, native if native in ELEMENT_TYPES else np.dtype(np.float64)), given)
    raise ValueError(f"targets: expected {_accepted_targets(logits)}, got shape {given.shape}")


def _as_indices(given: Array, targets: npt.ArrayLike, logits: Logits) -> Array:
    if given.dtype.kind not in "iu":
        if given.size == 0 and given is not targets:  # an empty list has no dtype of its own
            return np.empty(given.shape, np.int64)
        raise TypeError(f"targets: expected {_accepted_targets(logits)}, got dtype {given.dtype} and shape {given.shape}")
    if given.dtype.kind == "u" and given.dtype.itemsize == 8:
        wrong = np.flatnonzero(given > np.iinfo(np.int64).max)
        if wrong.size:
            row = int(wrong[0])
            raise IndexError(
                f"targets: expected class indices in [0, {logits.classes}), got {given.flat[row]} in row {row}"
            )
    return _contiguous(given, _INT64)


def _accepted_targets(logits: Logits) -> str:
    return (
        f"class indices (integers) of shape {logits.row_shape} "
        f"or probabilities (real or boolean) of shape {logits.given.shape}"
    )


def as_weights(name: str, weights: npt.ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    """Class or sample weights in float64."""
    if weights is None:
        return None
    array = _as_reals(name, weights)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if not ((array >= 0) & (array < math.inf)).all():
        raise ValueError(f"{name}: expected finite weights of at least 0, got {array[~((array >= 0) & (array < math.inf))][0]}")
    return array


def as_grad_output(grad_output: npt.ArrayLike, shape: tuple[int, ...], per_row: bool) -> tuple[float, Array | None]:
    """The factor of all rows, and if given one a row."""
    if type(grad_output) is float:
        return grad_output, None
    array = _as_reals("grad_output", grad_output)
    if array.ndim == 0:
        return float(array), None
    if per_row and array.shape == shape:
        return 1.0, array
    accepted = f"a number or an array of shape {shape}" if per_row else "a number"
    raise ValueError(f"grad_output: expected {accepted}, got shape {array.shape}")


def _as_reals(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return cast(npt.NDArray[np.float64], _contiguous(array, np.dtype(np.float64)))


def check_out(out: Array, logits: Logits, inputs: tuple[Array | None, ...]) -> None:
    """`out` is where the gradient goes: the logits' shape and native dtype, and no other input's memory."""
    if not isinstance(out, np.ndarray):
        raise ValueError(f"out: expected an ndarray, got {type(out).__name__}")
    if out.shape != logits.given.shape or out.dtype != logits.data.dtype or not out.dtype.isnative:
        raise ValueError(
            f"out: expected shape {logits.given.shape} and dtype {logits.data.dtype}, "
            f"got shape {out.shape} and dtype {out.dtype.newbyteorder('S').newbyteorder('S')!r}"
        )
    if not out.flags.writeable:
        raise ValueError("out: expected a writable array, got a read-only one")
    if _overlaps_itself(out):
        raise ValueError("out: expected one place for each element, got an array that overlaps itself")
    given = logits.given
    same = out.ctypes.data == given.ctypes.data and out.strides == given.strides and out.dtype == given.dtype
    if not same and _share_memory(out, given):
        raise ValueError("out: expected exactly the logits or memory of its own, got an array that overlaps the logits")
    if any(_share_memory(out, array) for array in inputs if array is not None):
        raise ValueError("out: expected memory of its own, got an array that overlaps another input")


def _overlaps_itself(array: Array) -> bool:
    return any(stride == 0 and size > 1 for stride, size in zip(array.strides, array.shape, strict=True))


def _share_memory(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=1000)
    except np.exceptions.TooHardError:
        return True
