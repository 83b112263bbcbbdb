"""What other libraries return where digits are easily lost, beside ours and the exact value.

    make compare

Peers that are not installed in .venv are left out. Everything in float32.
"""

import sys
import warnings
from collections.abc import Callable

import mpmath
import numpy as np

import crossentropy as ce

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


PEERS: dict[str, Callable[[np.ndarray, np.ndarray], Answer]] = {
    "crossentropy": ours,
    "NumPy, textbook": textbook,
    "scikit-learn": scikit_learn,
    "torch": torch,
    "jax + optax": optax,
}


def exact(logits: np.ndarray, targets: np.ndarray) -> tuple[mpmath.mpf, mpmath.mpf]:
    """The mean loss, and the gradient at the target of the first row."""
    with mpmath.workprec(200):
        losses, first = [], None
        for row, target in zip(logits, targets, strict=True):
            if target == -100:
                continue
            e = [mpmath.exp(mpmath.mpf(float(z)) - mpmath.mpf(float(row[target]))) for z in row]
            others = mpmath.fsum(x for c, x in enumerate(e) if c != target)
            losses.append(mpmath.log1p(others))
            first = -others / (1 + others) if first is None else first
        return mpmath.fsum(losses) / len(losses), first / len(losses)


nan_row = [np.nan, np.nan, np.nan]
CASES = {
    "a confident row, `[20, 0, 0]`, target 0": ([[20, 0, 0]], [0]),
    "a more confident row, `[60, 0, 0]`, target 0": ([[60, 0, 0]], [0]),
    "an ignored row of NaN beside `[2, 1, 0.1]`, target 1": ([[2, 1, 0.1], nan_row], [1, -100]),
}


def main() -> None:
    warnings.simplefilter("ignore")
    print("| | mean loss | gradient at the target |\n|---|---:|---:|")
    for name, (rows, indices) in CASES.items():
        logits, targets = np.array(rows, np.float32), np.array(indices)
        print(f"| *{name}* | | |")
        loss, at_target = exact(logits, targets)
        print(f"| exact | {mpmath.nstr(loss, 7)} | {mpmath.nstr(at_target, 7)} |")
        for peer, function in PEERS.items():
            try:
                found, gradient = function(logits.copy(), targets)
            except ModuleNotFoundError as error:
                print(f"{peer}: {error.name} is not installed", file=sys.stderr)
                continue
            print(f"| {peer} | {float(found):.7g} | {float(gradient[0, targets[0]]):.7g} |")


if __name__ == "__main__":
    main()
