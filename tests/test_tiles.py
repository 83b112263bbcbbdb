"""Rows side by side: few classes, or a class axis that is not the last."""

import mpmath
import numpy as np
import pytest

import crossentropy as ce

CLASSES = (1, 2, 3, 4, 5, 10, 33, 192)
OPTIONS = (
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0},
    {"label_smoothing": 0.1, "class_weight": True},
    {"label_smoothing": 0.1, "sample_weight": True, "z_loss": 0.01},
    {"label_smoothing": 0.1, "temperature": 0.7},
    {"label_smoothing": 0.1, "entropy_bonus": 0.1},
    {"temperature": 0.7},
    {"temperature": 3.0, "class_weight": True, "sample_weight": True},
)


def problem(classes, options, dtype, rng, rows=70):
    """Logits with classes last, targets of which some do not count, and options with their weights."""
    z = (4 * rng.standard_normal((rows, classes))).astype(dtype)
    t = rng.integers(0, classes, rows)
    t[rng.random(rows) < 0.1] = -100
    z[t == -100] = np.nan
    given = dict(options)
    if "class_weight" in given:
        given["class_weight"] = rng.random(classes) + 0.1
    if "sample_weight" in given:
        given["sample_weight"] = np.where(rng.random(rows) < 0.2, 0.0, rng.random(rows))
    return z, t, given


def strided(z, t, given):
    """The same with the class axis in the middle."""
    rows, classes = z.shape
    shape = (2, rows // 2)
    given = {n: x.reshape(shape) if n == "sample_weight" else x for n, x in given.items()}
    return np.moveaxis(z.reshape(*shape, classes), -1, 1).copy(), t.reshape(shape), given


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_side_by_side(options, dtype, rng):
    for classes in CLASSES:
        z, t, given = problem(classes, options, dtype, rng)
        exact = ce.reference.cross_entropy_with_grad(z.astype(float), t, reduction="none", **given)
        weights = {name: x for name, x in given.items() if name.endswith("weight")}
        # The gradient's terms are a p and b: those of a row are no larger than this.
        size = max(1.0, max(map(np.max, weights.values()), default=1.0)) * 1.2 / options.get("temperature", 1.0)
        few = {np.float16: np.float32}.get(dtype, dtype)  # losses of half precision are float32
        for layout in (lambda *same: same, strided):
            loss, dlogits = ce.cross_entropy_with_grad(
                *(placed := layout(z, t, given))[:2],
                axis=-1 if layout is not strided else 1,
                reduction="none",
                **placed[2],
            )
            dlogits = dlogits if layout is not strided else np.moveaxis(dlogits, 1, -1).reshape(z.shape)
            np.testing.assert_allclose(loss.ravel(), exact[0], rtol=8 * np.finfo(few).eps, atol=8 * np.finfo(few).eps)
            np.testing.assert_allclose(
                dlogits, exact[1], rtol=2 * np.finfo(dtype).eps, atol=4 * np.finfo(few).eps * size
            )


def exact_smoothed(z, target, epsilon):
    """Loss and gradient of a row with smoothed targets, in 300 bits."""
    with mpmath.workprec(300):
        u = [mpmath.mpf(float(x)) for x in z]
        top = max(u)
        e = [mpmath.exp(x - top) for x in u]
        total = mpmath.fsum(e)
        lse = top + mpmath.log(total)
        b = [mpmath.mpf(epsilon) / len(u) + (1 - mpmath.mpf(epsilon)) * (c == target) for c in range(len(u))]
        loss = mpmath.fsum(bc * (lse - uc) for bc, uc in zip(b, u, strict=True))
        return loss, [ec / total - bc for ec, bc in zip(e, b, strict=True)]


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_smoothed_gradient_at_the_maximum_keeps_its_digits(dtype, axis, rng):
    eps = float(np.finfo(dtype).eps)
    for classes, epsilon in ((2, 1e-6), (5, 1e-3), (10, 0.1), (100, 1e-9)):
        for target in (0, 1):
            # The others' probability is nearly what the smoothing leaves them: the two terms at the maximum cancel.
            rest = np.log(epsilon * (classes - 1) / classes / (classes - 1))
            z = np.array([0.0, *np.full(classes - 1, rest) + 0.1 * rng.standard_normal(classes - 1)], dtype)
            loss, gradient = exact_smoothed(z, target, epsilon)
            found, dlogits = ce.cross_entropy_with_grad(
                z.reshape(1, -1) if axis else z.reshape(-1, 1), [target], axis=axis, label_smoothing=epsilon
            )
            assert found == pytest.approx(float(loss), rel=4 * eps)
            terms = 2 * epsilon / classes if target == 0 else 1
            np.testing.assert_allclose(dlogits.ravel()[0], float(gradient[0]), rtol=0, atol=4 * eps * terms * classes)
            np.testing.assert_allclose(dlogits.ravel(), [float(g) for g in gradient], rtol=0, atol=4 * eps)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nothing_is_written_around_the_gradient(classes, dtype, rng):
    """Rows of few classes are written four elements at a time; a row's bits do not depend on those beside it."""
    for rows in (*range(1, 9), 31, 32, 33, 63, 64, 65, 100):
        z, t = rng.standard_normal((rows, classes)).astype(dtype), rng.integers(0, classes, rows)
        whole = np.full(rows * classes + 64, 7.0, dtype)
        out = whole[32:-32].reshape(rows, classes)
        ce.cross_entropy_with_grad(z, t, reduction="sum", out=out)
        assert (whole[:32] == 7).all()
        assert (whole[-32:] == 7).all()
        for row in {0, rows // 2, rows - 1}:
            alone = ce.cross_entropy_with_grad(z[row : row + 1], t[row : row + 1], reduction="sum")[1]
            assert alone.tobytes() == out[row : row + 1].tobytes()
        in_place = z.copy()
        ce.cross_entropy_with_grad(in_place, t, reduction="sum", out=in_place)
        assert in_place.tobytes() == out.tobytes()


@pytest.mark.parametrize("axis", [-1, 0])
def test_smoothed_rows_with_infinite_or_equal_logits(axis):
    rows = np.array(
        [[0, -np.inf, 1], [2, 2, 2], [2, 2, -1], [3e38, -3e38, 1], [np.nan, 0, 1], [np.inf, 0, 1], [-np.inf] * 3],
        np.float32,
    )
    t = [0, 1, 2, 0, 0, 1, 2]
    z = rows if axis else rows.T
    loss, dlogits = ce.cross_entropy_with_grad(z, t, axis=axis, label_smoothing=0.1, reduction="none")
    exact, gradient = ce.reference.cross_entropy_with_grad(rows.astype(float), t, label_smoothing=0.1, reduction="none")
    np.testing.assert_allclose(loss, exact.astype(np.float32), rtol=1e-6)
    np.testing.assert_allclose(dlogits if axis else dlogits.T, gradient, rtol=1e-6, atol=1e-7)
    assert loss[0] == np.inf
    assert np.isfinite(dlogits if axis else dlogits.T)[:4].all()
