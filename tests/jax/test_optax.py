"""In place of optax's: the functions of its names."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax_oracle import gradient

import crossentropy.jax as cj

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 2), (2, 1)], ids=str)
def test_optax_integer_labels(axis):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((3, 4, 5))
    axes = np.atleast_1d(axis)
    classes = int(np.prod([z.shape[a] for a in axes]))
    labels = rng.integers(0, classes, np.delete(z.shape, axes))
    ours, theirs = cj.softmax_cross_entropy_with_integer_labels, optax.softmax_cross_entropy_with_integer_labels
    np.testing.assert_allclose(ours(z, labels, axis), theirs(z, labels, axis), rtol=1e-12)


@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None], ids=str)
def test_optax_probabilities(axis):
    rng = np.random.default_rng(0)
    z, q = rng.standard_normal((3, 4, 5)), rng.random((3, 4, 5))
    for labels in (q, q[:1], q > 0.5, (q > 0.5).astype(int)):
        expected = optax.softmax_cross_entropy(z, jnp.broadcast_to(labels, z.shape), axis)
        np.testing.assert_allclose(cj.softmax_cross_entropy(z, labels, axis), expected, rtol=1e-12)


def test_optax_where():
    rng = np.random.default_rng(0)
    z, q = rng.standard_normal((6, 5)), rng.random((6, 5))
    t = rng.integers(0, 5, 6)
    elements = rng.random((6, 5)) > 0.3
    elements[np.arange(6), t] = True
    elements[2] = False
    for where in (elements, rng.random(6) > 0.5):
        pairs = [
            (cj.softmax_cross_entropy, optax.softmax_cross_entropy, q),
            (cj.softmax_cross_entropy_with_integer_labels, optax.softmax_cross_entropy_with_integer_labels, t),
        ]
        for ours, theirs, targets in pairs:
            actual, expected = (f(z, targets, where=jnp.asarray(where)) for f in (ours, theirs))
            np.testing.assert_allclose(actual, expected, rtol=1e-12)
            actual, expected = (
                gradient(partial(f, labels=targets, where=jnp.asarray(where)), z) for f in (ours, theirs)
            )
            np.testing.assert_allclose(actual, np.nan_to_num(expected), rtol=1e-10, atol=1e-14)
