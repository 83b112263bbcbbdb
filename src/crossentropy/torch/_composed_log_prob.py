"""Log-probabilities and entropy in torch's own operators: on any device, to any order of differentiation."""

import torch
from torch import Tensor

from .._options import LossOptions
from ._kernel import class_axis, row_dtype
from ._shifted import Shifted, shifted


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


def entropy_of(rows: Shifted, axis: int) -> Tensor:
    """The entropy of each row, whose derivative is p ((m - u) - A), A the mean of m - u under p.

    Derived from log1p(r) + A alone it would be that plus p - p, each p rounded in its own way. Here a change x of the
    logits, whose value is 0, enters A and the rest; there the two p are the same number, and nothing of them is left.
    """
    p = rows.softmax(axis)
    seen = p.detach() != 0  # 0 log 0 is 0
    below = torch.where(seen, rows.below, 0.0)
    x = below - below.detach()
    mean = (p * (-below.detach() - x)).sum(axis)
    change = torch.log1p((p.detach() * torch.expm1(x)).sum(axis))
    return rows.log_total.detach() + mean + change
