"""crossentropy.torch: values against the reference, behaviour against torch.nn.functional."""

import copy
import inspect
import math
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, grad, grad_and_value, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.library import opcheck

import crossentropy as ce
import crossentropy.torch as ct
from crossentropy import _head
from crossentropy.torch import _eager, _linear, _operator

# torch warns of its own use of torch.jit, of its lowerings and of its graphs.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch._prims_common.check.:FutureWarning"),
]
OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 1e-2},
    {"softcap": 3.0, "temperature": 0.7},
    {"label_smoothing": 0.2, "z_loss": 1e-2, "softcap": 5.0},
]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
REDUCTIONS = ["mean", "sum", "none"]
EPS = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture
def composed(monkeypatch):
    """The path of other devices, on the CPU."""
    monkeypatch.setattr(_eager, "is_watched", lambda: True)
    monkeypatch.setattr(_operator, "_core_applies", lambda *_: False)


def problem(shape, probabilities=False, dtype=torch.float64):
    """Logits, targets, class weights and sample weights; of indices one is ignored, one row does not count."""
    z = (3 * torch.randn(shape, dtype=torch.float64)).to(dtype)
    axis = min(1, len(shape) - 1)
    rows = shape[:axis] + shape[axis + 1 :]
    t = torch.rand(shape, dtype=dtype) if probabilities else torch.randint(0, shape[axis], rows)
    s = torch.rand(rows, dtype=torch.float64) + 0.5
    if rows and not probabilities:
        t.view(-1)[1] = -100
    if rows:
        s.view(-1)[0] = 0
    return z, t, torch.rand(shape[axis], dtype=torch.float64) + 0.5, s


def reference(z, t, w, s, reduction="mean", grad_output=1.0, **options):
    """Loss and gradient from the definition in NumPy, the class axis where torch has it."""
    axis = min(1, z.dim() - 1)
    A = z.detach().double().movedim(axis, -1).numpy()
    Y = t.detach().double().movedim(axis, -1).numpy() if t.shape == z.shape else t.numpy()
    w, s = (None if x is None else x.double().numpy() for x in (w, s))
    options = {"class_weight": w, "sample_weight": s, "reduction": reduction, "grad_output": grad_output} | options
    loss, dlogits = ce.reference.cross_entropy_with_grad(A, Y, **options)
    return torch.as_tensor(loss, dtype=torch.float64), torch.from_numpy(dlogits).movedim(-1, axis)


def close(actual, expected, dtype):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=EPS[dtype], atol=EPS[dtype])


def loss_and_gradient(z, t, grad_output=None, function=ct.cross_entropy, **options):
    z = z.detach().requires_grad_()
    loss = function(z, t, **options)
    loss.backward(grad_output)
    return loss.detach(), z.grad


# Values.


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("shape", [(6,), (8, 7), (3, 5, 4), (2, 5, 3, 2)], ids=str)
@pytest.mark.parametrize("path", ["core", "composed"])
def test_equals_the_reference(shape, probabilities, options, path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    for dtype in DTYPES:
        z, t, w, s = problem(shape, probabilities, dtype)
        for reduction in REDUCTIONS:
            expected = reference(z, t, w, s, reduction, **options)
            upstream = torch.ones(expected[0].shape, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
            arguments = {"weight": w, "sample_weight": s, "reduction": reduction, **options}
            loss, dlogits = loss_and_gradient(z, t, upstream, **arguments)
            close(loss, expected[0], torch.float32 if dtype.itemsize == 2 else dtype)
            close(dlogits, expected[1], dtype)
            assert dlogits.dtype == dtype
            assert loss.dtype == upstream.dtype


@pytest.mark.parametrize("probabilities", [False, True])
def test_strides(probabilities):
    z, t, w, s = problem((4, 5, 3, 2), probabilities)
    expected = loss_and_gradient(z, t, weight=w, sample_weight=s)
    wide = torch.zeros(4, 5, 3, 4, dtype=torch.float64)
    wide[..., ::2] = z
    for strided in (z.to(memory_format=torch.channels_last), wide[..., ::2], z.movedim(0, -1).contiguous().movedim(-1, 0)):
        assert strided.stride() != z.stride()
        actual = loss_and_gradient(strided, t, weight=w, sample_weight=s)
        torch.testing.assert_close(actual, expected, rtol=1e-14, atol=0)
    tokens = torch.randn(3, 7, 11)  # (N, T, C), given as torch wants it
    labels = torch.randint(0, 11, (3, 7))
    assert torch.equal(ct.cross_entropy(tokens.transpose(1, 2), labels), ct.cross_entropy(tokens.reshape(-1, 11), labels.view(-1)))


def test_same_bits_as_numpy():
    z, t = torch.randn(300, 1000), torch.randint(0, 1000, (300,))
    loss, dlogits = loss_and_gradient(z, t)
    expected = ce.cross_entropy_with_grad(z.numpy(), t.numpy())
    assert loss.item() == np.float32(expected[0])
    assert np.array_equal(dlogits.numpy(), expected[1])


CONFIDENT = torch.tensor([[20.0, 0.0, 0.0]])
EXACT = 2 * math.exp(-20) / (1 + 2 * math.exp(-20))


@pytest.mark.parametrize("path", ["eager", "func", "compiled", "composed", "forward mode"])
def test_a_confident_row_keeps_its_digits(path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    t = torch.tensor([0])
    if path == "func":
        dlogits, loss = grad_and_value(ct.cross_entropy)(CONFIDENT, t)
    elif path == "forward mode":
        loss, at = jvp(lambda z: ct.cross_entropy(z, t), (CONFIDENT,), (torch.tensor([[1.0, 0.0, 0.0]]),))
        dlogits = at.reshape(1, 1)
    else:
        function = torch.compile(ct.cross_entropy, fullgraph=True) if path == "compiled" else ct.cross_entropy
        loss, dlogits = loss_and_gradient(CONFIDENT, t, function=function)
    assert loss.item() == pytest.approx(math.log1p(2 * math.exp(-20)), rel=1e-6)
    assert dlogits[0, 0].item() == pytest.approx(-EXACT, rel=1e-6)


@pytest.mark.parametrize("path", ["core", "composed"])
def test_edge_cases(path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    inf, nan = math.inf, math.nan
    rows = torch.tensor([[nan, 0, 0], [-inf, 1, 0], [-inf, 1, 0], [-inf, -inf, -inf], [inf, 0, 0], [nan, nan, nan], [2, 1, 0.1]])
    t = torch.tensor([1, 1, 0, 0, 1, -100, 1])
    loss, dlogits = loss_and_gradient(rows, t, torch.ones(7), reduction="none")
    expected = reference(rows, t, None, None, "none", np.ones(7))
    torch.testing.assert_close(loss.double(), expected[0], rtol=1e-6, atol=0, equal_nan=True)
    torch.testing.assert_close(dlogits.double(), expected[1], rtol=1e-6, atol=1e-8, equal_nan=True)
    one_hot = torch.tensor([[0.0, 1.0, 0.0]])
    assert loss_and_gradient(rows[1:2], one_hot)[0].isfinite()  # a zero coefficient removes its term
    assert ct.cross_entropy(rows[6:], torch.tensor([[-0.1, 1.0, 0.1]])).isnan()


@pytest.mark.parametrize("path", ["core", "composed"])
def test_nothing_counted_is_zero(path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    for z, t, options in (
        (torch.randn(0, 3), torch.zeros(0, dtype=torch.long), {}),
        (torch.full((2, 3), math.nan), torch.full((2,), -100), {}),
        (torch.randn(2, 3), torch.tensor([0, 1]), {"sample_weight": torch.zeros(2)}),
        (torch.randn(2, 3), torch.tensor([0, 1]), {"num_items": 0}),
    ):
        loss, dlogits = loss_and_gradient(z, t, **options)
        assert loss == 0
        assert dlogits.shape == z.shape
        assert not dlogits.any()


# In place of torch's.


def test_signatures_begin_with_torchs():
    for ours, theirs in ((ct.cross_entropy, F.cross_entropy), (ct.CrossEntropyLoss, torch.nn.CrossEntropyLoss)):
        a, b = (list(inspect.signature(f).parameters.values()) for f in (ours, theirs))
        assert [(p.name, p.kind, p.default) for p in a[: len(b)]] == [(p.name, p.kind, p.default) for p in b]
    for ours, theirs in (
        (ct.linear_cross_entropy, F.linear_cross_entropy),
        (ct.LinearCrossEntropyLoss, torch.nn.LinearCrossEntropyLoss),
    ):
        a, b = (inspect.signature(f).parameters for f in (ours, theirs))
        assert {name: (p.kind, p.default) for name, p in b.items()}.items() <= {
            name: (p.kind, p.default) for name, p in a.items()
        }.items()


Z, T = torch.randn(3, 5), torch.tensor([1, 2, 3])


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((Z, torch.tensor([1, 2])), {}),
        ((Z, torch.tensor([1, 2, 3], dtype=torch.int32)), {}),
        ((Z, torch.tensor([1.0, 2.0, 3.0])), {}),
        ((Z, torch.ones(3, 5, dtype=torch.long)), {}),
        ((Z, torch.ones(3, 5, dtype=torch.bool)), {}),
        ((Z, torch.ones(3, 4)), {}),
        ((torch.randn(3, 5, 2), torch.zeros(3, 4, dtype=torch.long)), {}),
        ((Z.long(), T), {}),
        ((torch.tensor(3.0), torch.tensor(3)), {}),
        (([1.0], T), {}),
        ((Z, T), {"weight": torch.ones(4)}),
        ((Z, T), {"label_smoothing": 1.5}),
        ((Z, T), {"label_smoothing": "a"}),
        ((Z, T), {"reduction": "average"}),
        ((Z, T), {"ignore_index": None}),
        ((Z, Z.softmax(1)), {"ignore_index": 1}),
    ],
    ids=str,
)
def test_refuses_as_torch_does(args, options):
    with pytest.raises(Exception, match=".") as theirs:
        F.cross_entropy(*args, **options)
    with pytest.raises(type(theirs.value), match=re.escape(str(theirs.value))):
        ct.cross_entropy(*args, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"z_loss": -1.0},
        {"softcap": 0.0},
        {"temperature": 0.0},
        {"sample_weight": torch.ones(2)},
        {"sample_weight": torch.tensor([1.0, -1.0, 1.0])},
        {"num_items": -1},
        {"num_items": math.nan},
        {"num_items": torch.ones(2)},
        {"num_items": 3, "reduction": "sum"},
    ],
    ids=str,
)
def test_refuses_options_of_its_own(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
        ct.cross_entropy(Z, T, **options)
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
        ct.linear_cross_entropy(torch.randn(3, 2), torch.randn(5, 2), T, **options)


def test_no_class_is_refused():
    with pytest.raises(ValueError, match="expected at least one class"):
        ct.cross_entropy(torch.randn(0, 0), torch.zeros(0, dtype=torch.long))


@pytest.mark.parametrize("target", [9, -1])
def test_class_index_out_of_range(target):
    t = torch.tensor([1, target, 3])
    with pytest.raises(IndexError, match=rf"expected class indices in \[0, 5\) .* got {target} in row 1"):
        ct.cross_entropy(Z, t)
    with pytest.raises(IndexError, match=rf"got {target} in row 1"):
        ct.linear_cross_entropy(torch.randn(3, 2), torch.randn(5, 2), t)
    with pytest.raises((IndexError, RuntimeError), match=f"{target}"):
        torch.compile(ct.cross_entropy, backend="aot_eager")(Z, t)


def test_class_weights_may_be_negative():
    w = torch.tensor([-1.0, 2.0, -0.5, 1.0, 3.0])
    for options in ({}, {"label_smoothing": 0.1}, {"reduction": "none"}):
        theirs = loss_and_gradient(Z, T, torch.ones(3) if options.get("reduction") else None, F.cross_entropy, weight=w, **options)
        ours = loss_and_gradient(Z, T, torch.ones(3) if options.get("reduction") else None, weight=w, **options)
        torch.testing.assert_close(ours, theirs)
    expected = reference(Z, T, w, None, z_loss=0.1)
    torch.testing.assert_close(ct.cross_entropy(Z, T, w, z_loss=0.1).double(), expected[0], rtol=1e-6, atol=0)


def test_weights_that_are_to_be_learnt():
    w, s = torch.rand(5, requires_grad=True), torch.rand(3, requires_grad=True)
    loss = ct.cross_entropy(Z, T, w, sample_weight=s)
    dw, ds = torch.autograd.grad(loss, (w, s))
    rows = s * w[T] * F.cross_entropy(Z, T, reduction="none")
    torch.testing.assert_close((dw, ds), torch.autograd.grad(rows.sum() / (s * w[T]).sum(), (w, s)))


def test_deprecated_reductions():
    with pytest.warns(UserWarning, match="size_average and reduce"):
        assert torch.equal(ct.cross_entropy(Z, T, None, False), ct.cross_entropy(Z, T, reduction="sum"))


def test_byte_targets():
    assert torch.equal(ct.cross_entropy(Z, T.to(torch.uint8)), ct.cross_entropy(Z, T))


def test_num_items_makes_parts_of_a_batch_add_up():
    z, t = torch.randn(8, 5), torch.randint(0, 5, (8,))
    whole = loss_and_gradient(z, t)
    for items in (8, 8.0, torch.tensor(8)):
        parts = [loss_and_gradient(z[i : i + 2], t[i : i + 2], num_items=items) for i in range(0, 8, 2)]
        torch.testing.assert_close(sum(loss for loss, _ in parts), whole[0])
        torch.testing.assert_close(torch.cat([dlogits for _, dlogits in parts]), whole[1])
        compiled = torch.compile(ct.cross_entropy, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(z, t, num_items=items), whole[0])


# Backward.


def test_upstream_gradient_before_rounding():
    z, t = torch.randn(64, 50).half(), torch.randint(0, 50, (64,))
    for scale in (1024.0, 1.0, -3.0):
        expected = ce.cross_entropy_with_grad(z.numpy(), t.numpy(), grad_output=scale * 1e-4)[1]
        dlogits = loss_and_gradient(z, t, torch.tensor(scale * 1e-4))[1]
        assert np.array_equal(dlogits.numpy(), expected)
    z = z.requires_grad_()
    (ct.cross_entropy(z, t) * 65536).backward()
    assert (z.grad != 0).all()


def test_second_backward():
    z = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    loss = ct.cross_entropy(z, T.repeat(2)[:4])
    (first,) = torch.autograd.grad(loss, z, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss, z, torch.tensor(2.0, dtype=torch.float64), retain_graph=True)
    (third,) = torch.autograd.grad(loss, z)
    assert torch.equal(first, kept)
    assert torch.equal(second, 2 * kept)
    assert torch.equal(third, kept)
    assert third.data_ptr() != first.data_ptr()


def test_the_gradient_is_not_copied():
    made = []

    def noted(input, original=_eager.empty_gradient):
        gradient = original(input)
        made.append(gradient.data_ptr())
        return gradient

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_eager, "empty_gradient", noted)
        z = torch.randn(4, 5, requires_grad=True)
        ct.cross_entropy(z, T.repeat(2)[:4]).backward()
        assert z.grad.data_ptr() == made.pop()
        with torch.no_grad():
            ct.cross_entropy(z, T.repeat(2)[:4])
        ct.cross_entropy(z.detach(), T.repeat(2)[:4])
        assert not made  # no gradient is made where none is asked for


def test_inputs_are_not_modified():
    for reduction in REDUCTIONS:
        z, t, w, s = problem((6, 5))
        before = [x.clone() for x in (z, t, w, s)]
        loss_and_gradient(z, t, None if reduction != "none" else torch.ones(6).double(), weight=w, sample_weight=s, reduction=reduction)
        h, W = torch.randn(6, 3).double(), torch.randn(5, 3).double().requires_grad_()
        kept = h.clone(), W.detach().clone()
        ct.linear_cross_entropy(h, W, t, weight=w, reduction=reduction).sum().backward()
        assert all(map(torch.equal, (z, t, w, s, h, W.detach()), (*before, *kept)))


def test_logits_changed_in_place_are_noticed():
    z = torch.randn(4, 5, requires_grad=True)
    y = z * 1
    loss = ct.cross_entropy(y, T.repeat(2)[:4])
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_no_grad():
    z = torch.randn(3, 5, requires_grad=True)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert not ct.cross_entropy(z, T).requires_grad


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_soft_targets_are_differentiable_twice(options, reduction):
    z, q, w, s = problem((4, 3), True)
    z, q = z.requires_grad_(), (q + 0.1).requires_grad_()

    def loss(z, q):
        return ct.cross_entropy(z, q, w, sample_weight=s, reduction=reduction, **options)

    assert torch.autograd.gradcheck(loss, (z, q), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(loss, (z, q), check_fwd_over_rev=True, check_batched_grad=True)
    (dq,) = torch.autograd.grad(loss(z, q).sum(), q)  # alone
    one = loss(z.detach(), q).sum()
    torch.testing.assert_close(torch.autograd.grad(one, q)[0], dq)


# Every transform, and its compiled form, as torch.nn.functional has it.


def transforms(cross_entropy, linear_cross_entropy):
    torch.manual_seed(0)
    double = {"dtype": torch.float64}
    z, v, t = torch.randn(6, 4, **double), torch.randn(6, 4, **double), torch.randint(0, 4, (6,))
    t[2] = -100
    q = torch.randn(6, 4, **double).softmax(1)
    w, g = torch.rand(4, **double), torch.rand(6, **double)
    zs, ts, ws = torch.randn(3, 6, 4, **double), torch.randint(0, 4, (3, 6)), torch.rand(3, 4, **double)
    h, W, b = torch.randn(6, 5, **double), torch.randn(4, 5, **double), torch.randn(4, **double)

    def loss(z, t):
        return cross_entropy(z, t, weight=w)

    def losses(z, t):
        return cross_entropy(z, t, reduction="none")

    def smooth(z, q):
        return cross_entropy(z, q, weight=w, label_smoothing=0.1)

    def head(h, W, b):
        return linear_cross_entropy(h, W, t, linear_bias=b, weight=w)

    return {
        "value": lambda: loss(z, t),
        "smoothing": lambda: smooth(z, t),
        "probabilities": lambda: smooth(z, q),
        "none": lambda: losses(z, t),
        "grad": lambda: grad(loss)(z, t),
        "grad of both": lambda: grad(smooth, argnums=(0, 1))(z, q),
        "value and grad": lambda: grad_and_value(loss)(z, t),
        "vjp": lambda: vjp(lambda z: losses(z, t), z)[1](g),
        "jvp": lambda: jvp(lambda z: loss(z, t), (z,), (v,)),
        "jvp of both": lambda: jvp(smooth, (z, q), (v, v)),
        "jacrev": lambda: jacrev(losses)(z, t),
        "jacfwd": lambda: jacfwd(losses)(z, t),
        "hessian": lambda: hessian(loss)(z, t),
        "mixed second": lambda: jacrev(jacrev(smooth, argnums=0), argnums=1)(z, q),
        "grad of grad": lambda: grad(lambda z: grad(loss)(z, t).square().sum())(z),
        "jvp of grad": lambda: jvp(lambda z: grad(loss)(z, t), (z,), (v,)),
        "grad of jvp": lambda: grad(lambda z: jvp(lambda z: loss(z, t), (z,), (v,))[1])(z),
        "third": lambda: jacrev(jacrev(jacrev(loss)))(z[:2], t[:2]),
        "vmap": lambda: vmap(loss)(zs, ts),
        "vmap of logits": lambda: vmap(loss, in_dims=(0, None))(zs, t),
        "vmap of the last axis": lambda: vmap(loss, in_dims=(2, 0))(zs.movedim(0, 2), ts),
        "vmap of weights": lambda: vmap(lambda w: cross_entropy(z, t, w))(ws),
        "vmap of rows": lambda: vmap(cross_entropy)(z, t.abs() % 4),
        "vmap of grad": lambda: vmap(grad(loss))(zs, ts),
        "vmap of grad of rows": lambda: vmap(grad(cross_entropy))(z, t.abs() % 4),
        "grad of vmap": lambda: grad(lambda zs: vmap(loss)(zs, ts).sum())(zs),
        "vmap of hessian": lambda: vmap(hessian(loss))(zs, ts),
        "linearize": lambda: linearize(lambda z: loss(z, t), z)[1](v),
        "head": lambda: head(h, W, b),
        "head, grad": lambda: grad(head, argnums=(0, 1, 2))(h, W, b),
        "head, jvp": lambda: jvp(head, (h, W, b), (h, W, b)),
        "head, hessian": lambda: hessian(head, argnums=1)(h, W, b),
        "head, vmap": lambda: vmap(head, in_dims=(0, None, None))(torch.stack([h, -h]), W, b),
        "head, vmap of grad": lambda: vmap(grad(head, argnums=1), in_dims=(0, None, None))(torch.stack([h, -h]), W, b),
    }


OURS = transforms(ct.cross_entropy, ct.linear_cross_entropy)
THEIRS = transforms(F.cross_entropy, F.linear_cross_entropy)
NOT_COMPILED_BY_TORCH = {"vmap of hessian", "linearize"}  # of its own function neither


@pytest.mark.parametrize("name", OURS)
def test_transform(name):
    torch.testing.assert_close(OURS[name](), THEIRS[name]())


@pytest.mark.parametrize("name", OURS.keys() - NOT_COMPILED_BY_TORCH)
def test_compiled_transform(name):
    torch.testing.assert_close(torch.compile(OURS[name], fullgraph=True, backend="aot_eager")(), THEIRS[name]())


@pytest.mark.parametrize("name", NOT_COMPILED_BY_TORCH)
def test_torch_still_does_not_compile(name, capfd):
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        torch.compile(THEIRS[name], fullgraph=True, backend="aot_eager")()


def test_compiled_by_inductor():
    @torch.compile(fullgraph=True, dynamic=True)
    def step(z, t, options):
        return ct.cross_entropy(3 * z, t, **options).exp()

    for rows in (4, 7):
        for options in ({}, {"z_loss": 0.1, "softcap": 2.0, "temperature": 0.5, "label_smoothing": 0.1}):
            z, t, _, _ = problem((rows, 5))
            loss, dlogits = loss_and_gradient(z, t, function=lambda z, t, options=options: step(z, t, options))
            expected = loss_and_gradient(z, t, function=lambda z, t, options=options: ct.cross_entropy(3 * z, t, **options).exp())
            torch.testing.assert_close((loss, dlogits), expected)


def test_compiled_training_of_a_head():
    module = ct.LinearCrossEntropyLoss(4, 7, bias=True, dtype=torch.float64)
    h, t = torch.randn(6, 4).double(), torch.randint(0, 7, (6,))
    module(h, t).backward()
    expected = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    torch.compile(module, fullgraph=True, backend="aot_eager")(h, t).backward()
    torch.testing.assert_close([parameter.grad for parameter in module.parameters()], expected)


def test_export():
    class Model(torch.nn.Module):
        def forward(self, z, t):
            return ct.cross_entropy(z, t, label_smoothing=0.1)

    for strict in (False, True):
        program = torch.export.export(Model(), (Z, T), strict=strict)
        assert torch.equal(program.module()(Z, T), ct.cross_entropy(Z, T, label_smoothing=0.1))
        assert any("crossentropy.row_losses" in str(node.target) for node in program.graph.nodes)


def test_fake_tensors():
    with FakeTensorMode():
        z, t = torch.randn(3, 5, requires_grad=True), torch.zeros(3, dtype=torch.long)
        for reduction, shape in (("mean", ()), ("none", (3,))):
            loss = ct.cross_entropy(z, t, reduction=reduction)
            assert loss.shape == shape
            loss.sum().backward()
        assert z.grad.shape == z.shape
        loss = ct.linear_cross_entropy(torch.randn(3, 2), torch.randn(5, 2, requires_grad=True), t)
        loss.backward()


def test_meta_tensors():
    z = torch.randn(3, 5, 2, device="meta", dtype=torch.float16, requires_grad=True)
    loss = ct.cross_entropy(z, torch.zeros(3, 2, dtype=torch.long, device="meta"), z_loss=0.1)
    loss.backward()
    assert (loss.device.type, loss.shape, loss.dtype) == ("meta", (), torch.float32)
    assert (z.grad.shape, z.grad.dtype) == (z.shape, z.dtype)
    h, W = (torch.randn(n, 4, device="meta", requires_grad=True) for n in (6, 5))
    ct.linear_cross_entropy(h, W, torch.zeros(6, dtype=torch.long, device="meta"), label_smoothing=0.1).backward()
    assert (h.grad.shape, W.grad.shape) == (h.shape, W.shape)


@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 3)], ids=str)
@pytest.mark.parametrize("probabilities", [False, True])
def test_operators_are_registered_right(shape, probabilities):
    z, t, w, s = problem(shape, probabilities)
    rest = (w, s, -100, 0.1, 0.0, None, 1.0)
    opcheck(torch.ops.crossentropy.row_losses, (z.requires_grad_(), t, *rest))
    g = torch.rand(s.shape, dtype=torch.float64)
    opcheck(torch.ops.crossentropy.row_gradient, (z, t, g, *rest))
    opcheck(torch.ops.crossentropy.row_gradient, (z.detach().transpose(0, -1).contiguous().transpose(0, -1), t, g, *rest))
    losses = vmap(lambda z: torch.ops.crossentropy.row_losses(z, t, *rest))(torch.stack([z, 2 * z]).detach())
    assert torch.equal(losses[1], torch.ops.crossentropy.row_losses(2 * z.detach(), t, *rest))


def test_forward_mode():
    z, v = torch.randn(3, 5).double(), torch.randn(3, 5).double()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z, v)
        tangent = torch.autograd.forward_ad.unpack_dual(ct.cross_entropy(dual, T)).tangent
    torch.testing.assert_close(tangent, jvp(lambda z: F.cross_entropy(z, T), (z,), (v,))[1])
    x = z.clone().requires_grad_()
    loss = ct.cross_entropy(x, T)
    with torch.autograd.forward_ad.dual_level():  # entered after the loss was computed
        upstream = torch.autograd.forward_ad.make_dual(torch.ones((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
        (dlogits,) = torch.autograd.grad(loss, x, upstream)
        tangent = torch.autograd.forward_ad.unpack_dual(dlogits).tangent
    torch.testing.assert_close(tangent, loss_and_gradient(z, T)[1])


def test_subclasses_of_tensor_are_composed():
    class Tagged(torch.Tensor):
        pass

    z = torch.randn(3, 5).double()
    loss = ct.cross_entropy(z.as_subclass(Tagged), T)
    assert type(loss) is Tagged
    torch.testing.assert_close(loss.as_subclass(torch.Tensor), ct.cross_entropy(z, T))


def test_negative_views():
    z = torch.randn(3, 5, dtype=torch.complex128).conj().imag
    assert z.is_neg()
    torch.testing.assert_close(ct.cross_entropy(z, T), F.cross_entropy(z, T))


def test_autocast():
    model, z = torch.nn.Linear(8, 5), torch.randn(3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(z)
        loss = ct.cross_entropy(logits, T)
        head = ct.linear_cross_entropy(z, model.weight, T, linear_bias=model.bias)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == head.dtype == torch.float32
    exact = ct.cross_entropy(logits.double(), T)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(head.double(), exact, rtol=1e-2, atol=0)
    head.backward()
    assert model.weight.grad.dtype == torch.float32


# The head.


@pytest.fixture(params=["torch", "numpy"])
def products(request, monkeypatch):
    """Whose product of matrices is used."""
    monkeypatch.setattr(_linear, "_numpy_multiplies", lambda _: request.param == "numpy")


@pytest.mark.parametrize("chunk", [1, 3, 1000], ids="{} rows a chunk".format)
@pytest.mark.parametrize("places", [(), (3, 2)], ids=str)
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_head_equals_whole_logits(chunk, places, probabilities, bias, products, monkeypatch):
    monkeypatch.setattr(_head, "MAX_LOGITS_BYTES", chunk * 5 * math.prod(places) * 8)
    h, W = torch.randn(8, 4).double().requires_grad_(), torch.randn(5, *places, 4).double().requires_grad_()
    b = torch.randn(5, *places).double().requires_grad_() if bias else None
    _, t, w, s = problem((8, 5, *places), probabilities)
    t = t.requires_grad_(probabilities)
    wanted = [tensor for tensor in (h, W, b) if tensor is not None]
    for options in OPTIONS:
        for reduction in REDUCTIONS:
            arguments = {"weight": w, "reduction": reduction, "sample_weight": s, **options}
            logits = F.linear(h, W.reshape(-1, 4), None if b is None else b.reshape(-1)).unflatten(1, (5, *places))
            expected = ct.cross_entropy(logits, t, **arguments)
            for targets, of in ((t.detach(), wanted), (t, [*wanted, t] if probabilities else wanted)):
                loss = ct.linear_cross_entropy(h, W, targets, linear_bias=b, **arguments)
                torch.testing.assert_close(loss, expected)
                for upstream in (torch.ones_like(loss), torch.randn_like(loss)):
                    gradients = torch.autograd.grad(loss, of, upstream, retain_graph=True)
                    torch.testing.assert_close(gradients, torch.autograd.grad(expected, of, upstream, retain_graph=True))


@pytest.mark.parametrize("wanted", ["input", "weight", "bias"])
def test_head_gradients_each_alone(wanted):
    tensors = {"input": torch.randn(6, 4), "weight": torch.randn(5, 4), "bias": torch.randn(5)}
    tensors[wanted].requires_grad_()
    t = torch.tensor([0, 1, 2, 3, 4, -100])
    for grads in (False, True):
        loss = ct.linear_cross_entropy(tensors["input"], tensors["weight"], t, linear_bias=tensors["bias"])
        (actual,) = torch.autograd.grad(loss, tensors[wanted], create_graph=grads)
        expected = F.cross_entropy(F.linear(*tensors.values()), t)
        torch.testing.assert_close(actual, torch.autograd.grad(expected, tensors[wanted])[0])


@pytest.mark.parametrize("path", ["core", "composed"])
def test_head_rows_that_do_not_count_hold_anything(path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    h, W = torch.randn(4, 3).requires_grad_(), torch.randn(5, 3).requires_grad_()
    h.data[1] = math.nan
    loss = ct.linear_cross_entropy(h, W, torch.tensor([1, -100, 2, 3]))
    loss.backward()
    assert loss.isfinite()
    assert W.grad.isfinite().all()
    assert not h.grad[1].any()
    nothing = ct.linear_cross_entropy(h, W, torch.full((4,), -100))
    assert nothing == 0
    assert not torch.autograd.grad(nothing, W)[0].any()


def test_head_differentiates_twice_in_chunks(monkeypatch):
    monkeypatch.setattr(_head, "MAX_LOGITS_BYTES", 2 * 5 * 8)
    h, W, b = (torch.randn(n, dtype=torch.float64, requires_grad=True) for n in ((5, 3), (5, 3), (5,)))
    t = torch.tensor([0, 3, -100, 2, 4])
    for reduction in ("mean", "none"):

        def loss(h, W, b, reduction=reduction):
            return ct.linear_cross_entropy(h, W, t, linear_bias=b, reduction=reduction, z_loss=0.1)

        assert torch.autograd.gradcheck(loss, (h, W, b), check_batched_grad=True)
        assert torch.autograd.gradgradcheck(loss, (h, W, b))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("chunks", [1, 2])
def test_head_in_half_precision(dtype, chunks, monkeypatch):
    monkeypatch.setattr(_head, "MAX_LOGITS_BYTES", 1 << 26 if chunks == 1 else 1)
    h, W, b = (torch.randn(n).to(dtype).requires_grad_() for n in ((64, 32), (100, 32), (100,)))
    t = torch.randint(0, 100, (64,))
    loss = ct.linear_cross_entropy(h, W, t, linear_bias=b)
    logits = (h.detach() @ W.detach().t()) + b.detach()
    exact = reference(logits, t, None, None)[0]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    wide = [tensor.detach().double().requires_grad_() for tensor in (h, W, b)]
    expected = torch.autograd.grad(ct.linear_cross_entropy(*wide[:2], t, linear_bias=wide[2]), wide)
    for actual, exact in zip(torch.autograd.grad(loss, (h, W, b), retain_graph=True), expected, strict=True):
        assert (actual.double() - exact).norm() < 4 * torch.finfo(dtype).eps * exact.norm()
    scaled = torch.autograd.grad(loss, W, torch.tensor(4096.0))[0].double() / 4096
    assert (scaled - expected[1]).norm() < 4 * torch.finfo(dtype).eps * expected[1].norm()


def test_head_accepts_what_torchs_accepts():
    h, W, t = torch.randn(3), torch.randn(5, 3), torch.tensor(2)
    torch.testing.assert_close(ct.linear_cross_entropy(h, W, t), F.linear_cross_entropy(h, W, t))
    assert ct.linear_cross_entropy(h, W, t, reduction="none").shape == ()
    options = torch.nn.LinearCrossEntropyOptions()
    assert ct.linear_cross_entropy(h, W, t, ignore_index=None, options=options) == ct.linear_cross_entropy(h, W, t)
    with pytest.raises(ValueError, match="target") as theirs:
        F.linear_cross_entropy(h, W, torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=re.escape(str(theirs.value))):
        ct.linear_cross_entropy(h, W, torch.zeros(4, dtype=torch.long))


MEMORY = """
import resource, torch, crossentropy.torch as ct
rows, width, classes = 2048, 64, 32000
h, W = torch.randn(rows, width, requires_grad=True), torch.randn(classes, width, requires_grad=True)
t = torch.randint(0, classes, (rows,))
ct.linear_cross_entropy(h[:64], W, t[:64]).backward()
h.grad = W.grad = None
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ct.linear_cross_entropy(h, W, t).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_head_never_holds_the_logits():
    used = int(subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True).stdout)
    assert used < 100e6 < 2048 * 32000 * 4


# Modules.


def test_modules_are_torchs_with_options():
    weight = torch.rand(5)
    module = ct.CrossEntropyLoss(weight, label_smoothing=0.1, z_loss=0.01, softcap=4.0, temperature=2.0)
    assert isinstance(module, torch.nn.CrossEntropyLoss)
    options = {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 4.0, "temperature": 2.0, "sample_weight": torch.rand(3)}
    expected = ct.cross_entropy(Z, T, weight, **options)
    for same in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(same(Z, T, options["sample_weight"]), expected)
    assert functional_call(module, {"weight": 2 * weight}, (Z, T)) == module(Z, T)
    assert module(Z, T, num_items=6) == ct.CrossEntropyLoss(weight, reduction="sum", label_smoothing=0.1, z_loss=0.01, softcap=4.0, temperature=2.0)(Z, T) / 6


def test_linear_module_trains():
    module = ct.LinearCrossEntropyLoss(8, 5, bias=True, z_loss=1e-3)
    assert isinstance(module, torch.nn.LinearCrossEntropyLoss)
    h = torch.randn(64, 8)
    t = h[:, :5].argmax(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = module(h, t)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    other = torch.nn.LinearCrossEntropyLoss(8, 5, bias=True)
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other(h, t), ct.linear_cross_entropy(h, module.linear.weight, t, linear_bias=module.linear.bias))
