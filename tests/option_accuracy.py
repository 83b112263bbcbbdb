"""Errors of the loss and its gradient with options, against mpmath, in units in the last place.

A soft cap is measured against what its float32 kernels promise: the exact result for differences of capped logits that
are each off by 4 ULP. An exponential whose exponent is x may so be off by 4 (1 + |x|) ULP; its error is divided by that
1 + |x|, and a loss's by the mean of it over the classes that make up the loss's sum.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import accuracy
import mpmath
import numpy as np
from accuracy import FEW_CLASSES, LAYOUTS, PRECISION, Errors, Measured, computed, dtype_of, ulp

OPTIONS = {
    "temperature 0.7": {"temperature": 0.7},
    "temperature 3": {"temperature": 3.0},
    "soft cap 30": {"softcap": 30.0},
    "soft cap 30, temperature 0.7": {"softcap": 30.0, "temperature": 0.7},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "smoothing, class weights": {"label_smoothing": 0.1, "class_weight": True},
}
COLUMNS = ("loss", "gradient")
WIDTHS = (2, 10, 65, 193, 320, 1000, 4500)


class Case(NamedTuple):
    name: str
    logits: np.ndarray  # one row
    target: int


Results = dict[str, tuple[float, np.ndarray]]  # loss and gradient by layout


@cache
def cases(dtype: str) -> tuple[Case, ...]:
    rng = np.random.default_rng(17)

    def made() -> Iterator[tuple[str, np.ndarray]]:
        for width in WIDTHS:
            yield f"normal {width}", 4 * rng.standard_normal(width)
            yield f"far apart {width}", rng.uniform(-60, 60, width)
            yield f"confident {width}", np.r_[90.0, rng.uniform(-2, 2, width - 1)]
            yield f"high {width}", rng.uniform(80, 100, width)

    found = []
    for name, row in made():
        logits = row.astype("float32" if dtype == "float64" else dtype_of(dtype))
        found += [Case(name, logits, target) for target in sorted({int(logits.argmax()), int(rng.integers(row.size))})]
    return tuple(found)


def weights(classes: int) -> np.ndarray:
    return np.random.default_rng(classes).uniform(0.5, 2.0, classes)


def compute(dtype: str) -> dict[str, list[Results]]:
    """For each option, of each case."""
    import crossentropy as ce

    results: dict[str, list[Results]] = {option: [] for option in OPTIONS}
    for _, row, target in cases(dtype):
        z = row.astype(dtype_of(dtype))
        for option, given in OPTIONS.items():
            kwargs = {**given, "class_weight": weights(z.size)} if "class_weight" in given else given
            loss, gradient = ce.cross_entropy_with_grad(z[None], [target], reduction="none", **kwargs)
            pair = np.stack([z, z], axis=1)
            losses, gradients = ce.cross_entropy_with_grad(pair, [target] * 2, axis=0, reduction="none", **kwargs)
            results[option].append(
                {
                    LAYOUTS[z.size <= FEW_CLASSES]: (loss[0], gradient[0]),
                    "strided": (losses[1], gradients[:, 1]),
                }
            )
    return results


Truth = tuple[mpmath.mpf, mpmath.mpf, list[tuple[int, mpmath.mpf, mpmath.mpf]]]


@cache
@mpmath.workprec(PRECISION)
def truth(dtype: str, index: int, option: str) -> Truth:
    """The loss, what 1 ULP of it may be multiplied by; of some classes: the gradient and the size of its terms."""
    if dtype == "float64":
        return truth("float32", index, option)
    _, row, target = cases(dtype)[index]
    given = OPTIONS[option]
    tau, cap, eps = (
        mpmath.mpf(given.get(k, d)) for k, d in (("temperature", 1), ("softcap", 0), ("label_smoothing", 0))
    )
    z = [mpmath.mpf(float(x)) for x in row]
    w = [mpmath.mpf(float(x)) for x in weights(row.size)] if "class_weight" in given else [mpmath.mpf(1)] * row.size
    u = [(cap * mpmath.tanh(x / cap) if cap else x) / tau for x in z]
    top = max(range(len(u)), key=u.__getitem__)
    gaps = [u[top] - x for x in u]
    e = [mpmath.exp(-gap) for gap in gaps]
    r = mpmath.fsum(x for c, x in enumerate(e) if c != top)
    lse_minus_max = mpmath.log1p(r)
    b = [w[c] * (eps / len(u) + (1 - eps if c == target else 0)) for c in range(len(u))]
    loss = mpmath.fsum(b[c] * (gaps[c] + lse_minus_max) for c in range(len(u)))
    slack = 1 + mpmath.fsum(x * gap for x, gap in zip(e, gaps, strict=True)) / (r or 1) if cap else mpmath.mpf(1)
    a = mpmath.fsum(b)
    some = np.unique(np.r_[np.random.default_rng(index).integers(0, row.size, 60), target, top])
    found = []
    for c in map(int, some):
        slope = (1 - mpmath.tanh(z[c] / cap) ** 2 if cap else 1) / tau
        p = e[c] / (1 + r)
        size = max(a * p, b[c]) * slope * (1 + gaps[c] if cap else 1)
        found.append((c, (a * p - b[c]) * slope, size))
    return loss, slack, found


@mpmath.workprec(PRECISION)
def errors(dtype: str, option: str, results: list[Results]) -> dict[str, dict[str, Errors]]:
    """By layout and column."""
    wide = "float64" if dtype == "float64" else "float32"
    smallest = mpmath.mpf(float(np.finfo(wide).smallest_normal))
    noted: dict[str, dict[str, list[tuple[float, str]]]] = {
        layout: {column: [] for column in COLUMNS} for layout in LAYOUTS
    }
    for index, (case, layouts) in enumerate(zip(cases(dtype), results, strict=True)):
        right, slack, of_classes = truth(dtype, index, option)
        for layout, (loss, gradient) in layouts.items():
            columns = noted[layout]
            if right >= smallest:
                error = abs(mpmath.mpf(float(loss)) - right) / slack / ulp(right, wide)
                columns["loss"].append((float(error), case.name))
            for c, exact, size in of_classes:
                if size >= smallest:
                    error = abs(mpmath.mpf(float(gradient[c])) - exact) / ulp(size, dtype)
                    columns["gradient"].append((float(error), case.name))
    return {
        layout: {
            column: Errors(max(found)[0], float(np.percentile([error for error, _ in found], 99)), max(found)[1])
            for column, found in columns.items()
        }
        for layout, columns in noted.items()
    }


def measure(instruction_set: str) -> dict[str, Measured]:
    """The errors of one instruction set, by option."""
    found = computed("option_accuracy", instruction_set)
    return {
        option: {dtype: errors(dtype, option, results[option]) for dtype, results in found.items()}
        for option in OPTIONS
    }


def beyond(options: dict[str, Measured], instruction_set: str) -> list[str]:
    """What misses its goal, in words.

    Without fused multiply-adds a soft cap takes differences of two tanh, which cancel: float64 has no goal there.
    """
    found = []
    for option, dtypes in options.items():
        without = {"float64"} if instruction_set == "baseline" and "soft cap" in option else set()
        with_goal = {dtype: layouts for dtype, layouts in dtypes.items() if dtype not in without}
        found += accuracy.beyond(with_goal, f"{option}, ")
    return found
