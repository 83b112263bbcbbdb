"""The class axis anywhere: computed where it lies."""

import subprocess
import sys

import numpy as np
import pytest

import crossentropy as ce

SHAPES = [  # the classes are on the axis named
    ((5, 7, 4, 3), 1),
    ((21, 40), 0),
    ((2, 21, 33, 5), 1),
    ((3, 200, 2), 1),
    ((2, 300, 40), 1),
    ((1, 2, 1000), 1),
    ((70, 3, 2), 1),
    ((4, 5, 6, 1), 1),
    ((6, 1, 7), 1),
    ((1000, 3), 0),
    ((3, 4, 5, 6, 2), 2),
]
OPTIONS = [
    {},
    {"label_smoothing": 0.1, "reduction": "none"},
    {"temperature": 0.7, "softcap": 4.0, "z_loss": 0.01, "reduction": "sum"},
    {"ignore_index": 1, "z_loss": 0.01},
]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_equals_the_classes_last(shape, axis, options, dtype, rng):
    z = (3 * rng.standard_normal(shape)).astype(dtype)
    row_shape, C = shape[:axis] + shape[axis + 1 :], shape[axis]
    weights = {"class_weight": rng.random(C), "sample_weight": rng.random(row_shape)}
    last = np.ascontiguousarray(np.moveaxis(z, axis, -1))
    one_hot = np.moveaxis(np.eye(C, dtype=bool)[rng.integers(0, C, row_shape)], -1, axis)
    for targets in (rng.integers(0, C, row_shape), rng.random(shape).astype(np.float32), one_hot):
        moved = targets if targets.shape == row_shape else np.moveaxis(targets, axis, -1)
        loss, dlogits = ce.cross_entropy_with_grad(z, targets, axis=axis, **weights, **options)
        right, gradient = ce.reference.cross_entropy_with_grad(last, moved, **weights, **options)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(loss, right, rtol=8 * min(eps, np.finfo(np.float32).eps))
        scale = np.abs(gradient).max(initial=1e-30)
        np.testing.assert_allclose(
            np.moveaxis(dlogits, axis, -1), gradient, rtol=8 * eps, atol=8 * eps * scale + 1e-7 * (eps > 1e-4)
        )
        assert dlogits.flags.c_contiguous
        assert np.array_equal(ce.cross_entropy(z, targets, axis=axis, **weights, **options), loss)


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_softmax_functions(shape, axis, rng):
    z = 3 * rng.standard_normal(shape)
    last = np.moveaxis(z, axis, -1)
    for function in (ce.softmax, ce.log_softmax):
        np.testing.assert_allclose(np.moveaxis(function(z, axis=axis), axis, -1), function(last), rtol=1e-14)
    np.testing.assert_allclose(ce.logsumexp(z, axis=axis), ce.logsumexp(last), rtol=1e-14, atol=1e-15)
    assert ce.logsumexp(z, axis=axis, keepdims=True).shape == tuple(1 if i == axis else n for i, n in enumerate(shape))


@pytest.mark.parametrize("classes", [3, 193])
def test_special_positions(classes, rng):
    z = rng.standard_normal((2, classes, 70)).astype(np.float32)
    z[0, 1, 3], z[0, 1, 4], z[0, :, 5], z[1, 2, 6], z[1, :, 7] = np.nan, np.inf, -np.inf, -np.inf, np.nan
    t = np.zeros((2, 70), int)
    t[1, 7], t[0, 0] = -100, 2
    loss, dlogits = ce.cross_entropy_with_grad(z, t, axis=1, reduction="none")
    assert np.argwhere(np.isnan(loss)).tolist() == [[0, 3], [0, 4], [0, 5]]
    assert np.isnan(dlogits).sum() == 3 * classes
    assert loss[1, 7] == 0
    assert (dlogits[1, :, 7] == 0).all()
    assert dlogits[1, 2, 6] == 0
    t[1, 20] = classes
    before = dlogits.copy()
    with pytest.raises(IndexError, match=rf"got {classes} in row {70 + 20}"):
        ce.cross_entropy_with_grad(z, t, axis=1, out=dlogits)
    np.testing.assert_array_equal(dlogits, before)


def test_a_position_alone_has_the_same_bits(rng):
    for shape in ((3, 21, 77), (2, 250, 77)):
        z = rng.standard_normal(shape).astype(np.float32)
        t = rng.integers(0, shape[1], (shape[0], shape[2]))
        losses, dlogits = ce.cross_entropy_with_grad(z, t, axis=1, reduction="none")
        for threads in (1, 2, 5):
            again = ce.cross_entropy_with_grad(z, t, axis=1, reduction="none", num_threads=threads)
            assert again[0].tobytes() == losses.tobytes()
            assert again[1].tobytes() == dlogits.tobytes()
        for i in (0, 31, 32, 76):
            part = np.ascontiguousarray(z[:, :, i : i + 2])  # stays strided
            loss, gradient = ce.cross_entropy_with_grad(part, t[:, i : i + 2], axis=1, reduction="none")
            assert loss.tobytes() == losses[:, i : i + 2].tobytes()
            assert gradient.tobytes() == dlogits[:, :, i : i + 2].tobytes()
        buffer = z.copy()
        ce.cross_entropy_with_grad(buffer, t, axis=1, reduction="none", out=buffer)
        assert buffer.tobytes() == dlogits.tobytes()


def test_other_layouts(rng):
    z = rng.standard_normal((4, 6, 5))
    t = rng.integers(0, 6, (4, 5))
    loss, dlogits = ce.cross_entropy_with_grad(z, t, axis=1)
    for given in (
        np.asfortranarray(z),
        z.transpose(2, 1, 0).copy().T,
        np.repeat(z, 2, axis=2)[:, :, ::2],
        z.astype(">f8"),
    ):
        again = ce.cross_entropy_with_grad(given, t, axis=1)
        assert again[0] == pytest.approx(loss, rel=1e-14)
        np.testing.assert_allclose(again[1], dlogits, rtol=1e-13)
    out = np.zeros((4, 6, 10))[:, :, ::2]
    assert ce.cross_entropy_with_grad(z, t, axis=1, out=out)[1] is out
    np.testing.assert_array_equal(out, dlogits)
    assert ce.cross_entropy_with_grad(np.zeros((3, 4, 0)), np.zeros((3, 0), int), axis=1)[1].shape == (3, 4, 0)


def test_no_transposed_copy():
    """Of 134 MB of logits."""
    script = """
import resource, numpy as np, crossentropy as ce
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
z = np.ones((8, 64, 256, 256), np.float32)
t = np.zeros((8, 256, 256), int)
before = peak()
ce.cross_entropy_with_grad(z, t, axis=1, out=z, num_threads=2)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 10
