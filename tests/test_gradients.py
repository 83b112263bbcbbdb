"""Gradients against finite differences of the loss, and what gradients of any softmax obey."""

import numpy as np
import pytest

import crossentropy as ce

OPTIONS = (
    {},
    {"label_smoothing": 0.15},
    {"z_loss": 0.05},
    {"softcap": 2.0},
    {"temperature": 0.6},
    {"label_smoothing": 0.15, "z_loss": 0.05, "softcap": 2.0, "temperature": 0.6},
)


def differences(function, z, step=1e-3):
    """4th-order central differences."""
    gradient = np.empty_like(z)
    for i in np.ndindex(z.shape):
        values = []
        for factor in (-2, -1, 1, 2):
            moved = z.copy()
            moved[i] += factor * step
            values.append(function(moved))
        gradient[i] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return gradient


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["index", "probabilities", "unnormalised"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("classes", [5, 200])
def test_finite_differences(options, kind, reduction, classes, rng):
    z = rng.standard_normal((3, classes))
    t = rng.integers(0, classes, 3)
    if kind != "index":
        t = rng.random((3, classes))
        t /= 1 if kind == "unnormalised" else t.sum(1, keepdims=True)
    weights = {"class_weight": rng.random(classes), "sample_weight": rng.random(3)}
    upstream = rng.standard_normal(3) if reduction == "none" else 0.7

    def scalar(z):
        return np.sum(upstream * ce.cross_entropy(z, t, reduction=reduction, **weights, **options))

    dlogits = ce.cross_entropy_with_grad(z, t, reduction=reduction, grad_output=upstream, **weights, **options)[1]
    np.testing.assert_allclose(dlogits, differences(scalar, z), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 10, 192, 193, 5000])
def test_rows_sum_to_zero(dtype, classes, rng):
    """Without a z-loss a shift of all logits changes nothing."""
    z = rng.standard_normal((20, classes)).astype(dtype)
    indices, weight = rng.integers(0, classes, 20), rng.random(classes)
    for targets, q in ((indices, np.eye(classes)[indices]), 2 * (rng.random((20, classes)),)):
        for w, smoothing in ((np.ones(classes), 0.0), (weight, 0.1)):
            dlogits = ce.cross_entropy_with_grad(
                z, targets, reduction="sum", class_weight=w, label_smoothing=smoothing
            )[1]
            # Each is a difference of terms that add up to this, and as exact as they are.
            terms = 2 * (w * ((1 - smoothing) * q + smoothing / classes)).sum(1)
            np.testing.assert_array_less(np.abs(dlogits.sum(1, dtype=np.float64)), 4 * np.finfo(dtype).eps * terms)
