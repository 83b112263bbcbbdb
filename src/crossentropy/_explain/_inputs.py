"""What `explain` refuses beyond what `cross_entropy` does, and the names of the classes."""

import math
from collections.abc import Sequence

import numpy as np

from .._arrays import Array, Shape

MAX_ROWS, MAX_LOGITS = 32, 1 << 22


def refuse_many(name: str, shape: Shape) -> None:
    """Refuse what is too large to explain. The shape is enough, so a file is refused before it is read."""
    rows, classes = math.prod(shape[:-1]), math.prod(shape[-1:])
    if rows > MAX_ROWS or rows * classes > MAX_LOGITS:
        raise ValueError(
            f"{name}: expected at most {MAX_ROWS} rows and {MAX_LOGITS:,} numbers to explain, got {rows:,} rows of "
            f"{classes:,} classes; choose some, as in logits[:8], or score them all with 'crossentropy eval'"
        )


def refuse_probabilities(A: Array) -> None:
    """Refuse logits that are a softmax already."""
    if A.shape[1] > 1 and (A >= 0).all() and (np.abs(A.sum(-1) - 1) <= 1e-3).all():
        raise ValueError(
            "logits: these look like probabilities: no number is negative and every row sums to 1, so the softmax "
            "would be taken twice. Expected logits, the scores before the softmax; np.log(probabilities) are some. If "
            "these are logits, add 1 to each: that changes no probability"
        )


def refuse_counted_from_one(indices: Array, C: int, ignore_index: int | None) -> None:
    """Refuse class indices that are in [1, C]."""
    counted = indices[indices != ignore_index] if ignore_index is not None else indices
    if counted.size and counted.min() >= 1 and counted.max() == C:
        meant = np.where(indices == ignore_index, indices, indices - 1).tolist()
        raise IndexError(
            f"targets: expected class indices in [0, {C}), got {C}: classes count from 0: did you mean {meant}?"
        )


def class_names(names: Sequence[str] | None, C: int) -> tuple[str, ...]:
    """The classes' names as one printable line each; their indices where none are given."""
    if names is None:
        return tuple(map(str, range(C)))
    if isinstance(names, str) or len(names) != C:
        got = repr(names) if isinstance(names, str) else f"{len(names)}"
        raise ValueError(f"names: expected {C}, one for each class, got {got}")
    lines = (" ".join(str(name).split()) for name in names)
    return tuple("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) for line in lines)
