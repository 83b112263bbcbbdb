"""Time the quantities beside the softmax cross-entropy, next to their peers, and print a table of ratios.

    make bench                      after the loss
    python benchmarks/family.py --quantity "binary, 10 M" --rounds 5

Each peer runs in a process of its own; peers take turns, round after round, and the best time counts. The figures go to
build/results/family.json.

To add a quantity, write for each peer a function of no arguments that makes the inputs and returns a function of no
arguments, which computes the quantity and its gradient once; and enter them in QUANTITIES with the packages whose
versions belong to them.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from family_kl import PEERS as KL_PEERS
from results import write
from rich.console import Console
from rich.progress import track
from rich.table import Table
from run import machine

Step = Callable[[], object]
SECONDS = 1.5


class Peer(NamedTuple):
    """A function that makes what is timed, and the packages whose versions belong to it."""

    make: Callable[[], Step]
    packages: tuple[str, ...]


def in_two_threads(work: Callable[[slice], object], size: int) -> Step:
    """What works on a slice, on both halves at once."""

    def step() -> None:
        other = threading.Thread(target=work, args=(slice(size // 2, None),))
        other.start()
        work(slice(None, size // 2))
        other.join()

    return step


# Binary cross-entropy of ten million logits.


def binary_inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal(10_000_000, dtype=np.float32)
    return logits, (rng.random(logits.size) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def binary_floor() -> Step:
    """Two reads and one write."""
    logits, targets = binary_inputs()
    out = np.zeros_like(logits)
    return in_two_threads(lambda half: np.add(logits[half], targets[half], out=out[half]), logits.size)


def binary_ours() -> Step:
    import crossentropy as ce

    logits, targets = binary_inputs()
    return lambda: ce.binary_cross_entropy_with_grad(logits, targets)


def binary_ours_out() -> Step:
    import crossentropy as ce

    logits, targets = binary_inputs()
    out = np.zeros_like(logits)
    return lambda: ce.binary_cross_entropy_with_grad(logits, targets, out=out)


def binary_textbook() -> Step:
    logits, targets = binary_inputs()

    def step() -> object:
        loss = np.mean(np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits))))
        return loss, (1 / (1 + np.exp(-logits)) - targets) / logits.size

    return step


def binary_scikit_learn() -> Step:
    from sklearn._loss import HalfBinomialLoss

    logits, targets = binary_inputs()
    loss = HalfBinomialLoss()
    return lambda: loss.loss_gradient(targets, logits, n_threads=2)


def binary_torch(compiled: bool = False, ours: bool = False) -> Step:
    import torch

    if ours:
        from crossentropy.torch import binary_cross_entropy_with_logits
    else:
        from torch.nn.functional import binary_cross_entropy_with_logits

    logits, targets = map(torch.from_numpy, binary_inputs())
    logits.requires_grad_()
    function = torch.compile(binary_cross_entropy_with_logits) if compiled else binary_cross_entropy_with_logits

    def step() -> object:
        loss = function(logits, targets)
        return loss, torch.autograd.grad(loss, logits)

    return step


def binary_jax(ours: bool = False) -> Step:
    import jax
    import optax

    from crossentropy.jax import sigmoid_binary_cross_entropy

    of_elements = sigmoid_binary_cross_entropy if ours else optax.sigmoid_binary_cross_entropy
    logits, targets = map(jax.numpy.asarray, binary_inputs())
    function = jax.jit(jax.value_and_grad(lambda logits, targets: of_elements(logits, targets).mean()))
    return lambda: jax.block_until_ready(function(logits, targets))


FLOOR = "floor"
QUANTITIES: dict[str, dict[str, Peer]] = {
    "binary, 10 M": {
        FLOOR: Peer(binary_floor, ("numpy",)),
        "crossentropy": Peer(binary_ours, ("crossentropy",)),
        "crossentropy, out=": Peer(binary_ours_out, ("crossentropy",)),
        "NumPy, textbook": Peer(binary_textbook, ("numpy",)),
        "scikit-learn": Peer(binary_scikit_learn, ("scikit-learn",)),
        "torch": Peer(binary_torch, ("torch",)),
        "torch.compile": Peer(lambda: binary_torch(compiled=True), ("torch",)),
        "crossentropy.torch": Peer(lambda: binary_torch(ours=True), ("crossentropy", "torch")),
        "jax + optax": Peer(binary_jax, ("jax", "optax")),
        "crossentropy.jax": Peer(lambda: binary_jax(ours=True), ("crossentropy", "jax")),
    },
    "KL, 2048 x 32000": {name: Peer(*peer) for name, peer in KL_PEERS.items()},
}


def measure(quantity: str, peer: str) -> dict[str, object]:
    make, packages = QUANTITIES[quantity][peer]
    try:
        versions = {package: importlib.metadata.version(package) for package in packages}
    except importlib.metadata.PackageNotFoundError as error:
        return {"missing": f"{error.name} is not installed"}
    step = make()
    for _ in range(2):
        step()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return {"best": 1e3 * min(times), "versions": versions}


def run(quantity: str, peer: str) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--measure", quantity, peer]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return {"missing": f"failed: {said[-1] if said else done.returncode}"}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantity", action="append", choices=QUANTITIES, help="only this one; may be repeated")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each peer (default 3)")
    parser.add_argument("--measure", nargs=2, metavar=("QUANTITY", "PEER"), help="time one peer in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    quantities = arguments.quantity or list(QUANTITIES)
    turns = [(q, peer) for q in quantities for _ in range(arguments.rounds) for peer in QUANTITIES[q]]
    results: dict[str, dict[str, dict[str, Any]]] = {quantity: {} for quantity in quantities}
    terminal = Console(stderr=True)
    bar = track(turns, "timing", console=terminal, transient=True, disable=not terminal.is_terminal)
    for quantity, peer in bar:
        known = results[quantity].get(peer, {})
        if "missing" in known:
            continue
        found = run(quantity, peer)
        if "best" not in known or "missing" in found or found["best"] < known["best"]:
            results[quantity][peer] = found

    versions: dict[str, str] = {}
    for peers in results.values():
        for found in peers.values():
            versions.update(found.get("versions", {}))
    times = {
        quantity: {peer: found["best"] for peer, found in peers.items() if "best" in found}
        for quantity, peers in results.items()
    }
    here = machine(versions)
    written = write("family", {"machine": here, "milliseconds": times})

    console = Console(width=max(120, Console().width), highlight=False)
    console.print(f"{here['cpu']}, {here['instruction_set']}, {here['threads']} threads")
    console.print("  ".join(f"{name} {version}" for name, version in versions.items()))
    for quantity in quantities:
        table = Table(title=f"{quantity}, with gradient", title_justify="left")
        for column in ("", "ms", "to the floor", "to crossentropy"):
            table.add_column(column, justify="left" if not column else "right")
        best = times[quantity]
        for peer, found in results[quantity].items():
            if peer not in best:
                table.add_row(peer, str(found["missing"]), "", "")
                continue
            ratios = (f"{best[peer] / best[base]:.2f}" if base in best else "" for base in (FLOOR, "crossentropy"))
            table.add_row(peer, f"{best[peer]:.4g}", *ratios)
        console.print(table)
    console.print(f"figures in {written}")


if __name__ == "__main__":
    main()
