"""Checks of arguments. For those that do not fit, torch's own function raises its own error."""

import math
import sys
from numbers import Real
from typing import Any, NoReturn

import torch
from torch import Tensor

from .._options import LossOptions, loss_options
from ._kernel import (
    INTEGERS,
    TYPES,
    WEIGHT_TYPES,
    TargetTensors,
    as_weights,
    autocasts,
    class_axis,
    is_distributed,
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
    if not any(isinstance(value, Tensor) and is_distributed(value) for value in (*arguments, *options.values())):
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


def check_focal(options: LossOptions, logits: torch.Size, target: Tensor) -> None:
    if options.focal_gamma > 0.0 and target.shape == logits:
        raise ValueError(
            f"focal_gamma: expected 0 for targets that are probabilities, got {options.focal_gamma}: the focal loss is "
            "that of one class a row"
        )


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


# Of the functions that torch has no counterpart of.


def check_logits(name: str, input: Tensor) -> None:
    """Raise unless these are logits of at least one class."""
    check_real(name, input)
    if not input.dim() or input.shape[class_axis(input)] == 0:
        raise ValueError(
            f"{name}: expected shape (C,), (N, C) or (N, C, d_1, ...) with at least one class, got {tuple(input.shape)}"
        )


def check_real(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(tensor).__name__}")
    if tensor.dtype not in TYPES:
        raise TypeError(f"{name}: expected float16, bfloat16, float32 or float64, got {tensor.dtype}")


def check_indices(logits: torch.Size, target: Tensor) -> None:
    """Raise unless these are class indices, one or K for each row of logits of this shape."""
    if not isinstance(target, Tensor):
        raise TypeError(f"target: expected a Tensor, got {type(target).__name__}")
    if target.dtype not in INTEGERS:
        raise TypeError(f"target: expected class indices (integers), got {target.dtype}")
    axis = 1 if len(logits) > 1 else 0
    before, after = logits[:axis], logits[axis + 1 :]
    several = target.dim() == len(logits) and target.shape[:axis] + target.shape[axis + 1 :] == before + after
    if not several and target.shape != before + after:
        shapes = ", ".join(map(str, before)), ", ".join(map(str, after))
        with_k = ", ".join(part for part in (shapes[0], "K", shapes[1]) if part)
        raise ValueError(
            f"target: expected shape {tuple(before + after)}, one index a row, or ({with_k}), K of them, "
            f"got {tuple(target.shape)}"
        )


def check_range(logits: torch.Size, target: Tensor, ignore_index: int | None) -> None:
    """Raise if a class index is out of range, where it can be read."""
    if not is_memory(target) or under_transform():
        return
    index, classes = readable("target", target).long(), logits[1 if len(logits) > 1 else 0]
    wrong = (index < 0) | (index >= classes)
    if ignore_index is not None:
        wrong &= index != ignore_index
    if wrong.any():
        where = [int(i) for i in wrong.nonzero()[0]]
        ignored = "" if ignore_index is None else f" or ignore_index {ignore_index}"
        raise IndexError(
            f"target: expected class indices in [0, {classes}){ignored}, got {index[tuple(where)]} at {where}"
        )


def check_head(of: str, input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> None:
    """Raise unless these are hidden states, a classifier and its bias; `of` begins their names ("" or "teacher_")."""
    names = f"{of}input", f"{of}linear_weight", f"{of}linear_bias"
    check_real(names[0], input)
    check_real(names[1], linear_weight)
    if input.dim() not in (1, 2):
        raise ValueError(f"{names[0]}: expected shape (D,) or (N, D), got {tuple(input.shape)}")
    shape = linear_weight.shape[:-1]
    if not shape or linear_weight.shape[-1] != input.shape[-1] or shape[0] == 0 or (input.dim() == 1 < len(shape)):
        more = "" if input.dim() == 1 else f" or (C, d_1, ..., d_K, {input.shape[-1]})"
        raise ValueError(
            f"{names[1]}: expected shape (C, {input.shape[-1]}){more} with at least one class, "
            f"got {tuple(linear_weight.shape)}"
        )
    given = [(names[1], linear_weight)]
    if linear_bias is not None:
        check_real(names[2], linear_bias)
        given.append((names[2], linear_bias))
        if linear_bias.shape != shape:
            raise ValueError(f"{names[2]}: expected shape {tuple(shape)}, got {tuple(linear_bias.shape)}")
    for name, tensor in given:
        if tensor.dtype != input.dtype and not autocasts(input):
            raise TypeError(f"{name}: expected {input.dtype}, as {names[0]} has, got {tensor.dtype}")


def teacher_options(softcap: float | None, temperature: float) -> LossOptions:
    """The options of a teacher's logits, which have a soft cap of their own."""
    try:
        return loss_options(softcap=softcap, temperature=temperature)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("softcap:", "teacher_softcap:", 1)) from None


def check_direction(direction: str) -> None:
    if direction not in ("forward", "reverse"):
        raise ValueError(f"direction: expected 'forward' or 'reverse', got {direction!r}")


def as_beta(beta: float) -> float:
    if isinstance(beta, bool) or not isinstance(beta, Real):
        raise TypeError(f"beta: expected a number, got {beta!r}")
    if not 0.0 < beta < 1.0:
        raise ValueError(
            f"beta: expected a number in (0, 1), got {beta}: at either end the Jensen-Shannon divergence is 0; for "
            "what some mean by these, see kl_divergence: 'forward' by 0, 'reverse' by 1"
        )
    return float(beta)
