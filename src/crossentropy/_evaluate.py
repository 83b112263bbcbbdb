"""Validate, allocate, call the core: what every front end does."""

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, Logits, as_grad_output, as_logits, as_weights, check_out, memory_of, row_type
from ._config import resolve_threads
from ._options import LossOptions
from ._targets import Targets, TopKTargets, as_targets

# Codes of the core's Reduction.
REDUCTION_CODES = {"none": 0, "sum": 1, "mean": 2}


def evaluate(
    options: LossOptions,
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    axis: int,
    class_weight: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
    num_threads: int | None,
    gradient: bool,
    grad_output: npt.ArrayLike = 1.0,
    out: Array | None = None,
    diagonal: Array | None = None,
) -> tuple[float | Array, Array | None]:
    """Validate, allocate, call the core: what every front end does.

    `diagonal` receives that of the Hessian: of the logits' shape and dtype, contiguous; the gradient is needed then.
    """
    z = as_logits(logits, axis)
    t = as_targets(targets, z, options.ignore_index)
    data = z.data
    per_row = options.reduction == "none"
    scale, row_scale = as_grad_output(grad_output, z.row_shape, per_row)
    losses = np.empty(z.row_shape, row_type(data.dtype)) if per_row else None
    dlogits = matrix = None
    if gradient:
        # The core writes what is laid out as the logits it reads: the gradient itself, or an array to be copied from.
        if out is None:
            dlogits = matrix = np.empty(z.given.shape, data.dtype)
            in_place = True
        else:
            dlogits = matrix = check_out(out, z, (*t.given, class_weight, sample_weight, grad_output))
            in_place = out.flags.carray
        if z.moved or not in_place:
            matrix = np.empty(data.shape, data.dtype)
    second = diagonal if diagonal is None or not z.moved else np.empty(data.shape, data.dtype)
    weights = None if sample_weight is None else as_weights("sample_weight", sample_weight, z.row_shape)
    if t.ignored is not None:
        weights = np.where(t.ignored, 0.0, 1.0 if weights is None else weights)
    loss = _core.loss(
        memory_of(data, z.code),
        z.rows,
        z.classes,
        z.inner,
        z.code,
        t.indices,
        t.probabilities,
        t.code,
        t.sparse_indices,
        0 if t.sparse_indices is None else t.sparse_indices.shape[-1],
        None if class_weight is None else as_weights("class_weight", class_weight, (z.classes,)),
        weights,
        options.ignore_index,
        options.label_smoothing,
        options.z_loss,
        options.softcap,
        options.temperature,
        REDUCTION_CODES[options.reduction],
        scale,
        row_scale,
        losses,
        None if matrix is None else memory_of(matrix, z.code),
        None if second is None else memory_of(second, z.code),
        resolve_threads(num_threads),
    )
    if dlogits is not None and matrix is not None and matrix is not dlogits:
        np.copyto(dlogits, np.moveaxis(matrix, -1, z.axis) if z.moved else matrix)
    if diagonal is not None and second is not None and second is not diagonal:
        np.copyto(diagonal, np.moveaxis(second, -1, z.axis))
    return loss if losses is None else losses[()], dlogits


def total_weight(
    targets: Targets,
    rows: Logits,
    ignore_index: int | None,
    class_weight: Array | None,
    sample_weight: Array | None,
) -> float:
    """What the mean divides by; a class index out of range raises IndexError."""
    if targets.ignored is not None:
        sample_weight = np.where(targets.ignored, 0.0, 1.0 if sample_weight is None else sample_weight)
    return _core.total_weight(rows.rows, rows.classes, targets.indices, ignore_index, class_weight, sample_weight)
