"""What the commands that the README names take: time, disk, and what the next-word model learns.

    make bench-commands

Clones what is committed, runs `make demo`, `make test` and `make words` there, the first two once in a fresh folder and
once again, and writes build/results/commands.json and words.json. Takes about twenty minutes and the network.
"""

import re
import subprocess
import tempfile
import time
from pathlib import Path

from results import write
from run import machine

ROOT = Path(__file__).parent.parent


def seconds(folder: str, target: str) -> tuple[float, str]:
    """How long a target takes, and what it prints."""
    begin = time.perf_counter()
    done = subprocess.run(["make", target], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - begin, done.stdout


def megabytes(folder: Path) -> float:
    return sum(512 * path.lstat().st_blocks for path in folder.rglob("*")) / 1e6


def step(printed: str, name: str) -> dict[str, int]:
    """What the next-word model says of a step through the head, or through whole logits."""
    found = re.search(rf"{name}\s+(\d+)\s+(\d+)\s+[\d.]+", printed)
    assert found, printed
    return {"milliseconds": int(found[1]), "mebibytes": int(found[2])}


def main() -> None:
    commands: dict[str, object] = {"machine": machine({})}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
        for target in ("demo", "test"):
            subprocess.run(["make", "clean"], cwd=folder, check=True)
            first, again = (seconds(folder, target)[0] for _ in range(2))
            occupied = megabytes(Path(folder) / ".venv")
            commands[target] = {"seconds at first": first, "seconds again": again, "megabytes": occupied}
        taken, printed = seconds(folder, "words")
    learnt = re.search(r"held out: perplexity (\d+) -> ([\d.]+)", printed)
    assert learnt, printed
    words = {
        "machine": machine({}),
        "seconds": taken,
        "perplexity at first": int(learnt[1]),
        "perplexity": float(learnt[2]),
        "linear head": step(printed, "the linear head"),
        "whole logits": step(printed, "whole logits"),
    }
    print("figures in", write("commands", commands), "and", write("words", words))


if __name__ == "__main__":
    main()
