"""Log-probabilities of chosen tokens with the entropy of the prediction, 2048 x 32000, for family.py."""

import numpy as np
from quantities import Peer, Step
from regimes import REGIMES, inputs

REGIME = REGIMES["2048 x 32000"]


def upstream() -> tuple[np.ndarray, float]:
    """Of log-probabilities minus the advantages over the rows, some of them negative; of entropies a bonus."""
    rows = REGIME.shape[0]
    return np.random.default_rng(1).standard_normal(rows) / rows, -0.01 / rows


def of_the_loss(gradient: bool) -> Step:
    """The loss alone, to compare with."""
    import crossentropy as ce

    logits, targets = inputs(REGIME)
    out = np.zeros_like(logits)
    if gradient:
        return lambda: ce.cross_entropy_with_grad(logits, targets, out=out)
    return lambda: ce.cross_entropy(logits, targets)


def ours(gradient: bool) -> Step:
    import crossentropy as ce

    logits, indices = inputs(REGIME)
    dlog_prob, dentropy = upstream()
    out = np.zeros_like(logits)
    if gradient:
        return lambda: ce.log_prob_and_entropy_vjp(logits, indices, dlog_prob, dentropy, out=out)
    return lambda: ce.log_prob_and_entropy(logits, indices)


def torchs(gradient: bool, compiled: bool = False, ours: bool = False) -> Step:
    import torch

    logits, indices = map(torch.from_numpy, inputs(REGIME))
    logits.requires_grad_(gradient)
    dlog_prob, dentropy = upstream()
    g, h = torch.from_numpy(dlog_prob.astype(np.float32)), torch.full((len(indices),), dentropy)

    def of_torch(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_p = torch.log_softmax(logits, -1)
        return log_p.gather(-1, indices[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)

    def of_ours(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        from crossentropy.torch import log_prob

        return log_prob(logits, indices, entropy=True)

    function = of_ours if ours else torch.compile(of_torch) if compiled else of_torch

    def step() -> object:
        if not gradient:
            with torch.no_grad():
                return function(logits)
        values = function(logits)
        return values, torch.autograd.grad(values, logits, (g, h))

    return step


def jaxs(gradient: bool, ours: bool = False) -> Step:
    import jax
    import jax.numpy as jnp

    logits, indices = map(jnp.asarray, inputs(REGIME))
    dlog_prob, dentropy = upstream()
    g, h = jnp.asarray(dlog_prob, jnp.float32), jnp.full(len(indices), dentropy, jnp.float32)

    def of_jax(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        if ours:
            from crossentropy.jax import log_prob

            return log_prob(logits, indices, entropy=True)
        log_p = jax.nn.log_softmax(logits, -1)
        return jnp.take_along_axis(log_p, indices[:, None], -1)[:, 0], -(jnp.exp(log_p) * log_p).sum(-1)

    def with_gradient(logits: jax.Array) -> object:
        values, vjp = jax.vjp(of_jax, logits)
        return values, vjp((g, h))

    function = jax.jit(with_gradient if gradient else of_jax)
    return lambda: jax.block_until_ready(function(logits))


def peers(gradient: bool) -> dict[str, Peer]:
    return {
        "crossentropy, the loss alone": Peer(lambda: of_the_loss(gradient), ("crossentropy",)),
        "crossentropy": Peer(lambda: ours(gradient), ("crossentropy",)),
        "torch": Peer(lambda: torchs(gradient), ("torch",)),
        "torch.compile": Peer(lambda: torchs(gradient, compiled=True), ("torch",)),
        "crossentropy.torch": Peer(lambda: torchs(gradient, ours=True), ("crossentropy", "torch")),
        "jax": Peer(lambda: jaxs(gradient), ("jax",)),
        "crossentropy.jax": Peer(lambda: jaxs(gradient, ours=True), ("crossentropy", "jax")),
    }


QUANTITIES = {
    "log-probability and entropy, 2048 x 32000": peers(gradient=False),
    "log-probability and entropy, 2048 x 32000, with gradient": peers(gradient=True),
}
