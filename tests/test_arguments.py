"""What logits, targets and options may be, and what is said of others."""

import numpy as np
import pytest
from textbook import A, Y

import crossentropy as ce


class TestArguments:
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
        with pytest.raises(TypeError, match=r"or probabilities \(real or boolean\) of shape \(2, 3\), got complex128"):
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
            ({"class_weight": [1, -1, 1]}, "reduction: expected 'sum' or 'none' for weights .* negative, got 'mean'"),
            ({"sample_weight": [1, -1]}, "reduction: expected 'sum' or 'none' for weights .* negative, got 'mean'"),
            (
                {"class_weight": [1, 1e308, 1]},
                r"class_weight: .* each 0 or of a size in \[1e-100, 1e100\], got 1e\+308",
            ),
            ({"class_weight": [1, -np.inf, 1]}, "class_weight: expected finite weights, .*, got -inf"),
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
