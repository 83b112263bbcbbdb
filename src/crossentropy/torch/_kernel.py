"""The core on torch's tensors, which it reads and writes by their addresses."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _core
from .._config import resolve_threads
from .._evaluate import REDUCTION_CODES
from .._options import LossOptions

# Codes of the core's ElementType.
TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
# Types of tensors that are memory and nothing else.
PLAIN = (Tensor, torch.nn.Parameter)


class Targets(NamedTuple):
    """What a loss is computed against: class indices or probabilities, and weights."""

    target: Tensor
    weight: Tensor | None = None  # of the classes
    sample_weight: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for tensor in self if tensor is not None]


def class_axis(input: Tensor) -> int:
    return 1 if input.dim() > 1 else 0


def row_shape(input: Tensor) -> torch.Size:
    axis = class_axis(input)
    return input.shape[:axis] + input.shape[axis + 1 :]


def row_dtype(input: Tensor) -> torch.dtype:
    """What losses are returned in: no half precision, which would leave them two or three digits."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def _classes_last(input: Tensor) -> bool:
    return input.movedim(class_axis(input), -1).is_contiguous()


def empty_gradient(input: Tensor) -> Tensor:
    """Memory for the gradient, laid out as the core reads the logits: their own strides, unless they have gaps."""
    if input.is_contiguous() or _classes_last(input):
        return torch.empty_like(input)
    return torch.empty_like(input, memory_format=torch.contiguous_format)


def empty(like: Tensor, *shape: int) -> Tensor:
    """Memory that something else than the core is the first to write."""
    tensor = like.new_empty(shape)
    _core.advise_huge_pages(tensor.data_ptr(), tensor.nbytes)
    return tensor


def evaluate(
    options: LossOptions,
    input: Tensor,
    targets: Targets,
    losses: Tensor | None = None,
    gradient: Tensor | None = None,
    scale: float = 1.0,
    row_scale: Tensor | None = None,
) -> float:
    """Compute the reduced loss; write one loss a row, and the gradient times the scales, where given.

    `input`, (C,) or (N, C, ...), is a plain tensor on the CPU, as are all others; their shapes are right.
    """
    axis = class_axis(input)
    classes = input.shape[axis]
    last = not input.is_contiguous() and _classes_last(input)
    logits = input if last else input.contiguous()
    rows = input.numel() // classes
    inner = 1 if last or axis == 0 or rows == 0 else rows // input.shape[0]
    target, weight, sample_weight = targets
    probabilities = target.shape == input.shape
    if probabilities and last:
        target = target.movedim(axis, -1)
    if not probabilities:
        target = target.long()
    target = target.contiguous()
    weight = None if weight is None else weight.to(torch.float64).contiguous()
    if sample_weight is not None:
        sample_weight = sample_weight.to(torch.float64).contiguous()
        if not ((sample_weight >= 0) & (sample_weight < torch.inf)).all():
            raise ValueError("sample_weight: expected finite weights of at least 0")
    row_scale = None if row_scale is None else row_scale.to(torch.float64).contiguous()
    return _core.loss(
        logits.data_ptr(),
        rows,
        classes,
        inner,
        TYPES[logits.dtype],
        None if probabilities else target.data_ptr(),
        target.data_ptr() if probabilities else None,
        TYPES[target.dtype] if probabilities else 0,
        None,
        0,
        None if weight is None else weight.data_ptr(),
        None if sample_weight is None else sample_weight.data_ptr(),
        options.ignore_index,
        options.label_smoothing,
        options.z_loss,
        options.softcap,
        options.temperature,
        REDUCTION_CODES[options.reduction],
        scale,
        None if row_scale is None else row_scale.data_ptr(),
        None if losses is None else losses.data_ptr(),
        None if gradient is None else gradient.data_ptr(),
        None,
        min(resolve_threads(None), torch.get_num_threads()),
    )


def total_weight(options: LossOptions, shape: torch.Size, targets: Targets) -> float:
    """What the mean over logits of this shape, (N, C, ...), divides by; a bad class index raises IndexError."""
    target, weight, sample_weight = targets
    indices = None if target.shape == shape else target.long().contiguous()
    weight = None if weight is None else weight.to(torch.float64).contiguous()
    sample_weight = None if sample_weight is None else sample_weight.to(torch.float64).contiguous()
    return _core.total_weight(
        math.prod(shape) // shape[1],
        shape[1],
        None if indices is None else indices.data_ptr(),
        options.ignore_index,
        None if weight is None else weight.data_ptr(),
        None if sample_weight is None else sample_weight.data_ptr(),
    )
