"""Binary cross-entropy of ten million logits, for family.py."""

import threading
from collections.abc import Callable

import numpy as np
from quantities import Peer, Step


def in_two_threads(work: Callable[[slice], object], size: int) -> Step:
    """What works on a slice, on both halves at once."""

    def step() -> None:
        other = threading.Thread(target=work, args=(slice(size // 2, None),))
        other.start()
        work(slice(None, size // 2))
        other.join()

    return step


def inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal(10_000_000, dtype=np.float32)
    return logits, (rng.random(logits.size) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def floor() -> Step:
    """Two reads and one write."""
    logits, targets = inputs()
    out = np.zeros_like(logits)
    return in_two_threads(lambda half: np.add(logits[half], targets[half], out=out[half]), logits.size)


def ours() -> Step:
    import crossentropy as ce

    logits, targets = inputs()
    return lambda: ce.binary_cross_entropy_with_grad(logits, targets)


def ours_out() -> Step:
    import crossentropy as ce

    logits, targets = inputs()
    out = np.zeros_like(logits)
    return lambda: ce.binary_cross_entropy_with_grad(logits, targets, out=out)


def textbook() -> Step:
    logits, targets = inputs()

    def step() -> object:
        loss = np.mean(np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits))))
        return loss, (1 / (1 + np.exp(-logits)) - targets) / logits.size

    return step


def scikit_learn() -> Step:
    from sklearn._loss import HalfBinomialLoss

    logits, targets = inputs()
    loss = HalfBinomialLoss()
    return lambda: loss.loss_gradient(targets, logits, n_threads=2)


def torchs(compiled: bool = False, ours: bool = False) -> Step:
    import torch

    if ours:
        from crossentropy.torch import binary_cross_entropy_with_logits
    else:
        from torch.nn.functional import binary_cross_entropy_with_logits

    logits, targets = map(torch.from_numpy, inputs())
    logits.requires_grad_()
    function = torch.compile(binary_cross_entropy_with_logits) if compiled else binary_cross_entropy_with_logits

    def step() -> object:
        loss = function(logits, targets)
        return loss, torch.autograd.grad(loss, logits)

    return step


def jaxs(ours: bool = False) -> Step:
    import jax
    import optax

    from crossentropy.jax import sigmoid_binary_cross_entropy

    of_elements = sigmoid_binary_cross_entropy if ours else optax.sigmoid_binary_cross_entropy
    logits, targets = map(jax.numpy.asarray, inputs())
    function = jax.jit(jax.value_and_grad(lambda logits, targets: of_elements(logits, targets).mean()))
    return lambda: jax.block_until_ready(function(logits, targets))


QUANTITIES: dict[str, dict[str, Peer]] = {
    "binary, 10 M": {
        "floor": Peer(floor, ("numpy",)),
        "crossentropy": Peer(ours, ("crossentropy",)),
        "crossentropy, out=": Peer(ours_out, ("crossentropy",)),
        "NumPy, textbook": Peer(textbook, ("numpy",)),
        "scikit-learn": Peer(scikit_learn, ("scikit-learn",)),
        "torch": Peer(torchs, ("torch",)),
        "torch.compile": Peer(lambda: torchs(compiled=True), ("torch",)),
        "crossentropy.torch": Peer(lambda: torchs(ours=True), ("crossentropy", "torch")),
        "jax + optax": Peer(jaxs, ("jax", "optax")),
        "crossentropy.jax": Peer(lambda: jaxs(ours=True), ("crossentropy", "jax")),
    },
}
