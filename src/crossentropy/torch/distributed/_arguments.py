"""Checks of arguments, and the rows of two axes that the core reads."""

import math
import zlib
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed._functional_collectives import AsyncCollectiveTensor

from ..._options import NUMBERS, LossOptions
from .._arguments import check_focal, check_real
from .._kernel import INTEGERS, PLAIN, WEIGHT_TYPES, TargetTensors, class_axis, readable, row_shape, under_transform
from ._group import wait


class SplitRows(NamedTuple):
    """Logits (n, C_r), and class indices (n,) or probabilities (n, C_r), of rows that have this shape."""

    logits: Tensor
    targets: TargetTensors
    shape: torch.Size


def split_rows(options: LossOptions, input_shard: Tensor, targets: TargetTensors) -> SplitRows:
    """Check shapes and dtypes; make rows of all axes but that of the classes."""
    check_real("input_shard", input_shard)
    if not input_shard.dim():
        raise ValueError("input_shard: expected shape (C_r,), (N, C_r) or (N, C_r, d_1, ...), got ()")
    if isinstance(input_shard, AsyncCollectiveTensor):
        input_shard = wait(input_shard)
    check_place("input_shard", input_shard)
    shape, axis = input_shard.shape, class_axis(input_shard)
    check_targets(options, shape, targets)
    logits = input_shard if under_transform() else readable("input_shard", input_shard)
    rows = row_shape(input_shard)
    logits = logits.movedim(axis, -1).reshape(math.prod(rows), shape[axis]).contiguous()
    return SplitRows(logits, flat_targets(shape, targets), rows)


def check_targets(options: LossOptions, shape: torch.Size, targets: TargetTensors) -> None:
    """Raise unless targets and weights fit a shard of logits of this shape, (C_r,) or (N, C_r, ...)."""
    target, weight, sample_weight = targets
    axis = 1 if len(shape) > 1 else 0
    rows = shape[:axis] + shape[axis + 1 :]
    check_place("target", target)
    dense = target.is_floating_point()
    if dense:
        check_real("target", target)
    elif target.dtype not in INTEGERS:
        raise TypeError(f"target: expected class indices (integers) or probabilities, got {target.dtype}")
    expected = shape if dense else rows
    if target.shape != expected:
        kind = "probabilities of this rank's classes" if dense else "class indices"
        raise ValueError(f"target: expected {kind} of shape {tuple(expected)}, got {tuple(target.shape)}")
    if dense and options.ignore_index is not None and options.ignore_index >= 0:
        raise ValueError(
            f"ignore_index: expected one below 0 for targets that are probabilities, got {options.ignore_index}"
        )
    check_focal(options, shape, target)
    for name, tensor, fits in (("weight", weight, shape[axis : axis + 1]), ("sample_weight", sample_weight, rows)):
        if tensor is None:
            continue
        check_place(name, tensor)
        boolean = tensor.dtype is torch.bool and name == "weight" and not dense  # like torch: for probabilities only
        if tensor.shape != fits or tensor.dtype not in WEIGHT_TYPES or boolean:
            raise ValueError(
                f"{name}: expected real numbers of shape {tuple(fits)}, got {tuple(tensor.shape)} of {tensor.dtype}"
            )
    for name, tensor in targets._asdict().items():
        if tensor is not None and tensor.requires_grad and torch.is_grad_enabled():
            raise NotImplementedError(f"{name}: expected a tensor that needs no gradient, got one that does")


def check_indices(target: Tensor) -> None:
    """Raise unless these are class indices."""
    check_place("target", target)
    if target.dtype not in INTEGERS:
        raise TypeError(f"target: expected class indices (integers), got {target.dtype}")


def check_place(name: str, tensor: Tensor) -> None:
    """Raise unless this is a tensor that the core can read."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(tensor).__name__}")
    if not tensor.is_cpu or tensor.layout is not torch.strided:
        raise NotImplementedError(f"{name}: expected a dense tensor on the CPU, got one on {tensor.device}")
    if type(tensor) not in PLAIN and not torch.compiler.is_compiling():
        raise NotImplementedError(f"{name}: expected a Tensor of no subclass, got {type(tensor).__name__}")


def flat_targets(shape: torch.Size, targets: TargetTensors) -> TargetTensors:
    """Those of the rows of two axes of logits of this shape."""
    target, weight, sample_weight = targets
    axis = 1 if len(shape) > 1 else 0
    rows = math.prod(shape[:axis] + shape[axis + 1 :])
    dense = target.is_floating_point()
    flat = target.movedim(axis, -1).reshape(rows, shape[axis]) if dense else target.reshape(rows)
    return TargetTensors(flat, weight, None if sample_weight is None else sample_weight.reshape(rows))


def told_of(
    function: str,
    options: LossOptions,
    rows: int,
    dtype: torch.dtype,
    targets: TargetTensors,
    input: str = "input_shard",
    **more: object,
) -> dict[str, object]:
    """What has to be the same on every rank, by the names of arguments; `input` is that of the one with the rows."""
    target, _, sample_weight = targets
    return {
        "function": function,
        input: f"{rows} rows of {dtype}",
        "target": f"probabilities of {target.dtype}" if target.is_floating_point() else _checksum(target.long()),
        "sample_weight": None if sample_weight is None else _checksum(sample_weight.to(torch.float64)),
        "ignore_index": options.ignore_index,
        **dict(zip(NUMBERS, options.numbers, strict=True)),
        "reduction": options.reduction,
        **more,
    }


def _checksum(tensor: Tensor) -> str:
    sum_of = zlib.crc32(readable("", tensor.detach()).contiguous().numpy())
    return f"{tensor.shape[0]} numbers of checksum {sum_of:08x}"
