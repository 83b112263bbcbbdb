"""What was given in the place of what was expected, and what would do: the ends of error messages.

Nothing here is called before an error is certain.
"""

import reprlib
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

_Array: TypeAlias = npt.NDArray[Any]

MOST_SHOWN = 8  # elements that an error shows
MOST_LOOKED_AT = 10000
NUMBERED = "np.unique(labels, return_inverse=True)[1] numbers the classes, in their order"
_NO_CLASS = (-100, -1, 255)  # what data sets write where there is no class


def shown(array: _Array) -> str:
    """The elements of an axis on one line, of many the first."""
    few = ", ".join(map(str, array[:MOST_SHOWN].tolist()))
    return f"[{few}, … {array.size:,} in all]" if array.size > MOST_SHOWN else f"[{few}]"


def described(array: _Array) -> str:
    """The dtype; of what holds no numbers the first element that is none, and what would do."""
    odd = _odd(array)
    if odd and _is_missing(odd[0]):
        return f"{array.dtype} with missing values, such as {_line(odd[0])}: fill them in, then .astype(float)"
    if odd and not _is_number(odd[0]):
        return f"{_kind(array, odd[0])} such as {_line(odd[0])}"
    found = f"{_kind(array, odd[0])} such as {_line(odd[0])}" if odd else f"{array.dtype}"
    return f"{found}: .astype(float) would do" if array.dtype.kind in "fOUS" else found


def of_scalar(name: str, value: object) -> str:
    """One thing that is no number, where an array was expected."""
    kind = type(value).__name__
    if name == "class_weight" and isinstance(value, dict):
        return "a dict: [weights[c] for c in range(C)] would do, for C classes"
    if name == "class_weight" and value == "balanced":
        return "'balanced': len(targets) / (C * np.bincount(targets, minlength=C)) is that, for C classes"
    if value is None or isinstance(value, str | bytes):
        return _line(value)
    if isinstance(value, dict):
        return f"a dict: list({name}.values()) may do"
    if isinstance(value, set | frozenset):
        return f"a {kind}, which has no order"
    if hasattr(value, "__iter__") and not isinstance(value, type):
        return f"a {kind}: list({name}) would do"
    return f"a {kind}" if kind != "_Missing" else "no argument"


def of_lists(values: list[Any] | tuple[Any, ...]) -> str | None:
    """Lists of which NumPy makes no array: those of unequal lengths."""
    lengths = sorted({len(row) if hasattr(row, "__len__") else 0 for row in values})
    if len(lengths) < 2:
        return None
    return (
        f"lists of lengths {', '.join(map(str, lengths[:MOST_SHOWN]))}: pad them to one length, and leave the "
        "padding out by ignore_index or a sample_weight of 0"
    )


def of_framework(values: Any) -> str | None:
    """A tensor or tracer that NumPy cannot read, told by its type's module: no framework is imported."""
    for value in (values, *(values[:1] if isinstance(values, list | tuple) else ())):
        framework = type(value).__module__.partition(".")[0]
        if framework == "torch":
            with_gradient = " that requires a gradient" if getattr(value, "requires_grad", False) else ""
            return f"a torch.Tensor{with_gradient}: crossentropy.torch takes tensors; .detach().cpu() makes it an array"
        if framework in ("jax", "jaxlib"):
            return "a JAX tracer, whose values are not known yet: crossentropy.jax computes under jit and grad"
    return None


def of_labels(array: _Array, shape: tuple[int, ...], ignore_index: int | None, name: str = "targets") -> str:
    """Class labels in the rows' shape that are no integers."""
    integers = f"np.asarray({name}).astype(int)"
    odd = _odd(array)
    if array.dtype.kind == "b":
        return f"booleans: {integers} makes False class 0 and True class 1"
    if (odd and _is_missing(odd[0])) or (array.dtype.kind == "f" and np.isnan(array).any()):
        marked = -100 if ignore_index is None else ignore_index
        are_missing = "np.isnan" if array.dtype.kind == "f" else "pd.isna"
        return (
            f"{array.dtype} with missing values: rows without a class have the index {marked} (ignore_index), as in "
            f"np.where({are_missing}({name}), {marked}, {name}).astype(int)"
        )
    if odd:
        return f"{_kind(array, odd[0])} such as {_line(odd[0])}: {NUMBERED}"
    found = f"dtype {array.dtype}"
    if array.dtype.kind == "f" and (array != np.floor(array)).any():
        return f"{found}: {array[array != np.floor(array)][0]} is no index; probabilities have shape {shape}"
    return f"{found}: {integers} would do" if array.dtype.kind in "fO" else found


def of_shape(array: _Array, shape: tuple[int, ...], axis: int | None) -> str:
    """Targets whose shape does not fit logits of this shape, its classes on `axis`; None: the last, always."""
    found = f"shape {array.shape}"
    row_shape = shape[:-1] if axis is None else shape[:axis] + shape[axis + 1 :]
    without_ones, rows = ([n for n in of if n != 1] for of in (array.shape, row_shape))
    if without_ones == rows and array.size:
        wanted = "np.ravel(targets)" if len(row_shape) == 1 else f"np.reshape(targets, {row_shape})"
        return f"{found}: {wanted}{'' if array.dtype.kind in 'iu' else '.astype(int)'} would do"
    if any(array.shape[:k] + array.shape[k + 1 :] == shape for k in range(array.ndim)) and axis is not None:
        return f"{found}: logits come first, then targets"
    if array.ndim == 2 and array.shape == shape[::-1]:
        return f"{found}: np.transpose(targets) would do"
    if axis in (None, len(shape) - 1) and array.ndim > 1 and array.shape == (*row_shape[:-1], row_shape[-1] - 1):
        return f"{found}, one position fewer: logits[..., :-1, :] would do, if those are what came before the targets"
    others = () if axis is None else range(len(shape))
    fits = [k for k in others if shape[:k] + shape[k + 1 :] == array.shape]
    return f"{found}: axis={fits[0]} would do, if the classes are there" if fits else found


def of_binary_labels(labels: _Array) -> str:
    """Integers that are not 0 and 1."""
    found = np.unique(labels).tolist()
    if found in ([-1, 1], [1, 2]):
        return f": did you mean {'(targets > 0).astype(int)' if found[0] < 0 else 'targets - 1'}?"
    wrong = [label for label in found if label not in (0, 1)]
    if len(wrong) == 1 and wrong[0] in _NO_CLASS:
        return f": sample_weight=(targets != {wrong[0]}) leaves such elements out"
    return ": class indices are for cross_entropy; numbers beyond 0 and 1 would do as .astype(float)"


def of_weights(name: str, array: _Array, shape: tuple[int, ...]) -> str:
    """Weights, or what else has a number for each of something, of a shape other than this one."""
    if [n for n in array.shape if n != 1] == [n for n in shape if n != 1] and array.size and array.ndim > 1:
        return f"{array.shape}: np.reshape({name}, {shape}) would do"
    each = {"class_weight": "class", "sample_weight": "row"}.get(name)
    return f"{array.shape}: one for each {each} is expected" if each else f"{array.shape}"


def of_indices(
    values: _Array, classes: int, ignore_index: int | None, in_order: bool = True, name: str = "targets"
) -> str:
    """Class indices of which some are out of range; `values` are all of them, or each one once."""
    counts = np.full(values.shape, True) if ignore_index is None else np.asarray(values != ignore_index)
    found = np.unique(values[counts])
    low, high = int(found[0]), int(found[-1])
    if classes == 1:
        return ": the logits have one class; for one logit that tells two classes apart there is binary_cross_entropy"
    if low >= 1 and high == classes:
        meant = np.where(counts, values - 1, values)
        listed = in_order and values.size <= MOST_SHOWN * 4
        return f": classes count from 0: did you mean {meant.tolist() if listed else f'{name} - 1'}?"
    if classes == 2 and found.tolist() == [-1, 1]:
        return f": did you mean ({name} > 0).astype(int)?"
    wrong = found[(found < 0) | (found >= classes)].tolist()
    if len(wrong) == 1 and wrong[0] in _NO_CLASS:
        return f": ignore_index={wrong[0]} leaves such rows out"
    return ""


def _odd(array: _Array) -> list[object]:
    """The first element that is no number, of strings one that is no number as text, if there is one."""
    if array.dtype.kind not in "OUS":
        return []
    odd = [element for element in array.flat[:MOST_LOOKED_AT] if not isinstance(element, int | float | np.number)]
    return [next((element for element in odd if not _is_number(element)), odd[0])] if odd else []


def _is_missing(value: object) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _is_number(text: object) -> bool:
    try:
        float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _kind(array: _Array, element: object) -> str:
    return "strings" if isinstance(element, str | bytes) else f"dtype {array.dtype}"


def _line(value: object) -> str:
    value = str(value) if isinstance(value, str) else value  # NumPy's strings say so
    return " ".join(reprlib.repr(value).split())
