"""KL divergence between two models' logits, 2048 x 32000, with the student's gradient, for family.py."""

import numpy as np
from quantities import Peer, Step


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Logits of a student and of the teacher that it has come near to."""
    rng = np.random.default_rng(0)
    teacher = 4 * rng.standard_normal((2048, 32000), dtype=np.float32)
    return teacher + rng.standard_normal(teacher.shape, dtype=np.float32) / 2, teacher


def ours(reuse: bool = False, function: str = "kl_divergence_with_grad") -> Step:
    import crossentropy as ce

    student, teacher = inputs()
    out = ce.DivergenceGradients(np.zeros_like(student)) if reuse else None
    return lambda: getattr(ce, function)(student, teacher, out=out)


def torchs(compiled: bool = False, ours: bool = False) -> Step:
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


def jaxs(ours: bool = False) -> Step:
    import jax

    student, teacher = map(jax.numpy.asarray, inputs())

    def mean(z: jax.Array, t: jax.Array) -> jax.Array:
        if ours:
            from crossentropy.jax import kl_divergence

            return kl_divergence(z, t)
        log_p, log_q = jax.nn.log_softmax(z), jax.nn.log_softmax(t)
        return (jax.numpy.exp(log_q) * (log_q - log_p)).sum(-1).mean()

    function = jax.jit(jax.value_and_grad(mean))
    return lambda: jax.block_until_ready(function(student, teacher))


QUANTITIES = {
    "KL divergence, 2048 x 32000": {
        "crossentropy": Peer(ours, ("crossentropy",)),
        "crossentropy, out=": Peer(lambda: ours(reuse=True), ("crossentropy",)),
        "crossentropy, Jensen-Shannon": Peer(lambda: ours(function="jensen_shannon_with_grad"), ("crossentropy",)),
        "torch": Peer(torchs, ("torch",)),
        "torch.compile": Peer(lambda: torchs(compiled=True), ("torch",)),
        "crossentropy.torch": Peer(lambda: torchs(ours=True), ("crossentropy", "torch")),
        "jax": Peer(jaxs, ("jax",)),
        "crossentropy.jax": Peer(lambda: jaxs(ours=True), ("crossentropy", "jax")),
    }
}
