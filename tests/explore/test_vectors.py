"""The page's own mathematics, run by node, beside `explain`: every number, its text, and what fails in float32."""

import math

import mpmath
import numpy as np
import pytest

import crossentropy as ce
from crossentropy._explain._notation import number

EXTREMES = [
    ([[1000.0, 0.0]], [0]),
    ([[1000.0, 0.0]], [1]),
    ([[0.0, 800.0]], [0]),
    ([[20.0, 0.0, 0.0]], [0]),
    ([[40.0, 0.0, 0.0], [0.0, 40.0, 0.0]], [0, 0]),
    ([[-745.0, 0.0, -710.0]], [1]),
    ([[3.0, 3.0, 3.0]], [2]),
    ([[5.0, 5.0, -5.0, 5.0]], [3]),
    ([[10000.0, -10000.0], [9999.0, 10000.0]], [1, 0]),
    ([[2.0, 1.0, 0.1]], [[0.0, 0.5, 0.5]]),
    ([[0.0, 30.0, 60.0]], [[1.0, 0.0, 0.0]]),
]
OF_ROWS = ("q", "smoothed", "u", "m", "shifted", "e", "r", "S", "lse", "p", "rest", "log_p", "losses")
OF_ALL = ("dtotal", "dmean", "dlogits", "total", "mean", "loss")


def state(logits, targets, **options):
    names = [f"class {c}" for c in range(len(logits[0]))]
    given = {
        "temperature": 1,
        "label_smoothing": 0,
        "reduction": "mean",
        "rate": 1,
        "trace": [],
        "names": names,
        "row": 0,
        "entry": [0, 0],
    }
    return given | {"logits": logits, "targets": targets} | options


def random_state(rng):
    N, C = int(rng.integers(1, 9)), int(rng.integers(2, 11))
    logits = rng.choice([0.1, 1, 5, 30, 1000]) * rng.standard_normal((N, C))
    if rng.random() < 0.2:
        logits = logits.round()  # ties
    targets = rng.integers(0, C, N)
    if rng.random() < 0.4:
        targets = rng.random((N, C)) * rng.integers(0, 2, (N, C))
        targets[targets.sum(-1) == 0] = 1
        targets /= targets.sum(-1, keepdims=True)
    return state(
        np.clip(logits, -10000, 10000).tolist(),
        targets.tolist(),
        temperature=float(rng.choice([1, 1, 0.05, 0.7, 3, 20])),
        label_smoothing=float(rng.choice([0, 0, 0.1, 1])),
        reduction=str(rng.choice(["mean", "sum"])),
    )


@pytest.fixture(scope="module")
def states():
    rng = np.random.default_rng(0)
    extremes = [
        state(*given, **options)
        for given in EXTREMES
        for options in ({}, {"reduction": "sum"}, {"temperature": 2.0}, {"label_smoothing": 0.1})
    ]
    return extremes + [random_state(rng) for _ in range(300)]


@pytest.fixture(scope="module")
def explained(states):
    options = ("temperature", "label_smoothing", "reduction")
    return [ce.explain(s["logits"], s["targets"], **{name: s[name] for name in options}) for s in states]


@pytest.fixture(scope="module")
def computed(states, node):
    return node([["numbers", s] for s in states])


def largest_terms(x):
    """Of each number of an explanation the largest term in the sum that it is; the number itself where it is none."""
    tau, eps, N = x.options.temperature, x.options.label_smoothing, len(x.u)
    C = x.u.shape[1]
    top = np.arange(C) == x.u.argmax(-1)[:, None]
    of_logits = np.maximum(np.abs(x.u), np.abs(x.m)[:, None])
    # The library divides the differences of the logits by the temperature, the page takes differences of u: they are
    # the same where the division is exact, else the exponents' terms count, in the exponentials by their factor.
    exact = math.frexp(tau)[0] == 0.5
    exponent = np.abs(x.shifted) if exact else of_logits
    factor = 1.0 if exact else np.maximum(1, of_logits.max(-1, keepdims=True))
    others = np.where(top, 0, x.smoothed).sum(-1, keepdims=True)
    at_top = np.maximum(others, x.smoothed * x.r[:, None] * factor) / x.S[:, None]
    dtotal = np.where(top, at_top, np.maximum(x.p * factor, x.smoothed)) / tau
    log_S = np.log1p(x.r)[:, None]
    losses = np.maximum((x.smoothed * exponent).max(-1), (log_S * factor)[:, 0])
    size = {name: np.abs(getattr(x, name)) for name in OF_ROWS}
    changed = {
        "smoothed": np.maximum((1 - eps) * x.q, eps / C),
        "shifted": of_logits,
        "rest": np.where(top, x.rest, 1),
        "lse": np.maximum(np.abs(x.m), log_S[:, 0]),
        "log_p": np.maximum(np.abs(x.shifted), log_S),
        "losses": losses,
        "total": losses.max(),
        "mean": losses.max() / N,
        "dtotal": dtotal,
        "dmean": dtotal / N,
    }
    reduced = ("mean", "dmean") if x.options.reduction == "mean" else ("total", "dtotal")
    return size | changed | {"loss": changed[reduced[0]], "dlogits": changed[reduced[1]]}


def assert_near(found, expected, largest, what):
    found, expected = np.array(found, dtype=float), np.asarray(expected, dtype=float)
    assert found.shape == expected.shape, what
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite], err_msg=str(what))
    tolerance = np.maximum(1e-12 * np.broadcast_to(largest, expected.shape), 1e-300)
    wrong = finite & ~(np.abs(found - np.where(finite, expected, 0)) <= tolerance)
    assert not wrong.any(), (what, found[wrong], expected[wrong])


@pytest.mark.parametrize("name", [*OF_ROWS, *OF_ALL])
def test_number(states, explained, computed, name):
    for s, x, found in zip(states, explained, computed, strict=True):
        assert_near(found[name], getattr(x, name), largest_terms(x)[name], (name, s))


def test_derivation(states, explained, computed):
    for s, x, found in zip(states, explained, computed, strict=True):
        for i in range(len(x.u)):
            d = x.derivation(i, 0)
            largest = np.abs(d.jacobian)
            np.fill_diagonal(largest, d.p)  # p·(1 − p) is p − p²
            assert_near(found["jacobian"][i], d.jacobian, largest, ("jacobian", s))
            assert_near(found["ratio"][i], d.ratio, d.ratio, ("ratio", s))
            with np.errstate(invalid="ignore"):
                terms = np.where(d.b == 0, 0, d.ratio)[:, None] * largest
            assert_near(found["product"][i], d.product, np.nan_to_num(terms).max(0), ("product", s))


@mpmath.workdps(50)
def test_entropy_perplexity_and_bits(states, explained, computed):
    for s, x, found in zip(states, explained, computed, strict=True):
        for row, entropy in zip(x.smoothed, found["entropy"], strict=True):
            terms = [-mpmath.mpf(float(b)) * mpmath.log(float(b)) for b in row if b > 0]
            assert_near(entropy, float(mpmath.fsum(terms)), float(max(map(abs, terms))), ("entropy", s))
        largest = float(largest_terms(x)["mean"])
        assert_near(found["bits"], float(x.mean / mpmath.log(2)), largest, ("bits", s))
        perplexity = float(mpmath.exp(x.mean))
        assert_near(found["perplexity"], perplexity, perplexity * max(1, largest), ("perplexity", s))


def test_step(states, explained, node):
    moved = node([["step", s | {"rate": 0.5}] for s in states])
    for s, x, found in zip(states, explained, moved, strict=True):
        expected = np.clip(x.logits - 0.5 * x.dlogits, -10000, 10000)
        largest = np.maximum(np.abs(x.logits), largest_terms(x)["dlogits"])
        assert_near(found["logits"], expected, largest, ("step", s))
        assert_near(found["trace"], [x.loss], largest_terms(x)["loss"], ("trace", s))
        assert {**found, "logits": 0, "trace": 0} == {**s, "rate": 0.5, "logits": 0, "trace": 0}


def test_trace_keeps_the_last_steps(node):
    (found,) = node([["step", state([[0.0, 1.0]], [0], trace=list(range(200)))]])
    assert found["trace"] == [*range(1, 200), pytest.approx(math.log(1 + math.e))]


def test_text_of_numbers(explained, node):
    rng = np.random.default_rng(0)
    random = rng.choice([-1, 1], 20_000) * 10.0 ** rng.uniform(-12, 12, 20_000)
    ties = [n / 2**k for k in range(1, 12) for n in range(1, 4000, 7)] + [n * 5000.0 for n in range(200, 4000)]
    edges = [float(f"{digits}e{power}") for digits in (1, 9.99499999, 9.995, 9.9999999, 5) for power in range(-9, 10)]
    edges += [float(np.nextafter(x, to)) for x in edges for to in (0, np.inf)]
    of_lessons = [v for x in explained for name in ("p", "dlogits", "losses") for v in np.ravel(getattr(x, name))]
    numbers = [*random, *ties, *edges, *of_lessons, 0.0, -0.0, 1e308, 5e-324]
    numbers = [float(v) for v in numbers] + [-float(v) for v in ties]
    for x, text in zip(numbers, node([["number", x] for x in numbers]), strict=True):
        assert text == number(x), x
    logits = state([[1000.0, 0.0]], [1], temperature=0.05)
    (found,) = node([["numbers", logits]])
    assert (found["perplexity"], number(math.inf)) == ("Infinity", "∞")
