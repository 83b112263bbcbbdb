"""Every row of the edge cases."""

import numpy as np
import pytest
from textbook import A

import crossentropy as ce


class TestEdgeCases:
    """One test a row of the table in docs/edge-cases.md."""

    @pytest.mark.parametrize("classes", [3, 200])
    @pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
    def test_rows_that_do_not_count_may_hold_anything(self, classes, junk, rng):
        z = rng.standard_normal((6, classes)).astype(np.float32)
        z[[1, 4]] = junk
        t = rng.integers(0, classes, 6)
        kept = [0, 2, 3, 5]
        ignored = np.where(np.isin(np.arange(6), [1, 4]), -100, t)
        weight = np.array([1.0, 0, 1, 1, 0, 1])
        for targets, options in (
            (ignored, {}),
            (t, {"sample_weight": weight}),
            (np.eye(classes)[t], {"sample_weight": weight}),
        ):
            expected = ce.cross_entropy(z[kept], targets[kept])
            for g in (1.0, np.inf, np.nan):
                loss, dlogits = ce.cross_entropy_with_grad(z, targets, grad_output=g, **options)
                assert loss == pytest.approx(expected, rel=1e-14)
                assert (dlogits[[1, 4]] == 0).all()
                assert np.isfinite(dlogits[[0, 2, 3, 5]]).all() == np.isfinite(g)
            losses = ce.cross_entropy(z, targets, reduction="none", **options)
            assert (losses[[1, 4]] == 0).all()

    @pytest.mark.parametrize("classes", [3, 200])
    def test_zero_coefficient_removes_its_term(self, classes):
        z = np.zeros((1, classes))
        z[0, 0] = -np.inf
        q = np.zeros((1, classes))
        q[0, 1] = 1
        weight = np.ones(classes)
        weight[0] = 0
        finite = np.log(classes - 1)
        assert ce.cross_entropy(z, q) == pytest.approx(finite)
        assert np.isfinite(ce.cross_entropy(z, [1], label_smoothing=0.1, class_weight=weight))
        assert ce.cross_entropy(z, [0], class_weight=weight, reduction="sum") == 0

    @pytest.mark.parametrize("classes", [3, 33, 200, 5000])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_minus_infinity_off_the_target(self, classes, dtype):
        z = np.zeros((1, classes), dtype)
        z[0, 1:3] = -np.inf
        for options in ({}, {"softcap": 30.0}):
            loss, dlogits = ce.cross_entropy_with_grad(z, [0], **options)
            assert loss == pytest.approx(np.log(classes - 2))
            assert (dlogits[0, 1:3] == 0).all()

    @pytest.mark.parametrize("classes", [3, 200, 5000])
    @pytest.mark.parametrize("targets", ["index", "smoothed", "probabilities"])
    def test_minus_infinity_on_the_target(self, classes, targets, rng):
        z = rng.standard_normal((2, classes))
        z[0, 1] = -np.inf
        t = [1, 1]
        if targets == "probabilities":
            t = np.eye(classes)[t]
        smoothing = 0.1 if targets == "smoothed" else 0.0
        for reduction in ("sum", "mean"):
            loss, dlogits = ce.cross_entropy_with_grad(z, t, label_smoothing=smoothing, reduction=reduction)
            assert loss == np.inf
            exact = ce.reference.cross_entropy_with_grad(z, t, label_smoothing=smoothing, reduction=reduction)[1]
            np.testing.assert_allclose(dlogits, exact, rtol=1e-13, atol=1e-15)

    @pytest.mark.parametrize("classes", [1, 3, 40, 200, 5000])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("row", ["all -inf", "+inf", "nan"])
    @pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"softcap": 5.0}, {"temperature": 2.0}])
    def test_rows_without_a_distribution(self, classes, dtype, row, options, rng):
        z = rng.standard_normal((3, classes)).astype(dtype)
        if row == "all -inf":
            z[1] = -np.inf
        else:
            z[1, classes // 2] = np.inf if row == "+inf" else np.nan
        losses, dlogits = ce.cross_entropy_with_grad(z, [0, 0, 0], reduction="none", **options)
        assert np.isnan(losses).tolist() == [False, True, False]
        assert np.isnan(dlogits).all(1).tolist() == [False, True, False]
        assert not np.isnan(dlogits[[0, 2]]).any()
        bits = np.uint32 if dtype == np.float32 else np.uint64
        canonical = np.array(np.nan, dtype).view(bits)
        assert (dlogits[1].view(bits) == canonical).all()
        assert losses[1:2].view(bits)[0] == canonical

    def test_log_sum_exp_of_rows_without_a_distribution(self):
        for classes in (3, 200):
            rows = np.zeros((4, classes))
            rows[0], rows[1, 1], rows[2, 1], rows[3, :2] = -np.inf, np.inf, np.nan, (np.inf, np.nan)
            np.testing.assert_array_equal(ce.logsumexp(rows), [-np.inf, np.inf, np.nan, np.nan])
            assert np.isnan(ce.softmax(rows)).all()

    @pytest.mark.parametrize("classes", [3, 200, 5000])
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_shifted_logits_give_the_same_bits(self, classes, smoothing, rng):
        z = (rng.integers(-64, 64, (4, classes)) / 8).astype(np.float32)
        t = rng.integers(0, classes, 4)
        loss, dlogits = ce.cross_entropy_with_grad(z, t, label_smoothing=smoothing)
        for shift in (1.0, -1024.0, 2.0**17):
            assert (z + np.float32(shift) - np.float32(shift) == z).all()
            shifted_loss, shifted = ce.cross_entropy_with_grad(z + np.float32(shift), t, label_smoothing=smoothing)
            assert shifted_loss == loss
            assert shifted.tobytes() == dlogits.tobytes()

    @pytest.mark.parametrize("classes", [3, 200])
    def test_nothing_counted(self, classes):
        z = np.full((2, classes), np.nan)
        nothing = (
            (z[:0], np.zeros(0, int), {}),
            (z[:0], [], {}),
            (z, [-100, -100], {}),
            (z, [0, 1], {"sample_weight": [0, 0]}),
            (z, [0, 1], {"class_weight": np.zeros(classes)}),
            (z, np.ones((2, classes)), {"sample_weight": [0, 0]}),
        )
        for logits, targets, options in nothing:
            loss, dlogits = ce.cross_entropy_with_grad(logits, targets, **options)
            assert loss == 0.0
            assert dlogits.shape == logits.shape
            assert (dlogits == 0).all()

    @pytest.mark.parametrize("classes", [5, 200])
    def test_arrays_of_any_layout(self, classes, rng):
        z = rng.standard_normal((6, classes)).astype(np.float32)
        t = rng.integers(0, classes, 6)
        loss, dlogits = ce.cross_entropy_with_grad(z, t)
        read_only = z.copy()
        read_only.flags.writeable = False
        wide = np.zeros((12, 2 * classes), np.float32)
        wide[::2, ::2] = z
        raw = np.zeros(z.nbytes + 1, np.uint8)
        unaligned = raw[1:].view(np.float32).reshape(z.shape)
        unaligned[:] = z
        assert not unaligned.flags.aligned
        layouts = (
            np.asfortranarray(z),
            z[:, ::-1].copy()[:, ::-1],
            z.astype(">f4"),
            read_only,
            wide[::2, ::2],
            unaligned,
        )
        for layout in layouts:
            for targets in (t, t[::-1].copy()[::-1], t.astype(">i8")):
                again, dagain = ce.cross_entropy_with_grad(layout, targets)
                assert again == loss
                assert dagain.tobytes() == dlogits.tobytes()
                assert dagain.dtype == np.float32

    @pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 4, 3), (2, 3, 5, 4)])
    @pytest.mark.parametrize("kind", ["index", "probabilities"])
    def test_class_axis_anywhere(self, shape, kind, rng):
        last = rng.standard_normal(shape)
        t = rng.integers(0, shape[-1], shape[:-1]) if kind == "index" else rng.random(shape)
        losses, dlast = ce.cross_entropy_with_grad(last, t, reduction="none")
        assert np.shape(losses) == shape[:-1]
        for axis in range(len(shape)):
            z = np.ascontiguousarray(np.moveaxis(last, -1, axis))
            targets = t if kind == "index" else np.moveaxis(t, -1, axis)
            for given in (axis, axis - len(shape)):
                out = np.empty_like(z)
                again, dlogits = ce.cross_entropy_with_grad(z, targets, axis=given, reduction="none", out=out)
                assert dlogits is out
                np.testing.assert_array_equal(again, losses)
                np.testing.assert_array_equal(np.moveaxis(dlogits, axis, -1), dlast)
                fresh = ce.cross_entropy_with_grad(z, targets, axis=given, reduction="none")[1]
                np.testing.assert_array_equal(fresh, dlogits)
        with pytest.raises(ValueError, match="axis: expected an integer"):
            ce.cross_entropy(last, t, axis=len(shape))

    @pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("classes", [3, 200])
    @pytest.mark.parametrize("largest", [False, True])
    def test_targets_that_are_not_finite(self, bad, dtype, classes, largest, rng):
        z, q = rng.standard_normal((3, classes)).astype(dtype), rng.random((3, classes)).astype(dtype)
        q[1, z[1].argmax() if largest else z[1].argmin()] = bad
        losses, dlogits = ce.cross_entropy_with_grad(z, q, reduction="none")
        assert np.isnan(losses).tolist() == [False, True, False]
        assert np.isnan(dlogits).all(-1).tolist() == [False, True, False]
        assert np.isfinite(dlogits[::2]).all()

    def test_infinite_grad_output_makes_rows_that_count_nan(self):
        for z in (A, np.zeros((2, 200), np.float32)):
            _, dlogits = ce.cross_entropy_with_grad(z, [1, -100], grad_output=np.inf)
            assert np.isnan(dlogits[0]).all()
            assert (dlogits[1] == 0).all()

    @pytest.mark.parametrize("classes", [3, 200])
    def test_grad_output_beyond_float32(self, classes):
        """A scale that does not fit into float32 gives what does, and inf, never NaN."""
        z = np.zeros((1, classes), np.float32)
        z[0, 1:] = -80.0
        z[0, 2] = -np.inf
        dlogits = ce.cross_entropy_with_grad(z, [0], grad_output=1e60)[1][0]
        exact = ce.reference.cross_entropy_with_grad(z, [0], grad_output=1e60)[1][0]
        np.testing.assert_allclose(dlogits[1:], exact[1:].astype(np.float32), rtol=1e-6)
        assert dlogits[2] == 0
