"""Negative target probabilities and weights: the definition is computed for them as for any other numbers."""

import mpmath
import numpy as np
import pytest

import crossentropy as ce

# Few classes side by side; one row at a time; blocks of a row; strided.
SHAPES = [((9, 7), -1), ((5, 193), -1), ((2, 4500), -1), ((3, 10, 5), 1)]
DTYPES = [np.float16, np.float32, np.float64]


def exact(z, b, s):
    """Loss and gradient of one row with coefficients b and sample weight s, and the size of what each adds up."""
    with mpmath.workprec(120):
        z, b, s = [mpmath.mpf(float(x)) for x in z], [mpmath.mpf(float(x)) for x in b], mpmath.mpf(float(s))
        m = max(z)
        e = [mpmath.exp(x - m) for x in z]
        total = mpmath.fsum(e)
        lse = m + mpmath.log(total)
        gaps = [lse - x for x in z]
        loss = s * mpmath.fsum(q * gap for q, gap in zip(b, gaps, strict=True))
        loss_size = abs(s) * mpmath.fsum(abs(q) * gap for q, gap in zip(b, gaps, strict=True))
        B, size = mpmath.fsum(b), mpmath.fsum(map(abs, b))
        gradient = [s * (B * x / total - q) for q, x in zip(b, e, strict=True)]
        gradient_size = [abs(s) * max(size * x / total, abs(q)) for q, x in zip(b, e, strict=True)]
        return tuple(np.array(list(map(float, x)) if isinstance(x, list) else float(x)) for x in
                     (loss, loss_size, gradient, gradient_size))  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["probabilities", "own dtype", "top k", "indices"])
def test_definition(shape, axis, dtype, kind, rng):
    z = (4 * rng.standard_normal(shape)).astype(dtype)
    classes, last = shape[axis], np.moveaxis(z, axis, -1)
    rows = last.shape[:-1]
    w, s = rng.standard_normal(classes), rng.standard_normal(rows)
    if kind == "indices":
        targets = rng.integers(0, classes, rows)
        q = np.eye(classes)[targets]
    elif kind == "top k":
        few, share = np.argsort(rng.random((*rows, classes)))[..., :3], rng.standard_normal((*rows, 3))
        q = np.zeros(last.shape)
        np.put_along_axis(q, few, share, -1)
        targets = ce.TopKTargets(np.moveaxis(few, -1, axis), np.moveaxis(share, -1, axis))
    else:
        q = rng.standard_normal(last.shape) / classes
        q = q.astype(dtype).astype(float) if kind == "own dtype" else q
        targets = np.moveaxis(q, -1, axis).astype(dtype if kind == "own dtype" else float)
    unit = float(np.finfo(np.float64 if dtype == np.float64 else np.float32).eps)
    of_gradient = float(np.finfo(dtype).eps)
    for options in ({}, {"class_weight": w}, {"sample_weight": s}):
        losses, dlogits = ce.cross_entropy_with_grad(z, targets, axis=axis, reduction="none", **options)
        dlogits = np.moveaxis(dlogits, axis, -1).astype(float)
        for row in list(np.ndindex(rows))[:2]:
            b = q[row] * options.get("class_weight", 1.0)
            loss, loss_size, gradient, size = exact(last[row], b, options.get("sample_weight", np.ones(rows))[row])
            assert abs(losses[row] - loss) <= 4 * unit * loss_size
            allowed = 4 * unit * size + of_gradient * np.abs(gradient) + float(np.finfo(dtype).smallest_subnormal)
            assert (np.abs(dlogits[row] - gradient) <= allowed).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_minus_infinity_where_coefficients_are_negative(shape, axis, dtype, rng):
    z = rng.standard_normal(shape).astype(dtype)
    last = np.moveaxis(z, axis, -1)
    last[..., 1] = last[..., -1] = -np.inf
    one, other = ((0,) * (last.ndim - 2) + (i,) for i in (0, 1))
    q = np.zeros(last.shape)
    q[..., 0], q[..., 1] = 1.0, -0.5
    q[other][-1] = 0.25  # infinities of both signs
    losses, dlogits = ce.cross_entropy_with_grad(z, np.moveaxis(q, -1, axis), axis=axis, reduction="none")
    assert losses[one] == -np.inf
    assert np.isnan(losses[other])
    assert np.isneginf(np.delete(losses.ravel(), 1)).all()
    finite = ce.softmax(last.astype(float)) * q.sum(-1, keepdims=True) - q
    np.testing.assert_allclose(np.moveaxis(dlogits, axis, -1), finite, atol=2 * float(np.finfo(dtype).eps))


def test_a_step_below_zero_at_a_one_hot_target(rng):
    """The gradient with respect to the targets, by differences that leave the probabilities."""
    z, q, h = rng.standard_normal((3, 5)), np.eye(5)[[0, 3, 3]], 1e-3
    exact = ce.cross_entropy_dtargets(z, q)
    for place in np.ndindex(q.shape):
        up, down = q.copy(), q.copy()
        up[place] += h
        down[place] -= h
        difference = (ce.cross_entropy(z, up) - ce.cross_entropy(z, down)) / (2 * h)
        assert difference == pytest.approx(exact[place], rel=1e-11)


def test_advantages(rng):
    """A policy gradient: each row's gradient times its advantage, added up by the head."""
    hidden, classifier = rng.standard_normal((40, 4)), rng.standard_normal((300, 4))
    actions, advantages = rng.integers(0, 300, 40), rng.standard_normal(40)
    call = {"sample_weight": advantages, "reduction": "sum"}
    loss, dlogits = ce.cross_entropy_with_grad(hidden @ classifier.T, actions, **call)
    losses, each = ce.cross_entropy_with_grad(hidden @ classifier.T, actions, reduction="none")
    assert loss == pytest.approx(float(advantages @ losses), rel=1e-13)
    np.testing.assert_allclose(dlogits, advantages[:, None] * each, atol=1e-15)
    of_head, gradients = ce.linear_cross_entropy_with_grad(hidden, classifier, actions, **call)
    assert of_head == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(gradients.hidden, dlogits @ classifier, atol=1e-13)
    np.testing.assert_allclose(gradients.classifier, dlogits.T @ hidden, atol=1e-13)
    module = ce.CrossEntropyLoss(reduction="sum")
    assert module.forward(hidden @ classifier.T, actions, advantages) == loss
    np.testing.assert_array_equal(module.backward(), dlogits)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 5.0, "temperature": 0.7}])
@pytest.mark.parametrize("by_index", [True, False])
def test_derivatives(options, by_index, rng):
    z, v, h = rng.standard_normal((4, 6)), rng.standard_normal((4, 6)), 1e-4
    targets = rng.integers(0, 6, 4) if by_index else rng.standard_normal((4, 6))
    given = {"class_weight": rng.standard_normal(6), "sample_weight": rng.standard_normal(4), "reduction": "sum"}

    def gradient(z):
        return ce.reference.cross_entropy_with_grad(z, targets, **given, **options)[1]

    hvp = ce.cross_entropy_hvp(z, targets, v, **given, **options)
    np.testing.assert_allclose(hvp, (gradient(z + h * v) - gradient(z - h * v)) / (2 * h), rtol=1e-5, atol=1e-6)
    _, dlogits, diagonal = ce.cross_entropy_hessian_diagonal(z, targets, **given, **options)
    np.testing.assert_allclose(dlogits, gradient(z), atol=1e-14)
    for c in range(6):
        step = h * (np.arange(6) == c)
        difference = (gradient(z + step) - gradient(z - step))[:, c] / (2 * h)
        np.testing.assert_allclose(diagonal[:, c], difference, rtol=1e-5, atol=1e-6)


Z, T, Q = np.zeros((2, 3)), [0, 1], np.full((2, 3), 1 / 3)
CALLS = {
    "loss": lambda targets, **options: ce.cross_entropy(Z, targets, **options),
    "loss and gradient": lambda targets, **options: ce.cross_entropy_with_grad(Z, targets, **options),
    "diagonal": lambda targets, **options: ce.cross_entropy_hessian_diagonal(Z, targets, **options),
    "hvp": lambda targets, **options: ce.cross_entropy_hvp(Z, targets, Z, **options),
    "head": lambda targets, **options: ce.linear_cross_entropy(np.ones((2, 1)), np.zeros((3, 1)), targets, **options),
    "explain": lambda targets, **options: ce.explain(Z, targets, **options),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_mean_of_negative_weights_is_refused(call):
    message = "reduction: expected 'sum' or 'none' for weights of which some are negative, got 'mean'"
    for targets in (T, Q, ce.TopKTargets([[0], [1]], [[1.0], [1.0]])):
        with pytest.raises(ValueError, match=message):
            call(targets, sample_weight=[1.0, -1e-9])
        call(targets, sample_weight=[1.0, -1e-9], reduction="sum")
    with pytest.raises(ValueError, match=message):
        call(T, class_weight=[1.0, -1.0, 2.0])
    call(T, class_weight=[1.0, -1.0, 2.0], reduction="none")
    call(Q, class_weight=[1.0, -1.0, 2.0])  # the mean of probabilities does not divide by them


def test_dtargets():
    with pytest.raises(ValueError, match="reduction: expected 'sum' or 'none'"):
        ce.cross_entropy_dtargets(Z, Q, sample_weight=[1.0, -1.0])
    rows = ce.cross_entropy_dtargets(Z, Q, sample_weight=[1.0, -2.0], reduction="sum")
    np.testing.assert_allclose(rows, np.log(3) * np.array([[1.0], [-2.0]]) * np.ones(3))


def test_shares_of_a_teacher_that_are_renormalised():
    """They are divided by their sum; where that is not above 0 but they are not all 0, the row is NaN."""
    indices, shares = [[0, 1], [1, 2], [0, 2]], [[3.0, -1.0], [1.0, -1.5], [0.0, 0.0]]
    z = np.arange(9.0).reshape(3, 3)
    losses = ce.cross_entropy(z, ce.TopKTargets(indices, shares, renormalize=True), reduction="none")
    assert losses[0] == pytest.approx(ce.cross_entropy(z[:1], [[1.5, -0.5, 0.0]]), rel=1e-15)
    assert np.isnan(losses[1])
    assert losses[2] == 0


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_probabilities_beyond_float32(shape, axis, rng):
    z, row = rng.standard_normal(shape).astype(np.float32), np.moveaxis(np.zeros(shape), axis, -1).shape[:-1]
    indices, shares = np.zeros((*row, 2), int), np.full((*row, 2), 0.5)
    indices[..., 1], shares[(0,) * len(row)] = 1, (1e300, -0.5)
    few, share = (np.moveaxis(array, -1, axis) for array in (indices, shares))
    dense = np.zeros((*row, shape[axis]))
    dense[..., :2] = shares
    for targets in (ce.TopKTargets(few, share), np.moveaxis(dense, -1, axis)):
        losses, dlogits = ce.cross_entropy_with_grad(z, targets, axis=axis, reduction="none")
        assert np.isnan(losses).sum() == 1
        assert np.isnan(losses[(0,) * len(row)])
        np.testing.assert_array_equal(np.isnan(dlogits), np.expand_dims(np.isnan(losses), axis) & np.isfinite(z))


def test_a_row_that_is_left_out_has_no_sign():
    """A row of sparse targets that does not count may have a negative weight, for a mean too."""
    targets = ce.TopKTargets([[-100], [1]], [[0.0], [1.0]])
    call = {"sample_weight": [-1.0, 1.0]}
    assert ce.cross_entropy(Z, targets, **call) == pytest.approx(np.log(3))
    assert ce.explain(Z, targets, **call).mean == pytest.approx(np.log(3))
    np.testing.assert_array_equal(ce.cross_entropy_hvp(Z, targets, Z + 1, **call)[0], 0)


def test_explanation():
    A, Y = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], [[1.2, -0.2, 0.0], [1.0, 1.0, -1.0]]
    x = ce.explain(A, Y, sample_weight=[-1.0, 2.0], reduction="sum")
    assert x.loss == ce.cross_entropy(A, Y, sample_weight=[-1.0, 2.0], reduction="sum")
    assert np.isnan([x.mean, x.total_weight]).all()
    text = str(x)
    assert "Some are negative, and so no probabilities" in text
    assert "no mean: some weights are negative" in text
    assert "All terms but the target's are 0" not in text
    assert text.count("a distribution") == 2
    assert x.check().largest < 1e-10
    assert "Some are negative" not in str(ce.explain(A, np.abs(Y)))
    assert "Some are negative" not in str(ce.explain(A, [[0.2, 0.8, 0.0], Y[1]], sample_weight=[1.0, 0.0]))
    np.testing.assert_allclose(x.derivation(0, 1).product, x.dtotal[0] / x.s[0], atol=1e-14)
    assert "sum cross-entropy" in x.plot()._suptitle.get_text()


def test_pitfall_at_the_target_of_a_negative_weight():
    x = ce.explain([[2.0, 1.0, 0.1]], [1], class_weight=[1.0, -2.0, 1.0], reduction="sum")
    for pitfall in x.pitfalls()[-2:]:
        assert pitfall.textbook[0] == pytest.approx(x.dlogits[0, 1], rel=1e-6)
        assert pitfall.library[0] == pytest.approx(x.dlogits[0, 1], rel=1e-6)


@pytest.mark.parametrize("row", [[np.nan] * 10, [np.inf, -0.5] + [0.0] * 8])
def test_explanation_of_targets_that_are_not_finite(row):
    x = ce.explain([np.arange(10.0)], [row])
    assert np.isnan(x.loss)
    assert "NaN" in str(x.lesson(derivation=True))
    x.plot()


def test_explanation_of_large_negative_targets():
    q = np.zeros(100)
    q[7], q[77] = 2.0, -1.0
    x = ce.explain([np.linspace(3, -3, 100)], [q])
    assert {7, 77} <= set(x.shown)
    for pitfall in x.pitfalls()[:2]:  # the logarithm of a softmax
        assert pitfall.textbook[0] == pytest.approx(x.losses[0], rel=1e-5)
    assert not x.plot().axes[2].texts, "a point on the curve -log p, where there is no probability"
    assert ce.explain([np.linspace(3, -3, 100)], [7]).plot().axes[2].texts
