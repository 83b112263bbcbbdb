"""Logits as the composed functions of the family take them: capped, less their maximum, over the temperature."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._options import LossOptions


class Shifted(NamedTuple):
    """Logits u, their maximum m and what follows from them; the class axis is kept in all but `log_total`."""

    logits: Tensor  # u, before the temperature
    below: Tensor  # (u - m) / temperature, at most 0; m is taken for a constant, which softmax and its like allow
    top: Tensor  # True for one class that attains m
    log_total: Tensor  # log of the sum of exp(below): NaN for a row of nothing but -inf, or with a +inf

    def softmax(self, axis: int) -> Tensor:
        return torch.softmax(self.below, axis)


def capped(options: LossOptions, z: Tensor) -> Tensor:
    """Logits under the soft cap, which leaves -inf alone."""
    if options.softcap == torch.inf:
        return z
    return torch.where(z.isinf(), z, options.softcap * torch.tanh(z / options.softcap))


def shifted(options: LossOptions, z: Tensor, axis: int) -> Shifted:
    """Shift logits by their maximum, before the temperature divides them: a quotient would round what is subtracted.

    log1p of a sum without the maximum keeps the digits of a confident row, and so does its derivative r / (1 + r).
    """
    u = capped(options, z)
    j = u.detach().argmax(axis, keepdim=True)
    column = [-1 if d == axis else 1 for d in range(u.dim())]
    top = torch.arange(u.shape[axis], device=u.device).reshape(column) == j
    highest = u.gather(axis, j)
    beyond = highest.isinf()  # u - m would be NaN in all of the row, which derivatives of other rows must not meet
    below = over(options, u - torch.where(beyond, 0.0, highest.detach()))
    distance = over(options, torch.where(top, 0.0, u - torch.where(beyond, 0.0, highest)))
    r = torch.where(top, 0.0, torch.exp(torch.where(beyond, 0.0, distance))).sum(axis)
    log_total = torch.log1p(r) * torch.where(beyond.squeeze(axis), torch.nan, 1.0)
    return Shifted(u, below, top, log_total)


def over(options: LossOptions, differences: Tensor) -> Tensor:
    """Differences of logits over the temperature."""
    return differences if options.temperature == 1.0 else differences / options.temperature


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
