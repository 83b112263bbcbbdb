"""Takes what was measured, build/results/*.json, into docs/results.json, from which `make docs` fills the pages.

    python benchmarks/results.py        (the end of `make results`)

A section is taken whole, so that its figures come from one run, and only where that run misses none that stand there:
one with fewer libraries, or of a few regimes, takes nobody's figures away.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEASURED, TAKEN = Path("build/results"), Path("docs/results.json")


def write(section: str, figures: dict[str, Any]) -> Path:
    """Keep the figures of a run."""
    path = MEASURED / f"{section}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def rounded(figures: Any) -> Any:
    """The figures to four digits: noise ends there."""
    if isinstance(figures, dict):
        return {name: rounded(figure) for name, figure in figures.items()}
    if isinstance(figures, list):
        return [rounded(figure) for figure in figures]
    return float(f"{figures:.4g}") if isinstance(figures, float) else figures


def missing(stands: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """What stands somewhere and was not found."""
    for name, figure in stands.items():
        if name not in found:
            yield name
        elif isinstance(figure, dict):
            yield from (f"{name}: {missed}" for missed in missing(figure, found[name]))


def text(results: dict[str, Any]) -> str:
    """JSON, the innermost objects on one line each."""
    spread = json.dumps(results, indent=1, ensure_ascii=False)
    return re.sub(r"\{[^{}]*\}", lambda found: " ".join(found[0].split()), spread) + "\n"


def take(measured: Path, taken: Path) -> list[str]:
    """Update `taken`; the sections that were refused, and why."""
    results = json.loads(taken.read_text(encoding="utf-8"))
    refused = []
    for path in sorted(measured.glob("*.json")):
        found = rounded(json.loads(path.read_text(encoding="utf-8")))
        if missed := list(missing(results.get(path.stem, {}), found)):
            refused.append(f"{path.stem}: not taken, for it has nothing of " + "; ".join(missed))
        else:
            results[path.stem] = found
    taken.write_text(text(results), encoding="utf-8")
    return refused


if __name__ == "__main__":
    if refused := take(MEASURED, TAKEN):
        sys.exit("\n".join([*refused, f"A figure that is given up is deleted from {TAKEN} first."]))
