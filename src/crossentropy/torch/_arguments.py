"""Checks of arguments. For those that do not fit, torch's own function raises its own error."""

import math
import sys
from numbers import Real
from typing import Any, NoReturn

import torch
from torch import Tensor

from ._kernel import (
    TYPES,
    WEIGHT_TYPES,
    TargetTensors,
    as_weights,
    autocasts,
    is_memory,
    readable,
    targets_fit,
    under_transform,
)

_NUMBERS: Any = (Real, torch.SymInt, torch.SymFloat)


def fits(input: Tensor, targets: TargetTensors, ignore_index: int) -> bool:
    if input.dtype not in TYPES or ignore_index is None:
        return False
    if isinstance(ignore_index, int) and ignore_index >= 0 and targets.target.shape == input.shape:
        return False
    return targets_fit(input.shape, targets)


def fits_head(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | None,
) -> bool:
    shape = linear_weight.shape[:-1]
    tensors = (input, linear_weight) if linear_bias is None else (input, linear_weight, linear_bias)
    if input.dim() not in (1, 2) or not shape or input.shape[-1] != linear_weight.shape[-1]:
        return False
    if any(t.dtype not in TYPES or (t.dtype != input.dtype and not autocasts(input)) for t in tensors):
        return False
    if (linear_bias is not None and linear_bias.shape != shape) or (input.dim() == 1 and len(shape) > 1):
        return False
    logits = input.shape[:-1] + shape
    if target.shape == logits and ignore_index is not None:
        return False
    return targets_fit(logits, TargetTensors(target, weight))


def refuse(function: Any, *arguments: Any, because: Exception | None = None, **options: Any) -> NoReturn:
    """Raise what torch raises for these arguments; if it raises nothing, `because` or an error of ours."""
    function(*arguments, **options)
    if because is not None:
        raise because
    given = [*arguments[:3], options.get("weight")]
    described = ", ".join(
        f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else repr(value)
        for value in given
        if value is not None
    )
    raise ValueError(
        f"{function.__name__}: expected at least one class, real numbers and the shapes that torch documents, "
        f"got {described}"
    )


def check_weights(rows: torch.Size, weight: Tensor | None, sample_weight: Tensor | None) -> None:
    if sample_weight is not None and (sample_weight.shape != rows or sample_weight.dtype not in WEIGHT_TYPES):
        raise ValueError(
            f"sample_weight: expected real numbers of shape {tuple(rows)}, got {tuple(sample_weight.shape)} of "
            f"{sample_weight.dtype}"
        )
    for name, tensor in (("weight", weight), ("sample_weight", sample_weight)):
        if tensor is not None and tensor.requires_grad and is_memory(tensor) and not under_transform():
            as_weights(name, tensor.detach())  # others are checked as the core reads them


def divisor_of(num_items: float | Tensor, reduction: str) -> float | Tensor:
    """What the mean divides by, as a number where its value is known and no gradient of it is wanted."""
    if reduction != "mean":
        raise ValueError(f"num_items: expected reduction 'mean', got {reduction!r}")
    if isinstance(num_items, Tensor):
        if num_items.numel() != 1 or num_items.dtype not in WEIGHT_TYPES or num_items.dtype is torch.bool:
            raise ValueError(
                f"num_items: expected a number or a tensor of one, got shape {tuple(num_items.shape)} of "
                f"{num_items.dtype}"
            )
        num_items = num_items.reshape(())
        if num_items.requires_grad or not is_memory(num_items) or under_transform():
            return num_items
        num_items = readable("num_items", num_items).item()
    if isinstance(num_items, bool) or not isinstance(num_items, _NUMBERS):
        raise TypeError(f"num_items: expected a number or a tensor of one, got {num_items!r}")
    huge = isinstance(num_items, int) and abs(num_items) > sys.float_info.max  # more digits than Python may show
    if huge or not 0 <= num_items < math.inf:
        got = "one beyond float64" if huge else num_items
        raise ValueError(f"num_items: expected a finite number of at least 0, got {got}")
    return num_items
