"""The mistakes that beginners make: what they are told, and that nothing is computed or written."""

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from textbook import A, Y

import crossentropy as ce

ACCEPTED = "class indices (integers) of shape (2,) or probabilities (real or boolean) of shape (2, 3)"
INDICES = "class indices in [0, 3) or ignore_index -100"
EYE = np.eye(3)


def with_grad(logits, targets, **options):
    out = np.full(np.shape(logits), 7.0)
    try:
        return ce.cross_entropy_with_grad(logits, targets, out=out, **options)
    finally:
        assert (out == 7.0).all(), "written before the error"


def linear_with_grad(logits, targets, **options):
    out = ce.LinearGradients(*(np.full((n, 3), 7.0) for n in (len(logits), 3)))
    try:
        return ce.linear_cross_entropy_with_grad(logits, EYE, targets, out=out, **options)
    finally:
        assert all((gradient == 7.0).all() for gradient in out[:2]), "written before the error"


# All who take targets; where there is an output, it must be as it was.
LOSSES = {
    "cross_entropy": ce.cross_entropy,
    "cross_entropy, none": lambda z, t: ce.cross_entropy(z, t, reduction="none"),
    "cross_entropy_with_grad": with_grad,
    "cross_entropy_hvp": lambda z, t: ce.cross_entropy_hvp(z, t, np.ones_like(z)),
    "cross_entropy_hessian_diagonal": ce.cross_entropy_hessian_diagonal,
    "CrossEntropyLoss": lambda z, t: ce.CrossEntropyLoss()(z, t),
    "linear_cross_entropy": lambda z, t: ce.linear_cross_entropy(z, EYE, t),
    "linear_cross_entropy_with_grad": linear_with_grad,
    "LinearCrossEntropyLoss": lambda z, t: ce.LinearCrossEntropyLoss()(z, EYE, t),
    "explain": ce.explain,
}


def message(error, call, *args, **kwargs):
    with pytest.raises(error) as raised:
        call(*args, **kwargs)
    assert type(raised.value) is error
    text = str(raised.value)
    assert "\n" not in text
    return text


UNIQUE = "np.unique(labels, return_inverse=True)[1] numbers the classes, in their order"
MISSING = (
    "with missing values: rows without a class have the index -100 (ignore_index), as in np.where({}(targets), -100, "
    "targets).astype(int)"
)
# targets, the error, and what follows "targets: expected …, got "
TARGETS = [
    (["cat", "dog"], TypeError, f"strings such as 'cat': {UNIQUE}"),
    (np.array(["cat", None], object), TypeError, f"strings such as 'cat': {UNIQUE}"),
    (pd.Series(["a", "b"], dtype="category"), TypeError, f"strings such as 'a': {UNIQUE}"),
    (pd.Series(["a", "b"], dtype="string"), TypeError, f"strings such as 'a': {UNIQUE}"),
    ([1.0, 0.0], TypeError, "dtype float64: np.asarray(targets).astype(int) would do"),
    (np.array([1, 0], np.float32), TypeError, "dtype float32: np.asarray(targets).astype(int) would do"),
    ([0.5, 1.0], TypeError, "dtype float64: 0.5 is no index; probabilities have shape (2, 3)"),
    (np.array([np.nan, 1]), TypeError, f"float64 {MISSING.format('np.isnan')}"),
    ([0, None], TypeError, f"object {MISSING.format('pd.isna')}"),
    ([True, False], TypeError, "booleans: np.asarray(targets).astype(int) makes False class 0 and True class 1"),
    (np.array([1, 0], object), TypeError, "dtype object: np.asarray(targets).astype(int) would do"),
    (np.array([1, 0], "M8[D]"), TypeError, "dtype datetime64[D]"),
    (np.array([[1], [0]]), ValueError, "shape (2, 1): np.ravel(targets) would do"),
    ([[1.0], [0.0]], ValueError, "shape (2, 1): np.ravel(targets).astype(int) would do"),
    (pd.DataFrame({"class": [1, 0]}), ValueError, "shape (2, 1): np.ravel(targets) would do"),
    ([[1, 0]], ValueError, "shape (1, 2): np.ravel(targets) would do"),
    ([1, 0, 1, 1], ValueError, "shape (4,)"),
    (0, ValueError, "shape ()"),
    (np.eye(4)[:2], ValueError, "shape (2, 4)"),
    (A.astype(str), TypeError, "strings such as '2.0': .astype(float) would do"),
    (A.astype(complex), TypeError, "complex128"),
]  # fmt: skip


@pytest.mark.parametrize(("targets", "error", "found"), TARGETS, ids=[f"{i}" for i in range(len(TARGETS))])
def test_labels_that_are_no_indices(targets, error, found):
    for name, loss in LOSSES.items():
        assert message(error, loss, A, targets) == f"targets: expected {ACCEPTED}, got {found}", name


# What is no array of numbers, by any argument's name: a function of the name.
NO_ARRAYS = [
    (None, TypeError, "{name}: expected an array of numbers, got None"),
    ("cat", TypeError, "{name}: expected an array of numbers, got 'cat'"),
    ({"a": 1}, TypeError, "{name}: expected an array of numbers, got a dict: list({name}.values()) may do"),
    ({1, 2}, TypeError, "{name}: expected an array of numbers, got a set, which has no order"),
    (range, TypeError, "{name}: expected an array of numbers, got a type"),
    ((i for i in range(2)), TypeError, "{name}: expected an array of numbers, got a generator: list({name}) would do"),
    ([[0], [1, 2]], ValueError, ("{name}: expected an array, or lists of equal length, got lists of lengths 1, 2: pad "
     "them to one length, and leave the padding out by ignore_index or a sample_weight of 0")),
    (np.ma.array([1, 0], mask=[True, False]), TypeError, ("{name}: expected a dense array without a mask, got "
     "MaskedArray: rows that do not count are marked by ignore_index or a sample_weight of 0")),
    (scipy.sparse.csr_matrix(EYE), TypeError, ("{name}: expected a dense array without a mask, got csr_matrix (its "
     "toarray() is dense): rows that do not count are marked by ignore_index or a sample_weight of 0")),
    (scipy.sparse.coo_array(EYE), TypeError, ("{name}: expected a dense array without a mask, got coo_array (its "
     "toarray() is dense): rows that do not count are marked by ignore_index or a sample_weight of 0")),
]  # fmt: skip
OF_NAME = {
    "logits": lambda value: ce.cross_entropy(value, [1, 0]),
    "targets": lambda value: ce.cross_entropy(A, value),
    "sample_weight": lambda value: with_grad(A, [1, 0], sample_weight=value),
    "hidden": lambda value: ce.linear_cross_entropy(value, EYE, [1, 0]),
    "classifier": lambda value: ce.linear_cross_entropy(A, value, [1, 0]),
    "bias": lambda value: ce.linear_cross_entropy(A, EYE, [1, 0], bias=value),
    "v": lambda value: ce.softmax_vjp(A, value),
    "indices": lambda value: ce.log_prob(A, value),
}


@pytest.mark.parametrize("name", OF_NAME)
def test_what_is_no_array(name):
    for value, error, text in NO_ARRAYS:
        if not (value is None and name in ("sample_weight", "bias")):
            assert message(error, OF_NAME[name], value) == text.format(name=name)


def test_columns_of_pandas():
    assert ce.cross_entropy(A, pd.Series([1, 0], dtype="Int64")) == ce.cross_entropy(A, [1, 0])
    missing = message(TypeError, ce.cross_entropy, A, pd.Series([1, None], dtype="Int64"))
    assert "with missing values: rows without a class have the index -100 (ignore_index)" in missing
    assert "have the index 9 (" in message(TypeError, ce.cross_entropy, A, [np.nan, 1.0], ignore_index=9)
    expected = "logits: expected float16, bfloat16, float32, float64 or integers, got "
    frame = pd.DataFrame(A).astype(object)
    assert message(TypeError, ce.cross_entropy, frame, [1, 0]) == f"{expected}object: .astype(float) would do"
    frame.iloc[0, 1] = pd.NA
    assert message(TypeError, ce.cross_entropy, frame, [1, 0]) == (
        f"{expected}object with missing values, such as <NA>: fill them in, then .astype(float)"
    )
    frame.iloc[0, 1] = "x"
    assert message(TypeError, ce.cross_entropy, frame, [1, 0]) == f"{expected}strings such as 'x'"


def test_weights():
    assert message(TypeError, with_grad, A, [1, 0], class_weight="balanced") == (
        "class_weight: expected an array of numbers, got 'balanced': len(targets) / (C * np.bincount(targets, "
        "minlength=C)) is that, for C classes"
    )
    assert message(TypeError, with_grad, A, [1, 0], class_weight={0: 1.0}) == (
        "class_weight: expected an array of numbers, got a dict: [weights[c] for c in range(C)] would do, for C classes"
    )
    assert message(ValueError, with_grad, A, [1, 0], class_weight=[1, 1]) == (
        "class_weight: expected shape (3,), got (2,): one for each class is expected"
    )
    assert message(ValueError, with_grad, A, [1, 0], sample_weight=[[1], [1]]) == (
        "sample_weight: expected shape (2,), got (2, 1): np.reshape(sample_weight, (2,)) would do"
    )


class TestOneHot:
    @pytest.mark.parametrize("dtype", ["?", "i1", "u1", ">i2", "u4", "<i8", ">u8"])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_of_every_dtype_on_every_axis(self, dtype, axis, rng):
        z = rng.standard_normal((4, 5, 6))
        t = rng.integers(0, z.shape[axis], np.delete(z.shape, axis))
        one_hot = np.moveaxis(np.eye(z.shape[axis])[t], -1, axis).astype(dtype)
        right = ce.cross_entropy(z, t, axis=axis)
        for given in (one_hot, np.asfortranarray(one_hot), one_hot[::-1].copy()[::-1]):
            assert ce.cross_entropy(z, given, axis=axis) == pytest.approx(right, rel=1e-14)
            assert ce.cross_entropy(np.asfortranarray(z), given, axis=axis) == pytest.approx(right, rel=1e-14)
            at = [1, 2, 3]
            for value in (1, 0) if dtype == "?" else (1, 0, 2, 255 if dtype == "u1" else np.iinfo(dtype).min):
                wrong = given.copy()
                row = np.moveaxis(wrong, axis, -1)[tuple(np.delete(at, axis))]
                off = int(row.argmin())
                row[int(row.argmax()) if value != 1 else off] = value
                if (row == 1).sum() == 1 and (row == 0).sum() == row.size - 1:
                    continue
                row_number = np.ravel_multi_index(np.delete(at, axis), np.delete(z.shape, axis))
                text = message(ValueError, with_grad, z, wrong, axis=axis)
                assert f"targets: expected one-hot rows (one 1, else 0) for {wrong.dtype.newbyteorder('=')} of" in text
                assert f"got {row.tolist()} in row {row_number}: " in text

    @pytest.mark.parametrize("wrong", [[0, 1, 1], [0, 0, 0], [0, 2, 0], [2, -1, 0], [256, 1, 0], [-1, 1, 1]])
    def test_message(self, wrong):
        expected = (
            f"targets: expected one-hot rows (one 1, else 0) for int64 of the logits' shape, got {wrong} in row 1: for "
            "a 0 or 1 at each logit there is binary_cross_entropy; other distributions would do as .astype(float)"
        )
        for name, loss in LOSSES.items():
            assert message(ValueError, loss, A, [[0, 1, 0], wrong]) == expected, name
        assert np.isfinite(ce.cross_entropy(A, np.array([[0, 1, 0], wrong], float)))

    def test_decision_function(self):
        """One logit of each row, and its label: taken for one row of many classes once."""
        scores, labels = np.linspace(-3, 3, 20), np.arange(20) % 2
        for dtype in (int, bool, np.uint8):
            text = message(ValueError, ce.cross_entropy, scores, labels.astype(dtype))
            assert "20 in all] in row 0" in text
            assert "there is binary_cross_entropy" in text
        right = np.log1p(np.exp(np.where(labels == 1, -scores, scores))).mean()
        assert ce.binary_cross_entropy(scores, labels) == pytest.approx(right, rel=1e-13)
        text = message(IndexError, ce.cross_entropy, scores[:, None], labels)
        assert text.endswith("one class; for one logit that tells two classes apart there is binary_cross_entropy")

    def test_rows_that_do_not_count_may_hold_anything(self):
        t, s = np.array([[0, 1, 0], [3, 3, 3]]), [1.0, 0.0]
        loss, dlogits = ce.cross_entropy_with_grad(A, t, sample_weight=s)
        assert loss == ce.cross_entropy(A[:1], t[:1])
        assert (dlogits[1] == 0).all()
        assert ce.linear_cross_entropy(A, EYE, t, sample_weight=s) == loss
        assert ce.explain(A, t, sample_weight=s).loss == loss
        assert (ce.cross_entropy_hvp(A, t, A, sample_weight=s)[1] == 0).all()
        assert "in row 0" in message(ValueError, ce.cross_entropy, A, t[::-1], sample_weight=s)

    def test_nothing_else_is_held_to_it(self):
        for dtype in ("f2", "f4", "f8", ml_dtypes.bfloat16):
            assert np.isfinite(ce.cross_entropy(A, np.full((2, 3), 2).astype(dtype)))
        assert ce.cross_entropy(np.zeros((0, 3)), np.zeros((0, 3), int)) == 0
        assert np.isfinite(ce.cross_entropy(A, ce.TopKTargets([[0, 1], [1, 2]], [[1, 1], [3, 0]])))


# class indices of which some are out of range, and what is said of them
OUT_OF_RANGE = [
    ([3, 1], "3 in row 0: classes count from 0: did you mean [2, 0]?"),
    ([-100, 3], "3 in row 1: classes count from 0: did you mean [-100, 2]?"),
    ([-1, 1], "-1 in row 0: ignore_index=-1 leaves such rows out"),
    ([0, 255], "255 in row 1: ignore_index=255 leaves such rows out"),
    ([3, 0], "3 in row 0"),
    ([4, 1], "4 in row 0"),
]


@pytest.mark.parametrize(("targets", "found"), OUT_OF_RANGE)
@pytest.mark.parametrize("name", LOSSES)
def test_indices_out_of_range(name, targets, found):
    assert message(IndexError, LOSSES[name], A, targets) == f"targets: expected {INDICES}, got {found}"
    assert message(IndexError, ce.log_prob, A, targets) == f"indices: expected {INDICES}, got {found}"


def test_more_indices_out_of_range():
    z = np.zeros((50, 3))
    text = message(IndexError, ce.cross_entropy, z, np.arange(50) % 3 + 1)
    assert text.endswith("got 3 in row 2: classes count from 0: did you mean targets - 1?")
    text = message(IndexError, ce.cross_entropy, z[:, :2], np.where(np.arange(50) % 2, 1, -1))
    assert text.endswith("got -1 in row 0: did you mean (targets > 0).astype(int)?")
    text = message(IndexError, ce.cross_entropy, A, [-100, 1], ignore_index=None)
    assert text.endswith("got -100 in row 0: ignore_index=-100 leaves such rows out")
    text = message(IndexError, ce.log_prob, A, [[1, 3], [2, 1]])
    assert text.endswith("got 3 in row 0: classes count from 0: did you mean indices - 1?")


def test_axes():
    images, labels = np.zeros((2, 5, 8, 9)), np.zeros((2, 8, 9), int)
    assert message(ValueError, ce.cross_entropy, images, labels).endswith(
        "got shape (2, 8, 9): axis=1 would do, if the classes are there"
    )
    assert ce.cross_entropy(images, labels, axis=1) == pytest.approx(np.log(5))
    assert message(ValueError, ce.cross_entropy, A.T, [1, 0]).endswith("got shape (2,): axis=0 would do, if the "
                                                                       "classes are there")  # fmt: skip
    assert message(ValueError, ce.cross_entropy, [1, 0], A).endswith("shape (2, 3): logits come first, then targets")
    # The linear head has no axis to choose.
    assert message(ValueError, ce.linear_cross_entropy, images, np.ones((7, 9)), np.zeros((2, 8, 7), int)).endswith(
        "got shape (2, 8, 7)"
    )
    assert message(ValueError, ce.cross_entropy, images, labels[..., None], axis=1).endswith(
        "got shape (2, 8, 9, 1): np.reshape(targets, (2, 8, 9)) would do"
    )


class _Torch:
    """As torch's tensor is to NumPy; the real ones are in tests/torch and tests/jax."""

    __module__ = "torch"
    requires_grad = True

    def __array__(self, *_, **__):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.\nUse tensor.detach().numpy() instead.")


class _Tracer(_Torch):
    __module__ = "jax._src.interpreters.partial_eval"


class _Other(_Torch):
    __module__ = "other"


@pytest.mark.parametrize(
    ("of", "found"),
    [
        (_Torch, ("a torch.Tensor that requires a gradient: crossentropy.torch takes tensors; .detach().cpu() makes it "
         "an array")),
        (_Tracer, "a JAX tracer, whose values are not known yet: crossentropy.jax computes under jit and grad"),
        (_Other, "_Other: Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."),
    ],
)  # fmt: skip
def test_tensors_of_frameworks(of, found):
    for name in OF_NAME:
        assert message(TypeError, OF_NAME[name], of()) == f"{name}: expected an array, got {found}"
    if of is not _Other:
        assert message(TypeError, ce.cross_entropy, [of(), of()], [1, 0]) == f"logits: expected an array, got {found}"


FRAMEWORKS = """
import sys, numpy as np, crossentropy as ce
assert not {"torch", "jax"} & set(sys.modules)
name = sys.argv[1]
try:
    __import__(name)
except ModuleNotFoundError:
    sys.exit(77)
def of(loss):
    try:
        loss()
    except TypeError as error:
        print(error)
        assert "\\n" not in str(error)
if name == "torch":
    import torch
    z = torch.zeros(2, 3, requires_grad=True)
    for tensor in (z, torch.nn.Parameter(z), z.to("meta"), z.bfloat16()):
        of(lambda: ce.cross_entropy(tensor, [0, 1]))
else:
    import jax
    for dtype in ("float32", "bfloat16"):
        z = jax.numpy.zeros((2, 3), dtype)
        of(lambda: jax.jit(lambda z: ce.cross_entropy(z, [0, 1]))(z))
        of(lambda: jax.grad(lambda z: ce.cross_entropy(z, [0, 1]))(z))
"""


@pytest.mark.parametrize(("framework", "told"), [("torch", 4), ("jax", 4)])
def test_real_tensors(framework, told):
    done = subprocess.run([sys.executable, "-c", FRAMEWORKS, framework], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(f"{framework} is not installed")
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if f"crossentropy.{framework}" in line]) >= told


# a function, a name that it does not take, and what follows "unexpected keyword argument 'name': "
TWO_MODELS = "it has no meaning between two models; a row is left out by a sample_weight of 0"
KEYWORDS = [
    (ce.cross_entropy, "weight", "did you mean class_weight?"),
    (ce.cross_entropy, "class_weights", "did you mean class_weight?"),
    (ce.cross_entropy, "weights", "did you mean sample_weight or class_weight?"),
    (ce.cross_entropy, "reduce", "did you mean reduction?"),
    (ce.cross_entropy, "size_average", "did you mean reduction?"),
    (ce.cross_entropy, "labels", "did you mean targets?"),
    (ce.cross_entropy, "lables", "did you mean targets?"),
    (ce.cross_entropy, "y_true", "did you mean targets?"),
    (ce.cross_entropy, "target", "did you mean targets?"),
    (ce.cross_entropy, "y_pred", "did you mean logits?"),
    (ce.cross_entropy, "input", "did you mean logits?"),
    (ce.cross_entropy, "dim", "did you mean axis?"),
    (ce.cross_entropy, "from_logits", "logits are always expected; of probabilities p, np.log(p) are some"),
    (ce.cross_entropy_with_grad, "smoothing", "did you mean label_smoothing?"),
    (ce.cross_entropy_with_grad, "gradient_output", "did you mean grad_output?"),
    (ce.cross_entropy_hvp, "labels", "did you mean targets?"),
    (ce.cross_entropy_hessian_diagonal, "weight", "did you mean class_weight?"),
    (ce.cross_entropy_dtargets, "ignore_index", ("expected some of logits, targets, axis, class_weight, sample_weight, "
     "label_smoothing, softcap, temperature, reduction")),
    (ce.linear_cross_entropy, "weight", "did you mean class_weight or classifier?"),
    (ce.linear_cross_entropy_with_grad, "linear_weight", "did you mean classifier?"),
    (ce.linear_cross_entropy, "input", "did you mean hidden?"),
    (ce.CrossEntropyLoss, "weight", "did you mean class_weight?"),
    (ce.CrossEntropyLoss, "sample_weight", "it is data, which forward takes"),
    (ce.LinearCrossEntropyLoss, "reduce", "did you mean reduction?"),
    (ce.explain, "label", "did you mean targets?"),
    (ce.softmax, "dim", "did you mean axis?"),
    (ce.logsumexp, "keepdim", "did you mean keepdims?"),
    (ce.softmax, "weight", "expected some of logits, axis"),
    (ce.looks_like_probabilities, "dim", "did you mean axis?"),
    (ce.log_prob, "labels", "did you mean indices?"),
    (ce.linear_log_prob, "target", "did you mean indices?"),
    (ce.log_prob, "actions", "did you mean indices?"),
    (ce.log_prob, "entropy", "the function of this name with _and_entropy returns it too"),
    (ce.linear_log_prob_with_grad, "reduction", "each index has its log-probability; nothing is added up"),
    (ce.log_prob, "mask", ("an index that is ignore_index does not count; weigh the others afterwards, their gradients "
     "by grad_output or dlog_prob")),
    (ce.log_prob_and_entropy_vjp, "grad_output", "did you mean dlog_prob or dentropy?"),
    (ce.cross_entropy, "entropy_coef", "did you mean entropy_bonus?"),
    (ce.kl_divergence, "beta", "jensen_shannon has it"),
    (ce.jensen_shannon, "direction", "kl_divergence has it"),
    (ce.entropy, "ignore_index", "there are no targets; rows of sample_weight 0 do not count"),
    (ce.binary_cross_entropy, "weight", "sample_weight weighs elements, pos_weight class 1"),
    (ce.BinaryCrossEntropyLoss, "class_weight", "pos_weight is the weight of class 1"),
    (ce.kl_divergence, "class_weight", TWO_MODELS),
    (ce.linear_jensen_shannon, "label_smoothing", TWO_MODELS),
    (ce.kl_divergence, "teacher", "did you mean teacher_logits?"),
    (ce.set_num_threads, "threads", "did you mean num_threads?"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "name", "advice"), KEYWORDS)
def test_unknown_keywords(function, name, advice):
    expected = f"{function.__name__}() got an unexpected keyword argument {name!r}: {advice}"
    for given in ((), (A,)):
        if not isinstance(function, type) or not given:
            assert message(TypeError, function, *given, **{name: 1}) == expected


def test_unknown_keywords_of_methods():
    assert message(TypeError, ce.CrossEntropyLoss().forward, A, labels=[1, 0]) == (
        "CrossEntropyLoss.forward() got an unexpected keyword argument 'labels': did you mean targets?"
    )
    assert message(TypeError, ce.LinearCrossEntropyLoss(), A, EYE, labels=[1, 0]).endswith("did you mean targets?")


@pytest.mark.parametrize("name", [name for name in ce.__all__ if callable(getattr(ce, name))])
def test_every_function_teaches(name):
    """No public function leaves a wrong name to Python's own message."""
    function = getattr(ce, name)
    takes_none = {"get_num_threads", "show_config"}
    records = {"Explanation", "LinearGradients", "TopKTargets", "LinearDivergenceGradients", "DivergenceGradients"}
    if name not in takes_none | records:
        text = message(TypeError, function, nonsense=1)
        assert "() got an unexpected keyword argument 'nonsense': expected some of " in text


def test_what_is_missing():
    assert message(TypeError, ce.cross_entropy, A) == "targets: expected an array of numbers, got no argument"
    assert message(TypeError, ce.cross_entropy) == "logits: expected an array of numbers, got no argument"


class TestProbabilities:
    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ml_dtypes.bfloat16])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_of_a_softmax(self, dtype, axis, rng):
        z = (5 * rng.standard_normal((6, 7, 50))).astype(dtype)
        p = ce.softmax(z, axis=axis)
        assert ce.looks_like_probabilities(p, axis=axis) is True
        assert ce.looks_like_probabilities(np.asfortranarray(p), axis=axis) is True
        with np.errstate(divide="ignore"):
            log_p = np.log(p.astype(float))
        for other in (z, log_p, p + dtype_of(p, 1)):
            assert ce.looks_like_probabilities(other, axis=axis) is False
        for other in {0, 1, 2} - {axis}:
            assert ce.looks_like_probabilities(p, axis=other) is False
        p[3, 4, 5] = np.nan
        assert ce.looks_like_probabilities(p, axis=axis) is False

    def test_edges(self):
        assert ce.looks_like_probabilities(Y)
        assert ce.looks_like_probabilities([0.25, 0.75])
        assert not ce.looks_like_probabilities([[1.0], [1.0]])  # the loss of one class is 0
        assert not ce.looks_like_probabilities(np.zeros((0, 3)))
        assert not ce.looks_like_probabilities([[0.5, 0.5], [1.5, -0.5]])
        assert not ce.looks_like_probabilities([[0.5, 0.5], [0.5, 0.502]])
        assert ce.looks_like_probabilities([[0.5, 0.5], [0.5, 0.5005]])
        assert not ce.looks_like_probabilities([[np.inf, 0.0]])

    def test_explain_refuses_them(self):
        text = message(ValueError, ce.explain, ce.softmax(A), [1, 0])
        assert "np.log(probabilities)" in text
        assert ce.cross_entropy(np.log(ce.softmax(A)), [1, 0]) == pytest.approx(ce.cross_entropy(A, [1, 0]), rel=1e-14)


def dtype_of(array, number):
    return np.asarray(number, array.dtype)


@pytest.fixture
def files(tmp_path):
    arrays = {
        "logits": np.tile(A, (3, 1)),
        "images": np.zeros((2, 5, 8, 9)),
        "labels": np.zeros((2, 8, 9), int),
        "from_one": np.tile([3, 1], 3),
        "void": np.tile([0, 255], 3),
        "floats": np.tile([1.0, 0.0], 3),
        "booleans": np.tile([True, False], 3),
        "columns": np.tile([[1], [0]], (3, 1)),
        "names": np.tile(["cat", "dog"], 3),
        "many": np.array([[0, 1, 0]] * 5 + [[0, 1, 1]]),
        "scores": np.linspace(-1, 1, 6),
        "binary": np.arange(6) % 2,
        "probabilities": ce.softmax(np.tile(A, (3, 1))),
        "good": np.tile([1, 0], 3),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path


COMMANDS = [
    ("logits from_one", "classes count from 0: did you mean targets - 1?"),
    ("logits void", "got 255 in row 1: ignore_index=255 leaves such rows out"),
    ("logits floats", "got dtype float64: np.asarray(targets).astype(int) would do"),
    ("logits booleans", "got booleans: np.asarray(targets).astype(int) makes False class 0 and True class 1"),
    ("logits columns", "got shape (6, 1): np.ravel(targets) would do"),
    ("logits names", "got dtype <U3: np.unique(labels, return_inverse=True)[1] numbers the classes, in their order"),
    ("logits many", ("got [0, 1, 1] in row 5: for a 0 or 1 at each logit there is binary_cross_entropy; other "
     "distributions would do as .astype(float)")),
    ("scores binary", ("got [0, 1, 0, 1, 0, 1] in row 0: for a 0 or 1 at each logit there is binary_cross_entropy; "
     "other distributions would do as .astype(float)")),
    ("images labels", "got shape (2, 8, 9): axis=1 would do, if the classes are there"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "found"), COMMANDS)
def test_commands(names, found, files):
    logits, targets = (f"{name}.npy" for name in names.split())
    program = Path(sys.executable).with_name("crossentropy")

    def told(*arguments):
        done = subprocess.run([program, *arguments], cwd=files, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        return line

    line = told("eval", logits, targets, "--per-row", "losses.npy", "--grad", "dlogits.npy")
    assert line.startswith(f"crossentropy: {targets}: ")
    assert line.endswith(found)
    assert not list(files.glob("losses*")) + list(files.glob("dlogits*"))
    if names not in ("images labels", "scores binary", "logits columns"):  # explain takes a column of indices
        line = told("explain", "--logits", logits, "--targets", targets)
        assert line.endswith(found if "from_one" not in names else "did you mean [2, 0, 2, 0, 2, 0]?")


def test_commands_tell_probabilities(files):
    program = Path(sys.executable).with_name("crossentropy")
    call = {"cwd": files, "capture_output": True, "text": True}
    done = subprocess.run([program, "eval", "probabilities.npy", "good.npy"], **call)
    assert done.returncode == 0
    assert "every row looks like probabilities" in done.stderr
    assert "np.log" in done.stderr
    done = subprocess.run([program, "explain", "--logits", "probabilities.npy", "--targets", "good.npy"], **call)
    assert done.returncode == 2
    assert "np.log(probabilities)" in done.stderr


def test_integers_of_the_binary_loss():
    scores = np.array([1.0, -2.0, 0.5])

    def told(labels, **options):
        out = np.full(3, 7.0)
        text = message(ValueError, ce.binary_cross_entropy_with_grad, scores, labels, out=out, **options)
        assert (out == 7).all()
        start = "targets: expected 0 and 1 as int64, got "
        assert text.startswith(start)
        return text.removeprefix(start)

    assert told([-1, 1, -1]) == "-1 at element 0: did you mean (targets > 0).astype(int)?"
    assert told([1, 2, 1]) == "2 at element 1: did you mean targets - 1?"
    assert told([0, 1, -1]) == "-1 at element 2: sample_weight=(targets != -1) leaves such elements out"
    assert told([0, 5, 3]) == (
        "5 at element 1: class indices are for cross_entropy; numbers beyond 0 and 1 would do as .astype(float)"
    )
    assert told([0, 5, -1], sample_weight=[1, 1, 0]).startswith("5 at element 1: ")
    labels = np.array([0, 1, -1])
    counted = ce.binary_cross_entropy(scores, labels, sample_weight=labels != -1)
    assert counted == pytest.approx(ce.binary_cross_entropy(scores[:2], labels[:2]), rel=1e-15)
    assert np.isfinite(ce.binary_cross_entropy(scores, [0.0, 5.0, -1.0]))
    assert message(ValueError, ce.binary_cross_entropy, scores, [[0], [1], [1]]) == (
        "targets: expected the shape of the logits, (3,), got (3, 1): np.reshape(targets, (3,)) would do"
    )
    for dtype in ("i1", ">i4", "u8"):
        assert "got 2 at element 1" in message(ValueError, ce.binary_cross_entropy, scores, np.array([0, 2, 1], dtype))


def test_shapes_and_order():
    def told(error, call, *args, **options):
        return message(error, call, *args, **options).rpartition("got ")[2]

    assert told(ValueError, ce.cross_entropy, A, Y.T) == "shape (3, 2): np.transpose(targets) would do"
    sequences = np.zeros((2, 7, 5))
    assert told(ValueError, ce.cross_entropy, sequences, np.zeros((2, 6), int)) == (
        "shape (2, 6), one position fewer: logits[..., :-1, :] would do, if those are what came before the targets"
    )
    assert told(ValueError, ce.linear_cross_entropy, np.ones((4, 8)), np.ones((8, 3)), [0, 1, 2, 0]) == (
        "(8, 3): np.transpose(classifier) would do"
    )
    assert told(TypeError, ce.cross_entropy, A, ce.TopKTargets([[0.7], [0.2]], [[0], [1]])) == (
        "float64: indices come first, then probabilities"
    )
    assert told(TypeError, ce.cross_entropy_dtargets, A, [1, 0]) == "class indices: np.eye(C)[targets] would do"
    assert message(TypeError, ce.softmax, A, 1) == (
        "softmax() takes 1 positional argument but 2 were given: what follows has a name, as in axis="
    )
    assert told(TypeError, ce.cross_entropy, [[1, "x"], [2, "3"]], [1, 0]) == "strings such as 'x'"
