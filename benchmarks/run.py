"""Time crossentropy beside its peers and print a table of ratios.

    make bench                      everything
    make bench-adapters             crossentropy.torch and crossentropy.jax beside torch and optax
    make picture                    what docs/speed.png shows
    python benchmarks/run.py --regime "65536 x 10" --rounds 5
    python benchmarks/run.py --beside build/old        an older build as one more peer:
        pip install --no-deps --target build/old "git+file://$PWD@<commit>"

Each peer runs in a process of its own. Peers take turns, round after round, and the best time counts: machines are
noisy, so a ratio of one run counts and a lone time does not. The figures go to build/results/.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

from peers import ADAPTERS, PEERS
from regimes import PLAIN, REGIMES, SWEEPS, regime_named
from results import write
from rich.console import Console
from rich.progress import track
from rich.table import Table

import crossentropy as ce
from crossentropy import _core
from crossentropy._config import cpu_name

BESIDE = " (beside)"


def run(peer: str, regime: str, beside: Path | None) -> dict[str, object]:
    script = Path(__file__).with_name("peers.py")
    command = [sys.executable, str(script), peer.removesuffix(BESIDE), regime]
    other = {"PYTHONPATH": str(beside)} if peer.endswith(BESIDE) else {}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | other)
    if done.returncode != 0:
        return {
            "missing": f"failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
        }
    result: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def summary(regime: str, peers: dict[str, dict[str, object]]) -> str:
    """One line: a regime's best times."""
    return f"{regime}: " + ", ".join(
        f"{peer} {found['best']:.4g} ms" for peer, found in peers.items() if "best" in found
    )


def machine(versions: dict[str, str]) -> dict[str, object]:
    """Where figures come from."""
    return {
        "cpu": cpu_name(),
        "instruction_set": _core.instruction_set,
        "threads": ce.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regime", action="append", choices=REGIMES, help="only this one; may be repeated")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each peer (default 3)")
    parser.add_argument(
        "--beside", type=Path, metavar="FOLDER", help="compare with the crossentropy in this folder; keeps no figures"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--adapters", action="store_true", help="the adapters beside what they stand in for")
    what.add_argument("--picture", action="store_true", help="what the picture shows")
    arguments = parser.parse_args()
    section = "adapters" if arguments.adapters else "picture" if arguments.picture else "loss"
    compared = list(ADAPTERS if arguments.adapters else PEERS)
    if arguments.beside:
        if not (arguments.beside / "crossentropy").is_dir():
            parser.error(f"--beside: expected a folder that holds crossentropy, got {arguments.beside}")
        arguments.beside = arguments.beside.resolve()
        compared = [name for peer in compared for name in (peer, *[peer + BESIDE] * peer.startswith("crossentropy"))]
    bases = ("crossentropy, out=", "torch", "jax + optax") if arguments.adapters else ("copy", "crossentropy")
    # Options are timed where nothing of a framework is between.
    all_regimes = [name for name, regime in REGIMES.items() if regime.plain or not arguments.adapters]
    parts = SWEEPS if arguments.picture else {"milliseconds": arguments.regime or all_regimes}
    regimes = list(dict.fromkeys(chain(*parts.values())))

    turns = [(regime, peer) for regime in regimes for _ in range(arguments.rounds) for peer in compared]
    results: dict[str, dict[str, dict[str, object]]] = {regime: {} for regime in regimes}
    terminal = Console(stderr=True)
    bar = track(turns, "timing", console=terminal, transient=True, disable=not terminal.is_terminal)
    for regime, turns_of_regime in groupby(bar, itemgetter(0)):
        for _, peer in turns_of_regime:
            known = results[regime].get(peer, {})
            if "missing" in known or (peer.startswith("crossentropy, out=") and not regime_named(regime).gradient):
                continue
            found = run(peer, regime, arguments.beside)
            if "best" not in known or "missing" in found or found["best"] < known["best"]:
                results[regime][peer] = found
        if not terminal.is_terminal:  # no bar is shown there
            print(summary(regime, results[regime]), file=sys.stderr, flush=True)

    versions: dict[str, str] = {}
    for found in (found for peers in results.values() for found in peers.values()):
        versions.update(found.get("versions", {}))
    times_of = {
        regime: {peer: float(found["best"]) for peer, found in peers.items() if "best" in found}
        for regime, peers in results.items()
    }
    here = machine(versions)
    figures = {part: {regime: times_of[regime] for regime in named} for part, named in parts.items()}
    if not arguments.beside:
        written = write(section, {"machine": here, **figures})

    console = Console(width=max(120, Console().width), highlight=False)
    console.print(f"{here['cpu']}, {here['instruction_set']}, {here['threads']} threads, float32 unless said")
    console.print("  ".join(f"{name} {version}" for name, version in versions.items()))
    for regime in regimes:
        table = Table(
            title=f"{regime}{', loss and gradient' if regime_named(regime).gradient else ''}", title_justify="left"
        )
        has_options = not regime_named(regime).plain and PLAIN in times_of
        to = (*(f"to {'the floor' if base == 'copy' else base}" for base in bases), *["to plain"] * has_options)
        for column in ("", "ms", *to):
            table.add_column(column, justify="left" if not column else "right")
        times = times_of[regime]
        for peer, found in results[regime].items():
            if peer not in times:
                table.add_row(peer, str(found["missing"]))
                continue
            ratios = [f"{times[peer] / times[base]:.2f}" if base in times else "" for base in bases]
            if has_options:
                ratios.append(f"{times[peer] / times_of[PLAIN][peer]:.2f}" if peer in times_of[PLAIN] else "")
            name = "floor: copy, 2 threads" if peer == "copy" and regime_named(regime).gradient else peer
            table.add_row("floor: read, 2 threads" if name == "copy" else name, f"{times[peer]:.4g}", *ratios)
        console.print(table)
    if not arguments.beside:
        console.print(f"figures in {written}")


if __name__ == "__main__":
    main()
