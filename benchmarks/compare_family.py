"""What other libraries return for the quantities around the loss, beside ours and the exact value, for compare.py.

Each case has one function a peer, of float32 inputs, which returns a value and perhaps a gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np

import crossentropy as ce

Numbers = tuple[Any, ...]  # the value, and one number of its gradient where that is shown


class Case(NamedTuple):
    exact: Callable[[], Numbers]
    peers: dict[str, Callable[[], Numbers]]


def exact_probabilities(logits: np.ndarray) -> list[mpmath.mpf]:
    e = [mpmath.exp(mpmath.mpf(float(z)) - mpmath.mpf(float(logits.max()))) for z in logits]
    return [x / mpmath.fsum(e) for x in e]


def textbook_log_softmax(z: np.ndarray) -> np.ndarray:
    return z - z.max() - np.log(np.exp(z - z.max()).sum())


def torch_log_softmax(z: np.ndarray) -> Any:
    import torch

    return torch.log_softmax(torch.from_numpy(z), -1)


def jax_log_softmax(z: np.ndarray) -> Any:
    import jax

    return jax.nn.log_softmax(jax.numpy.asarray(z))


# Binary cross-entropy of a logit and its target.


def binary(logit: float, target: float) -> Case:
    z, y = np.float32(logit), np.float32(target)

    def exact() -> Numbers:
        t = mpmath.exp(-abs(mpmath.mpf(logit)))  # of a confident logit that is right
        return mpmath.log1p(t), (t if target == 0 else -t) / (1 + t)

    def textbook() -> Numbers:
        p = 1 / (1 + np.exp(-z))
        return -y * np.log(p) - (1 - y) * np.log(1 - p), p - y

    def scikit_learn() -> Numbers:
        from sklearn._loss import HalfBinomialLoss

        losses, gradient = HalfBinomialLoss().loss_gradient(np.array([y]), np.array([z]))
        return losses[0], gradient[0]

    def torch() -> Numbers:
        import torch

        logit = torch.tensor(z, requires_grad=True)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, torch.tensor(y))
        loss.backward()
        return loss.item(), logit.grad.item()

    def optax() -> Numbers:
        import jax
        import optax

        return jax.value_and_grad(optax.sigmoid_binary_cross_entropy)(jax.numpy.asarray(z), y)

    return Case(
        exact,
        {
            "crossentropy": lambda: ce.binary_cross_entropy_with_grad(z, y),
            "NumPy, textbook": textbook,
            "scikit-learn": scikit_learn,
            "torch": torch,
            "jax + optax": optax,
        },
    )


# The entropy of the prediction, and its gradient at the first class.


def entropy(*logits: float) -> Case:
    z = np.array(logits, np.float32)

    def exact() -> Numbers:
        p = exact_probabilities(z)
        H = -mpmath.fsum(x * mpmath.log(x) for x in p)
        return H, -p[0] * (mpmath.log(p[0]) + H)

    def textbook() -> Numbers:
        log_p = textbook_log_softmax(z)
        H = -(np.exp(log_p) * log_p).sum()
        return H, -np.exp(log_p[0]) * (log_p[0] + H)

    def torch() -> Numbers:
        import torch

        row = torch.from_numpy(z.copy()).requires_grad_()
        H = torch.distributions.Categorical(logits=row).entropy()
        H.backward()
        return H.item(), row.grad[0].item()

    def jaxs() -> Numbers:
        import jax

        def of(row: Any) -> Any:
            log_p = jax.nn.log_softmax(row)
            return -(jax.numpy.exp(log_p) * log_p).sum()

        H, gradient = jax.value_and_grad(of)(jax.numpy.asarray(z))
        return H, gradient[0]

    def ours() -> Numbers:
        H, gradient = ce.entropy_with_grad(z)
        return H, gradient[0]

    return Case(exact, {"crossentropy": ours, "NumPy, textbook": textbook, "torch": torch, "jax + optax": jaxs})


# KL(teacher || student) of models that hardly differ.


def divergence(*change: float) -> Case:
    teacher = np.array([2, 1, 0.1, -3], np.float32)
    student = teacher + np.array(change, np.float32)

    def exact() -> Numbers:
        p, q = exact_probabilities(student), exact_probabilities(teacher)
        return (mpmath.fsum(y * mpmath.log(y / x) for x, y in zip(p, q, strict=True)),)

    def textbook() -> Numbers:
        log_p, log_q = map(textbook_log_softmax, (student, teacher))
        return ((np.exp(log_q) * (log_q - log_p)).sum(),)

    def torch() -> Numbers:
        import torch

        log_p, log_q = map(torch_log_softmax, (student, teacher))
        return (torch.nn.functional.kl_div(log_p, log_q, reduction="sum", log_target=True).item(),)

    def optax() -> Numbers:
        import optax

        return (optax.losses.kl_divergence_with_log_targets(*map(jax_log_softmax, (student, teacher))),)

    return Case(
        exact,
        {
            "crossentropy": lambda: (ce.kl_divergence(student, teacher),),
            "NumPy, textbook": textbook,
            "torch": torch,
            "jax + optax": optax,
        },
    )


# The divergence of a teacher's likeliest two classes and the mass that is left. Others sum over the two alone.


def top_two(*student: float) -> Case:
    z, teacher = np.array(student, np.float32), ce.softmax(np.array([3, 2, 0, -1, -1], np.float64))
    K, q, mass = np.array([0, 1]), teacher[:2], teacher[2:].sum()

    def exact() -> Numbers:
        p = exact_probabilities(z)
        masses = [*map(mpmath.mpf, q), mpmath.mpf(mass)]
        of_student = [p[0], p[1], mpmath.fsum(p[2:])]
        return (mpmath.fsum(y * mpmath.log(y / x) for x, y in zip(of_student, masses, strict=True)),)

    def ours() -> Numbers:
        targets = ce.TopKTargets(K, q, remainder=mass)
        return (ce.cross_entropy(z, targets) + (q * np.log(q)).sum() + mass * np.log(mass),)

    def textbook() -> Numbers:
        return ((q * (np.log(q) - textbook_log_softmax(z)[K])).sum(),)

    def torch() -> Numbers:
        import torch

        log_q = torch.from_numpy(np.log(q).astype(np.float32))
        log_p = torch_log_softmax(z)[torch.from_numpy(K)]
        return (torch.nn.functional.kl_div(log_p, log_q, reduction="sum", log_target=True).item(),)

    def optax() -> Numbers:
        import optax

        return (optax.losses.kl_divergence_with_log_targets(jax_log_softmax(z)[K], np.log(q).astype(np.float32)),)

    return Case(exact, {"crossentropy": ours, "NumPy, textbook": textbook, "torch": torch, "jax + optax": optax})


CASES = {
    "binary cross-entropy of a logit of -40, target 0": binary(-40, 0),
    "binary cross-entropy of a logit of 40, target 1": binary(40, 1),
    "the entropy of a confident row, `[60, 0, 0]`": entropy(60, 0, 0),
    "KL of nearly equal models, logits off by up to 1e-6": divergence(1e-6, -1e-6, 5e-7, 1e-6),
    "KL of nearly equal models, logits off by up to 1e-3": divergence(1e-3, -1e-3, 5e-4, 1e-3),
    "KL of a model and itself, logits 1 higher": divergence(1, 1, 1, 1),
    "top 2 of 5 classes and the mass that is left, a student that is too sure": top_two(3.5, 2.5, 0, -1, -1),
}


def answers() -> dict[str, dict[str, list[str]]]:
    """What each peer returns for each case, as it is shown. Peers that are not installed are left out."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, case in CASES.items():
        with mpmath.workprec(200):
            found[name] = {"exact": _shown(case.exact())}
        for peer, function in case.peers.items():
            try:
                found[name][peer] = _shown(function())
            except ModuleNotFoundError:
                continue
    return found


def _shown(numbers: Numbers) -> list[str]:
    shown = [f"{float(x):.7g}" for x in numbers]
    return shown + [""] * (2 - len(shown))
