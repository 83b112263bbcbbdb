"""crossentropy.torch: values against the reference, behaviour against torch.nn.functional."""

import copy
import inspect
import math
import pickle
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value, jvp
from torch_oracle import DTYPES, OPTIONS, REDUCTIONS, close, loss_and_gradient, problem, reference

import crossentropy as ce
import crossentropy.torch as ct
from crossentropy.torch import _eager

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
    for strided in (
        z.to(memory_format=torch.channels_last),
        wide[..., ::2],
        z.movedim(0, -1).contiguous().movedim(-1, 0),
    ):
        assert strided.stride() != z.stride()
        actual = loss_and_gradient(strided, t, weight=w, sample_weight=s)
        torch.testing.assert_close(actual, expected, rtol=1e-14, atol=0)
    tokens = torch.randn(3, 7, 11)  # (N, T, C), given as torch wants it
    labels = torch.randint(0, 11, (3, 7))
    assert torch.equal(
        ct.cross_entropy(tokens.transpose(1, 2), labels), ct.cross_entropy(tokens.reshape(-1, 11), labels.view(-1))
    )


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
    rows = torch.tensor(
        [[nan, 0, 0], [-inf, 1, 0], [-inf, 1, 0], [-inf, -inf, -inf], [inf, 0, 0], [nan, nan, nan], [2, 1, 0.1]]
    )
    t = torch.tensor([1, 1, 0, 0, 1, -100, 1])
    loss, dlogits = loss_and_gradient(rows, t, torch.ones(7), reduction="none")
    expected = reference(rows, t, None, None, "none", np.ones(7))
    torch.testing.assert_close(loss.double(), expected[0], rtol=1e-6, atol=0, equal_nan=True)
    torch.testing.assert_close(dlogits.double(), expected[1], rtol=1e-6, atol=1e-8, equal_nan=True)
    one_hot = torch.tensor([[0.0, 1.0, 0.0]])
    assert loss_and_gradient(rows[1:2], one_hot)[0].isfinite()  # a zero coefficient removes its term
    for bad in (math.nan, inf, -inf):
        assert ct.cross_entropy(rows[6:], torch.tensor([[bad, 1.0, 0.1]])).isnan()


@pytest.mark.parametrize("path", ["core", "composed"])
def test_signed_probabilities_and_weights(path, request):
    """As torch computes them. The mean divides by the sum of signed weights, whatever it is: NaN where it is 0."""
    if path == "composed":
        request.getfixturevalue("composed")
    q, s = torch.randn(3, 5, dtype=torch.float64), torch.tensor([-0.5, 2.0, 1.0], dtype=torch.float64)
    z, hidden, classifier = Z.double(), torch.randn(3, 4).double(), torch.randn(5, 4).double()
    w = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0]).double()
    torch.testing.assert_close(loss_and_gradient(z, q), loss_and_gradient(z, q, None, F.cross_entropy))
    for target, omega in ((T, w[T]), (q, 1.0)):
        rows = s * F.cross_entropy(z, target, w, reduction="none")
        for reduction, expected in (("none", rows), ("sum", rows.sum()), ("mean", rows.sum() / (s * omega).sum())):
            found = ct.cross_entropy(z, target, w, sample_weight=s, reduction=reduction)
            torch.testing.assert_close(found, expected)
        expected = s * F.cross_entropy(hidden @ classifier.T, target, w, reduction="none")
        found = ct.linear_cross_entropy(hidden, classifier, target, weight=w, sample_weight=s)
        torch.testing.assert_close(found, expected.sum() / (s * omega).sum())
    cancel = torch.tensor([1.0, 2.0, -3.0])
    loss, dlogits = loss_and_gradient(Z, T, sample_weight=cancel)
    assert loss.isnan()
    assert dlogits.isnan().all()
    hidden = hidden.requires_grad_()
    loss = ct.linear_cross_entropy(hidden, classifier, T, sample_weight=cancel)
    assert loss.isnan()
    assert torch.autograd.grad(loss, hidden)[0].isnan().all()


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


Z, T = torch.arange(15.0).reshape(3, 5).sin(), torch.tensor([1, 2, 3])


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((Z, torch.tensor([1, 2])), {}),
        ((Z, torch.tensor([1, 2, 3], dtype=torch.int32)), {}),
        ((Z, torch.tensor([1.0, 2.0, 3.0])), {}),
        ((Z, torch.ones(3, 5, dtype=torch.long)), {}),
        ((Z, torch.ones(3, 5, dtype=torch.bool)), {}),
        ((Z, torch.ones(3, 4)), {}),
        ((torch.zeros(3, 5, 2), torch.zeros(3, 4, dtype=torch.long)), {}),
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
    with pytest.raises(Exception, match=r"\w") as theirs:
        F.cross_entropy(*args, **options)
    with pytest.raises(type(theirs.value), match=re.escape(str(theirs.value))):
        ct.cross_entropy(*args, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"z_loss": -1.0},
        {"entropy_bonus": math.nan},
        {"focal_gamma": -1.0},
        {"softcap": 0.0},
        {"temperature": 0.0},
        {"sample_weight": torch.ones(2)},
        {"sample_weight": torch.tensor([1.0, -math.inf, 1.0])},
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
        theirs = loss_and_gradient(
            Z, T, torch.ones(3) if options.get("reduction") else None, F.cross_entropy, weight=w, **options
        )
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


@pytest.mark.parametrize("path", ["core", "composed"])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss(gamma, path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    z, t, w, s = problem((6, 5))
    z[2] = torch.tensor([0.0, -30.0, -40.0, -35.0, -60.0])
    t[2] = 0
    options = {"focal_gamma": gamma, "entropy_bonus": -0.1, "z_loss": 1e-3, "softcap": 50.0}
    for reduction in REDUCTIONS:
        expected = reference(z, t, w, s, reduction, **options)
        upstream = torch.ones(expected[0].shape, dtype=torch.float64)
        ours = loss_and_gradient(z, t, upstream, weight=w, sample_weight=s, reduction=reduction, **options)
        torch.testing.assert_close(ours, expected)
    h, W = torch.randn(6, 3).double().requires_grad_(), torch.randn(5, 3).double().requires_grad_()
    head = ct.linear_cross_entropy(h, W, t, **options)
    whole = ct.cross_entropy(h @ W.t(), t, **options)
    torch.testing.assert_close(head, whole)
    torch.testing.assert_close(torch.autograd.grad(head, (h, W)), torch.autograd.grad(whole, (h, W)))


def test_focal_loss_of_certain_and_of_impossible_classes():
    z = torch.tensor([[0.0, -200.0], [0.0, -math.inf], [-math.inf, 0.0], [200.0, 0.0]], requires_grad=True)
    with torch.device("cpu"):  # a mode, so that the loss is composed
        composed = ct.cross_entropy(z, torch.tensor([0, 0, 0, 1]), reduction="none", focal_gamma=0.5)
    for losses in (composed, ct.cross_entropy(z, torch.tensor([0, 0, 0, 1]), reduction="none", focal_gamma=0.5)):
        assert losses.tolist() == [0, 0, math.inf, 200]
        (dz,) = torch.autograd.grad(losses.sum(), z, create_graph=True)
        assert dz.tolist() == [[0, 0], [0, 0], [-1, 1], [1, -1]]


def test_focal_loss_differentiates_twice():
    z, t, w, s = problem((4, 3))
    z = z.requires_grad_()

    def loss(z):
        return ct.cross_entropy(z, t, w, sample_weight=s, focal_gamma=1.5, entropy_bonus=0.2)

    assert torch.autograd.gradcheck(loss, (z,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, (z,), check_fwd_over_rev=True)


def test_focal_loss_is_refused_for_probabilities():
    q = Z.softmax(1)
    for call in (
        lambda: ct.cross_entropy(Z, q, focal_gamma=1.0),
        lambda: ct.linear_cross_entropy(Z, torch.eye(5), q, focal_gamma=1.0),
    ):
        with pytest.raises(ValueError, match="focal_gamma: expected 0 for targets that are probabilities"):
            call()
    with pytest.raises(ValueError, match="focal_gamma: expected 0 with label_smoothing"):
        ct.cross_entropy(Z, T, focal_gamma=1.0, label_smoothing=0.1)


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
        loss_and_gradient(
            z,
            t,
            None if reduction != "none" else torch.ones(6).double(),
            weight=w,
            sample_weight=s,
            reduction=reduction,
        )
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


# Modules.


def test_modules_are_torchs_with_options():
    weight = torch.rand(5)
    module = ct.CrossEntropyLoss(weight, label_smoothing=0.1, z_loss=0.01, softcap=4.0, temperature=2.0)
    assert isinstance(module, torch.nn.CrossEntropyLoss)
    options = {
        "label_smoothing": 0.1,
        "z_loss": 0.01,
        "softcap": 4.0,
        "temperature": 2.0,
        "sample_weight": torch.rand(3),
    }
    expected = ct.cross_entropy(Z, T, weight, **options)
    for same in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(same(Z, T, options["sample_weight"]), expected)
    assert functional_call(module, {"weight": 2 * weight}, (Z, T)) == module(Z, T)
    assert (
        module(Z, T, num_items=6)
        == ct.CrossEntropyLoss(weight, reduction="sum", label_smoothing=0.1, z_loss=0.01, softcap=4.0, temperature=2.0)(
            Z, T
        )
        / 6
    )


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
    torch.testing.assert_close(
        other(h, t), ct.linear_cross_entropy(h, module.linear.weight, t, linear_bias=module.linear.bias)
    )
