"""What travels between ranks while they compute: chunks of rows one behind the other, and sums of their gradients."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ._group import Ranks, start_gather, wait

T = TypeVar("T")
# What waits for other ranks: it yields when its data are on their way.
Travelling = Generator[None, None, T]


def pipelined(tasks: Iterable[Iterator[None]]) -> None:
    """Run tasks to their ends. Where one yields its data travel, and others compute before it goes on.

    The order depends on how often tasks yield and on nothing else, so that all ranks meet in the same collectives.
    """
    waiting, running, more = iter(tasks), list[Iterator[None]](), True
    while more or running:
        task = next(waiting, None)
        more = task is not None
        # The latest first: what the others wait for was sent before all that is computed in between.
        running = [task for task in [*([] if task is None else [task]), *running] if _goes_on(task)]


def _goes_on(task: Iterator[None]) -> bool:
    try:
        next(task)
    except StopIteration:
        return False
    return True


def gathered(mine: Tensor, pieces: Sequence[int], ranks: Ranks) -> Travelling[Tensor]:
    """The rows of all ranks, in their order; `pieces` says how many each has."""
    most = max(pieces)
    missing = most - mine.shape[0]
    padded = mine if not missing else torch.cat([mine, mine.new_zeros(missing, mine.shape[1])])
    started = start_gather(padded.contiguous(), ranks)
    yield
    rows = wait(started)
    if min(pieces) == most:
        return rows
    return torch.cat([of_rank[:count] for of_rank, count in zip(rows.chunk(ranks.count), pieces, strict=True)])


def summed(partial: Tensor, dtype: torch.dtype, pieces: Sequence[int], ranks: Ranks) -> Travelling[Tensor]:
    """A rank's piece of the rows of the sum over ranks: added in their order, in float64, and rounded once."""
    mine = pieces[ranks.rank]
    started = torch.ops._c10d_functional.all_to_all_single(partial, [mine] * ranks.count, list(pieces), ranks.name)
    yield
    received: Tensor = wait(started)
    total = received[:mine].double()
    for rank in range(1, ranks.count):
        total += received[rank * mine : (rank + 1) * mine]
    return total.to(dtype)


def even_pieces(rows: int, ranks: Ranks) -> list[int]:
    """As many rows for each rank, or one more."""
    return [(rows + ranks.count - 1 - rank) // ranks.count for rank in range(ranks.count)]
