"""The loss and its gradient."""

from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import ELEMENT_TYPES, Array, as_grad_output, as_logits, as_targets, as_weights, check_out
from ._config import resolve_threads
from ._options import REDUCTIONS, LossOptions, Reduction, loss_options

_REDUCTION_CODES = {name: code for code, name in enumerate(REDUCTIONS)}


def evaluate(
    options: LossOptions,
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    axis: int,
    class_weight: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
    num_threads: int | None,
    gradient: bool,
    grad_output: npt.ArrayLike = 1.0,
    out: Array | None = None,
) -> tuple[float | Array, Array | None]:
    """Validate, allocate, call the core: what every front end does."""
    z = as_logits(logits, axis)
    t = as_targets(targets, z)
    data, row_shape = z.data, z.row_shape
    weight = None if class_weight is None else as_weights("class_weight", class_weight, (z.classes,))
    sample = None if sample_weight is None else as_weights("sample_weight", sample_weight, row_shape)
    per_row = options.reduction == "none"
    scale, row_scale = as_grad_output(grad_output, row_shape, per_row)

    dlogits = matrix = None
    if gradient:
        if out is None:
            dlogits = np.empty(z.given.shape, data.dtype)
        else:
            check_out(out, z, (t.given, *(a for a in (class_weight, sample_weight, grad_output) if isinstance(a, np.ndarray))))
            dlogits = out
        # The core writes rows of classes: elsewhere first, where the gradient's layout is another.
        flags = dlogits.flags
        in_place = z.axis == data.ndim - 1 and flags.c_contiguous and flags.aligned
        matrix = dlogits if in_place else np.empty(data.shape, data.dtype)
    losses = np.empty(row_shape, data.dtype) if per_row else None

    loss = _core.loss(
        data,
        z.rows,
        z.classes,
        ELEMENT_TYPES[data.dtype],
        t.indices,
        t.probabilities,
        0 if t.probabilities is None else ELEMENT_TYPES[t.probabilities.dtype],
        weight,
        sample,
        options.ignore_index,
        options.label_smoothing,
        options.z_loss,
        options.softcap,
        options.temperature,
        _REDUCTION_CODES[options.reduction],
        scale,
        row_scale,
        losses,
        matrix,
        resolve_threads(num_threads),
    )
    if dlogits is not matrix:
        np.copyto(dlogits, np.moveaxis(matrix, -1, z.axis))
    return (loss if losses is None else losses[()]), dlogits


def cross_entropy(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
) -> float | Array:
    options = loss_options(ignore_index, label_smoothing, z_loss, softcap, temperature, reduction)
    return evaluate(options, logits, targets, axis, class_weight, sample_weight, num_threads, False)[0]


def cross_entropy_with_grad(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    grad_output: npt.ArrayLike = 1.0,
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    options = loss_options(ignore_index, label_smoothing, z_loss, softcap, temperature, reduction)
    return evaluate(options, logits, targets, axis, class_weight, sample_weight, num_threads, True, grad_output, out)
