"""Numbers added over the ranks that share rows, in their order; an error that one rank meets is raised on all."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ._group import attempt, error_of


class RowRanks:
    """The ranks of some groups: each works on a part of its own, then they add what came of it.

    A rank that meets an error must not leave the others waiting: it keeps the error until they add, and all raise it.
    On other devices than the CPU no values are looked at: what one rank raises there, all raise.
    """

    def __init__(self, groups: Sequence[Any], device: torch.device) -> None:
        self.groups = [group for group in groups if dist.get_world_size(group) > 1]
        self.device = device
        self.error: Exception | None = None

    def do(self, work: Callable[[], Any]) -> Any:
        """The result of this rank's work; None after an error."""
        if self.device.type != "cpu":
            return work()
        if self.error is not None:
            return None
        result, self.error = attempt(work)
        return result

    def add(self, part: Tensor | None, count: int = 1) -> Tensor:
        """The sums of `count` numbers over the ranks of each group, one group after the other: alike on all ranks."""
        if part is None:
            part = torch.zeros(count, dtype=torch.float64, device=self.device)
        total: Tensor = _Sum.apply(part.reshape(count), self)
        return total

    def all(self, work: Callable[[], Any]) -> Any:
        """The result of this rank's work, once no rank has an error."""
        result = self.do(work)
        self.add(None, 0)
        return result


class _Sum(torch.autograd.Function):
    """All ranks go on with the sum alike, so that each part has the upstream gradient of the sum."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: RowRanks) -> Tensor:
        failed = part.new_tensor([ranks.error is not None])
        total = torch.cat([part, failed])
        for group in ranks.groups:
            parts = total.new_empty(dist.get_world_size(group) * total.numel())
            dist.all_gather_single(parts, total, group=group)
            first, *others = parts.split(total.numel())
            total = first
            for other in others:  # in this order, whatever the collective's own would be
                total = total + other
        if total.is_cpu and total[-1] != 0:
            raise _first_error(ranks)
        return total[:-1]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        return grad_output, None


def _first_error(ranks: RowRanks) -> Exception:
    """That of the first rank that has one, with a note that tells which it is."""
    error = ranks.error
    if error is not None and not ranks.groups:
        return error
    first = None if error is None else (type(error).__name__, str(error), dist.get_rank())
    for group in ranks.groups:
        told: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(told, first, group=group)
        first = next((each for each in told if each is not None), None)
    assert first is not None
    name, message, rank = first
    found = error_of(name, message)
    found.add_note(f"on rank {rank}")
    return found
