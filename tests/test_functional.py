"""The loss and its gradient: the lesson's numbers, every option against the definition, the types of results."""

import itertools

import numpy as np
import pytest
from textbook import GRADIENT, LOSSES, A, Y

import crossentropy as ce


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
