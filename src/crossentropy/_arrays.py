"""Arrays and axes as the core takes them: the only place that checks them."""

import functools
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from . import _advice, _core
from ._options import LARGEST, RANGE, SMALLEST, as_integer

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[int, ...]

# Codes of the core's ElementType: of logits, and of probability targets. bfloat16 is added when it is first met: its
# dtype comes from ml_dtypes, which is not needed for anything else.
LOGIT_TYPES: dict[np.dtype[Any], int] = {
    np.dtype(np.float32): 0,
    np.dtype(np.float64): 1,
    np.dtype(np.float16): 2,
}
PROBABILITY_TYPES = LOGIT_TYPES | {
    np.dtype(np.bool_): 8,
    **{
        np.dtype(f"{kind}{size}"): code
        for kind, first in (("i", 4), ("u", 8))
        for code, size in enumerate((1, 2, 4, 8), first)
    },
}
BFLOAT16 = 3
# Results of so many bytes or more are in memory that is kept for the next.
LARGE = _core.kept_from
INT64, FLOAT32, FLOAT64 = np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.float64)


# new_tuple(Record, fields) is Record(*fields) in half its time, for the records of every call. It counts no fields:
# tests/test_options.py does.
new_tuple = tuple.__new__

P = ParamSpec("P")
R = TypeVar("R")


def rounds_to_nearest(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that computes with NumPy: it rounds to nearest, in any mode that its caller has set."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _core.DefaultFloatingPoint(), np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return call


def as_array(name: str, values: npt.ArrayLike) -> Array:
    """Convert anything array-like. NumPy alone cannot take bfloat16 from another library over DLPack."""
    if type(values) is np.ndarray:
        return values
    masked = next((v for v in (values, *_items(values)) if is_masked(v)), None)
    if masked is not None or hasattr(values, "tocsr"):
        found = "MaskedArray" if masked is not None else f"{type(values).__name__} (its toarray() is dense)"
        raise TypeError(
            f"{name}: expected a dense array without a mask, got {found}: rows that do not count are marked by "
            "ignore_index or a sample_weight of 0"
        )
    foreign = hasattr(values, "__dlpack__") and not isinstance(values, np.ndarray)
    if foreign and "bfloat16" in str(getattr(values, "dtype", "")):
        return _from_dlpack(name, values)
    try:
        array = np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as error:
        tensor = _advice.of_framework(values)
        if tensor is not None:
            raise TypeError(f"{name}: expected an array, got {tensor}") from error
        reason = " ".join(str(error).split())
        if isinstance(values, list | tuple):
            found = _advice.of_lists(values) or f"neither: {reason}"
            raise ValueError(f"{name}: expected an array, or lists of equal length, got {found}") from error
        raise TypeError(f"{name}: expected an array, got {type(values).__name__}: {reason}") from error
    if array.ndim == 0 and array.dtype.kind in "OUS":
        raise TypeError(f"{name}: expected an array of numbers, got {_advice.of_scalar(name, values)}")
    return array


def is_masked(values: object) -> bool:
    ma = sys.modules.get("numpy.ma")  # if it has not been imported, there are no masked arrays
    return ma is not None and isinstance(values, ma.MaskedArray)


def _items(values: Any) -> list[Any] | tuple[Any, ...]:
    return values if isinstance(values, list | tuple) else ()


def _from_dlpack(name: str, values: Any) -> Array:
    try:
        from ml_dtypes import bfloat16
    except ModuleNotFoundError as error:
        raise TypeError("bfloat16 needs the package ml_dtypes: install it with pip install ml_dtypes") from error
    if hasattr(values, "resolve_neg"):  # torch: the memory holds negated values, which DLPack cannot tell
        values = values.resolve_neg()
    if getattr(values, "requires_grad", False):  # DLPack forgets it
        raise TypeError(f"{name}: expected an array, got {_advice.of_framework(values)}")
    try:
        return _core.bfloat16_bits(values).view(bfloat16)
    except (BufferError, TypeError) as error:
        found = _advice.of_framework(values) or f"{type(values).__name__}: {' '.join(str(error).split())}"
        raise TypeError(f"{name}: expected bfloat16 on the CPU over DLPack, got {found}") from error


def empty(shape: Shape, dtype: np.dtype[Any]) -> Array:
    """An array for a result, of any contents. A call of 4 µs asks for its size itself: this takes 0.1."""
    if math.prod(shape) * dtype.itemsize < LARGE:
        return np.empty(shape, dtype)
    return _core.empty(shape, dtype)


def element_type(dtype: np.dtype[Any], types: dict[np.dtype[Any], int]) -> int | None:
    code = types.get(dtype)
    if code is None and dtype.name == "bfloat16" and dtype.itemsize == 2:
        code = LOGIT_TYPES[dtype] = PROBABILITY_TYPES[dtype] = BFLOAT16
    return code


def row_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of one number a row. It is never half precision, which has only two or three digits."""
    return FLOAT64 if dtype == FLOAT64 else FLOAT32


def as_read_by_core(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array itself if it is C-ordered, aligned and in native byte order; else a copy that is."""
    return np.require(array, dtype, ["C", "A"])


class Layout(NamedTuple):
    """The shape of logits, and where their classes are: what targets are checked against."""

    rows: int
    classes: int
    shape: Shape
    row_shape: Shape  # without the class axis
    axis: int  # of the classes; not negative
    moved: bool = False  # the core reads them with the class axis brought last


class Logits(NamedTuple):
    """Logits as the core reads them, by the names of the first five fields; and their `Layout` as they came."""

    data: Array  # contiguous
    type: int  # the code of its element type
    rows: int
    classes: int
    class_stride: int  # how many elements apart the classes of a row lie
    shape: Shape
    row_shape: Shape
    axis: int
    moved: bool
    given: Array


def as_logits(logits: npt.ArrayLike, axis: int) -> Logits:
    """Check logits, and bring the class axis last where the core cannot read them as they lie."""
    data = given = logits if type(logits) is np.ndarray else as_array("logits", logits)
    ndim = data.ndim
    if type(axis) is not int:
        axis = as_integer("axis", axis)
    if not -ndim <= axis < ndim:
        if ndim == 0:
            raise ValueError("logits: expected at least one axis, got a scalar")
        raise ValueError(
            f"axis: expected an integer in [{-ndim}, {ndim}) for logits of shape {given.shape}, got {axis}"
        )
    code = LOGIT_TYPES.get(data.dtype)
    if code is None:
        data, code = _converted("logits", given)
    axis %= ndim
    flags = data.flags
    shape = data.shape
    classes, class_stride, moved, row_shape = shape[axis], 1, False, shape[:-1]
    if axis != ndim - 1:
        row_shape = shape[:axis] + shape[axis + 1 :]
        if flags.c_contiguous:
            class_stride = math.prod(shape[axis + 1 :])
        else:
            data, moved = np.moveaxis(data, axis, -1), True
            flags = data.flags
    if not (flags.c_contiguous and flags.aligned):
        data = as_read_by_core(data, data.dtype)
    if classes == 0:
        raise ValueError(
            f"logits: expected at least one class, got shape {given.shape} with the classes on axis {axis}"
        )
    rows = data.size // classes
    return new_tuple(Logits, (data, code, rows, classes, class_stride, shape, row_shape, axis, moved, given))


def classes_last(z: Logits) -> Logits:
    """The same logits with the class axis last in memory, as some of the core needs it."""
    if z.class_stride == 1:
        return z
    data = np.ascontiguousarray(np.moveaxis(z.data, z.axis, -1))
    return z._replace(data=data, class_stride=1, moved=True)


def logits_as_read(given: Array) -> tuple[Array, int]:
    """Logits of any shape, C-ordered and of a dtype that the core reads, and its code."""
    code = LOGIT_TYPES.get(given.dtype)
    data, code = (given, code) if code is not None else _converted("logits", given)
    return as_read_by_core(data, data.dtype), code


def as_floating(name: str, values: npt.ArrayLike) -> Array:
    """An array of one of the logits' types, in native byte order, with any strides."""
    given = as_array(name, values)
    if given.ndim == 0:
        raise ValueError(f"{name}: expected at least one axis, got a scalar")
    data = given if given.dtype in LOGIT_TYPES else _converted(name, given)[0]
    return np.require(data, None, ["A"])


@rounds_to_nearest
def _converted(name: str, given: Array) -> tuple[Array, int]:
    """Convert logits whose dtype the core does not read."""
    dtype = np.dtype(np.float64) if given.dtype.kind in "iu" else given.dtype.newbyteorder("=")
    code = element_type(dtype, LOGIT_TYPES)
    if code is None:
        found = _advice.described(given)
        raise TypeError(f"{name}: expected float16, bfloat16, float32, float64 or integers, got {found}")
    return given.astype(dtype, copy=False), code


def as_weights(name: str, weights: npt.ArrayLike, shape: Shape) -> Array:
    """Class or sample weights in float64."""
    array = as_reals(name, weights)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {_advice.of_weights(name, array, shape)}")
    size = np.abs(array)
    wrong = ~((size == 0) | ((size >= SMALLEST) & (size <= LARGEST)))
    if wrong.any():
        raise ValueError(f"{name}: expected finite weights, each 0 or of a size in {RANGE}, got {array[wrong][0]}")
    return array


def as_grad_output(
    grad_output: npt.ArrayLike, shape: Shape, per_row: bool, name: str = "grad_output"
) -> tuple[float, Array | None]:
    """Check an upstream gradient: return a factor for all rows, and one for each row or None."""
    if type(grad_output) is float:
        return grad_output, None
    array = as_reals(name, grad_output)
    if array.ndim == 0:
        return float(array), None
    if per_row and array.shape == shape:
        return 1.0, array
    accepted = f"a number or an array of shape {shape}" if per_row else "a number"
    raise ValueError(f"{name}: expected {accepted}, got shape {array.shape}")


def as_reals(name: str, values: npt.ArrayLike) -> Array:
    array = as_array(name, values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got {_advice.described(array)}")
    return as_read_by_core(array, FLOAT64) if array.dtype == FLOAT64 else _as_float64(array)


@rounds_to_nearest
def _as_float64(array: Array) -> Array:
    return as_read_by_core(array, FLOAT64)


def check_array(name: str, out: object, shape: Shape, dtype: np.dtype[Any], others: tuple[object, ...]) -> Array:
    """Check an output: its shape, its native dtype, and that it shares no memory with the others."""
    if type(out) is not np.ndarray and (not isinstance(out, np.ndarray) or is_masked(out)):
        raise ValueError(f"{name}: expected an ndarray, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(
            f"{name}: expected shape {shape} and dtype {dtype.str}, got shape {out.shape} and dtype {out.dtype.str}"
        )
    flags = out.flags
    if not flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    if not flags.forc and _overlaps_itself(out):
        raise ValueError(f"{name}: expected a place for each element, got strides {out.strides} for shape {shape}")
    if any(_share_memory(name, out, other) for other in others if other is not None and type(other) is not float):
        raise ValueError(f"{name}: expected memory of its own, got an array that overlaps another input or output")
    return out


def _overlaps_itself(array: Array) -> bool:
    """Whether elements may share bytes. They do not if each axis steps over the bytes of those with smaller steps."""
    reach = array.itemsize
    for stride, n in sorted((abs(stride), n) for stride, n in zip(array.strides, array.shape, strict=True)):
        if n > 1 and stride < reach:
            return array.size > 0
        reach += stride * (n - 1)
    return False


def _share_memory(name: str, out: Array, other: Any) -> bool:
    array = other if isinstance(other, np.ndarray) else np.asarray(other)
    try:
        # An exact answer may take for ever. (NumPy's stub knows the numbers -1 and 0 alone.)
        return np.shares_memory(out, array, 1_000_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        raise ValueError(
            f"{name}: expected memory of its own, got strides {out.strides} beside {array.strides} of an input: too "
            "intricate to tell"
        ) from None


def check_out(out: object, logits: Logits, inputs: tuple[object, ...], name: str = "out") -> Array:
    """Check the output of the gradient: it is the logits themselves, or shares no memory with an input."""
    given = logits.given
    array = check_array(name, out, given.shape, logits.data.dtype, inputs)
    if array is not given and _share_memory(name, array, given) and not _same_place(array, given):
        raise ValueError(
            f"{name}: expected exactly the logits or memory of its own, got an array that overlaps the logits"
        )
    return array


def _same_place(a: Array, b: Array) -> bool:
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides
