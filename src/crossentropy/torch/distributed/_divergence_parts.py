"""A divergence of rows whose classes are split into parts: what a part tells of them, in two rounds, and its gradients.

Round 1: of both models the maximum of the logits and the sum of exponentials without it. Joined, they give every
probability, and delta = log(b / a) of a class in KL(a || b). Round 2: the sums of the terms a (exp(delta) - 1 - delta)
and of the changes a (exp(delta) - 1) = b - a, which add up to what rounding has left in delta of all classes alike.
Everything is float64, and all that a sum has added is at least 0 or vanishes with delta.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..._options import LossOptions, loss_options
from .._composed_divergence import DivergenceOptions, phi
from .._kernel import TargetTensors
from .._shifted import over
from ._parts import joining

# What a part tells of a row, in round 1 and 2.
FIRST_FIELDS, SECOND_FIELDS = 4, 3
# Classes that are worked on at a time: some twenty arrays of so many float64 stay in the cache.
BLOCK = 1 << 14


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
        step = max(1, BLOCK // max(1, classes))
        for begin in range(0, rows, step):
            block = slice(begin, min(begin + step, rows))
            yield block, self._replace(a=self.a[block], b=self.b[block])


def sides_of(options: DivergenceOptions, student: Tensor, teacher: Tensor) -> Sides:
    """The student is b for KL(teacher || student), "forward", and a in reverse."""
    if options.kind == "reverse":
        return Sides(student, teacher, options.student, options.teacher)
    return Sides(teacher, student, options.teacher, options.student)


def first_round(sides: Sides) -> Tensor:
    """What the part tells: (N, FIRST_FIELDS), the maximum and the sum without it of a, and those of b."""
    told = torch.empty(len(sides.a), FIRST_FIELDS, dtype=torch.float64)
    for block, of in sides.blocks():
        told[block, :2] = _maximum_and_sum(of.of_a, of.a)
        told[block, 2:] = _maximum_and_sum(of.of_b, of.b)
    return told


def _maximum_and_sum(options: LossOptions, z: Tensor) -> Tensor:
    if not z.shape[1]:
        return torch.tensor([-torch.inf, -1.0], dtype=torch.float64)  # it has no maximum to leave out
    u = _capped(options, z.double())
    highest, j = u.max(1, keepdim=True)
    e = torch.exp(over(options, u - _finite(highest)))
    return torch.cat([highest, e.scatter_(1, j, 0.0).sum(1, keepdim=True)], 1)


def join_first(sides: Sides, parts: Tensor) -> Tensor:
    """Join (R, N, FIRST_FIELDS), in the order given, as the core joins its own."""
    return torch.cat([_join(sides.of_a, parts[..., :2]), _join(sides.of_b, parts[..., 2:])], 1)


def _join(options: LossOptions, parts: Tensor) -> Tensor:
    no_targets = TargetTensors(torch.empty(0, dtype=torch.int64))
    return joining(loss_options(temperature=options.temperature), no_targets)(parts)


def second_round(sides: Sides, whole: Tensor) -> Tensor:
    """What the part tells when round 1 is joined: (N, SECOND_FIELDS), the sums of the terms and of the changes, and
    whether (not 0) a class is possible in a and impossible in b.
    """
    told = torch.empty(len(sides.a), SECOND_FIELDS, dtype=torch.float64)
    for block, of in sides.blocks():
        a, b, delta = _compared(of, whole[block])
        value, change, _ = _terms(a, b, delta, sides.exact)
        never = ((of.b == -torch.inf) & (of.a != -torch.inf)).any(1)
        told[block] = torch.stack([value.sum(1), change.sum(1), never.double()], 1)
    return told


def join_second(parts: Tensor) -> Tensor:
    """Add (R, N, SECOND_FIELDS) up, in the order given."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class Found(NamedTuple):
    """What all classes tell of each row."""

    value: Tensor  # the divergence
    excess: Tensor  # the sum of the changes
    infinite: Tensor  # whether a class is possible in a alone
    valid: Tensor  # whether both rows of logits are a softmax's


def found(whole: Tensor, sums: Tensor) -> Found:
    """The divergence, from the joined rounds."""
    value, excess, never = sums.unbind(1)
    infinite = (never != 0) & excess.isfinite()
    valid = whole.isfinite().all(1) & excess.isfinite() & (infinite | value.isfinite())
    value = torch.where(infinite, torch.inf, (value - _psi(excess)).clamp(min=0.0))
    return Found(torch.where(valid, value, torch.nan), excess, infinite & valid, valid)


def write_gradients(
    sides: Sides, whole: Tensor, of: Found, scale: Tensor, da: Tensor | None, db: Tensor | None
) -> None:
    """Write the gradients in the logits of a and of b, times a scale for each row; they may take the logits' place."""
    for block, of_block in sides.blocks():
        found = Found(*(column[block].unsqueeze(1) for column in of))
        grad_a, grad_b = _gradients(of_block, whole[block], found, scale[block].unsqueeze(1), da is not None)
        if da is not None:
            da[block] = grad_a
        if db is not None:
            db[block] = grad_b


def _gradients(sides: Sides, whole: Tensor, of: Found, scale: Tensor, first: bool) -> tuple[Tensor | None, Tensor]:
    a, b, delta = _compared(sides, whole)
    _, change, a_delta = _terms(a, b, delta, sides.exact)
    invalid = torch.where(of.valid & scale.isfinite(), 0.0, torch.nan)
    # b - a, from the changes with all constants that rounding has left taken out.
    db = (change - a * of.excess) * (scale / (1.0 + of.excess))
    db = over(sides.of_b, db) * _slope(sides.of_b, sides.b.double()) + invalid
    if not first:
        return None, db
    da = -(a * (of.value - (of.excess - _psi(of.excess))) + a_delta) * scale
    da = over(sides.of_a, da) * _slope(sides.of_a, sides.a.double())
    # Where the divergence is infinite, a move of a's probability to or from the impossible class is all that counts.
    possible = a_delta.isfinite()
    infinity = torch.where(possible, -torch.inf, torch.inf) * torch.sign(scale)
    infinity = torch.where((scale == 0) | (possible & (a == 0)), 0.0, infinity)
    return torch.where(of.infinite, infinity, da) + invalid, db


def _compared(sides: Sides, whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The probabilities of the part's classes in a and in b, and log(b / a)."""
    max_a, r_a, max_b, r_b = (column.unsqueeze(1) for column in whole.unbind(1))
    u_a, u_b = _capped(sides.of_a, sides.a.double()), _capped(sides.of_b, sides.b.double())
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
    exact = cap * t * _slope(sides.of_a, z_a) / (1.0 + t * (u_a / cap))
    return torch.where(t.abs() <= 0.5, exact - difference, 0.0)


def _rounded_off(difference: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """What rounding took from x - y: Knuth's TwoSum. NaN where one of them is infinite."""
    back = difference - x
    return (x - (difference - back)) - (y + back)


def _terms(a: Tensor, b: Tensor, delta: Tensor, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The terms a (exp(delta) - 1 - delta), the changes b - a, and a delta (0 where a is impossible)."""
    near = delta.abs() <= 1.0
    change = b - a
    a_delta = torch.where(delta < torch.inf, a * delta, 0.0)
    close = a * phi(torch.where(near, delta, 0.0), torch.float64 if exact else torch.float32)
    value = torch.where(near, close, change - a_delta).clamp(min=0.0)
    return value, torch.where(near, close + a_delta, change), a_delta


def _psi(x: Tensor) -> Tensor:
    """Return x - log(1 + x) for the tiny x that is left of a sum that would be 0 without rounding."""
    return x * x * (0.5 - x * (1.0 / 3 - x * 0.25))


def _finite(x: Tensor) -> Tensor:
    return torch.where(x.isinf(), 0.0, x)


def _capped(options: LossOptions, z: Tensor) -> Tensor:
    if options.softcap == torch.inf:
        return z
    return torch.where(z.isinf(), z, options.softcap * torch.tanh(z / options.softcap))


def _slope(options: LossOptions, z: Tensor) -> Tensor | float:
    """The derivative of the soft cap, sech^2: 1 - tanh^2 would cancel."""
    if options.softcap == torch.inf:
        return 1.0
    t = torch.exp(-2.0 * z.abs() / options.softcap)
    return torch.where(z.isinf(), 1.0, 4.0 * t / (1.0 + t) ** 2)
