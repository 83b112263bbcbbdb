"""Log-probabilities and divergences of a DTensor."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..._options import LossOptions
from .. import _composed, _divergence_kernel, _log_prob_kernel
from .._composed_divergence import DivergenceOptions, values_dtype
from .._kernel import row_shape
from ._layout import Layout, layout_of, local, placed
from ._row_ranks import RowRanks


def log_prob_and_entropy(options: LossOptions, input: DTensor, target: Tensor, entropy: bool) -> _log_prob_kernel.Results:
    """Log-probabilities of the indices, and where asked for the entropy of each row."""
    layout = _whole_rows("log_prob", input)
    of_target = layout.placements if target.dim() == input.dim() else layout.of_rows
    ranks = RowRanks(layout.row_groups, input.device)

    def results() -> _log_prob_kernel.Results:
        parts = local("input", input, layout, layout.placements), local("target", target, layout, of_target)
        return _log_prob_kernel.log_prob_and_entropy(options, *parts, entropy)

    found = ranks.do(results)
    ranks.agree()
    log_probs, entropies = found
    return (
        placed(log_probs, layout, of_target, target.shape),
        None if entropies is None else placed(entropies, layout, layout.of_rows, row_shape(input)),
    )


def divergence(
    options: DivergenceOptions, input: DTensor, teacher_input: Tensor, sample_weight: Tensor | None
) -> Tensor:
    """The reduced divergence."""
    layout = _whole_rows("divergence", input)
    ranks = RowRanks(layout.row_groups, input.device)
    each = options._replace(student=replace(options.student, reduction="none"))

    def rows_and_weights() -> tuple[Tensor, Tensor | None]:
        student = local("input", input, layout, layout.placements)
        teacher = local("teacher_input", teacher_input, layout, layout.placements)
        weight = None if sample_weight is None else local("sample_weight", sample_weight, layout, layout.of_rows)
        return _divergence_kernel.divergence(each, student, teacher, weight), weight

    def sums(rows: Tensor, weights: Tensor | None) -> Tensor:
        weights = torch.ones_like(rows) if weights is None else weights
        return torch.stack([part.sum(dtype=_composed.sum_dtype(rows)) for part in (rows, weights, weights != 0)])

    found = ranks.do(rows_and_weights)
    if options.student.reduction == "none":
        ranks.agree()
        return placed(found[0], layout, layout.of_rows, row_shape(input))
    value, total, counts = ranks.add(ranks.do(lambda: sums(*found)), 3)
    if options.student.reduction == "mean":
        value = _composed.quotient(value, _composed.divisor_of(total, counts))
    return placed(value.to(values_dtype(input, teacher_input)), layout, layout.whole, torch.Size())


def _whole_rows(function: str, input: DTensor) -> Layout:
    """The layout of logits of which each rank has all classes."""
    layout = layout_of(input)
    if layout.class_dims:
        raise ValueError(f"{function}: expected a DTensor whose classes are not split, got {input.placements}")
    return layout
