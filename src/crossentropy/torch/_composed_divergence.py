"""Divergences in torch's own operators: on any device, under any transform, to any order of differentiation.

Everything is made of delta = log(p / q), p of the student and q of the teacher: a term of a divergence is of the order
of delta^2, where log p and log q have lost those digits. Derivatives are those of torch for these very forms; all they
add up vanishes with delta too.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .._options import LossOptions
from . import _composed
from ._kernel import TargetTensors, class_axis, row_dtype
from ._shifted import Shifted, over, shifted

# Beyond it a term is made of the two probabilities: before it, of their quotient's logarithm.
_FAR = 1.0


class DivergenceOptions(NamedTuple):
    """What a divergence is, beside its data."""

    kind: str | float  # "forward" or "reverse" for KL, or the beta of Jensen and Shannon
    student: LossOptions  # soft cap, temperature, reduction
    teacher: LossOptions  # soft cap, the same temperature

    def summed(self) -> "DivergenceOptions":
        """The same, reduced by the sum."""
        return self._replace(student=replace(self.student, reduction="sum"))


def values_dtype(input: Tensor, teacher_input: Tensor) -> torch.dtype:
    return torch.promote_types(row_dtype(input), row_dtype(teacher_input))


def row_divergences(
    options: DivergenceOptions, input: Tensor, teacher_input: Tensor, sample_weight: Tensor | None
) -> Tensor:
    """One divergence a row, times its weight."""
    axis, dtype = class_axis(input), values_dtype(input, teacher_input)
    z, w = input.to(dtype), teacher_input.to(dtype)
    if sample_weight is not None:  # rows that do not count may hold NaN
        counted = (sample_weight != 0).unsqueeze(axis)
        z, w = torch.where(counted, z, 0.0), torch.where(counted, w, 0.0)
    of = pair(options.student, options.teacher, z, w, axis)
    if isinstance(options.kind, str):
        rows = kl(of, axis, reverse=options.kind == "reverse")
    else:
        rows = jensen_shannon(of, options.kind, axis)
    if sample_weight is None:
        return rows
    return torch.where(sample_weight != 0, sample_weight.to(dtype) * rows, 0.0)


def reduced(options: DivergenceOptions, rows: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Reduce the divergences of rows."""
    stand_in = rows.unsqueeze(min(1, rows.dim()))  # logits of one class, and as many probabilities
    return _composed.reduced(options.student, rows, stand_in, TargetTensors(stand_in, None, sample_weight), None)


class Pair(NamedTuple):
    """What two rows of logits say about one another, the class axis kept."""

    p: Tensor  # the student's probabilities
    q: Tensor  # the teacher's
    delta: Tensor  # log(p / q); 0 where both are 0 for a logit of -inf


def pair(options: LossOptions, teacher_options: LossOptions, z: Tensor, w: Tensor, axis: int) -> Pair:
    """Compare a student's logits z with a teacher's w.

    delta = D - log(1 + E) with D the differences of logits, less that of one class, and E the sum of q expm1(D): both
    keep the digits of nearly equal models. Less a constant, since softmax and its like do not see one.
    """
    student, teacher = shifted(options, z, axis), shifted(teacher_options, w, axis)
    p, q = student.softmax(axis), teacher.softmax(axis)
    candidates = torch.where(student.logits.isinf(), -torch.inf, teacher.logits)
    j = candidates.detach().argmax(axis, keepdim=True)
    difference, error = _difference(options, teacher_options, student, teacher, z, w)
    at_j, error_at_j = difference.detach().gather(axis, j), error.gather(axis, j)
    common = at_j.isfinite()  # else no class has a probability in both
    shift = difference - torch.where(common, at_j, 0.0)
    d = over(options, shift + (error - torch.where(common, error_at_j, 0.0)))
    d = torch.where((p == 0) & (q == 0) & d.isnan(), 0.0, d)

    # log(1 + E), from the two sums of exponentials where E is far from 0
    lse, teacher_lse = (rows.below.logsumexp(axis, keepdim=True) for rows in (student, teacher))
    below_j = torch.where(common, student.below.detach().gather(axis, j), lse.detach())
    teacher_below_j = torch.where(common, teacher.below.detach().gather(axis, j), teacher_lse.detach())
    far = (lse - below_j) - (teacher_lse - teacher_below_j)
    near = (far > -0.7) & (far < 30.0) & common
    steep = d > _FAR  # q may be 0 there, and expm1(d) infinite
    low = torch.where(near & ~steep, d, 0.0)
    high = torch.where(near & steep, student.below - below_j, 0.0)
    above = torch.exp(high) * torch.exp(torch.where(near, teacher_below_j - teacher_lse, 0.0)) - q
    e = torch.where(steep, above, q * torch.expm1(low)).sum(axis, keepdim=True)
    logarithm = torch.where(near, torch.log1p(torch.where(near, e, 0.0)), far)
    invalid = torch.where(torch.isnan(student.log_total + teacher.log_total), torch.nan, 0.0).unsqueeze(axis)
    return Pair(p, q, d - logarithm + invalid)


def _difference(
    options: LossOptions, teacher_options: LossOptions, student: Shifted, teacher: Shifted, z: Tensor, w: Tensor
) -> tuple[Tensor, Tensor]:
    """The difference u - v, and what rounding took from it (a constant)."""
    u, v = student.logits, teacher.logits
    difference = u - v
    a, b, s = u.detach(), v.detach(), difference.detach()
    if options.softcap < torch.inf and options.softcap == teacher_options.softcap:
        # tanh x - tanh y = tanh(x - y) (1 - tanh x tanh y)
        cap = options.softcap
        error = cap * torch.tanh((z.detach() - w.detach()) / cap) * (1.0 - (a / cap) * (b / cap)) - s
    else:
        back = s - a  # Knuth's TwoSum
        error = (a - (s - back)) - (b + back)
    return difference, torch.where(error.isfinite(), error, 0.0)


def kl(of: Pair, axis: int, *, reverse: bool) -> Tensor:
    """KL(q || p), or where `reverse` KL(p || q), of each row."""
    p, q, delta = of
    if reverse:
        p, q, delta = q, p, -delta
    return _terms(q, delta, p - q).sum(axis)


def jensen_shannon(of: Pair, beta: float, axis: int) -> Tensor:
    """Return beta KL(q || m) + (1 - beta) KL(p || m) of each row, m = beta q + (1 - beta) p."""
    p, q, delta = of
    student_leads = delta > 0
    a = torch.where(student_leads, -delta, delta)  # abs has no derivative at 0
    weight = torch.where(student_leads, torch.full_like(delta, beta), 1.0 - beta)
    less = weight * torch.expm1(a)
    deep = less < -0.5
    lesser = torch.where(
        deep,
        torch.log(torch.where(deep, weight * torch.exp(a) + (1.0 - weight), 1.0)),
        torch.log1p(torch.where(deep, 0.0, less)),
    )
    close = -a <= _FAR
    greater = torch.where(close, torch.log1p((1.0 - weight) * torch.expm1(torch.where(close, -a, 0.0))), lesser - a)
    of_p = torch.where(student_leads, lesser, greater)  # log(m / p)
    of_q = torch.where(student_leads, greater, lesser)
    of_student = _terms(p, of_p, beta * (q - p))
    of_teacher = _terms(q, of_q, (1.0 - beta) * (p - q))
    return (beta * of_teacher + (1.0 - beta) * of_student).sum(axis)


def _terms(q: Tensor, x: Tensor, excess: Tensor) -> Tensor:
    """Return q (exp(x) - 1 - x), x the logarithm of p / q and `excess` p - q; for q = 0 it is p."""
    close = x <= _FAR
    gone = q == 0
    near = torch.where(close & ~gone, x, 0.0)
    return torch.where(close & ~gone, q * phi(near), excess - q * torch.where(gone | close, 0.0, x))


def phi(x: Tensor, digits: torch.dtype | None = None) -> Tensor:
    """expm1(x) - x, by exp's series where these two would cancel, to the digits of x's dtype or the one given."""
    small = x.abs() <= 0.5
    y = torch.where(small, x, 0.0)
    last = 16 if (digits or x.dtype) == torch.float64 else 9
    series = torch.full_like(y, 1.0 / math.factorial(last))
    for n in range(last - 1, 1, -1):
        series = series * y + 1.0 / math.factorial(n)
    far = torch.where(small, 0.0, x)
    return torch.where(small, y * y * series, torch.expm1(far) - far)
