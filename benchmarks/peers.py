"""What is timed: each peer makes, for one regime, a function of no arguments that computes loss and gradient once.

A peer runs in a process of its own, since thread pools that spin after use disturb the others:

    python benchmarks/peers.py PEER REGIME

prints one JSON object.
"""

import importlib.metadata
import json
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

Step = Callable[[], object]

# rows, classes, whether the gradient is wanted, seconds of timing
REGIMES: dict[str, tuple[int, int, bool, float]] = {
    "2048 x 32000": (2048, 32000, True, 1.5),
    "512 x 128256": (512, 128256, True, 1.5),
    "4096 x 1000": (4096, 1000, True, 1.0),
    "65536 x 10": (65536, 10, True, 1.0),
    "32 x 10": (32, 10, True, 0.3),
    "2048 x 32000, loss only": (2048, 32000, False, 1.0),
}


def inputs(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 logits of a model that has learnt something, and class indices."""
    rng = np.random.default_rng(0)
    return 4 * rng.standard_normal((rows, classes), dtype=np.float32), rng.integers(0, classes, rows)


def floor(rows: int, classes: int, gradient: bool) -> Step:
    """What memory allows: two threads copy the logits, or read them where only the loss is wanted."""
    logits, _ = inputs(rows, classes)
    out = np.zeros_like(logits)

    def half(part: slice) -> None:
        if gradient:
            np.copyto(out[part], logits[part])
        else:
            np.maximum.reduce(logits[part], axis=None)

    middle = rows // 2
    if logits.nbytes < 1 << 20:  # less than a thread costs
        return lambda: half(slice(None))

    def step() -> None:
        other = threading.Thread(target=half, args=(slice(middle, None),))
        other.start()
        half(slice(None, middle))
        other.join()

    return step


def ours(rows: int, classes: int, gradient: bool) -> Step:
    import crossentropy as ce

    logits, targets = inputs(rows, classes)
    if gradient:
        return lambda: ce.cross_entropy_with_grad(logits, targets)
    return lambda: ce.cross_entropy(logits, targets)


def ours_out(rows: int, classes: int, gradient: bool) -> Step:
    import crossentropy as ce

    logits, targets = inputs(rows, classes)
    out = np.zeros_like(logits)
    return lambda: ce.cross_entropy_with_grad(logits, targets, out=out)


def textbook(rows: int, classes: int, gradient: bool) -> Step:
    logits, targets = inputs(rows, classes)
    index = np.arange(rows)

    def step() -> object:
        shifted = logits - logits.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        sums = exponentials.sum(axis=1, keepdims=True)
        loss = np.mean(np.log(sums[:, 0]) - shifted[index, targets])
        if not gradient:
            return loss
        softmax = exponentials / sums
        softmax[index, targets] -= 1
        return loss, softmax / rows

    return step


def scikit_learn(rows: int, classes: int, gradient: bool) -> Step:
    from sklearn._loss import HalfMultinomialLoss

    logits, targets = inputs(rows, classes)
    loss = HalfMultinomialLoss(n_classes=classes)
    labels = targets.astype(np.float32)
    if gradient:
        return lambda: loss.loss_gradient(labels, logits, n_threads=2)
    return lambda: loss.loss(labels, logits, n_threads=2)


def torch_eager(rows: int, classes: int, gradient: bool, compiled: bool = False) -> Step:
    import torch
    from torch.nn.functional import cross_entropy

    logits, targets = (torch.from_numpy(array) for array in inputs(rows, classes))
    logits.requires_grad_(gradient)
    function = torch.compile(cross_entropy) if compiled else cross_entropy

    def step() -> object:
        if not gradient:
            with torch.no_grad():
                return function(logits, targets)
        loss = function(logits, targets)
        return loss, torch.autograd.grad(loss, logits)

    return step


def torch_compile(rows: int, classes: int, gradient: bool) -> Step:
    return torch_eager(rows, classes, gradient, compiled=True)


def jax_optax(rows: int, classes: int, gradient: bool) -> Step:
    import jax
    import optax

    logits, targets = (jax.numpy.asarray(array) for array in inputs(rows, classes))

    def mean(logits: jax.Array, targets: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    function = jax.jit(jax.value_and_grad(mean) if gradient else mean)
    return lambda: jax.block_until_ready(function(logits, targets))


# The name shown, and the packages whose versions belong to it; the peer is missing where one is not installed.
PEERS: dict[str, tuple[Callable[[int, int, bool], Step], tuple[str, ...]]] = {
    "copy": (floor, ("numpy",)),
    "crossentropy": (ours, ("crossentropy",)),
    "crossentropy, out=": (ours_out, ("crossentropy",)),
    "NumPy, textbook": (textbook, ("numpy",)),
    "scikit-learn": (scikit_learn, ("scikit-learn",)),
    "torch": (torch_eager, ("torch",)),
    "torch.compile": (torch_compile, ("torch",)),
    "jax + optax": (jax_optax, ("jax", "optax")),
}


def measure(peer: str, regime: str) -> dict[str, object]:
    make, packages = PEERS[peer]
    try:
        versions = {package: importlib.metadata.version(package) for package in packages}
    except importlib.metadata.PackageNotFoundError as error:
        return {"missing": f"{error.name} is not installed"}
    rows, classes, gradient, seconds = REGIMES[regime]
    step = make(rows, classes, gradient)
    for _ in range(3):
        step()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return {"best": 1e3 * min(times), "median": 1e3 * float(np.median(times)), "versions": versions}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2])))
