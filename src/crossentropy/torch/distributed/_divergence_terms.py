"""The terms of a divergence for a part of the classes, in torch's operators and float64.

Of KL(a || b), with delta = log(b / a) of a class: its term is a (exp(delta) - 1 - delta), its change b - a is
a (exp(delta) - 1), and all that a sum adds up is at least 0 or vanishes with delta.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..._options import LossOptions
from .._composed_divergence import phi
from .._shifted import capped, over

# Classes that are worked on at a time: some twenty arrays of so many float64 stay in the cache. With the core at most
# five do, and more of them cost less for each call.
BLOCK, CORE_BLOCK = 1 << 14, 1 << 17


class Sides(NamedTuple):
    """The two models of KL(a || b), the logits (N, C of the part) of each, and its options."""

    a: Tensor
    b: Tensor
    of_a: LossOptions  # soft cap and temperature
    of_b: LossOptions

    @property
    def exact(self) -> bool:
        """Whether the logits have digits that their difference in float64 would lose."""
        return torch.float64 in (self.a.dtype, self.b.dtype)

    @property
    def same_cap(self) -> bool:
        return self.of_a.softcap == self.of_b.softcap < torch.inf

    def blocks(self) -> Iterator[tuple[slice, "Sides"]]:
        """A few rows at a time."""
        rows, classes = self.a.shape
        step = max(1, (BLOCK if self.exact else CORE_BLOCK) // max(1, classes))
        for begin in range(0, rows, step):
            block = slice(begin, min(begin + step, rows))
            yield block, self._replace(a=self.a[block], b=self.b[block])


class Found(NamedTuple):
    """What all classes tell of each row."""

    value: Tensor  # the divergence
    excess: Tensor  # the sum of the changes
    infinite: Tensor  # whether a class is possible in a alone
    valid: Tensor  # whether both rows of logits are a softmax's


def round_of(sides: Sides, whole: Tensor) -> Tensor:
    """The sums of the terms and of the changes of each row, and whether (not 0) a class is possible in a alone."""
    a, b, delta = _compared(sides, whole)
    value, change, _ = terms(a, b, delta, sides.exact)
    never = ((sides.b == -torch.inf) & (sides.a != -torch.inf)).any(1)
    return torch.stack([value.sum(1), change.sum(1), never.double()], 1)


def gradients_of(sides: Sides, whole: Tensor, of: Found, scale: Tensor, first: bool) -> tuple[Tensor | None, Tensor]:
    a, b, delta = _compared(sides, whole)
    _, change, a_delta = terms(a, b, delta, sides.exact)
    invalid = torch.where(of.valid & scale.isfinite(), 0.0, torch.nan)
    # b - a, from the changes with all constants that rounding has left taken out.
    db = (change - a * of.excess) * (scale / (1.0 + of.excess))
    db = over(sides.of_b, db) * slope(sides.of_b, sides.b.double()) + invalid
    if not first:
        return None, db
    da = -(a * (of.value - (of.excess - psi(of.excess))) + a_delta) * scale
    da = over(sides.of_a, da) * slope(sides.of_a, sides.a.double())
    # Where the divergence is infinite, a move of a's probability to or from the impossible class is all that counts.
    possible = a_delta.isfinite()
    infinity = torch.where(possible, -torch.inf, torch.inf) * torch.sign(scale)
    infinity = torch.where((scale == 0) | (possible & (a == 0)), 0.0, infinity)
    return torch.where(of.infinite, infinity, da) + invalid, db


def _compared(sides: Sides, whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The probabilities of the part's classes in a and in b, and log(b / a)."""
    max_a, r_a, max_b, r_b = (column.unsqueeze(1) for column in whole.unbind(1))
    u_a, u_b = capped(sides.of_a, sides.a.double()), capped(sides.of_b, sides.b.double())
    a = torch.exp(over(sides.of_a, u_a - max_a)) / (1.0 + r_a)
    b = torch.exp(over(sides.of_b, u_b - max_b)) / (1.0 + r_b)
    lse = torch.log1p(r_b) - torch.log1p(r_a)
    difference = u_b - u_a
    if not sides.exact and not sides.same_cap:
        delta = over(sides.of_a, difference - (max_b - max_a)) - lse
    else:
        error = _difference_error(sides, difference, u_a, u_b)
        shift = max_b - max_a
        shifted = difference - shift
        error = error + (_rounded_off(shifted, difference, shift) - _rounded_off(shift, max_b, max_a))
        x = over(sides.of_a, shifted)
        delta = x - lse
        error = _rounded_off(delta, x, lse) + over(sides.of_a, error)
        delta = torch.where(delta.isfinite(), delta + error, delta)
    # Of a class that is impossible in both nothing is known; a NaN is in the sums already.
    return a, b, torch.where(difference.isnan(), 0.0, delta)


def _difference_error(sides: Sides, difference: Tensor, u_a: Tensor, u_b: Tensor) -> Tensor:
    """What `difference`, u_b - u_a, lacks."""
    if not sides.same_cap:
        return _rounded_off(difference, u_b, u_a)
    # tanh x - tanh y = t sech^2(y) / (1 + t tanh(y)), t = tanh(x - y): as exact as x - y.
    cap = sides.of_a.softcap
    z_a = sides.a.double()
    t = torch.tanh((sides.b.double() - z_a) / cap)
    exact = cap * t * slope(sides.of_a, z_a) / (1.0 + t * (u_a / cap))
    return torch.where(t.abs() <= 0.5, exact - difference, 0.0)


def _rounded_off(difference: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """What rounding took from x - y: Knuth's TwoSum. NaN where one of them is infinite."""
    back = difference - x
    return (x - (difference - back)) - (y + back)


def terms(a: Tensor, b: Tensor, delta: Tensor, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The terms a (exp(delta) - 1 - delta), the changes b - a, and a delta (0 where a is impossible)."""
    near = delta.abs() <= 1.0
    change = b - a
    a_delta = torch.where(delta < torch.inf, a * delta, 0.0)
    close = a * phi(torch.where(near, delta, 0.0), torch.float64 if exact else torch.float32)
    value = torch.where(near, close, change - a_delta).clamp(min=0.0)
    return value, torch.where(near, close + a_delta, change), a_delta


def psi(x: Tensor) -> Tensor:
    """Return x - log(1 + x) for the tiny x that is left of a sum that would be 0 without rounding."""
    return x * x * (0.5 - x * (1.0 / 3 - x * 0.25))


def slope(options: LossOptions, z: Tensor) -> Tensor | float:
    """The derivative of the soft cap, sech^2: 1 - tanh^2 would cancel."""
    if options.softcap == torch.inf:
        return 1.0
    t = torch.exp(-2.0 * z.abs() / options.softcap)
    return torch.where(z.isinf(), 1.0, 4.0 * t / (1.0 + t) ** 2)
