"""Binary cross-entropy: mpmath, the reference, and every edge case."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from binary_oracle import exact, ulps

import crossentropy as ce

SIZES = [0.0, 1e-30, 1e-6, 0.01, 0.3, 0.7, 1.0, 2.5, 8.0, 17.0, 40.0, 87.0]
WIDE = [100.0, 700.0, 708.0]
SOFT = [0.0, 1.0, 0.5, 0.1, 1e-6, 0.999]
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
HALVES = DTYPES[:2]


def cases(dtype, sizes, targets):
    z = np.array([s * size for size in sizes for s in (1, -1)]).astype(dtype)
    z, y = np.meshgrid(z, np.array(targets, np.float64).astype(dtype))
    return z.ravel(), y.ravel()


def worst(z, y, dtype, **options):
    """The largest errors of losses and gradients, in ULP."""
    losses, dlogits = ce.binary_cross_entropy_with_grad(z, y, reduction="none", **options)
    given = {"pos_weight": "w", "label_smoothing": "eps", "focal_gamma": "gamma"}
    named = {given[name]: value for name, value in options.items()}
    errors = []
    for a, b, loss, gradient in zip(z, y, losses, dlogits, strict=True):
        expected = exact(a, b, **named)
        of = [max(float(expected[0]), np.finfo(dtype).tiny), max(float(expected[2]), np.finfo(dtype).tiny)]
        errors.append((ulps(loss, expected[0], of[0], dtype), ulps(gradient, expected[1], of[1], dtype)))
    return np.max(errors, axis=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"pos_weight": 3.0}, {"label_smoothing": 0.1, "pos_weight": 0.3}], ids=str)
def test_every_digit(dtype, options):
    z, y = cases(dtype, SIZES if dtype == np.float32 else SIZES + WIDE, SOFT)
    assert (worst(z, y, dtype, **options) <= 4).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal(dtype, gamma):
    """Its factor is (1 - p)^gamma: of float32 it is computed in float64; in float64 log(1 - p) counts gamma times."""
    z, y = cases(dtype, SIZES[:-1] if dtype == np.float32 else SIZES[:-2], SOFT)
    assert (worst(z, y, dtype, focal_gamma=gamma) <= (2 if dtype == np.float32 else 4 + 17 * gamma)).all()


def test_focal_with_everything(rng):
    z, y = 3 * rng.standard_normal(30), rng.random(30)
    assert (worst(z, y, np.float64, focal_gamma=1.5, pos_weight=2.0, label_smoothing=0.2) <= 20).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_tails_beside_the_obvious(dtype):
    """What others return 0 for."""
    assert ce.binary_cross_entropy(dtype(-40), 0) == pytest.approx(float(exact(-40, 0)[0]), rel=1e-6)
    assert ce.binary_cross_entropy(dtype(40), 1) == pytest.approx(float(exact(40, 1)[0]), rel=1e-6)
    assert ce.binary_cross_entropy_with_grad(dtype(40), 1)[1] == pytest.approx(float(exact(40, 1)[1]), rel=1e-6)


def test_targets_that_float32_does_not_hold():
    """1 - y comes from all digits of y, whatever the dtype of the logits."""
    y = np.array([1 - 1e-12, 1e-12])
    z = np.array([30, -30], np.float32)
    losses, dlogits = ce.binary_cross_entropy_with_grad(z, y, reduction="none")
    expected = [exact(a, b) for a, b in zip(z, y, strict=True)]
    np.testing.assert_allclose(losses, [float(e[0]) for e in expected], rtol=3e-7)
    assert (np.abs(dlogits - [float(e[1]) for e in expected]) <= 3e-7 * np.array([float(e[2]) for e in expected])).all()


def random_problem(rng, shape, dtype, targets_dtype=np.float32):
    z = (4 * rng.standard_normal(shape)).astype(dtype)
    return z, (rng.random(shape) < 0.3 if np.dtype(targets_dtype).kind in "iub" else rng.random(shape)).astype(
        targets_dtype
    )


def check_with_reference(z, y, out=None, **options):
    loss, dlogits = ce.binary_cross_entropy_with_grad(z, y, **options)
    wide = {
        name: np.asarray(value, np.float64) if isinstance(value, np.ndarray) else value
        for name, value in options.items()
    }
    expected, gradient = ce.reference.binary_cross_entropy_with_grad(
        np.asarray(z).astype(np.float64), np.asarray(y).astype(np.float64), **wide
    )
    eps = float(ml_dtypes.finfo(dlogits.dtype).eps)
    np.testing.assert_allclose(
        loss, expected, rtol=8 * max(eps if eps < 1e-10 else 0, np.finfo(np.float32).eps), atol=1e-30
    )
    largest = np.abs(gradient).max(initial=0.0)
    np.testing.assert_allclose(dlogits.astype(np.float64), gradient, rtol=8 * eps, atol=4 * eps * largest)
    assert np.shape(dlogits) == np.shape(z)
    return loss, dlogits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "targets_dtype",
    [*DTYPES, bool, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, ">f4", ">i4"],
)
def test_dtypes(dtype, targets_dtype, rng):
    z, y = random_problem(rng, 77, dtype, targets_dtype)
    loss, dlogits = check_with_reference(z, y)
    assert type(loss) is float
    assert dlogits.dtype == dtype
    losses = ce.binary_cross_entropy(z, y, reduction="none")
    assert losses.dtype == (np.float64 if dtype == np.float64 else np.float32)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (31,), (32,), (33,), (129,), (2, 3, 5), (300, 70)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_shapes(shape, dtype, reduction, rng):
    z, y = random_problem(rng, shape, dtype)
    loss, _ = check_with_reference(z, y, reduction=reduction)
    assert np.shape(loss) == (shape if reduction == "none" else ())


BROADCAST = [(), (1,), (5,), (4, 1), (4, 5), (3, 4, 5), (3, 1, 1), (3, 1, 5), (1, 4, 1), (3, 4, 1)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weights_dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("of", BROADCAST)
def test_weights_broadcast(dtype, weights_dtype, of, rng):
    z, y = random_problem(rng, (3, 4, 5), dtype)
    weights = (4 * rng.random(of) + (weights_dtype == np.int64)).astype(weights_dtype)
    for name, reduction in itertools.product(("pos_weight", "sample_weight"), ("mean", "none")):
        check_with_reference(z, y, reduction=reduction, **{name: weights})


def test_weights_of_many_elements(rng):
    """More than a chunk, and than a block of one task."""
    z, y = random_problem(rng, (90, 701), np.float32)
    for of in ((), (701,), (90, 1), (90, 701)):
        check_with_reference(z, y, pos_weight=rng.random(of), sample_weight=rng.random(of))


def test_numbers_as_weights():
    assert ce.binary_cross_entropy([1.0], [1], pos_weight=3) == pytest.approx(3 * ce.binary_cross_entropy([1.0], [1]))
    assert ce.binary_cross_entropy([1.0], [1], sample_weight=3) == pytest.approx(ce.binary_cross_entropy([1.0], [1]))


def test_extreme_weights(rng):
    """They need not fit into the logits' dtype."""
    z, y = random_problem(rng, 50, np.float32)[0], np.ones(50)
    for weight in (1e90, 1e-90):
        loss, dlogits = ce.binary_cross_entropy_with_grad(z, y, pos_weight=weight, grad_output=1 / weight)
        expected, gradient = ce.reference.binary_cross_entropy_with_grad(
            z, y, pos_weight=weight, grad_output=1 / weight
        )
        assert loss == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(dlogits, gradient, rtol=1e-6)
        check_with_reference(z, y, sample_weight=np.full(50, weight))


def test_upstream_gradient(rng):
    z, y = random_problem(rng, (40, 7), np.float32)
    each = rng.standard_normal((40, 7))
    check_with_reference(z, y, grad_output=each, reduction="none")
    check_with_reference(z, y, grad_output=-2.5)
    huge = np.full(z.shape, 1e38)  # some products are beyond float32
    found = ce.binary_cross_entropy_with_grad(z, y, reduction="none", grad_output=10 * huge)[1]
    expected = ce.reference.binary_cross_entropy_with_grad(z, y, reduction="none", grad_output=huge)[1]
    np.testing.assert_array_equal(np.isinf(found), np.abs(expected) > 3.4028235e37)
    dlogits = ce.reference.binary_cross_entropy_with_grad(z.astype(np.float16), y)[1]
    scaled = ce.binary_cross_entropy_with_grad(z.astype(np.float16), y, grad_output=2.0**16)[1]
    np.testing.assert_allclose(scaled, 2.0**16 * dlogits, rtol=1e-3)
    for bad in (np.inf, np.nan):
        found = ce.binary_cross_entropy_with_grad([1.0, 2.0], [1, 0], sample_weight=[0, 1], grad_output=bad)[1]
        np.testing.assert_array_equal(found, [0, np.nan])


def test_infinite_logits():
    z = np.array([np.inf, np.inf, np.inf, -np.inf, -np.inf, -np.inf])
    y = np.array([1, 0, 0.25, 0, 1, 0.25])
    for dtype, gamma in itertools.product(DTYPES, (0.0, 2.0)):
        losses, dlogits = ce.binary_cross_entropy_with_grad(z.astype(dtype), y, reduction="none", focal_gamma=gamma)
        np.testing.assert_array_equal(losses, [0, np.inf, np.inf, 0, np.inf, np.inf])
        soft = np.array([0.75, 0.25]) ** (1 + gamma)
        np.testing.assert_allclose(dlogits.astype(float), [0, 1, soft[0], 0, -1, -soft[1]], rtol=1e-2)
    # A coefficient of 0 removes its term.
    assert ce.binary_cross_entropy(-np.inf, 1.0, pos_weight=0.0) == 0
    assert ce.binary_cross_entropy(np.float32(np.inf), 1.0, pos_weight=0.0) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_nan_stays_in_its_element(dtype, gamma):
    for bad in range(40):
        z, y = np.ones(40).astype(dtype), np.ones(40)
        z[bad] = np.nan
        losses, dlogits = ce.binary_cross_entropy_with_grad(z, y, reduction="none", focal_gamma=gamma)
        for array in (losses, dlogits.astype(np.float32)):
            np.testing.assert_array_equal(np.isnan(array), np.arange(40) == bad)
        y[bad], z[bad] = np.inf, 1
        losses, dlogits = ce.binary_cross_entropy_with_grad(z, y, reduction="none", focal_gamma=gamma)
        np.testing.assert_array_equal(np.isnan(losses), np.arange(40) == bad)
        assert np.isnan(ce.binary_cross_entropy(z, y, focal_gamma=gamma))


def test_nan_is_canonical():
    z = np.array([-np.nan, np.nan, 1, 1], np.float32)
    losses, dlogits = ce.binary_cross_entropy_with_grad(z, [1, 0, np.inf, -np.inf], reduction="none")
    assert (losses.view(np.uint32) == 0x7FC00000).all()
    assert (dlogits.view(np.uint32) == 0x7FC00000).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_elements_that_do_not_count(dtype, rng):
    z, y = random_problem(rng, 50, dtype, np.float64)
    s = (np.arange(50) % 3 != 0).astype(float)
    expected = ce.binary_cross_entropy(z[s != 0], y[s != 0])
    z[::3], y[::3] = [np.nan, np.inf, -np.inf][z.size % 3], np.nan
    loss, dlogits = ce.binary_cross_entropy_with_grad(z, y, sample_weight=s)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert (dlogits[::3] == 0).all()
    assert (dlogits[1::3] != 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_counted(dtype):
    for z, options in (
        (np.full((2, 3), np.nan), {"sample_weight": 0.0}),
        (np.full((2, 3), np.nan), {"sample_weight": np.zeros(3)}),
        (np.zeros((0, 3)), {}),
    ):
        loss, dlogits = ce.binary_cross_entropy_with_grad(z.astype(dtype), np.zeros(z.shape), **options)
        assert loss == 0.0
        assert (dlogits == 0).all()


def test_focal_targets_outside():
    losses = ce.binary_cross_entropy([1.0, 1.0, 1.0], [1.5, -0.5, 0.5], focal_gamma=1.0, reduction="none")
    np.testing.assert_array_equal(np.isnan(losses), [True, True, False])
    check_with_reference(np.array([1.0, 1.0]), np.array([1.5, -0.5]))  # without it, the definition


def test_no_gamma_is_plain(rng):
    z, y = random_problem(rng, 100, np.float32)
    plain = ce.binary_cross_entropy_with_grad(z, y)
    focal = ce.binary_cross_entropy_with_grad(z, y, focal_gamma=1e-300)
    assert focal[0] == pytest.approx(plain[0], rel=1e-6)
    np.testing.assert_allclose(focal[1], plain[1], rtol=1e-6, atol=1e-9)


def test_against_two_classes(rng):
    """A logit is the difference of those of two classes."""
    z, y = random_problem(rng, 200, np.float64, np.int64)
    two = np.stack([np.zeros(200), z], -1)
    loss, dlogits = ce.cross_entropy_with_grad(two, y, label_smoothing=0.1)
    found = ce.binary_cross_entropy_with_grad(z, y, label_smoothing=0.1)
    assert found[0] == pytest.approx(loss, rel=1e-14)
    np.testing.assert_allclose(found[1], dlogits[:, 1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_out(dtype, rng):
    z, y = random_problem(rng, (60, 50), dtype)
    loss, expected = ce.binary_cross_entropy_with_grad(z, y)
    out = np.empty_like(z)
    assert ce.binary_cross_entropy_with_grad(z, y, out=out)[1] is out
    np.testing.assert_array_equal(out, expected)
    strided = np.empty((50, 120), dtype)[:, ::2].T
    ce.binary_cross_entropy_with_grad(z, y, out=strided)
    np.testing.assert_array_equal(strided, expected)
    in_place = z.copy()
    assert ce.binary_cross_entropy_with_grad(in_place, y, out=in_place)[0] == loss
    np.testing.assert_array_equal(in_place, expected)
    for array in (np.asfortranarray(z), np.repeat(z, 2, 1)[:, ::2], z[::-1][::-1]):
        np.testing.assert_array_equal(ce.binary_cross_entropy_with_grad(array, np.asfortranarray(y))[1], expected)
    fixed = z.copy()
    fixed.flags.writeable = False
    np.testing.assert_array_equal(ce.binary_cross_entropy_with_grad(fixed, y)[1], expected)


def test_wrong_out(rng):
    z, y = random_problem(rng, 8, np.float32)
    double = np.zeros(16, np.float32)
    double[:8] = z
    read_only = np.zeros(8, np.float32)
    read_only.flags.writeable = False
    for out in (np.zeros(8), np.zeros(7, np.float32), y, read_only, [0.0] * 8):
        before = y.copy()
        with pytest.raises(ValueError, match=r"^out: expected"):
            ce.binary_cross_entropy_with_grad(z, y, out=out)
        np.testing.assert_array_equal(y, before)
    with pytest.raises(ValueError, match=r"^out: expected"):
        ce.binary_cross_entropy_with_grad(double[:8], y, out=double[4:12])
    weights = np.ones(8, np.float32)
    with pytest.raises(ValueError, match=r"^out: expected memory of its own"):
        ce.binary_cross_entropy_with_grad(z, y, sample_weight=weights, out=weights)


Z, T = np.zeros((2, 3), np.float32), np.ones((2, 3))


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"targets": np.ones(3)}, ValueError, r"targets: expected the shape of the logits, \(2, 3\), got \(3,\)"),
        ({"targets": np.ones((2, 1))}, ValueError, r"targets: expected the shape of the logits, \(2, 3\)"),
        (
            {"targets": T.astype(complex)},
            TypeError,
            "targets: expected numbers of a real or boolean dtype, got complex",
        ),
        ({"targets": T.astype(str)}, TypeError, "targets: expected numbers"),
        ({"targets": np.ma.masked_array(T)}, TypeError, "targets: expected a dense array without a mask"),
        ({"logits": Z.astype(bool)}, TypeError, "logits: expected float16, bfloat16, float32, float64 or integers"),
        ({"logits": Z.astype(complex)}, TypeError, "logits: expected"),
        ({"pos_weight": -1.0}, ValueError, "pos_weight: expected weights of at least 0, got -1"),
        ({"pos_weight": np.inf}, ValueError, "pos_weight: expected finite weights"),
        ({"pos_weight": np.float32(np.nan)}, ValueError, "pos_weight: expected finite weights"),
        ({"pos_weight": 1e101}, ValueError, "pos_weight: expected finite weights"),
        ({"pos_weight": np.ones(2)}, ValueError, r"pos_weight: expected a number or an array that broadcasts to shape"),
        ({"pos_weight": np.ones((1, 2, 3))}, ValueError, "pos_weight: expected a number or an array that broadcasts"),
        ({"pos_weight": "many"}, TypeError, "pos_weight: expected an array of numbers"),
        ({"sample_weight": -1.0}, ValueError, "reduction: expected 'sum' or 'none' for weights"),
        ({"sample_weight": [1, np.nan, 1]}, ValueError, "sample_weight: expected finite weights"),
        (
            {"sample_weight": np.ones((3, 2))},
            ValueError,
            "sample_weight: expected a number or an array that broadcasts",
        ),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing: expected"),
        ({"label_smoothing": "much"}, TypeError, "label_smoothing: expected"),
        ({"focal_gamma": -1.0}, ValueError, "focal_gamma: expected"),
        ({"focal_gamma": np.inf}, ValueError, "focal_gamma: expected"),
        ({"focal_gamma": True}, TypeError, "focal_gamma: expected"),
        ({"reduction": "average"}, ValueError, "reduction: expected"),
        ({"num_threads": 0}, ValueError, "num_threads: expected"),
        ({"axis": 1}, TypeError, "axis"),
        ({"grad_output": np.ones((2, 3))}, ValueError, "grad_output: expected a number"),
        ({"grad_output": np.ones(3), "reduction": "none"}, ValueError, "grad_output: expected a number or an array"),
    ],
    ids=str,
)
def test_errors(given, error, match):
    given = {"logits": Z, "targets": T} | given
    with pytest.raises(error, match=match):
        ce.binary_cross_entropy_with_grad(given.pop("logits"), given.pop("targets"), **given)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_module(dtype, reduction, rng):
    z, y = random_problem(rng, (20, 3), dtype)
    s = rng.random((20, 1))
    criterion = ce.BinaryCrossEntropyLoss(pos_weight=[1, 2, 3], label_smoothing=0.1, reduction=reduction)
    given = {"pos_weight": [1, 2, 3], "label_smoothing": 0.1, "sample_weight": s, "reduction": reduction}
    loss, expected = ce.binary_cross_entropy_with_grad(z, y, **given)
    upstream = 3.0 if reduction == "mean" else rng.random((20, 3))
    scaled = ce.binary_cross_entropy_with_grad(z, y, grad_output=upstream, **given)[1]
    np.testing.assert_array_equal(criterion(z, y, s), loss)
    z[:], y[:], s[:] = 0, 0, 1
    np.testing.assert_array_equal(criterion.backward(), expected)
    np.testing.assert_allclose(criterion.backward(upstream).astype(float), scaled.astype(float), rtol=2e-7)
    with pytest.raises(ValueError, match="targets: expected"):
        criterion(z, y[:1])
    with pytest.raises(RuntimeError, match="backward: call forward"):
        criterion.backward()
