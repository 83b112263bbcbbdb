"""The terms of a divergence for a part of the classes, by the core: where no logits are float64, and all are plain.

Let A and B be what a and b give to the classes of the part together, and a' and b' their distributions among these. The
sum of the part's terms is A KL(a' || b') + A (exp(delta) - 1 - delta), delta = log(B / A): no term is below 0, and the
core computes the first in float32 as exactly as that holds it.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..._options import LossOptions
from .._composed_divergence import DivergenceOptions
from .._divergence_kernel import evaluate
from .._shifted import capped, over
from ._divergence_terms import Found, Sides, slope, terms

Gradients = tuple[Tensor | None, Tensor | None]


def round_by_core(sides: Sides, own: Tensor, whole: Tensor) -> Tensor | None:
    """What `round_of` returns, or None where that has to do it."""
    if not _fits(sides, own, whole):
        return None
    a, b, delta = _masses(sides, own, whole)
    values = evaluate(_options(sides), sides.b, sides.a, None)[1]
    value, change, _ = terms(a, b, delta, True)
    value = value + a * values
    if not value.isfinite().all():
        return None
    return torch.stack([value, change, torch.zeros_like(value)], 1)


def gradients_by_core(
    sides: Sides, own: Tensor, whole: Tensor, of: Found, scale: Tensor, wanted: tuple[bool, bool]
) -> Gradients | None:
    """What `gradients_of` returns, or None where that has to do it; `of` and `scale` are columns."""
    if not (_fits(sides, own, whole) and of.value.isfinite().all() and scale.isfinite().all()):
        return None
    a, b, delta = (each.unsqueeze(1) for each in _masses(sides, own, whole))
    _, change, _ = terms(a, b, delta, True)
    # Of float32 at least, so that half precision rounds once.
    student, teacher, row_scale = sides.b.float(), sides.a.float(), (scale * a).squeeze(1)
    wants = wanted[1], wanted[0]
    _, values, gradients = evaluate(_options(sides), student, teacher, None, wants, row_scale=row_scale)
    of_b, of_a = gradients
    # b - a = A (b' - a') + (B - A) b', and a likewise.
    if of_b is not None:
        of_b = of_b + _weighted(sides.b, sides.of_b, own[:, 2:], scale * change)
    if of_a is not None:
        assert values is not None
        of_a = of_a - _weighted(sides.a, sides.of_a, own[:, :2], scale * a * (of.value - values.unsqueeze(1) + delta))
    return of_a, of_b


def _options(sides: Sides) -> DivergenceOptions:
    return DivergenceOptions("forward", replace(sides.of_b, reduction="none"), sides.of_a)


def _fits(sides: Sides, own: Tensor, whole: Tensor) -> bool:
    return not sides.exact and bool(sides.a.shape[1] and own.isfinite().all() and whole.isfinite().all())


def _masses(sides: Sides, own: Tensor, whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A, B and log(B / A) of each row."""
    below = own - whole
    lse = torch.log1p(own[:, 1::2]) - torch.log1p(whole[:, 1::2])
    log_a, log_b = over(sides.of_a, below[:, 0]) + lse[:, 0], over(sides.of_b, below[:, 2]) + lse[:, 1]
    return torch.exp(log_a), torch.exp(log_b), log_b - log_a


def _weighted(z: Tensor, options: LossOptions, own: Tensor, factor: Tensor) -> Tensor:
    """The distribution of the part's classes times a factor of each row, as a gradient of the logits."""
    z = z.double()
    e = torch.exp(over(options, capped(options, z) - own[:, :1]))
    return over(options, e * (factor / (1.0 + own[:, 1:]))) * slope(options, z)
