"""The binary loss in JAX: values, derivatives, transforms, in place of optax's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from jax_oracle import EPS, REDUCTIONS, close

import crossentropy as ce
import crossentropy.jax as cj

pytestmark = pytest.mark.usefixtures("x64")
OPTIONS = [{}, {"label_smoothing": 0.1}, {"focal_gamma": 2.0}, {"label_smoothing": 0.2, "focal_gamma": 0.5}]


def problem(shape=(5, 3), dtype="float64"):
    """Logits, targets, sample weights of which one is 0, and a weight for each class."""
    rng = np.random.default_rng(0)
    z, y = (jnp.asarray(x, dtype) for x in (3 * rng.standard_normal(shape), rng.random(shape)))
    s = rng.random(shape) + 0.5
    s.flat[0] = 0
    return z, y, jnp.asarray(s), jnp.asarray(rng.random(shape[-1:]) + 0.5)


def reference(z, y, s, w, **options):
    z, y, s, w = (np.asarray(x, np.float64) for x in (z, y, s, w))
    return ce.reference.binary_cross_entropy_with_grad(z, y, sample_weight=s, pos_weight=w, **options)


CASES = [
    *[("float64", reduction, options) for reduction, options in zip(REDUCTIONS, OPTIONS, strict=False)],
    *[(dtype, "mean", OPTIONS[3]) for dtype in EPS],
    ("float32", "none", {}),
]


@pytest.mark.parametrize(("dtype", "reduction", "options"), CASES, ids=str)
def test_equals_the_reference(dtype, reduction, options):
    z, y, s, w = problem((8, 7), dtype)
    options = {"reduction": reduction, **options}

    def loss(z):
        value = cj.binary_cross_entropy(z, y, sample_weight=s, pos_weight=w, **options)
        return value.sum(), value

    (_, value), dlogits = jax.value_and_grad(loss, has_aux=True)(z)
    expected = reference(z, y, s, w, **options)
    close(value, expected[0], EPS[dtype] if dtype == "float64" else 2e-6)
    close(dlogits, expected[1], EPS[dtype])
    assert dlogits.dtype == z.dtype
    assert value.dtype == ("float64" if dtype == "float64" else "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_digits_of_both_tails(dtype):
    z = jnp.array([-40.0, 40.0, 20.0, -17.0], dtype)
    y = jnp.array([0.0, 1.0, 1.0, 0.0], dtype)
    t = np.exp(-np.abs(np.asarray(z, np.float64)))
    eps = 8 * float(jnp.finfo(dtype).eps)
    for function in (
        partial(cj.sigmoid_binary_cross_entropy, labels=y),
        partial(cj.sigmoid_focal_loss, labels=y, gamma=0),
    ):
        dz = jax.grad(lambda z, function=function: function(z).sum())
        second = jax.grad(lambda z, dz=dz: dz(z).sum())
        tangent = jax.jvp(function, (z,), (jnp.ones_like(z),))[1]
        for found, expected in ((function(z), np.log1p(t)), (abs(dz(z)), t / (1 + t)), (abs(tangent), t / (1 + t))):
            np.testing.assert_allclose(found, expected, rtol=eps)
        np.testing.assert_allclose(second(z), t / (1 + t) ** 2, rtol=eps)
    focal, dfocal = jax.value_and_grad(lambda z: cj.sigmoid_focal_loss(z, 1.0))(jnp.asarray(20, dtype))
    t = np.exp(-20.0)
    q = t / (1 + t)
    assert float(focal) == pytest.approx(np.log1p(t) * q**2, rel=eps)
    assert float(dfocal) == pytest.approx(-(q**3) - 2 * np.log1p(t) * q**2 * (1 - q), rel=eps)


@pytest.mark.parametrize("options", OPTIONS[::3], ids=str)
def test_derivatives_in_every_argument(options):
    tensors = problem((3, 2))

    def loss(z, y, s, w):
        return cj.binary_cross_entropy(z, y, sample_weight=s, pos_weight=w, reduction="sum", **options)

    check_grads(loss, tensors, order=2, modes=["fwd", "rev"], atol=1e-4, rtol=1e-4)
    hessian = jax.hessian(loss)(*tensors).reshape(6, 6)
    assert (hessian - jnp.diag(jnp.diagonal(hessian)) == 0).all()


def test_derivative_at_zero():
    """Of |z| there is none; of the loss there is."""
    y = jnp.array([0.0, 1.0, 0.25])
    dz = jax.grad(lambda z: cj.binary_cross_entropy(z, y, reduction="sum"))
    np.testing.assert_allclose(dz(jnp.zeros(3)), 0.5 - y)
    np.testing.assert_allclose(jax.grad(lambda z: dz(z).sum())(jnp.zeros(3)), 0.25)


def test_transforms():
    z, y, s, w = problem((6, 4))
    loss = partial(cj.binary_cross_entropy, targets=y, sample_weight=s, pos_weight=w)
    expected = reference(z, y, s, w)[0]
    assert jax.jit(loss)(z) == pytest.approx(expected)
    assert jax.vmap(loss)(jnp.stack([z, -z]))[0] == pytest.approx(expected)
    traced = jax.jit(lambda z, y, s, w: cj.binary_cross_entropy(z, y, sample_weight=s, pos_weight=w))
    assert traced(z, y, s, w) == pytest.approx(expected)


def test_edges():
    infinite, y = jnp.array([np.inf, -np.inf, np.inf, -np.inf]), jnp.array([1.0, 0.0, 0.0, 1.0])
    for gamma in (0.0, 0.5, 2.0):

        def losses(z, gamma=gamma):
            return cj.binary_cross_entropy(z, y, focal_gamma=gamma, reduction="none")

        np.testing.assert_array_equal(losses(infinite), [0, 0, np.inf, np.inf])
        np.testing.assert_array_equal(jax.grad(lambda z, f=losses: f(z).sum())(infinite), [0, 0, 1, -1])
    z, s = jnp.array([np.nan, 1.0]), jnp.array([0.0, 2.0])
    loss, dz = jax.value_and_grad(lambda z: cj.binary_cross_entropy(z, jnp.ones(2), sample_weight=s))(z)
    assert float(loss) == pytest.approx(np.log1p(np.exp(-1.0)))
    assert dz[0] == 0
    for z, options in ((jnp.full(3, np.nan), {"sample_weight": 0.0}), (jnp.zeros((0, 2)), {})):
        loss, dz = jax.value_and_grad(lambda z, o=options: cj.binary_cross_entropy(z, jnp.zeros(z.shape), **o))(z)
        assert loss == 0
        assert (dz == 0).all()
    assert jnp.isnan(cj.binary_cross_entropy(jnp.ones(2), jnp.ones(2), sample_weight=jnp.array([1.0, -1.0])))


def test_errors():
    z = jnp.zeros((2, 3))
    for match, given in (
        (r"targets: expected the shape of the logits, \(2, 3\), got \(3,\)", {"targets": jnp.ones(3)}),
        ("pos_weight: expected weights of at least 0", {"pos_weight": -1.0}),
        ("pos_weight: expected a number or an array that broadcasts", {"pos_weight": jnp.ones(2)}),
        ("sample_weight: expected finite weights", {"sample_weight": np.inf}),
        ("label_smoothing: expected", {"label_smoothing": 2.0}),
        ("focal_gamma: expected", {"focal_gamma": -1.0}),
        ("reduction: expected", {"reduction": "average"}),
    ):
        with pytest.raises(ValueError, match=match):
            cj.binary_cross_entropy(z, **({"targets": z} | given))
    with pytest.raises(ValueError, match="broadcasts to shape"):
        jax.jit(lambda w: cj.binary_cross_entropy(z, z, pos_weight=w))(jnp.ones(2))
    for function in (cj.binary_cross_entropy, cj.sigmoid_binary_cross_entropy):
        with pytest.raises((TypeError, ValueError), match="logits: expected"):
            function(z > 0, z)
    with pytest.raises(TypeError, match="targets: expected numbers of a real or boolean dtype"):
        cj.binary_cross_entropy(z, z.astype(complex))


@pytest.mark.parametrize(
    "labels_of", [lambda y: y, lambda y: y[:1], lambda y: y > 0.5, lambda y: (y > 0.5).astype(int)]
)
def test_optax(labels_of):
    z, y, *_ = problem((6, 4))
    labels = labels_of(y)
    np.testing.assert_allclose(
        cj.sigmoid_binary_cross_entropy(z, labels), optax.sigmoid_binary_cross_entropy(z, labels), rtol=1e-12
    )
    for options in ({}, {"gamma": 0.5}, {"alpha": 0.25}, {"alpha": jnp.linspace(0.1, 0.9, 4), "gamma": 3.0}):
        full = jnp.broadcast_to(labels, z.shape)
        found, expected = (f(z, full, **options) for f in (cj.sigmoid_focal_loss, optax.sigmoid_focal_loss))
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        np.testing.assert_allclose(cj.sigmoid_focal_loss(z, labels, **options), found, rtol=1e-12)
