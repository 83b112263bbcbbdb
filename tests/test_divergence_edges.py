"""Divergences at the edges: infinities, NaN, axes, memory, threads, instruction sets, errors."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
from divergence_oracle import BOTH, FORMS, each_form

import crossentropy as ce
from crossentropy import _core

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
INF = np.inf


class TestEdgeCases:
    """-inf in one model and not in the other; NaN stays in its row; what does not count is 0."""

    z, t = np.array([1.0, -INF, 0.5, -INF]), np.array([0.2, -INF, -INF, 0.3])

    @each_dtype
    @pytest.mark.parametrize("direction", ["forward", "reverse"])
    def test_impossible_in_the_second_model_only(self, dtype, direction):
        names = ("teacher_logits", "logits") if direction == "forward" else ("logits", "teacher_logits")
        a, b = np.array([[0.0, 1.0, -INF]], dtype), np.array([[0.0, -INF, -INF]], dtype)
        given = dict(zip(names, (a, b), strict=True))
        for scale in (1.0, -2.0, 0.0):
            loss, gradients = ce.kl_divergence_with_grad(**given, wrt=BOTH, direction=direction, grad_output=scale)
            assert loss == INF
            p = 1 / (1 + np.e)
            np.testing.assert_allclose(getattr(gradients, names[1]), [[scale * (1 - p), scale * (p - 1), 0]], rtol=1e-6)
            expected = np.array([[-INF, INF, 0.0]]) * (np.sign(scale) or 1.0) if scale else np.zeros((1, 3))
            np.testing.assert_array_equal(
                np.nan_to_num(getattr(gradients, names[0]), posinf=INF, neginf=-INF),
                (np.where(np.isnan(expected), 0, expected)),
            )

    @each_dtype
    def test_possible_with_a_probability_of_zero(self, dtype):
        """What is possible is so however unlikely."""
        a, b = np.array([0.0, -800.0], dtype), np.array([0.0, -INF], dtype)
        assert ce.kl_divergence(b, a) == INF

    @each_dtype
    def test_impossible_in_the_first_model_only(self, dtype):
        a, b = np.array([0.0, 1.0, -INF], dtype), np.array([0.0, 1.0, 2.0], dtype)
        q, p = (
            np.r_[np.exp(a[:2].astype(float)), 0] / (1 + np.e),
            np.exp(b.astype(float)) / np.exp(b.astype(float)).sum(),
        )
        loss, gradients = ce.kl_divergence_with_grad(b, a, wrt=BOTH)
        assert loss == pytest.approx((q[:2] * np.log(q[:2] / p[:2])).sum(), rel=1e-6)
        np.testing.assert_allclose(gradients.logits, p - q, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(gradients.teacher_logits, 0, atol=1e-6)  # log q - log p is the same for both
        assert gradients.teacher_logits[2] == 0

    @each_dtype
    def test_js_stays_finite(self, dtype):
        z, t = self.z.astype(dtype), self.t.astype(dtype)
        p = np.exp([1.0, -INF, 0.5, -INF]) / np.exp([1.0, 0.5]).sum()
        q = np.exp([0.2, -INF, -INF, 0.3]) / np.exp([0.2, 0.3]).sum()
        for beta in (0.5, 0.1):
            m = beta * q + (1 - beta) * p
            with np.errstate(all="ignore"):
                to_q, to_p = np.where(q > 0, np.log(m / q), 0), np.where(p > 0, np.log(m / p), 0)
            loss, gradients = ce.jensen_shannon_with_grad(z, t, wrt=BOTH, beta=beta)
            assert loss == pytest.approx(-(beta * q * to_q + (1 - beta) * p * to_p).sum(), rel=1e-6)
            np.testing.assert_allclose(gradients.logits, (1 - beta) * p * ((p * to_p).sum() - to_p), atol=1e-6)
            np.testing.assert_allclose(gradients.teacher_logits, beta * q * ((q * to_q).sum() - to_q), atol=1e-6)

    @each_form
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    @pytest.mark.parametrize("bad", [np.nan, INF, "all"])
    @pytest.mark.parametrize("of", BOTH)
    def test_nan_stays_in_its_row(self, form, dtype, bad, of, rng):
        function, options = FORMS[form]
        for classes in (1, 3, 200):
            both = {name: rng.standard_normal((4, classes)).astype(dtype) for name in BOTH}
            if bad == "all":
                both[of][1] = -INF
            else:
                both[of][1, -1] = bad
            losses, gradients = function(**both, wrt=BOTH, reduction="none", **options)
            np.testing.assert_array_equal(np.isnan(losses), [False, True, False, False])
            for gradient in gradients:
                np.testing.assert_array_equal(np.isnan(gradient).any(1), [False, True, False, False])
                canonical = np.full(classes, np.nan, dtype).tobytes()
                assert np.isnan(gradient[1]).all()
                assert gradient[1].tobytes() == canonical
            weight = [1.0, 0.0, 1.0, 1.0]
            losses, gradients = function(**both, wrt=BOTH, sample_weight=weight, reduction="none", **options)
            assert losses[1] == 0
            assert not gradients.logits[1].any()
            assert not gradients.teacher_logits[1].any()
            assert np.isfinite(function(**both, sample_weight=weight, **options)[0])

    @each_form
    def test_nothing_counted(self, form):
        function, options = FORMS[form]
        for rows, weight in ((2, [0.0, 0.0]), (0, None)):
            z = np.full((rows, 3), np.nan, np.float32)
            loss, gradients = function(z, z, wrt=BOTH, sample_weight=weight, **options)
            assert loss == 0.0
            assert gradients.logits.shape == (rows, 3)
            assert not gradients.logits.any()
            assert not gradients.teacher_logits.any()

    @pytest.mark.parametrize("upstream", [INF, np.nan])
    def test_upstream_that_is_not_finite(self, upstream, rng):
        z, t = rng.standard_normal((2, 3, 5))
        loss, gradients = ce.kl_divergence_with_grad(z, t, grad_output=upstream, sample_weight=[1.0, 0.0, 1.0])
        assert np.isfinite(loss)
        np.testing.assert_array_equal(np.isnan(gradients.logits).all(1), [True, False, True])

    def test_differences_beyond_float32(self):
        z, t = np.array([[3e38, -3e38, 0.0]], np.float32), np.array([[-3e38, 3e38, 0.0]], np.float32)
        assert ce.kl_divergence(z, t) == pytest.approx(6e38, rel=1e-6)
        np.testing.assert_array_equal(ce.kl_divergence_with_grad(z, t)[1].logits, [[1.0, -1.0, 0.0]])


def test_axis_and_memory_order(rng):
    z, t = rng.standard_normal((2, 4, 7, 3))
    weight = rng.random((4, 3))
    expected, of_expected = ce.kl_divergence_with_grad(
        np.moveaxis(z, 1, 2), np.moveaxis(t, 1, 2), wrt=BOTH, sample_weight=weight
    )
    strided = np.zeros((4, 7, 6))[..., ::2]
    strided[...] = z
    for x, y in [(z, t), (np.asfortranarray(z), t), (strided, t.astype(">f8")), (z, np.asfortranarray(t))]:
        for axis in (1, -2):
            loss, gradients = ce.kl_divergence_with_grad(x, y, axis=axis, wrt=BOTH, sample_weight=weight)
            assert loss == expected
            for got, exact in zip(gradients, of_expected, strict=True):
                np.testing.assert_array_equal(got, np.moveaxis(exact, 2, 1))


@each_form
def test_in_place(form, rng):
    function, options = FORMS[form]
    for dtype in ("float16", "float32", "float64"):
        for classes, axis in ((5, -1), (700, -1), (6, 0)):
            z, t = rng.standard_normal((2, 6, classes)).astype(dtype)
            given = {**options, "wrt": BOTH, "axis": axis, "softcap": None if dtype == "float32" else 5.0}
            loss, expected = function(z, t, **given)
            out = ce.DivergenceGradients(z.copy(), t.copy())
            again, gradients = function(*out, out=out, **given)
            assert again == loss
            for got, place, exact in zip(gradients, out, expected, strict=True):
                assert got is place
                assert got.tobytes() == exact.tobytes()


def outcome(function, z, t, **options):
    loss, gradients = function(z, t, wrt=BOTH, **options)
    return np.asarray(loss).tobytes(), *(gradient.tobytes() for gradient in gradients)


def examples():
    rng = np.random.default_rng(5)
    for dtype in ("float16", "float32", "float64"):
        for classes in (1, 7, 130, 1000):
            z = (3 * rng.standard_normal((40000 // classes, classes))).astype(dtype)
            t = (z + rng.standard_normal(z.shape)).astype(dtype)
            z[0, 0] = -np.inf
            for given in ({}, {"temperature": 0.7, "softcap": 5.0}, {"teacher_softcap": 5.0, "softcap": 5.0}):
                yield z, t, given


@each_form
def test_any_number_of_threads_and_a_row_alone(form):
    function, options = FORMS[form]
    rng = np.random.default_rng(6)
    for dtype in ("float32", "float64"):
        z, t = rng.standard_normal((2, 1000, 700)).astype(dtype)
        for reduction in ("mean", "none"):
            given = {**options, "reduction": reduction}
            expected = outcome(function, z, t, num_threads=1, **given)
            for threads in (2, 5):
                assert outcome(function, z, t, num_threads=threads, **given) == expected
        alone = outcome(function, z[5:6], t[5:6], reduction="none", **options)
        losses, gradients = function(z, t, reduction="none", wrt=BOTH, **options)
        assert alone == (losses[5:6].tobytes(), *(gradient[5].tobytes() for gradient in gradients))
        without = getattr(ce, function.__name__.removesuffix("_with_grad"))(z, t, reduction="none", **options)
        assert without.tobytes() == losses.tobytes()
        one, (dz, none) = function(z, t, reduction="none", **options)
        assert (one.tobytes(), dz.tobytes(), none) == (losses.tobytes(), gradients.logits.tobytes(), None)


def digest() -> str:
    hashes = hashlib.sha256()
    for z, t, given in examples():
        for function, options in FORMS.values():
            for part in outcome(function, z, t, **options, **given):
                hashes.update(part)
    return hashes.hexdigest()


def test_every_instruction_set_that_promises_bits():
    digests = {}
    for name in _core.available_instruction_sets:
        script = "import test_divergence_edges; print(test_divergence_edges.digest())"
        environment = {**os.environ, "CROSSENTROPY_ISA": name}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests[name] = done.stdout.strip()
    del digests["baseline"]
    assert len(set(digests.values())) <= 1, digests


@each_form
def test_baseline_is_as_exact(form):
    """Of the instruction sets in use, this process has one; the others in a process of their own."""
    name, options = FORMS[form][0].__name__.removesuffix("_with_grad"), FORMS[form][1]
    rng = np.random.default_rng(7)
    z = 3 * rng.standard_normal(50)
    t = z + 1e-7 * rng.standard_normal(50)
    expected = getattr(ce, name)(z, t, **options)
    script = (
        "import numpy as np, crossentropy as ce; rng = np.random.default_rng(7); z = 3 * rng.standard_normal(50);"
        f"print(ce.{name}(z, z + 1e-7 * rng.standard_normal(50), **{options!r}))"
    )
    environment = {**os.environ, "CROSSENTROPY_ISA": "baseline"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(expected, rel=1e-13)


class TestErrors:
    z, t = np.zeros((2, 3)), np.ones((2, 3))

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"teacher_logits": np.zeros((2, 4))}, ValueError, r"teacher_logits: expected the logits' shape \(2, 3\)"),
            ({"teacher_logits": np.zeros((2, 3), bool)}, TypeError, "^teacher_logits: expected float16"),
            ({"logits": np.zeros((2, 3), complex)}, TypeError, "^logits: expected float16"),
            ({"direction": "sideways"}, ValueError, "direction: expected 'forward' or 'reverse', got 'sideways'"),
            ({"teacher_softcap": -1.0}, ValueError, "^teacher_softcap: expected a positive number"),
            ({"softcap": "3"}, TypeError, "^softcap: expected a number"),
            ({"temperature": 0.0}, ValueError, "^temperature: expected"),
            ({"reduction": "batchmean"}, ValueError, "^reduction: expected 'mean', 'sum' or 'none'"),
            ({"sample_weight": np.ones(3)}, ValueError, r"^sample_weight: expected shape \(2,\)"),
            ({"sample_weight": [1.0, -1.0]}, ValueError, "^reduction: expected 'sum' or 'none'"),
            ({"axis": 2}, ValueError, "^axis: expected"),
            ({"num_threads": 0}, ValueError, "^num_threads: expected"),
            ({"wrt": "logits"}, ValueError, "^wrt: expected some of"),
            ({"wrt": ("teacher",)}, ValueError, "^wrt: expected some of"),
            ({"wrt": None}, ValueError, "^wrt: expected some of"),
            ({"wrt": iter(["logits"])}, ValueError, "^wrt: expected some of"),
            ({"wrt": [["logits"]]}, ValueError, "^wrt: expected some of"),
            ({"grad_output": np.ones(2)}, ValueError, "^grad_output: expected a number"),
            ({"out": np.zeros((2, 3))}, TypeError, "^out: expected DivergenceGradients"),
            ({"out": ce.DivergenceGradients(np.zeros((3, 2)))}, ValueError, r"^out.logits: expected shape \(2, 3\)"),
            (
                {"out": ce.DivergenceGradients(None, np.zeros((2, 3)))},
                ValueError,
                "^out: expected no array for teacher",
            ),
            ({"out": ce.DivergenceGradients(t)}, ValueError, "^out.logits: expected memory of its own"),
            (
                {"class_weight": np.ones(3)},
                TypeError,
                r"kl_divergence_with_grad\(\) got .* 'class_weight': .*sample_weight of 0",
            ),
            ({"ignore_index": -100}, TypeError, "'ignore_index': .*sample_weight of 0"),
            ({"label_smoothing": 0.1}, TypeError, "'label_smoothing': .*sample_weight of 0"),
            ({"beta": 0.5}, TypeError, "beta"),
        ],
    )
    def test_message(self, given, error, message):
        before = self.z.copy(), self.t.copy()
        with pytest.raises(error, match=message):
            ce.kl_divergence_with_grad(**{"logits": self.z, "teacher_logits": self.t, **given})
        np.testing.assert_array_equal(self.z, before[0])
        np.testing.assert_array_equal(self.t, before[1])

    @pytest.mark.parametrize("beta", [0.0, 1.0, -1.0, 2.0, np.nan])
    def test_beta(self, beta):
        with pytest.raises(ValueError, match=r"^beta: expected a number between 0 and 1, got .* see kl_divergence"):
            ce.jensen_shannon(self.z, self.t, beta=beta)

    def test_one_buffer_for_both_gradients(self):
        one = np.zeros((2, 3))
        with pytest.raises(ValueError, match=r"^out.teacher_logits: expected memory of its own"):
            ce.kl_divergence_with_grad(self.z, self.t, wrt=BOTH, out=ce.DivergenceGradients(one, one))

    def test_models_in_one_memory_in_place(self):
        with pytest.raises(ValueError, match=r"^out.logits: expected memory of its own"):
            ce.kl_divergence_with_grad(self.z, self.z, out=ce.DivergenceGradients(self.z))


def test_maxima_far_apart_in_float32():
    """The difference of the maxima must not swallow what log-sum-exp adds."""
    z, t = np.array([0, 0.25, 1], np.float32), np.array([1e16, -1e16, -1e16], np.float32)
    loss, gradients = ce.kl_divergence_with_grad(z, t)
    right, of_wide = ce.kl_divergence_with_grad(z.astype(float), t.astype(float))
    assert loss == pytest.approx(right, rel=1e-6)
    assert loss == pytest.approx(float(np.log(1 + np.exp(0.25) + np.e)), rel=1e-6)  # the teacher is sure of class 0
    np.testing.assert_allclose(gradients.logits, of_wide.logits, rtol=1e-6)


@pytest.mark.parametrize("beta", [1e-3, 1e-6, 1e-9, 1e-12])
def test_mixtures_with_little_of_one_model(beta):
    z, t = np.array([-38.1, 0.0]), np.array([40.0, 0.0])
    with mpmath.workdps(60):
        p, q = ([mpmath.exp(mpmath.mpf(x)) for x in logits.tolist()] for logits in (z, t))
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        m = [beta * y + (1 - mpmath.mpf(beta)) * x for x, y in zip(p, q, strict=True)]
        of_teacher = sum(y * mpmath.log(y / w) for y, w in zip(q, m, strict=True))
        of_student = sum(x * mpmath.log(x / w) for x, w in zip(p, m, strict=True))
        right = beta * of_teacher + (1 - mpmath.mpf(beta)) * of_student
    assert ce.jensen_shannon(z, t, beta=beta) == pytest.approx(float(right), rel=1e-13)
