"""Arrays that overlap, lie, or are something else than they seem."""

import pickle

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view

import crossentropy as ce

A = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]])


class TestOut:
    @pytest.mark.parametrize(
        "out",
        [
            sliding_window_view(np.zeros(13), 4, writeable=True),
            sliding_window_view(np.zeros(13), 4, writeable=True)[::-1],
            as_strided(np.zeros(100), (10, 4), (8, 16)),
            as_strided(np.zeros(100), (10, 4), (9, 80)),
            as_strided(np.zeros(100), (10, 4), (-8, 0))[:, ::-1],
        ],
        ids=["windows", "windows backwards", "interlaced", "by bytes", "broadcast"],
    )
    def test_overlaps_itself(self, rng, out):
        z, t = rng.standard_normal((10, 4)), rng.integers(0, 4, 10)
        before = out.copy()
        with pytest.raises(ValueError, match="out: expected a place for each element, got strides"):
            ce.cross_entropy_with_grad(z, t, out=out)
        np.testing.assert_array_equal(out, before)

    def test_overwritten_in_place(self, rng):
        z = sliding_window_view(rng.standard_normal(13), 4, writeable=True)
        before = z.copy()
        with pytest.raises(ValueError, match="out: expected a place for each element"):
            ce.cross_entropy_with_grad(z, rng.integers(0, 4, 10), out=z)
        np.testing.assert_array_equal(z, before)

    @pytest.mark.parametrize(
        "view",
        [
            lambda memory: memory[:10, :4],
            lambda memory: memory.T[:10, ::-2][:, :4],
            lambda memory: memory[::-2, ::3][:10, :4],
            lambda memory: as_strided(memory, (10, 4), (8, 8 * 30)),
        ],
        ids=["rows", "columns backwards", "with gaps", "interlaced"],
    )
    def test_strided_outputs_that_hold_a_gradient(self, rng, view):
        z, t = rng.standard_normal((10, 4)), rng.integers(0, 4, 10)
        memory = np.full((30, 30), 7.0)
        out = view(memory)
        ce.cross_entropy_with_grad(z, t, out=out)
        np.testing.assert_array_equal(out, ce.cross_entropy_with_grad(z, t)[1])
        assert (memory == 7).sum() == memory.size - out.size

    @pytest.mark.parametrize("name", ["class_weight", "sample_weight", "grad_output", "targets"])
    def test_overlaps_a_buffer(self, name):
        out = np.ones((4, 4))
        arguments = {"targets": [0, 1, 2, 3], name: memoryview(out) if name == "targets" else memoryview(out[0])}
        with pytest.raises(ValueError, match="out: expected memory of its own"):
            ce.cross_entropy_with_grad(np.zeros((4, 4)), **arguments, reduction="none", out=out)
        assert (out == 1).all()

    def test_strides_too_intricate_to_tell(self):
        """An exact answer takes minutes: it is refused, at once."""
        random, axes, strides, reach = np.random.default_rng(24), 14, [], 8
        for _ in range(axes):
            strides.append(reach + int(random.integers(0, reach // 6 + 2)))
            reach += strides[-1]
        memory = np.zeros(1 << 23, np.uint8)
        out = np.ndarray((2,) * axes, np.float64, memory, 0, strides)
        begin = int(random.integers(8, 64))
        steps = random.integers(1000, reach // axes, axes) * 8 + int(random.integers(0, 8))
        targets = np.ndarray((2,) * axes, np.float64, memory, begin, steps.tolist())
        with pytest.raises(np.exceptions.TooHardError):
            np.shares_memory(out, targets, max_work=100_000)
        with pytest.raises(ValueError, match=r"out: expected memory of its own, got strides .* too intricate to tell"):
            ce.cross_entropy_with_grad(np.zeros(out.shape), targets, out=out)
        assert not memory.any()


class TestOtherLibraries:
    def test_masked_arrays(self):
        mask = np.ma.masked_array(A, A > 1)
        weight = np.ma.masked_array([1.0, 1.0], [True, False])
        for call in (
            lambda: ce.cross_entropy(mask, [0, 1]),
            lambda: ce.cross_entropy(A, np.ma.masked_array([0, 1], [True, False])),
            lambda: ce.cross_entropy(A, [0, 1], sample_weight=weight),
            lambda: ce.cross_entropy_with_grad(A, [0, 1], grad_output=weight, reduction="none"),
            lambda: ce.softmax(mask),
            lambda: ce.linear_cross_entropy(mask, np.ones((4, 3)), [0, 1]),
            lambda: ce.cross_entropy(A, ce.TopKTargets(np.ma.masked_array([[0], [1]]), [[1.0], [1.0]])),
            lambda: ce.CrossEntropyLoss()(mask, [0, 1]),
            lambda: ce.softmax_vjp(A, mask),
            lambda: ce.cross_entropy([mask[0], A[1]], [0, 1]),
        ):
            with pytest.raises(TypeError, match=r"without a mask, got MaskedArray: .*ignore_index or a sample_weight"):
                call()

    def test_masked_output(self):
        with pytest.raises(ValueError, match="out: expected an ndarray, got MaskedArray"):
            ce.cross_entropy_with_grad(A, [0, 1], out=np.ma.masked_array(np.zeros((2, 3)), A > 1))

    def test_lists_of_unequal_length(self):
        for name, call in (
            ("logits", lambda: ce.cross_entropy([[1.0, 2.0], [1.0]], [0, 1])),
            ("targets", lambda: ce.cross_entropy(A, [[1.0, 2.0], [1.0]])),
            ("sample_weight", lambda: ce.cross_entropy(A, [0, 1], sample_weight=[[1.0], 1.0])),
        ):
            with pytest.raises(ValueError, match=f"{name}: expected an array, or lists of equal length"):
                call()

    def test_sparse_matrices(self):
        from scipy import sparse

        for matrix in (sparse.csr_matrix(A), sparse.coo_array(A)):
            with pytest.raises(TypeError, match=r"toarray\(\) is dense\): .*ignore_index or a sample_weight"):
                ce.cross_entropy(matrix, [0, 1])
            with pytest.raises(TypeError, match="expected a dense array"):
                ce.cross_entropy(A, matrix)

    @pytest.mark.parametrize("lie", ["float32", "no capsule", "raises"])
    def test_lying_bfloat16(self, lie):
        class Lie:
            dtype = "bfloat16"

            def __dlpack__(self, **_):
                if lie == "raises":
                    raise BufferError("not today")
                return np.zeros((2, 3), np.float32).__dlpack__() if lie == "float32" else object()

            def __dlpack_device__(self):
                return (1, 0)

        with pytest.raises(TypeError, match="logits: expected bfloat16 on the CPU over DLPack"):
            ce.cross_entropy(Lie(), [0, 1])


class TestNumbers:
    @pytest.mark.parametrize("ignore_index", [-100.0, "0", True, np.float64(-100)])
    def test_ignore_index_that_only_equals_one(self, ignore_index):
        with pytest.raises(TypeError, match="ignore_index: expected an integer or None, got"):
            ce.cross_entropy(A, [0, 1], ignore_index=ignore_index)

    @pytest.mark.parametrize("axis", [1.0, None, "x", True, 2**70, np.float64(1)])
    def test_axis_that_is_no_integer(self, axis):
        for function in (ce.softmax, ce.logsumexp, lambda z, axis: ce.cross_entropy(z, [0, 1], axis=axis)):
            with pytest.raises((TypeError, ValueError), match="axis: expected an integer"):
                function(A, axis=axis)
        assert ce.cross_entropy(A, [0, 1], axis=np.int8(-1)) == ce.cross_entropy(A, [0, 1])

    @pytest.mark.parametrize("name", ["label_smoothing", "z_loss", "temperature"])
    def test_options_that_only_equal_numbers(self, name):
        for value in (True, False, 1 + 0j, 0j, "1", None, [1.0]):
            with pytest.raises(TypeError, match=f"{name}: expected a number, got"):
                ce.cross_entropy(A, [0, 1], **{name: value})

    def test_numbers_of_many_digits(self, alone):
        huge = 10**5000
        for call, error in (
            (lambda: ce.set_num_threads(-huge), "num_threads: expected an integer of 64 bits, got one of 16610"),
            (lambda: ce.cross_entropy(A, [0, 1], softcap=huge), "softcap: expected a number in the range of float64"),
            (lambda: ce.linear_cross_entropy(A, A, [0, 1], max_logits_bytes=-huge), "max_logits_bytes: expected an"),
        ):
            with pytest.raises(ValueError, match=error):
                call()
        script = "import crossentropy"
        with pytest.raises(
            AssertionError, match=r"CROSSENTROPY_NUM_THREADS: expected a positive integer, got '9{1,20}"
        ):
            alone(script, CROSSENTROPY_NUM_THREADS="9" * 5000)

    @pytest.mark.parametrize("scale", [1e-100, 1e-50, 1e50, 1e100])
    def test_weights_at_the_ends_of_their_range(self, rng, scale):
        """The mean does not change when all weights are scaled, nor does any digit get lost."""
        z, t = rng.standard_normal((50, 7)), rng.integers(0, 7, 50)
        s, w = rng.uniform(0.5, 1, 50), rng.uniform(0.5, 1, 7)
        s[3] = 0
        for options in ({}, {"label_smoothing": 0.1, "z_loss": 0.01}):
            one, done = ce.cross_entropy_with_grad(z, t, sample_weight=s, class_weight=w, **options)
            weights = s * scale / (s.max() if scale > 1 else 0.5)
            loss, dlogits = ce.cross_entropy_with_grad(z, t, sample_weight=weights, class_weight=w, **options)
            assert loss == pytest.approx(one, rel=1e-14)
            np.testing.assert_allclose(dlogits, done, rtol=1e-12)

    @pytest.mark.parametrize("temperature", [1e-100, 1e100])
    def test_temperatures_at_the_ends_of_their_range(self, temperature):
        z = temperature * np.array([[0.5, 0.25, -1.0]])
        loss, dlogits = ce.cross_entropy_with_grad(z, [1], temperature=temperature)
        expected, gradient = ce.reference.cross_entropy_with_grad([[0.5, 0.25, -1.0]], [1])
        assert loss == pytest.approx(expected, rel=1e-14)
        np.testing.assert_allclose(dlogits * temperature, gradient, rtol=1e-13)

    def test_a_temperature_whose_reciprocal_rounds_to_one(self):
        """tau = 1 - 2^-53: without the reciprocal's error the far classes would lose their last digits."""
        import mpmath

        temperature = 1 - 2.0**-53
        z = np.array([[600.0, 0.0, 1.0]])
        with mpmath.workdps(50):
            u = [mpmath.mpf(x) / mpmath.mpf(temperature) for x in z[0]]
            total = mpmath.fsum(mpmath.exp(x) for x in u)
            gradient = [mpmath.exp(x) / total / mpmath.mpf(temperature) for x in u]
        dlogits = ce.cross_entropy_with_grad(z, [0], temperature=temperature)[1]
        for got, exact in zip(dlogits[0, 1:], gradient[1:], strict=True):
            assert abs(float((mpmath.mpf(got) - exact) / exact)) < 4 * 2.0**-52


class TestModules:
    def test_a_failed_forward_leaves_no_gradient(self):
        criterion = ce.CrossEntropyLoss()
        criterion(A, [0, 1])
        with pytest.raises(IndexError):
            criterion(A, [0, 3])
        with pytest.raises(RuntimeError, match="backward: call forward"):
            criterion.backward()
        head = ce.LinearCrossEntropyLoss()
        head(A, np.ones((4, 3)), [0, 1])
        with pytest.raises(IndexError):
            head(A, np.ones((4, 3)), [0, 4])
        with pytest.raises(RuntimeError, match="backward: call forward"):
            head.backward()

    @pytest.mark.parametrize(
        ("options", "targets", "sample_weight"),
        [
            ({}, [1, -100], None),
            ({}, [1, 0], [1.0, 0.0]),
            ({"class_weight": [0.0, 1.0, 1.0]}, [1, 0], None),
            ({"axis": 0}, ce.TopKTargets([[0, -100], [1, -100]], [[0.5, 0], [0.5, 0]]), None),
        ],
        ids=["ignored", "weight 0", "class weight 0", "top k"],
    )
    def test_a_changed_row_that_does_not_count(self, options, targets, sample_weight):
        axis = options.get("axis", -1)
        z = A.copy() if axis == -1 else A.T.copy()
        criterion = ce.CrossEntropyLoss(**options)
        criterion(z, targets, sample_weight)
        expected = np.exp(z) / np.exp(z).sum(axis, keepdims=True)
        np.testing.assert_allclose(criterion.softmax, expected, rtol=1e-14)
        np.moveaxis(z, axis, -1)[1, 2] = -5.0
        with pytest.raises(RuntimeError, match="softmax: the logits or targets of the last forward have been changed"):
            _ = criterion.softmax

    def test_an_explanation_stays_read_only(self):
        import copy

        explanation = ce.explain(A, [1, 0])
        derived = explanation.derivation(0)
        for again in (pickle.loads(pickle.dumps((explanation, derived))), copy.deepcopy((explanation, derived))):
            for old, new in zip((explanation, derived), again, strict=True):
                for name, value in vars(new).items():
                    if isinstance(value, np.ndarray):
                        np.testing.assert_array_equal(value, getattr(old, name))
                        with pytest.raises(ValueError, match="read-only"):
                            value[...] = 0
