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
from typing import NamedTuple

import numpy as np

Step = Callable[[], object]


class Regime(NamedTuple):
    """What is computed."""

    shape: tuple[int, ...]
    seconds: float  # of timing
    gradient: bool = True
    dtype: str = "float32"
    axis: int = -1
    dense: bool = False  # targets are probabilities of the logits' dtype


REGIMES = {
    "2048 x 32000": Regime((2048, 32000), 1.5),
    "512 x 128256": Regime((512, 128256), 1.5),
    "4096 x 1000": Regime((4096, 1000), 1.0),
    "65536 x 10": Regime((65536, 10), 1.0),
    "32 x 10": Regime((32, 10), 0.3),
    "2048 x 32000, loss only": Regime((2048, 32000), 1.0, gradient=False),
    "512 x 128256, bfloat16": Regime((512, 128256), 1.5, dtype="bfloat16"),
    "512 x 128256, float16": Regime((512, 128256), 1.5, dtype="float16"),
    "8 x 21 x 256 x 256, axis 1": Regime((8, 21, 256, 256), 1.0, axis=1),
    "4096 x 1000, probabilities": Regime((4096, 1000), 1.0, dense=True),
    "4096 x 1000, probabilities, float64": Regime((4096, 1000), 1.0, dtype="float64", dense=True),
    "16 x 4000003": Regime((16, 4000003), 1.5),
}
# What the picture shows: as many logits in more and more classes, then more and more rows.
ELEMENTS, CLASSES_OF_ROWS = 1 << 22, 1000
SWEEPS = {
    "over classes": [f"{max(1, ELEMENTS // C)} x {C}" for C in (10, 100, 1000, 10_000, 100_000, 1_000_000, 4_000_000)],
    "over rows": [f"{rows} x {CLASSES_OF_ROWS}" for rows in (1, 8, 64, 512, 4096, 32_768)],
}


def regime_named(name: str) -> Regime:
    """One of the above, or any other "rows x classes"."""
    if name in REGIMES:
        return REGIMES[name]
    rows, _, classes = name.partition(" x ")
    return Regime((int(rows), int(classes)), 0.3)


class NotMadeForThisError(Exception):
    """The peer has no such function."""


def inputs(regime: Regime) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model that has learnt something, and class indices or probabilities."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(regime.dtype) if regime.dtype != "bfloat16" else np.dtype(_bfloat16())
    logits = (4 * rng.standard_normal(regime.shape, dtype=np.float32)).astype(dtype)
    if regime.dense:
        q = rng.random(regime.shape)
        return logits, (q / q.sum(regime.axis, keepdims=True)).astype(dtype)
    return logits, rng.integers(0, regime.shape[regime.axis], np.delete(regime.shape, regime.axis))


def _bfloat16() -> type:
    from ml_dtypes import bfloat16

    return bfloat16


def floor(regime: Regime) -> Step:
    """What memory allows: two threads copy the logits, or read them where only the loss is wanted."""
    logits = inputs(regime)[0].reshape(-1)
    logits = logits.view(np.uint16) if logits.itemsize == 2 else logits
    out = np.zeros_like(logits)

    def half(part: slice) -> None:
        if regime.gradient:
            np.copyto(out[part], logits[part])
        else:
            np.maximum.reduce(logits[part], axis=None)

    middle = logits.size // 2
    if logits.nbytes < 1 << 20:  # less than a thread costs
        return lambda: half(slice(None))

    def step() -> None:
        other = threading.Thread(target=half, args=(slice(middle, None),))
        other.start()
        half(slice(None, middle))
        other.join()

    return step


def ours(regime: Regime) -> Step:
    import crossentropy as ce

    logits, targets = inputs(regime)
    if regime.gradient:
        return lambda: ce.cross_entropy_with_grad(logits, targets, axis=regime.axis)
    return lambda: ce.cross_entropy(logits, targets, axis=regime.axis)


def ours_out(regime: Regime) -> Step:
    import crossentropy as ce

    logits, targets = inputs(regime)
    out = np.zeros_like(logits)
    return lambda: ce.cross_entropy_with_grad(logits, targets, axis=regime.axis, out=out)


def textbook(regime: Regime) -> Step:
    logits, targets = inputs(regime)
    if logits.itemsize == 2:
        raise NotMadeForThisError("NumPy computes half precision one number at a time")
    axis = regime.axis
    one_hot = np.expand_dims(targets, axis) if not regime.dense else None
    rows = targets.size if not regime.dense else targets.size // regime.shape[axis]

    def step() -> object:
        shifted = logits - logits.max(axis=axis, keepdims=True)
        exponentials = np.exp(shifted)
        sums = exponentials.sum(axis=axis, keepdims=True)
        if one_hot is None:
            loss = (targets * (np.log(sums) - shifted)).sum() / rows
        else:
            loss = np.mean(np.log(sums) - np.take_along_axis(shifted, one_hot, axis))
        if not regime.gradient:
            return loss
        softmax = exponentials / sums
        if one_hot is None:
            softmax -= targets
        else:
            np.put_along_axis(softmax, one_hot, np.take_along_axis(softmax, one_hot, axis) - 1, axis)
        return loss, softmax / rows

    return step


def scikit_learn(regime: Regime) -> Step:
    from sklearn._loss import HalfMultinomialLoss

    if regime.dense or len(regime.shape) > 2 or regime.dtype not in ("float32", "float64"):
        raise NotMadeForThisError("class indices of rows in float32 or float64 only")
    logits, targets = inputs(regime)
    loss = HalfMultinomialLoss(n_classes=regime.shape[1])
    labels = targets.astype(logits.dtype)
    if regime.gradient:
        return lambda: loss.loss_gradient(labels, logits, n_threads=2)
    return lambda: loss.loss(labels, logits, n_threads=2)


def torch_eager(regime: Regime, compiled: bool = False, ours: bool = False) -> Step:
    import torch

    if ours:
        from crossentropy.torch import cross_entropy
    else:
        from torch.nn.functional import cross_entropy

    def tensor(array: np.ndarray) -> torch.Tensor:
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    logits, targets = map(tensor, inputs(regime))
    logits.requires_grad_(regime.gradient)
    function = torch.compile(cross_entropy) if compiled else cross_entropy

    def step() -> object:
        if not regime.gradient:
            with torch.no_grad():
                return function(logits, targets)
        loss = function(logits, targets)
        return loss, torch.autograd.grad(loss, logits)

    return step


def torch_compile(regime: Regime) -> Step:
    return torch_eager(regime, compiled=True)


def jax_optax(regime: Regime, ours: bool = False) -> Step:
    import jax
    import optax

    from crossentropy.jax import cross_entropy

    jax.config.update("jax_enable_x64", regime.dtype == "float64")
    logits, targets = (jax.numpy.asarray(array) for array in inputs(regime))

    def mean(logits: jax.Array, targets: jax.Array) -> jax.Array:
        if ours:
            return cross_entropy(logits, targets, axis=regime.axis)
        if regime.dense:
            return optax.softmax_cross_entropy(logits, targets, axis=regime.axis).mean()
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets, axis=regime.axis).mean()

    function = jax.jit(jax.value_and_grad(mean) if regime.gradient else mean)
    return lambda: jax.block_until_ready(function(logits, targets))


# The name shown, and the packages whose versions belong to it; the peer is missing where one is not installed.
PEERS: dict[str, tuple[Callable[[Regime], Step], tuple[str, ...]]] = {
    "copy": (floor, ("numpy",)),
    "crossentropy": (ours, ("crossentropy",)),
    "crossentropy, out=": (ours_out, ("crossentropy",)),
    "NumPy, textbook": (textbook, ("numpy",)),
    "scikit-learn": (scikit_learn, ("scikit-learn",)),
    "torch": (torch_eager, ("torch",)),
    "torch.compile": (torch_compile, ("torch",)),
    "jax + optax": (jax_optax, ("jax", "optax")),
}
# The adapters, each beside what it stands in for.
ADAPTERS: dict[str, tuple[Callable[[Regime], Step], tuple[str, ...]]] = {
    "torch": PEERS["torch"],
    "crossentropy.torch": (lambda regime: torch_eager(regime, ours=True), ("crossentropy", "torch")),
    "torch.compile": PEERS["torch.compile"],
    "crossentropy.torch, compiled": (
        lambda regime: torch_eager(regime, compiled=True, ours=True),
        ("crossentropy", "torch"),
    ),
    "jax + optax": PEERS["jax + optax"],
    "crossentropy.jax": (lambda regime: jax_optax(regime, ours=True), ("crossentropy", "jax")),
}


def measure(peer: str, regime: str) -> dict[str, object]:
    make, packages = (PEERS | ADAPTERS)[peer]
    try:
        versions = {package: importlib.metadata.version(package) for package in packages}
    except importlib.metadata.PackageNotFoundError as error:
        return {"missing": f"{error.name} is not installed"}
    try:
        step = make(regime_named(regime))
    except NotMadeForThisError as error:
        return {"missing": str(error)}
    for _ in range(3):
        step()
    times: list[float] = []
    end = time.perf_counter() + regime_named(regime).seconds
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return {"best": 1e3 * min(times), "median": 1e3 * float(np.median(times)), "versions": versions}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2])))
