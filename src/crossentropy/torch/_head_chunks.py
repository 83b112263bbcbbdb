"""The family from hidden states: what is composed of torch's operators, a chunk of rows at a time."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ._kernel import autocasts, under_transform
from ._linear import HeadTensors


def as_head(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> HeadTensors:
    """A head of a batch, in the dtype of autocast's products."""
    if autocasts(input):
        input, linear_weight = autocast(input), autocast(linear_weight)
        linear_bias = None if linear_bias is None else autocast(linear_bias)
    input = input if input.dim() == 2 else input.unsqueeze(0)
    bias = None if linear_bias is None else linear_bias.flatten()
    return HeadTensors(input, linear_weight.flatten(0, -2), bias, tuple(linear_weight.shape[:-1]))


def autocast(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.get_autocast_dtype(tensor.device.type))


def logits_of(input: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...], counted: Tensor) -> Tensor:
    """The logits of a chunk; hidden states of which nothing counts may hold NaN, which must not reach gradients."""
    counted = counted.flatten(1).any(1) if counted.dim() > 1 else counted
    return F.linear(torch.where(counted.unsqueeze(1), input, 0.0), weight, bias).unflatten(1, shape)


def kept_rows(counted: Tensor) -> Tensor | None:
    """The hidden states with anything that counts, or None for all of them."""
    counted = counted.flatten(1).any(1) if counted.dim() > 1 else counted
    return None if counted.all() else counted.nonzero().squeeze(1)


def in_chunks(
    function: Callable[..., tuple[Tensor, ...]],
    step: int,
    of_rows: Sequence[Tensor | None],
    whole: Sequence[Tensor | None],
) -> list[Tensor]:
    """Join what `function(*of_rows, *whole)` returns for chunks of `step` rows.

    Where autograd permits, the backward pass makes each chunk again, so that none is kept.
    """
    (count, *_), device = (of_rows[0].shape, of_rows[0].device.type) if of_rows[0] is not None else ((0,), "cpu")
    again = torch.is_grad_enabled() and step < count and not under_transform()
    results = []
    with torch.autocast(device, enabled=False) if of_rows[0] is not None and autocasts(of_rows[0]) else nullcontext():
        for begin in range(0, max(count, 1), step):
            rows = [None if tensor is None else tensor[begin : begin + step] for tensor in of_rows]
            args: list[Any] = [*rows, *whole]
            results.append(checkpoint(function, *args, use_reentrant=False) if again else function(*args))
    return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*results, strict=True)]
