"""The definition of the loss, in float64 NumPy: what every kernel must return, up to its rounding.

Public as ``crossentropy.reference``. Written to be read and to be compared with, not to be fast; the classes are on the
last axis. A row of logits ``z`` over ``C`` classes, soft cap ``k``, temperature ``tau``, targets ``q`` (one-hot at
index ``t``, or given), label smoothing ``eps``, class weights ``w``, z-loss ``zeta``, entropy bonus ``beta``, sample
weight ``s``::

    u = z / tau    or    (k / tau) tanh(z / k)              p = exp(u - lse),   lse = log sum exp(u)
    b = w [(1 - eps) q + eps / C]                           omega = w[t] for an index, 1 for probabilities
    H = -sum p log p                                        x = -log p - H
    loss = s [sum b (lse - u) + zeta omega lse^2 - beta omega H]
    dz = s [(sum b + 2 zeta omega lse) p - b - beta omega p x] du/dz

The focal loss ``gamma`` multiplies the sum by ``(1 - p[t])^gamma``.

Sources: Goodfellow, Bengio and Courville, Deep Learning (2016), sections 4.1 and 6.2.2; Blanchard, Higham and Higham,
Accurately computing the log-sum-exp and softmax functions, IMA J. Numer. Anal. 41 (2021), for log1p of a sum that
leaves the maximum out.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["binary_cross_entropy_with_grad", "cross_entropy_with_grad"]

Float64 = npt.NDArray[np.float64]


def cross_entropy_with_grad(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
    grad_output: npt.ArrayLike = 1.0,
) -> tuple[float | Float64, Float64]:
    """Loss in nats, and its gradient with respect to the logits, in float64.

    Arguments as in `crossentropy.cross_entropy_with_grad`, not validated; the losses of ``reduction="none"`` and the
    gradient keep the shape of rows and logits.

    Examples
    --------
    >>> import crossentropy as ce
    >>> loss, dlogits = ce.reference.cross_entropy_with_grad([[2.0, 1.0, -1.0]], [2])
    >>> round(loss, 12)
    3.349012216768
    """
    logits = np.asarray(logits, np.float64)
    C, shape = logits.shape[-1], logits.shape[:-1]
    z = logits.reshape(-1, C).copy()
    q, w = np.asarray(targets), np.ones(C) if class_weight is None else np.asarray(class_weight, np.float64)
    s = np.broadcast_to(1.0 if sample_weight is None else np.asarray(sample_weight, np.float64), shape).ravel().copy()
    omega = np.ones(len(z))
    if q.shape == shape:
        t = q.ravel()
        counted = np.full(len(z), True) if ignore_index is None else t != ignore_index
        s, t = np.where(counted, s, 0), np.where(counted, t, 0)
        q, omega = np.eye(C)[t] if len(z) else np.zeros((0, C)), w[t]
    q = q.reshape(-1, C).astype(np.float64)
    z[s == 0], q[s == 0] = 0, 0  # whatever a row that does not count holds

    with np.errstate(all="ignore"):
        th = np.tanh(z / (softcap or np.inf)) if softcap else z
        u = np.where(np.isinf(z) | (softcap is None), z, (softcap or 1) * th) / temperature
        slope = (1 / np.cosh(z / softcap) ** 2 if softcap else 1.0) / temperature
        q = np.where(np.isfinite(q), q, np.nan)
        b = w * ((1 - label_smoothing) * q + label_smoothing / C)
        B = b.sum(-1, keepdims=True)
        m = u.max(-1, keepdims=True)
        top = np.arange(C) == u.argmax(-1, keepdims=True)
        e = np.exp(u - m)
        r = np.where(top, 0, e).sum(-1, keepdims=True)  # every class but one that attains the maximum
        lse = m + np.log1p(r)
        tail = 2 * zw * lse if np.any(zw := (z_loss * omega)[:, None]) else np.zeros_like(lse)
        below = np.where(b == 0, 0, b * (m - u)).sum(-1) + (B * np.log1p(r))[:, 0]
        if focal_gamma:  # by the odds of every class but the target
            e_t = (q * e).sum(-1, keepdims=True)
            o = (r + (1 - e_t)) / e_t
            power = np.where(np.isinf(o), 1, (o / (1 + o)) ** focal_gamma)
            factor = np.where(np.isinf(o), 1, np.where(o == 0, 0, power * (1 + focal_gamma * np.log1p(o) / o)))
            below, b, B = below * power[:, 0], b * factor, B * factor
        gap = np.where(e == 0, 0, m - u)
        mean_gap = (e * gap).sum(-1, keepdims=True) / (1 + r)
        bonus = (entropy_bonus * omega)[:, None]
        H = np.log1p(r) + mean_gap
        loss = s * (below + np.where(zw != 0, zw * lse**2, 0)[:, 0] - np.where(bonus != 0, bonus * H, 0)[:, 0])
        rest = np.where(top, 0, b).sum(-1, keepdims=True)
        du = np.where(top & (r < 1), (rest - (B - rest) * r + tail) / (1 + r), (B + tail) * e / (1 + r) - b)
        du -= np.where(bonus != 0, bonus * e / (1 + r) * (gap - mean_gap), 0)
        bad = ~np.isfinite(m + r + B)[:, 0] & (s != 0)
        loss[bad], du[bad], loss[s == 0] = np.nan, np.nan, 0

        loss_sum = float(loss.sum())
        total = float((s * omega).sum()) if reduction == "mean" else 1.0
        g = s * np.broadcast_to(np.asarray(grad_output, np.float64), shape).ravel() / (total or np.inf)
        dz = np.where(s[:, None] != 0, np.where(np.isfinite(g), g, np.nan)[:, None] * du * slope, 0).reshape(
            logits.shape
        )
    if total == 0:
        return 0.0, np.zeros_like(logits)
    return loss.reshape(shape) if reduction == "none" else loss_sum / total, dz


def binary_cross_entropy_with_grad(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    pos_weight: npt.ArrayLike = 1.0,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    sample_weight: npt.ArrayLike = 1.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
    grad_output: npt.ArrayLike = 1.0,
) -> tuple[float | Float64, Float64]:
    """Binary loss in nats, and its gradient with respect to the logits, in float64.

    Of a logit ``z`` and target ``y``, with label smoothing ``eps``, a weight ``w`` of class 1, focal ``gamma`` and a
    sample weight ``s``::

        y' = (1 - eps) y + eps / 2      a+ = w y'      a- = 1 - y'      t = exp(-|z|)      sigma = 1 / (1 + exp(-z))
        plain = (a+ + a-) log(1 + t) + |z| (z > 0 ? a- : a+)         dplain = a- sigma - a+ (1 - sigma)
        q = sigma (1 - y') + (1 - sigma) y'                          dq = sigma (1 - sigma) (1 - 2 y')
        loss = s plain q^gamma                                       dz = s (dplain q + gamma plain dq) q^(gamma - 1)

    Arguments as in `crossentropy.binary_cross_entropy_with_grad`, not validated.

    Examples
    --------
    >>> import crossentropy as ce
    >>> loss, dlogits = ce.reference.binary_cross_entropy_with_grad([2.0, -1.0], [1, 0])
    >>> round(loss, 12)
    0.220094849281
    """
    z, y, w, s = (np.asarray(array, np.float64) for array in (logits, targets, pos_weight, sample_weight))
    s = np.broadcast_to(s, z.shape)
    with np.errstate(all="ignore"):
        y = (1 - label_smoothing) * np.where(np.isfinite(y), y, np.nan) + label_smoothing / 2
        plus, minus, t = w * y, 1 - y, np.exp(-np.abs(z))
        inside, outside = np.where(z > 0, minus, plus), np.where(z > 0, plus, minus)  # of the half where z is
        plain = (plus + minus) * np.log1p(t) + np.where(inside == 0, 0, np.abs(z) * inside)
        dplain = np.where(z > 0, 1, -1) * (inside - outside * t) / (1 + t)
        q = np.where(z > 0, minus + t * y, y + t * minus) / (1 + t)
        dq = t / (1 + t) ** 2 * (1 - 2 * y)
        power = q**focal_gamma
        rise = np.where((t == 0) | (focal_gamma == 0), 0, focal_gamma * plain * dq / q)  # 0 inf = 0
        loss = np.where(s == 0, 0, s * np.where(power == 0, 0, plain * power))
        loss_sum, total = float(loss.sum()), float(s.sum()) if reduction == "mean" else 1.0
        g = s * np.asarray(grad_output, np.float64) / (total or np.inf)
        dz = np.where(s == 0, 0, np.where(np.isfinite(g), g, np.nan) * power * (dplain + rise))
    if total == 0:
        return 0.0, np.zeros_like(z)
    return loss if reduction == "none" else loss_sum / total, dz
