"""Targets: class indices, or probabilities of all classes or a few. The only place that checks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

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
    Shape,
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
    r"""Target distributions over K of the classes, such as the likeliest of a teacher.

    Accepted wherever targets are. No dense row is made of them. The other classes have probability 0, or share what is
    left: the remainder.

    Parameters
    ----------
    indices : array_like of integers, shape (..., K, ...)
        K class indices for each row, on the class axis. One that occurs twice in a row has the sum of both
        probabilities. A slot of probability 0 may hold `ignore_index`; a row of nothing but such slots is ignored.
    probabilities : array_like of real numbers, of the shape of `indices`
        What is missing to 1 in a row stays missing, unless `renormalize`.
    renormalize : bool
        Divide each row by its sum; a row of zeros is ignored, any other whose sum is not above 0 is NaN.
    remainder : {'ignore', 'bucket'} or array_like of the rows' shape
        What to do with the mass off the K classes. 'ignore': nothing, it is missing. 'bucket': it is one class of its
        own, against the probability that the logits give to all classes but the K; each row's mass is 1 minus the sum
        of its probabilities (0 where these exceed 1 by at most K 2⁻²³). An array: the same with these masses, which a
        teacher knows better than a difference of rounded numbers tells. Class weights, label smoothing and an entropy
        bonus have no meaning then.

    Notes
    -----
    With mass :math:`\rho` off the K classes a row's loss is :math:`-\sum_k q_k \log p_k - \rho \log P_\mathrm{rest}`,
    where :math:`P_\mathrm{rest}` is summed over the other classes alone, so that it keeps its digits where the K have
    nearly all of the probability. Minus the entropy of the K + 1 masses this is a divergence: it is never negative,
    which a sum over the K classes alone can be.

    Examples
    --------
    >>> import crossentropy as ce
    >>> teacher = ce.TopKTargets([[1, 0]], [[0.7, 0.2]])
    >>> round(ce.cross_entropy([[2.0, 1.0, 0.1]], teacher), 12)
    1.07532701465
    >>> round(ce.cross_entropy([[2.0, 1.0, 0.1]], [[0.2, 0.7, 0.0]]), 12)
    1.07532701465
    >>> bucket = ce.TopKTargets([[1, 0]], [[0.7, 0.2]], remainder="bucket")
    >>> round(ce.cross_entropy([[2.0, 1.0, 0.1]], bucket), 12)
    1.307030016278
    """

    indices: npt.ArrayLike
    probabilities: npt.ArrayLike
    renormalize: bool = False
    remainder: Literal["ignore", "bucket"] | npt.ArrayLike = "ignore"


class Targets(NamedTuple):
    """Targets as the core reads them, by the names of the first five fields; rows in the order of the logits'."""

    indices: Array | None = None  # of classes, int64
    probabilities: Array | None = None  # of all classes, or of those in `sparse_indices`
    type: int = 0  # the code of the probabilities' element type
    sparse_indices: Array | None = None  # (rows, k)
    k: int = 0
    given: tuple[object, ...] = ()  # the arrays that came
    ignored: Array | None = None  # which rows do not count; None: all rows count
    remainder: Array | None = None  # the mass of each row off its k classes, if that is a class of its own


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
        return new_tuple(Targets, (indices, None, 0, None, 0, (given,), None, None))
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
    return new_tuple(Targets, (None, data, code, None, 0, (given,), None, None))


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
    given: tuple[object, ...] = (targets.indices, targets.probabilities)
    row_shape, axis = logits.row_shape, logits.axis
    if not has_k_classes(indices, logits) or probabilities.shape != indices.shape:
        raise ValueError(
            f"targets: expected indices and probabilities of shape {shape_of_k(logits)}, got shapes "
            f"{indices.shape} and {probabilities.shape}"
        )
    if indices.dtype.kind not in "iu":
        swapped = np.asarray(targets.probabilities).dtype.kind in "iu"
        hint = ": indices come first, then probabilities" if swapped else ""
        raise TypeError(f"targets: expected class indices (integers), got {indices.dtype}{hint}")
    k = indices.shape[axis]
    q = np.ascontiguousarray(np.moveaxis(probabilities, axis, -1)).reshape(logits.rows, k)
    t = np.ascontiguousarray(np.moveaxis(indices, axis, -1)).reshape(q.shape)
    empty = (q == 0) & (False if ignore_index is None else t == ignore_index)
    accepted = accepted_indices(logits.classes, ignore_index)
    check_indices(
        "targets", t, empty, logits, accepted + ("" if ignore_index is None else " where the probability is 0")
    )
    ignored = np.asarray(empty.all(-1))
    if not isinstance(targets.renormalize, bool | np.bool_):
        raise TypeError(f"renormalize: expected True or False, got {targets.renormalize!r}")
    if targets.renormalize:
        some = np.asarray(q.any(-1, keepdims=True))
        ignored |= ~some[:, 0]
        q = q / np.where(some, np.abs(q).max(-1, initial=0.0, keepdims=True), 1.0)  # so that their sum is finite
        total = q.sum(-1, keepdims=True)
        q = q / np.where(some, np.where(total > 0, total, np.nan), 1.0)
    remainder = None
    if not isinstance(targets.remainder, str) or targets.remainder != "ignore":
        remainder = _as_remainder(targets, q, ignored, row_shape)
        given = (*given, targets.remainder)
    # An empty slot names no class. (Without a remainder any will do, with a probability of 0.)
    sparse_indices = np.where(empty, 0 if remainder is None else -1, t).astype(np.int64)
    of_rows = ignored.reshape(row_shape) if ignored.any() else None
    return Targets(None, q, LOGIT_TYPES[FLOAT64], sparse_indices, k, given, of_rows, remainder)


def _as_remainder(targets: TopKTargets, q: Array, ignored: Array, row_shape: Shape) -> Array:
    """The mass of each row off its classes."""
    if targets.renormalize:
        raise ValueError("renormalize: expected False with a remainder, got True")
    if isinstance(targets.remainder, str):
        if targets.remainder != "bucket":
            raise ValueError(f"remainder: expected 'ignore', 'bucket' or an array of masses, got {targets.remainder!r}")
        mass: Array = 1.0 - q.sum(-1)
        beyond = ~ignored & (mass < -(2.0**-23) * q.shape[-1])
        beyond |= ~ignored & (mass > 1)
        if beyond.any():
            row = int(np.flatnonzero(beyond)[0])
            hint = ": are these their logarithms? Then np.exp(probabilities) would do" if mass[row] > 1 else ""
            raise ValueError(
                f"targets: expected probabilities that add up to at most 1, since the remainder is what is left of it, "
                f"got {float(q[row].sum())} in row {row}{hint}"
            )
        return np.where(mass < 0, 0.0, mass)
    mass = as_reals("remainder", targets.remainder)
    if mass.shape != row_shape:
        raise ValueError(f"remainder: expected masses of shape {row_shape}, got shape {mass.shape}")
    mass = mass.reshape(len(q))
    wrong = ~((mass >= 0) & (mass < np.inf)) & ~ignored
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"remainder: expected finite masses of at least 0, got {mass[row]} in row {row}")
    return mass


def has_k_classes(indices: Array, logits: Logits | Layout) -> bool:
    """Whether an array names K classes of each row, on the class axis."""
    shape, axis = logits.shape, logits.axis
    return indices.ndim == len(shape) and indices.shape[:axis] + indices.shape[axis + 1 :] == logits.row_shape


def shape_of_k(logits: Logits | Layout) -> str:
    """The shape of such an array."""
    shape, axis = logits.shape, logits.axis
    return f"({', '.join(map(str, (*shape[:axis], 'K', *shape[axis + 1 :])))}{',' * (len(shape) == 1)})"


def check_indices(name: str, indices: Array, empty: Array, logits: Logits | Layout, accepted: str) -> None:
    """Raise for the first of K class indices of each row that is out of range, unless its slot is empty."""
    bad = ((indices < 0) | (indices >= logits.classes)) & ~empty
    if bad.any():
        row, slot = np.argwhere(bad)[0]
        advice = _advice.of_indices(indices[~empty], logits.classes, None, in_order=False, name="indices")
        raise IndexError(f"{name}: expected {accepted}, got {indices[row, slot]} in row {row}{advice}")


def accepted_indices(classes: int, ignore_index: int | None) -> str:
    """Name the class indices that are in range; the core says the same."""
    return f"class indices in [0, {classes})" + ("" if ignore_index is None else f" or ignore_index {ignore_index}")


def _as_indices(given: Array, targets: npt.ArrayLike, logits: Logits | Layout, ignore_index: int | None) -> Array:
    if given.dtype.kind not in "iu":
        if given.size == 0 and given is not targets:  # an empty list has no dtype of its own
            return np.empty(given.shape, np.int64)
        found = _advice.of_labels(given, logits.shape, ignore_index)
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
