"""A divergence of rows whose classes are split into parts: what a part tells of them, in two rounds, and its gradients.

Round 1: of both models the maximum of the logits and the sum of exponentials without it. Joined, they give every
probability. Round 2: the sums of terms and of changes; these add up to what rounding has left in all classes alike.
"""

import torch
from torch import Tensor

from ..._options import LossOptions, loss_options
from .._composed_divergence import DivergenceOptions
from .._kernel import TargetTensors
from .._shifted import capped, over
from ._divergence_core import gradients_by_core, round_by_core
from ._divergence_terms import Found, Sides, gradients_of, psi, round_of
from ._parts import joining

# What a part tells of a row, in round 1 and 2.
FIRST_FIELDS, SECOND_FIELDS = 4, 3


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
    u = capped(options, z.double())
    highest, j = u.max(1, keepdim=True)
    e = torch.exp(over(options, u - torch.where(highest.isinf(), 0.0, highest)))
    return torch.cat([highest, e.scatter_(1, j, 0.0).sum(1, keepdim=True)], 1)


def join_first(sides: Sides, parts: Tensor) -> Tensor:
    """Join (R, N, FIRST_FIELDS), in the order given, as the core joins its own."""
    return torch.cat([_join(sides.of_a, parts[..., :2]), _join(sides.of_b, parts[..., 2:])], 1)


def _join(options: LossOptions, parts: Tensor) -> Tensor:
    no_targets = TargetTensors(torch.empty(0, dtype=torch.int64))
    return joining(loss_options(temperature=options.temperature), no_targets)(parts)


def second_round(sides: Sides, own: Tensor, whole: Tensor) -> Tensor:
    """What the part tells when round 1, of which it told `own`, is joined: (N, SECOND_FIELDS), the sums of terms and of
    changes, and whether (not 0) a class is possible in a and impossible in b.
    """
    told = torch.empty(len(sides.a), SECOND_FIELDS, dtype=torch.float64)
    for block, of in sides.blocks():
        by_core = round_by_core(of, own[block], whole[block])
        told[block] = round_of(of, whole[block]) if by_core is None else by_core
    return told


def join_second(parts: Tensor) -> Tensor:
    """Add (R, N, SECOND_FIELDS) up, in the order given."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def found(whole: Tensor, sums: Tensor) -> Found:
    """The divergence, from the joined rounds."""
    value, excess, never = sums.unbind(1)
    infinite = (never != 0) & excess.isfinite()
    valid = whole.isfinite().all(1) & excess.isfinite() & (infinite | value.isfinite())
    value = torch.where(infinite, torch.inf, (value - psi(excess)).clamp(min=0.0))
    return Found(torch.where(valid, value, torch.nan), excess, infinite & valid, valid)


def write_gradients(
    sides: Sides, own: Tensor, whole: Tensor, of: Found, scale: Tensor, da: Tensor | None, db: Tensor | None
) -> None:
    """Write the gradients in the logits of a and of b, times a scale for each row; they may take the logits' place."""
    wanted = da is not None, db is not None
    for block, of_block in sides.blocks():
        found = Found(*(column[block].unsqueeze(1) for column in of))
        column = scale[block].unsqueeze(1)
        grad_a, grad_b = gradients_by_core(of_block, own[block], whole[block], found, column, wanted) or gradients_of(
            of_block, whole[block], found, column, wanted[0]
        )
        if da is not None:
            da[block] = grad_a
        if db is not None:
            db[block] = grad_b
