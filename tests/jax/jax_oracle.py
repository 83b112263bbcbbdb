"""Problems for the tests of crossentropy.jax, and their solution in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

import crossentropy as ce

OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 1e-2},
    {"softcap": 3.0, "temperature": 0.7},
    {"label_smoothing": 0.2, "z_loss": 1e-2, "entropy_bonus": 0.3, "softcap": 5.0, "temperature": 1.5},
]
REDUCTIONS = ["mean", "sum", "none"]
EPS = {"float64": 1e-13, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


def problem(shape, probabilities=False, dtype="float64", axis=-1):
    """Logits, targets, class weights and sample weights; of indices one is ignored, one row does not count."""
    rng = np.random.default_rng(0)
    z = jnp.asarray(3 * rng.standard_normal(shape), dtype)
    rows = np.delete(shape, axis)
    t = rng.random(shape) if probabilities else rng.integers(0, shape[axis], rows)
    s = rng.random(rows) + 0.5
    if rows.size:
        if not probabilities:
            t.flat[1] = -100
        s.flat[0] = 0
    return z, jnp.asarray(t), jnp.asarray(rng.random(shape[axis]) + 0.5), jnp.asarray(s)


def reference(z, t, w, s, axis=-1, **options):
    """Loss and gradient from the definition in NumPy."""
    A, Y = np.moveaxis(np.asarray(z, np.float64), axis, -1), np.asarray(t)
    Y = np.moveaxis(Y, axis, -1) if Y.ndim == A.ndim else Y
    w, s = (None if x is None else np.asarray(x) for x in (w, s))
    loss, dlogits = ce.reference.cross_entropy_with_grad(A, Y, class_weight=w, sample_weight=s, **options)
    return loss, np.moveaxis(dlogits, -1, axis)


def gradient(function, z):
    """The gradient of the sum of a function's results."""
    return jax.grad(lambda z: function(z).sum())(z)


def close(actual, expected, eps):
    np.testing.assert_allclose(np.asarray(actual, np.float64), np.asarray(expected, np.float64), rtol=eps, atol=eps)
