"""The loss and its gradient: the lesson's numbers, every option against the definition, every row of the edge cases."""

import itertools

import numpy as np
import pytest

import crossentropy as ce

A = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]])
Y = np.array([[0, 1, 0], [1, 0, 0]])
LOSSES = [1.4170300162778335, 2.6199867732059325]
GRADIENT = [
    [0.32950056944298395, -0.37878351464764304, 0.04928294520465909],
    [-0.46359808710886097, 0.24337934708720066, 0.22021874002166028],
]


class TestLesson:
    @pytest.mark.parametrize("logits", [A, A.tolist()], ids=["array", "list"])
    @pytest.mark.parametrize("targets", [Y, Y.tolist(), Y.astype(bool), [1, 0], Y.argmax(1)])
    def test_numbers_of_the_textbook(self, logits, targets):
        loss, dlogits = ce.cross_entropy_with_grad(logits, targets)
        np.testing.assert_allclose(loss, 2.018508394741883, rtol=1e-12)
        np.testing.assert_allclose(dlogits, GRADIENT, rtol=1e-12)
        np.testing.assert_allclose(ce.cross_entropy(logits, targets, reduction="sum"), 4.037016789483766, rtol=1e-12)
        np.testing.assert_allclose(ce.cross_entropy(logits, targets, reduction="none"), LOSSES, rtol=1e-12)
        np.testing.assert_allclose(ce.softmax(logits), [[0.659, 0.242, 0.099], [0.073, 0.487, 0.440]], atol=5e-4)

    @pytest.mark.parametrize(("target", "expected"), [(0, 0.34901221676818633), (2, 3.349012216768186)])
    def test_one_row(self, target, expected):
        logits = [[2, 1, -1]]
        for targets in ([target], [[int(c == target) for c in range(3)]]):
            loss, dlogits = ce.cross_entropy_with_grad(logits, targets)
            np.testing.assert_allclose(loss, expected, rtol=1e-12)
            np.testing.assert_allclose(dlogits, ce.softmax(logits) - np.eye(3)[[target]], rtol=1e-12)


OPTIONS = {
    "class_weight": lambda rng, rows, classes: rng.random(classes) * (rng.random(classes) < 0.8),
    "sample_weight": lambda rng, rows, classes: rng.random(rows) * (rng.random(rows) < 0.8),
    "label_smoothing": lambda *_: 0.1,
    "z_loss": lambda *_: 0.01,
    "softcap": lambda *_: 5.0,
    "temperature": lambda *_: 0.7,
}
# Every subset of options with every kind of target: 2^6 * 3.
SUBSETS = [subset for n in range(len(OPTIONS) + 1) for subset in itertools.combinations(OPTIONS, n)]


class TestDefinition:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("kind", ["index", "one-hot", "probabilities", "unnormalised", "float32 probabilities"])
    @pytest.mark.parametrize("classes", [7, 200])
    def test_every_option_with_every_other(self, kind, classes, dtype):
        rng = np.random.default_rng(classes)
        rows = 37
        for subset, reduction in itertools.product(SUBSETS, ("mean", "sum", "none")):
            z = (3 * rng.standard_normal((rows, classes))).astype(dtype)
            t = rng.integers(0, classes, rows)
            if kind == "index":
                t[rng.random(rows) < 0.2] = -100
            elif kind == "one-hot":
                t = np.eye(classes, dtype=int)[t]
            else:
                t = rng.random((rows, classes))
                if kind == "probabilities":
                    t /= t.sum(1, keepdims=True)
                if kind == "float32 probabilities":
                    t = t.astype(np.float32)
            options = {name: OPTIONS[name](rng, rows, classes) for name in subset}
            grad_output = rng.standard_normal(rows) if reduction == "none" else 1.7
            arguments = {"reduction": reduction, "grad_output": grad_output, **options}
            loss, dlogits = ce.cross_entropy_with_grad(z, t, **arguments)
            exact, dexact = ce.reference.cross_entropy_with_grad(z, t, **arguments)
            tolerance = 8 * np.finfo(dtype).eps
            np.testing.assert_allclose(loss, exact, rtol=tolerance, err_msg=str(arguments))
            np.testing.assert_allclose(
                dlogits, dexact, rtol=tolerance, atol=tolerance * np.abs(dexact).max(), err_msg=str(arguments)
            )

    def test_reference_agrees_with_automatic_reasoning(self):
        """The oracle itself, against the loss written out for one row with all options."""
        z, q, w, s = np.array([1.5, -0.3, 2.2]), np.array([0.2, 0.5, 0.4]), np.array([0.5, 2.0, 1.0]), 0.7
        eps, zeta, k, tau = 0.1, 0.3, 4.0, 1.3
        u = k * np.tanh(z / k) / tau
        lse = np.log(np.exp(u).sum())
        b = w * ((1 - eps) * q + eps / 3)
        expected = s * (sum(b * (lse - u)) + zeta * lse**2)
        options = {"label_smoothing": eps, "z_loss": zeta, "softcap": k, "temperature": tau}
        options |= {"class_weight": w, "sample_weight": [s], "reduction": "sum"}
        loss, _ = ce.reference.cross_entropy_with_grad(z[None], q[None], **options)
        np.testing.assert_allclose(loss, expected, rtol=1e-14)


class TestEdgeCases:
    """One test a row of the table in the README."""

    @pytest.mark.parametrize("dtype", "bBhHiIlLqQ")
    def test_any_integer_dtype_is_an_index(self, dtype):
        assert ce.cross_entropy(A, np.array([1, 0], dtype)) == ce.cross_entropy(A, [1, 0])

    @pytest.mark.parametrize("targets", [[1.0, 0.0], [True, False]])
    def test_indices_must_be_integers(self, targets):
        with pytest.raises(TypeError, match=r"indices \(integers\) of shape \(2,\) or probabilities .* \(2, 3\)"):
            ce.cross_entropy(A, targets)

    @pytest.mark.parametrize("dtype", ["?", "b", "i8", "u2", "f2", "f4", "f8", ">f4", ">f8"])
    def test_any_real_dtype_is_a_probability(self, dtype):
        np.testing.assert_allclose(ce.cross_entropy(A, Y.astype(dtype)), ce.cross_entropy(A, Y), rtol=1e-15)

    @pytest.mark.parametrize(
        "logits", [A > 1, A.astype(complex), A.astype(object), A.astype(str), A.astype("f2").view("V2")]
    )
    def test_logits_of_no_meaning(self, logits):
        with pytest.raises(TypeError, match="logits: expected float16, bfloat16, float32, float64 or integers, got"):
            ce.cross_entropy(logits, [1, 0])

    def test_targets_of_no_meaning(self):
        with pytest.raises(TypeError, match="expected probabilities of a real or boolean dtype"):
            ce.cross_entropy(A, Y.astype(complex))

    @pytest.mark.parametrize("bad", [3, -1, 2**62, -(2**63)])
    @pytest.mark.parametrize("classes", [3, 200])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_index_out_of_range(self, bad, classes, weighted, rng):
        z = rng.standard_normal((5, classes))
        out = np.full_like(z, 7.0)
        targets = np.array([0, 1, -100, bad if bad != 3 else classes, 99])
        weights = {"class_weight": np.ones(classes)} if weighted else {}
        with pytest.raises(IndexError, match=rf"\[0, {classes}\) or ignore_index -100, got {targets[3]} in row 3"):
            ce.cross_entropy_with_grad(z, targets, out=out, **weights)
        assert (out == 7.0).all()

    def test_huge_unsigned_index_does_not_wrap(self):
        with pytest.raises(IndexError, match=f"got {2**64 - 100} in row 1"):
            ce.cross_entropy(A, np.array([0, 2**64 - 100], np.uint64))
        with pytest.raises(IndexError, match="got 255 in row 1"):
            ce.cross_entropy(A, np.array([0, 255], np.uint8), ignore_index=-1)

    def test_ignore_index_may_be_a_class_or_none(self):
        assert ce.cross_entropy(A, [1, 0], ignore_index=0) == ce.cross_entropy(A[:1], [1])
        with pytest.raises(IndexError, match=r"\[0, 3\), got -100 in row 1"):
            ce.cross_entropy(A, [1, -100], ignore_index=None)

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

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"label_smoothing": 1.5}, r"label_smoothing: expected a number in \[0, 1\], got 1.5"),
            ({"label_smoothing": float("nan")}, "label_smoothing"),
            ({"z_loss": -1.0}, "z_loss"),
            ({"softcap": 0.0}, "softcap: expected a positive number in .* or None, got 0.0"),
            ({"softcap": 1e-101}, "softcap: expected a positive number in .* or None, got 1e-101"),
            ({"softcap": 1e101}, "softcap: expected a positive number in .* or None, got 1e\\+101"),
            ({"temperature": 1e-310}, "temperature: expected a finite positive number in .*, got 1e-310"),
            ({"temperature": 10**400}, "temperature: expected a number in the range of float64, got one beyond it"),
            ({"z_loss": 10**400}, "z_loss: expected a number in the range of float64"),
            ({"ignore_index": 10**5000}, "ignore_index: expected an integer or None of 64 bits, got one of 16610"),
            ({"num_threads": 10**5000}, "num_threads: expected an integer of 64 bits, got one of 16610"),
            ({"softcap": float("nan")}, "softcap"),
            ({"temperature": 0.0}, "temperature"),
            ({"temperature": float("nan")}, "temperature"),
            ({"reduction": "average"}, "reduction: expected 'mean', 'sum' or 'none', got 'average'"),
            ({"class_weight": [1, -1, 1]}, "class_weight: expected finite weights of at least 0, .*, got -1.0"),
            ({"class_weight": [1, 1e308, 1]}, r"class_weight: .* each 0 or in \[1e-100, 1e100\], got 1e\+308"),
            ({"sample_weight": [1e308, 1e308]}, "sample_weight: .*, got 1e\\+308"),
            ({"sample_weight": [5e-324, 0]}, "sample_weight: .*, got 5e-324"),
            ({"class_weight": [1, np.inf, 1]}, "class_weight"),
            ({"class_weight": [1, 1]}, r"class_weight: expected shape \(3,\), got \(2,\)"),
            ({"sample_weight": [1, np.nan]}, "sample_weight"),
            ({"sample_weight": [1]}, r"sample_weight: expected shape \(2,\), got \(1,\)"),
            ({"num_threads": 0}, "num_threads: expected at least 1, got 0"),
            ({"ignore_index": 2**63}, "ignore_index"),
        ],
    )
    def test_options_out_of_range(self, options, message):
        with pytest.raises(ValueError, match=message):
            ce.cross_entropy(A, [1, 0], **options)

    @pytest.mark.parametrize(
        "options",
        [{"label_smoothing": "0.1"}, {"softcap": True}, {"ignore_index": 1.5}, {"class_weight": ["a", "b", "c"]},
         {"num_threads": 1.5}, {"unknown": 1}],
    )  # fmt: skip
    def test_options_of_no_meaning(self, options):
        with pytest.raises(TypeError):
            ce.cross_entropy(A, [1, 0], **options)

    def test_shapes_that_do_not_fit(self):
        with pytest.raises(ValueError, match="at least one class"):
            ce.cross_entropy(np.zeros((2, 0)), [0, 0])
        with pytest.raises(ValueError, match=r"of shape \(2,\) or .* of shape \(2, 3\), got shape \(3,\)"):
            ce.cross_entropy(A, [0, 1, 2])
        with pytest.raises(ValueError, match="at least one axis"):
            ce.cross_entropy(3.0, 0)
        with pytest.raises(ValueError, match=r"grad_output: expected a number, got shape \(2,\)"):
            ce.cross_entropy_with_grad(A, [0, 1], grad_output=[1.0, 2.0])
        with pytest.raises(ValueError, match=r"grad_output: expected a number or an array of shape \(2,\)"):
            ce.cross_entropy_with_grad(A, [0, 1], grad_output=[1.0, 2.0, 3.0], reduction="none")

    @pytest.mark.parametrize("bad", [np.nan, -0.5, np.inf])
    @pytest.mark.parametrize("classes", [3, 200])
    def test_targets_that_are_no_probabilities(self, bad, classes, rng):
        z, q = rng.standard_normal((3, classes)), rng.random((3, classes))
        q[1, 2] = bad
        losses = ce.cross_entropy(z, q, reduction="none")
        assert np.isnan(losses).tolist() == [False, True, False]

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


class TestResults:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_types(self, dtype):
        z = A.astype(dtype)
        for reduction in ("mean", "sum"):
            loss, dlogits = ce.cross_entropy_with_grad(z, [1, 0], reduction=reduction)
            assert type(loss) is float
            assert dlogits.dtype == dtype
        assert ce.cross_entropy(z, [1, 0], reduction="none").dtype == dtype
        assert ce.softmax(z).dtype == ce.log_softmax(z).dtype == ce.logsumexp(z).dtype == dtype
        assert ce.cross_entropy(np.array([[2, 1, -1]], np.int8), [0], reduction="none").dtype == np.float64

    def test_one_row_without_an_axis_of_rows(self):
        assert ce.cross_entropy(A[0], 1) == ce.cross_entropy(A[:1], [1])
        assert np.shape(ce.cross_entropy(A[0], 1, reduction="none")) == ()

    def test_long_sums_are_exact(self, rng):
        """The mean of a million float32 losses, as the losses' own sum in extended precision."""
        z = rng.standard_normal((300_000, 3)).astype(np.float32)
        t = rng.integers(0, 3, len(z))
        exact = ce.reference.cross_entropy_with_grad(z, t)[0]
        assert ce.cross_entropy(z, t) == pytest.approx(exact, rel=1e-9)
        z64 = z.astype(np.float64)
        assert ce.cross_entropy(z64, t) == pytest.approx(exact, rel=1e-15)
