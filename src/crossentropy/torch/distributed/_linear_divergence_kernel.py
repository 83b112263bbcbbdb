"""Divergences between linear heads whose classes are split over ranks, a chunk of rows at a time."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._composed_divergence import DivergenceOptions
from . import _divergence_parts as parts
from ._divergence_kernel import exchange_first, exchange_second
from ._linear_head import Chunk, HeadRun, SplitHead, chunks, without_autocast
from ._loss import check_once
from ._pipeline import pipelined


class Known(NamedTuple):
    """What is known of each row."""

    own: Tensor  # what this rank's classes tell in round 1
    whole: Tensor  # what all classes tell
    sums: Tensor  # in round 2


class Found(NamedTuple):
    """Divergences, 0 of rows that do not count, and the gradients wanted."""

    values: Tensor  # in float64
    known: Known
    gradients: list[Tensor | None]  # of hidden states, classifier and bias of the student, and of the teacher


def row_divergences(
    options: DivergenceOptions, student: SplitHead, teacher: SplitHead, counted: Tensor | None, rows: int
) -> Tensor:
    """The divergence of each row, in float64; 0 where it does not count."""
    tensors, rest = (*student[:3], *teacher[:3]), (student.shard, student.sequence)
    wanted = tuple(torch.is_grad_enabled() and tensor is not None and tensor.requires_grad for tensor in tensors)
    values: Tensor = _HeadDivergence.apply(*tensors, counted, rest, options, wanted, rows)
    return values


class _HeadDivergence(torch.autograd.Function):
    """The backward pass makes the logits again, when the upstream gradient of each row is known."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        *tensors, rest, options, wanted, rows = args
        ctx.rest, ctx.wanted = (rest, options), wanted
        found = _evaluate(ctx, tensors, rows)
        ctx.save_for_backward(*tensors, *found.known)
        return found.values

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        check_once("vocab_parallel_linear_kl_divergence", grad_output)
        *tensors, own, whole, sums = ctx.saved_tensors
        found = _evaluate(ctx, tensors, len(own), ctx.wanted, grad_output.double(), Known(own, whole, sums))
        return *found.gradients, *[None] * 5


def _evaluate(ctx: Any, tensors: Sequence[Any], rows: int, *args: Any) -> Found:
    rest, options = ctx.rest
    heads = SplitHead(*tensors[:3], *rest), SplitHead(*tensors[3:6], *rest)
    return over_chunks(options, heads, tensors[6], rows, *args)


def over_chunks(
    options: DivergenceOptions,
    heads: tuple[SplitHead, SplitHead],
    counted: Tensor | None,
    rows: int,
    wanted: Sequence[bool] = (False,) * 6,
    upstream: Tensor | None = None,
    known: Known | None = None,
) -> Found:
    """Divergences, and the gradients wanted times upstream ones; `known`: what all classes tell of each row."""
    heads = heads[0].readable(), heads[1].readable("teacher_")
    ranks = heads[0].shard.ranks
    values = torch.zeros(rows, dtype=torch.float64)
    fields = parts.FIRST_FIELDS, parts.FIRST_FIELDS, parts.SECOND_FIELDS
    of_rows = known or Known(*(values.new_zeros(rows, count) for count in fields))
    own, whole, sums = of_rows
    runs = HeadRun(heads[0], wanted[:3]), HeadRun(heads[1], wanted[3:])

    def work(chunk: Chunk) -> Iterator[None]:
        hidden, logits = [], []
        for run in runs:
            hidden.append((yield from run.hidden(chunk)))
            logits.append(run.logits(hidden[-1]))
        sides = parts.sides_of(options, *logits)
        if known is None:
            own[chunk.rows] = parts.first_round(sides)
            exchange = exchange_first(sides, own[chunk.rows], ranks)
            yield
            whole[chunk.rows] = exchange.wait()
            exchange = exchange_second(sides, own[chunk.rows], whole[chunk.rows], ranks)
            yield
            sums[chunk.rows] = exchange.wait()
        found = parts.found(whole[chunk.rows], sums[chunk.rows])
        values[chunk.rows] = found.value
        partials: list[Tensor | None] = [None, None]
        if any(wanted):
            assert upstream is not None
            # In place of the logits.
            gradients = [z if run.wants else None for run, z in zip(runs, logits, strict=True)]
            of_a, of_b = gradients if options.kind == "reverse" else gradients[::-1]
            saved, scale = (own[chunk.rows], whole[chunk.rows]), upstream[chunk.rows]
            parts.write_gradients(sides, *saved, found, scale, of_a, of_b)
            partials = [
                run.add(chunk, h, dz) if dz is not None else None
                for run, h, dz in zip(runs, hidden, gradients, strict=True)
            ]
        for run, z in zip(runs, logits, strict=True):
            run.give_back(z)
        for run, partial in zip(runs, partials, strict=True):
            yield from run.send(chunk, partial)

    kept = None if counted is None or counted.all() else counted.nonzero().squeeze(1)
    with without_autocast(heads[0]):
        pipelined(work(chunk) for chunk in chunks(rows, kept, heads, 3))
    return Found(values, of_rows, [gradient for run in runs for gradient in run.result()])
