"""Hostile tensors: the right values, or an error, never a crash or a wrong number."""

import copy
import math
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest

import crossentropy as ce
from crossentropy._options import LossOptions

torch = pytest.importorskip("torch")
ct = pytest.importorskip("crossentropy.torch")
F = torch.nn.functional
operators = torch.ops.crossentropy
crossentropy_linear = pytest.importorskip("crossentropy.torch._linear")

Z = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.2, 0.1], [3.0, -1.0, 2.0], [0.0, 4.0, -4.0]], dtype=torch.float64)
T = torch.tensor([0, 1, 2, 0])
P = torch.softmax(Z.flip(0), 1)
W = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
S = torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=torch.float64)
OPTIONS = (-100, LossOptions().numbers)  # of an operator


def negated(tensor):
    """The same values, their sign a bit that reads as a minus."""
    lazy = torch.complex(torch.zeros_like(tensor), -tensor.detach()).conj().imag
    assert lazy.is_neg()
    return lazy.requires_grad_(tensor.requires_grad)


def head(h, t, **options):
    return ct.linear_cross_entropy(h, H, t, **options)


H = torch.tensor([[1.0, 0.5, -1.0], [0.2, -0.3, 2.0], [0.7, 0.1, 0.4]], dtype=torch.float64)
LOSSES = pytest.mark.parametrize(
    ("loss", "of_torch"),
    [(ct.cross_entropy, F.cross_entropy), (head, lambda h, t, **options: F.cross_entropy(h @ H.t(), t, **options))],
    ids=["loss", "head"],
)

PRELUDE = """
import torch
import crossentropy.torch as ct
torch.set_num_threads(1)

def tensors():
    z = torch.randn(64, 3)
    return {"input": z, "target": torch.zeros(64, dtype=torch.long), "weight": torch.ones(3), "sample_weight":
            torch.ones(64), "classifier": torch.randn(3, 3), "bias": torch.randn(3)}

def loss(input, target, weight, sample_weight, classifier, bias, **options):
    return ct.cross_entropy(input, target, weight, sample_weight=sample_weight, **options)

def head(input, target, weight, sample_weight, classifier, bias, **options):
    return ct.linear_cross_entropy(
        input, classifier, target, linear_bias=bias, weight=weight, sample_weight=sample_weight, **options)

def operator(input, target, weight, sample_weight, classifier, bias):
    return torch.ops.crossentropy.row_losses(input, target, weight, sample_weight, -100, [0.0, 0.0, float("inf"), 1.0])

def raises(name, call):
    try:
        call()
    except (RuntimeError, ValueError):
        pass
    else:
        print(name)  # nothing was raised

def resized(tensor, bytes):
    tensor.untyped_storage().resize_(bytes)
    return tensor
"""


def test_memory_that_does_not_hold_a_tensor(alone):
    script = """
for bytes in (0, 8):
    for function in (loss, head, operator):
        for name in tensors():
            if name in ("classifier", "bias") and function is not head:
                continue
            given = tensors()
            resized(given[name], bytes)
            raises((name, bytes, function.__name__), lambda: function(**given))
    for name in ("target", "input"):  # probabilities; logits with gaps between them
        for function in (loss, operator):
            given = {**tensors(), "target": torch.rand(64, 3)}
            if name == "input":
                given["input"] = torch.rand(64, 6)[:, ::2]
            resized(given[name], bytes)
            raises(("strided", name, bytes, function.__name__), lambda: function(**given))
    given = tensors()
    given["target"] = resized(given["target"].byte(), bytes)
    raises(("uint8", bytes), lambda: loss(**given))
    given = tensors()
    items = resized(torch.ones((), dtype=torch.double), bytes // 2)
    raises(("num_items", bytes), lambda: loss(**given, num_items=items))

z, t = tensors()["input"].requires_grad_(), tensors()["target"]
(gradient,) = torch.autograd.grad(ct.cross_entropy(z, t), z, create_graph=True)
resized(z, 0)
raises("twice differentiated", lambda: gradient.sum().backward())

for function in (loss, head):
    for reduction in ("mean", "none"):
        given = tensors()
        hidden = given["input"].requires_grad_()
        value = function(**given, reduction=reduction)
        resized(hidden, 0)
        if reduction == "none" or function is loss:
            raises(("freed before backward", function.__name__), lambda: value.backward(torch.full_like(value, 2.0)))
    for name in ("input", "target", "weight", "sample_weight"):  # composed of torch's operators
        given = tensors()
        resized(given[name], 0)
        given["weight"].requires_grad_()
        raises(("weight requires a gradient", name, function.__name__), lambda: function(**given))
    given = {**tensors(), "target": torch.rand(64, 3, requires_grad=True)}
    resized(given["input"], 0)
    raises(("target requires a gradient", function.__name__), lambda: function(**given))
    given = tensors()
    given["input"].requires_grad_()
    value = function(**given, reduction="none")
    raises(("grad_output", function.__name__), lambda: value.backward(resized(torch.ones(64), 8)))
"""
    assert alone(PRELUDE + script) == ""


def test_memory_larger_than_a_tensor_is_right():
    storage = torch.randn(40, dtype=torch.float64)
    for first, strides in ((5, (3, 1)), (7, (8, 2)), (0, (0, 1)), (3, (1, 4)), (39, (0, 0))):
        z = storage.as_strided((4, 3), strides, first)
        torch.testing.assert_close(ct.cross_entropy(z, T), F.cross_entropy(z.clone(), T))
        t = storage.to(torch.long).zero_().as_strided((4,), (strides[0],), first)
        torch.testing.assert_close(ct.cross_entropy(Z, t), F.cross_entropy(Z, t.clone()))


def test_zero_tensors_are_zeros(alone):
    script = """
import torch.nn.functional as F
zero, z, t = torch._efficientzerotensor, torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
same = torch.testing.assert_close
same(ct.cross_entropy(zero(4, 3), t), F.cross_entropy(torch.zeros(4, 3), t))
same(ct.cross_entropy(z, zero(4, dtype=torch.long)), F.cross_entropy(z, torch.zeros(4, dtype=torch.long)))
same(ct.linear_cross_entropy(z, zero(5, 3), t), F.cross_entropy(torch.zeros(4, 5), t))
assert not ct.cross_entropy(z, zero(4, 3)) and not ct.cross_entropy(z, t, zero(3))
for reduction in ("none", "mean"):
    lazy, plain = zero(4, 3).requires_grad_(), torch.zeros(4, 3, requires_grad=True)
    ct.cross_entropy(lazy, t, reduction=reduction).sum().backward()
    F.cross_entropy(plain, t, reduction=reduction).sum().backward()
    same(lazy.grad, plain.grad)
    (nothing,) = torch.autograd.grad(value := ct.cross_entropy(plain, t, reduction=reduction), plain, zero(value.shape))
    assert not nothing.any()
"""
    assert alone(PRELUDE + script) == ""


def test_hooks_that_hand_back_other_tensors(alone):
    script = """
def first(t): return t[:1] if t.dim() else t
def other(t): return t.double() if t.dtype is torch.float32 else t.int() if t.dtype is torch.int64 else t
def meta(t): return t.to("meta")
def shifted(t): return torch.ones(t.shape) if t.dtype is torch.int64 and t.dim() == 1 else t
def freed(t): return resized(t.clone(), 0)
kinds = [{"upstream": 2.0}, {"upstream": 2.0, "create_graph": True}, {"upstream": 1.0, "reduction": "none"}]
for function in (loss, head):
    for unpack in (first, other, meta, shifted, freed):
        for kind in kinds:
            if unpack is freed and function is head and "reduction" not in kind:
                continue  # nothing is read, or torch's own operators read it
            def attempt(upstream, reduction="mean", create_graph=False):
                given = tensors()
                given["input"].requires_grad_()
                with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
                    value = function(**given, reduction=reduction)
                value.backward(torch.full_like(value, upstream), create_graph=create_graph)
            raises((function.__name__, unpack.__name__, *kind.items()), lambda: attempt(**kind))
"""
    assert alone(PRELUDE + script) == ""


@pytest.mark.parametrize("reduction", ["mean", "none"])
@LOSSES
def test_hooks_that_hand_back_the_same_values(loss, of_torch, reduction):
    def upstream(value):
        return torch.full_like(value, 3.0)

    for unpack in (torch.clone, lambda t: negated(t) if t.is_floating_point() else t, lambda t: t.mT.clone().mT):
        z, expected = Z.clone().requires_grad_(), Z.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: t, lambda t, unpack=unpack: unpack(t) if t.dim() > 1 else t
        ):
            value = loss(z, T, reduction=reduction)
        value.backward(upstream(value))
        of_torch(expected, T, reduction=reduction).backward(upstream(value))
        torch.testing.assert_close(z.grad, expected.grad)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@LOSSES
def test_lazy_signs_are_read(loss, of_torch, reduction):
    for target, weight in ((T, W), (P, W), (negated(P), negated(W)), (T, negated(W))):
        for lazy in (Z.clone().requires_grad_(), negated(Z).requires_grad_()):
            plain = Z.clone().requires_grad_()
            value = loss(lazy, target, weight=weight, sample_weight=negated(S), reduction=reduction)
            rows = of_torch(plain, target, weight=weight, reduction="none") * S
            counted = (W[T] * S if target.shape == T.shape else S).sum()
            expected = rows if reduction == "none" else rows.sum() / counted
            torch.testing.assert_close(value, expected)
            upstream = torch.full_like(expected, 2.0)
            value.backward(negated(upstream))
            expected.backward(upstream)
            torch.testing.assert_close(lazy.grad, plain.grad)


def test_lazy_signs_of_a_head(monkeypatch):
    for numpy_multiplies in (False, True):
        monkeypatch.setattr("crossentropy.torch._linear._numpy_multiplies", lambda _, which=numpy_multiplies: which)
        tensors = [negated(Z).requires_grad_(), negated(H).requires_grad_(), negated(W).requires_grad_()]
        loss = ct.linear_cross_entropy(tensors[0], tensors[1], T, linear_bias=tensors[2])
        plain = [tensor.detach().clone().requires_grad_() for tensor in (Z, H, W)]
        expected = F.cross_entropy(F.linear(*plain), T)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, tensors), torch.autograd.grad(expected, plain))


BAD = {
    "a target too few": {"target": T[:3]},
    "a wrong shape of probabilities": {"target": P[:, :2]},
    "integer probabilities": {"target": P.long()},
    "int32 indices": {"target": T.int()},
    "a class weight too few": {"weight": W[:2]},
    "complex class weights": {"weight": torch.complex(W, W)},
    "boolean class weights": {"weight": W > 0},
    "a sample weight too few": {"sample_weight": S[:3]},
    "complex sample weights": {"sample_weight": torch.complex(S, S)},
    "integer logits": {"input": Z.long()},
    "complex logits": {"input": torch.complex(Z, Z)},
    "no classes": {"input": Z[:, :0], "weight": W[:0]},
    "no axis": {"input": Z[0, 0], "target": T[0], "sample_weight": S[0]},
    "an upstream gradient too few": {"grad_output": S[:3]},
    "a complex upstream gradient": {"grad_output": torch.complex(S, S)},
}


@pytest.mark.parametrize("wrong", BAD.values(), ids=BAD)
def test_operators_check(wrong):
    given = {"input": Z, "target": T, "weight": W, "sample_weight": S, "grad_output": S.clone()} | wrong
    for device in ("cpu", "meta"):
        z, target, weight, sample_weight, grad_output = (tensor.to(device) for tensor in given.values())
        if "grad_output" not in wrong:
            with pytest.raises(ValueError, match="expected"):
                operators.row_losses(z, target, weight, sample_weight, *OPTIONS)
        with pytest.raises(ValueError, match="expected"):
            operators.row_gradient(z, target, grad_output, weight, sample_weight, *OPTIONS)


def test_operators_check_devices():
    given = {"input": Z, "target": T, "weight": W, "sample_weight": S}
    for name, tensor in given.items():
        with pytest.raises(RuntimeError, match="expected all tensors on"):
            operators.row_losses(*(given | {name: tensor.to("meta")}).values(), *OPTIONS)
    with pytest.raises(RuntimeError, match="expected all tensors on"):
        operators.row_gradient(Z, T, S.to("meta"), W, S, *OPTIONS)
    with pytest.raises(NotImplementedError):
        operators.row_losses(Z.to_sparse(), T, W, S, *OPTIONS)


@pytest.mark.parametrize("target", [T, P.clone().requires_grad_()], ids=["indices", "probabilities"])
def test_operators_are_sound(target):
    z, s = Z.clone().requires_grad_(), S.clone().requires_grad_()
    torch.library.opcheck(operators.row_losses.default, (z, target, W, S, *OPTIONS))
    torch.library.opcheck(operators.row_gradient.default, (z, target, s, W, S, *OPTIONS))


@pytest.mark.parametrize("path", ["core", "weights that require gradients"])
@LOSSES
def test_weights_out_of_range(loss, of_torch, path):
    grads = path != "core"
    for name, weights in (("weight", W), ("sample_weight", S)):
        for value in (1e-101, 1e101, math.inf, -math.inf, math.nan, -1e-101, -1e101):
            bad = weights.clone()
            bad[1] = value
            with pytest.raises(
                ValueError,
                match=rf"^{name}: expected finite weights.* in \[1e-100, 1e100\], got {re.escape(str(value))}$",
            ):
                loss(Z, T, **{name: bad.requires_grad_(grads)})
        good = weights.clone()
        good[:2] = torch.tensor([-1e-100, 0.0])
        assert loss(Z, T, **{name: good.requires_grad_(grads)}).isfinite()
    weight = torch.tensor([-0.5, 2.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(
        loss(Z, T, weight=weight, reduction="sum"), of_torch(Z, T, weight=weight, reduction="sum")
    )


def test_class_weights_that_torch_refuses():
    for weight in (W > 1, torch.complex(W, W)):
        with pytest.raises(RuntimeError) as of_torch:
            F.cross_entropy(Z, T, weight)
        for call in (lambda w=weight: ct.cross_entropy(Z, T, w), lambda w=weight: head(Z, T, weight=w)):
            with pytest.raises(RuntimeError) as ours:
                call()
            assert str(ours.value) == str(of_torch.value)
    torch.testing.assert_close(ct.cross_entropy(Z, P, W > 1), F.cross_entropy(Z, P, W > 1))
    with pytest.raises(ValueError, match=r"real numbers.*complex128"):  # of which torch would make a complex loss
        ct.cross_entropy(Z, P, torch.complex(W, W))
    with pytest.raises(ValueError, match="sample_weight: expected real numbers"):
        ct.cross_entropy(Z, T, sample_weight=torch.complex(S, S))
    for weight in (torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3]).half()):  # here, but not in torch
        torch.testing.assert_close(ct.cross_entropy(Z, T, weight), F.cross_entropy(Z, T, weight.double()))


ITEMS = [7, 7.0, Fraction(7), np.int64(7), np.float32(7), torch.tensor(7), torch.tensor([7]), torch.tensor([[7.0]])]


@pytest.mark.parametrize("num_items", ITEMS, ids=repr)
@LOSSES
def test_num_items(loss, of_torch, num_items):
    torch.testing.assert_close(loss(Z, T, num_items=num_items), of_torch(Z, T, reduction="sum") / 7)


def test_num_items_that_is_differentiated():
    items = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    loss = ct.cross_entropy(Z, T, num_items=items)
    (gradient,) = torch.autograd.grad(loss, items)
    torch.testing.assert_close(gradient, -F.cross_entropy(Z, T, reduction="sum").reshape(1) / 4)


@pytest.mark.parametrize(
    "num_items", [-1, math.nan, math.inf, -math.inf, 10**400, 10**5000, 1j, True, "4"], ids=range(9)
)
@LOSSES
def test_num_items_refused(loss, of_torch, num_items):
    with pytest.raises((TypeError, ValueError), match="num_items: expected"):
        loss(Z, T, num_items=num_items)
    if isinstance(num_items, (bool, float, complex)) or num_items == -1:
        with pytest.raises((TypeError, ValueError), match="num_items: expected"):
            loss(Z, T, num_items=torch.tensor(num_items))
    with pytest.raises(ValueError, match="num_items: expected"):
        loss(Z, T, num_items=torch.tensor([1, 2]))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("places", [(), (2,)])
def test_head_of_width_0(reduction, bias, places):
    h, w = torch.zeros(4, 0, requires_grad=True), torch.zeros(3, *places, 0, requires_grad=True)
    b = torch.randn(3, *places, requires_grad=True) if bias else None
    t = T.reshape(4, *[1] * len(places)).expand(4, *places)
    loss = ct.linear_cross_entropy(h, w, t, linear_bias=b, reduction=reduction)
    logits = (torch.zeros(4, 3, *places) if b is None else b.expand(4, 3, *places)).clone()
    torch.testing.assert_close(loss, F.cross_entropy(logits, t, reduction=reduction))
    if bias:
        upstream = torch.full_like(loss, 2.0)
        expected = torch.autograd.grad(F.cross_entropy(logits, t, reduction=reduction), b, upstream)
        for again in (False, True):
            gradients = torch.autograd.grad(loss, (h, w, b), upstream, retain_graph=True, create_graph=again)
            assert [gradient.shape for gradient in gradients[:2]] == [h.shape, w.shape]
            torch.testing.assert_close(gradients[2], expected[0])


def test_sizes_of_0():
    for shape in ((0, 3), (4, 3, 0), (0, 3, 0), (4, 3, 2, 0)):
        z = torch.zeros(shape, requires_grad=True)
        t = torch.zeros(shape[:1] + shape[2:], dtype=torch.long)
        for target in (t, torch.zeros(shape)):
            loss = ct.cross_entropy(z, target)
            assert not loss
            assert torch.autograd.grad(loss, z, torch.tensor(2.0))[0].shape == shape
            assert ct.cross_entropy(z, target, reduction="none").shape == t.shape
    none = ct.linear_cross_entropy(torch.zeros(4, 2), torch.zeros(3, 0, 2), torch.zeros(4, 0, dtype=torch.long))
    assert not none


def test_threads_that_differentiate_the_same_loss():
    z = torch.randn(256, 100, dtype=torch.float64, requires_grad=True)
    t = torch.randint(0, 100, (256,))
    (expected,) = torch.autograd.grad(F.cross_entropy(z, t), z)
    loss = ct.cross_entropy(z, t)
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda _: torch.autograd.grad(loss, z, retain_graph=True)[0], range(64))
    found = list(found)
    assert len({gradient.data_ptr() for gradient in found}) == 64
    for gradient in found:
        torch.testing.assert_close(gradient, expected)


def test_modules_are_copied():
    for module in (ct.CrossEntropyLoss(W.clone(), softcap=3.0), ct.LinearCrossEntropyLoss(3, 3, dtype=torch.float64)):
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            torch.testing.assert_close(other(Z, T), module(Z, T))


def test_logits_changed_before_the_backward_pass():
    z = Z.clone().requires_grad_()
    logits = z * 1
    loss = ct.cross_entropy(logits, T)
    logits.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_numpy_reads_the_sign_of_negated_bfloat16():
    """DLPack does not tell of a tensor whose memory is to be read with the other sign."""
    z = torch.tensor([[2.0, 1.0, 0.5]], dtype=torch.bfloat16)
    lazy = torch._neg_view(-z)
    assert lazy.is_neg()
    assert ce.cross_entropy(lazy, [0]) == pytest.approx(F.cross_entropy(z.double(), torch.tensor([0])).item(), rel=1e-6)


@pytest.mark.parametrize("function", [ct.cross_entropy, F.cross_entropy])
def test_numbers_that_only_equal_the_defaults(function):
    with pytest.raises(TypeError, match="ignore_index"):
        function(Z, T, ignore_index=-100.0)


def test_numbers_beyond_float64():
    with pytest.raises(ValueError, match="temperature: expected a number in the range of float64"):
        ct.cross_entropy(Z, T, temperature=10**400)


def test_memory_is_refused(alone):
    """An error, not an abort; and the right gradient once there is enough."""
    script = """
import resource, torch
import crossentropy.torch as ct
torch.set_num_threads(2)
input = torch.randn(1, 32_768, 64, dtype=torch.float64, requires_grad=True)
target = torch.randint(32_768, (1, 64))
def loss():  # its scratch is larger than what malloc keeps for later
    value = ct.cross_entropy(input, target, softcap=30.0, label_smoothing=0.1)
    value.backward()
    return value.item()
expected = loss()
gradient, input.grad = input.grad, None
refused = 0
for mebibytes in (0, 1, 4, 8, 12, 16, 24, 32, 64, 500):
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + mebibytes * 2**20, -1))
    try:
        value = loss()
    except (MemoryError, RuntimeError):
        value = None
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    refused += value is None
    if value is not None:
        assert value == expected and torch.equal(input.grad, gradient)
    input.grad = None
assert 0 < refused < 10, refused
"""
    alone(script, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_ARENA_MAX="1")


@pytest.mark.parametrize("numpy", [False, True])
def test_the_head_leaves_storage_resizable(numpy, monkeypatch):
    """As those who shard parameters resize it; `Tensor.numpy` would forbid that for ever."""
    monkeypatch.setattr(crossentropy_linear, "_numpy_multiplies", lambda _: numpy)
    h, w, b = (tensor.clone().requires_grad_() for tensor in (Z, H, W))
    found = torch.autograd.grad(ct.linear_cross_entropy(h, w, T, linear_bias=b), (h, w, b))
    expected = torch.autograd.grad(F.cross_entropy(F.linear(h, w, b), T), (h, w, b))
    for tensor, gradient in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor, gradient, rtol=1e-12, atol=1e-14)
    for tensor in (h, w, b, *found):
        tensor.detach().untyped_storage().resize_(0)


def test_losses_beyond_float32():
    least = torch.finfo(torch.float32).min
    z, t = torch.tensor([[0.0, least], [0.0, least]]), torch.tensor([1, 1])
    assert ct.cross_entropy(z, t, reduction="sum") == F.cross_entropy(z, t, reduction="sum") == torch.inf
    assert ct.cross_entropy(z[:1], t[:1]) == F.cross_entropy(z[:1], t[:1])
    assert ct.linear_cross_entropy(z, torch.eye(2), t, reduction="sum") == torch.inf


def test_nothing_counts_whatever_the_rows_hold():
    z = torch.tensor([[torch.inf, 1.0]], requires_grad=True)
    ct.cross_entropy(z, torch.tensor([0]), num_items=0).backward()
    assert not z.grad.any()
    h, w = torch.tensor([[torch.inf, 1.0], [1.0, 2.0]], requires_grad=True), torch.eye(2, requires_grad=True)
    loss = ct.linear_cross_entropy(h, w, torch.tensor([0, 0]), weight=torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss == 0
    assert not h.grad.any()
    assert not w.grad.any()
