"""The binary loss and its gradient in mpmath, straight from the definition."""

import mpmath
import numpy as np

mpmath_precision = 2200  # bits: at a logit of 708 sigmoid - 1 keeps a thousand of them


def exact(z, y, w=1.0, eps=0.0, gamma=0.0):
    """Loss, gradient, and the larger of the terms of which the gradient is the difference."""
    with mpmath.workprec(mpmath_precision):
        z, y, w, eps, gamma = (mpmath.mpf(float(x)) for x in (z, y, w, eps, gamma))
        y = (1 - eps) * y + eps / 2
        right = 1 / (1 + mpmath.exp(-z))
        wrong = 1 - right
        plain = -w * y * mpmath.log(right) - (1 - y) * mpmath.log(wrong)
        up, down = (1 - y) * right, w * y * wrong
        if gamma == 0:
            return plain, up - down, max(up, down)
        q = 1 - right * y - wrong * (1 - y)
        if q == 0:
            return mpmath.mpf(0), mpmath.mpf(0), mpmath.mpf(0)
        factor, slope = q**gamma, gamma * plain * right * wrong / q
        up, down = factor * (up + slope * (1 - y)), factor * (down + slope * y)
        return plain * factor, up - down, max(up, down)


def ulps(found, expected, of, dtype):
    """The error in units in the last place of `of`, a number of the dtype's normal range."""
    spacing = float(np.spacing(np.abs(np.asarray(float(of), dtype))))
    return float(abs(mpmath.mpf(float(found)) - expected) / spacing)
