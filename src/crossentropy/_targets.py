"""Targets: class indices, or probabilities of all classes or a few. The only place that checks them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import _advice
from ._arrays import (
    BFLOAT16,
    FLOAT64,
    INT64,
    LOGIT_TYPES,
    PROBABILITY_TYPES,
    Array,
    Layout,
    Logits,
    as_array,
    as_read_by_core,
    as_reals,
    as_weights,
    element_type,
    new_tuple,
    rounds_to_nearest,
)


@dataclass(frozen=True, eq=False)
class TopKTargets:
    """Target distributions over K of the classes, such as the likeliest of a teacher; the others have probability 0.

    Accepted wherever targets are. No dense row is made of them.

    Parameters
    ----------
    indices : array_like of integers, shape (..., K, ...)
        K class indices for each row, on the class axis. One that occurs twice in a row has the sum of both
        probabilities. A slot of probability 0 may hold `ignore_index`; a row of nothing but such slots is ignored.
    probabilities : array_like of real numbers, of the shape of `indices`
        What is missing to 1 in a row stays missing, unless `renormalize`.
    renormalize : bool
        Divide each row by its sum; a row of zeros is ignored, any other whose sum is not above 0 is NaN.

    Examples
    --------
    >>> import crossentropy as ce
    >>> teacher = ce.TopKTargets([[1, 0]], [[0.7, 0.2]])
    >>> round(ce.cross_entropy([[2.0, 1.0, 0.1]], teacher), 12)
    1.07532701465
    >>> round(ce.cross_entropy([[2.0, 1.0, 0.1]], [[0.2, 0.7, 0.0]]), 12)
    1.07532701465
    """

    indices: npt.ArrayLike
    probabilities: npt.ArrayLike
    renormalize: bool = False


class Targets(NamedTuple):
    """Targets as the core reads them, by the names of the first five fields; rows in the order of the logits'."""

    indices: Array | None = None  # of classes, int64
    probabilities: Array | None = None  # of all classes, or of those in `sparse_indices`
    type: int = 0  # the code of the probabilities' element type
    sparse_indices: Array | None = None  # (rows, k)
    k: int = 0
    given: tuple[object, ...] = ()  # the arrays that came
    ignored: Array | None = None  # which rows do not count; None: all rows count


def as_targets(
    targets: npt.ArrayLike | TopKTargets,
    logits: Logits | Layout,
    ignore_index: int | None,
    sample_weight: npt.ArrayLike | None = None,
) -> Targets:
    """Tell class indices from probabilities, by shape. Rows of sample weight 0 may hold anything."""
    if isinstance(targets, TopKTargets):
        return _as_sparse(targets, logits, ignore_index)
    given = targets if type(targets) is np.ndarray else as_array("targets", targets)
    if given.shape == logits.row_shape:
        plain = given.dtype is INT64 and given.flags.carray
        indices = given if plain else _as_indices(given, targets, logits, ignore_index)
        return new_tuple(Targets, (indices, None, 0, None, 0, (given,), None))
    dtype = given.dtype.newbyteorder("=")
    code = element_type(dtype, PROBABILITY_TYPES)
    if code is None:
        raise TypeError(f"targets: expected {accepted_targets(logits)}, got {_advice.described(given)}")
    if given.shape != logits.shape:
        axis = logits.axis if isinstance(logits, Logits) else None  # that of a linear head is always the last
        found = _advice.of_shape(given, logits.shape, axis)
        raise ValueError(f"targets: expected {accepted_targets(logits)}, got {found}")
    data = as_read_by_core(np.moveaxis(given, logits.axis, -1) if logits.moved else given, dtype)
    if dtype.kind != "f" and code != BFLOAT16:
        require_one_hot(data, -1 if logits.moved else logits.axis, sample_weight)
    return new_tuple(Targets, (None, data, code, None, 0, (given,), None))


def require_one_hot(targets: Array, axis: int, sample_weight: npt.ArrayLike | None = None, first_row: int = 0) -> None:
    """Refuse integers or booleans that are not one-hot rows.

    They would be labels of their own at each logit, or counts: the loss of neither is what this one computes. A row of
    sample weight 0 does not count.
    """
    sizes = targets.view(f"u{targets.itemsize}")  # a negative number becomes a large one
    largest = sizes.max(axis)
    if (largest == 1).all() and np.count_nonzero(sizes) == largest.size:  # so each row has its 1, and no more
        return
    wrong = (largest != 1) | (np.count_nonzero(sizes, axis) != 1)
    if sample_weight is not None:
        wrong = wrong & (as_weights("sample_weight", sample_weight, largest.shape) != 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = np.moveaxis(targets, axis, -1).reshape(-1, targets.shape[axis])[row]
        raise ValueError(
            f"targets: expected one-hot rows (one 1, else 0) for {targets.dtype} of the logits' shape, got "
            f"{_advice.shown(found)} in row {first_row + row}: for a 0 or 1 at each logit there is "
            "binary_cross_entropy; other distributions would do as .astype(float)"
        )


@rounds_to_nearest
def _as_sparse(targets: TopKTargets, logits: Logits | Layout, ignore_index: int | None) -> Targets:
    indices, probabilities = as_array("targets", targets.indices), as_reals("targets", targets.probabilities)
    given = (targets.indices, targets.probabilities)
    shape, row_shape, axis, classes = logits.shape, logits.row_shape, logits.axis, logits.classes
    moved = np.moveaxis(indices, axis, -1) if indices.ndim == len(shape) else indices
    if indices.ndim != len(shape) or moved.shape[:-1] != row_shape or probabilities.shape != indices.shape:
        expected = ", ".join(map(str, (*shape[:axis], "K", *shape[axis + 1 :])))
        raise ValueError(
            f"targets: expected indices and probabilities of shape ({expected}), got shapes "
            f"{indices.shape} and {probabilities.shape}"
        )
    if indices.dtype.kind not in "iu":
        raise TypeError(f"targets: expected class indices (integers), got {indices.dtype}")
    k = moved.shape[-1]
    q = np.ascontiguousarray(np.moveaxis(probabilities, axis, -1)).reshape(logits.rows, k)
    t = np.ascontiguousarray(moved).reshape(q.shape)
    empty = (q == 0) & (False if ignore_index is None else t == ignore_index)
    bad = ((t < 0) | (t >= classes)) & ~empty
    if bad.any():
        row, slot = np.argwhere(bad)[0]
        accepted = accepted_indices(classes, ignore_index)
        accepted += "" if ignore_index is None else " where the probability is 0"
        raise IndexError(f"targets: expected {accepted}, got {t[row, slot]} in row {row}")
    ignored = np.asarray(empty.all(-1))
    if targets.renormalize:
        some = np.asarray(q.any(-1, keepdims=True))
        ignored |= ~some[:, 0]
        q = q / np.where(some, np.abs(q).max(-1, initial=0.0, keepdims=True), 1.0)  # so that their sum is finite
        total = q.sum(-1, keepdims=True)
        q = q / np.where(some, np.where(total > 0, total, np.nan), 1.0)
    sparse_indices = np.where(empty, 0, t).astype(np.int64)
    of_rows = ignored.reshape(row_shape) if ignored.any() else None
    return Targets(
        probabilities=q, type=LOGIT_TYPES[FLOAT64], sparse_indices=sparse_indices, k=k, given=given, ignored=of_rows
    )


def accepted_indices(classes: int, ignore_index: int | None) -> str:
    """Name the class indices that are in range; the core says the same."""
    return f"class indices in [0, {classes})" + ("" if ignore_index is None else f" or ignore_index {ignore_index}")


def _as_indices(given: Array, targets: npt.ArrayLike, logits: Logits | Layout, ignore_index: int | None) -> Array:
    if given.dtype.kind not in "iu":
        if given.size == 0 and given is not targets:  # an empty list has no dtype of its own
            return np.empty(given.shape, np.int64)
        found = _advice.of_labels(given, targets, logits.shape, ignore_index)
        raise TypeError(f"targets: expected {accepted_targets(logits)}, got {found}")
    if given.dtype.kind == "u" and given.dtype.itemsize == 8:
        beyond = np.flatnonzero(given > np.uint64(2**63 - 1))  # would become negative
        if beyond.size:
            row = int(beyond[0])
            value = given.reshape(-1)[row]
            raise IndexError(f"targets: expected {accepted_indices(logits.classes, None)}, got {value} in row {row}")
    return as_read_by_core(given, INT64)


def accepted_targets(logits: Layout | Logits) -> str:
    """Name the shapes and types of targets for such logits."""
    return (
        f"class indices (integers) of shape {logits.row_shape} or probabilities (real or boolean) of shape "
        f"{logits.shape}"
    )
