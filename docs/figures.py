"""Tables, figures and the picture of speed, from results.json: what the templates say of things measured."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = json.loads(Path(__file__).with_name("results.json").read_text(encoding="utf-8"))
NAMES = {"numpy": "NumPy", "avx512": "AVX-512", "avx2": "AVX2", "neon": "NEON"}
STYLES = {
    "copy": {"color": "0.6", "lw": 1.2},
    "crossentropy": {"color": "black", "lw": 2.5},
    "crossentropy, out=": {"color": "black", "lw": 2.5, "ls": ":"},
}


def digits(x: float, count: int = 3) -> str:
    """A number to so many digits, without an exponent; integers whole."""
    if abs(x) >= 10**count:
        return f"{x:,.0f}".replace(",", " ")
    return f"{x:.{max(0, count - 1 - math.floor(math.log10(abs(x))))}f}" if x else "0"


def spell(seconds: float) -> str:
    """Seconds, or minutes where there are many, as one says them."""
    return f"{seconds:.0f} s" if seconds < 60 else f"{math.ceil(seconds / 60)} min"


def table(header: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    """Markdown; all but the first columns are set to the right."""
    header = list(header)
    aligned = "|---" * left + "|---:" * (len(header) - left) + "|"
    cells = ["|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in (header, *rows)]
    return "\n".join([cells[0], aligned, *cells[1:]])


def cpu(section: str) -> str:
    """The CPU of a section."""
    return RESULTS[section]["machine"]["cpu"].replace("(R)", "").replace("(TM)", "")


def machine(section: str) -> str:
    """Where a section was measured, and with what."""
    here = RESULTS[section]["machine"]
    instruction_set, threads = here["instruction_set"], here["threads"]
    place = f"{cpu(section)} ({NAMES.get(instruction_set, instruction_set)}, {threads} thread{'s' * (threads != 1)})"
    return ", ".join([place, f"Python {here['python']}", *versions(here["versions"])])


def versions(found: dict[str, str]) -> list[str]:
    return [f"{NAMES.get(package, package)} {version}" for package, version in found.items()]


def timings(section: str) -> str:
    """Milliseconds: a row for each regime, a column for each peer."""
    regimes = RESULTS[section]["milliseconds"]
    peers = dict.fromkeys(peer for times in regimes.values() for peer in times)
    rows = ([name, *(digits(times[p]) if p in times else "–" for p in peers)] for name, times in regimes.items())
    return table(["", *peers], rows)


def others(regime: str) -> str:
    """How many times as long as this library the others take: the least and the most."""
    times = RESULTS["loss"]["milliseconds"][regime]
    ratios = [x / times["crossentropy"] for peer, x in times.items() if not peer.startswith(("copy", "crossentropy"))]
    return f"{digits(min(ratios), 2)} to {digits(max(ratios), 2)}"


def products(shape: str) -> float:
    """Seconds that the three matrix products of a head take, however many rows at a time are fastest."""
    return min(
        x["seconds"] for peer, x in RESULTS["head"]["shapes"][shape].items() if peer.startswith("three products")
    )


def head(shape: str) -> str:
    """Time and memory of a head's loss and gradients."""
    rows = (
        [peer, digits(x["seconds"]), digits(x["seconds"] / products(shape)), f"{x['mebibytes']:.0f}"]
        for peer, x in RESULTS["head"]["shapes"][shape].items()
        if not peer.startswith("one product")
    )
    return table([shape, "seconds", "ratio to the three products at their fastest", "MiB"], rows)


def quantities() -> str:
    """Time and memory of the quantities around the loss: a table for each."""
    family = RESULTS["family"]
    tables = []
    for quantity, times in family["milliseconds"].items():
        ours = times["crossentropy"]
        rows = (
            [peer, digits(ms), digits(ms / ours), f"{family['mebibytes'][quantity][peer]:.0f}"]
            for peer, ms in times.items()
        )
        tables.append(table([quantity, "ms", "ratio to crossentropy", "MiB"], rows))
    return "\n\n".join(tables)


def answers(case: str, group: bool = False) -> list[list[str]]:
    """Who returns which loss and gradient; with `group`, those with equal answers in one row."""
    found = RESULTS["compare"]["cases"][case]
    if not group:
        return [[peer, *answer] for peer, answer in found.items()]
    peers: dict[tuple[str, ...], list[str]] = {}
    for peer, answer in found.items():
        peers.setdefault((peer,) if peer in ("exact", "crossentropy") else tuple(answer), []).append(peer)
    return [[" · ".join(names), *found[names[0]]] for names in peers.values()]


def all_answers() -> str:
    """The answers to every case."""
    rows = []
    for case in RESULTS["compare"]["cases"]:
        rows += [[f"*{case}*", "", ""], *answers(case)]
    return table(["", "value", "gradient"], rows)


def errors() -> str:
    """A table of errors for each instruction set; sets with equal figures share theirs."""
    sets: dict[str, list[str]] = {}
    for instruction_set, dtypes in RESULTS["accuracy"]["errors"].items():
        rows = [
            [dtype, layout, *(f"{largest:.2f} ({percentile:.2f})" for largest, percentile in columns.values())]
            for dtype, layouts in dtypes.items()
            for layout, columns in layouts.items()
        ]
        columns = next(iter(next(iter(dtypes.values())).values()))
        sets.setdefault(table(["dtype", "classes", *columns], rows, left=2), []).append(instruction_set)
    return "\n\n".join(f"**{', '.join(names)}**\n\n{lines}" for lines, names in sets.items())


def option_errors() -> str:
    """A table of the largest errors with options, of any instruction set with fused multiply-adds."""
    of_sets = [found for name, found in RESULTS["accuracy"]["errors with options"].items() if name != "baseline"]
    rows = []
    for option, dtypes in of_sets[0].items():
        for dtype, layouts in dtypes.items():
            cells = [
                f"{max(found[option][dtype][layout][column][0] for found in of_sets):.2f}"
                for layout, columns in layouts.items()
                for column in columns
            ]
            rows.append([option, dtype, *cells])
    layouts = next(iter(next(iter(of_sets[0].values())).values()))
    header = [f"{layout}: {column}" for layout, columns in layouts.items() for column in columns]
    return table(["option", "dtype", *header], rows, left=2)


def largest_error() -> float:
    """Of every function, dtype, layout and instruction set, in ULP."""
    return max(
        largest
        for dtypes in RESULTS["accuracy"]["errors"].values()
        for layouts in dtypes.values()
        for columns in layouts.values()
        for largest, _ in columns.values()
    )


def loops() -> str:
    """Instructions of each kernel's loops, for each instruction set."""
    parts = ("multiplications", "additions", "vectors")
    rows = []
    for name, found in RESULTS["bounds"]["kernels"].items():
        for cpu_name, instruction_set in (("Zen 3", "AVX2"), ("Zen 4", "AVX-512")):
            loop = found[cpu_name]
            counts = (loop.get(part) for part in ("maximum", "exponentials", "output", *parts))
            rows.append([name, instruction_set, *("–" if count is None else digits(count) for count in counts)])
    header = ["", "", "maximum", "exponentials", "output", "multiplications", "additions", "vector instructions"]
    return table(header, rows, left=2)


def cycles() -> str:
    """Bounds on each CPU, and what is reached."""
    kernels = RESULTS["bounds"]["kernels"]
    names = list(RESULTS["bounds"]["cpus"])
    rows = []
    for name, found in kernels.items():
        bounds = (f"{digits(found[cpu]['cycles'])} ({found[cpu]['bound by']})" for cpu in names)
        rows.append([name, *bounds, digits(found["reached"]["cycles"])])
    return table(["", *names, "reached"], rows)


def cpus() -> str:
    """What each CPU starts in a cycle."""
    found = RESULTS["bounds"]["cpus"]
    what = [name for name in next(iter(found.values())) if name != "instruction_set"]
    rows = ([name, *(digits(cpu[key]) for key in what)] for name, cpu in found.items())
    return table(["", *what], rows)


def _sizes(regime: str) -> tuple[int, int]:
    """Rows and classes."""
    rows, classes = map(int, regime.split(" x "))
    return rows, classes


def _draw(axes: Axes, sweep: dict[str, dict[str, float]], along: int) -> None:
    peers = dict.fromkeys(peer for times in sweep.values() for peer in times)
    for i, peer in enumerate(peers):
        points = [(_sizes(regime)[along], times[peer]) for regime, times in sweep.items() if peer in times]
        style = STYLES.get(peer, {"color": f"C{i - len(STYLES)}", "lw": 1.2})
        axes.loglog(*zip(*points, strict=True), marker=".", label=peer, **style)
    axes.set_ylabel("loss and gradient, ms")
    axes.grid(alpha=0.3)


def draw_speed(path: Path) -> None:
    """Time against the number of classes and against the number of rows; the picture says what it is drawn from."""
    found = RESULTS["picture"]
    over_classes, over_rows = found["over classes"], found["over rows"]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, over_classes, 1)
    logits = max(math.prod(_sizes(regime)) for regime in over_classes)
    left.set_xlabel(f"classes C (about {logits / 1e6:.0f} million logits)")
    _draw(right, over_rows, 0)
    right.set_xlabel(f"rows N ({_sizes(next(iter(over_rows)))[1]:,} classes)")
    right.legend(frameon=False, fontsize="small")
    figure.suptitle(f"float32, {found['machine']['threads']} threads, {cpu('picture')}", fontsize="medium")
    figure.savefig(path, dpi=110, metadata={"Description": json.dumps(found)})
