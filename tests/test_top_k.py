"""Sparse target distributions equal the dense ones they stand for."""

import numpy as np
import pytest

import crossentropy as ce

OPTIONS = [
    {},
    {"label_smoothing": 0.1, "reduction": "none"},
    {"temperature": 0.7, "softcap": 4.0, "z_loss": 0.01, "reduction": "sum"},
]


def dense(indices, probabilities, classes, axis=-1):
    """One slot after another."""
    t, q = np.moveaxis(indices, axis, -1), np.moveaxis(probabilities, axis, -1)
    rows = np.zeros((*t.shape[:-1], classes))
    for at in np.ndindex(t.shape[:-1]):
        for c, p in zip(t[at], q[at], strict=True):
            if 0 <= c < classes:
                rows[at][c] += p
    return np.moveaxis(rows, -1, axis)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((7,), 0), ((40, 5), -1), ((40, 300), -1), ((3, 5000), 1), ((2, 9, 40), 1), ((2, 250, 3), 1), ((3, 4, 10), -1)],
)
@pytest.mark.parametrize("k", [1, 3, 8])
def test_equals_dense(shape, axis, k, options, dtype, rng):
    z = (3 * rng.standard_normal(shape)).astype(dtype)
    C = shape[axis]
    sparse_shape = tuple(k if i == axis % len(shape) else n for i, n in enumerate(shape))
    t, q = rng.integers(0, C, sparse_shape), rng.random(sparse_shape)  # classes twice in a row among them
    weights = {"class_weight": rng.random(C), "sample_weight": rng.random(np.moveaxis(z, axis, -1).shape[:-1])}
    full = dense(t, q, C, axis)
    loss, dlogits = ce.cross_entropy_with_grad(z, ce.TopKTargets(t, q), axis=axis, **weights, **options)
    right, gradient = ce.reference.cross_entropy_with_grad(
        np.moveaxis(z, axis, -1), np.moveaxis(full, axis, -1), **weights, **options
    )
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(loss, right, rtol=8 * min(eps, np.finfo(np.float32).eps))
    atol = 8 * eps * np.abs(gradient).max() + np.finfo(dtype).smallest_subnormal
    np.testing.assert_allclose(np.moveaxis(dlogits, axis, -1), gradient, rtol=8 * eps, atol=atol)
    again, same = ce.cross_entropy_with_grad(z, full, axis=axis, **weights, **options)
    if dtype == np.float64:  # what float64 holds is the same distribution, so the same bits
        np.testing.assert_allclose(again, loss, rtol=1e-15)
        np.testing.assert_allclose(same, dlogits, rtol=1e-14, atol=1e-17)


@pytest.mark.parametrize("classes", [6, 600])
def test_confident_row_keeps_its_digits(classes):
    z = np.full((1, classes), -60.0, np.float32)
    z[0, 2] = 0
    exact = (classes - 1) * np.exp(-60.0)
    loss, dlogits = ce.cross_entropy_with_grad(z, ce.TopKTargets([[2, 0]], [[1.0, 0.0]]))
    assert loss == pytest.approx(exact, rel=1e-6)
    assert dlogits[0, 2] == pytest.approx(-exact, rel=1e-6)


def test_slots_that_do_not_count(rng):
    z = rng.standard_normal((4, 5)).astype(np.float32)
    t = np.array([[1, -100, 2], [-100, -100, -100], [0, 0, -100], [4, 3, 2]])
    q = np.array([[0.5, 0.0, 0.5], [0.0, 0.0, 0.0], [0.25, 0.5, 0.0], [0.1, 0.2, 0.0]])
    losses, dlogits = ce.cross_entropy_with_grad(z, ce.TopKTargets(t, q), reduction="none")
    full = dense(t, q, 5)
    assert losses[1] == 0
    assert (dlogits[1] == 0).all()
    kept = [0, 2, 3]
    np.testing.assert_allclose(losses[kept], ce.cross_entropy(z[kept], full[kept], reduction="none"), rtol=1e-6)
    mean = ce.cross_entropy(z, ce.TopKTargets(t, q))
    assert mean == pytest.approx(losses[kept].mean(dtype=float), rel=1e-6), "the mean of the rows that count"
    weighted = ce.cross_entropy(z, ce.TopKTargets(t, q), sample_weight=[1, 5, 2, 0])
    assert weighted == pytest.approx((losses[0] + 2 * losses[2]) / 3, rel=1e-6)
    assert ce.cross_entropy(z, ce.TopKTargets(t[1:2].repeat(4, 0), q[1:2].repeat(4, 0))) == 0


def test_renormalize(rng):
    z = rng.standard_normal((3, 5))
    t, q = [[0, 1], [2, 2], [3, 4]], [[0.2, 0.2], [0.1, 0.3], [0.0, 0.0]]
    losses = ce.cross_entropy(z, ce.TopKTargets(t, q, renormalize=True), reduction="none")
    assert losses[0] == pytest.approx(ce.cross_entropy(z[0], [0.5, 0.5, 0, 0, 0]), rel=1e-14)
    assert losses[1] == pytest.approx(ce.cross_entropy(z[1], 2), rel=1e-14)
    assert losses[2] == 0
    mean = ce.cross_entropy(z, ce.TopKTargets(t, q, renormalize=True))
    assert mean == pytest.approx(losses.sum() / 2, rel=1e-14), "the row without mass does not count"
    missing = ce.cross_entropy(z, ce.TopKTargets(t, q), reduction="none")
    assert missing[0] == pytest.approx(0.4 * losses[0], rel=1e-14)
    assert missing[2] == 0, "counted, with nothing to count"
    assert ce.cross_entropy(z, ce.TopKTargets(t, q)) == pytest.approx(missing.sum() / 3, rel=1e-14)


def test_errors(rng):
    z = rng.standard_normal((2, 5))
    out = np.zeros((2, 5))
    for t in ([[0, 5], [1, 2]], [[0, 1], [-1, 2]], [[-100, 1], [1, 2]]):
        with pytest.raises(
            IndexError, match=r"targets: expected class indices in \[0, 5\).*got (5|-1|-100) in row [01]"
        ):
            ce.cross_entropy_with_grad(z, ce.TopKTargets(t, [[0.5, 0.5], [0.5, 0.5]]), out=out)
    with pytest.raises(IndexError, match="got 7"):
        ce.cross_entropy(z, ce.TopKTargets([[0, 7], [1, 2]], [[1.0, 0.0], [0.5, 0.5]]))
    with pytest.raises(IndexError, match=r"\[0, 5\) or ignore_index 9 where the probability is 0, got 9 in row 0"):
        ce.cross_entropy(z, ce.TopKTargets([[9], [1]], [[0.5], [0.5]]), ignore_index=9)
    with pytest.raises(IndexError, match=r"expected class indices in \[0, 5\), got 9 in row 0"):
        ce.cross_entropy(z, ce.TopKTargets([[9], [1]], [[0.0], [0.5]]), ignore_index=None)
    with pytest.raises(ValueError, match=r"shape \(2, K\), got shapes \(2,\) and \(2,\)"):
        ce.cross_entropy(z, ce.TopKTargets([0, 1], [0.5, 0.5]))
    with pytest.raises(ValueError, match=r"shape \(2, K\), got shapes \(2, 2\) and \(2, 1\)"):
        ce.cross_entropy(z, ce.TopKTargets([[0, 1], [1, 2]], [[0.5], [0.5]]))
    with pytest.raises(TypeError, match="expected class indices"):
        ce.cross_entropy(z, ce.TopKTargets([[0.0], [1.0]], [[0.5], [0.5]]))
    with pytest.raises(TypeError, match="expected real numbers"):
        ce.cross_entropy(z, ce.TopKTargets([[0], [1]], [["a"], ["b"]]))
    assert (out == 0).all()
    losses = ce.cross_entropy(z, ce.TopKTargets([[0, 1], [1, 2]], [[np.inf, 1.0], [0.5, 0.5]]), reduction="none")
    assert np.isnan(losses).tolist() == [True, False]


def test_everywhere_targets_are(rng):
    z, t, q = rng.standard_normal((2, 5)), np.array([[0, 1], [1, 2]]), np.array([[0.7, 0.3], [0.1, 0.2]])
    loss = ce.CrossEntropyLoss(label_smoothing=0.1)
    assert loss.forward(z, ce.TopKTargets(t, q)) == pytest.approx(
        ce.cross_entropy(z, dense(t, q, 5), label_smoothing=0.1), rel=1e-14
    )
    assert loss.backward().shape == z.shape
    x, y = ce.explain(z, ce.TopKTargets(t, q)), ce.explain(z, dense(t, q, 5))
    assert x.to_dict() == y.to_dict()
    t[0], q[0] = -100, 0
    assert ce.explain(z, ce.TopKTargets(t, q)).s.tolist() == [0, 1]
