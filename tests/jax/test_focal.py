"""The focal loss and the entropy bonus in crossentropy.jax."""

import math
from functools import partial

import exact
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax_oracle import gradient, problem, reference

import crossentropy.jax as cj

OPTIONS = [{"focal_gamma": 2.0}, {"focal_gamma": 0.5, "entropy_bonus": 0.2, "z_loss": 0.01, "softcap": 5.0}]


def plain(z, t, w, s, focal_gamma=0.0, entropy_bonus=0.0, z_loss=0.0, softcap=None):
    """The mean over rows that count, in float64, of ordinary logits."""
    u = softcap * jnp.tanh(z / softcap) if softcap else z
    log_p = jax.nn.log_softmax(u)
    counted = t != -100
    of_target = jnp.take_along_axis(log_p, jnp.where(counted, t, 0)[:, None], 1)[:, 0]
    H = -(jnp.exp(log_p) * log_p).sum(1)
    losses = -((1 - jnp.exp(of_target)) ** focal_gamma) * of_target - entropy_bonus * H
    losses = losses + z_loss * jax.nn.logsumexp(u, 1) ** 2
    weights = jnp.where(counted, s * w[jnp.where(counted, t, 0)], 0)
    return (weights * losses).sum() / weights.sum()


@pytest.mark.parametrize("path", ["core", "composed"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_value_and_derivatives(options, path, x64, request):
    if path == "composed":
        request.getfixturevalue("composed")
    z, t, w, s = problem((4, 5))

    def loss(z):
        return cj.cross_entropy(z, t, class_weight=w, sample_weight=s, **options)

    actual, expected = jax.jit(jax.value_and_grad(loss))(z), reference(z, t, w, s, **options)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-15), actual, expected)
    np.testing.assert_allclose(
        jax.jit(jax.hessian(loss))(z), jax.hessian(partial(plain, t=t, w=w, s=s, **options))(z), rtol=1e-9, atol=1e-13
    )


def test_the_head_has_them(x64):
    z, t, w, s = problem((5, 4))
    W = jnp.asarray(np.random.default_rng(1).standard_normal((6, 4)))
    w, options = jnp.ones(6), OPTIONS[1]
    head = partial(cj.linear_cross_entropy, targets=t, sample_weight=s, max_logits_bytes=100, **options)
    np.testing.assert_allclose(
        jax.jit(jax.grad(head, 1))(z, W), jax.grad(lambda W: plain(z @ W.T, t, w, s, **options))(W), rtol=1e-10
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_digits_of_the_composed_loss(dtype, composed):
    """Of targets that lead and that do not, in mpmath: the odds keep what 1 - p loses."""
    with jax.enable_x64(dtype == "float64"), mpmath.workdps(exact.DIGITS):
        loss = jax.jit(jax.value_and_grad(partial(cj.cross_entropy, focal_gamma=1.5)))
        for gap, t in ((0, 0), (10, 0), (20, 0), (30, 1)):
            z = np.random.default_rng(0).standard_normal(40).astype(dtype)
            z[0] += gap
            value, dlogits = loss(z, jnp.array(t))
            log_p = exact.log_softmax(exact.scaled(z)[0])
            p = [mpmath.exp(x) for x in log_p]
            Q = mpmath.fsum(p[:t] + p[t + 1 :])
            expected = -(Q**1.5) * log_p[t]
            factor = Q**1.5 * (1 - 1.5 * log_p[t] * p[t] / Q)
            of_logits = [factor * (-Q if c == t else p[c]) for c in range(40)]
            # Q to the power of gamma carries the error of log Q.
            eps = (8 + 3 * abs(float(mpmath.log(Q)))) * np.finfo(dtype).eps
            assert exact.largest_error(value, [expected], [expected]) < eps
            assert exact.largest_error(dlogits, of_logits, [abs(x) for x in of_logits]) < eps


@pytest.mark.parametrize("path", ["core", "composed"])
def test_edge_cases(path, x64, request):
    if path == "composed":
        request.getfixturevalue("composed")
    inf, nan = math.inf, math.nan
    z = jnp.array([[0, -inf, -inf], [-inf, 1, 0], [nan, 0, 0], [-inf] * 3, [inf, 0, 0], [800.0, 0, 0], [nan] * 3])
    t = jnp.array([0, 0, 1, 1, 1, 0, -100])
    loss = partial(cj.cross_entropy, targets=t, focal_gamma=2.0, entropy_bonus=0.1, reduction="none")
    expected = reference(z, t, None, None, focal_gamma=2.0, entropy_bonus=0.1, reduction="none")
    np.testing.assert_allclose(loss(z), expected[0], rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(gradient(loss, z), expected[1], rtol=1e-12, atol=1e-300)
    value, dlogits = jax.value_and_grad(partial(cj.cross_entropy, focal_gamma=2.0))(
        jnp.zeros((2, 1)), jnp.zeros(2, int)
    )
    assert value == 0
    assert not dlogits.any()
    for options, w in (
        ({"focal_gamma": 2.0}, jnp.array([0.0, 1, 1])),
        ({"entropy_bonus": 0.1}, jnp.array([0.0, 1, 1])),
    ):
        weighted = partial(cj.cross_entropy, targets=t[1:2], class_weight=w, reduction="none", **options)
        assert weighted(z[1:2]) == 0  # 0 times an infinite loss
        assert not gradient(weighted, z[1:2]).any()


def test_errors():
    z = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"focal_gamma: expected 0 for targets that are probabilities, got 2\.0"):
        cj.cross_entropy(z, z, focal_gamma=2.0)
    with pytest.raises(ValueError, match=r"focal_gamma: expected 0 with label_smoothing 0\.1"):
        cj.linear_cross_entropy(z, jnp.eye(3), [0, 1], focal_gamma=1.0, label_smoothing=0.1)
