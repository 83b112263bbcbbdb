"""A linear head, and what is composed of torch's operators for it, a chunk of rows at a time."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._head import rows_of_chunk
from .._options import LossOptions
from . import _composed
from ._kernel import TargetTensors, autocasts, under_transform
from ._operator import row_losses


class HeadTensors(NamedTuple):
    """Hidden states (N, D), and a classifier and its bias with a row for each of the C K logits of a hidden state."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    shape: tuple[int, ...]  # of a hidden state's logits: C, and the K dimensions of its losses

    @property
    def logits(self) -> Tensor:
        """A stand-in for the logits: their shape, dtype and device without their memory."""
        return self.input.new_empty(()).expand(self.input.shape[0], *self.shape)

    def rows_of_chunk(self, rows: int) -> int:
        """How many rows of logits are held at a time: 64 MiB, in half precision at least half of them.

        There each chunk rounds what it adds to the classifier's gradient.
        """
        step = rows_of_chunk(None, max(1, self.weight.shape[0]) * self.input.element_size())
        return max(step, (rows + 1) // 2) if self.input.element_size() == 2 else step


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


def rows_of(array: Tensor | None, rows: slice | Tensor) -> Tensor | None:
    return None if array is None else array[rows]


def in_chunks(
    function: Callable[..., tuple[Tensor, ...]],
    rows_of_chunk: Callable[[int], int],
    of_rows: Sequence[Tensor | None],
    whole: Sequence[Tensor | None],
) -> list[Tensor]:
    """Join what `function(*of_rows, *whole)` returns for chunks of rows. `of_rows` begins with a tensor.

    Where autograd permits, the backward pass makes each chunk again, so that none is kept. A compiled program is one
    chunk: it is the same for all numbers of rows, and autograd would keep every chunk there.
    """
    first = of_rows[0]
    assert first is not None
    count, device = first.shape[0], first.device.type
    with torch.autocast(device, enabled=False) if autocasts(first) else nullcontext():
        if torch.compiler.is_compiling():
            return list(function(*of_rows, *whole))
        step = rows_of_chunk(count)
        again = torch.is_grad_enabled() and step < count and not under_transform()
        results = []
        for begin in range(0, max(count, 1), step):
            args: list[Any] = [*(rows_of(tensor, slice(begin, begin + step)) for tensor in of_rows), *whole]
            results.append(checkpoint(function, *args, use_reentrant=False) if again else function(*args))
    return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*results, strict=True)]


def composed_head_loss(
    options: LossOptions, head: HeadTensors, targets: TargetTensors, num_items: float | Tensor | None
) -> Tensor:
    """The reduced loss."""

    def losses_of(
        input: Tensor,
        target: Tensor,
        sample_weight: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        class_weight: Tensor | None,
    ) -> tuple[Tensor]:
        of_chunk = TargetTensors(target, class_weight, sample_weight)
        counted = _composed.counted_rows(options, HeadTensors(input, weight, bias, head.shape).logits, of_chunk)[1]
        if counted is None:
            logits = F.linear(input, weight, bias).unflatten(1, head.shape)
        else:
            logits = logits_of(input, weight, bias, head.shape, counted)
        return (row_losses(options, logits, of_chunk),)

    of_rows = (head.input, targets.target, targets.sample_weight)
    (losses,) = in_chunks(losses_of, head.rows_of_chunk, of_rows, (head.weight, head.bias, targets.weight))
    with torch.autocast(head.input.device.type, enabled=False) if autocasts(head.input) else nullcontext():
        return _composed.reduced(options, losses, head.logits, targets, num_items)
