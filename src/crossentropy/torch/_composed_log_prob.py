"""Log-probabilities and entropy in torch's own operators: on any device, to any order of differentiation."""

import torch
from torch import Tensor

from .._options import LossOptions
from ._kernel import class_axis, row_dtype
from ._shifted import Shifted, entropy_of, shifted


def log_prob_and_entropy(
    options: LossOptions, input: Tensor, target: Tensor, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the indices, of the shape of `target`, and where asked for the entropy of each row."""
    axis = class_axis(input)
    index = target.long()
    counted = torch.full_like(index, True, dtype=torch.bool)
    if options.ignore_index is not None:
        counted = index != options.ignore_index
        index = torch.where(counted, index, 0)
    one = target.dim() < input.dim()
    if one:
        index, counted = index.unsqueeze(axis), counted.unsqueeze(axis)
    row_counts = counted.any(axis, keepdim=True)
    z = torch.where(row_counts, input.to(row_dtype(input)), 0.0)  # rows that do not count may hold NaN
    rows = shifted(options, z, axis)
    log_probs = torch.where(counted, _log_probs(rows, index, axis), 0.0)
    entropies = torch.where(row_counts.squeeze(axis), entropy_of(rows, axis), 0.0) if entropy else None
    return log_probs.squeeze(axis) if one else log_probs, entropies


def _log_probs(rows: Shifted, index: Tensor, axis: int) -> Tensor:
    """The maximum's own log-probability is -log1p(r), which keeps the digits of what is left of 1."""
    others = torch.log_softmax(rows.below, axis).gather(axis, index)
    return torch.where(rows.top.gather(axis, index), -rows.log_total.unsqueeze(axis), others)
