"""crossentropy.jax.log_prob and linear_log_prob."""

import math
from functools import partial

import exact
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import crossentropy.jax as cj

OPTIONS = [{}, {"softcap": 5.0, "temperature": 0.7}]


def both(z, t, **options):
    return cj.log_prob(z, t, entropy=True, **options)


def plain(z, t, softcap=None, temperature=1.0):
    """In float64, on ordinary logits: the log-probabilities and the entropies."""
    u = softcap * jnp.tanh(z / softcap) if softcap else z
    log_p = jax.nn.log_softmax(u / temperature)
    return jnp.take_along_axis(log_p, t, -1), -(jnp.exp(log_p) * log_p).sum(-1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_digits(options, dtype):
    """Values and gradients of a row with a leading class, at an offset, against mpmath."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(dtype == "float64"), mpmath.workdps(exact.DIGITS):
        t = jnp.array([0, 3])
        functions = [lambda z, n=n: both(z, t, **options)[0][n] for n in (0, 1)]
        functions.append(lambda z: both(z, t, **options)[1])
        values_and_gradients = jax.jit(lambda z: [jax.value_and_grad(f)(z) for f in functions])
        eps = np.finfo(dtype).eps * (30 if options else 4)
        for gap, offset in ((0, 0), (20, 0), (40, 1e4), (80, 0)):
            z = rng.standard_normal(64).astype(dtype)
            z[0] += gap
            z = z if options else (z + offset).astype(dtype)
            u, slopes = exact.scaled(z, **options)
            log_p = exact.log_softmax(u)
            p = [mpmath.exp(x) for x in log_p]
            H = -mpmath.fsum(a * b for a, b in zip(p, log_p, strict=True))
            A = H + log_p[0] if gap else H + max(log_p)
            found, gradients = zip(*values_and_gradients(jnp.asarray(z)), strict=True)
            expected = [log_p[0], log_p[3], H]
            assert exact.largest_error(jnp.stack(found), expected, [abs(x) for x in expected]) < eps
            for chosen, gradient in zip((0, 3), gradients, strict=False):
                expected = [((c == chosen) - p[c]) * slope for c, slope in enumerate(slopes)]
                assert exact.largest_error(gradient, expected, list(map(abs, expected))) < eps
            expected = [-q * (x + H) * s for q, x, s in zip(p, log_p, slopes, strict=True)]
            sizes = [q * max(max(u) - x, A) * s for q, x, s in zip(p, u, slopes, strict=True)]
            assert exact.largest_error(gradients[2], expected, sizes) < eps


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_derivatives(options, x64):
    """Up to the third: as those of the plain formulas on ordinary logits."""
    rng = np.random.default_rng(0)
    z, t, weights = rng.standard_normal((2, 4)), rng.integers(0, 4, (2, 2)), rng.standard_normal((2, 2))

    def derivatives(function):
        def combined(z):
            log_p, entropies = function(z, t, **options)
            return (log_p * weights).sum() + (entropies**2).sum()

        of_row = jax.jacfwd(jax.hessian(lambda x: combined(jnp.stack([x, z[1]]))))
        return jax.jit(lambda z: (jax.value_and_grad(combined)(z), jax.hessian(combined)(z), of_row(z[0])))(z)

    check = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    jax.tree.map(check, derivatives(both), derivatives(plain))


@pytest.mark.slow
def test_transformations(x64):
    rng = np.random.default_rng(0)
    z, t, v = rng.standard_normal((3, 5)), rng.integers(0, 5, (3, 2)), rng.standard_normal((3, 5))

    @partial(jax.jit, static_argnums=0)
    def transformed(both, z):
        def total(z):
            return both(z, t)[1].sum()

        return {
            "vmap": jax.vmap(both)(z, t),
            "vmap of gradients": jax.vmap(jax.grad(lambda z, t: both(z, t)[1]))(z, t),
            "jvp": jax.jvp(lambda z: both(z, t), (z,), (v,)),
            "linearize": jax.linearize(lambda z: both(z, t), z)[1](v),
            "reverse over reverse": jax.jacrev(jax.jacrev(jax.checkpoint(total)))(z),
            "scan": jax.grad(lambda z: jax.lax.scan(lambda a, x: (a + both(*x)[1], a), 0.0, (z, t))[0])(z),
        }

    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), transformed(both, z), transformed(plain, z)
    )


def test_second_derivatives_keep_their_digits():
    """Of a confident row in float32, the leading class too: p (1 - p) is not 0."""
    z = jnp.array([20.0, 0.0, 0.0])
    small = math.exp(-20) / (1 + 2 * math.exp(-20))
    expected = small * np.array([[2, -1, -1], [-1, 1, 0], [-1, 0, 1]])
    np.testing.assert_allclose(-jax.hessian(lambda z: cj.log_prob(z, jnp.array(0)))(z), expected, rtol=1e-6, atol=1e-16)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_axes_and_shapes(axis, x64):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((3, 4, 5))
    classes = z.shape[axis]
    few = list(z.shape)
    few[axis] = 2
    one, some = rng.integers(0, classes, np.delete(z.shape, axis)), rng.integers(0, classes, few)
    expected = np.asarray(jax.nn.log_softmax(z, axis))
    actual = cj.log_prob(z, some, axis=axis)
    np.testing.assert_allclose(actual, np.take_along_axis(expected, some, axis), rtol=1e-12)
    actual, entropies = cj.log_prob(z, one.astype(np.uint8), axis=axis, entropy=True)
    np.testing.assert_allclose(actual, np.take_along_axis(expected, np.expand_dims(one, axis), axis).squeeze(axis))
    np.testing.assert_allclose(entropies, -(np.exp(expected) * expected).sum(axis), rtol=1e-12)


def test_what_is_ignored(x64):
    """Rows of nothing but ignored indices may hold NaN; in other rows an ignored index gives 0."""
    z = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4))).at[1].set(math.nan)
    t = jnp.array([[0, -100], [-100, -100], [3, 1]])

    @jax.jit
    def total(z):
        log_p, entropies = both(z, t)
        return log_p.sum() + entropies.sum(), (log_p, entropies)

    (_, (log_p, entropies)), dlogits = jax.value_and_grad(total, has_aux=True)(z)
    log_q = np.asarray(jax.nn.log_softmax(z))
    np.testing.assert_allclose(log_p, [[log_q[0, 0], 0], [0, 0], [log_q[2, 3], log_q[2, 1]]], rtol=1e-12)
    assert entropies[1] == 0
    assert entropies[0] > 0
    assert not dlogits[1].any()
    expected = jax.grad(lambda z: plain(z, t[:1, :1])[0].sum() + plain(z, t[:1, :1])[1].sum())(z[:1])
    np.testing.assert_allclose(dlogits[:1], expected, rtol=1e-12)
    assert cj.log_prob(z[0], jnp.array(0), ignore_index=0) == 0
    assert cj.log_prob(z[0], jnp.array(0), ignore_index=None) == log_p[0, 0]


def test_edge_cases(x64):
    inf, nan = math.inf, math.nan
    z = jnp.array([[nan, 0, 0], [-inf, 1, 0], [-inf] * 3, [inf, 0, 0], [-inf, 0, -inf], [2, 1, 0.5]])
    t = jnp.array([1, 0, 0, 1, 1, 0])
    log_p, entropies = both(z, t)
    assert np.isnan(log_p).tolist() == np.isnan(entropies).tolist() == [True, False, True, True, False, False]
    assert log_p[1] == -inf
    assert log_p[4] == entropies[4] == 0
    p = 1 / (1 + math.e)
    assert float(entropies[1]) == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    of_log_p = jax.grad(lambda z: cj.log_prob(z, t).sum())(z)
    of_entropy = jax.grad(lambda z: both(z, t)[1].sum())(z)
    np.testing.assert_allclose(of_log_p[1], [1, p - 1, -p])
    for gradient in (of_log_p, of_entropy):
        assert np.isnan(gradient).any(1).tolist() == [True, False, True, True, False, False]
        assert not gradient[4].any()
    assert of_entropy[1, 0] == 0
    assert jnp.isfinite(jax.jacfwd(jax.grad(lambda z: both(z, t[1])[1]))(z[1])).all()
    assert cj.log_prob(jnp.zeros((0, 3)), jnp.zeros(0, int)).shape == (0,)
    assert both(jnp.zeros((2, 1)), jnp.zeros(2, int))[1].tolist() == [0, 0]
    np.testing.assert_allclose(both(jnp.zeros((2, 3)), jnp.zeros((2, 0), int))[1], math.log(3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(dtype, x64):
    rng = np.random.default_rng(0)
    z, t = jnp.asarray(3 * rng.standard_normal((16, 50)), dtype), rng.integers(0, 50, (16, 1))
    log_p, entropies = both(z, t)
    assert log_p.dtype == entropies.dtype == "float32"
    wide = z.astype("float64")
    np.testing.assert_allclose(log_p, plain(wide, t)[0], rtol=1e-6)
    for scale in (512.0,):
        for part in (0, 1):
            actual, expected = (
                jax.jit(jax.grad(lambda z, f=f, p=part, s=scale: s * f(z, t)[p].sum()))(x)
                for f, x in ((both, z), (plain, wide))
            )
            unit = np.spacing(np.abs(expected).astype(dtype)).astype(np.float64)
            assert (np.abs(np.asarray(actual, np.float64) - expected) <= 0.51 * unit).all()


@pytest.mark.parametrize("k", [None, 2])
def test_head(k, x64):
    """A chunk of two rows at a time, the last not full; an ignored row holds NaN."""
    rng = np.random.default_rng(0)
    h, W, b = rng.standard_normal((5, 3)), rng.standard_normal((7, 3)), rng.standard_normal(7)
    t = rng.integers(0, 7, (5,) if k is None else (5, k))
    t[1] = -100
    h[1] = math.nan
    finite = np.where(np.isnan(h), 0, h)

    def head(h, W, b):
        return cj.linear_log_prob(h, W, t, bias=b, entropy=True, softcap=4.0, max_logits_bytes=2 * 7 * 8)

    def whole(h, W, b):
        return cj.log_prob(h @ W.T + b, t, entropy=True, softcap=4.0)

    def all_of(function):
        jacobians = jax.jacrev(function, (0, 1, 2))
        return jax.jit(lambda *arguments: (function(*arguments), jacobians(*arguments)))

    check = partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13)
    jax.tree.map(check, all_of(head)(h, W, b), all_of(whole)(finite, W, b))
    mapped = jax.jit(jax.vmap(partial(cj.linear_log_prob, max_logits_bytes=1), (None, None, 0)))
    check(mapped(finite, W, np.stack([t, t]))[1], cj.linear_log_prob(finite, W, t))


def test_head_in_half_precision(x64):
    rng = np.random.default_rng(0)
    h, W = (jnp.asarray(rng.standard_normal(n), "bfloat16") for n in ((8, 16), (30, 16)))
    t = rng.integers(0, 30, 8)
    assert cj.linear_log_prob(h, W, t).dtype == "float32"
    gradients = jax.jit(jax.grad(lambda h, W: cj.linear_log_prob(h, W, t, max_logits_bytes=400).sum(), (0, 1)))(h, W)
    wide = (h.astype(float), W.astype(float))
    expected = jax.grad(lambda h, W: jnp.take_along_axis(jax.nn.log_softmax(h @ W.T), t[:, None], 1).sum(), (0, 1))(
        *wide
    )
    for actual, exactly in zip(gradients, expected, strict=True):
        assert actual.dtype == "bfloat16"
        assert np.linalg.norm(actual.astype(float) - exactly) < 0.01 * np.linalg.norm(exactly)


@pytest.mark.parametrize(
    ("error", "arguments", "options", "message"),
    [
        (IndexError, (jnp.zeros((3, 5)), [1, 9, 0]), {}, "indices: .* ignore_index -100, got 9 in row 1"),
        (IndexError, (jnp.zeros((5, 2, 3)), np.full((1, 2, 3), -1)), {"axis": 0}, "got -1 in row 0"),
        (IndexError, (jnp.zeros((2, 5)), np.array([1, 2**32])), {}, "got 4294967296 in row 1"),
        (ValueError, (jnp.zeros((2, 5)), [1, 2, 3]), {}, r"indices: .* \(integers\) of shape \(2,\) or \(2, K\), got"),
        (ValueError, (jnp.zeros((2, 5)), [[[1], [2]]]), {}, r"indices: .*, got shape \(1, 2, 1\)"),
        (TypeError, (jnp.zeros((2, 5)), [1.0, 2.0]), {}, "indices: expected class indices"),
        (TypeError, (jnp.zeros((2, 5), complex), [1, 2]), {}, "logits: expected"),
        (ValueError, (jnp.zeros((2, 5)), [1, 2]), {"axis": 2}, "axis: expected"),
        (ValueError, (jnp.zeros((2, 0)), [1, 2]), {}, "logits: expected at least one class"),
        (ValueError, (jnp.zeros((2, 5)), [1, 2]), {"temperature": 0.0}, "temperature: expected"),
        (TypeError, (jnp.zeros((2, 5)), [1, 2]), {"ignore_index": 1.5}, "ignore_index: expected"),
        (TypeError, (jnp.zeros((2, 5)), [1, 2]), {"z_loss": 0.1}, "z_loss"),
    ],
)  # fmt: skip
def test_errors(error, arguments, options, message):
    with pytest.raises(error, match=message):
        cj.log_prob(*arguments, **options)


def test_errors_of_the_head():
    with pytest.raises(ValueError, match=r"classifier: expected shape \(C, 3\)"):
        cj.linear_log_prob(jnp.ones((2, 3)), jnp.ones((4, 2)), [0, 1])
    with pytest.raises(ValueError, match=r"bias: expected shape \(4,\)"):
        cj.linear_log_prob(jnp.ones((2, 3)), jnp.ones((4, 3)), [0, 1], bias=jnp.ones(3))
    with pytest.raises(ValueError, match="max_logits_bytes: expected at least 1"):
        cj.linear_log_prob(jnp.ones((2, 3)), jnp.ones((4, 3)), [0, 1], max_logits_bytes=0)


def test_errors_of_traced_indices():
    with pytest.raises(TypeError, match=r"indices: expected .*\(integers\) of shape \(2,\) .*, got dtype float"):
        jax.jit(cj.log_prob)(jnp.zeros((2, 3)), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"indices: expected class indices .* or \(2, K\), got shape \(3,\)"):
        jax.jit(cj.log_prob)(jnp.zeros((2, 3)), jnp.zeros(3, int))


def test_a_traced_index_out_of_range_is_nan():
    log_p = jax.jit(cj.log_prob)(jnp.zeros((2, 3)), jnp.array([[0, 7], [1, 2]]))
    assert np.isnan(log_p).tolist() == [[False, True], [False, False]]
