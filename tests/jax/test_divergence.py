"""crossentropy.jax: Kullback and Leibler's divergence and Jensen and Shannon's."""

import math
from functools import partial

import exact
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import crossentropy.jax as cj

KINDS = {
    "forward": cj.kl_divergence,
    "reverse": partial(cj.kl_divergence, direction="reverse"),
    "mixture": partial(cj.jensen_shannon, beta=0.3),
}
HEADS = {
    "forward": cj.linear_kl_divergence,
    "reverse": partial(cj.linear_kl_divergence, direction="reverse"),
    "mixture": partial(cj.linear_jensen_shannon, beta=0.3),
}
ALL = {"softcap": 5.0, "teacher_softcap": 3.0, "temperature": 0.7}


def definition(kind, log_p, log_q, beta=0.3):
    """The divergence and its gradients by scaled logits, in mpmath; and the size that their errors are relative to."""
    p, q = ([mpmath.exp(x) for x in logs] for logs in (log_p, log_q))
    delta = [a - b for a, b in zip(log_p, log_q, strict=True)]
    forward = -mpmath.fsum(b * d for b, d in zip(q, delta, strict=True))
    size = mpmath.sqrt(2 * forward)
    sizes = [max(a, b) * max(abs(d), size) for a, b, d in zip(p, q, delta, strict=True)]
    if kind == "forward":
        return forward, [a - b for a, b in zip(p, q, strict=True)], [
            -b * (d + forward) for b, d in zip(q, delta, strict=True)], sizes  # fmt: skip
    if kind == "reverse":
        reverse = mpmath.fsum(a * d for a, d in zip(p, delta, strict=True))
        of_student = [a * (d - reverse) for a, d in zip(p, delta, strict=True)]
        return reverse, of_student, [b - a for a, b in zip(p, q, strict=True)], sizes
    beta = mpmath.mpf(beta)
    log_m = [mpmath.log(beta * b + (1 - beta) * a) for a, b in zip(p, q, strict=True)]
    parts, gradients = [], []
    for weight, probabilities, logs in ((1 - beta, p, log_p), (beta, q, log_q)):
        distances = [m - x for m, x in zip(log_m, logs, strict=True)]
        mean = mpmath.fsum(x * d for x, d in zip(probabilities, distances, strict=True))
        parts.append(-weight * mean)
        gradients.append([weight * x * (mean - d) for x, d in zip(probabilities, distances, strict=True)])
    return sum(parts), *gradients, [s * beta * (1 - beta) for s in sizes]


def plain(kind, z, y, softcap=None, teacher_softcap=None, temperature=1.0, beta=0.3):
    """One divergence a row of ordinary logits, in float64."""
    u = softcap * jnp.tanh(z / softcap) if softcap else z
    v = teacher_softcap * jnp.tanh(y / teacher_softcap) if teacher_softcap else y
    log_p, log_q = jax.nn.log_softmax(u / temperature), jax.nn.log_softmax(v / temperature)
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    if kind == "mixture":
        log_m = jnp.log(beta * q + (1 - beta) * p)
        return (beta * q * (log_q - log_m) + (1 - beta) * p * (log_p - log_m)).sum(-1)
    return (q * (log_q - log_p) if kind == "forward" else p * (log_p - log_q)).sum(-1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_digits(kind, dtype):
    """Of models that hardly differ, that differ a lot, with a leading class, at an offset: against mpmath."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(dtype == "float64"), mpmath.workdps(exact.DIGITS):
        loss = jax.jit(jax.value_and_grad(KINDS[kind], (0, 1)))
        for gap, apart, offset in (
            (0, 1e-3 if dtype == "float32" else 1e-9, 1e4), (20, 1e-3, 0), (40, 1, 0), (60, 0.1, 0), (3, 10, 0),
            (80, 1, 0),
        ):  # fmt: skip
            if gap == 80 and dtype == "float32":
                continue  # its terms are below the normal numbers
            y = rng.standard_normal(50)
            y[0] += gap
            z = y + apart * rng.standard_normal(50)
            z, y = ((x + offset).astype(dtype) for x in (z, y))
            value, gradients = loss(jnp.asarray(z), jnp.asarray(y))
            log_p, log_q = (exact.log_softmax(exact.scaled(x)[0]) for x in (z, y))
            expected, *of_logits, sizes = definition(kind, log_p, log_q)
            eps = 4 * np.finfo(dtype).eps
            assert exact.largest_error(value, [expected], [expected]) < 2 * eps
            for actual, gradient in zip(gradients, of_logits, strict=True):
                assert exact.largest_error(actual, gradient, sizes) < 4 * eps


@pytest.mark.parametrize("softcaps", [(5.0, 5.0), (5.0, 3.0), (None, 4.0)], ids=str)
def test_digits_under_soft_caps(softcaps):
    """Equal soft caps leave nearly equal models their digits, also where tanh rounds to 1."""
    rng = np.random.default_rng(0)
    y = (6 * rng.standard_normal(50)).astype(np.float32)
    y[:2] = 60, 50
    z = y + np.float32(1e-3) * rng.standard_normal(50, np.float32)
    options = {"softcap": softcaps[0], "teacher_softcap": softcaps[1], "temperature": 0.7}
    value, gradients = jax.jit(jax.value_and_grad(partial(cj.kl_divergence, **options), (0, 1)))(z, y)
    with mpmath.workdps(exact.DIGITS):
        pairs = [exact.scaled(x, softcap, 0.7) for x, softcap in zip((z, y), softcaps, strict=True)]
        expected, *of_u, sizes = definition("forward", *(exact.log_softmax(u) for u, _ in pairs))
        assert exact.largest_error(value, [expected], [expected]) < 3e-6
        for actual, gradient, (_, slopes) in zip(gradients, of_u, pairs, strict=True):
            of_z = [g * s for g, s in zip(gradient, slopes, strict=True)]
            assert exact.largest_error(actual, of_z, [x * s for x, s in zip(sizes, slopes, strict=True)]) < 6e-6


# The mixture takes a minute to compile.
COMPILED = ["forward", "reverse", pytest.param("mixture", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", COMPILED)
def test_equal_models_are_0_apart(kind):
    z = np.random.default_rng(0).integers(-900, 900, (3, 40)).astype(np.float32) / 64
    z[1, 3:5] = -math.inf
    for options in ({}, {"softcap": 4.0, "teacher_softcap": 4.0, "temperature": 0.3}):
        for offset in (0, 8) if not options else (0,):
            loss, gradients = jax.jit(jax.value_and_grad(partial(KINDS[kind], **options), (0, 1)))(z + offset, z)
            assert loss == 0
            assert not any(gradient.any() for gradient in gradients)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, ALL], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives(kind, options, x64):
    """In both models, up to the third: as those of the plain formulas."""
    rng = np.random.default_rng(0)
    z, y, s = rng.standard_normal((2, 3)), rng.standard_normal((2, 3)), rng.random(2) + 0.5

    def derivatives(function):
        def third(z, y):
            return jax.jacfwd(jax.jacrev(jax.jacrev(lambda z, y: function(z, y, s[:1]), 1)))(z[:1], y[:1])

        def all_of(z, y):
            found = [jax.value_and_grad(function, (0, 1))(z, y, s), jax.hessian(function, (0, 1))(z, y, s)]
            return [*found, third(z, y)] if kind == "forward" and not options else found

        return jax.jit(all_of)(z, y)

    def ours(z, y, s):
        return KINDS[kind](z, y, sample_weight=s, **options)

    def theirs(z, y, s):
        return (s * plain(kind, z, y, **options)).sum() / s.sum()

    check = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    jax.tree.map(check, derivatives(ours), derivatives(theirs))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_transformations(kind, x64):
    rng = np.random.default_rng(0)
    z, y, s = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4)), rng.random(3) + 0.5

    @partial(jax.jit, static_argnums=0)
    def transformed(losses, z, y):
        def mean(z, y):
            return losses(z, y).mean()

        return {
            "value": losses(z, y),
            "vmap": jax.vmap(mean, (0, None))(z, y[0]),
            "vmap of gradients": jax.vmap(jax.grad(mean, 1))(z, y),
            "scan": jax.grad(lambda z: jax.lax.scan(lambda a, x: (a + jax.checkpoint(mean)(*x), a), 0.0, (z, y))[0])(z),
            "jvp": jax.jvp(lambda z: losses(z, y[0]), (z[0],), (z[1],)),
            "reverse over reverse": jax.jacrev(jax.jacrev(jax.checkpoint(mean)))(z[0], y[0]),
        }

    losses = partial(KINDS[kind], reduction="none")
    check = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    jax.tree.map(check, transformed(losses, z, y), transformed(partial(plain, kind), z, y))
    expected = plain(kind, z, y)
    check(KINDS[kind](z, y), expected.mean())
    check(KINDS[kind](z, y, reduction="sum"), expected.sum())
    check(losses(np.moveaxis(z, -1, 0), np.moveaxis(y, -1, 0), axis=0), expected)
    of_weights = jax.grad(lambda s: KINDS[kind](z[0], y[0], sample_weight=s))(s)
    check(of_weights, (expected[0] - (s * expected[0]).sum() / s.sum()) / s.sum())


def test_a_class_that_one_model_excludes(x64):
    inf = math.inf
    z = jnp.array([[-inf, 0.0, 1.0, 0.5], [0.2, 0.0, 1.0, 0.5], [-inf, 0.0, 1.0, 0.5], [-inf, -inf, 0.0, 0.0]])
    y = jnp.array([[0.1, 0.5, 0.0, 0.2], [-inf, 0.5, 0.0, 0.2], [-inf, 0.5, 0.0, 0.2], [0.0, 0.0, -inf, -inf]])
    p, q = jax.nn.softmax(z), jax.nn.softmax(y)

    def evaluated(kind):
        loss = partial(KINDS[kind], reduction="none")
        gradients = [
            jax.grad(lambda *a: loss(*a).sum(), n) for n in (0, 1)
        ]  # one has no part in the other's infinities
        return jax.jit(lambda z, y: (loss(z, y), *(gradient(z, y) for gradient in gradients)))(z, y)

    losses, of_student, of_teacher = evaluated("forward")
    terms = jnp.where(q > 0, q * (jnp.log(q) - jnp.log(p)), 0)
    np.testing.assert_allclose(losses, terms.sum(1), rtol=1e-12)
    assert losses[0] == losses[3] == inf
    np.testing.assert_allclose(of_student, p - q, rtol=1e-12, atol=1e-15)
    assert of_teacher[0].tolist() == [inf, -inf, -inf, -inf]
    np.testing.assert_allclose(of_teacher[1:3], jnp.where(q > 0, terms - q * losses[:, None], 0)[1:3], atol=1e-15)

    losses, of_student, of_teacher = evaluated("reverse")
    terms = jnp.where(p > 0, p * (jnp.log(p) - jnp.log(q)), 0)
    np.testing.assert_allclose(losses, terms.sum(1), rtol=1e-12)
    assert losses[1] == losses[3] == inf
    np.testing.assert_allclose(of_teacher, q - p, rtol=1e-12, atol=1e-15)
    assert of_student[1].tolist() == [inf, -inf, -inf, -inf]
    assert of_student[3].tolist() == [0, 0, inf, inf]
    np.testing.assert_allclose(of_student[2], (terms - p * losses[:, None])[2], atol=1e-15)

    losses, of_student, of_teacher = evaluated("mixture")
    m = 0.3 * q + 0.7 * p
    log_ratios = [jnp.where(x > 0, jnp.log(m) - jnp.log(x), 0) for x in (p, q)]
    means = [(x * ratio).sum(1, keepdims=True) for x, ratio in zip((p, q), log_ratios, strict=True)]
    np.testing.assert_allclose(losses, (-0.7 * means[0] - 0.3 * means[1])[:, 0], rtol=1e-12)
    np.testing.assert_allclose(of_student, 0.7 * p * (means[0] - log_ratios[0]), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(of_teacher, 0.3 * q * (means[1] - log_ratios[1]), rtol=1e-10, atol=1e-15)
    assert float(losses[3]) == pytest.approx(-0.3 * math.log(0.3) - 0.7 * math.log(0.7))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_do_not_count_and_nan(kind, x64):
    """A row of weight 0 holds anything; NaN, +inf, nothing but -inf stay in their rows, whichever model has them."""
    inf, nan = math.inf, math.nan
    good = jnp.array([0.5, 1.0, -1.0])
    bad = [jnp.array(row) for row in ([nan, 0, 1], [inf, 0, 1], [-inf] * 3)]
    z = jnp.stack([good, *bad, good, good, good, bad[0]])
    y = jnp.stack([-good, good, good, good, *bad, bad[1]])
    s = jnp.ones(8).at[-1].set(0)
    losses = partial(KINDS[kind], sample_weight=s, reduction="none")
    expected = [False, True, True, True, True, True, True, False]
    assert np.isnan(losses(z, y)).tolist() == expected
    for gradient in jax.jit(jax.grad(lambda *a: losses(*a).sum(), (0, 1)))(z, y):
        assert np.isnan(gradient).any(1).tolist() == expected
        assert not gradient[-1].any()
    loss, gradients = jax.value_and_grad(KINDS[kind], (0, 1))(z, y, sample_weight=jnp.zeros(8))
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients)
    assert KINDS[kind](jnp.zeros((0, 3)), jnp.zeros((0, 3))) == 0


@pytest.mark.parametrize("kind", COMPILED)
def test_half_precision_is_rounded_once(kind, x64):
    rng = np.random.default_rng(0)
    for dtype in ("float16", "bfloat16"):
        z, y = (jnp.asarray(3 * rng.standard_normal((8, 30)), dtype) for _ in range(2))
        loss, gradients = jax.jit(jax.value_and_grad(lambda *a: 512.0 * KINDS[kind](*a), (0, 1)))(z, y)
        wide = z.astype(float), y.astype(float)
        assert loss.dtype == "float32"
        expected = jax.jit(jax.value_and_grad(lambda *a: 512.0 * plain(kind, *a).mean(), (0, 1)))(*wide)
        assert float(loss) == pytest.approx(float(expected[0]), rel=1e-6)
        for actual, exactly in zip(gradients, expected[1], strict=True):
            assert actual.dtype == dtype
            unit = np.spacing(np.abs(exactly).astype(dtype)).astype(np.float64)
            assert (np.abs(np.asarray(actual, np.float64) - exactly) <= 0.52 * unit).all()
        assert KINDS[kind](wide[0], y).dtype == "float64"


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEADS)
def test_heads_equal_whole_logits(kind, x64):
    """Of different widths, two rows at a time; a row of weight 0 holds NaN."""
    rng = np.random.default_rng(0)
    shapes = ((5, 3), (7, 3), (7,), (5, 2), (7, 2), (7,))
    arguments = [rng.standard_normal(shape) for shape in shapes]
    s = np.array([1.0, 0.5, 0.0, 2.0, 1.0])
    holding_nan = [x.copy() for x in arguments]
    holding_nan[0][2] = holding_nan[3][2] = math.nan

    def head(h, W, b, g, V, c, **given):
        return HEADS[kind](h, W, g, V, bias=b, teacher_bias=c, sample_weight=s, **ALL, **given)

    def whole(h, W, b, g, V, c):
        return KINDS[kind](h @ W.T + b, g @ V.T + c, sample_weight=s, **ALL)

    check = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-13)
    expected = jax.jit(jax.value_and_grad(whole, range(6)))(*arguments)
    chunked = partial(head, max_logits_bytes=2 * 7 * 8)
    jax.tree.map(check, jax.jit(jax.value_and_grad(chunked, range(6)))(*holding_nan), expected)
    losses = head(*arguments, reduction="none")
    check((losses.sum() / s.sum()), expected[0])
    if kind == "forward":
        check(jax.jit(jax.hessian(chunked, 1))(*arguments), jax.jit(jax.hessian(whole, 1))(*arguments))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equal_heads_are_0_apart(dtype):
    rng = np.random.default_rng(0)
    h, W, b = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in ((9, 16), (50, 16), (50,)))
    for kind in HEADS.values():
        assert kind(h, W, h, W, bias=b, teacher_bias=b, max_logits_bytes=4 * 50 * 4) == 0
    loss = partial(cj.linear_kl_divergence, bias=b, teacher_bias=b, max_logits_bytes=800)
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(h, W, h, W)
    assert value == 0
    assert all(gradient.dtype == dtype and not gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"teacher_logits": jnp.zeros((2, 4))}, r"teacher_logits: expected the shape of logits, \(2, 3\)"),
        (TypeError, {"teacher_logits": jnp.zeros((2, 3), bool)}, "teacher_logits: expected float16"),
        (TypeError, {"logits": jnp.zeros((2, 3), complex)}, "^logits: expected float16"),
        (ValueError, {"axis": 2}, "axis: expected"),
        (ValueError, {"logits": jnp.zeros((2, 0)), "teacher_logits": jnp.zeros((2, 0))}, "logits: expected at least"),
        (ValueError, {"direction": "backward"}, "direction: expected 'forward' or 'reverse', got 'backward'"),
        (ValueError, {"softcap": 0.0}, "^softcap: expected"),
        (ValueError, {"teacher_softcap": 0.0}, "^teacher_softcap: expected"),
        (ValueError, {"temperature": -1.0}, "^temperature: expected"),
        (ValueError, {"reduction": "batchmean"}, "reduction: expected"),
        (ValueError, {"sample_weight": jnp.ones(3)}, r"sample_weight: expected shape \(2,\)"),
        (TypeError, {"ignore_index": 1}, "ignore_index"),
    ],
)
def test_errors(error, options, message):
    arguments = {"logits": jnp.zeros((2, 3)), "teacher_logits": jnp.zeros((2, 3))} | options
    with pytest.raises(error, match=message):
        cj.kl_divergence(**arguments)


def test_errors_of_the_mixture():
    z = jnp.zeros((2, 3))
    for beta in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"beta: expected a number between 0 and 1, got .*kl_divergence"):
            cj.jensen_shannon(z, z, beta=beta)
    with pytest.raises(TypeError, match="beta: expected a number"):
        cj.linear_jensen_shannon(z, z, z, z, beta="half")


def test_errors_of_the_heads():
    h, W = jnp.ones((2, 3)), jnp.ones((4, 3))
    for arguments, message in (
        ((h, W, h[:1], W), r"teacher_hidden: expected rows of shape \(2,\)"),
        ((h, W, h, W[:3]), "teacher_classifier: expected the 4 classes"),
        ((h, W, h, W[:, :2]), r"teacher_classifier: expected shape \(C, 3\)"),
        ((h, W[:, :2], h, W), r"^classifier: expected shape \(C, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            cj.linear_kl_divergence(*arguments)
    with pytest.raises(ValueError, match=r"teacher_bias: expected shape \(4,\)"):
        cj.linear_kl_divergence(h, W, h, W, teacher_bias=jnp.ones(3))
    with pytest.raises(ValueError, match="max_logits_bytes: expected at least 1"):
        cj.linear_kl_divergence(h, W, h, W, max_logits_bytes=0)
