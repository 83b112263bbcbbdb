"""What entropy bonus, focal loss and remainder add to the Hessian of a row's loss with respect to u, in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._arrays import Array
from ._options import LossOptions
from ._softmax import centred, probabilities
from ._terms import RowTerms


class Curvature(NamedTuple):
    """A sum of matrices, of which none is built: a product with a vector, and the diagonal. The classes are last."""

    options: LossOptions
    terms: RowTerms
    omega: Array  # the class weight of each row's target; 1 for probabilities
    indices: Array | None  # of the target, in range, for a focal loss
    rest: tuple[Array, Array] | None  # the mass of a remainder, and which classes share it

    def times(self, x: Array) -> Array:
        """The product with a vector of each row."""
        p = self.terms.p
        total = np.zeros(p.shape)
        if self.options.entropy_bonus:
            around_mean, _ = centred(p, x)
            surprise = self._surprise()
            eta = (p * surprise * around_mean).sum(-1, keepdims=True)
            total -= self._bonus() * p * (around_mean * (surprise - 1) - eta)
        if self.options.focal_gamma:
            factor, direction = self._focal()
            total -= factor * direction * (direction * x).sum(-1, keepdims=True)
        if self.rest is not None:
            pi = self._share()
            total -= self.rest[0][..., None] * pi * centred(pi, x)[0]
        return total

    def diagonal(self) -> Array:
        """The diagonal of each row's matrix."""
        p, complement = probabilities(self.terms.u)
        total = np.zeros(p.shape)
        if self.options.entropy_bonus:
            surprise = self._surprise()
            total -= self._bonus() * p * (complement * (surprise - 1) - p * surprise)
        if self.options.focal_gamma:
            factor, direction = self._focal()
            total -= factor * direction**2
        if self.rest is not None:
            pi = self._share()
            others = probabilities(np.where(self.rest[1], self.terms.u, -np.inf))[1]
            total -= self.rest[0][..., None] * np.where(pi == 0, 0.0, pi * others)
        return total

    def _bonus(self) -> Array:
        bonus: Array = (self.options.entropy_bonus * self.omega)[..., None]
        return bonus

    def _surprise(self) -> Array:
        """How far -log p of each class is above its mean, the entropy."""
        u, p = self.terms.u, self.terms.p
        gap = np.where(p == 0, 0.0, u.max(-1, keepdims=True) - u)
        return np.where(p == 0, 0.0, gap - (p * gap).sum(-1, keepdims=True))

    def _focal(self) -> tuple[Array, Array]:
        """A factor and a direction n: the focal loss subtracts factor n n^T. n is p - e_t over Q = 1 - p_t."""
        assert self.indices is not None
        u, gamma = self.terms.u, self.options.focal_gamma
        is_target = np.arange(u.shape[-1]) == self.indices[..., None]
        others = probabilities(np.where(is_target, -np.inf, u))[0]
        P, Q, loss = focal_terms(u, self.indices)
        P_loss = np.where(P == 0, 0.0, P * loss)
        factor = gamma * Q**gamma * (Q * (P_loss - 2 * P) - (gamma - 1) * P * P_loss)
        direction = np.where(is_target, -1.0, np.where(np.isnan(others), 0.0, others))
        return (np.where(Q == 0, 0.0, factor) * self.omega)[..., None], direction

    def _share(self) -> Array:
        """The softmax over the classes that share a remainder; 0 where no class is left."""
        assert self.rest is not None
        rest = np.where(self.rest[1], self.terms.u, -np.inf)
        return np.where(rest == -np.inf, 0.0, probabilities(rest)[0])


def focal_terms(u: Array, indices: Array) -> tuple[Array, Array, Array]:
    """The target's probability, that of all other classes, and the loss, none from a difference."""
    t = indices[..., None]
    is_target = np.arange(u.shape[-1]) == t
    u_t = np.take_along_axis(u, t, -1)
    with np.errstate(all="ignore"):
        odds = np.exp(np.where(is_target | (u == -np.inf), -np.inf, u - u_t)).sum(-1)
        m = u.max(-1, keepdims=True)
        loss = (m - u_t)[..., 0] + np.log(np.exp(u - m).sum(-1))
        loss = np.where(odds < 1, np.log1p(odds), loss)
        Q = np.where(np.isinf(odds), 1.0, odds / (1 + odds))
    return 1 / (1 + odds), Q, loss


def focal_factor(options: LossOptions, u: Array, indices: Array) -> Array:
    """What the focal loss multiplies the gradient by: Q^gamma (1 + gamma P loss / Q)."""
    P, Q, loss = focal_terms(u, indices)
    gamma = options.focal_gamma
    with np.errstate(all="ignore"):
        factor = Q**gamma * (1 + np.where(P == 0, 0.0, gamma * P * loss / Q))
    return np.where(Q == 0, 0.0, factor)
