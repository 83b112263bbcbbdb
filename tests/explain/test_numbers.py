"""Every number of an explanation against the definition in 300 digits."""

import dataclasses
import json
import math

import ml_dtypes
import numpy as np
import pytest
from explain import oracle

import crossentropy as ce

A = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]
OPTIONS = [
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"label_smoothing": 0.1},
    {"temperature": 0.5, "reduction": "sum"},
    {"softcap": 2.0},
    {"z_loss": 0.01},
    {"label_smoothing": 0.3, "temperature": 2.0, "softcap": 3.0, "z_loss": 0.1},
]


def one_hot(targets, C):
    return (np.arange(C) == np.asarray(targets)[:, None]).astype(float)


def assert_right(x, right):
    for name, expected in right.items():
        scale = np.abs(expected).max() if name in ("dtotal", "dmean", "dlogits", "log_p") else 0
        np.testing.assert_allclose(getattr(x, name), expected, rtol=2e-14, atol=2e-15 * scale, err_msg=name)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_every_number(rng, options, weighted, dense):
    N, C = 5, 4
    logits, targets = 3 * rng.standard_normal((N, C)), rng.integers(0, C, N)
    q = rng.random((N, C)) if dense else one_hot(targets, C)
    w, s = (rng.random(C), rng.random(N)) if weighted else (np.ones(C), np.ones(N))
    omega = np.ones(N) if dense else w[targets]
    weights = {"class_weight": w, "sample_weight": s} if weighted else {}
    x = ce.explain(logits, q if dense else targets, **weights, **options)
    names = {"label_smoothing": "eps", "z_loss": "zeta", "temperature": "tau"}
    right = oracle.numbers(logits, q, w, s, omega, **{names.get(name, name): v for name, v in options.items()})
    assert_right(x, right)
    np.testing.assert_array_equal(x.q, q)
    loss, dlogits = ce.cross_entropy_with_grad(logits, q if dense else targets, **weights, **options)
    np.testing.assert_array_equal(x.loss, loss)
    np.testing.assert_array_equal(x.dlogits, dlogits)


def test_worked_example_as_published():
    """The numbers a student finds in the course the example is from."""
    x = ce.explain(A, [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(x.p, [[0.6590, 0.2424, 0.0986], [0.0728, 0.4868, 0.4404]], atol=5e-5)
    np.testing.assert_allclose(x.losses, [1.4170, 2.6200], atol=5e-5)
    assert x.mean == pytest.approx(2.0185, abs=5e-5)


def test_confident_rows_keep_their_digits():
    logits = [[40.0, 0.0, 0.0], [0.0, 300.0, 1.0]]
    x = ce.explain(logits, [0, 1])
    right = oracle.numbers(logits, one_hot([0, 1], 3), np.ones(3), np.ones(2), np.ones(2))
    for name in ("r", "rest", "log_p", "losses", "total", "dtotal", "dmean"):
        np.testing.assert_allclose(getattr(x, name), right[name], rtol=1e-14, err_msg=name)
    assert (x.losses > 0).all()


def test_rows_that_do_not_count():
    x = ce.explain([[1.0, 2.0], [math.nan, 5.0], [3.0, 1.0]], [0, -100, 1], sample_weight=[1.0, 1.0, 0.0])
    np.testing.assert_array_equal(x.s, [1, 0, 0])
    assert x.losses.tolist()[1:] == [0, 0]
    assert (x.dlogits[1:] == 0).all()
    assert x.mean == pytest.approx(math.log1p(math.exp(1)), rel=1e-15)
    text = str(x.lesson(derivation=True, row=1, check=True, pitfalls=True))
    assert "ℓ₁ = 0,  as row 1 does not count" in text
    nothing = ce.explain(A, [-100, -100])
    assert nothing.mean == nothing.total_weight == 0
    assert "mean = 0,  as nothing counts" in str(nothing)


def test_one_row_in_one_dimension():
    x, y = ce.explain([2.0, 1.0, 0.1], 1), ce.explain([[2.0, 1.0, 0.1]], [1])
    assert x.to_dict() == y.to_dict()
    x, y = ce.explain([2.0, 1.0, 0.1], [0, 0.5, 0.5]), ce.explain([[2.0, 1.0, 0.1]], [[0, 0.5, 0.5]])
    assert x.to_dict() == y.to_dict()


class TestDerivation:
    @pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2, "class_weight": [1.0, 0.5, 3.0]}])
    def test_jacobian_terms_and_product(self, options):
        x = ce.explain(A, [1, 0], **options)
        for row in range(2):
            right = oracle.softmax_jacobian(A[row])
            for c in range(3):
                d = x.derivation(row, c)
                np.testing.assert_allclose(d.jacobian, right, rtol=1e-14)
                np.testing.assert_allclose(d.dlog, right[:, c] / x.p[row], rtol=1e-14)
                np.testing.assert_allclose(d.ratio, x.b[row] / x.p[row], rtol=1e-15)
                np.testing.assert_allclose(d.product, -d.ratio @ right, rtol=1e-13)
                np.testing.assert_allclose(d.terms.sum(), x.dtotal[row, c], rtol=1e-13)

    def test_confident_jacobian_does_not_cancel(self):
        d = ce.explain([[50.0, 0.0]], [0]).derivation(0)
        np.testing.assert_allclose(d.jacobian, oracle.softmax_jacobian([50.0, 0.0]), rtol=1e-14)
        assert (np.abs(d.jacobian) > 0).all()

    def test_target_sums_other_than_one(self):
        x = ce.explain(A, [[0.5, 0.5, 1.0], [0.0, 0.2, 0.0]])
        for row, total in enumerate([2.0, 0.2]):
            np.testing.assert_allclose(x.derivation(row).product, total * x.p[row] - x.q[row], rtol=1e-13)

    def test_index_errors(self):
        x = ce.explain(A, [1, 0])
        with pytest.raises(IndexError, match=r"row: expected an integer in \[0, 2\), got 2"):
            x.derivation(2)
        with pytest.raises(IndexError, match=r"class: expected an integer in \[0, 3\), got -1"):
            x.derivation(0, -1)


class TestCheck:
    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_differences_agree(self, options):
        check = ce.explain(A, [1, 0], class_weight=[1.0, 2.0, 0.5], sample_weight=[1.0, 0.5], **options).check()
        assert check.largest < 2e-11
        assert check.largest == np.abs(check.gradient - check.differences).max()

    def test_wrong_gradient_is_noticed(self):
        x = ce.explain(A, [1, 0])
        wrong = dataclasses.replace(x, dlogits=x.p - x.q)  # of the sum, taken for that of the mean
        assert wrong.check().largest > 0.1


class TestPitfalls:
    def test_marks(self):
        x = ce.explain(
            [[1000.0, 0.0, -1000.0], [40.0, 0.0, 0.0], [2.0, 1.0, 0.1], [-800.0, -801.0, -802.0]], [1, 0, 1, 0]
        )
        marks = {(p.formula, p.dtype): p.marks for p in x.pitfalls()}
        for dtype in ("float32", "float64"):
            assert marks["−Σ Y_c·log(exp(A_c)/Σ exp(A))", dtype] == ("inf", "0", "", "NaN")
            assert marks["Σ Y_c·(log Σ exp(A) − A_c)", dtype] == ("inf", "0", "", "inf")
            assert marks["Σ Y_c·(log Σ exp(A − m) − (A_c − m))", dtype] == ("", "0", "", "")
            assert marks["−Σ Y_c·log σ(A)_c", dtype] == ("NaN", "0", "", "")
            assert marks["σ(A)_t − Y_t", dtype] == ("", "0", "", "")

    def test_a_zero_that_is_right(self):
        for pitfall in ce.explain([[5.0]], [0]).pitfalls():
            assert pitfall.library == pitfall.textbook == 0
            assert pitfall.marks == ("",)

    def test_single_precision_only(self):
        x = ce.explain([[100.0, 0.0], [18.0, 0.0], [13.0, 0.0]], [1, 0, 0])
        marks = {(p.formula, p.dtype): p.marks for p in x.pitfalls()}
        assert marks["−Σ Y_c·log(exp(A_c)/Σ exp(A))", "float32"] == ("inf", "0", "digits")
        assert marks["−Σ Y_c·log(exp(A_c)/Σ exp(A))", "float64"] == ("", "", "")

    def test_ours_is_right(self, rng):
        logits, targets = 30 * rng.standard_normal((6, 5)), rng.integers(0, 5, 6)
        for pitfall in ce.explain(logits, targets).pitfalls():
            exact = oracle.numbers(
                logits.astype(pitfall.dtype), one_hot(targets, 5), np.ones(5), np.ones(6), np.ones(6)
            )
            right = exact["dtotal"][np.arange(6), targets] if "Y_t" in pitfall.formula else exact["cross"]
            np.testing.assert_allclose(pitfall.library, right, rtol=1e-6 if pitfall.dtype == "float32" else 1e-14)

    def test_no_pitfall_is_said(self):
        assert "No pitfall here" in str(ce.explain(A, [1, 0]).lesson(pitfalls=True))
        assert "No pitfall here" not in str(ce.explain([[99.0, 0.0]], [0]).lesson(pitfalls=True))


class TestRecord:
    def test_frozen(self):
        x = ce.explain(A, [1, 0])
        with pytest.raises(dataclasses.FrozenInstanceError):
            x.loss = 0.0
        with pytest.raises(ValueError, match="read-only"):
            x.p[0, 0] = 1.0

    def test_input_may_change_later(self):
        logits = np.array(A)
        x = ce.explain(logits, [1, 0])
        logits[:] = 0
        np.testing.assert_array_equal(x.logits, A)

    def test_pitfalls_are_a_list(self):
        found = ce.explain(A, [1, 0]).pitfalls()
        assert isinstance(found, list)
        assert len(found) == 10
        assert found[0].dtype == "float32"

    def test_repr_does_not_hold_the_explanation(self):
        x = ce.explain(A, [1, 0])
        for record in (x.derivation(), x.check()):
            assert "Explanation" not in repr(record)
            assert set(record.to_dict()) == {f.name for f in dataclasses.fields(record) if f.repr}

    def test_to_dict_is_json(self):
        x = ce.explain([[2.0, -math.inf, 0.0], [math.inf, 1.0, 0.0]], [1, 0])
        numbers = json.loads(json.dumps(x.to_dict(), allow_nan=False))
        assert numbers["loss"] == "NaN"
        assert numbers["losses"] == ["Infinity", "NaN"]
        assert numbers["logits"][0][1] == "-Infinity"
        assert set(numbers) == {field.name for field in dataclasses.fields(x)}
        for record in (x.derivation(), x.check(), *x.pitfalls()):
            json.dumps(record.to_dict(), allow_nan=False)


class TestInput:
    def test_probabilities_given_as_logits(self):
        for logits in ([[0.2, 0.8], [0.5, 0.5]], [[1, 0, 0]], [0.3, 0.3, 0.4]):
            with pytest.raises(ValueError, match="these look like probabilities"):
                ce.explain(logits, np.zeros(np.shape(logits)[:-1], int))
        ce.explain([[0.2, 0.8], [0.5, 0.4]], [0, 0])
        ce.explain([[1.2, -0.2]], [0])
        shifted, plain = ce.explain([[1.2, 1.8]], [0]), ce.cross_entropy([[0.2, 0.8]], [0])
        assert shifted.loss == pytest.approx(plain, rel=1e-15)

    def test_classes_counted_from_one(self):
        with pytest.raises(IndexError, match=r"classes count from 0: did you mean \[2, 0\]\?"):
            ce.explain(A, [3, 1])
        with pytest.raises(IndexError, match=r"did you mean \[2, -100\]\?"):
            ce.explain(A, [3, -100])
        for targets in ([4, 1], [3, 0], [-1, 1]):
            with pytest.raises(IndexError, match=r"got (4|3|-1) in row"):
                ce.explain(A, targets)

    def test_too_much_to_explain(self):
        with pytest.raises(ValueError, match=r"at most 32 rows .* got 33 rows of 3 classes; choose some.*eval"):
            ce.explain(np.zeros((33, 3)), np.zeros(33, int))
        with pytest.raises(ValueError, match="at most"):
            ce.explain(np.zeros((2, 3_000_000)), [0, 0])
        with pytest.raises(ValueError, match="one row or more"):
            ce.explain(np.zeros((0, 3)), [])
        with pytest.raises(ValueError, match="one row or more"):
            ce.explain(np.zeros((1, 2, 3)), [[0, 0]])

    def test_names(self):
        assert ce.explain(A, [1, 0]).names == ("0", "1", "2")
        x = ce.explain(A, [1, 0], names=["a\nb", "\x1b[31mred", " c  d "])
        assert x.names == ("a b", "�[31mred", "c d")
        with pytest.raises(ValueError, match="names: expected 3, one for each class, got 2"):
            ce.explain(A, [1, 0], names=["a", "b"])
        with pytest.raises(ValueError, match="names: expected 3, one for each class, got 'abc'"):
            ce.explain(A, [1, 0], names="abc")

    def test_unknown_option(self):
        with pytest.raises(TypeError, match="num_threads"):
            ce.explain(A, [1, 0], num_threads=1)


class TestFold:
    def test_few_are_shown_in_full(self, rng):
        x = ce.explain(rng.standard_normal((2, 36)), [0, 35])
        assert x.shown == tuple(range(36))
        assert x.folded == 0

    def test_many_are_folded(self, rng):
        logits = rng.standard_normal((3, 5000))
        targets = np.argsort(logits, 1)[:, 0]  # the unlikeliest
        x = ce.explain(logits, targets)
        assert set(targets) <= set(x.shown)
        assert len(x.shown) == 12 + 3
        for row in range(3):
            assert x.p[row].argmax() in x.shown
        text = " ".join(str(x).split())
        assert "Of 5,000 classes the likeliest and the targets are shown" in text
        assert "4,985 others" in text
        distributions = ce.explain(logits, rng.random((3, 5000)))
        assert len(distributions.shown) == 12

    def test_class_asked_for_is_shown(self, rng):
        x = ce.explain(rng.standard_normal((1, 100)), [7])
        c = next(c for c in range(100) if c not in x.shown)
        d = x.derivation(0, c)
        assert c in d.classes
        np.testing.assert_allclose(d.product[d.classes.index(c)], x.dtotal[0, c], rtol=1e-12)


def test_probabilities_in_bfloat16():
    q = np.array([[0.0, 0.75, 0.25], [1.0, 0.0, 0.0]])
    x = ce.explain(A, q.astype(ml_dtypes.bfloat16))
    assert np.array_equal(x.q, q)
    assert np.array_equal(x.losses, ce.explain(A, q).losses)


def test_logits_beyond_float32_are_shown_without_a_warning():
    x = ce.explain([[1e200, 0.0, -1e200]], [0], z_loss=1.0)
    assert x.mean == math.inf
    assert "∞" in str(x.lesson(derivation=True, check=True, pitfalls=True))
