"""KL(teacher || student) of models that hardly differ, as libraries return it: value, gradient at the first class."""

from collections.abc import Callable

import mpmath
import numpy as np

import crossentropy as ce

Answer = tuple[float, float]

TEACHER = np.array([2, 1, 0.1, -3], np.float32)
# The logits of student and teacher.
DIVERGENCE_CASES: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "KL of nearly equal models: logits of `[2, 1, 0.1, -3]`, the student's off by up to 1e-6": (
        TEACHER + np.float32([1e-6, -1e-6, 5e-7, 1e-6]),
        TEACHER,
    ),
    "KL of nearly equal models: the student's off by up to 1e-3": (
        TEACHER + np.float32([1e-3, -1e-3, 5e-4, 1e-3]),
        TEACHER,
    ),
    "KL of a model and the same with logits 7 higher, rounded": (TEACHER + 7, TEACHER),
}


def exact(student: np.ndarray, teacher: np.ndarray) -> Answer:
    def log_softmax(logits: np.ndarray) -> list[mpmath.mpf]:
        z = [mpmath.mpf(float(x)) for x in logits]
        lse = mpmath.log(mpmath.fsum(map(mpmath.exp, z)))
        return [x - lse for x in z]

    with mpmath.workprec(200):
        log_p, log_q = log_softmax(student), log_softmax(teacher)
        value = mpmath.fsum(mpmath.exp(q) * (q - p) for p, q in zip(log_p, log_q, strict=True))
        # Of the same logits up to a constant 200 bits leave a trace.
        return float(mpmath.chop(value, 1e-40)), float(mpmath.chop(mpmath.exp(log_p[0]) - mpmath.exp(log_q[0]), 1e-40))


def ours(student: np.ndarray, teacher: np.ndarray) -> Answer:
    value, gradients = ce.kl_divergence_with_grad(student, teacher)
    return value, gradients.logits[0]


def textbook(student: np.ndarray, teacher: np.ndarray) -> Answer:
    log_p, log_q = (z - z.max() - np.log(np.exp(z - z.max()).sum()) for z in (student, teacher))
    return (np.exp(log_q) * (log_q - log_p)).sum(), np.exp(log_p[0]) - np.exp(log_q[0])


def torch(student: np.ndarray, teacher: np.ndarray) -> Answer:
    import torch

    z = torch.from_numpy(student).requires_grad_()
    log_p, log_q = torch.log_softmax(z, -1), torch.log_softmax(torch.from_numpy(teacher), -1)
    value = torch.nn.functional.kl_div(log_p, log_q, reduction="sum", log_target=True)
    value.backward()
    return value.item(), z.grad[0].item()


def optax(student: np.ndarray, teacher: np.ndarray) -> Answer:
    import jax
    import optax

    def divergence(z: jax.Array) -> jax.Array:
        return optax.losses.kl_divergence_with_log_targets(jax.nn.log_softmax(z), jax.nn.log_softmax(teacher))

    value, gradient = jax.value_and_grad(divergence)(student)
    return float(value), float(gradient[0])


DIVERGENCE_PEERS: dict[str, Callable[[np.ndarray, np.ndarray], Answer]] = {
    "exact": exact,
    "crossentropy": ours,
    "NumPy, textbook": textbook,
    "torch": torch,
    "jax + optax": optax,
}
