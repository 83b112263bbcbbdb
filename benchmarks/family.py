"""Time the quantities beside the softmax cross-entropy, next to their peers, and print a table of ratios.

    make bench                      after the loss
    python benchmarks/family.py --quantity "binary, 10 M" --rounds 5

Each peer runs in a process of its own; peers take turns, round after round, and the best time counts. Memory is the
largest resident size during the first call, less what there was before it. The figures go to build/results/family.json.

To add a quantity, write for each peer a function of no arguments that makes the inputs and returns a function of no
arguments, which computes the quantity and its gradient once; and enter them, with the packages whose versions belong to
them, in QUANTITIES of a file of its own, as family_binary.py does.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import time
from typing import Any

import family_binary
import family_divergence
import family_log_prob
import family_softmax
from quantities import resident
from results import write
from rich.console import Console
from rich.progress import track
from rich.table import Table
from run import machine

SECONDS = 1.5
FLOOR = "floor"
QUANTITIES = {
    **family_log_prob.QUANTITIES,
    **family_divergence.QUANTITIES,
    **family_binary.QUANTITIES,
    **family_softmax.QUANTITIES,
}


def measure(quantity: str, peer: str) -> dict[str, object]:
    make, packages = QUANTITIES[quantity][peer]
    try:
        versions = {package: importlib.metadata.version(package) for package in packages}
    except importlib.metadata.PackageNotFoundError as error:
        return {"missing": f"{error.name} is not installed"}
    step = make()
    before = resident(largest=False)
    step()
    memory = resident(largest=True) - before
    step()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return {"best": 1e3 * min(times), "mebibytes": memory / 2**20, "versions": versions}


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
    memory = {
        quantity: {peer: found["mebibytes"] for peer, found in peers.items() if "best" in found}
        for quantity, peers in results.items()
    }
    here = machine(versions)
    written = write("family", {"machine": here, "milliseconds": times, "mebibytes": memory})

    console = Console(width=max(120, Console().width), highlight=False)
    console.print(f"{here['cpu']}, {here['instruction_set']}, {here['threads']} threads")
    console.print("  ".join(f"{name} {version}" for name, version in versions.items()))
    for quantity in quantities:
        table = Table(title=quantity, title_justify="left")
        for column in ("", "ms", "to the floor", "to crossentropy", "MiB"):
            table.add_column(column, justify="left" if not column else "right")
        best = times[quantity]
        for peer, found in results[quantity].items():
            if peer not in best:
                table.add_row(peer, str(found["missing"]), "", "", "")
                continue
            ratios = (f"{best[peer] / best[base]:.2f}" if base in best else "" for base in (FLOOR, "crossentropy"))
            table.add_row(peer, f"{best[peer]:.4g}", *ratios, f"{memory[quantity][peer]:.0f}")
        console.print(table)
    console.print(f"figures in {written}")


if __name__ == "__main__":
    main()
