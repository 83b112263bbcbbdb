"""Where float32 and float64 fail: the page's marks, run by node, beside what NumPy itself complains of."""

import itertools
import math

import mpmath
import numpy as np
import pytest

import crossentropy as ce

LOGITS = [
    ([20, 0, 0], 0), ([1000, 0], 0), ([1000, 0], 1), ([0, 800], 0), ([0, 800], 1), ([0, 200], 0), ([40, 0, 0], 0),
    ([-1000, -1000], 1), ([-120, -130, -140], 0), ([-2000, 0], 0), ([3, 3, 3], 2), ([88, 88.5, 88.6], 0),
    ([9, -9], 0), ([18, 0], 0), ([2, 1, 0.1], 1), ([-100, 20, 0], 0), ([-100, 20, 0], 1),
]  # fmt: skip
CASES = [(logits, target, dtype) for (logits, target), dtype in itertools.product(LOGITS, ("float32", "float64"))]
WORDS = {  # NumPy's
    "overflow encountered in exp": "overflow",
    "overflow encountered in reduce": "overflow",
    "invalid value encountered in divide": "0/0 or inf/inf",
    "divide by zero encountered in log": "log 0",
}


@pytest.fixture(scope="module")
def found(node):
    results = node([["pitfalls", logits, target] for logits, target in LOGITS])
    return {
        (tuple(logits), target, dtype): result[dtype]
        for (logits, target), result in zip(LOGITS, results, strict=True)
        for dtype in ("float32", "float64")
    }


def textbook(logits, target, dtype):
    """The textbook's loss by NumPy in one precision, and what it complains of at each operation."""
    A, complaints = np.array(logits, dtype), {}

    def quietly(name, operation, *given):
        try:
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                return operation(*given)
        except FloatingPointError as error:
            complaints[name] = WORDS[str(error)]
            with np.errstate(all="ignore"):
                return operation(*given)

    e = quietly("exp", np.exp, A)
    if e[target] == 0:
        complaints["exp"] = "underflow"
    S = quietly("sum", np.sum, e)
    p = quietly("quotient", np.divide, e[target], S)
    return -quietly("log", np.log, p), complaints


@pytest.mark.parametrize(("logits", "target", "dtype"), CASES)
@mpmath.workdps(2000)
def test_textbook(found, logits, target, dtype):
    result = found[tuple(logits), target, dtype]["textbook"]
    loss, complaints = textbook(logits, target, dtype)
    exact = mpmath.log(mpmath.fsum(mpmath.exp(z) for z in np.array(logits, dtype).astype(float))) - logits[target]
    marks = {step["name"]: step["mark"] for step in result["steps"]}
    first = result["steps"][result["first"]]["name"] if result["first"] >= 0 else None
    for name, mark in marks.items():
        if mark == "digits lost":
            assert np.isfinite(loss), name
            assert abs(loss - exact) > 1e-3 * exact
        else:
            assert mark in complaints.get(name, ""), name
            assert bool(mark) == (name in complaints), name
    right = np.isfinite(loss) and abs(loss - exact) <= 1e-3 * exact
    assert right == (first is None) == (result["verdict"] == "")
    if first is not None and complaints:
        assert first == next(iter(sorted(complaints, key=list(marks).index)))
    assert all(mark == "" or list(marks).index(name) >= result["first"] >= 0 for name, mark in marks.items())
    pitfall = next(p for p in ce.explain([logits], [target]).pitfalls() if p.dtype == dtype)
    assert result["verdict"] == pitfall.marks[0]


@pytest.mark.parametrize(("logits", "target", "dtype"), CASES)
def test_stable(found, logits, target, dtype):
    result = found[tuple(logits), target, dtype]["stable"]
    assert (result["first"], result["verdict"]) == (-1, "")
    expected = ce.cross_entropy(np.array([logits], dtype), [target], reduction="none")[0]
    unit = float(np.finfo(dtype).eps)
    assert float(result["steps"][-1]["value"]) == pytest.approx(float(expected), rel=8 * unit)


def test_float32_is_rounded_after_every_operation(found):
    for (_, _, dtype), result in found.items():
        if dtype == "float32":
            for step in result["textbook"]["steps"] + result["stable"]["steps"]:
                values = [float(v) for v in np.ravel(step["value"])]
                assert all(v == float(np.float32(v)) or math.isnan(v) for v in values), step
