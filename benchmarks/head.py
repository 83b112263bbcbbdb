"""Time and memory of the linear head, beside torch and beside its three matrix products alone.

A divergence between two heads, with the student's gradients, stands beside its four.

    make bench-head
    python benchmarks/head.py --shape "512 x 4096 x 32000" --rounds 3

Each peer runs in a process of its own and peers take turns; the best time counts. Memory is the largest resident size
during the first call, less what there was before it (a small problem has loaded the libraries) and the gradients; Linux
only. That of the products alone holds their logits and what the BLAS keeps for itself. Shapes are N x D x C, float32
unless bfloat16 is said, which only torch and its adapter take.

OpenBLAS takes its kernels from OPENBLAS_CORETYPE where that is set, which may slow NumPy's products: it is said beside
the figures. These go to build/results/head.json.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from quantities import resident
from results import write
from rich.console import Console
from rich.progress import track
from rich.table import Table
from run import machine

SHAPES = (
    "2048 x 1024 x 32000",
    "2048 x 1024 x 32000, bfloat16",
    "4096 x 256 x 128256",
    "512 x 4096 x 32000",
    "65536 x 64 x 10",
)
SECONDS = 6.0
Step = Callable[[int], object]  # of the first so many rows


def sizes(shape: str) -> tuple[int, ...]:
    return tuple(map(int, shape.partition(",")[0].split(" x ")))


def inputs(shape: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    N, D, C = sizes(shape)
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((N, D), dtype=np.float32)
    classifier = rng.standard_normal((C, D), dtype=np.float32) / np.float32(np.sqrt(D))
    return hidden, classifier, rng.integers(0, C, N)


def tensors(shape: str) -> tuple[Any, ...]:
    import torch

    hidden, classifier, targets = map(torch.from_numpy, inputs(shape))
    if "bfloat16" in shape:
        hidden, classifier = hidden.bfloat16(), classifier.bfloat16()
    return hidden.requires_grad_(), classifier.requires_grad_(), targets


def ours(shape: str) -> Step:
    import crossentropy as ce

    hidden, classifier, targets = inputs(shape)
    return lambda n: ce.linear_cross_entropy_with_grad(hidden[:n], classifier, targets[:n])


def ours_forward(shape: str) -> Step:
    import crossentropy as ce

    hidden, classifier, targets = inputs(shape)
    return lambda n: ce.linear_cross_entropy(hidden[:n], classifier, targets[:n])


def ours_plain(shape: str) -> Step:
    """Whole logits through the plain loss, its gradient in their place."""
    import crossentropy as ce

    hidden, classifier, targets = inputs(shape)

    def step(n: int) -> object:
        logits = hidden[:n] @ classifier.T
        loss, dlogits = ce.cross_entropy_with_grad(logits, targets[:n], out=logits)
        return loss, dlogits @ classifier, dlogits.T @ hidden[:n]

    return step


def products(shape: str, rows: int, all_three: bool = True) -> Step:
    """The matrix products alone, so many rows at a time."""
    hidden, classifier, _ = inputs(shape)
    N, C = len(hidden), len(classifier)
    logits = np.empty((min(rows, N), C), np.float32)
    dhidden, dclassifier = np.empty_like(hidden), np.empty_like(classifier)

    def step(n: int) -> None:
        for begin in range(0, n, rows):
            h = hidden[begin : min(begin + rows, n)]
            z = logits[: len(h)]
            np.matmul(h, classifier.T, out=z)
            if all_three:
                np.matmul(z, classifier, out=dhidden[begin : begin + len(h)])
                np.matmul(z.T, h, out=dclassifier)

    return step


def torch_head(shape: str, function: Callable[..., Any], **options: Any) -> Step:
    import torch

    hidden, classifier, targets = tensors(shape)

    def step(n: int) -> object:
        loss = function(hidden[:n], classifier, targets[:n], **options)
        return loss, torch.autograd.grad(loss, (hidden, classifier))

    return step


def ours_kl(shape: str) -> Step:
    """The divergence between two heads of this size, with the student's gradients."""
    import crossentropy as ce

    student, teacher = two_heads(shape)
    return lambda n: ce.linear_kl_divergence_with_grad(student[0][:n], student[1], teacher[0][:n], teacher[1])


def two_heads(shape: str) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    student = inputs(shape)[:2]
    rng = np.random.default_rng(1)
    of_teacher = (array + array.std() * rng.standard_normal(array.shape, dtype=np.float32) / 4 for array in student)
    return student, tuple(of_teacher)


def four_products(shape: str, rows: int) -> Step:
    """The matrix products of that divergence alone, so many rows at a time."""
    student, (hidden, classifier) = products(shape, rows), two_heads(shape)[1]
    logits = np.empty((min(rows, len(hidden)), len(classifier)), np.float32)

    def step(n: int) -> None:
        student(n)
        for begin in range(0, n, rows):
            h = hidden[begin : min(begin + rows, n)]
            np.matmul(h, classifier.T, out=logits[: len(h)])

    return step


def torchs(shape: str, chunked: bool) -> Step:
    import torch

    options = {"options": torch.nn.LinearCrossEntropyOptions()} if chunked else {}
    return torch_head(shape, torch.nn.functional.linear_cross_entropy, **options)


def adapter(shape: str) -> Step:
    from crossentropy.torch import linear_cross_entropy

    return torch_head(shape, linear_cross_entropy)


def torch_products(shape: str, rows: int) -> Step:
    """The matrix products alone as torch makes them, so many rows at a time."""
    import torch

    hidden, classifier, _ = (tensor.detach() for tensor in tensors(shape))
    N, C = len(hidden), len(classifier)
    logits = torch.empty(min(rows, N), C, dtype=hidden.dtype)
    dhidden, dclassifier = torch.empty_like(hidden), torch.empty_like(classifier)

    def step(n: int) -> None:
        for begin in range(0, n, rows):
            h = hidden[begin : min(begin + rows, n)]
            z = logits[: len(h)]
            torch.mm(h, classifier.t(), out=z)
            torch.mm(z, classifier, out=dhidden[begin : begin + len(h)])
            torch.mm(z.t(), h, out=dclassifier)

    return step


CHUNKS = (128, 512, 1024, 2048)
PEERS: dict[str, tuple[Callable[[str], Step], str]] = {
    "crossentropy": (ours, "crossentropy"),
    "crossentropy, forward only": (ours_forward, "crossentropy"),
    "crossentropy, whole logits": (ours_plain, "crossentropy"),
    "crossentropy.torch": (adapter, "torch"),
    "torch, whole logits": (lambda shape: torchs(shape, False), "torch"),
    "torch, chunked": (lambda shape: torchs(shape, True), "torch"),
    "crossentropy, linear_kl_divergence": (ours_kl, "crossentropy"),
    **{f"four products, {n} rows": (lambda shape, n=n: four_products(shape, n), "numpy") for n in CHUNKS},
    **{f"three products, {n} rows": (lambda shape, n=n: products(shape, n), "numpy") for n in CHUNKS},
    **{f"three products of torch, {n} rows": (lambda shape, n=n: torch_products(shape, n), "torch") for n in CHUNKS},
    **{f"one product, {n} rows": (lambda shape, n=n: products(shape, n, False), "numpy") for n in CHUNKS},
}


def measure(peer: str, shape: str) -> dict[str, object]:
    make, package = PEERS[peer]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        return {"missing": f"{error.name} is not installed"}
    if "bfloat16" in shape and package != "torch":
        return {"missing": "no bfloat16 there"}
    N, D, C = sizes(shape)
    make("64 x 8 x 64")(64)
    step = make(shape)
    before = resident(largest=False)
    step(N)
    gradients = 0 if "forward" in peer or "one" in peer else (2 if "bfloat16" in shape else 4) * (N * D + C * D)
    memory = resident(largest=True) - before - gradients
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        step(N)
        times.append(time.perf_counter() - begin)
    return {"seconds": min(times), "mebibytes": memory / 2**20, "version": version}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", help="N x D x C; may be repeated")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each peer (default 2)")
    parser.add_argument("--measure", nargs=2, metavar=("PEER", "SHAPE"), help="one peer, in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    shapes = arguments.shape or list(SHAPES)
    turns = [(shape, peer) for shape in shapes for _ in range(arguments.rounds) for peer in PEERS]
    found: dict[tuple[str, str], dict[str, object]] = {}
    for shape, peer in track(turns, "timing", console=Console(stderr=True), transient=True):
        command = [sys.executable, str(Path(__file__)), "--measure", peer, shape]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        result = json.loads(done.stdout) if done.returncode == 0 else {"missing": done.stderr.strip()[-200:]}
        known = found.get((shape, peer))
        if known is None or "missing" in known or result.get("seconds", np.inf) < known["seconds"]:
            found[shape, peer] = result
    versions = {PEERS[peer][1]: str(result["version"]) for (_, peer), result in found.items() if "version" in result}
    timed = {
        shape: {
            peer: {name: found[shape, peer][name] for name in ("seconds", "mebibytes")}
            for peer in PEERS
            if "seconds" in found[shape, peer]
        }
        for shape in shapes
    }
    written = write("head", {"machine": machine(versions), "shapes": timed})
    console = Console(width=110, highlight=False)
    kernels = os.environ.get("OPENBLAS_CORETYPE", "")
    console.print(f"OpenBLAS chooses its kernels{f': OPENBLAS_CORETYPE={kernels}' if kernels else ''}")
    for shape in shapes:
        table = Table(title=f"N x D x C = {shape}", title_justify="left")
        for column in ("", "s", "to four products", "to three", "to one", "MiB beside inputs and gradients"):
            table.add_column(column, justify="right" if column else "left")
        fastest = {
            kind: min(
                (
                    float(found[shape, peer]["seconds"])
                    for peer in PEERS
                    if peer.startswith(kind) and "seconds" in found[shape, peer]
                ),
                default=np.nan,
            )
            for kind in ("four products", "three products", "one product")
        }
        for peer in PEERS:
            result = found[shape, peer]
            if "seconds" not in result:
                table.add_row(peer, str(result["missing"]), "", "", "", "")
                continue
            seconds = float(result["seconds"])
            ratios = (f"{seconds / fastest[kind]:.2f}" for kind in fastest)
            table.add_row(peer, f"{seconds:.4g}", *ratios, f"{result['mebibytes']:.0f}")
        console.print(table)
    console.print(f"figures in {written}")


if __name__ == "__main__":
    main()
