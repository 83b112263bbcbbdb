"""The binary loss in torch's own operators: on any device, under any transform, to any order of differentiation."""

import torch
from torch import Tensor

from .._binary_call import BinaryOptions
from ._composed import sum_dtype
from ._kernel import row_dtype


def composed_losses(
    options: BinaryOptions, input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None
) -> Tensor:
    """One loss an element, differentiable by torch to any order in every argument.

    With t = exp(-|z|) neither log(1 + t) nor sigmoid - 1 occurs, in none of the derivatives: those of log1p(t) are
    fractions of t and 1 + t. |z| is made so that torch knows its derivative at 0 too.
    """
    dtype = row_dtype(input)
    z, y = input.to(dtype), target.to(row_dtype(target))
    if weight is not None:  # what does not count may hold NaN
        counted = (weight != 0) | (z.isfinite() & y.isfinite())
        z, y = torch.where(counted, z, 0.0), torch.where(counted, y, 0.0)
    y = torch.where(y.isfinite(), y, torch.nan)
    share, half = 1.0 - options.label_smoothing, 0.5 * options.label_smoothing
    minus = (share * (1.0 - y) + half).to(dtype)  # 1 - y from all digits of y
    smoothed = (share * y + half).to(dtype)
    plus = smoothed if pos_weight is None else pos_weight.to(dtype) * smoothed

    positive = z > 0
    size = torch.where(positive, z, -z)
    t = torch.exp(-size)
    wrong = torch.where(positive, minus, plus)
    distance = torch.where((wrong == 0) & size.isinf(), 0.0, size)  # 0 inf = 0
    losses = (plus + minus) * torch.log1p(t) + wrong * distance
    if options.focal_gamma > 0.0:
        right, other = torch.where(positive, smoothed, minus), torch.where(positive, minus, smoothed)
        q = (other + t * right) / (1.0 + t)  # 1 - p of the target
        none = q == 0
        factor = torch.where(none, 1.0, q) ** options.focal_gamma
        factor = torch.where((right >= 0) & (other >= 0), factor, torch.nan)
        # Constant where the loss is infinite: its derivative is 0, and 0 inf = 0.
        factor = torch.where(losses.isinf(), factor.detach(), factor)
        losses = torch.where(none, 0.0, losses) * factor
    return losses if weight is None else weight.to(dtype) * losses


def reduced(options: BinaryOptions, losses: Tensor) -> Tensor:
    """Reduce the losses of elements; the mean over nothing is 0."""
    if options.reduction == "none":
        return losses
    loss = losses.sum(dtype=sum_dtype(losses))
    return (loss / max(losses.numel(), 1) if options.reduction == "mean" else loss).to(losses.dtype)
