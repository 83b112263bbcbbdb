"""A soft cap where its formula is at its limits, against mpmath, in every layout."""

import mpmath
import numpy as np
import pytest

import crossentropy as ce

WIDTHS = (5, 193, 4100)  # rows side by side, one row, several blocks of a row


@mpmath.workprec(400)
def exact(row, target, cap, temperature=1.0):
    """Loss, and gradient with the size of its terms."""
    z = [mpmath.mpf(float(x)) for x in row]
    u = [(x if mpmath.isinf(x) else cap * mpmath.tanh(x / cap)) / temperature for x in z]
    m = max(u)
    e = [mpmath.exp(x - m) for x in u]
    total = mpmath.fsum(e)
    slope = [mpmath.mpf(0) if mpmath.isinf(x) else mpmath.sech(x / cap) ** 2 / temperature for x in z]
    gradient = [float((x / total - (c == target)) * s) for c, (x, s) in enumerate(zip(e, slope, strict=True))]
    size = [float(max(x / total, mpmath.mpf(c == target)) * s) for c, (x, s) in enumerate(zip(e, slope, strict=True))]
    return float(mpmath.log(total) + m - u[target]), np.array(gradient), np.array(size)


def computed(row, target, **options):
    """Loss and gradient of a row among others, and with its classes on the first axis."""
    other = np.linspace(-1, 1, row.size).astype(row.dtype)
    for axis in (1, 0):
        z = np.stack([other, row, other], axis=1 - axis)
        losses, gradients = ce.cross_entropy_with_grad(z, [0, target, 0], axis=axis, reduction="none", **options)
        yield losses[1], np.moveaxis(gradients, axis, 1)[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("span", [(-30, 30), (-12, 12), (18, 26), (-26, -18), (-1, 70), (-70, 1), (-1e3, 1e3)])
def test_saturated_logits(dtype, width, span, rng):
    cap = 3.0
    row = (cap * rng.uniform(*span, width)).astype(dtype)
    loss, gradient, size = exact(row, 2, cap)
    for got, dz in computed(row, 2, softcap=cap):
        assert got == pytest.approx(loss, rel=2e-6 if dtype == "float32" else 1e-14)
        # A slope may be given up 40 soft caps from zero.
        np.testing.assert_array_less(abs(dz - gradient), (4e-6 if dtype == "float32" else 1e-14) * size + 1e-33)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", WIDTHS)
def test_infinities_and_nan(dtype, width, rng):
    row = rng.standard_normal(width).astype(dtype)
    row[3] = -np.inf
    loss, gradient, _ = exact(row, 1, 2.0)
    for got, dz in computed(row, 1, softcap=2.0):
        assert got == pytest.approx(loss, rel=1e-6)
        assert dz[3] == 0
        np.testing.assert_allclose(dz, gradient, rtol=1e-5, atol=1e-8)
    for got, dz in computed(row, 3, softcap=2.0):
        assert got == np.inf
        assert np.isfinite(dz).all()
    for bad in (np.inf, np.nan):
        row[4] = bad
        for got, dz in computed(row, 1, softcap=2.0):
            assert np.isnan(got)
            assert np.isnan(dz).all()
    row[:] = -np.inf
    assert all(np.isnan(got) for got, _ in computed(row, 1, softcap=2.0))


@pytest.mark.parametrize("width", WIDTHS)
def test_equal_logits(width):
    for value in (0.0, 7.25, -4.5, 300.0, -300.0):
        row = np.full(width, value, np.float32)
        for got, dz in computed(row, 1, softcap=5.0, temperature=0.5):
            assert got == pytest.approx(np.log(width), rel=1e-7)
            assert len(set(dz.tolist())) == (1 if abs(value) == 300 else 2)


@pytest.mark.parametrize("gap", [1, 5, 20, 40, 58])
@pytest.mark.parametrize("width", WIDTHS)
def test_confident_rows_keep_six_digits(width, gap, rng):
    cap, top = 30.0, 29.0
    below = rng.uniform(-0.9, 0.1, width) + top - gap  # capped
    row = np.r_[top, below[1:]]
    row = (cap * np.arctanh(row / cap)).astype(np.float32)
    loss = exact(row, 0, cap)[0]
    for got, dz in computed(row, 0, softcap=cap):
        assert got == pytest.approx(loss, rel=1e-6)
        assert dz[0] == pytest.approx(exact(row, 0, cap)[1][0], rel=2e-6)


@pytest.mark.parametrize("options", [{"softcap": 9.0}, {"softcap": 9.0, "temperature": 0.7}, {"temperature": 0.7}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_in_place(options, dtype, rng):
    for width in WIDTHS:
        z = (9 * rng.standard_normal((4, width))).astype(dtype)
        t = rng.integers(0, width, 4)
        for given in (options, options | {"label_smoothing": 0.1}):
            loss, dz = ce.cross_entropy_with_grad(z, t, **given)
            own = z.copy()
            assert ce.cross_entropy_with_grad(own, t, out=own, **given)[0] == loss
            np.testing.assert_array_equal(own, dz)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_loss_of_one_class_is_0(dtype):
    for logit in (-1.0, -0.03, 0.0, 0.03, 1.0):
        for cap in (1e-3, 1e3):
            z = np.full((2, 1), logit, dtype)
            loss, dz = ce.cross_entropy_with_grad(z, [0, 0], softcap=cap, temperature=0.7)
            assert loss == 0.0
            assert not dz.any()
