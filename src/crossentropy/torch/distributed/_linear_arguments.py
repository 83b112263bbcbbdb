"""Checks of the arguments of heads whose classes are split."""

import math

import torch
from torch import Tensor
from torch.distributed._functional_collectives import AsyncCollectiveTensor

from ..._options import LossOptions
from .._arguments import check_range, check_real
from .._head_chunks import as_head
from .._kernel import autocasts, readable, under_transform
from ._arguments import check_place
from ._group import Ranks, Shard, attempt, gather, wait

# Hidden states, a shard of the classifier and of its bias, as they are given.
Given = tuple[Tensor, Tensor, Tensor | None]


def check_split_head(of: str, given: Given, sequence_parallel: bool) -> None:
    """Raise unless these are hidden states and a shard of a head; `of` begins their names ("" or "teacher_")."""
    names = [f"{of}{name}" for name in ("input", "weight_shard", "linear_bias_shard")]
    for name, tensor in zip(names, given, strict=True):
        if tensor is not None or name != names[2]:
            check_real(name, tensor)
            check_place(name, tensor)
            if not under_transform():
                readable(name, tensor)
    input, weight, bias = given
    if input.dim() != 2 and (sequence_parallel or input.dim() != 1):
        raise ValueError(
            f"{names[0]}: expected shape {'(N_r, D)' if sequence_parallel else '(D,) or (N, D)'}, "
            f"got {tuple(input.shape)}"
        )
    if weight.dim() != 2 or weight.shape[1] != input.shape[-1]:
        raise ValueError(f"{names[1]}: expected shape (C_r, {input.shape[-1]}), got {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"{names[2]}: expected shape {tuple(weight.shape[:1])}, got {tuple(bias.shape)}")
    for name, tensor in zip(names[1:], given[1:], strict=True):
        if tensor is not None and tensor.dtype != input.dtype and not autocasts(input):
            raise TypeError(f"{name}: expected {input.dtype}, as {names[0]} has, got {tensor.dtype}")


def waited(tensor: Tensor) -> Tensor:
    """The tensor, when what gathers it has ended."""
    return wait(tensor) if isinstance(tensor, AsyncCollectiveTensor) else tensor


def told_of_head(of: str, given: Given, sequence_parallel: bool) -> dict[str, object]:
    """What has to be the same on every rank: among them whether the gradients of hidden states are added up."""
    input = given[0]
    rows = "its rows" if sequence_parallel else f"{math.prod(input.shape[:-1])} rows"
    wants = " that requires a gradient" if torch.is_grad_enabled() and input.requires_grad else ""
    casts = autocasts(input) and input.dtype != torch.float64
    dtype = torch.get_autocast_dtype(input.device.type) if casts else input.dtype
    return {
        "sequence_parallel": sequence_parallel,
        f"{of}input": f"{rows} of {input.shape[-1]} {dtype}{wants}",
    }


def logits_shape(given: Given, target: Tensor, sequence_parallel: bool) -> torch.Size:
    """That of the rank's logits of all rows. Those of a sequence are as many as there are targets."""
    rows = target.shape[:1] if sequence_parallel and isinstance(target, Tensor) else given[0].shape[:-1]
    return torch.Size([*rows, given[1].shape[0]])


def rows_of_ranks(input: Tensor, rows: int, ranks: Ranks) -> tuple[int, ...]:
    """How many rows of a sequence each rank has."""
    sequence = tuple(gather(torch.tensor([input.shape[0]]), ranks).flatten().tolist())
    if sum(sequence) != rows:
        raise ValueError(f"input: expected {rows} rows on all ranks together, got {' + '.join(map(str, sequence))}")
    return sequence


def bad_index(options: LossOptions, target: Tensor, shard: Shard) -> Exception | None:
    """The error of a class index that is none of all ranks', to be told."""
    if target.is_floating_point():
        return None
    shape = torch.Size([target.shape[0], shard.classes])
    return attempt(lambda: check_range(shape, target, options.ignore_index))[1]


def split_tensors(given: Given) -> Given:
    """Hidden states of two axes, in the dtype of autocast's products."""
    return as_head(*given)[:3]
