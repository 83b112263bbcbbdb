"""Sparse targets with a remainder: what is left off the K classes is one class of its own."""

import mpmath
import numpy as np
import pytest

import crossentropy as ce

SHAPES = [((6, 7), -1), ((4, 193), -1), ((2, 9000), -1), ((3, 10, 5), 1)]


def exact(z, t, q, mass, z_loss=0.0):
    """Loss and gradient of one row, and the size of the gradient's terms."""
    with mpmath.workprec(300):
        z = [mpmath.mpf(float(x)) for x in z]
        m = max(z)
        e = [mpmath.exp(x - m) for x in z]
        total, named = mpmath.fsum(e), set(map(int, t))
        rest = mpmath.fsum(x for c, x in enumerate(e) if c not in named)
        lse = m + mpmath.log(total)
        q, mass = [mpmath.mpf(float(x)) for x in q], mpmath.mpf(float(mass))
        loss = mpmath.fsum(x * (lse - z[c]) for c, x in zip(map(int, t), q, strict=True) if x)
        loss += (-mass * mpmath.log(rest / total) if mass else 0) + z_loss * lse**2
        a = mpmath.fsum(q) + mass + 2 * z_loss * lse
        gradient, size = [], []
        for c, x in enumerate(e):
            b = mpmath.fsum(y for i, y in zip(map(int, t), q, strict=True) if i == c) if c in named else mass * x / rest
            gradient.append(float(a * x / total - b))
            size.append(float(max(a * x / total, b)))
        return float(loss), np.array(gradient), np.array(size)


def of_rows(shape, axis, dtype, k, rng):
    z = (4 * rng.standard_normal(shape)).astype(dtype)
    last = np.moveaxis(z, axis, -1)
    t = np.argsort(-last.astype(float) + rng.standard_normal(last.shape), -1)[..., :k]
    q = np.sort(rng.dirichlet(np.ones(k + 1), last.shape[:-1]), -1)[..., ::-1]
    return z, last, t, q[..., :k], q[..., k]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_definition(shape, axis, dtype, rng):
    z, last, t, q, mass = of_rows(shape, axis, dtype, 3, rng)
    t[0, ..., 1] = t[0, ..., 0]  # a class that is named twice
    unit = float(np.finfo(np.float64 if dtype == np.float64 else np.float32).eps)
    for z_loss in (0.0, 1e-3):
        targets = ce.TopKTargets(np.moveaxis(t, -1, axis), np.moveaxis(q, -1, axis), remainder=mass)
        losses, dz = ce.cross_entropy_with_grad(z, targets, axis=axis, reduction="none", z_loss=z_loss)
        dz = np.moveaxis(dz, axis, -1).astype(float)
        for row in [(0,) * mass.ndim, tuple(n - 1 for n in mass.shape)]:
            loss, gradient, size = exact(last[row], t[row], q[row], mass[row], z_loss)
            assert losses[row] == pytest.approx(loss, rel=4 * unit)
            allowed = 6 * unit * size + float(np.finfo(dtype).eps) * np.abs(gradient)
            assert (np.abs(dz[row] - gradient) <= allowed + float(np.finfo(dtype).smallest_subnormal)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gap", [10, 40, 80])
def test_where_the_named_classes_lead_the_rest_keeps_its_digits(gap, dtype):
    z = np.linspace(-1, 1, 500).astype(dtype)
    z[[3, 77]] += dtype(gap)
    for q, mass in (([0.75, 0.25], 0.0), ([0.75, 0.125], 0.125), ([1.0, 0.0], 1e-20)):
        targets = ce.TopKTargets([3, 77], q, remainder=mass)
        loss, dz = ce.cross_entropy_with_grad(z, targets)
        right, gradient, size = exact(z, [3, 77], q, mass)
        eps = float(np.finfo(dtype).eps)
        assert loss == pytest.approx(right, rel=4 * eps)
        assert (np.abs(dz - gradient) <= 6 * eps * size).all()
        if mass == 0:  # nothing else pulls on the rest
            others = np.delete(dz, [3, 77])
            assert (others > 0).all()


def test_the_bucket_is_what_is_left_of_one(rng):
    z, _, t, q, mass = of_rows((8, 50), -1, np.float64, 4, rng)
    given = ce.cross_entropy_with_grad(z, ce.TopKTargets(t, q, remainder=mass))
    bucket = ce.cross_entropy_with_grad(z, ce.TopKTargets(t, q, remainder="bucket"))
    assert bucket[0] == pytest.approx(given[0], rel=1e-14)
    np.testing.assert_allclose(bucket[1], given[1], rtol=1e-12, atol=1e-16)
    # Minus the entropy of the masses it is never negative, and 0 where the model has the same masses.
    p = ce.softmax(z)
    own = np.take_along_axis(p, t, -1)
    left = np.array([np.delete(row, i).sum() for row, i in zip(p, t, strict=True)])
    loss = ce.cross_entropy(z, ce.TopKTargets(t, own, remainder=left), reduction="none")
    H = -(own * np.log(own)).sum(-1) - left * np.log(left)
    np.testing.assert_allclose(loss, H, rtol=1e-13)


def test_a_remainder_of_nothing_is_the_loss_without(rng):
    z, _, t, q, _ = of_rows((5, 40), -1, np.float64, 3, rng)
    with_none = ce.cross_entropy_with_grad(z, ce.TopKTargets(t, q, remainder=np.zeros(5)), reduction="none")
    ignored = ce.cross_entropy_with_grad(z, ce.TopKTargets(t, q), reduction="none")
    np.testing.assert_allclose(with_none[0], ignored[0], rtol=1e-14)
    np.testing.assert_allclose(with_none[1], ignored[1], rtol=1e-13, atol=1e-16)


def test_rounded_probabilities_may_exceed_one_a_little():
    z = [[3.0, 1.0, 0.0, -1.0]]
    over = [[0.75, 0.25 + 1e-7]]
    loss = ce.cross_entropy(z, ce.TopKTargets([[0, 1]], over, remainder="bucket"))
    assert loss == pytest.approx(ce.cross_entropy(z, ce.TopKTargets([[0, 1]], over)), rel=1e-15)
    with pytest.raises(ValueError, match=r"^targets: expected .* add up to at most 1.*got 1\.1 in row 0"):
        ce.cross_entropy(z, ce.TopKTargets([[0, 1]], [[0.85, 0.25]], remainder="bucket"))


def test_edge_cases(rng):
    inf, nan = np.inf, np.nan
    named = np.array([[0, 1]])

    def of(row, q=(0.5, 0.25), mass=0.25):
        loss, dz = ce.cross_entropy_with_grad([row], ce.TopKTargets(named, [q], remainder=[mass]))
        return loss, dz[0]

    for row in ([nan, 0, 0, 0], [0, 0, nan, 0], [inf, 0, 0, 0], [0, 0, 0, inf], [-inf] * 4):
        loss, dz = of(row)
        assert np.isnan(loss)
        assert np.isnan(dz).all()
    loss, dz = of([0, 1, -inf, -inf])  # no rest, but a mass for it
    assert loss == inf
    assert np.isfinite(dz).all()
    assert (dz[2:] == 0).all()
    assert np.isfinite(of([0, 1, -inf, -inf], mass=0.0)[0])
    assert of([-inf, 1, 0, 0])[0] == inf  # a named class of probability 0
    assert np.isfinite(of([-inf, 1, 0, 0], q=(0.0, 0.75))[0])
    # Empty slots name no class, and a row of them alone does not count.
    t, q = np.array([[0, -100], [-100, -100]]), np.array([[0.5, 0.0], [0.0, 0.0]])
    z = rng.standard_normal((2, 4))
    z[1] = nan
    losses, dz = ce.cross_entropy_with_grad(z, ce.TopKTargets(t, q, remainder="bucket"), reduction="none")
    assert losses[0] == pytest.approx(exact(z[0], [0], [0.5], 0.5)[0], rel=1e-14)
    assert losses[1] == 0
    assert not dz[1].any()


def test_all_classes_named(rng):
    z, q = rng.standard_normal((3, 4)), rng.dirichlet(np.ones(4), 3)
    t = np.broadcast_to(np.arange(4), (3, 4))
    loss, dz = ce.cross_entropy_with_grad(z, ce.TopKTargets(t, q, remainder="bucket"))
    right, gradient = ce.cross_entropy_with_grad(z, q)
    assert loss == pytest.approx(right, rel=1e-13)
    np.testing.assert_allclose(dz, gradient, rtol=1e-12, atol=1e-16)


def test_in_place_threads_and_head(rng):
    z, _, t, q, mass = of_rows((9, 300), -1, np.float32, 5, rng)
    targets = ce.TopKTargets(t, q, remainder=mass)
    loss, dz = ce.cross_entropy_with_grad(z, targets)
    copy = z.copy()
    for num_threads in (1, 4):
        copy[...] = z
        assert ce.cross_entropy_with_grad(copy, targets, out=copy, num_threads=num_threads)[0] == loss
        assert copy.tobytes() == dz.tobytes()
    weights = rng.random(9)
    weights[2] = 0
    of_head, gradients = ce.linear_cross_entropy_with_grad(
        z, np.eye(300, dtype=np.float32), targets, sample_weight=weights, max_logits_bytes=5000
    )
    right, dz = ce.cross_entropy_with_grad(z, targets, sample_weight=weights)
    assert of_head == pytest.approx(right, rel=1e-6)
    np.testing.assert_allclose(gradients.hidden, dz, rtol=1e-5, atol=1e-9)
    long = rng.standard_normal((1, 700_000)).astype(np.float32)  # whose blocks threads share
    found = [
        ce.cross_entropy_with_grad(long, ce.TopKTargets([[5]], [[0.5]], remainder="bucket"), num_threads=n)
        for n in (1, 3)
    ]
    assert found[0][0] == found[1][0]
    assert found[0][1].tobytes() == found[1][1].tobytes()


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"remainder": "rest"}, {}, "^remainder: expected 'ignore', 'bucket' or an array of masses, got 'rest'"),
        ({"remainder": np.ones(3)}, {}, r"^remainder: expected masses of shape \(2,\), got shape \(3,\)"),
        ({"remainder": [0.5, -0.5]}, {}, r"^remainder: expected finite masses of at least 0, got -0\.5 in row 1"),
        ({"remainder": [0.5, np.nan]}, {}, r"^remainder: expected finite masses of at least 0, got nan in row 1"),
        ({"remainder": "bucket", "renormalize": True}, {}, "^renormalize: expected False with a remainder"),
        ({"remainder": "bucket"}, {"class_weight": np.ones(3)}, "^class_weight: expected none for TopKTargets"),
        ({"remainder": "bucket"}, {"label_smoothing": 0.1}, "^label_smoothing: expected none for TopKTargets"),
        ({"remainder": "bucket"}, {"entropy_bonus": 0.1}, "^entropy_bonus: expected none for TopKTargets"),
    ],
)
def test_errors(changed, options, message):
    targets = ce.TopKTargets([[0], [1]], [[0.5], [0.5]], **changed)
    with pytest.raises(ValueError, match=message):
        ce.cross_entropy(np.zeros((2, 3)), targets, **options)
    with pytest.raises(ValueError, match=message):
        ce.linear_cross_entropy(np.zeros((2, 3)), np.eye(3), targets, **options)


def test_what_is_given_by_mistake():
    z, q = np.zeros((1, 3)), np.array([[0.5, 0.25]])
    with pytest.raises(
        ValueError, match=r"in row 0: are these their logarithms\? Then np\.exp\(probabilities\) would do"
    ):
        ce.cross_entropy(z, ce.TopKTargets([[0, 1]], np.log(q), remainder="bucket"))
    with pytest.raises(TypeError, match=r"^renormalize: expected True or False, got 'bucket'$"):
        ce.cross_entropy(z, ce.TopKTargets([[0, 1]], q, "bucket"))  # it is the fourth argument


def test_second_derivatives(rng):
    """Against differences of the gradient."""
    z, _, t, q, mass = of_rows((3, 6), -1, np.float64, 2, rng)
    targets, v = ce.TopKTargets(t, q, remainder=mass), rng.standard_normal((3, 6))
    step = 1e-5

    def gradient(z):
        return ce.cross_entropy_with_grad(z, targets, softcap=8.0, temperature=0.8)[1]

    product = ce.cross_entropy_hvp(z, targets, v, softcap=8.0, temperature=0.8)
    np.testing.assert_allclose(product, (gradient(z + step * v) - gradient(z - step * v)) / (2 * step), atol=1e-9)
    diagonal = ce.cross_entropy_hessian_diagonal(z, targets, softcap=8.0, temperature=0.8)[2]
    for c in range(6):
        e = np.zeros((3, 6))
        e[:, c] = 1
        np.testing.assert_allclose(
            diagonal[:, c], ce.cross_entropy_hvp(z, targets, e, softcap=8.0, temperature=0.8)[:, c], atol=1e-12
        )


@pytest.mark.parametrize("last", [None, -np.inf])
@pytest.mark.parametrize("mass", [0.0, 0.25])
def test_second_derivatives_where_no_class_is_left(last, mass, rng):
    z, v, q = rng.standard_normal((2, 3)), rng.standard_normal((2, 3)), np.array([[0.2, 0.3, 0.5]] * 2) * (1 - mass)
    p = ce.softmax(z)
    product, diagonal = p * (v - (p * v).sum(-1, keepdims=True)), p * (1 - p)  # for masses that add up to 1
    if last is not None:
        z, v = (np.append(a, np.full((2, 1), fill), -1) for a, fill in ((z, last), (v, 7.0)))
        product, diagonal = (np.append(a, np.zeros((2, 1)), -1) for a in (product, diagonal))
    t = ce.TopKTargets([[0, 1, 2]] * 2, q, remainder=[mass] * 2)
    np.testing.assert_allclose(ce.cross_entropy_hvp(z, t, v, reduction="sum"), product, rtol=1e-13, atol=1e-16)
    found = ce.cross_entropy_hessian_diagonal(z, t, reduction="sum")[2]
    np.testing.assert_allclose(found, diagonal, rtol=1e-13, atol=1e-16)


def test_a_nan_probability_stays_in_its_row_of_second_derivatives(rng):
    z, v = rng.standard_normal((2, 4)), rng.standard_normal((2, 4))
    q = np.array([[np.nan, 0.2], [0.5, 0.2]])
    t, good = (ce.TopKTargets([[0, 1]] * len(a), a, remainder="bucket") for a in (q, q[1:]))
    product, diagonal = ce.cross_entropy_hvp(z, t, v, reduction="none"), ce.cross_entropy_hessian_diagonal(z, t)[2]
    assert np.isnan(product[0]).all()
    assert np.isnan(diagonal[0]).all()
    np.testing.assert_array_equal(product[1:], ce.cross_entropy_hvp(z[1:], good, v[1:], reduction="none"))
    assert np.isfinite(diagonal[1]).all()
