"""Errors of every function against mpmath, in units in the last place: every dtype, layout and instruction set.

    python tests/accuracy.py build/results/accuracy.json      (make accuracy)

An instruction set is chosen at import: each is measured in a process of its own.
"""

import json
import os
import pickle
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import mpmath
import numpy as np

WIDTHS = (*range(1, 66), 127, 128, 129, 191, 192, 193, 1000, 50257)
COLUMNS = ("loss", "gradient", "confident", "softmax", "log-softmax", "log-sum-exp")
DTYPES = ("float16", "bfloat16", "float32", "float64")
FEW_CLASSES = 192  # up to here contiguous classes are computed side by side
LAYOUTS = ("rows", "few classes", "strided")
PRECISION = 120  # bits of mpmath


def dtype_of(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def goal(dtype: str, column: str) -> float:
    """In ULP: of float32 for what half precision returns in float32, else of the dtype."""
    return 1.0 if dtype_of(dtype).itemsize == 2 and column not in ("loss", "log-sum-exp") else 4.0


@cache
def rows() -> tuple[tuple[str, np.ndarray], ...]:
    """Logits, one row each, before they are rounded to a dtype."""
    rng = np.random.default_rng(2026)

    def made() -> Iterator[tuple[str, np.ndarray]]:
        for width in WIDTHS:
            yield f"normal {width}", 4 * rng.standard_normal(width)
        for width in (2, 3, 10, 64, 129, 1000, 5000):
            yield f"far apart {width}", rng.uniform(-50, 50, width)
            yield f"equal {width}", np.full(width, 0.7)
            yield f"ramp {width}", -np.arange(width) / 13.0
            yield f"offset 1e6 {width}", 1e6 + rng.integers(-20, 20, width) / 16.0
            yield f"confident {width}", np.r_[30.0, rng.uniform(-2, 2, width - 1)]
            yield f"confident and tiny {width}", np.r_[30.0, rng.uniform(-1e-3, 1e-3, width - 1)]
            yield f"two maxima {width}", np.r_[3.0, 3.0, rng.uniform(-9, 2, width - 2)]
        yield "subnormal", np.array([1e-40, -1e-41, 3e-45, 0.0])
        yield "extreme", np.array([3e38, -3e38, 2.9999e38, 0.0])
        for gap in (1, 5, 10, 17, 18, 25, 40, 60, 86):
            yield f"gap {gap}", np.array([gap, 0.0, 0.0])
        yield "normal 1000003", 4 * rng.standard_normal(1_000_003)

    return tuple(made())


class Case(NamedTuple):
    name: str
    logits: np.ndarray  # one row
    targets: tuple[int, ...]


@cache
def cases(dtype: str) -> tuple[Case, ...]:
    """float64 logits are float32 numbers, so that both have the same exact answers."""
    found = []
    for i, (name, row) in enumerate(rows()):
        with np.errstate(over="ignore"):
            logits = row.astype("float32" if dtype == "float64" else dtype_of(dtype))
        if not np.isfinite(logits.astype(float)).all() or (dtype_of(dtype).itemsize == 2 and row.size > 100_000):
            continue  # beyond float16; a row of a million is summed as float32 is
        chosen = {0, int(logits.argmax()), int(np.random.default_rng(i).integers(row.size))}
        found.append(Case(name, logits, tuple(sorted(chosen))))
    return tuple(found)


Results = tuple[np.ndarray, ...]


def compute(dtype: str) -> list[dict[str, list[Results]]]:
    """What the library returns: for each case and layout, for each target."""
    import crossentropy as ce

    results = []
    for case in cases(dtype):
        z = case.logits.astype(dtype_of(dtype))
        contiguous = LAYOUTS[z.size <= FEW_CLASSES]
        found: dict[str, list[Results]] = {contiguous: []}
        for target in case.targets:
            loss, gradient = ce.cross_entropy_with_grad(z[None], [target], reduction="none")
            found[contiguous].append((loss[0], gradient[0], ce.softmax(z), ce.log_softmax(z), ce.logsumexp(z)))
            if z.size > 10_000:
                continue  # so many classes are not strided in practice
            pair = np.stack([z, z], axis=1)
            loss, gradient = ce.cross_entropy_with_grad(pair, [target] * 2, axis=0, reduction="none")
            functions = (ce.softmax(pair, axis=0), ce.log_softmax(pair, axis=0))
            found.setdefault("strided", []).append(
                (loss[1], gradient[:, 1], *(f[:, 1] for f in functions), ce.logsumexp(pair, axis=0)[1])
            )
        results.append(found)
    return results


class Truth(NamedTuple):
    log_sum_exp: mpmath.mpf
    checked: np.ndarray  # the classes that are looked at: of a wide row, a few hundred
    probabilities: list[mpmath.mpf]
    log_probabilities: list[mpmath.mpf]
    others: list[mpmath.mpf]  # the other classes' probabilities together


@cache
@mpmath.workprec(PRECISION)
def truth(dtype: str, index: int) -> Truth:
    if dtype == "float64":
        return truth("float32", index)
    case = cases(dtype)[index]
    z = [mpmath.mpf(float(x)) for x in case.logits]
    m = max(z)
    exponentials = [mpmath.exp(x - m) if x - m > -1500 else mpmath.mpf(0) for x in z]
    total = mpmath.fsum(exponentials)
    top = int(case.logits.argmax())
    beside_top = mpmath.fsum(e for c, e in enumerate(exponentials) if c != top)
    log_total = mpmath.log1p(beside_top)
    some = np.random.default_rng(index).integers(0, len(z), 300)
    checked = np.arange(len(z)) if len(z) <= 400 else np.unique(np.r_[some, case.targets])
    return Truth(
        m + log_total,
        checked,
        [exponentials[c] / total for c in checked],
        [z[c] - m - log_total for c in checked],
        [(beside_top if c == top else total - exponentials[c]) / total for c in checked],
    )


def ulp(x: mpmath.mpf, dtype: str) -> mpmath.mpf:
    """The distance between floating-point numbers at |x|."""
    info = ml_dtypes.finfo(dtype_of(dtype))
    if x == 0:
        return mpmath.mpf(float(info.smallest_subnormal))
    exponent = max(mpmath.frexp(abs(x))[1] - 1, int(np.floor(np.log2(float(info.smallest_normal)))))
    return mpmath.ldexp(1, exponent - info.nmant)


class Errors(NamedTuple):
    """Of one column, in ULP."""

    largest: float
    percentile: float  # the 99th
    name: str  # of the case that has the largest


Measured = dict[str, dict[str, dict[str, Errors]]]  # by dtype, layout and column


def _note(
    columns: dict[str, list[tuple[float, str]]],
    name: str,
    column: str,
    got: float,
    right: mpmath.mpf,
    scale: mpmath.mpf,
    unit: str,
) -> None:
    """An error of a case, in ULP of `scale` in the dtype `unit`."""
    error = float(abs(mpmath.mpf(float(got)) - right) / ulp(scale, unit))
    columns[column].append((error, name))


@mpmath.workprec(PRECISION)
def errors(dtype: str, results: list[dict[str, list[Results]]]) -> dict[str, dict[str, Errors]]:
    """By layout and column. Probabilities below the smallest normal number are left out: they are 0 by design."""
    found: dict[str, dict[str, list[tuple[float, str]]]] = {
        layout: {column: [] for column in COLUMNS} for layout in LAYOUTS
    }
    smallest = mpmath.mpf(float(ml_dtypes.finfo(dtype_of(dtype)).smallest_normal))
    wide = "float64" if dtype == "float64" else "float32"  # of losses
    smallest_loss = mpmath.mpf(float(np.finfo(wide).smallest_normal))
    for index, (case, layouts) in enumerate(zip(cases(dtype), results, strict=True)):
        exact = truth(dtype, index)
        highest = mpmath.mpf(float(case.logits.max()))
        for layout, of_targets in layouts.items():
            note = partial(_note, found[layout], case.name)
            for target, (loss, gradient, softmax, log_softmax, log_sum_exp) in zip(
                case.targets, of_targets, strict=True
            ):
                at_target = int(np.searchsorted(exact.checked, target))
                right_loss = -exact.log_probabilities[at_target]
                if right_loss >= smallest_loss:
                    note("loss", loss, right_loss, right_loss, wide)
                note(
                    "log-sum-exp", log_sum_exp, exact.log_sum_exp, max(abs(highest), exact.log_sum_exp - highest), wide
                )
                for c, p, log_p, others in zip(
                    exact.checked, exact.probabilities, exact.log_probabilities, exact.others, strict=True
                ):
                    if p < smallest:
                        continue
                    note("softmax", softmax[c], p, p, dtype)
                    if abs(log_p) >= smallest:
                        note("log-softmax", log_softmax[c], log_p, log_p, dtype)
                    if c != target:
                        note("gradient", gradient[c], p, p, dtype)
                    elif p > 0.5:  # p - 1 loses digits; the gradient must not
                        if others >= smallest:
                            note("confident", gradient[c], -others, others, dtype)
                    else:
                        note("gradient", gradient[c], p - 1, mpmath.mpf(1), dtype)
    return {
        layout: {
            column: Errors(max(noted)[0], float(np.percentile([error for error, _ in noted], 99)), max(noted)[1])
            for column, noted in columns.items()
        }
        for layout, columns in found.items()
    }


def computed(module: str, instruction_set: str) -> dict[str, Any]:
    """What the `compute` of this or another module returns for each dtype, with one instruction set."""
    environment = {**os.environ, "CROSSENTROPY_ISA": instruction_set}
    script = (
        f"import sys, pickle, accuracy, {module}\n"
        f"sys.stdout.buffer.write(pickle.dumps({{dtype: {module}.compute(dtype) for dtype in accuracy.DTYPES}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, env=environment, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, Any] = pickle.loads(done.stdout)
    return found


def measure(instruction_set: str) -> Measured:
    """The errors of one instruction set."""
    return {dtype: errors(dtype, results) for dtype, results in computed("accuracy", instruction_set).items()}


def main(path: Path) -> None:
    import option_accuracy

    from crossentropy import _core

    with_options = {name: option_accuracy.measure(name) for name in _core.available_instruction_sets}
    measured = {name: measure(name) for name in _core.available_instruction_sets}
    figures = {
        "mpmath": mpmath.__version__,
        "precision": PRECISION,
        "machine": f"{platform.machine()} ({platform.system()})",
        "rows": len(cases("float32")),
        "goal": goal("float32", "loss"),
        "goal of half precision": goal("float16", "gradient"),
        "errors": {
            instruction_set: {
                dtype: {
                    layout: {column: [round(x, 2) for x in found[:2]] for column, found in columns.items()}
                    for layout, columns in layouts.items()
                }
                for dtype, layouts in dtypes.items()
            }
            for instruction_set, dtypes in measured.items()
        },
        "rows with options": len(option_accuracy.cases("float32")),
        "errors with options": {
            instruction_set: {
                option: {
                    dtype: {
                        layout: {column: [round(x, 2) for x in found[:2]] for column, found in columns.items()}
                        for layout, columns in layouts.items()
                    }
                    for dtype, layouts in dtypes.items()
                }
                for option, dtypes in options.items()
            }
            for instruction_set, options in with_options.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    for instruction_set, dtypes in measured.items():
        for dtype, layouts in dtypes.items():
            for layout, columns in layouts.items():
                largest = ", ".join(f"{column} {found.largest:.2f}" for column, found in columns.items())
                print(f"{instruction_set}, {dtype}, {layout}: {largest}")
    for instruction_set, dtypes in measured.items():
        for found in (*beyond(dtypes), *option_accuracy.beyond(with_options[instruction_set], instruction_set)):
            raise SystemExit(f"{instruction_set}: {found}")
    print(f"figures in {path}")


def beyond(dtypes: Measured, option: str = "") -> list[str]:
    """What misses its goal, in words."""
    return [
        f"{option}{dtype}, {layout}, {column}: {found.largest:.2f} ULP in case {found.name!r}, "
        f"goal {goal(dtype, column)}"
        for dtype, layouts in dtypes.items()
        for layout, columns in layouts.items()
        for column, found in columns.items()
        if not found.largest <= goal(dtype, column)
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
