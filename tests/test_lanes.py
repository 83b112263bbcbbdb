"""Every lane: widths around the lane counts, special values at each position, confident rows at each position."""

import numpy as np
import pytest
from mpmath import mp, mpf

import crossentropy as ce

AROUND = sorted({n + d for n in (8, 16, 32, 64, 128, 192, 256, 2048, 4096, 8192) for d in (-1, 0, 1)} | {1, 2, 3})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", AROUND)
def test_widths_around_every_lane_count(classes, dtype, rng):
    z = (2 * rng.standard_normal((3, classes))).astype(dtype)
    eps = float(np.finfo(dtype).eps)
    for targets in (np.array([0, classes - 1, classes // 2]), rng.random((3, classes))):
        for options in ({}, {"label_smoothing": 0.2}, {"softcap": 3.0}):
            loss, dlogits = ce.cross_entropy_with_grad(z, targets, **options)
            exact, dexact = ce.reference.cross_entropy_with_grad(z, targets, **options)
            assert loss == pytest.approx(exact, rel=4 * eps)
            np.testing.assert_allclose(dlogits, dexact, rtol=8 * eps, atol=4 * eps * np.abs(dexact).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [5, 33, 97, 192, 193, 300])
def test_special_values_at_every_position(classes, dtype):
    quiet = np.linspace(-1, 1, classes).astype(dtype)
    z = np.tile(quiet, (classes, 1))
    every = np.arange(classes)
    for special in (np.nan, np.inf):
        z[every, every] = special
        losses, dlogits = ce.cross_entropy_with_grad(z, np.zeros(classes, int), reduction="none")
        assert np.isnan(losses).all()
        assert np.isnan(dlogits).all()
        assert np.isnan(ce.softmax(z)).all()
        assert np.isnan(ce.log_softmax(z)).all()
        np.testing.assert_array_equal(ce.logsumexp(z), np.full(classes, special, dtype))
    z[every, every] = -np.inf
    losses, dlogits = ce.cross_entropy_with_grad(z, (every + 1) % classes, reduction="none")
    assert np.isfinite(losses).all()
    assert (dlogits[every, every] == 0).all()
    assert (ce.softmax(z)[every, every] == 0).all()
    assert (ce.log_softmax(z)[every, every] == -np.inf).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [3, 33, 97, 192, 193, 300, 4200])
def test_the_maximum_keeps_its_digits_at_every_position(classes, dtype):
    """The gradient at a confident target is minus the sum of the other probabilities, not p - 1 = 0."""
    positions = np.arange(classes) if classes < 400 else np.arange(0, classes, 37)
    z = np.zeros((len(positions), classes), dtype)
    z[np.arange(len(positions)), positions] = 50
    losses, dlogits = ce.cross_entropy_with_grad(z, positions, reduction="none")
    rest = (classes - 1) * np.exp(-50.0)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(losses, rest, rtol=4 * eps)
    np.testing.assert_allclose(dlogits[np.arange(len(positions)), positions], -rest, rtol=4 * eps)


def ulps(got, exact, scale):
    spacing = np.spacing(np.float32(abs(float(scale))))
    return float(abs(mpf(float(got)) - exact) / mpf(float(spacing)))


OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "weighted": {"class_weight": [0.25, 2.0, 0.5], "sample_weight": [3.0]},
    "z-loss": {"z_loss": 1e-4},
    "all": {"label_smoothing": 0.1, "class_weight": [0.25, 2.0, 0.5], "sample_weight": [3.0], "z_loss": 1e-4},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", ["index", "float one-hot", "integer one-hot"])
@pytest.mark.parametrize("width", [3, 200])
@mp.workprec(150)
def test_confident_rows(kind, options, width):
    """[gap, 0, 0] in float32, gap 1 to 86, within 4 ULP of mpmath; others return exactly 0 from a gap of 18 on.

    The wide rows are the same three logits and as many -inf.
    """
    eps, zeta = mpf(options.get("label_smoothing", 0.0)), mpf(options.get("z_loss", 0.0))
    w = [mpf(x) for x in options.get("class_weight", [1.0] * 3)]
    s = mpf(options.get("sample_weight", [1.0])[0])
    given = dict(options)
    if width > 3:
        given["class_weight"] = np.r_[options.get("class_weight", [1.0] * 3), np.zeros(width - 3)]
    for gap in range(1, 87):
        z = np.full((1, width), -np.inf, np.float32)
        z[0, :3] = [gap, 0, 0]
        targets = {"index": [0], "float one-hot": np.eye(1, width), "integer one-hot": np.eye(1, width, dtype=int)}[
            kind
        ]
        loss, dlogits = ce.cross_entropy_with_grad(z, targets, reduction="sum", **given)

        u = [mpf(gap), mpf(0), mpf(0)]
        r = 2 * mp.exp(-gap)
        log_total = mp.log1p(r)
        lse = gap + log_total
        omega = w[0] if kind == "index" else mpf(1)
        b = [w[c] * ((1 - eps) * (c == 0) + eps / width) for c in range(3)]
        exact = s * (sum(b[c] * ((gap - u[c]) + log_total) for c in range(3)) + zeta * omega * lse**2)
        assert ulps(loss, exact, exact) <= 4, (gap, loss, exact)

        tail = 2 * zeta * omega * lse
        at_target = s * ((b[1] + b[2]) - b[0] * r + tail) / (1 + r)
        scale = max(abs(s * (b[1] + b[2]) / (1 + r)), abs(s * b[0] * r / (1 + r)), abs(s * tail / (1 + r)))
        assert ulps(dlogits[0, 0], at_target, at_target if options in ({}, OPTIONS["weighted"]) else scale) <= 4
        for c in (1, 2):
            p = mp.exp(u[c] - gap) / (1 + r)
            term = s * (sum(b) + tail) * p
            assert ulps(dlogits[0, c], term - s * b[c], max(term, s * b[c])) <= 4
        assert loss > 0
        assert dlogits[0, 0] != 0
        if gap >= 18 and options == {}:
            assert np.float32(1) + np.float32(r) == 1, "the sum as textbooks take it has lost r"


def test_beyond_the_range_of_float32():
    """Above a gap of 87 float32 itself ends: the probabilities of the others are zero."""
    loss, dlogits = ce.cross_entropy_with_grad(np.array([[88, 0, 0]], np.float32), [0])
    assert loss == 0
    assert (dlogits == 0).all()
    assert ce.cross_entropy(np.array([[700.0, 0, 0]]), [0]) == pytest.approx(2 * np.exp(-700), rel=1e-15)


@pytest.mark.parametrize("classes", [4, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_apart_shifted_and_subnormal(classes, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    for values in ([1e4, -1e4, 0, 5], [1e6 + 1, 1e6, 1e6 - 2, 1e6], [3e38, -3e38, 3e38, 0], [tiny, 0, -tiny, 3 * tiny]):
        z = np.full((4, classes), -np.inf, dtype)
        z[:, :4] = values
        targets = np.arange(4)
        losses, dlogits = ce.cross_entropy_with_grad(z, targets, reduction="none")
        exact, dexact = ce.reference.cross_entropy_with_grad(z, targets, reduction="none")
        with np.errstate(over="ignore"):
            exact = exact.astype(dtype)
        eps = float(np.finfo(dtype).eps)
        np.testing.assert_allclose(losses, exact, rtol=4 * eps)
        np.testing.assert_allclose(dlogits, dexact, rtol=4 * eps, atol=eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["index", "one-hot", "smoothed"])
@pytest.mark.parametrize("second", [1, 31, 100, 5000, 8999])
def test_two_maxima_wherever_they_are(second, kind, dtype, rng):
    """In one vector, one block or two: then neither has the formula of a unique maximum."""
    z = rng.uniform(-9, 2, (2, 9000)).astype(dtype)
    z[:, [0, second]] = 12
    targets = np.array([0, second])
    options = {"label_smoothing": 0.1} if kind == "smoothed" else {}
    given = np.eye(9000)[targets] if kind == "one-hot" else targets
    loss, dlogits = ce.cross_entropy_with_grad(z, given, **options)
    exact, dexact = ce.reference.cross_entropy_with_grad(z, given, **options)
    eps = float(np.finfo(dtype).eps)
    assert loss == pytest.approx(exact, rel=4 * eps)
    np.testing.assert_allclose(dlogits, dexact, rtol=8 * eps, atol=2 * eps)
