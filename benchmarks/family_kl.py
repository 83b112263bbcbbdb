"""KL(teacher || student) of two models' logits, with the student's gradient: what family.py times."""

import threading
from collections.abc import Callable

import numpy as np

SHAPE = (2048, 32000)
Step = Callable[[], object]


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Logits of a student and of the teacher that it has come near to."""
    rng = np.random.default_rng(0)
    teacher = 4 * rng.standard_normal(SHAPE, dtype=np.float32)
    return teacher + rng.standard_normal(SHAPE, dtype=np.float32) / 2, teacher


def floor() -> Step:
    """Two reads and one write, in two threads."""
    student, teacher = inputs()
    out = np.zeros_like(student)

    def step() -> None:
        half = len(out) // 2
        other = threading.Thread(target=np.subtract, args=(student[half:], teacher[half:]), kwargs={"out": out[half:]})
        other.start()
        np.subtract(student[:half], teacher[:half], out=out[:half])
        other.join()

    return step


def ours(reuse: bool = False) -> Step:
    import crossentropy as ce

    student, teacher = inputs()
    out = ce.DivergenceGradients(np.zeros_like(student)) if reuse else None
    return lambda: ce.kl_divergence_with_grad(student, teacher, out=out)


def ours_js() -> Step:
    import crossentropy as ce

    student, teacher = inputs()
    out = ce.DivergenceGradients(np.zeros_like(student))
    return lambda: ce.jensen_shannon_with_grad(student, teacher, out=out)


def torch_kl(compiled: bool = False, ours: bool = False) -> Step:
    import torch

    student, teacher = map(torch.from_numpy, inputs())
    student.requires_grad_()

    def mean(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if ours:
            from crossentropy.torch import kl_divergence

            return kl_divergence(z, t)
        log_p, log_q = torch.log_softmax(z, -1), torch.log_softmax(t, -1)
        return torch.nn.functional.kl_div(log_p, log_q, reduction="batchmean", log_target=True)

    function = torch.compile(mean) if compiled else mean

    def step() -> object:
        loss = function(student, teacher)
        return loss, torch.autograd.grad(loss, student)

    return step


def jax_kl() -> Step:
    import jax

    student, teacher = map(jax.numpy.asarray, inputs())

    def mean(z: jax.Array, t: jax.Array) -> jax.Array:
        log_p, log_q = jax.nn.log_softmax(z), jax.nn.log_softmax(t)
        return (jax.numpy.exp(log_q) * (log_q - log_p)).sum(-1).mean()

    function = jax.jit(jax.value_and_grad(mean))
    return lambda: jax.block_until_ready(function(student, teacher))


# Names as family.py shows them, and the packages whose versions belong to them.
PEERS: dict[str, tuple[Callable[[], Step], tuple[str, ...]]] = {
    "floor": (floor, ("numpy",)),
    "crossentropy": (ours, ("crossentropy",)),
    "crossentropy, out=": (lambda: ours(reuse=True), ("crossentropy",)),
    "crossentropy, Jensen-Shannon, out=": (ours_js, ("crossentropy",)),
    "torch": (torch_kl, ("torch",)),
    "torch.compile": (lambda: torch_kl(compiled=True), ("torch",)),
    "crossentropy.torch": (lambda: torch_kl(ours=True), ("crossentropy", "torch")),
    "jax": (jax_kl, ("jax",)),
}
