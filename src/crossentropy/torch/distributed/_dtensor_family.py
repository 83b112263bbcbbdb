"""Log-probabilities and divergences of a DTensor."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..._options import LossOptions
from .. import _composed, _divergence_kernel, _log_prob_kernel
from .._composed_divergence import DivergenceOptions, values_dtype
from .._kernel import TargetTensors, row_dtype, row_shape
from ._dtensor import split
from ._layout import layout_of, local, placed
from ._log_prob import log_probs
from ._row_ranks import RowRanks


@torch._disable_dynamo
def log_prob_and_entropy(
    options: LossOptions, input: DTensor, target: Tensor, entropy: bool
) -> _log_prob_kernel.Results:
    """Log-probabilities of the indices, and where asked for the entropy of each row."""
    layout = layout_of(input)
    several = target.dim() == input.dim()
    if several and layout.class_dims:
        raise ValueError(
            "target: expected one index a row, where the classes of a DTensor are split, got shape "
            f"{tuple(target.shape)}"
        )
    of_target = layout.placements if several else layout.of_rows
    ranks, dtype = RowRanks(layout.row_groups, input.device), row_dtype(input)

    def parts() -> tuple[Tensor, TargetTensors]:
        index = local("target", target, layout, of_target)
        return local("input", input, layout, layout.placements), TargetTensors(index)

    def of_whole_rows() -> _log_prob_kernel.Results:
        logits, targets = parts()
        return _log_prob_kernel.log_prob_and_entropy(options, logits, targets.target, entropy)

    def of_split_rows() -> _log_prob_kernel.Results:
        values, entropies = log_probs(options, rows.logits, rows.targets.target, rows.whole, rows.shard, entropy)
        values = values.to(dtype).reshape(rows.shape)
        return values, None if entropies is None else entropies.to(dtype).reshape(rows.shape)

    if layout.class_dims:
        rows = split(options, layout, parts, target.dtype, ranks, entropy)
    values, entropies = ranks.all(of_split_rows if layout.class_dims else of_whole_rows)
    return (
        placed(values, layout, of_target, target.shape),
        None if entropies is None else placed(entropies, layout, layout.of_rows, row_shape(input)),
    )


@torch._disable_dynamo
def divergence(
    options: DivergenceOptions, input: DTensor, teacher_input: Tensor, sample_weight: Tensor | None
) -> Tensor:
    """The reduced divergence."""
    layout = layout_of(input)
    if layout.class_dims:
        raise ValueError(f"input: expected a DTensor whose classes are not split, got {layout.placements}")
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

    if options.student.reduction == "none":
        rows, _ = ranks.all(rows_and_weights)
        return placed(rows, layout, layout.of_rows, row_shape(input))
    found = ranks.do(rows_and_weights)
    value, total, counts = ranks.add(ranks.do(lambda: sums(*found)), 3)
    if options.student.reduction == "mean":
        value = _composed.quotient(value, _composed.divisor_of(total, counts))
    return placed(value.to(values_dtype(input, teacher_input)), layout, layout.whole, torch.Size())
