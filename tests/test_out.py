"""Where the gradient is written: `out`."""

import numpy as np
import pytest
from textbook import GRADIENT, A, Y

import crossentropy as ce


class TestOut:
    @pytest.mark.parametrize("classes", [3, 200, 9000])
    @pytest.mark.parametrize("dense", [False, True])
    def test_in_place(self, classes, dense, rng):
        z = rng.standard_normal((5, classes)).astype(np.float32)
        t = rng.integers(0, classes, 5)
        t = np.eye(classes)[t] if dense else t
        loss, dlogits = ce.cross_entropy_with_grad(z, t, label_smoothing=0.1, softcap=9.0)
        in_place = z.copy()
        again, result = ce.cross_entropy_with_grad(in_place, t, label_smoothing=0.1, softcap=9.0, out=in_place)
        assert result is in_place
        assert (again, in_place.tobytes()) == (loss, dlogits.tobytes())

    def test_strided(self):
        wide = np.full((2, 6), 7.0)
        out = wide[:, ::2]
        assert ce.cross_entropy_with_grad(A, Y, out=out)[1] is out
        np.testing.assert_allclose(out, GRADIENT, rtol=1e-12)
        assert (wide[:, 1::2] == 7).all()

    def test_columns_of_one_buffer(self):
        both = np.zeros((2, 6))
        both[:, :3] = A
        ce.cross_entropy_with_grad(both[:, :3], Y, out=both[:, 3:])
        np.testing.assert_allclose(both[:, 3:], GRADIENT, rtol=1e-12)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda z, q: np.zeros((3, 3)), r"expected shape \(2, 3\) and dtype <f8, got shape \(3, 3\)"),
            (lambda z, q: np.zeros((2, 3), np.float32), "dtype <f4"),
            (lambda z, q: np.zeros((2, 3), ">f8"), "dtype >f8"),
            (lambda z, q: [[0.0] * 3] * 2, "expected an ndarray, got list"),
            (lambda z, q: np.broadcast_to(np.zeros(3), (2, 3)), "read-only"),
            (lambda z, q: np.lib.stride_tricks.as_strided(np.zeros(3), (2, 3), (0, 8)), "a place for each element"),
            (lambda z, q: z.base[1:3], "overlaps the logits"),
            (lambda z, q: q, "overlaps another input"),
        ],
    )
    def test_refused_before_anything_is_written(self, make, message):
        base = np.array([[0.0, 1, 2], [3, 4, 5], [6, 7, 8]])
        z, q = base[:2], np.ones((2, 3))
        before = base.copy(), q.copy()
        with pytest.raises(ValueError, match=message):
            ce.cross_entropy_with_grad(z, q, out=make(z, q))
        np.testing.assert_array_equal(base, before[0])
        np.testing.assert_array_equal(q, before[1])
