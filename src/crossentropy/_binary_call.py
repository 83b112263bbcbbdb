"""A call of the binary loss: validated once, then given to the core."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _advice, _core
from ._arrays import (
    FLOAT32,
    FLOAT64,
    LOGIT_TYPES,
    PROBABILITY_TYPES,
    Array,
    Logits,
    Shape,
    as_array,
    as_grad_output,
    as_read_by_core,
    as_reals,
    check_out,
    element_type,
    empty,
    logits_as_read,
    row_type,
)
from ._config import resolve_threads
from ._options import LARGEST, RANGE, SMALLEST, Reduction, as_number, loss_options


class BinaryOptions(NamedTuple):
    """The options of the binary loss, validated by `binary_options`."""

    label_smoothing: float
    focal_gamma: float
    reduction: Reduction


def binary_options(label_smoothing: float, focal_gamma: float, reduction: Reduction) -> BinaryOptions:
    """Validated options."""
    shared = loss_options(label_smoothing=label_smoothing, reduction=reduction)
    gamma = as_number("focal_gamma", focal_gamma)
    if not 0.0 <= gamma < math.inf:
        raise ValueError(f"focal_gamma: expected a finite number of at least 0, got {gamma}")
    return BinaryOptions(shared.label_smoothing, gamma, shared.reduction)


class ElementWeights(NamedTuple):
    """Weights as the core reads them: element i has the one at (i // repeat) % period."""

    data: Array
    type: int  # the code of float32 or float64
    repeat: int
    period: int


class BinaryCall(NamedTuple):
    """The options and data of a binary loss, as the core reads them by these names."""

    logits: Array
    type: int
    size: int
    targets: Array
    targets_type: int
    pos_weight: ElementWeights | None
    sample_weight: ElementWeights | None
    label_smoothing: float
    focal_gamma: float
    reduction: str
    num_threads: int
    given: Any = None  # the logits as `Logits`, for outputs of arrays
    inputs: tuple[object, ...] = ()  # beside the logits, before they were converted


def prepare_binary(
    options: BinaryOptions,
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    pos_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    num_threads: int | None = None,
) -> BinaryCall:
    """Validate the data of a binary loss."""
    given = as_array("logits", logits)
    data, code = logits_as_read(given)
    shape, count = given.shape, given.size
    z = Logits(data, code, count, 1, 1, shape, shape, 0, False, given)
    w = None if pos_weight is None else as_element_weights("pos_weight", pos_weight, shape)
    s = None if sample_weight is None else as_element_weights("sample_weight", sample_weight, shape)
    y, targets_code = _as_binary_targets(targets, shape, sample_weight)
    if s is not None and options.reduction == "mean" and s.data.min(initial=0.0) < 0:
        raise ValueError(
            "reduction: expected 'sum' or 'none' for weights of which some are negative, got 'mean', which would "
            "divide by their sum: it may be nearly 0"
        )
    return BinaryCall(
        data,
        code,
        count,
        y,
        targets_code,
        w,
        s,
        options.label_smoothing,
        options.focal_gamma,
        options.reduction,
        resolve_threads(num_threads),
        z,
        (targets, pos_weight, sample_weight),
    )


def _as_binary_targets(targets: npt.ArrayLike, shape: Shape, sample_weight: npt.ArrayLike | None) -> tuple[Array, int]:
    given = as_array("targets", targets)
    if given.shape != shape:
        found = _advice.of_weights("targets", given, shape)
        raise ValueError(f"targets: expected the shape of the logits, {shape}, got {found}")
    dtype = given.dtype.newbyteorder("=")
    code = element_type(dtype, PROBABILITY_TYPES)
    if code is None:
        raise TypeError(f"targets: expected numbers of a real or boolean dtype, got {_advice.described(given)}")
    data = as_read_by_core(given, dtype)
    if dtype.kind in "biu":
        _require_labels(data, sample_weight)
    return data, code


def _require_labels(targets: Array, sample_weight: npt.ArrayLike | None) -> None:
    """Refuse integers other than 0 and 1: they are labels of another kind. An element of weight 0 does not count."""
    sizes = targets.view(f"u{targets.itemsize}")  # a negative number becomes a large one
    if sizes.max(initial=0) <= 1:
        return
    wrong = sizes > 1
    if sample_weight is not None:
        wrong = wrong & (as_reals("sample_weight", sample_weight) != 0)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        found = f"{targets.flat[at]} at element {at}{_advice.of_binary_labels(targets)}"
        raise ValueError(f"targets: expected 0 and 1 as {targets.dtype}, got {found}")


def as_element_weights(name: str, weights: npt.ArrayLike, shape: Shape) -> ElementWeights:
    """Weights that broadcast to a shape. One a class, a row or an element is read as it is."""
    array = as_array(name, weights)
    array = as_read_by_core(array, FLOAT32) if array.dtype == FLOAT32 else as_reals(name, array)
    if not broadcasts_to(array.shape, shape):
        raise ValueError(f"{name}: expected a number or an array that broadcasts to shape {shape}, got {array.shape}")
    if 0 in shape:
        return ElementWeights(np.ones(1), LOGIT_TYPES[FLOAT64], 1, 1)
    _check_range(name, array)
    if name == "pos_weight" and array.min() < 0:
        raise ValueError(f"pos_weight: expected weights of at least 0, got {array.min()}")
    pattern = weights_pattern(array.shape, shape)
    if pattern is None:
        array = np.ascontiguousarray(np.broadcast_to(array, shape))
        pattern = 1, array.size
    return ElementWeights(array, LOGIT_TYPES[array.dtype], *pattern)


def weights_pattern(of: Shape, shape: Shape) -> tuple[int, int] | None:
    """How often each of some weights is repeated, and how many there are before they begin anew; `of` broadcasts to
    `shape`. None where the axes along which they differ do not lie side by side.
    """
    full = (1,) * (len(shape) - len(of)) + tuple(of)
    axes = [axis for axis, n in enumerate(full) if n != 1]
    if not axes:
        return 1, 1
    end = axes[-1] + 1
    if full[axes[0] : end] != tuple(shape[axes[0] : end]):
        return None
    return math.prod(shape[end:]), math.prod(full)


def broadcasts_to(of: Shape, shape: Shape) -> bool:
    """Whether an array of one shape has an element for each of another's."""
    lead = len(shape) - len(of)
    return lead >= 0 and all(n in (1, to) for n, to in zip(of, shape[lead:], strict=True))


def _check_range(name: str, array: Array) -> None:
    least, most = array.min(), array.max()
    if array.dtype == FLOAT32 and np.isfinite(least) and np.isfinite(most):  # without a copy of a large array
        return
    if least >= SMALLEST and most <= LARGEST:
        return
    size = np.abs(array.astype(np.float64))
    wrong = ~((size == 0) | ((size >= SMALLEST) & (size <= LARGEST)))
    if wrong.any():
        raise ValueError(f"{name}: expected finite weights, each 0 or of a size in {RANGE}, got {array[wrong][0]}")


def binary_loss(call: BinaryCall) -> float | Array:
    """The reduced loss, or one loss an element."""
    if call.reduction != "none":
        return _core.binary(call)
    losses = empty(call.given.shape, row_type(call.logits.dtype))
    _core.binary(call, losses=losses)
    return losses[()]


def binary_loss_and_gradient(
    call: BinaryCall, grad_output: npt.ArrayLike = 1.0, out: Array | None = None
) -> tuple[float | Array, Array]:
    """The loss, and its gradient times `grad_output`, in `out` if that is given."""
    z: Logits = call.given
    per_element = call.reduction == "none"
    scale, scales = as_grad_output(grad_output, z.shape, per_element)
    if out is None:
        dlogits = written = empty(z.shape, z.data.dtype)
    else:
        dlogits = written = check_out(out, z, (*call.inputs, grad_output))
        if not out.flags.carray:
            written = empty(z.shape, z.data.dtype)
    losses = empty(z.shape, row_type(z.data.dtype)) if per_element else None
    value = _core.binary(call, gradient_scale=scale, grad_output=scales, losses=losses, dlogits=written)
    if written is not dlogits:
        np.copyto(dlogits, written)
    return value if losses is None else losses[()], dlogits
