"""Types of the public functions: what mypy infers (`make lint`), and the same of what they return when they run.

A line that mypy must refuse says so: an `ignore` that nothing needs is an error.
"""

import re
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import numpy as np
import numpy.typing as npt
import pytest

import crossentropy as ce
from crossentropy._explain._check import Check
from crossentropy._explain._derivation import Derivation
from crossentropy._explain._lesson import Lesson
from crossentropy._explain._pitfalls import Pitfall, Pitfalls
from crossentropy._options import LossOptions, Reduction

if TYPE_CHECKING:
    from typing import assert_type
else:

    def assert_type(value, expected):
        assert conforms(value, expected), f"expected {expected}, got {value!r}"
        return value


Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

A, T, Q = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]), np.array([0, 2]), np.full((2, 3), 1 / 3)
H, W = np.array([[1.0, 0.5], [-1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def conforms(value: Any, expected: Any) -> bool:
    """Whether a value is of a type as annotations write it."""
    origin, inner = get_origin(expected), get_args(expected)
    if origin is UnionType:
        return any(conforms(value, one) for one in inner)
    if not isinstance(value, origin or expected):
        return False
    if origin is list or (origin is tuple and inner[-1] is ...):
        return all(conforms(item, inner[0]) for item in value)
    if origin is tuple:
        return len(value) == len(inner) and all(map(conforms, value, inner))
    return True


def reductions() -> tuple[Reduction, ...]:
    return ("mean", "sum", "none")


def test_every_public_name_has_a_type_here() -> None:
    texts = [path.read_text() for path in Path(__file__).parent.glob("*.py")]
    assert set(re.findall(r"\bce\.(\w+)", "".join(texts))) >= set(ce.__all__)


def test_cross_entropy() -> None:
    assert_type(ce.cross_entropy(A, T), float)
    assert_type(ce.cross_entropy(A, T, reduction="mean"), float)
    assert_type(ce.cross_entropy(A, T, reduction="sum"), float)
    assert_type(ce.cross_entropy(A, T, reduction="none"), Array)
    for reduction in reductions():
        assert_type(ce.cross_entropy(A, T, reduction=reduction), float | Array)
    # What is array-like, and every option.
    assert_type(ce.cross_entropy([[2, 1], [0, 1]], [(True, False), (False, True)]), float)
    assert_type(ce.cross_entropy(A.astype(np.float16), ce.TopKTargets([[0], [1]], Q[:, :1])), float)
    assert_type(
        ce.cross_entropy(
            A.T,
            T,
            axis=0,
            class_weight=[1, 2.0, 1],
            sample_weight=np.ones(2, np.float32),
            ignore_index=None,
            label_smoothing=0.1,
            z_loss=1e-4,
            softcap=30,
            temperature=2,
            reduction="none",
            num_threads=1,
        ),
        Array,
    )
    assert_type(ce.cross_entropy(A, T, class_weight=None, sample_weight=None, softcap=None, num_threads=None), float)


def test_cross_entropy_with_grad() -> None:
    assert_type(ce.cross_entropy_with_grad(A, T), tuple[float, Array])
    assert_type(ce.cross_entropy_with_grad(A, T, reduction="mean"), tuple[float, Array])
    assert_type(ce.cross_entropy_with_grad(A, T, reduction="sum", out=A.copy()), tuple[float, Array])
    assert_type(ce.cross_entropy_with_grad(A, T, reduction="none", grad_output=[1, 0.5]), tuple[Array, Array])
    for reduction in reductions():
        assert_type(ce.cross_entropy_with_grad(A, T, reduction=reduction), tuple[float, Array] | tuple[Array, Array])


def test_binary_cross_entropy() -> None:
    assert_type(ce.binary_cross_entropy(A, Q), float)
    assert_type(ce.binary_cross_entropy(2, True), float)
    assert_type(ce.binary_cross_entropy(A, Q, reduction="mean", pos_weight=[1, 2, 0.5], sample_weight=2), float)
    assert_type(
        ce.binary_cross_entropy(
            A, Q, reduction="none", pos_weight=2, label_smoothing=0.1, focal_gamma=2, sample_weight=None, num_threads=1
        ),
        Array,
    )
    for reduction in reductions():
        assert_type(ce.binary_cross_entropy(A, Q, reduction=reduction), float | Array)
        assert_type(
            ce.binary_cross_entropy_with_grad(A, Q, reduction=reduction), tuple[float, Array] | tuple[Array, Array]
        )
    assert_type(ce.binary_cross_entropy_with_grad(A, Q), tuple[float, Array])
    assert_type(ce.binary_cross_entropy_with_grad(A, Q, reduction="sum", out=A.copy()), tuple[float, Array])
    assert_type(ce.binary_cross_entropy_with_grad(A, Q, reduction="none", grad_output=Q), tuple[Array, Array])


def test_linear_cross_entropy() -> None:
    assert_type(ce.linear_cross_entropy(H, W, T), float)
    assert_type(ce.linear_cross_entropy(H, W, T, reduction="mean"), float)
    assert_type(ce.linear_cross_entropy(H, W, T, reduction="sum", bias=[0, 0, 0.5], max_logits_bytes=1 << 20), float)
    assert_type(ce.linear_cross_entropy(H, W, T, reduction="none"), Array)
    for reduction in reductions():
        assert_type(ce.linear_cross_entropy(H, W, T, reduction=reduction), float | Array)


def test_linear_cross_entropy_with_grad() -> None:
    assert_type(ce.linear_cross_entropy_with_grad(H, W, T), tuple[float, ce.LinearGradients])
    assert_type(ce.linear_cross_entropy_with_grad(H, W, T, reduction="mean"), tuple[float, ce.LinearGradients])
    assert_type(
        ce.linear_cross_entropy_with_grad(H, W, T, reduction="sum", wrt=["bias"]), tuple[float, ce.LinearGradients]
    )
    loss, gradients = ce.linear_cross_entropy_with_grad(H, W, T, reduction="none")
    assert_type(loss, Array)
    assert_type(gradients, ce.LinearGradients)
    assert_type(gradients.hidden, Array | None)
    assert_type(gradients.classifier, Array | None)
    assert_type(gradients.bias, Array | None)
    out = ce.LinearGradients(hidden=np.empty_like(H))
    for reduction in reductions():
        assert_type(
            ce.linear_cross_entropy_with_grad(H, W, T, reduction=reduction, out=out, wrt=("hidden",)),
            tuple[float, ce.LinearGradients] | tuple[Array, ce.LinearGradients],
        )


def test_derivatives() -> None:
    for reduction in reductions():
        assert_type(ce.cross_entropy_hvp(A, T, A, reduction=reduction), Array)
        assert_type(ce.cross_entropy_dtargets(A, Q, reduction=reduction), Array)
        assert_type(
            ce.cross_entropy_hessian_diagonal(A, T, reduction=reduction),
            tuple[float, Array, Array] | tuple[Array, Array, Array],
        )
    assert_type(ce.cross_entropy_hessian_diagonal(A, T), tuple[float, Array, Array])
    assert_type(ce.cross_entropy_hessian_diagonal(A, T, reduction="mean"), tuple[float, Array, Array])
    assert_type(ce.cross_entropy_hessian_diagonal(A, T, reduction="sum", axis=-1), tuple[float, Array, Array])
    assert_type(ce.cross_entropy_hessian_diagonal(A, T, reduction="none"), tuple[Array, Array, Array])


def test_softmax_family() -> None:
    assert_type(ce.softmax(A, axis=0), Array)
    assert_type(ce.log_softmax([[1, 2.0]]), Array)
    assert_type(ce.logsumexp(A, axis=0, keepdims=True), Array)
    assert_type(ce.softmax_jacobian(A), Array)
    assert_type(ce.softmax_vjp(A, A, axis=0), Array)
    assert_type(ce.softmax_jvp(A, A, axis=0), Array)


def test_a_single_row() -> None:
    """NumPy's scalars, which type checkers take for arrays."""
    for value in (
        ce.cross_entropy(A[0], 1, reduction="none"),
        ce.linear_cross_entropy(H[0], W, 1, reduction="none"),
        ce.logsumexp(A[0]),
    ):
        assert isinstance(value, np.float64)


def test_modules() -> None:
    criterion = assert_type(ce.CrossEntropyLoss(label_smoothing=0.1, softcap=30), ce.CrossEntropyLoss)
    assert_type(criterion(A, T), float | Array)
    assert_type(criterion.forward(A, T, sample_weight=[1, 2]), float | Array)
    assert_type(criterion.backward(), Array)
    assert_type(criterion.softmax, Array)
    binary = assert_type(ce.BinaryCrossEntropyLoss(pos_weight=2, reduction="none"), ce.BinaryCrossEntropyLoss)
    assert_type(binary(A, Q, sample_weight=[1, 2, 3]), float | Array)
    assert_type(binary.backward(Q), Array)
    head = assert_type(ce.LinearCrossEntropyLoss(reduction="none"), ce.LinearCrossEntropyLoss)
    assert_type(head(H, W, T), float | Array)
    assert_type(head.forward(H, W, T, bias=[0, 1, 2], sample_weight=[1, 2]), float | Array)
    assert_type(head.backward([1, 0.5]), ce.LinearGradients)


def test_top_k_targets() -> None:
    targets = assert_type(ce.TopKTargets([[1, 0]], [[0.7, 0.2]], renormalize=True), ce.TopKTargets)
    assert_type(targets.renormalize, bool)


def test_explain(tmp_path: Path) -> None:
    explanation = assert_type(ce.explain(A, T, ["a", "b", "c"], reduction="none"), ce.Explanation)
    assert_type(explanation.names, tuple[str, ...])
    assert_type(explanation.shown, tuple[int, ...])
    assert_type(explanation.options, LossOptions)
    assert_type(explanation.logits, Array)
    assert_type(explanation.targets, Array | None)
    assert_type(explanation.mean, float)
    assert_type(explanation.loss, float | Array)
    assert_type(explanation.folded, int)
    assert_type(explanation.derivation(row=1, target_class=0), Derivation)
    assert_type(explanation.derivation().ratio, Array)
    assert_type(explanation.check(), Check)
    assert_type(explanation.check().largest, float)
    assert_type(explanation.pitfalls(), Pitfalls)
    assert_type(list(explanation.pitfalls()), list[Pitfall])
    assert_type(ce.explain([[1000.0, 0]], [0]).pitfalls()[0].marks, tuple[str, ...])
    assert_type(explanation.lesson(derivation=True, check=True, pitfalls=True), Lesson)
    assert_type(explanation.to_tex(), str)
    assert_type(explanation.to_dict(), dict[str, Any])
    explanation.plot(tmp_path / "a.png", row=1).suptitle("")
    explanation.plot(str(tmp_path / "a.svg"))


def test_reference() -> None:
    for reduction in reductions():
        loss, dlogits = ce.reference.cross_entropy_with_grad(A, T, reduction=reduction)
        assert_type(loss, float | Float64)
        assert_type(dlogits, Float64)


def test_settings() -> None:
    assert_type(ce.get_num_threads(), int)
    ce.set_num_threads(ce.get_num_threads())
    ce.set_kept_memory(1 << 30)
    ce.set_kept_memory(None)
    ce.show_config()
    assert_type(ce.__version__, str)


def test_wrong_calls() -> None:
    """What mypy refuses is an error when it runs, too."""
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.cross_entropy(A, T, reduction="max")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.cross_entropy_with_grad(A, T, reduction="max")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.linear_cross_entropy(H, W, T, reduction="max")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.linear_cross_entropy_with_grad(H, W, T, reduction="max")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.cross_entropy_hessian_diagonal(A, T, reduction="max")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.cross_entropy_hvp(A, T, A, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.cross_entropy_dtargets(A, Q, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.binary_cross_entropy(A, Q, reduction="max")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.BinaryCrossEntropyLoss(reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.CrossEntropyLoss(reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.LinearCrossEntropyLoss(reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction: expected"):
        ce.explain(A, T, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="positional"):
        ce.cross_entropy(A, T, -1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight'"):
        ce.cross_entropy(A, T, weight=[1, 1, 1])  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unexpected keyword argument 'out'"):
        ce.cross_entropy(A, T, out=A)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="label_smoothing: expected"):
        ce.cross_entropy(A, T, label_smoothing=None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="axis: expected"):
        ce.cross_entropy(A, T, axis=(0, 1))  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="out: expected"):
        ce.cross_entropy_with_grad(A, T, out=[[0.0] * 3] * 2)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="wrt: expected"):
        ce.linear_cross_entropy_with_grad(H, W, T, wrt=["weight"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_threads'"):
        ce.cross_entropy_hessian_diagonal(A, T, num_threads=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unexpected keyword argument 'z_loss'"):
        ce.cross_entropy_dtargets(A, Q, z_loss=0.1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        ce.softmax(A, 0)  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="cannot assign"):
        ce.TopKTargets([[0]], [[1.0]]).renormalize = True  # type: ignore[misc]


def test_a_reduction_of_any_words() -> None:
    """It may be right, but a type checker cannot know which type comes back."""
    words: str = "sum"
    ce.cross_entropy(A, T, reduction=words)  # type: ignore[call-overload]
    ce.cross_entropy_with_grad(A, T, reduction=words)  # type: ignore[call-overload]
