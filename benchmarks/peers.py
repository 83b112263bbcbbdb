"""Who is timed: each peer makes, for one regime, a function of no arguments that computes loss and gradient once.

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
from typing import Any

import numpy as np
from regimes import Regime, inputs, regime_named, weights

Step = Callable[[], object]


class NotMadeForThisError(Exception):
    """The peer has no such function."""


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
    options = {"axis": regime.axis, **regime.options, **weights(regime)}
    if regime.gradient:
        return lambda: ce.cross_entropy_with_grad(logits, targets, **options)
    return lambda: ce.cross_entropy(logits, targets, **options)


def ours_out(regime: Regime) -> Step:
    import crossentropy as ce

    logits, targets = inputs(regime)
    options = {"axis": regime.axis, "out": np.zeros_like(logits), **regime.options, **weights(regime)}
    return lambda: ce.cross_entropy_with_grad(logits, targets, **options)


def textbook(regime: Regime) -> Step:
    logits, targets = inputs(regime)
    if logits.itemsize == 2:
        raise NotMadeForThisError("NumPy computes half precision one number at a time")
    if not regime.plain:
        raise NotMadeForThisError("without options")
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
    if not regime.plain:
        raise NotMadeForThisError("without options")
    logits, targets = inputs(regime)
    loss = HalfMultinomialLoss(n_classes=regime.shape[1])
    labels = targets.astype(logits.dtype)
    if regime.gradient:
        return lambda: loss.loss_gradient(labels, logits, n_threads=2)
    return lambda: loss.loss(labels, logits, n_threads=2)


def torch_eager(regime: Regime, compiled: bool = False, ours: bool = False) -> Step:
    import torch

    def tensor(array: np.ndarray) -> torch.Tensor:
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    logits, targets = map(tensor, inputs(regime))
    logits.requires_grad_(regime.gradient)
    given = {name: tensor(array) for name, array in weights(regime).items()}
    if "class_weight" in given:  # as torch names them
        given["weight"] = given.pop("class_weight")
    if ours:
        from crossentropy.torch import cross_entropy

        options = {**regime.options, **given}
    else:
        cross_entropy, options = _of_torch(regime, given), {}
    function = torch.compile(cross_entropy) if compiled else cross_entropy

    def step() -> object:
        if not regime.gradient:
            with torch.no_grad():
                return function(logits, targets, **options)
        loss = function(logits, targets, **options)
        return loss, torch.autograd.grad(loss, logits)

    return step


def _of_torch(regime: Regime, weights: dict[str, Any]) -> Callable[..., Any]:
    """PyTorch's function, and what it lacks written out."""
    import torch
    from torch.nn.functional import cross_entropy

    options = dict(regime.options)
    softcap, temperature = options.pop("softcap", None), options.pop("temperature", None)
    of_rows = weights.pop("sample_weight", None)
    if regime.plain:
        return cross_entropy

    def function(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        u = logits if softcap is None else softcap * torch.tanh(logits / softcap)
        u = u if temperature is None else u / temperature
        if of_rows is None:
            return cross_entropy(u, targets, **options, **weights)
        losses = cross_entropy(u, targets, reduction="none", **options, **weights)
        return (of_rows * losses).sum() / of_rows.sum()

    return function


def torch_compile(regime: Regime) -> Step:
    return torch_eager(regime, compiled=True)


def jax_optax(regime: Regime, ours: bool = False, donated: bool = False) -> Step:
    """Of donated logits the gradient takes the place; it is the logits of the next step."""
    import jax

    from crossentropy.jax import cross_entropy

    if donated and not (regime.gradient and regime.dtype in ("float32", "float64")):
        raise NotMadeForThisError("for gradients in float32 and float64")
    jax.config.update("jax_enable_x64", regime.dtype == "float64")
    logits, targets = (jax.numpy.array(array) for array in inputs(regime))
    given = {name: jax.numpy.array(array) for name, array in weights(regime).items()}

    def mean(logits: jax.Array, targets: jax.Array, given: dict[str, jax.Array]) -> jax.Array:
        if not ours:
            return _of_optax(regime, logits, targets, **given)
        options = {"axis": regime.axis, "overwrite_logits": donated, **regime.options, **given}
        return cross_entropy(logits, targets, **options)

    function = jax.jit(jax.value_and_grad(mean) if regime.gradient else mean, donate_argnums=0 if donated else ())

    def step() -> object:
        nonlocal logits
        found = jax.block_until_ready(function(logits, targets, given))
        if donated:
            logits = found[1]
        return found

    return step


def _of_optax(regime: Regime, logits: Any, targets: Any, class_weight: Any = 1.0, sample_weight: Any = 1.0) -> Any:
    """The mean of optax's losses, and what it lacks written out."""
    import jax
    import optax

    axis, options = regime.axis, regime.options
    u = logits
    if "softcap" in options:
        u = options["softcap"] * jax.numpy.tanh(u / options["softcap"])
    u = u / options.get("temperature", 1.0)
    if regime.dense:
        return optax.softmax_cross_entropy(u, targets, axis=axis).mean()
    if "label_smoothing" in options:
        q = jax.nn.one_hot(targets, logits.shape[axis], axis=axis)
        losses = optax.softmax_cross_entropy(u, class_weight * optax.smooth_labels(q, options["label_smoothing"]))
        return losses.mean() if "class_weight" not in regime.weights else losses.sum() / class_weight[targets].sum()
    losses = optax.softmax_cross_entropy_with_integer_labels(u, targets, axis=axis)
    return losses.mean() if not regime.weights else (sample_weight * losses).sum() / sample_weight.sum()


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
# The adapters, each beside what it stands in for, and what they are made of.
ADAPTERS: dict[str, tuple[Callable[[Regime], Step], tuple[str, ...]]] = {
    "crossentropy, out=": PEERS["crossentropy, out="],
    "torch": PEERS["torch"],
    "crossentropy.torch": (lambda regime: torch_eager(regime, ours=True), ("crossentropy", "torch")),
    "torch.compile": PEERS["torch.compile"],
    "crossentropy.torch, compiled": (
        lambda regime: torch_eager(regime, compiled=True, ours=True),
        ("crossentropy", "torch"),
    ),
    "jax + optax": PEERS["jax + optax"],
    "crossentropy.jax": (lambda regime: jax_optax(regime, ours=True), ("crossentropy", "jax")),
    "crossentropy.jax, donated": (
        lambda regime: jax_optax(regime, ours=True, donated=True),
        ("crossentropy", "jax"),
    ),
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
