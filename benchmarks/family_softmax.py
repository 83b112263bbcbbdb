"""Softmax of 512 x 32000 into a fresh array, beside the loss and its gradient with `out=`, for family.py."""

from peers import floor, ours_out
from quantities import Peer, Step
from regimes import PLAIN, REGIMES, inputs

REGIME = REGIMES[PLAIN]


def ours() -> Step:
    import crossentropy as ce

    logits, _ = inputs(REGIME)
    return lambda: ce.softmax(logits)


def scipys() -> Step:
    from scipy.special import softmax

    logits, _ = inputs(REGIME)
    return lambda: softmax(logits, axis=-1)


def torchs(compiled: bool = False) -> Step:
    import torch

    logits = torch.from_numpy(inputs(REGIME)[0])
    function = torch.compile(torch.softmax) if compiled else torch.softmax
    return lambda: function(logits, -1)


def jaxs() -> Step:
    import jax

    logits = jax.numpy.asarray(inputs(REGIME)[0])
    function = jax.jit(jax.nn.softmax)
    return lambda: jax.block_until_ready(function(logits))


QUANTITIES = {
    f"softmax, {PLAIN}": {
        "floor": Peer(lambda: floor(REGIME), ("numpy",)),
        "crossentropy": Peer(ours, ("crossentropy",)),
        "crossentropy, loss and gradient, out=": Peer(lambda: ours_out(REGIME), ("crossentropy",)),
        "scipy": Peer(scipys, ("scipy",)),
        "torch": Peer(torchs, ("torch",)),
        "torch.compile": Peer(lambda: torchs(compiled=True), ("torch",)),
        "jax": Peer(jaxs, ("jax",)),
    }
}
