"""Divergences and their gradients in mpmath, and how far from them a result may be."""

from typing import NamedTuple

import mpmath
import numpy as np
import pytest

import crossentropy as ce

PRECISION = 200  # bits

BOTH = ("logits", "teacher_logits")
FORMS = {
    "forward": (ce.kl_divergence_with_grad, {"direction": "forward"}),
    "reverse": (ce.kl_divergence_with_grad, {"direction": "reverse"}),
    "js": (ce.jensen_shannon_with_grad, {}),
    "js of little": (ce.jensen_shannon_with_grad, {"beta": 0.001}),
    "js of much": (ce.jensen_shannon_with_grad, {"beta": 0.99}),
}
ALONE = {
    name: (ce.kl_divergence if "direction" in options else ce.jensen_shannon, options)
    for name, (_, options) in FORMS.items()
}
each_form = pytest.mark.parametrize("form", FORMS)


class Oracle(NamedTuple):
    """Of one row. Gradients are those in the student's and in the teacher's logits."""

    value: mpmath.mpf
    gradients: dict[str, list]
    size: list  # max(p, q) max(|delta|, sqrt(2 KL)) of each class: what errors of gradients are measured by


def log_probabilities(z, softcap, temperature):
    u = [mpmath.mpf(float(x)) for x in z]
    if softcap is not None:
        u = [x if mpmath.isinf(x) else softcap * mpmath.tanh(x / softcap) for x in u]
    u = [x / mpmath.mpf(temperature) for x in u]
    lse = max(u) + mpmath.log(mpmath.fsum(mpmath.exp(x - max(u)) for x in u))
    return [x - lse for x in u]


def slopes(z, softcap, temperature):
    return [
        (mpmath.sech(mpmath.mpf(float(x)) / softcap) ** 2 if softcap is not None else 1) / mpmath.mpf(temperature)
        for x in z
    ]


def oracle(student, teacher, *, direction="forward", beta=None, softcap=None, teacher_softcap=None, temperature=1.0):
    """Of rows without infinities."""
    with mpmath.workprec(PRECISION):
        log_p, log_q = (
            log_probabilities(student, softcap, temperature),
            log_probabilities(teacher, teacher_softcap, temperature),
        )
        p, q = [mpmath.exp(x) for x in log_p], [mpmath.exp(x) for x in log_q]
        a, b, log_a, log_b = (q, p, log_q, log_p) if direction == "forward" else (p, q, log_p, log_q)
        delta = [y - x for x, y in zip(log_a, log_b, strict=True)]
        kl = -mpmath.fsum(x * d for x, d in zip(a, delta, strict=True))
        if beta is None:
            value = kl
            of_a = [x * (-d - kl) for x, d in zip(a, delta, strict=True)]
            of_b = [y - x for x, y in zip(a, b, strict=True)]
            dp, dq = (of_b, of_a) if direction == "forward" else (of_a, of_b)
        else:
            w = mpmath.mpf(beta)
            log_m = [mpmath.log(w * y + (1 - w) * x) for x, y in zip(p, q, strict=True)]
            to_p = [m - x for m, x in zip(log_m, log_p, strict=True)]
            to_q = [m - x for m, x in zip(log_m, log_q, strict=True)]
            mean_p = mpmath.fsum(x * t for x, t in zip(p, to_p, strict=True))
            mean_q = mpmath.fsum(x * t for x, t in zip(q, to_q, strict=True))
            value = -w * mean_q - (1 - w) * mean_p
            dp = [(1 - w) * x * (mean_p - t) for x, t in zip(p, to_p, strict=True)]
            dq = [w * x * (mean_q - t) for x, t in zip(q, to_q, strict=True)]
        root = mpmath.sqrt(2 * kl)
        size = [max(x, y) * max(abs(d), root) for x, y, d in zip(a, b, delta, strict=True)]
        student_slope = slopes(student, softcap, temperature)
        teacher_slope = slopes(teacher, teacher_softcap, temperature)
        gradients = {
            "logits": [g * s for g, s in zip(dp, student_slope, strict=True)],
            "teacher_logits": [g * s for g, s in zip(dq, teacher_slope, strict=True)],
        }
        return Oracle(value, gradients, size)


def relative_error(value, expected: Oracle) -> float:
    return float(abs(mpmath.mpf(float(value)) - expected.value) / expected.value)


def gradient_error(gradient, expected: Oracle, name: str) -> float:
    """In units of `size`, beyond what a probability below the smallest normal number leaves."""
    smallest = float(np.finfo(gradient.dtype).tiny) if gradient.dtype.itemsize > 2 else 6e-8
    worst = 0.0
    for got, g, size in zip(gradient.ravel(), expected.gradients[name], expected.size, strict=True):
        error = abs(mpmath.mpf(float(got)) - g) - 200 * smallest
        worst = max(worst, float(error / size) if size else 0.0)
    return worst
