"""Time and memory of the divergences between two models' logits, with the student's gradient, beside other libraries.

    python benchmarks/family_kl.py
    python benchmarks/family_kl.py --shape "4096 x 1000" --rounds 5

Each peer runs in a process of its own and peers take turns; the best time counts. Memory is the largest resident size
during a call, less what there was before it (Linux only). The figures go to build/results/kl.json.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from head import resident
from results import write
from rich.console import Console
from rich.progress import track
from rich.table import Table
from run import machine

SHAPES = ("2048 x 32000", "4096 x 1000")
SECONDS = 3.0
Step = Callable[[], object]


def inputs(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a student and of the teacher that it has come near to."""
    rows, _, classes = shape.partition(" x ")
    rng = np.random.default_rng(0)
    teacher = 4 * rng.standard_normal((int(rows), int(classes)), dtype=np.float32)
    return teacher + rng.standard_normal(teacher.shape, dtype=np.float32) / 2, teacher


def ours(shape: str, reuse: bool = True, function: str = "kl_divergence_with_grad") -> Step:
    import crossentropy as ce

    student, teacher = inputs(shape)
    out = ce.DivergenceGradients(np.zeros_like(student)) if reuse else None
    return lambda: getattr(ce, function)(student, teacher, out=out)


def torchs(shape: str, compiled: bool) -> Step:
    import torch

    student, teacher = map(torch.from_numpy, inputs(shape))
    student.requires_grad_()

    def mean(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        log_p, log_q = torch.log_softmax(z, -1), torch.log_softmax(t, -1)
        return torch.nn.functional.kl_div(log_p, log_q, reduction="batchmean", log_target=True)

    function = torch.compile(mean) if compiled else mean

    def step() -> object:
        student.grad = None
        loss = function(student, teacher)
        loss.backward()
        return loss

    return step


def jaxs(shape: str) -> Step:
    import jax

    student, teacher = map(jax.numpy.asarray, inputs(shape))

    def mean(z: jax.Array, t: jax.Array) -> jax.Array:
        log_p, log_q = jax.nn.log_softmax(z), jax.nn.log_softmax(t)
        return (jax.numpy.exp(log_q) * (log_q - log_p)).sum(-1).mean()

    function = jax.jit(jax.value_and_grad(mean))
    return lambda: jax.block_until_ready(function(student, teacher))


PEERS: dict[str, tuple[Callable[[str], Step], str]] = {
    "crossentropy, out=": (ours, "crossentropy"),
    "crossentropy": (lambda shape: ours(shape, reuse=False), "crossentropy"),
    "crossentropy, Jensen-Shannon, out=": (
        lambda shape: ours(shape, function="jensen_shannon_with_grad"),
        "crossentropy",
    ),
    "torch": (lambda shape: torchs(shape, False), "torch"),
    "torch.compile": (lambda shape: torchs(shape, True), "torch"),
    "jax": (jaxs, "jax"),
}


def measure(peer: str, shape: str) -> dict[str, object]:
    make, package = PEERS[peer]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        return {"missing": f"{error.name} is not installed"}
    make("64 x 64")()
    step = make(shape)
    before = resident(largest=False)
    step()
    memory = resident(largest=True) - before
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return {"milliseconds": 1e3 * min(times), "mebibytes": memory / 2**20, "version": version}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", help="rows x classes; may be repeated")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each peer (default 2)")
    parser.add_argument("--measure", nargs=2, metavar=("PEER", "SHAPE"), help="one peer, in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    shapes = arguments.shape or list(SHAPES)
    found: dict[str, dict[str, dict[str, object]]] = {shape: {} for shape in shapes}
    turns = [(shape, peer) for shape in shapes for _ in range(arguments.rounds) for peer in PEERS]
    for shape, peer in track(turns, "timing", console=Console(stderr=True), transient=True):
        command = [sys.executable, str(Path(__file__)), "--measure", peer, shape]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        result = json.loads(done.stdout) if done.returncode == 0 else {"missing": done.stderr.strip()[-200:]}
        known = found[shape].get(peer, {})
        if result.get("milliseconds", np.inf) <= known.get("milliseconds", np.inf):
            found[shape][peer] = result
    versions = {PEERS[peer][1]: str(r["version"]) for of in found.values() for peer, r in of.items() if "version" in r}
    written = write("kl", {"machine": machine(versions), "shapes": found})
    console = Console(width=100, highlight=False)
    for shape, peers in found.items():
        table = Table(title=f"KL and the student's gradient, {shape}, float32", title_justify="left")
        for column in ("", "ms", "to crossentropy, out=", "MiB"):
            table.add_column(column, justify="right" if column else "left")
        base = peers["crossentropy, out="].get("milliseconds", np.nan)
        for peer, result in peers.items():
            if "milliseconds" not in result:
                table.add_row(peer, str(result["missing"]), "", "")
                continue
            milliseconds = result["milliseconds"]
            table.add_row(peer, f"{milliseconds:.4g}", f"{milliseconds / base:.2f}", f"{result['mebibytes']:.0f}")
        console.print(table)
    console.print(f"figures in {written}")


if __name__ == "__main__":
    main()
