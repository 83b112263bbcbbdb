"""What other libraries return where digits are easily lost, beside ours and the exact value.

    make compare

Peers that are not installed in .venv are left out. The answers go to build/results/compare.json.
"""

import importlib.metadata
import sys
import warnings
from collections.abc import Callable

import compare_family
import mpmath
import numpy as np
from results import write
from rich.console import Console
from rich.table import Table

import crossentropy as ce


class NotMadeForThisError(Exception):
    """The peer has no such function."""


# Loss and gradient of the mean over the rows whose target is not -100.
Answer = tuple[float, np.ndarray]


def ours(logits: np.ndarray, targets: np.ndarray) -> Answer:
    return ce.cross_entropy_with_grad(logits, targets)


def textbook(logits: np.ndarray, targets: np.ndarray) -> Answer:
    rows, counted = np.arange(len(logits)), targets != -100
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    losses = np.log(sums[:, 0]) - shifted[rows, targets * counted]
    gradient = exponentials / sums
    gradient[rows, targets * counted] -= 1
    return (losses * counted).sum() / counted.sum(), gradient * counted[:, None] / counted.sum()


def scikit_learn(logits: np.ndarray, targets: np.ndarray) -> Answer:
    from sklearn._loss import HalfMultinomialLoss

    if logits.dtype == np.float16 or (targets >= logits.shape[1]).any():
        raise NotMadeForThisError  # half precision, and indices that it does not check
    weight = (targets != -100).astype(np.float32)
    labels = np.maximum(targets, 0).astype(np.float32)
    losses, gradient = HalfMultinomialLoss(n_classes=logits.shape[1]).loss_gradient(labels, logits, weight)
    return losses.sum() / weight.sum(), gradient / weight.sum()


def torch(logits: np.ndarray, targets: np.ndarray) -> Answer:
    import torch

    z = torch.from_numpy(logits).requires_grad_()
    loss = torch.nn.functional.cross_entropy(z, torch.from_numpy(targets))
    loss.backward()
    return loss.item(), z.grad.numpy()


def optax(logits: np.ndarray, targets: np.ndarray) -> Answer:
    import jax
    import optax

    counted = targets != -100

    def mean(z: jax.Array) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(z, np.maximum(targets, 0))
        return (losses * counted).sum() / counted.sum()

    loss, gradient = jax.value_and_grad(mean)(logits)
    return float(loss), np.asarray(gradient)


# The name shown, and the packages whose versions belong to it.
PEERS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Answer], tuple[str, ...]]] = {
    "crossentropy": (ours, ("crossentropy",)),
    "NumPy, textbook": (textbook, ("numpy",)),
    "scikit-learn": (scikit_learn, ("scikit-learn",)),
    "torch": (torch, ("torch",)),
    "jax + optax": (optax, ("jax", "optax")),
}


def exact(logits: np.ndarray, targets: np.ndarray) -> tuple[mpmath.mpf, mpmath.mpf]:
    """The mean loss, and the gradient at the target of the first row; zeros where no row counts."""
    with mpmath.workprec(200):
        losses, first = [], None
        for row, target in zip(logits, targets, strict=True):
            if target == -100:
                continue
            e = [mpmath.exp(mpmath.mpf(float(z)) - mpmath.mpf(float(row[target]))) for z in row]
            others = mpmath.fsum(x for c, x in enumerate(e) if c != target)
            losses.append(mpmath.log1p(others))
            first = -others / (1 + others) if first is None else first
        if first is None:
            return mpmath.mpf(0), mpmath.mpf(0)
        return mpmath.fsum(losses) / len(losses), first / len(losses)


row, nan_row = [2, 1, 0.1], [np.nan, np.nan, np.nan]
CASES: dict[str, tuple[list[list[float]], list[int], type]] = {
    "a confident row, `[20, 0, 0]`, target 0": ([[20, 0, 0]], [0], np.float32),
    "a more confident row, `[60, 0, 0]`, target 0": ([[60, 0, 0]], [0], np.float32),
    "a confident row far from zero, `[1000020, 1000000, 1000000]`, target 0": (
        [[1000020, 1000000, 1000000]],
        [0],
        np.float32,
    ),
    "70 000 rows of `[2, 1, 0.1]`, target 1, in float16": ([row] * 70000, [1] * 70000, np.float16),
    "an ignored row of NaN beside `[2, 1, 0.1]`, target 1": ([row, nan_row], [1, -100], np.float32),
    "nothing but ignored rows": ([row, row], [-100, -100], np.float32),
    "a target out of range: `[2, 1, 0.1]`, target 3": ([row], [3], np.float32),
}


def answers() -> tuple[dict[str, dict[str, list[str]]], dict[str, str]]:
    """Loss and gradient by case and peer, as they are shown, and the versions of the peers."""
    found_by_case: dict[str, dict[str, list[str]]] = {}
    versions: dict[str, str] = {}
    for name, (rows, indices, dtype) in CASES.items():
        logits, targets = np.array(rows, dtype), np.array(indices)
        found_of = found_by_case.setdefault(name, {})
        at = max(targets[0], 0)
        if at < logits.shape[1]:
            found_of["exact"] = [f"{float(x):.7g}" for x in exact(logits, targets)]
        for peer, (function, packages) in PEERS.items():
            try:
                versions |= {package: importlib.metadata.version(package) for package in packages}
                found, gradient = function(logits.copy(), targets)
            except importlib.metadata.PackageNotFoundError as error:
                print(f"{peer}: {error.name} is not installed", file=sys.stderr)
                continue
            except NotMadeForThisError:
                continue
            except Exception as error:  # whatever a peer raises is its answer
                found_of[peer] = [type(error).__name__, ""]
                continue
            of_target = f"{float(gradient[0, at]):.7g}" if at < logits.shape[1] else f"{gradient[0].tolist()} (all)"
            found_of[peer] = [f"{float(found):.7g}", of_target]
    return found_by_case, versions


def main() -> None:
    warnings.simplefilter("ignore")
    cases, versions = answers()
    cases |= compare_family.answers()
    written = write("compare", {"versions": versions, "cases": cases})
    console = Console(width=max(120, Console().width), highlight=False)
    console.print("  ".join(f"{package} {version}" for package, version in versions.items()))
    for name, peers in cases.items():
        table = Table("", "value", "gradient", title=name, title_justify="left")
        for peer, answer in peers.items():
            table.add_row(peer, *answer)
        console.print(table)
    console.print(f"answers in {written}")


if __name__ == "__main__":
    main()
