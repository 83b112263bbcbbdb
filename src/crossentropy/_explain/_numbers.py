"""The numbers that an explanation shows: a plain record that its steps, derivation, pitfalls and picture read."""

from dataclasses import dataclass

import numpy as np

from .._arrays import Array
from .._options import LossOptions
from ._record import Record


@dataclass(frozen=True, eq=False, repr=False)
class LossNumbers(Record):
    """Every intermediate of the loss of N rows over C classes, in float64 and nats.

    `Explanation`, the public name of this record, says what each attribute is.
    """

    names: tuple[str, ...]
    shown: tuple[int, ...]
    options: LossOptions
    # What was given, and the weights.
    logits: Array
    targets: Array | None
    q: Array
    w: Array
    s: Array
    omega: Array
    # The targets, smoothed and weighted.
    smoothed: Array
    b: Array
    B: Array
    # The softmax.
    u: Array
    slope: Array
    m: Array
    shifted: Array
    e: Array
    r: Array
    S: Array
    lse: Array
    p: Array
    rest: Array
    log_p: Array
    # Losses and gradients.
    cross: Array
    a: Array
    losses: Array
    total: float
    mean: float
    total_weight: float
    dtotal: Array
    dmean: Array
    loss: float | Array
    dlogits: Array

    @property
    def one_hot(self) -> Array:
        """For each row whether its target distribution is one-hot."""
        found: Array = ((self.q == 0) | (self.q == 1)).all(-1) & (self.q.sum(-1) == 1)
        return found

    @property
    def target_classes(self) -> Array:
        """For each row the class of its largest target; NaN is left out."""
        found: Array = np.where(np.isnan(self.q), -np.inf, self.q).argmax(-1)
        return found

    @property
    def folded(self) -> int:
        """How many classes text and picture leave out."""
        return len(self.names) - len(self.shown)
