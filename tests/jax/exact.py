"""The definitions in mpmath: of one row, in more digits than any cancellation takes."""

from typing import Any

import mpmath
import numpy as np

DIGITS = 120


def scaled(z: Any, softcap: float | None = None, temperature: float = 1.0) -> tuple[Any, Any]:
    """Logits after soft cap and temperature, and their derivatives."""
    z = [mpmath.mpf(float(x)) for x in z]
    if softcap is None:
        return [x / temperature for x in z], [1 / mpmath.mpf(temperature)] * len(z)
    u = [softcap * mpmath.tanh(x / softcap) / temperature for x in z]
    return u, [mpmath.sech(x / softcap) ** 2 / temperature for x in z]


def log_softmax(u: Any) -> Any:
    total = mpmath.log(mpmath.fsum(mpmath.exp(x) for x in u))
    return [x - total for x in u]


def largest_error(actual: Any, expected: Any, sizes: Any) -> float:
    """The largest error relative to some sizes; those below the normal range of the dtype are left out."""
    actual = np.asarray(actual).ravel()
    tiny = 4 * float(np.finfo(actual.dtype).tiny)
    pairs = zip(actual, expected, sizes, strict=True)
    return max(float(abs(mpmath.mpf(float(a)) - e) / s) for a, e, s in pairs if s > tiny)
