"""Errors of every function against mpmath, in units in the last place, for every instruction set.

    python tests/accuracy.py docs/accuracy.md      (make accuracy) writes the table

Logits are float32 numbers in both dtypes, so that one exact answer serves all. An instruction set is chosen at import:
each is measured in a process of its own.
"""

import os
import pickle
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mpmath
import numpy as np

GOAL = 4.0  # ULP, for every column
WIDTHS = (*range(1, 66), 127, 128, 129, 1000, 50257, 1_000_003)
COLUMNS = ("loss", "gradient", "confident", "softmax", "log-softmax", "log-sum-exp")
DTYPES = ("float32", "float64")

mpmath.mp.prec = 120


@dataclass(frozen=True)
class Case:
    name: str
    logits: np.ndarray  # one row, float32
    target: int


@cache
def cases() -> tuple[Case, ...]:
    rng = np.random.default_rng(2026)

    def rows() -> Iterator[tuple[str, np.ndarray]]:
        for width in WIDTHS:
            yield f"normal {width}", 4 * rng.standard_normal(width)
        for width in (2, 3, 10, 64, 129, 1000, 5000):
            yield f"far apart {width}", rng.uniform(-50, 50, width)
            yield f"equal {width}", np.full(width, 0.7)
            yield f"ramp {width}", -np.arange(width) / 13.0
            yield f"offset 1e6 {width}", 1e6 + rng.integers(-20, 20, width) / 16.0
            yield f"confident {width}", np.r_[30.0, rng.uniform(-2, 2, width - 1)]
            yield f"two maxima {width}", np.r_[3.0, 3.0, rng.uniform(-9, 2, width - 2)]
        yield "subnormal", np.array([1e-40, -1e-41, 3e-45, 0.0])
        yield "extreme", np.array([3e38, -3e38, 2.9999e38, 0.0])
        for gap in (1, 5, 10, 17, 18, 25, 40, 60, 86):
            yield f"gap {gap}", np.array([gap, 0.0, 0.0])

    found = []
    for name, row in rows():
        logits = row.astype(np.float32)
        for target in {0, int(logits.argmax()), int(rng.integers(len(logits)))}:
            found.append(Case(name, logits, target))
    return tuple(found)


def compute(dtype: str) -> list[tuple[np.ndarray, ...]]:
    """What the library returns for each case."""
    import crossentropy as ce

    results = []
    for case in cases():
        z = case.logits.astype(dtype)
        loss, gradient = ce.cross_entropy_with_grad(z[None], [case.target], reduction="none")
        results.append((loss, gradient[0], ce.softmax(z), ce.log_softmax(z), ce.logsumexp(z)))
    return results


@dataclass(frozen=True)
class Truth:
    loss: mpmath.mpf
    log_sum_exp: mpmath.mpf
    probabilities: list[mpmath.mpf]  # of the classes checked
    log_probabilities: list[mpmath.mpf]
    rest: mpmath.mpf  # 1 minus the target's probability
    checked: np.ndarray


@cache
def truth(index: int) -> Truth:
    """The exact answer; of a wide row, the probabilities of a few hundred classes."""
    case = cases()[index]
    z = [mpmath.mpf(float(x)) for x in case.logits]
    m = max(z)
    exponentials = [mpmath.exp(x - m) if x - m > -1500 else mpmath.mpf(0) for x in z]
    total = mpmath.fsum(exponentials)
    top = int(case.logits.argmax())
    log_total = mpmath.log1p(mpmath.fsum(e for c, e in enumerate(exponentials) if c != top))
    rng = np.random.default_rng(index)
    checked = np.arange(len(z)) if len(z) <= 400 else np.unique(np.r_[rng.integers(0, len(z), 300), case.target])
    return Truth(
        loss=(m - z[case.target]) + log_total,
        log_sum_exp=m + log_total,
        probabilities=[exponentials[c] / total for c in checked],
        log_probabilities=[z[c] - m - log_total for c in checked],
        rest=mpmath.fsum(e for c, e in enumerate(exponentials) if c != case.target) / total,
        checked=checked,
    )


def ulp(x: mpmath.mpf, dtype: str) -> mpmath.mpf:
    """The distance between floating-point numbers at |x|."""
    info = np.finfo(dtype)
    if x == 0:
        return mpmath.mpf(float(info.smallest_subnormal))
    exponent = max(mpmath.frexp(abs(x))[1] - 1, int(np.floor(np.log2(float(info.smallest_normal)))))
    return mpmath.ldexp(1, exponent - info.nmant)


def errors(dtype: str, results: list[tuple[np.ndarray, ...]]) -> dict[str, tuple[float, str]]:
    """The largest error of each column in ULP, and the case that has it.

    Probabilities below the smallest normal number are left out: they are 0 by design.
    """
    worst = dict.fromkeys(COLUMNS, (0.0, ""))

    def note(column: str, got: float, exact: mpmath.mpf, scale: mpmath.mpf, name: str) -> None:
        error = float(abs(mpmath.mpf(float(got)) - exact) / ulp(scale, dtype))
        if not error <= worst[column][0]:
            worst[column] = (error, name)

    smallest = mpmath.mpf(float(np.finfo(dtype).smallest_normal))
    for index, (case, (loss, gradient, softmax, log_softmax, log_sum_exp)) in enumerate(
        zip(cases(), results, strict=True)
    ):
        exact = truth(index)
        if exact.loss >= smallest:
            note("loss", loss[0], exact.loss, exact.loss, case.name)
        highest = mpmath.mpf(float(case.logits.max()))
        lse_scale = max(abs(highest), exact.log_sum_exp - highest)
        note("log-sum-exp", log_sum_exp, exact.log_sum_exp, lse_scale, case.name)
        for c, p, log_p in zip(exact.checked, exact.probabilities, exact.log_probabilities, strict=True):
            if p < smallest:
                continue
            note("softmax", softmax[c], p, p, case.name)
            if abs(log_p) >= smallest:
                note("log-softmax", log_softmax[c], log_p, log_p, case.name)
            if c != case.target:
                note("gradient", gradient[c], p, p, case.name)
            elif p > 0.5:  # p - 1 loses digits; the gradient must not
                if exact.rest >= smallest:
                    note("confident", gradient[c], -exact.rest, exact.rest, case.name)
            else:
                note("gradient", gradient[c], p - 1, mpmath.mpf(1), case.name)
    return worst


def measure(instruction_set: str) -> dict[str, dict[str, tuple[float, str]]]:
    """The errors of one instruction set, for each dtype."""
    environment = {**os.environ, "CROSSENTROPY_ISA": instruction_set}
    script = (
        "import sys, pickle, accuracy\n"
        "sys.stdout.buffer.write(pickle.dumps([accuracy.compute(dtype) for dtype in accuracy.DTYPES]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, env=environment, stdout=subprocess.PIPE, check=True
    )
    return {dtype: errors(dtype, results) for dtype, results in zip(DTYPES, pickle.loads(done.stdout), strict=True)}


def table(measured: dict[str, dict[str, dict[str, tuple[float, str]]]]) -> str:
    lines = ["| instruction set | dtype | " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * len(COLUMNS)]
    for instruction_set, dtypes in measured.items():
        for dtype, worst in dtypes.items():
            cells = " | ".join(f"{worst[column][0]:.2f}" for column in COLUMNS)
            lines.append(f"| {instruction_set} | {dtype} | {cells} |")
    return "\n".join(lines)


PAGE = """# Accuracy

The largest error against mpmath ({version}, {precision} bits), in units in the last place (ULP) of the logits' dtype.
The goal is {goal:.0f} ULP in every column; `make accuracy` measures anew and writes this page, and the tests assert it.

{table}

Measured on {machine}, {count} cases: widths 1 to 65, 127 to 129, 1000, 50 257 and 1 000 003 of normal logits, and
adversarial rows: logits up to 50 apart, all equal, a ramp, an offset of a million, a confident row, two maxima,
subnormal logits, logits of ±3e38, and gaps from 1 to 86.

- *loss*: of one row, `reduction="none"`.
- *gradient*: of one row, in ULP of the larger of its two terms, the probability and the target's coefficient.
- *confident*: the gradient at a target that has more than half of the probability, in ULP of itself: where `p - 1`
  would lose every digit.
- *softmax*, *log-softmax*: in ULP of themselves; *log-sum-exp*: in ULP of the larger of the largest logit and
  log-sum-exp minus it.

Probabilities below the smallest normal number of the dtype are 0 by design and are left out. In float32 that is a gap
of 87 between logits: float32 itself ends there. A soft cap or a temperature is computed in float64 and is not part of
this table. Half precision is computed as float32 is, and rounded once.
"""


def main(path: str) -> None:
    from crossentropy import _core

    measured = {name: measure(name) for name in _core.available_instruction_sets}
    text = PAGE.format(
        version=mpmath.__version__,
        precision=mpmath.mp.prec,
        goal=GOAL,
        table=table(measured),
        machine=f"{platform.machine()} ({platform.system()})",
        count=len(cases()),
    )
    Path(path).write_text(text)
    print(table(measured))
    for dtypes in measured.values():
        for worst in dtypes.values():
            for column, (error, name) in worst.items():
                if error > GOAL:
                    raise SystemExit(f"{column}: {error:.2f} ULP in case {name!r}, expected at most {GOAL}")


if __name__ == "__main__":
    main(sys.argv[1])
