"""The focal loss and the entropy bonus: values, gradients and second derivatives."""

import mpmath
import numpy as np
import pytest

import crossentropy as ce

SHAPES = [((9, 7), -1), ((5, 193), -1), ((2, 4500), -1), ((3, 10, 5), 1)]


def unit(dtype):
    return float(np.finfo(np.float64 if dtype == np.float64 else np.float32).eps)


def exact(z, t, gamma=0.0, beta=0.0, zeta=0.0):
    """Loss and gradient of one row with target t, and the size of the gradient's terms."""
    with mpmath.workprec(400):
        z = [mpmath.mpf(float(x)) for x in z]
        m = max(z)
        e = [mpmath.exp(x - m) for x in z]
        total = mpmath.fsum(e)
        p = [x / total for x in e]
        Q = mpmath.fsum(x for c, x in enumerate(p) if c != t)
        loss = -mpmath.log1p(-Q) if Q < 0.5 else -mpmath.log(p[t])
        factor = Q**gamma * (1 + gamma * p[t] * loss / Q) if Q and gamma else mpmath.mpf(0 if gamma else 1)
        log_p = [mpmath.log(x) for x in p]
        H = -mpmath.fsum(x * y for x, y in zip(p, log_p, strict=True))
        lse = m + mpmath.log(total)
        gradient = [factor * (x - (c == t)) for c, x in enumerate(p)]
        gradient[t] = -factor * Q
        size = [factor * max(x, c == t) if c != t else factor * Q for c, x in enumerate(p)]
        for c, x in enumerate(p):
            gradient[c] += -beta * x * (-log_p[c] - H) + 2 * zeta * lse * x
            size[c] += abs(beta) * x * max(-log_p[c], H) + abs(2 * zeta * lse * x)
        value = (Q**gamma if Q or not gamma else 0) * loss - beta * H + zeta * lse**2
        return float(value), np.array(list(map(float, gradient))), np.array(list(map(float, size)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [
        {"focal_gamma": 2.0},
        {"focal_gamma": 0.5},
        {"entropy_bonus": 0.25},
        {"focal_gamma": 3.0, "entropy_bonus": -0.1, "z_loss": 1e-3},
    ],
    ids=str,
)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_definition(shape, axis, options, dtype, rng):
    z = (4 * rng.standard_normal(shape)).astype(dtype)
    last = np.moveaxis(z, axis, -1)
    t = rng.integers(0, last.shape[-1], last.shape[:-1])
    t[0] = last.argmax(-1)[0]
    losses, dz = ce.cross_entropy_with_grad(z, t, axis=axis, reduction="none", **options)
    dz = np.moveaxis(dz, axis, -1).astype(float)
    for row in list(np.ndindex(t.shape))[:: max(1, t.size // 2)]:
        loss, gradient, size = exact(
            last[row], t[row], *(options.get(n, 0.0) for n in ("focal_gamma", "entropy_bonus", "z_loss"))
        )
        assert losses[row] == pytest.approx(loss, rel=16 * unit(dtype))
        allowed = 12 * unit(dtype) * size + float(np.finfo(dtype).eps) * np.abs(gradient)
        assert (np.abs(dz[row] - gradient) <= allowed + float(np.finfo(dtype).smallest_subnormal)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [5, 300])
@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("gap", [-60, -8, 0, 8, 20, 60])
def test_focal_loss_keeps_its_digits(gap, gamma, classes, dtype):
    """Within (4 + gamma |log Q|) ULP, for targets far above the others and far below."""
    z = np.linspace(-1, 1, classes).astype(dtype)
    z[1] = gap
    loss, dz = ce.cross_entropy_with_grad(z, 1, focal_gamma=gamma)
    right, gradient, _ = exact(z, 1, gamma)
    tiny = float(np.finfo(dtype).tiny)
    ulp = (6 + gamma * (abs(gap) + np.log(classes))) * float(np.finfo(np.float64).eps) + 4 * unit(dtype)
    assert loss == pytest.approx(right, rel=ulp)
    big = np.abs(gradient) > 4 * tiny
    np.testing.assert_allclose(dz[big], gradient[big], rtol=ulp + 4 * unit(dtype))
    assert (np.abs(dz[~big]) <= 8 * tiny).all()


def test_focal_of_weighted_and_ignored_rows(rng):
    z, t = rng.standard_normal((6, 5)), np.array([0, 1, -100, 3, 4, 0])
    w, s = rng.random(5), rng.random(6)
    rows = np.array([exact(row, max(c, 0), 2.0)[0] for row, c in zip(z, t, strict=True)])
    weights = np.where(t == -100, 0.0, s * w[np.maximum(t, 0)])
    loss, dz = ce.cross_entropy_with_grad(z, t, focal_gamma=2.0, class_weight=w, sample_weight=s)
    assert loss == pytest.approx((weights * rows).sum() / weights.sum(), rel=1e-13)
    reference = ce.reference.cross_entropy_with_grad(z, t, focal_gamma=2.0, class_weight=w, sample_weight=s)
    assert loss == pytest.approx(reference[0], rel=1e-13)
    np.testing.assert_allclose(dz, reference[1], rtol=1e-12, atol=1e-17)


def test_focal_edge_cases():
    inf = np.inf
    losses, dz = ce.cross_entropy_with_grad(
        [[0.0, -inf, -inf], [-inf, 0.0, 0.0], [1e4, 0.0, 0.0]], [0, 0, 0], focal_gamma=2.0, reduction="none"
    )
    np.testing.assert_array_equal(losses, [0.0, inf, 0.0])
    np.testing.assert_array_equal(dz, [[0, 0, 0], [-1, 0.5, 0.5], [0, 0, 0]])
    assert np.isnan(ce.cross_entropy([np.nan, 0.0], 0, focal_gamma=2.0))


def test_focal_loss_is_for_class_indices():
    for targets in ([[0.5, 0.5]], ce.TopKTargets([[0]], [[1.0]])):
        with pytest.raises(ValueError, match=r"^focal_gamma: expected 0 for targets that are probabilities, got 2\.0"):
            ce.cross_entropy([[1.0, 0.0]], targets, focal_gamma=2.0)
        with pytest.raises(ValueError, match=r"^focal_gamma: expected 0 for targets that are probabilities, got 2\.0"):
            ce.cross_entropy_hvp([[1.0, 0.0]], targets, [[1.0, 0.0]], focal_gamma=2.0)
    with pytest.raises(ValueError, match=r"^focal_gamma: expected 0 with label_smoothing 0\.1, got 2\.0"):
        ce.cross_entropy([[1.0, 0.0]], [0], focal_gamma=2.0, label_smoothing=0.1)


def test_entropy_bonus_is_the_entropy_subtracted(rng):
    z, w, s = rng.standard_normal((6, 30)), rng.random(30), rng.random(6)
    t, q = rng.integers(0, 30, 6), rng.dirichlet(np.ones(30), 6)
    H, dH = ce.entropy_with_grad(z)
    for targets, omega, options in ((t, w[t], {}), (q, np.ones(6), {"label_smoothing": 0.1})):
        given = {"class_weight": w, "sample_weight": s, "reduction": "none"} | options
        loss, dz = ce.cross_entropy_with_grad(z, targets, **given)
        with_bonus, gradient = ce.cross_entropy_with_grad(z, targets, entropy_bonus=0.3, **given)
        np.testing.assert_allclose(with_bonus, loss - 0.3 * s * omega * H, rtol=1e-13)
        np.testing.assert_allclose(gradient, dz - 0.3 * (s * omega)[:, None] * dH, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize(
    "options",
    [
        {"focal_gamma": 2.0},
        {"focal_gamma": 0.5, "softcap": 6.0, "temperature": 0.8},
        {"entropy_bonus": 0.4},
        {"entropy_bonus": 0.4, "softcap": 6.0, "temperature": 0.8, "z_loss": 0.01},
        {"entropy_bonus": -0.2, "focal_gamma": 1.5, "z_loss": 0.01},
    ],
    ids=str,
)
@pytest.mark.parametrize("weighted", [False, True])
def test_second_derivatives(options, weighted, rng):
    """Against differences of the gradient; of a confident row against mpmath."""
    z, t, v = rng.standard_normal((4, 6)), np.array([0, 3, -100, 5]), rng.standard_normal((4, 6))
    if weighted:
        options = options | {"class_weight": rng.random(6), "sample_weight": rng.random(4)}

    def gradient(z):
        return ce.cross_entropy_with_grad(z, t, **options)[1]

    step = 1e-5
    product = ce.cross_entropy_hvp(z, t, v, **options)
    np.testing.assert_allclose(product, (gradient(z + step * v) - gradient(z - step * v)) / (2 * step), atol=1e-9)
    assert not product[2].any()
    loss, dz, diagonal = ce.cross_entropy_hessian_diagonal(z, t, **options)
    assert loss == ce.cross_entropy(z, t, **options)
    np.testing.assert_array_equal(dz, gradient(z))
    for c in range(6):
        e = np.zeros((4, 6))
        e[:, c] = 1
        np.testing.assert_allclose(diagonal[:, c], ce.cross_entropy_hvp(z, t, e, **options)[:, c], atol=1e-12)


@pytest.mark.parametrize("gap", [20.0, 45.0])
def test_focal_curvature_of_a_confident_row(gap):
    z, v = np.array([[gap, 0.0, 0.5]]), np.array([[1.0, -2.0, 0.5]])
    with mpmath.workdps(80):

        def along(step):
            e = [mpmath.exp(mpmath.mpf(x) + step * mpmath.mpf(y)) for x, y in zip(z[0], v[0], strict=True)]
            Q = (e[1] + e[2]) / mpmath.fsum(e)
            return -(Q**2) * mpmath.log1p(-Q)

        right = mpmath.diff(along, 0, 2)
    product = ce.cross_entropy_hvp(z, [0], v, focal_gamma=2.0)
    assert (product * v).sum() == pytest.approx(float(right), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_focal_curvature_of_an_impossible_target(gamma, rng):
    z, v = rng.standard_normal((2, 5)), rng.standard_normal((2, 5))
    z[:, 3:] = -np.inf  # the target and another
    plain, focal = (ce.cross_entropy_hvp(z, [3, 4], v, focal_gamma=g) for g in (0.0, gamma))
    np.testing.assert_allclose(focal, plain, rtol=1e-14)
    plain, focal = (ce.cross_entropy_hessian_diagonal(z, [3, 4], focal_gamma=g)[2] for g in (0.0, gamma))
    np.testing.assert_allclose(focal, plain, rtol=1e-14)
