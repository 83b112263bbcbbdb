"""Second derivatives, and those with respect to the targets."""

import mpmath
import numpy as np
import pytest

import crossentropy as ce

OPTIONS = [
    {},
    {"reduction": "sum", "label_smoothing": 0.1},
    {"reduction": "none", "temperature": 0.7},
    {"softcap": 3.0},
    {"z_loss": 0.05},
    {"softcap": 4.0, "temperature": 1.5, "z_loss": 0.05, "label_smoothing": 0.2},
]


def kinds(rng, rows, classes):
    indices = rng.integers(0, classes, rows)
    indices[0] = -100
    yield indices
    yield rng.random((rows, classes))
    yield ce.TopKTargets(rng.integers(0, classes, (rows, 2)), rng.random((rows, 2)))


def gradient(z, targets, **options):
    return ce.cross_entropy_with_grad(z, targets, **options)[1]


def differences(function, z, h=2.0**-9):
    """The derivative of each element of a function by each logit: (outputs, inputs)."""
    columns = []
    for at in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[at] = h
        far, near = function(z + 2 * step) - function(z - 2 * step), function(z + step) - function(z - step)
        columns.append(((8 * near - far) / (12 * h)).ravel())
    return np.array(columns).T


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_hessian_against_differences_of_the_gradient(options, weighted, rng):
    z = 2 * rng.standard_normal((4, 5))
    for targets in kinds(rng, 4, 5):
        weights = {"class_weight": rng.random(5), "sample_weight": rng.random(4)} if weighted else {}
        hessian = differences(lambda z, t=targets, w=weights: gradient(z, t, **w, **options), z)
        for v in (rng.standard_normal((4, 5)), np.eye(20)[7].reshape(4, 5)):
            product = ce.cross_entropy_hvp(z, targets, v, **weights, **options)
            np.testing.assert_allclose(product.ravel(), hessian @ v.ravel(), rtol=1e-8, atol=2e-10)
        loss, dlogits, diagonal = ce.cross_entropy_hessian_diagonal(z, targets, **weights, **options)
        np.testing.assert_allclose(diagonal.ravel(), np.diag(hessian), rtol=1e-8, atol=2e-10)
        again = ce.cross_entropy_with_grad(z, targets, **weights, **options)
        np.testing.assert_array_equal(loss, again[0])
        np.testing.assert_array_equal(dlogits, again[1])


# One row at a time (one block of classes, several), side by side, the class axis in the middle: whole tiles, others.
SHAPES = [((3, 300), -1), ((2, 9001), -1), ((70, 17), -1), ((2, 5, 100), 1), ((3, 40, 7), 1)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_diagonal_of_every_kernel(shape, axis, dtype, options, rng):
    z = (3 * rng.standard_normal(shape)).astype(dtype)
    classes = shape[axis]
    rows = tuple(np.delete(shape, axis))
    indices = rng.integers(0, classes, rows)
    indices.flat[0] = -100
    confident = z.copy()
    np.moveaxis(confident, axis, -1)[..., 1] = 25
    for logits in (z, confident):
        for targets in (indices, rng.random(shape)):
            diagonal = ce.cross_entropy_hessian_diagonal(logits, targets, axis=axis, **options)[2]
            assert diagonal.dtype == dtype
            wide = {"axis": axis, **options}
            # A column of the Hessian for each of a few classes.
            for c in (0, 1, classes - 1):
                v = np.zeros(shape)
                np.moveaxis(v, axis, -1)[..., c] = 1
                column = ce.cross_entropy_hvp(logits.astype(float), targets, v, **wide)
                exact = np.moveaxis(column, axis, -1)[..., c]
                got = np.moveaxis(diagonal, axis, -1)[..., c]
                info = np.finfo(dtype)
                rtol = 4 * float(info.eps) if dtype != np.float64 else 1e-13  # the column is computed in float64
                # Where the two terms of a soft cap's second derivative cancel, to the precision of the larger.
                atol = float(np.abs(exact).max()) * rtol if "softcap" in options else 0.0
                atol += float(info.smallest_subnormal if dtype == np.float16 else info.smallest_normal)
                np.testing.assert_allclose(got, exact, rtol=rtol, atol=atol)


def test_hessian_from_the_dense_jacobian(rng):
    z, t = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    v = rng.standard_normal((6, 4))
    expected = np.einsum("nij,nj->ni", ce.softmax_jacobian(z), v) / 6
    np.testing.assert_allclose(ce.cross_entropy_hvp(z, t, v), expected, rtol=1e-13, atol=1e-16)


def test_axis_and_dtypes(rng):
    z, v = rng.standard_normal((3, 5, 4)), rng.standard_normal((3, 5, 4))
    t = rng.integers(0, 5, (3, 4))
    last, v_last = np.moveaxis(z, 1, -1), np.moveaxis(v, 1, -1)
    np.testing.assert_allclose(
        np.moveaxis(ce.cross_entropy_hvp(z, t, v, axis=1), 1, -1), ce.cross_entropy_hvp(last, t, v_last), rtol=1e-13
    )
    np.testing.assert_allclose(
        np.moveaxis(ce.cross_entropy_hessian_diagonal(z, t, axis=1)[2], 1, -1),
        ce.cross_entropy_hessian_diagonal(last, t)[2],
        rtol=1e-13,
    )
    np.testing.assert_allclose(
        np.moveaxis(ce.softmax_vjp(z, v, axis=1), 1, -1), ce.softmax_vjp(last, v_last), rtol=1e-13, atol=1e-17
    )
    for dtype in (np.float16, np.float32):
        narrow = z.astype(dtype)
        for got, exact in (
            (ce.cross_entropy_hvp(narrow, t, v, axis=1), ce.cross_entropy_hvp(narrow.astype(float), t, v, axis=1)),
            (ce.softmax_jvp(narrow, v), ce.softmax_jvp(narrow.astype(float), v)),
            (ce.softmax_jacobian(narrow), ce.softmax_jacobian(narrow.astype(float))),
        ):
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, exact.astype(dtype))


class TestSoftmax:
    def test_jacobian_against_mpmath(self, rng):
        with mpmath.workdps(60):
            for z in ([2.0, 1.0, 0.1], [60.0, 0.0, 1.0], [1e3, 0.0], [5.0, 5.0, -3.0], [0.3]):
                e = [mpmath.exp(mpmath.mpf(x)) for x in z]
                p = [x / mpmath.fsum(e) for x in e]
                right = [[float(a * ((i == j) - b)) for j, b in enumerate(p)] for i, a in enumerate(p)]
                np.testing.assert_allclose(ce.softmax_jacobian(z), right, rtol=2e-14, atol=1e-300)
                v = rng.standard_normal(len(z))
                exact = [
                    p[i] * mpmath.fsum(p[k] * (float(v[i]) - float(v[k])) for k in range(len(z))) for i in range(len(z))
                ]
                np.testing.assert_allclose(ce.softmax_vjp(z, v), np.array(exact, float), rtol=2e-13, atol=1e-300)
                np.testing.assert_array_equal(ce.softmax_jvp(z, v), ce.softmax_vjp(z, v))

    def test_is_the_derivative(self, rng):
        z, v = rng.standard_normal((2, 6)), rng.standard_normal((2, 6))
        jacobian = differences(ce.softmax, z)
        np.testing.assert_allclose(ce.softmax_jvp(z, v).ravel(), jacobian @ v.ravel(), atol=1e-11)
        np.testing.assert_allclose(ce.softmax_vjp(z, v).ravel(), v.ravel() @ jacobian, atol=1e-11)
        assert ce.softmax_jacobian(z).shape == (2, 6, 6)


@pytest.mark.parametrize("options", [{}, {"z_loss": 0.1}], ids=str)
def test_confident_rows_do_not_cancel(options):
    z = [[50.0, 0.0, 1.0]]
    with mpmath.workdps(60):
        e = [mpmath.exp(mpmath.mpf(x)) for x in z[0]]
        p, lse = [x / mpmath.fsum(e) for x in e], mpmath.log(mpmath.fsum(e))
        zeta = mpmath.mpf(options.get("z_loss", 0.0))
        right = [float((1 + 2 * zeta * lse) * a * (1 - a) + 2 * zeta * a * a) for a in p]
    np.testing.assert_allclose(ce.cross_entropy_hessian_diagonal(z, [0], **options)[2][0], right, rtol=1e-13)
    for c in range(3):
        v = np.eye(3)[[c]]
        np.testing.assert_allclose(ce.cross_entropy_hvp(z, [0], v, **options)[0, c], right[c], rtol=1e-13)


def test_rows_that_do_not_count_are_zero():
    z = np.array([[1.0, 2.0], [np.nan, np.inf], [3.0, 4.0]])
    for targets, weight in (([0, -100, 1], [1, 1, 0]), (np.full((3, 2), 0.5), [1, 0, 0])):
        product = ce.cross_entropy_hvp(z, targets, np.ones((3, 2)) * [1, 0], sample_weight=weight)
        diagonal = ce.cross_entropy_hessian_diagonal(z, targets, sample_weight=weight)[2]
        for rows in (product, diagonal):
            assert (rows[1:] == 0).all()
            assert np.isfinite(rows).all()
            assert (rows[0] != 0).any()
    assert (ce.cross_entropy_hvp(z, [-100] * 3, z) == 0).all()


@pytest.mark.parametrize(
    "options", [{}, {"reduction": "sum", "label_smoothing": 0.1}, {"temperature": 0.5, "softcap": 3.0}]
)
def test_targets_against_differences(options, rng):
    z, q = rng.standard_normal((3, 4)), rng.uniform(0.2, 1, (3, 4))
    weights = {"class_weight": rng.random(4), "sample_weight": np.array([0.5, 0.0, 2.0])}
    expected = differences(lambda q: np.array([ce.cross_entropy(z, q, **weights, **options)]), q).reshape(3, 4)
    got = ce.cross_entropy_dtargets(z, q, **weights, **options)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)
    assert (got[1] == 0).all()


def test_errors():
    with pytest.raises(ValueError, match=r"v: expected the logits' shape \(1, 2\), got \(2,\)"):
        ce.cross_entropy_hvp([[1.0, 2.0]], [0], [1.0, 2.0])
    with pytest.raises(TypeError, match="v: expected real numbers"):
        ce.softmax_vjp([1.0, 2.0], ["a", "b"])
    with pytest.raises(IndexError, match="got 2 in row 0"):
        ce.cross_entropy_hvp([[1.0, 2.0]], [2], [[1.0, 2.0]])
    with pytest.raises(TypeError, match="expected probabilities of shape"):
        ce.cross_entropy_dtargets([[1.0, 2.0]], [1])


def test_ignored_top_k_rows_have_no_curvature(rng):
    z, v = rng.standard_normal((3, 5)), rng.standard_normal((3, 5))
    t = np.array([[0, 2], [-100, -100], [4, 1]])
    q = np.array([[0.25, 0.5], [0.0, 0.0], [0.125, 0.5]])
    dense = np.zeros((3, 5))
    for row in (0, 2):
        dense[row, t[row]] = q[row]
    found = ce.cross_entropy_hvp(z, ce.TopKTargets(t, q), v, reduction="sum")
    h = 1e-6  # central differences of the reference's gradient, of the rows that count
    step = [
        ce.reference.cross_entropy_with_grad(z + sign * h * v, dense, sample_weight=[1, 0, 1], reduction="sum")[1]
        for sign in (1, -1)
    ]
    np.testing.assert_allclose(found, (step[0] - step[1]) / (2 * h), atol=1e-8)
    assert not found[1].any()
