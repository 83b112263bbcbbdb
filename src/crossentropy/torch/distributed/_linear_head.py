"""A linear head whose classes are split over ranks: its rows in chunks, its logits, the sums of its gradients."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..._head import BLOCK_BYTES, rows_of_chunk
from .._head_chunks import HeadTensors
from .._kernel import autocasts, empty, readable
from .._linear import GradientAccumulator, _add_product, _multiply
from ._group import Shard
from ._pipeline import Travelling, even_pieces, gathered, summed

Rows: TypeAlias = slice | Tensor


class SplitHead(NamedTuple):
    """A rank's part of a head: hidden states (N, D) of all rows, or of its own; its classifier (C_r, D), and bias."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    shard: Shard
    sequence: tuple[int, ...] | None  # how many rows each rank has, in their order; None: all have all

    @property
    def tensors(self) -> HeadTensors:
        return HeadTensors(self.input, self.weight, self.bias, tuple(self.weight.shape[:1]))

    @property
    def first_row(self) -> int:
        """The first of `input` among all."""
        return 0 if self.sequence is None else sum(self.sequence[: self.shard.ranks.rank])

    def readable(self, of: str = "") -> "SplitHead":
        """With a pending negation carried out; raises where a storage is too small."""
        bias = None if self.bias is None else readable(f"{of}linear_bias_shard", self.bias)
        input, weight = readable(f"{of}input", self.input), readable(f"{of}weight_shard", self.weight)
        return self._replace(input=input, weight=weight, bias=bias)


class Chunk(NamedTuple):
    """Rows that are worked on at a time. Each rank has, or adds up, a piece of them."""

    rows: Rows  # among all, piece after piece
    pieces: list[int]
    own: Rows  # where the rank's hidden states and their gradients are in its tensors


def chunks(rows: int, kept: Tensor | None, heads: Sequence[SplitHead], held: int) -> Iterator[Chunk]:
    """The same on every rank: so many rows that `held` chunks of the largest shard's logits take up to 64 MiB.

    In half precision they are at least half of all rows: each chunk rounds what it adds to the classifier's gradient.
    """
    ranks, sequence = heads[0].shard.ranks, heads[0].sequence
    sizes = [head.input.element_size() for head in heads]
    step = rows_of_chunk(None, held * max(1, heads[0].shard.largest) * sum(sizes))
    count = rows if kept is None else len(kept)
    step = max(step, (count + 1) // 2) if min(sizes) == 2 else step
    if sequence is None:
        for begin in range(0, count, step):
            end = min(begin + step, count)
            chunk = slice(begin, end) if kept is None else kept[begin:end]
            yield Chunk(chunk, even_pieces(end - begin, ranks), chunk)
        return
    kept = torch.arange(rows) if kept is None else kept
    ends = torch.tensor(sequence).cumsum(0)
    of_ranks = kept.tensor_split(torch.searchsorted(kept, ends[:-1]).tolist())
    step = max(1, step // ranks.count)
    for begin in range(0, max(map(len, of_ranks)), step):
        pieces = [of_rank[begin : begin + step] for of_rank in of_ranks]
        yield Chunk(torch.cat(pieces), list(map(len, pieces)), pieces[ranks.rank] - heads[0].first_row)


class HeadRun:
    """A head while chunks go through it: the logits of some, and the gradients of all of them."""

    def __init__(self, head: SplitHead, wanted: Sequence[bool]) -> None:
        self.head, self.wants = head, any(wanted)
        self.dinput = torch.zeros_like(head.input) if wanted[0] else None
        self.own = GradientAccumulator(head.tensors, (False, *wanted[1:]))
        self.free: list[Tensor] = []  # buffers of logits

    def hidden(self, chunk: Chunk) -> Travelling[Tensor]:
        mine = self.head.input[chunk.own]
        if self.head.sequence is None:
            return mine
        return (yield from gathered(mine, chunk.pieces, self.head.shard.ranks))

    def logits(self, hidden: Tensor) -> Tensor:
        count, (classes, _) = len(hidden), self.head.weight.shape
        buffer = next((buffer for buffer in self.free if len(buffer) >= count), None)
        if buffer is None:
            buffer = empty(hidden, count, classes)
        else:
            self.free = [each for each in self.free if each is not buffer]
        z = buffer[:count]
        if classes:
            _multiply(hidden, self.head.weight.t(), z)
            if self.head.bias is not None:
                z += self.head.bias
        return z

    def add(self, chunk: Chunk, hidden: Tensor, dz: Tensor) -> Tensor | None:
        """Take the gradient of a chunk's logits; returns what goes to the hidden states, for `send`."""
        if self.head.weight.shape[0]:
            self.own.add(chunk.rows, hidden, dz)
        return None if self.dinput is None else hidden_part(dz, self.head.weight)

    def give_back(self, z: Tensor) -> None:
        """The memory of logits, or of their gradient, for those of another chunk."""
        self.free.append(z)

    def send(self, chunk: Chunk, partial: Tensor | None) -> Travelling[None]:
        """Add up the gradients of hidden states."""
        if partial is None:
            return
        assert self.dinput is not None
        ranks = self.head.shard.ranks
        piece = yield from summed(partial, self.dinput.dtype, chunk.pieces, ranks)
        if self.head.sequence is None:
            piece = yield from gathered(piece, chunk.pieces, ranks)
        self.dinput[chunk.own] = piece

    def result(self) -> list[Tensor | None]:
        return [self.dinput, *self.own.result()[1:]]


def hidden_part(dz: Tensor, weight: Tensor) -> Tensor:
    """What a rank's classes add to the gradient of hidden states, in float32 or float64."""
    if dz.element_size() > 2 and len(weight):
        return _multiply(dz, weight, torch.empty(len(dz), weight.shape[1], dtype=dz.dtype))
    total = torch.zeros(len(dz), weight.shape[1], dtype=dz.dtype if dz.element_size() > 2 else torch.float32)
    step = max(1, BLOCK_BYTES // (4 * max(1, weight.shape[1])))
    for begin in range(0, len(weight), step):
        block = slice(begin, begin + step)
        _add_product(dz[:, block].to(total.dtype), weight[block].to(total.dtype), total)
    return total


def without_autocast(head: SplitHead) -> AbstractContextManager[Any]:
    """`as_head` has chosen the products' dtype."""
    return torch.autocast("cpu", enabled=False) if autocasts(head.input) else nullcontext()
