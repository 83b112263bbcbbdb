"""Every number of an explanation by the definition, in 300 digits, one class at a time."""

import functools
from collections import defaultdict

import mpmath
import numpy as np


@mpmath.workdps(300)
def numbers(logits, q, w, s, omega, eps=0.0, zeta=0.0, softcap=None, tau=1.0, reduction="mean"):
    """`q` distributions; `s` 0 for rows that do not count."""
    mpf = mpmath.mpf
    N, C = len(logits), len(logits[0])
    found = defaultdict(list)
    for i in range(N):
        counts = s[i] > 0
        z, t = [mpf(float(v)) for v in logits[i]], mpf(float(tau))
        k = None if softcap is None else mpf(softcap)
        u = [v / t if k is None else k * mpmath.tanh(v / k) / t for v in z]
        slope = [1 / t if k is None else mpmath.sech(v / k) ** 2 / t for v in z]
        smoothed = [(1 - mpf(eps)) * mpf(float(v)) + mpf(eps) / C if counts else mpf(0) for v in q[i]]
        b = [mpf(float(wc)) * v for wc, v in zip(w, smoothed, strict=True)]
        m = max(u)
        e = [mpmath.exp(v - m) for v in u]
        S = mpmath.fsum(e)
        lse, p = m + mpmath.log(S), [v / S for v in e]
        B = mpmath.fsum(b)
        a = B + 2 * mpf(zeta) * mpf(float(omega[i])) * lse
        cross = mpmath.fsum(bc * (lse - uc) for bc, uc in zip(b, u, strict=True))
        row = {
            "smoothed": smoothed,
            "b": b,
            "B": B,
            "u": u,
            "slope": slope,
            "m": m,
            "shifted": [v - m for v in u],
            "e": e,
            "r": S - 1,
            "S": S,
            "lse": lse,
            "p": p,
            "rest": [1 - v for v in p],
            "log_p": [v - lse for v in u],
            "cross": cross,
            "a": a,
            "losses": mpf(float(s[i])) * (cross + mpf(zeta) * mpf(float(omega[i])) * lse**2),
            "dtotal": [mpf(float(s[i])) * (a * pc - bc) * uc for pc, bc, uc in zip(p, b, slope, strict=True)],
        }
        for name, value in row.items():
            found[name].append(value)
    total = mpmath.fsum(found["losses"])
    weight = mpmath.fsum(mpf(float(si)) * mpf(float(oi)) for si, oi in zip(s, omega, strict=True))
    found |= {"total": total, "total_weight": weight, "mean": total / weight}
    found["dmean"] = [[v / weight for v in row] for row in found["dtotal"]]
    found["loss"] = {"mean": found["mean"], "sum": total, "none": found["losses"]}[reduction]
    found["dlogits"] = found["dmean" if reduction == "mean" else "dtotal"]
    return {name: np.array(value, dtype=object).astype(float) for name, value in found.items()}


@mpmath.workdps(300)
def softmax_jacobian(logits):
    """The derivative of each probability by each logit, by differentiating numerically."""
    C = len(logits)
    z = [mpmath.mpf(float(v)) for v in logits]

    def probability(k, c, value):
        moved = [value if j == c else z[j] for j in range(C)]
        return mpmath.exp(moved[k]) / mpmath.fsum(map(mpmath.exp, moved))

    return np.array(
        [[float(mpmath.diff(functools.partial(probability, k, c), z[c])) for c in range(C)] for k in range(C)]
    )
