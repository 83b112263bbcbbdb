"""What a teacher knows
====================

A small student learns scikit-learn's handwritten digits from a larger teacher, in three ways::

    python examples/distil.py [FOLDER] [--seeds N] [--steps N]

The student sees few images, which the teacher has not seen: with their labels; with the teacher's three likeliest
digits and the mass that is left; or with all of the teacher's logits, by the Kullback-Leibler divergence. A table tells
how each does on images held out, over several seeds, which choose the student's images and where it begins. Writes
teacher.png, one image as all see it, into FOLDER (examples-output by default).
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

import crossentropy as ce

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OF_TEACHER, OF_STUDENT, K = 900, 100, 3  # images, the likeliest digits
WIDTHS = {"teacher": 128, "student": 12}
Model = dict[str, np.ndarray]
LossAndGradient = Callable[[np.ndarray], tuple[float, np.ndarray]]  # of logits


def new_model(width: int, rng: np.random.Generator) -> Model:
    return {
        "in": rng.normal(0, 1 / 8, (64, width)).astype(np.float32),
        "in_bias": np.zeros(width, np.float32),
        "out": rng.normal(0, 1 / np.sqrt(width), (width, 10)).astype(np.float32),
        "out_bias": np.zeros(10, np.float32),
    }


def logits_of(model: Model, images: np.ndarray) -> np.ndarray:
    return np.tanh(images @ model["in"] + model["in_bias"]) @ model["out"] + model["out_bias"]


def train(model: Model, images: np.ndarray, loss_of: LossAndGradient, steps: int) -> Model:
    """Gradient descent with momentum on a loss of the logits."""
    velocity = {name: np.zeros_like(array) for name, array in model.items()}
    for _ in range(steps):
        hidden = np.tanh(images @ model["in"] + model["in_bias"])
        _, dlogits = loss_of(hidden @ model["out"] + model["out_bias"])
        before_tanh = dlogits @ model["out"].T * (1 - hidden * hidden)
        change = {
            "in": images.T @ before_tanh,
            "in_bias": before_tanh.sum(0),
            "out": hidden.T @ dlogits,
            "out_bias": dlogits.sum(0),
        }
        for name, gradient in change.items():
            velocity[name] = 0.9 * velocity[name] - 0.1 * gradient
            model[name] = model[name] + velocity[name]
    return model


def ways(labels: np.ndarray, teacher_logits: np.ndarray) -> dict[str, LossAndGradient]:
    """What a student may learn from: its loss and the gradient of its logits."""
    order = np.argsort(-teacher_logits, 1)
    likelihood = np.take_along_axis(ce.softmax(teacher_logits), order, 1)
    # The mass that is left, summed from what is left: 1 minus the K would be the rounding of their sum.
    top = ce.TopKTargets(order[:, :K], likelihood[:, :K], remainder=likelihood[:, K:].sum(1))

    def by_divergence(logits: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradients = ce.kl_divergence_with_grad(logits, teacher_logits)
        assert gradients.logits is not None
        return loss, gradients.logits

    return {
        "labels": lambda logits: ce.cross_entropy_with_grad(logits, labels),
        f"the teacher's top {K}": lambda logits: ce.cross_entropy_with_grad(logits, top),
        "the teacher's logits": by_divergence,
    }


def scores(logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray) -> tuple[float, float, float]:
    """Loss, accuracy in percent, divergence from the teacher."""
    right = 100 * float((logits.argmax(1) == labels).mean())
    return ce.cross_entropy(logits, labels), right, ce.kl_divergence(logits, teacher_logits)


def draw(image: np.ndarray, label: int, predictions: dict[str, np.ndarray]) -> plt.Figure:
    """One image, and the probabilities that each model gives to the ten digits."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 3.6), layout="constrained", gridspec_kw={"width_ratios": [1, 3]}
    )
    left.imshow(image.reshape(8, 8), cmap="gray_r")
    left.set(xticks=[], yticks=[], title=f"labelled {label}, held out")
    shades = [str(shade) for shade in np.linspace(0, 0.8, len(predictions))]
    for place, (name, probabilities) in enumerate(predictions.items()):
        right.bar(np.arange(10) + 0.2 * (place - 1.5), probabilities, 0.2, label=name, color=shades[place])
    right.set(xticks=range(10), xlabel="digit", ylabel="probability", title="What each sees in it")
    right.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("examples-output"))
    parser.add_argument("--seeds", type=int, default=8, help="students of each kind (default 8)")
    parser.add_argument("--steps", type=int, default=400, help="steps of training (default 400)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    console, rng = Console(stderr=True), np.random.default_rng(0)

    images, labels = load_digits(return_X_y=True)
    order = rng.permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order]
    pool, held_out = slice(OF_TEACHER, 1400), slice(1400, None)
    found: dict[str, list[tuple[float, float, float]]] = {}
    predictions: dict[str, list[np.ndarray]] = {}
    # Matrices this small are multiplied sooner by one thread than by several that wait for each other.
    with (
        threadpool_limits(1, "blas"),
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("the teacher", total=1 + 3 * arguments.seeds)
        teacher = train(
            new_model(WIDTHS["teacher"], rng),
            images[:OF_TEACHER],
            lambda logits: ce.cross_entropy_with_grad(logits, labels[:OF_TEACHER]),
            arguments.steps,
        )
        teacher_logits = logits_of(teacher, images)
        unsure = int(ce.entropy(teacher_logits[held_out]).argmax())
        for seed in range(arguments.seeds):
            rng = np.random.default_rng(seed)
            rows = OF_TEACHER + rng.choice(pool.stop - pool.start, OF_STUDENT, replace=False)
            begin = new_model(WIDTHS["student"], rng)
            for way, loss_of in ways(labels[rows], teacher_logits[rows]).items():
                progress.update(task, advance=1, description=f"student {seed + 1}, by {way}")
                logits = logits_of(train(dict(begin), images[rows], loss_of, arguments.steps), images[held_out])
                found.setdefault(way, []).append(scores(logits, labels[held_out], teacher_logits[held_out]))
                predictions.setdefault(way, []).append(ce.softmax(logits[unsure]))

    print(
        f"a teacher of {WIDTHS['teacher']} hidden units has learnt from {OF_TEACHER} labelled images, students of "
        f"{WIDTHS['student']} from {OF_STUDENT} others; scored on {len(labels) - pool.stop}, {arguments.seeds} seeds"
    )
    table = Table("learnt from", "loss (nats)", "right (%)", "KL(teacher || student)", box=None)
    of_teacher = scores(teacher_logits[held_out], labels[held_out], teacher_logits[held_out])
    table.add_row("the teacher itself", f"{of_teacher[0]:.3f}", f"{of_teacher[1]:.1f}", f"{of_teacher[2]:.3f}")
    for way, rows_of_way in found.items():
        mean, spread = np.mean(rows_of_way, 0), np.std(rows_of_way, 0)
        cells = [f"{mean[i]:.{digits}f} ± {spread[i]:.{digits}f}" for i, digits in enumerate((3, 1, 3))]
        table.add_row(way, *cells)
    Console(highlight=False).print(table)
    print("(mean ± standard deviation of the seeds, which move all three ways together)")
    losses = {way: np.array(rows_of_way)[:, 0] for way, rows_of_way in found.items()}
    for way in list(losses)[1:]:
        lower = (losses[way] < losses["labels"]).sum()
        print(f"from {way}: a lower loss than from labels in {lower} of {arguments.seeds} seeds")

    seen = {"the teacher": ce.softmax(teacher_logits[held_out][unsure])}
    seen |= {f"from {way}": np.mean(of_seeds, 0) for way, of_seeds in predictions.items()}
    draw(images[held_out][unsure], labels[held_out][unsure], seen).savefig(arguments.folder / "teacher.png", dpi=120)
    print(f"wrote {arguments.folder}/teacher.png")


if __name__ == "__main__":
    main()
