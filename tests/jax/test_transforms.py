"""crossentropy.jax under every transformation of JAX: compared with optax under the same."""

from functools import partial

import jax
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from jax_oracle import OPTIONS, problem

import crossentropy.jax as cj
from crossentropy.jax import _rules

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("options", OPTIONS[::2], ids=str)
@pytest.mark.parametrize("probabilities", [False, True])
def test_derivatives(probabilities, options, reduction):
    z, t, w, s = problem((4, 3), probabilities)

    @jax.jit
    def loss(z, w, s, q=None):
        targets = t if q is None else q
        return cj.cross_entropy(z, targets, class_weight=w, sample_weight=s, reduction=reduction, **options)

    arguments = (z, w, s + 0.1, *([t + 0.1] if probabilities else []))
    check_grads(loss, arguments, order=2, modes=("fwd", "rev"))


def transforms(loss):
    """Of a function of logits and targets with one result a row."""
    rng = np.random.default_rng(0)
    z, v, zs = rng.standard_normal((6, 4)), rng.standard_normal((6, 4)), rng.standard_normal((3, 6, 4))
    t, ts, g = rng.integers(0, 4, 6), rng.integers(0, 4, (3, 6)), rng.random(6)

    def mean(z, t):
        return loss(z, t).mean()

    return {
        "value": lambda: loss(z, t),
        "grad": lambda: jax.grad(mean)(z, t),
        "value_and_grad": lambda: jax.value_and_grad(mean)(z, t),
        "vjp": lambda: jax.vjp(lambda z: loss(z, t), z)[1](g),
        "jvp": lambda: jax.jvp(lambda z: loss(z, t), (z,), (v,)),
        "jacfwd": lambda: jax.jacfwd(loss)(z, t),
        "jacrev": lambda: jax.jacrev(loss)(z, t),
        "linearize": lambda: jax.linearize(lambda z: loss(z, t), z)[1](v),
        "hessian": lambda: jax.hessian(mean)(z, t),
        "reverse over reverse": lambda: jax.jacrev(jax.jacrev(mean))(z, t),
        "third": lambda: jax.jacfwd(jax.hessian(mean))(z[:2], t[:2]),
        "vmap": lambda: jax.vmap(loss)(zs, ts),
        "vmap of logits": lambda: jax.vmap(loss, in_axes=(2, None))(np.moveaxis(zs, 0, 2), t),
        "vmap of targets": lambda: jax.vmap(loss, in_axes=(None, 0))(z, ts),
        "vmap of rows": lambda: jax.vmap(loss)(z, t),
        "vmap of vmap": lambda: jax.vmap(jax.vmap(loss))(zs, ts),
        "vmap of grad": lambda: jax.vmap(jax.grad(mean))(zs, ts),
        "vmap of grad of rows": lambda: jax.vmap(jax.grad(loss))(z, t),
        "vmap of jvp": lambda: jax.vmap(lambda z, t: jax.jvp(lambda z: loss(z, t), (z,), (v,)))(zs, ts),
        "vmap of hessian": lambda: jax.vmap(jax.hessian(mean))(zs, ts),
        "grad of vmap": lambda: jax.grad(lambda zs: jax.vmap(mean)(zs, ts).sum())(zs),
        "grad of jvp": lambda: jax.grad(lambda z: jax.jvp(lambda z: mean(z, t), (z,), (v,))[1])(z),
        "checkpoint": lambda: jax.grad(jax.checkpoint(lambda z: mean(2 * z, t)))(z),
        "scan": lambda: jax.grad(lambda zs: jax.lax.scan(lambda a, x: (a + mean(*x), a), 0.0, (zs, ts))[0])(zs),
    }


OURS = transforms(cj.softmax_cross_entropy_with_integer_labels)
THEIRS = transforms(optax.softmax_cross_entropy_with_integer_labels)


@pytest.mark.parametrize("how", ["as it is", "jit", "rules of half precision"])
@pytest.mark.parametrize("name", OURS)
def test_transform(name, how, monkeypatch):
    if how == "rules of half precision":  # on numbers that need no rounding
        monkeypatch.setattr(_rules, "_one_pass", lambda *_: False)
        jax.clear_caches()
    expected = THEIRS[name]()
    actual = (OURS[name] if how == "as it is" else jax.jit(OURS[name]))()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), actual, expected)
