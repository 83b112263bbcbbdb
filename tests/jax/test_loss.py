"""crossentropy.jax: values and gradients against the reference, on the core and composed of JAX's operations."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_oracle import EPS, OPTIONS, REDUCTIONS, close, gradient, problem, reference

import crossentropy as ce
import crossentropy.jax as cj

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((6,), 0), ((8, 7), -1), ((3, 5, 4), 1)], ids=str)
@pytest.mark.parametrize("path", ["core", "composed"])
def test_equals_the_reference(shape, axis, probabilities, options, path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    for dtype, eps in EPS.items():
        z, t, w, s = problem(shape, probabilities, dtype, axis)
        for reduction in REDUCTIONS if dtype == "float64" else ["mean"]:
            arguments = {"reduction": reduction, **options}
            expected = reference(z, t, w, s, axis, **arguments)

            @jax.jit
            def loss(z, t=t, w=w, s=s, arguments=arguments):
                value = cj.cross_entropy(z, t, axis=axis, class_weight=w, sample_weight=s, **arguments)
                return value.sum(), value

            (_, value), dlogits = jax.value_and_grad(loss, has_aux=True)(z)
            close(value, expected[0], eps if dtype == "float64" else 1e-6)
            close(dlogits, expected[1], eps)
            assert dlogits.dtype == z.dtype
            assert value.dtype == ("float64" if dtype == "float64" else "float32")


@pytest.mark.parametrize("dtype", ["int32", "float16", "float32"])
def test_without_64_bits(dtype):
    z, t, w, s = (np.asarray(array) for array in problem((6, 5)))
    z = z.astype(dtype)
    expected = reference(z, t, w, s)
    with jax.enable_x64(False):
        loss = cj.cross_entropy(z, t, class_weight=w, sample_weight=s)
        assert loss.dtype == "float32"
        assert float(loss) == pytest.approx(expected[0], rel=1e-6)
        if dtype != "int32":
            close(jax.grad(cj.cross_entropy)(jnp.asarray(z), t), reference(z, t, None, None)[1], EPS[dtype])


def test_same_bits_as_numpy():
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((300, 1000), np.float32), rng.integers(0, 1000, 300)
    loss, dlogits = jax.value_and_grad(cj.cross_entropy)(z, t)
    expected = ce.cross_entropy_with_grad(z, t)
    assert float(loss) == np.float32(expected[0])
    assert np.array_equal(dlogits, expected[1])


CONFIDENT = jnp.array([[20.0, 0.0, 0.0]], jnp.float32)


@pytest.mark.parametrize("path", ["core", "composed"])
def test_a_confident_row_keeps_its_digits(path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    r = 2 * math.exp(-20)
    for transformed in (jax.value_and_grad, lambda f: jax.jit(jax.value_and_grad(f))):
        loss, dlogits = transformed(cj.cross_entropy)(CONFIDENT, jnp.array([0]))
        assert float(loss) == pytest.approx(math.log1p(r), rel=1e-6)
        assert float(dlogits[0, 0]) == pytest.approx(-r / (1 + r), rel=1e-6)
    tangent = jax.jvp(lambda z: cj.cross_entropy(z, jnp.array([0])), (CONFIDENT,), (jnp.eye(3, dtype=np.float32)[:1],))[
        1
    ]
    assert float(tangent) == pytest.approx(-r / (1 + r), rel=1e-6)


@pytest.mark.parametrize("path", ["core", "composed"])
def test_edge_cases(path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    inf, nan = math.inf, math.nan
    rows = jnp.array([[nan, 0, 0], [-inf, 1, 0], [-inf, 1, 0], [-inf] * 3, [inf, 0, 0], [nan] * 3, [2, 1, 0.1]])
    t = jnp.array([1, 1, 0, 0, 1, -100, 1])
    expected = reference(rows, t, None, None, reduction="none")
    loss = partial(cj.cross_entropy, targets=t, reduction="none")
    np.testing.assert_allclose(loss(rows), expected[0], rtol=1e-12)
    np.testing.assert_allclose(gradient(loss, rows), expected[1], rtol=1e-12, atol=1e-16)
    one_hot = jnp.array([[0.0, 1.0, 0.0]])
    assert jnp.isfinite(cj.cross_entropy(rows[1:2], one_hot))  # a zero coefficient removes its term
    for bad in (math.nan, inf, -inf):
        assert jnp.isnan(cj.cross_entropy(rows[6:], jnp.array([[bad, 1.0, 0.1]])))


@pytest.mark.parametrize("path", ["core", "composed"])
@pytest.mark.parametrize("traced", [False, True])
def test_signed_probabilities_and_weights(path, traced, request):
    """The mean divides by the sum of signed weights, whatever it is: NaN where it is 0."""
    if path == "composed":
        request.getfixturevalue("composed")
    z, t, w, s = problem((6, 5))
    w, s = w * jnp.array([1.0, -1.0, 1.0, 1.0, -2.0]), s * jnp.array([1.0, 1.0, -1.0, 1.0, 1.0, 1.0])
    q = jax.random.normal(jax.random.key(0), (6, 5))
    call = jax.jit if traced else lambda function: function
    for targets in (t, q):
        for reduction in ("none", "sum", "mean"):
            expected = reference(z, targets, w, s, reduction=reduction)
            loss = call(lambda z, w, s, t=targets, r=reduction: cj.cross_entropy(
                z, t, class_weight=w, sample_weight=s, reduction=r))  # fmt: skip
            np.testing.assert_allclose(loss(z, w, s), expected[0], rtol=1e-10)
            if reduction != "none":
                np.testing.assert_allclose(call(jax.grad(loss))(z, w, s), expected[1], rtol=1e-9, atol=1e-14)
    cancel = call(lambda s: cj.cross_entropy(z[3:], t[3:], sample_weight=s))
    assert jnp.isnan(cancel(jnp.array([1.0, 2.0, -3.0])))


@pytest.mark.parametrize("path", ["core", "composed"])
def test_nothing_counted_is_zero(path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    for z, t, options in (
        (jnp.zeros((0, 3)), jnp.zeros(0, int), {}),
        (jnp.full((2, 3), math.nan), jnp.full(2, -100), {}),
        (jnp.ones((2, 3)), jnp.array([0, 1]), {"sample_weight": jnp.zeros(2)}),
        (jnp.ones((2, 3)), jnp.array([0, 1]), {"where": jnp.zeros((2, 3), bool)}),
        (jnp.ones((2, 3)), jnp.array([0, 1]), {"class_weight": jnp.array([0.0, 0.0, 1.0])}),
    ):
        loss, dlogits = jax.value_and_grad(partial(cj.cross_entropy, **options))(z, t)
        assert loss == 0
        assert not dlogits.any()
        assert not jax.hessian(partial(cj.cross_entropy, **options))(z, t).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(dtype):
    z, t, _, _ = problem((64, 50), dtype=dtype)
    for scale in (1.0, 1e-4, 512.0):
        for reduction in ("mean", "none"):
            expected = reference(z, t, None, None, reduction=reduction, grad_output=scale)[1]
            function = partial(cj.cross_entropy, targets=t, reduction=reduction)
            dlogits = jax.jit(jax.grad(lambda z, f=function, scale=scale: scale * f(z).sum()))(z)
            unit = np.spacing(np.abs(expected).astype(dtype)).astype(np.float64)
            assert (np.abs(np.asarray(dlogits, np.float64) - expected) <= 0.51 * unit).all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "uint64"])
def test_index_dtypes(dtype):
    z, t, _, _ = problem((6, 5))
    t = jnp.where(t < 0, 0, t)
    assert cj.cross_entropy(z, t.astype(dtype)) == cj.cross_entropy(z, t)
    assert jax.jit(cj.cross_entropy)(z, t.astype(dtype)) == cj.cross_entropy(z, t)
