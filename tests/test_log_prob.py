"""Log-probabilities and entropy: values and gradients against mpmath, the edge cases, and equality with one another."""

import mpmath
import numpy as np
import pytest

import crossentropy as ce

# Few classes side by side; one row at a time; blocks of a row; strided; strided in chunks is tested by its width.
SHAPES = [((9, 7), -1), ((5, 193), -1), ((2, 4500), -1), ((3, 10, 5), 1), ((2, 33000, 2), 1)]
DTYPES = [np.float16, np.float32, np.float64]


def unit(dtype):
    """ULP of what is returned for a row."""
    return float(np.finfo(np.float64 if dtype == np.float64 else np.float32).eps)


def some_of(classes, indices):
    """The classes whose gradient is looked at: of many, the first ones and those that are named."""
    return np.unique(np.r_[np.arange(min(classes, 60)), np.ravel(indices)])


def exact(z, indices, dlog_prob, dentropy, softcap=None, temperature=1.0):
    """Log-probabilities, entropy, some classes' gradient, and the size of the gradient's terms, of one row."""
    with mpmath.workprec(160):
        z = [mpmath.mpf(float(x)) for x in z]
        u, slope = z, [1 / mpmath.mpf(temperature)] * len(z)
        if softcap is not None:
            u = [x if mpmath.isinf(x) else softcap * mpmath.tanh(x / softcap) for x in z]
            slope = [mpmath.sech(x / softcap) ** 2 / temperature if not mpmath.isinf(x) else 0 for x in z]
        u = [x / temperature for x in u]
        m = max(u)
        e = [mpmath.exp(x - m) for x in u]
        total = mpmath.fsum(e)
        p, top = [x / total for x in e], u.index(m)
        below = mpmath.fsum(x for c, x in enumerate(e) if c != top)
        log_total = mpmath.log1p(below)
        gap = [m - x for x in u]
        A = mpmath.fsum(q * g for q, g in zip(p, gap, strict=True) if q)
        g, h = [mpmath.mpf(float(x)) for x in np.ravel(dlog_prob)], mpmath.mpf(float(dentropy))
        own = dict.fromkeys(map(int, np.ravel(indices)), mpmath.mpf(0))
        for t, x in zip(map(int, np.ravel(indices)), g, strict=True):
            own[t] += x
        G, alone = mpmath.fsum(g), gap.count(0) == 1
        gradient, size = [], []
        for c in some_of(len(z), indices):
            complement = below / total if alone and gap[c] == 0 else 1 - p[c]
            mine = own.get(c, mpmath.mpf(0))
            entropy_term = h * p[c] * (gap[c] - A) if p[c] else mpmath.mpf(0)
            gradient.append((mine * complement - (G - mine) * p[c] + entropy_term) * slope[c])
            largest = abs(h) * p[c] * max(gap[c], A) if p[c] else 0
            if mine or len(own) > 1:
                largest = max(largest, abs(mine) * (complement if len(own) == 1 else 1), abs(G) * p[c] * (c not in own))
            size.append(max(largest, abs(G) * p[c] if c not in own else 0) * slope[c])
        log_p = [-(gap[t] + log_total) for t in np.ravel(indices)]
        return np.array(list(map(float, log_p))), float(log_total + A), np.array(list(map(float, gradient))), size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_values_and_gradient(shape, axis, k, dtype, rng):
    z = (4 * rng.standard_normal(shape)).astype(dtype)
    last = np.moveaxis(z, axis, -1)
    rows, C = last.shape[:-1], last.shape[-1]
    t = rng.integers(0, C, rows if k is None else (*rows, k))
    likeliest = last.argmax(-1)
    t[0] = likeliest[0] if k is None else likeliest[0][..., None]
    g, h = rng.standard_normal(t.shape), rng.standard_normal(rows)
    given = (lambda x: x) if k is None else (lambda x: np.moveaxis(x, -1, axis))
    values, dz = ce.log_prob_and_entropy_vjp(z, given(t), given(g), h, axis=axis)
    log_p, entropy = values[0] if k is None else np.moveaxis(values[0], axis, -1), values[1]
    dz = np.moveaxis(dz, axis, -1).astype(float)
    assert dz.shape == last.shape
    assert log_p.dtype == entropy.dtype == (np.float64 if dtype == np.float64 else np.float32)
    for row in list(np.ndindex(rows))[: 3 if C < 1000 else 1]:
        right_p, H, gradient, size = exact(last[row], t[row], g[row], h[row])
        np.testing.assert_allclose(np.ravel(log_p[row]), right_p, rtol=4 * unit(dtype))
        assert entropy[row] == pytest.approx(H, rel=4 * unit(dtype))
        allowed = 6 * unit(dtype) * np.array(size, float) + float(np.finfo(dtype).eps) * np.abs(gradient)
        assert (
            np.abs(dz[row][some_of(C, t[row])] - gradient) <= allowed + float(np.finfo(dtype).smallest_subnormal)
        ).all()
    one_by_one = ce.log_prob(z, given(t), axis=axis), *ce.log_prob_and_entropy(z, given(t), axis=axis)
    for found, same in zip(one_by_one, (values[0], *values), strict=True):
        assert found.tobytes() == same.tobytes()
    assert ce.entropy(z, axis=axis).tobytes() == values[1].tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [6, 300])
@pytest.mark.parametrize("gap", [1, 20, 40, 80])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_entropy_of_confident_rows_keeps_its_digits(gap, shift, classes, dtype):
    z = np.full((1, classes), shift, dtype)
    z[0, 2] += gap
    z[0, 4] -= 1
    H, dz = ce.entropy_with_grad(z)
    _, right, gradient, size = exact(z[0], [0], [0.0], 1.0)
    assert H[0] == pytest.approx(right, rel=4 * unit(dtype))
    assert (np.abs(dz[0][some_of(classes, 0)] - gradient) <= 6 * unit(dtype) * np.array(size, float)).all()
    log_p, dz = ce.log_prob_with_grad(z, [2])
    right, _, gradient, size = exact(z[0], [2], [1.0], 0.0)
    assert log_p[0] == pytest.approx(right[0], rel=4 * unit(dtype))
    np.testing.assert_allclose(
        dz[0][some_of(classes, 2)], gradient, rtol=6 * unit(dtype)
    )  # at the confident maximum too


@pytest.mark.parametrize(("shape", "axis"), SHAPES[:4], ids=str)
@pytest.mark.parametrize("options", [{"temperature": 0.7}, {"softcap": 5.0}, {"softcap": 5.0, "temperature": 2.0}])
def test_options_of_the_logits(shape, axis, options, rng):
    for dtype in (np.float32, np.float64):
        z = (4 * rng.standard_normal(shape)).astype(dtype)
        last = np.moveaxis(z, axis, -1)
        t = rng.integers(0, last.shape[-1], last.shape[:-1])
        (log_p, entropy), dz = ce.log_prob_and_entropy_vjp(z, t, 0.5, -2.0, axis=axis, **options)
        row = (0,) * t.ndim
        right_p, H, gradient, size = exact(last[row], t[row], [0.5], -2.0, **options)
        assert log_p[row] == pytest.approx(right_p[0], rel=16 * unit(dtype))
        assert entropy[row] == pytest.approx(H, rel=16 * unit(dtype))
        found = np.moveaxis(dz, axis, -1)[row][some_of(last.shape[-1], t[row])]
        assert (np.abs(found - gradient) <= 24 * unit(dtype) * np.array(size, float) + 1e-300).all()


def test_log_prob_is_minus_the_loss(rng):
    z, t = rng.standard_normal((50, 30)).astype(np.float32), rng.integers(0, 30, 50)
    losses, dlogits = ce.cross_entropy_with_grad(z, t, reduction="none")
    log_p, dz = ce.log_prob_with_grad(z, t, grad_output=-1.0)
    assert (log_p == -losses).all()
    assert dz.tobytes() == dlogits.tobytes()


@pytest.mark.parametrize(("shape", "axis"), SHAPES[:4], ids=str)
def test_rows_that_do_not_count(shape, axis, rng):
    z = rng.standard_normal(shape)
    last = np.moveaxis(z, axis, -1)
    t = rng.integers(0, last.shape[-1], last.shape[:-1])
    first = (0,) * t.ndim
    t[first], last[first] = -100, np.nan
    (log_p, entropy), dz = ce.log_prob_and_entropy_vjp(z, t, np.nan, np.where(t == -100, np.nan, 1.0), axis=axis)
    assert log_p[first] == entropy[first] == 0
    assert not np.moveaxis(dz, axis, -1)[first].any()
    assert np.isfinite(log_p).all()
    several = np.stack([t, np.where(t == -100, -100, 0)], -1)
    several[1:, ..., 1] = -100
    log_p, entropy = ce.log_prob_and_entropy(z, np.moveaxis(several, -1, axis), axis=axis)
    log_p = np.moveaxis(log_p, axis, -1)
    assert entropy[first] == 0
    assert (log_p[several == -100] == 0).all()
    assert (log_p[several != -100] < 0).all()
    weights = np.where(t == -100, 0.0, 2.0)
    H, dz = ce.entropy_with_grad(z, axis=axis, sample_weight=weights, reduction="mean")
    np.testing.assert_allclose(H, ce.entropy(last[t != -100]).mean(), rtol=1e-14)
    assert not np.moveaxis(dz, axis, -1)[first].any()


def test_edge_cases():
    inf, nan = np.inf, np.nan
    rows = np.array([[0.0, -inf, 1.0], [-inf, 2.0, -inf], [nan, 0.0, 0.0], [inf, 0.0, 0.0], [-inf, -inf, -inf]])
    log_p, entropy = ce.log_prob_and_entropy(rows, [1, 1, 1, 1, 1])
    np.testing.assert_array_equal(log_p, [-inf, 0.0, nan, nan, nan])
    np.testing.assert_allclose(entropy, [np.log1p(np.exp(-1)) + np.exp(-1) / (1 + np.exp(-1)), 0.0, nan, nan, nan])
    assert not np.signbit(log_p[1])
    dz = ce.entropy_with_grad(rows)[1]
    assert (dz[:2] == 0).tolist() == [[False, True, False], [True, True, True]]
    assert np.isnan(dz[2:]).all()
    assert ce.entropy(np.zeros((0, 3)), reduction="mean") == 0.0
    assert ce.log_prob(np.zeros((2, 1)), [0, 0]).tolist() == [0.0, 0.0]
    assert ce.log_prob(np.zeros((2, 3)), np.zeros((2, 0), int)).shape == (2, 0)


@pytest.mark.parametrize("shape", [(40, 7), (5, 300), (2, 600_000)])
def test_threads_and_out_change_no_bit(shape, rng):
    z, t = rng.standard_normal(shape).astype(np.float32), rng.integers(0, shape[1], shape[0])
    (log_p, entropy), dz = ce.log_prob_and_entropy_vjp(z, t, -1.0, 0.5, num_threads=1)
    for num_threads in (2, 5):
        out = np.empty_like(z)
        values, same = ce.log_prob_and_entropy_vjp(z, t, -1.0, 0.5, num_threads=num_threads, out=out)
        assert same is out
        assert out.tobytes() == dz.tobytes()
        assert values[0].tobytes() == log_p.tobytes()
        assert values[1].tobytes() == entropy.tobytes()
    copy = z.copy()
    assert ce.log_prob_and_entropy_vjp(copy, t, -1.0, 0.5, out=copy)[1] is copy
    assert copy.tobytes() == dz.tobytes()


def test_reductions_of_the_entropy(rng):
    z, s = rng.standard_normal((6, 9)), rng.random(6)
    H, dz = ce.entropy_with_grad(z)
    for reduction, factor in (("sum", s), ("mean", s / s.sum())):
        total, gradient = ce.entropy_with_grad(z, sample_weight=s, reduction=reduction, grad_output=3.0)
        assert isinstance(total, float)
        assert total == pytest.approx((factor * H).sum(), rel=1e-14)
        np.testing.assert_allclose(gradient, 3 * factor[:, None] * dz, rtol=1e-13, atol=1e-18)
    np.testing.assert_allclose(ce.entropy(z, sample_weight=s), s * H, rtol=1e-15)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([0, 3], IndexError, r"^indices: expected class indices in \[0, 3\) or ignore_index -100, got 3 in row 1$"),
        ([[0, -1], [1, 1]], IndexError, r"^indices: expected class indices in \[0, 3\).*, got -1 in row 0"),
        ([0.0, 1.0], TypeError, "^indices: expected"),
        (
            [[0.5], [1.0]],
            TypeError,
            r"^indices: expected class indices \(integers\) of shape \(2,\) or \(2, K\), got dtype float64: 0.5",
        ),
        (
            [0, 1, 2],
            ValueError,
            r"^indices: expected class indices \(integers\) of shape \(2,\) or \(2, K\), got shape \(3,\)$",
        ),
    ],
)
def test_errors(indices, error, message):
    out = np.full((2, 3), 7.0)
    for call in (ce.log_prob_with_grad, lambda *a, **k: ce.log_prob_and_entropy_vjp(*a, 1.0, 1.0, **k)):
        with pytest.raises(error, match=message):
            call(np.zeros((2, 3)), indices, out=out)
    assert (out == 7).all()


def test_upstream_gradients_must_fit():
    z, t = np.zeros((2, 3)), [0, 1]
    with pytest.raises(ValueError, match=r"^dlog_prob: expected .* an array of shape \(2,\), got shape \(3,\)"):
        ce.log_prob_and_entropy_vjp(z, t, np.ones(3), 1.0)
    with pytest.raises(ValueError, match=r"^dentropy: expected .* an array of shape \(2,\), got shape \(2, 1\)"):
        ce.log_prob_and_entropy_vjp(z, t, 1.0, np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"^grad_output: expected"):
        ce.log_prob_with_grad(z, t, grad_output=np.ones(5))


# The linear head.


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("dtypes", [("f4", "f4"), ("f8", "f4"), ("f2", "f2")])
def test_linear_equals_that_of_its_logits(k, dtypes, rng):
    h = rng.standard_normal((3, 40, 8)).astype(dtypes[0])
    W, b = rng.standard_normal((300, 8)).astype(dtypes[1]), rng.standard_normal(300).astype(dtypes[1])
    wide = np.float64 if "f8" in dtypes else np.float32
    z = h.astype(wide) @ W.astype(wide).T + b.astype(wide)
    t = rng.integers(0, 300, (3, 40) if k is None else (3, 40, k))
    t[0, :5] = -100
    h[0, :5] = np.nan
    z[0, :5] = 0
    g, dH = rng.standard_normal(t.shape), rng.standard_normal((3, 40))
    (log_p, H), dz = ce.log_prob_and_entropy_vjp(z, t, g, dH)
    values, gradients = ce.linear_log_prob_and_entropy_vjp(h, W, t, g, dH, bias=b, max_logits_bytes=20_000)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if wide is np.float32 else {"rtol": 1e-11, "atol": 1e-11}
    np.testing.assert_allclose(values[0], log_p, **tolerance)
    np.testing.assert_allclose(values[1], H, **tolerance)
    half = {"rtol": 2e-3, "atol": 2e-3} if dtypes[0] == "f2" else tolerance
    np.testing.assert_allclose(gradients.hidden, dz @ W.astype(wide), **half)
    np.testing.assert_allclose(gradients.bias, dz.sum((0, 1)), rtol=half["rtol"], atol=1e-2)
    counted = np.where(np.isnan(h), 0, h).astype(wide)
    right = np.einsum("abc,abd->cd", dz, counted)
    np.testing.assert_allclose(gradients.classifier, right, rtol=1e-2, atol=1e-2 if wide is np.float32 else 1e-10)
    assert (values[0][t == -100] == 0).all()
    assert not gradients.hidden[0, :5].any()
    same = ce.linear_log_prob(h, W, t, bias=b, max_logits_bytes=20_000)
    assert same.tobytes() == values[0].tobytes()
    assert ce.linear_log_prob_and_entropy(h, W, t, bias=b, max_logits_bytes=20_000)[1].tobytes() == values[1].tobytes()
    only = ce.linear_log_prob_with_grad(h, W, t, bias=b, grad_output=g, wrt=["bias"])[1]
    assert only.hidden is only.classifier is None


def test_linear_errors():
    h, W = np.zeros((2, 4)), np.zeros((3, 4))
    with pytest.raises(IndexError, match=r"^indices: expected class indices in \[0, 3\).*got 3 in row 1"):
        ce.linear_log_prob(h, W, [0, 3])
    with pytest.raises(ValueError, match=r"^indices: expected class indices .*, got shape \(1,\)"):
        ce.linear_log_prob(h, W, [0])
    with pytest.raises(ValueError, match=r"^classifier: expected"):
        ce.linear_log_prob(h, np.zeros((3, 5)), [0, 1])
    with pytest.raises(ValueError, match=r"^wrt: expected"):
        ce.linear_log_prob_with_grad(h, W, [0, 1], wrt=["logits"])


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5)])
@pytest.mark.parametrize("k", [0, 1, 3])
def test_no_rows(shape, k):
    z, t = np.zeros(shape), np.zeros((*shape[:-1], k), int)
    (log_p, entropy), dlogits = ce.log_prob_and_entropy_vjp(z, t, 1.0, 1.0)
    assert (log_p.shape, entropy.shape, dlogits.shape) == (t.shape, shape[:-1], shape)
    assert ce.log_prob(np.moveaxis(z, -1, 0), np.moveaxis(t, -1, 0), axis=0).shape == (k, *shape[:-1])
    assert ce.linear_log_prob(z, np.zeros((7, 5)), t).shape == t.shape
