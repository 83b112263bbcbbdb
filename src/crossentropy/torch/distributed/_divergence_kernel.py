"""Divergences of rows whose classes are split over ranks: two exchanges, and gradients that need none."""

from typing import Any

import torch
from torch import Tensor

from .._composed_divergence import DivergenceOptions
from .._kernel import empty_gradient
from . import _divergence_parts as parts
from ._divergence_terms import Sides
from ._exchange import Exchange
from ._group import Ranks
from ._loss import check_once


def row_divergences(
    options: DivergenceOptions, student: Tensor, teacher: Tensor, counted: Tensor | None, ranks: Ranks
) -> Tensor:
    """The divergence of each row of logits (N, C of the rank), in float64; 0 where it does not count."""
    return _Divergence.apply(student, teacher, counted, options, ranks)


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, counted: Tensor | None, options: DivergenceOptions, ranks: Ranks
    ) -> Tensor:
        sides = parts.sides_of(options, student, teacher)
        own = parts.first_round(sides)
        whole = exchange_first(sides, own, ranks).wait()
        sums = exchange_second(sides, own, whole, ranks).wait()
        ctx.save_for_backward(student, teacher, counted, own, whole, sums)
        ctx.options = options
        value = parts.found(whole, sums).value
        return value if counted is None else torch.where(counted, value, 0.0)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        check_once("vocab_parallel_kl_divergence", grad_output)
        student, teacher, counted, own, whole, sums = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        sides = parts.sides_of(ctx.options, student, teacher)
        gradients = [empty_gradient(z) if asked else None for z, asked in zip((student, teacher), wanted, strict=True)]
        of_a, of_b = gradients if ctx.options.kind == "reverse" else gradients[::-1]
        parts.write_gradients(sides, own, whole, parts.found(whole, sums), grad_output, of_a, of_b)
        for gradient in gradients:
            if gradient is not None and counted is not None:
                gradient[~counted] = 0.0
        return *gradients, None, None, None


def exchange_first(sides: Sides, own: Tensor, ranks: Ranks) -> Exchange:
    return Exchange(own, (len(own), parts.FIRST_FIELDS), lambda given: parts.join_first(sides, given), ranks)


def exchange_second(sides: Sides, own: Tensor, whole: Tensor, ranks: Ranks) -> Exchange:
    told = parts.second_round(sides, own, whole)
    return Exchange(told, (len(own), parts.SECOND_FIELDS), parts.join_second, ranks)
