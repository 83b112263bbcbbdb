"""The loss in torch's own operators: on any device, under any transform, to any order of differentiation."""

import torch
from torch import Tensor

from .._options import LossOptions
from ._kernel import TargetTensors, class_axis, row_dtype, row_shape
from ._shifted import entropy_of, shifted


def row_losses(options: LossOptions, input: Tensor, targets: TargetTensors) -> Tensor:
    """One loss a row, differentiable by torch to any order.

    The class that attains the maximum m, j, never enters a sum with the others: r sums exp(u - m) without it, and
    log1p(r) and r / (1 + r), which torch derives from it, keep the digits that log(1 + r) and p - 1 would lose.
    """
    target, weight, sample_weight = targets
    axis = class_axis(input)
    classes = input.shape[axis]
    z = input.to(row_dtype(input))
    w = None if weight is None else weight.to(z.dtype)
    s = None if sample_weight is None else sample_weight.to(z.dtype)
    index, counted = counted_rows(options, input, targets)
    if counted is not None:  # rows that do not count may hold NaN
        z = torch.where(counted.unsqueeze(axis), z, 0.0)
    u = z
    if options.softcap < torch.inf:
        u = torch.where(z.isinf(), z, options.softcap * torch.tanh(z / options.softcap))
    if options.temperature != 1.0:
        u = u / options.temperature

    column = [-1 if d == axis else 1 for d in range(u.dim())]
    j = u.detach().argmax(axis, keepdim=True)
    top = torch.arange(classes, device=u.device).reshape(column) == j
    highest = u.gather(axis, j)
    below = torch.where(top, 0.0, highest - u)
    m = highest.squeeze(axis)
    r = torch.where(top, 0.0, torch.exp(-below)).sum(axis)
    log_total = torch.log1p(r) * torch.where(m.isinf(), torch.nan, 1.0)  # nothing but -inf, or a +inf

    omega = None if w is None or index is None else w[index]
    if index is not None and options.label_smoothing == 0.0:
        losses = below.gather(axis, index.unsqueeze(axis)).squeeze(axis)
        losses = losses if omega is None else torch.where(omega == 0, 0.0, losses)
        losses = losses + log_total
        losses = losses if options.focal_gamma == 0.0 else _focal(losses, options.focal_gamma)
        losses = losses if omega is None else omega * losses
    else:
        if index is None:
            q = target.to(u.dtype)
            q = torch.where(q.isfinite(), q, torch.nan)
        else:
            q = torch.zeros_like(u).scatter(axis, index.unsqueeze(axis), 1.0)
        b = (1.0 - options.label_smoothing) * q + options.label_smoothing / classes
        if w is not None:
            b = b * w.reshape(column)
        distance = torch.where((b == 0) & below.isinf(), 0.0, below)
        losses = (b * distance).sum(axis) + b.sum(axis) * log_total
    if options.z_loss > 0.0:
        square = options.z_loss * (m + log_total) ** 2
        losses = losses + (square if omega is None else omega * square)
    if options.entropy_bonus != 0.0:
        bonus = options.entropy_bonus * entropy_of(shifted(options, z, axis), axis)
        losses = losses - (bonus if omega is None else omega * bonus)
    losses = losses if s is None else s * losses
    return losses if counted is None else torch.where(counted, losses, 0.0)


def _focal(losses: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma (-log p) of losses -log p. A loss of 0 has no gradient, an infinite one its own."""
    between = (losses > 0) & (losses < torch.inf)
    each = torch.where(between, losses, 1.0)
    return torch.where(between, (-torch.expm1(-each)) ** gamma * each, torch.where(losses == 0, 0.0, losses))


def counted_rows(options: LossOptions, input: Tensor, targets: TargetTensors) -> tuple[Tensor | None, Tensor | None]:
    """Class indices, 0 where they are ignored, and which rows count; None for probabilities, and for all rows."""
    target, _, sample_weight = targets
    index = counted = None
    if target.shape != input.shape:
        index = target.long()
        if options.ignore_index is not None:
            counted = index != options.ignore_index
            index = torch.where(counted, index, 0)
    if sample_weight is not None:
        counted = sample_weight != 0 if counted is None else counted & (sample_weight != 0)
    return index, counted


def composed_divisor(options: LossOptions, input: Tensor, targets: TargetTensors) -> Tensor:
    """What the mean divides by: 0 if no row counts, NaN if the weights of those that do add up to 0."""
    return divisor_of(*total_weight(options, input, targets))


def divisor_of(total: Tensor, counts: Tensor) -> Tensor:
    """The divisor for a total weight; `counts` tells whether any row's is not 0."""
    return torch.where((total == 0) & (counts != 0), torch.nan, total)


def total_weight(options: LossOptions, input: Tensor, targets: TargetTensors) -> tuple[Tensor, Tensor]:
    """The sum of the weights of rows, and whether any is not 0."""
    index, counted = counted_rows(options, input, targets)
    total = torch.ones(row_shape(input), dtype=sum_dtype(input), device=input.device)
    if targets.weight is not None and index is not None:
        total = targets.weight.to(total.dtype)[index]
    if targets.sample_weight is not None:
        total = total * targets.sample_weight.to(total.dtype)
    if counted is not None:
        total = torch.where(counted, total, 0.0)
    return total.sum(), (total != 0).any()


def reduced(
    options: LossOptions,
    losses: Tensor,
    input: Tensor,
    targets: TargetTensors,
    num_items: float | Tensor | None,
    *,
    rounded: bool = True,
) -> Tensor:
    """Reduce the losses of rows; for `rounded` to their dtype, else to that of their sum."""
    if options.reduction == "none":
        return losses
    loss = losses.sum(dtype=sum_dtype(input))
    if options.reduction == "mean":
        total = composed_divisor(options, input, targets) if num_items is None else num_items
        loss = quotient(loss, torch.as_tensor(total, dtype=loss.dtype, device=loss.device))
    return loss.to(losses.dtype) if rounded else loss


def quotient(loss: Tensor, divisor: Tensor) -> Tensor:
    """The mean of a sum; 0 for a divisor of 0."""
    return torch.where(divisor == 0, 0.0, loss / torch.where(divisor == 0, 1.0, divisor))


def sum_dtype(input: Tensor) -> torch.dtype:
    """Rows are added in float64, where the device has it."""
    return torch.float32 if input.device.type == "mps" else torch.float64
