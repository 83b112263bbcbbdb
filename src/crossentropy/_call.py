"""A call of the loss: validated once, then given to the core. What every front end of arrays does."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import _advice, _core
from ._arrays import (
    LARGE,
    Array,
    Layout,
    Logits,
    Shape,
    as_grad_output,
    as_logits,
    as_weights,
    check_out,
    classes_last,
    empty,
    new_tuple,
    row_type,
)
from ._config import resolve_threads
from ._options import LossOptions
from ._targets import Targets, TopKTargets, as_targets


class Call(NamedTuple):
    """The options and data of a loss, as the core reads them by these names."""

    options: LossOptions
    logits: Logits
    targets: Targets
    class_weight: Array | None = None
    sample_weight: Array | None = None
    num_threads: int = 1
    weights_given: tuple[object, ...] = ()  # before they were converted


def prepare(
    options: LossOptions,
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    num_threads: int | None = None,
) -> Call:
    """Validate the data of a loss."""
    z = as_logits(logits, axis)
    t = as_targets(targets, z, options.ignore_index, sample_weight)
    check_options(options, t, class_weight)
    if t.remainder is not None:
        z = classes_last(z)
    w = None if class_weight is None else as_weights("class_weight", class_weight, (z.classes,))
    s = None if sample_weight is None and t.ignored is None else weights_of_rows(t, sample_weight, z.row_shape)
    if options.reduction == "mean" and (w is not None or s is not None):
        require_mean(t, w, s)
    return new_tuple(Call, (options, z, t, w, s, resolve_threads(num_threads), (class_weight, sample_weight)))


def check_options(options: LossOptions, targets: Targets, class_weight: npt.ArrayLike | None) -> None:
    """Refuse what has no meaning for such targets."""
    if options.focal_gamma > 0.0 and targets.indices is None:
        raise ValueError(
            f"focal_gamma: expected 0 for targets that are probabilities, got {options.focal_gamma}: the focal loss is "
            "that of one class a row"
        )
    if targets.remainder is not None:
        given = {
            "class_weight": class_weight is not None,
            "label_smoothing": options.label_smoothing > 0.0,
            "entropy_bonus": options.entropy_bonus != 0.0,
        }
        for name, is_given in given.items():
            if is_given:
                raise ValueError(
                    f"{name}: expected none for TopKTargets with a remainder, whose classes are K and the rest"
                )


def weights_of_rows(targets: Targets, sample_weight: npt.ArrayLike | None, row_shape: Shape) -> Array | None:
    """Sample weights, 0 for the rows that sparse targets leave out."""
    weights = None if sample_weight is None else as_weights("sample_weight", sample_weight, row_shape)
    if targets.ignored is not None:
        weights = np.where(targets.ignored, 0.0, 1.0 if weights is None else weights)
    return weights


def has_mean(targets: Targets, class_weight: Array | None, sample_weight: Array | None) -> bool:
    """Whether no weight that a mean divides by is negative: weights of both signs may add up to nearly nothing."""
    divides = (class_weight if targets.indices is not None else None, sample_weight)
    return all(weights is None or weights.min(initial=0.0) >= 0 for weights in divides)


def require_mean(targets: Targets, class_weight: Array | None, sample_weight: Array | None) -> None:
    """Refuse a mean of negative weights."""
    if not has_mean(targets, class_weight, sample_weight):
        raise ValueError(
            "reduction: expected 'sum' or 'none' for weights of which some are negative, got 'mean', which would "
            "divide by their sum: it may be nearly 0"
        )


def total_weight(
    options: LossOptions,
    logits: Logits | Layout,
    targets: Targets,
    class_weight: Array | None = None,
    sample_weight: Array | None = None,
) -> float:
    """What the mean divides by; a class index out of range raises IndexError."""
    try:
        return _core.total_weight(
            options.core, logits=logits, targets=targets, class_weight=class_weight, sample_weight=sample_weight
        )
    except IndexError as error:
        raise with_advice(error, options, logits, targets) from None


def with_advice(error: IndexError, options: LossOptions, logits: Logits | Layout, targets: Targets) -> IndexError:
    """The core's message on a class index out of range, and what would do."""
    assert targets.indices is not None
    return IndexError(f"{error}{_advice.of_indices(targets.indices, logits.classes, options.ignore_index)}")


def loss(call: Call) -> float | Array:
    """The reduced loss, or one loss a row."""
    try:
        if call.options.reduction != "none":
            return _core.loss(call)
        losses = np.empty(call.logits.row_shape, row_type(call.logits.data.dtype))
        _core.loss(call, losses=losses)
    except IndexError as error:
        raise with_advice(error, call.options, call.logits, call.targets) from None
    return losses[()]


def losses_and_sum(call: Call, gradient_scale: float | None) -> tuple[Array, float, Array | None]:
    """One loss a row, their sum, and for a scale the gradient of the sum times it. The reduction is 'sum'."""
    z = call.logits
    losses = np.empty(z.row_shape, row_type(z.data.dtype))
    if gradient_scale is None:
        return losses, _core.loss(call, losses=losses), None
    dlogits = empty(z.data.shape, z.data.dtype)
    total = _core.loss(call, gradient_scale=gradient_scale, losses=losses, dlogits=dlogits)
    return losses, total, np.moveaxis(dlogits, -1, z.axis) if z.moved else dlogits


def loss_and_gradient(
    call: Call, grad_output: npt.ArrayLike = 1.0, out: Array | None = None, *, diagonal: Array | None = None
) -> tuple[float | Array, Array]:
    """The loss, and its gradient times `grad_output`, in `out` if that is given.

    `diagonal` receives that of the Hessian: a new array of the logits' shape and dtype.
    """
    z = call.logits
    data = z.data
    per_row = call.options.reduction == "none"
    row_scale = None
    if type(grad_output) is float:  # as mostly: a call is saved
        scale = grad_output
    else:
        scale, row_scale = as_grad_output(grad_output, z.row_shape, per_row)
    dlogits, matrix = gradient_arrays(call, out, (grad_output,))
    second = empty(data.shape, data.dtype) if z.moved and diagonal is not None else diagonal
    losses = np.empty(z.row_shape, row_type(data.dtype)) if per_row else None
    try:
        value = _core.loss(
            call, gradient_scale=scale, grad_output=row_scale, losses=losses, dlogits=matrix, diagonal=second
        )
    except IndexError as error:
        raise with_advice(error, call.options, z, call.targets) from None
    finish_gradient(z, dlogits, matrix)
    if diagonal is not None and second is not None and second is not diagonal:
        np.copyto(diagonal, np.moveaxis(second, -1, z.axis))
    return value if losses is None else losses[()], dlogits


def gradient_arrays(call: Call, out: Array | None, inputs: tuple[object, ...]) -> tuple[Array, Array]:
    """The gradient, and what the core writes, laid out as the logits it reads: the same, or to be copied from."""
    z = call.logits
    data = z.data
    if out is None:
        dlogits = matrix = np.empty(z.shape, data.dtype) if data.nbytes < LARGE else empty(z.shape, data.dtype)
    else:
        dlogits = matrix = check_out(out, z, (*call.targets.given, *call.weights_given, *inputs))
    if z.moved or not (out is None or out.flags.carray):
        matrix = empty(data.shape, data.dtype)
    return dlogits, matrix


def finish_gradient(logits: Logits, dlogits: Array, matrix: Array) -> None:
    """Copy what the core has written to the gradient, if that is another array."""
    if matrix is not dlogits:
        np.copyto(dlogits, np.moveaxis(matrix, -1, logits.axis) if logits.moved else matrix)
