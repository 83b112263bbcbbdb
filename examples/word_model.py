"""A model of words
================

A next-word model of the docstrings in Python's standard library, trained with the linear head::

    python examples/word_model.py [FOLDER] [--epochs N]

About 400 000 words of text and a vocabulary of some 12 000, from the Python that runs it. The last words are embedded
and mixed into a hidden state; the head tells from it which word comes next. Held-out text is scored before training and
then every 50 steps; the best model is kept. Writes hidden.npy, head.npy, bias.npy and targets.npy of the held-out text
and perplexity.png into FOLDER (words-output by default); score them with::

    crossentropy eval --hidden FOLDER/hidden.npy --head FOLDER/head.npy --bias FOLDER/bias.npy FOLDER/targets.npy
"""

import argparse
import ast
import re
import sysconfig
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import crossentropy as ce

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# sphinx_gallery_thumbnail_path = 'docs/words.png'

CONTEXT, EMBEDDING, WIDTH, BATCH, EVERY = 6, 64, 128, 1024, 50
Model = dict[str, np.ndarray]


def docstrings() -> list[str]:
    """Every docstring of the standard library, tests left out."""
    found = []
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "dist-packages", "test", "tests", "lib2to3"} & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found += [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)]
    return sorted(set(filter(None, found)))


def numbered(texts: list[str]) -> tuple[list[list[int]], int]:
    """The words of each text as numbers from 1, and how many numbers there are, with 0."""
    split = [re.findall(r"[a-z_]+|[0-9]+|[^\sa-z0-9_]", text.lower()) for text in texts]
    numbers = {word: number for number, word in enumerate(sorted({word for text in split for word in text}), 1)}
    return [[numbers[word] for word in text] for text in split], len(numbers) + 1


def examples(texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The words before each word of the texts, and that word; 0 stands for what is before the first."""
    stream = np.concatenate([np.r_[np.zeros(CONTEXT, np.int64), text] for text in texts])
    windows = np.lib.stride_tricks.sliding_window_view(stream, CONTEXT + 1)
    windows = windows[windows[:, -1] != 0]
    return windows[:, :-1], windows[:, -1]


def hidden_states(model: Model, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the head sees, and the embedded words it was mixed from."""
    embedded = model["embedding"][context].reshape(len(context), -1)
    return np.tanh(embedded @ model["mix"] + model["mix_bias"]), embedded


def with_head(hidden: np.ndarray, model: Model, targets: np.ndarray) -> tuple[float, ce.LinearGradients]:
    return ce.linear_cross_entropy_with_grad(hidden, model["head"], targets, bias=model["bias"])


def with_whole_logits(hidden: np.ndarray, model: Model, targets: np.ndarray) -> tuple[float, ce.LinearGradients]:
    logits = hidden @ model["head"].T + model["bias"]
    loss, dlogits = ce.cross_entropy_with_grad(logits, targets)
    return loss, ce.LinearGradients(dlogits @ model["head"], dlogits.T @ hidden, dlogits.sum(0))


def gradients(
    model: Model,
    context: np.ndarray,
    targets: np.ndarray,
    loss_of: Callable[[np.ndarray, Model, np.ndarray], tuple[float, ce.LinearGradients]],
) -> tuple[float, Model]:
    hidden, embedded = hidden_states(model, context)
    loss, of_head = loss_of(hidden, model, targets)
    assert of_head.hidden is not None
    before_tanh = of_head.hidden * (1 - hidden * hidden)
    of_embedding = np.zeros_like(model["embedding"])
    np.add.at(of_embedding, context, (before_tanh @ model["mix"].T).reshape(*context.shape, EMBEDDING))
    return loss, {
        "embedding": of_embedding,
        "mix": embedded.T @ before_tanh,
        "mix_bias": before_tanh.sum(0),
        "head": of_head.classifier,
        "bias": of_head.bias,
    }


def adam(model: Model, moments: dict[str, tuple[np.ndarray, np.ndarray]], change: Model, step: int) -> None:
    for name, gradient in change.items():
        first, second = moments[name]
        first += 0.1 * (gradient - first)
        second += 0.01 * (gradient * gradient - second)
        rate = 2e-3 * np.sqrt(1 - 0.99**step) / (1 - 0.9**step)
        model[name] -= rate * first / (np.sqrt(second) + 1e-8)


def score(model: Model, context: np.ndarray, targets: np.ndarray) -> float:
    return ce.linear_cross_entropy(hidden_states(model, context)[0], model["head"], targets, bias=model["bias"])


def compare(model: Model, context: np.ndarray, targets: np.ndarray) -> Table:
    """Time and memory of a step through the head, and through whole logits."""
    table = Table("a step through", "ms", "MiB beside the model", "loss", box=None)
    for name, loss_of in (("the linear head", with_head), ("whole logits", with_whole_logits)):
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            loss, _ = gradients(model, context, targets, loss_of)
            times.append(time.perf_counter() - begin)
        tracemalloc.start()
        gradients(model, context, targets, loss_of)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        table.add_row(name, f"{1e3 * min(times):.0f}", f"{peak / 2**20:.0f}", f"{loss:.6f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("words-output"))
    parser.add_argument("--epochs", type=int, default=3, help="passes over the text (default 3)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    console, rng = Console(stderr=True), np.random.default_rng(0)

    in_order, classes = numbered(docstrings())
    texts = [in_order[i] for i in rng.permutation(len(in_order))]
    context, targets = examples(texts[len(texts) // 10 :])
    held_context, held_targets = examples(texts[: len(texts) // 10])
    print(f"{len(targets):,} words to learn from, {len(held_targets):,} held out, vocabulary of {classes:,}")

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    model = {
        "embedding": 0.1 * normal(classes, EMBEDDING),
        "mix": normal(CONTEXT * EMBEDDING, WIDTH) / np.float32(np.sqrt(CONTEXT * EMBEDDING)),
        "mix_bias": np.zeros(WIDTH, np.float32),
        "head": 0.01 * normal(classes, WIDTH),
        "bias": np.zeros(classes, np.float32),
    }
    moments = {name: (np.zeros_like(array), np.zeros_like(array)) for name, array in model.items()}
    steps = arguments.epochs * (len(targets) // BATCH)
    curve = [(0, score(model, held_context, held_targets))]
    best = {name: array.copy() for name, array in model.items()}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=steps)
        for step in range(1, steps + 1):
            if step % (len(targets) // BATCH) == 1:
                order = rng.permutation(len(targets))
            rows = order[step * BATCH % (len(targets) - BATCH) :][:BATCH]
            loss, change = gradients(model, context[rows], targets[rows], with_head)
            adam(model, moments, change, step)
            progress.update(task, advance=1, description=f"training, perplexity {np.exp(loss):.0f}")
            if step % EVERY == 0 or step == steps:
                curve.append((step, score(model, held_context, held_targets)))
                if curve[-1][1] <= min(held for _, held in curve):
                    best = {name: array.copy() for name, array in model.items()}
                elif min(curve[-4:], key=lambda point: point[1]) == curve[-4]:
                    print(f"step {step}: no better for {3 * EVERY} steps, training ends")
                    break
    at, held = min(curve, key=lambda point: point[1])
    print(f"held out: perplexity {np.exp(curve[0][1]):.0f} -> {np.exp(held):.1f} ({held:.4f} nats) after step {at}")
    Console(highlight=False).print(compare(best, context[:8192], targets[:8192]))

    np.save(arguments.folder / "hidden.npy", hidden_states(best, held_context)[0])
    for name in ("head", "bias"):
        np.save(arguments.folder / f"{name}.npy", best[name])
    np.save(arguments.folder / "targets.npy", held_targets)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.semilogy(*np.array([(step, np.exp(nats)) for step, nats in curve]).T, color="black", marker=".")
    axes.set(xlabel="step", ylabel="perplexity of held-out text", title="Docstrings of the standard library")
    axes.grid(alpha=0.3, which="both")
    figure.savefig(arguments.folder / "perplexity.png", dpi=120)
    print(f"wrote {arguments.folder}/hidden.npy, head.npy, bias.npy, targets.npy, perplexity.png")


# %%
# What it draws:
#
# .. image:: /docs/words.png
#    :alt: Perplexity of held-out text against steps of training

if __name__ == "__main__":
    main()
