"""The binary loss in torch: values, derivatives, transforms, what differs from torch's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch_oracle import DTYPES, EPS, REDUCTIONS, close

import crossentropy as ce
import crossentropy.torch as ct

OPTIONS = [{}, {"label_smoothing": 0.1}, {"focal_gamma": 2.0}, {"label_smoothing": 0.2, "focal_gamma": 0.5}]


def problem(shape=(5, 3), dtype=torch.float64):
    """Logits, targets, a weight for each element and for each class."""
    return (
        (3 * torch.randn(shape, dtype=torch.float64)).to(dtype),
        torch.rand(shape, dtype=torch.float64).to(dtype),
        torch.rand(shape, dtype=torch.float64) + 0.5,
        torch.rand(shape[-1:], dtype=torch.float64) + 0.5,
    )


def reference(z, y, w, p, reduction="mean", **options):
    """Loss and gradient from the definition in NumPy; torch's mean divides by the number of elements."""
    A, Y, w, p = (x.detach().double().numpy() for x in (z, y, w, p))
    of = "sum" if reduction == "mean" else reduction
    loss, dlogits = ce.reference.binary_cross_entropy_with_grad(
        A, Y, sample_weight=w, pos_weight=p, reduction=of, **options
    )
    count = A.size if reduction == "mean" else 1
    return torch.as_tensor(loss, dtype=torch.float64) / count, torch.from_numpy(dlogits) / count


def loss_and_gradient(z, y, w, p, grad_output=None, **options):
    z = z.detach().requires_grad_()
    loss = ct.binary_cross_entropy_with_logits(z, y, w, pos_weight=p, **options)
    loss.backward(grad_output)
    return loss.detach(), z.grad


@pytest.fixture(params=["core", "composed"])
def path(request, monkeypatch):
    """The path of the CPU, and that of other devices on the CPU."""
    if request.param == "composed":
        monkeypatch.setattr("crossentropy.torch._binary.under_transform", lambda: True)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_loss_and_gradient(dtype, reduction, options):
    z, y, w, p = problem((40, 7), dtype)
    upstream = torch.ones(z.shape) if reduction == "none" else None
    loss, dinput = loss_and_gradient(z, y, w, p, upstream, reduction=reduction, **options)
    expected, gradient = reference(z, y, w, p, reduction, **options)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    close(loss, expected, torch.float64 if dtype == torch.float64 else torch.float32)
    close(dinput, gradient, dtype)
    assert dinput.dtype == dtype


def test_the_same_bits_as_in_numpy():
    z, y, w, p = problem((1000, 11), torch.float32)
    found = loss_and_gradient(z, y, w, p, reduction="sum", focal_gamma=1.5)
    loss, dlogits = ce.binary_cross_entropy_with_grad(
        z.numpy(), y.numpy(), sample_weight=w.numpy(), pos_weight=p.numpy(), reduction="sum", focal_gamma=1.5
    )
    assert found[0].numpy() == np.float32(loss)
    np.testing.assert_array_equal(found[1].numpy(), dlogits)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_digits_of_both_tails(dtype):
    z = torch.tensor([-40.0, 40.0, 20.0, -17.0], dtype=dtype, requires_grad=True)
    y = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=dtype)
    losses = ct.binary_cross_entropy_with_logits(z, y, reduction="none")
    (dinput,) = torch.autograd.grad(losses.sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(dinput.sum(), z)
    t = torch.exp(-z.detach().double().abs())
    for found, expected in ((losses, torch.log1p(t)), (dinput.abs(), t / (1 + t)), (second, t / (1 + t) ** 2)):
        torch.testing.assert_close(found.double(), expected, rtol=8 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_derivatives_in_every_argument(options):
    tensors = [x.requires_grad_() for x in problem((2, 2))]

    def losses(z, y, w, p):
        return ct.binary_cross_entropy_with_logits(z, y, w, reduction="none", pos_weight=p, **options)

    check = {"check_forward_ad": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(losses, tensors, **check)
    assert torch.autograd.gradgradcheck(losses, tensors, check_batched_grad=True, check_fwd_over_rev=True)
    z, y, w, p = tensors
    assert torch.autograd.gradgradcheck(
        lambda z: torch.autograd.grad(losses(z, y, w, p).sum(), z, create_graph=True)[0], z
    )


@pytest.mark.usefixtures("path")
def test_derivative_at_zero():
    """Of |z| there is none; of the loss there is."""
    z = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64)
    (dinput,) = torch.autograd.grad(ct.binary_cross_entropy_with_logits(z, y, reduction="sum"), z, create_graph=True)
    torch.testing.assert_close(dinput, 0.5 - y)
    torch.testing.assert_close(torch.autograd.grad(dinput.sum(), z)[0], torch.full_like(z, 0.25))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_transforms(options):
    z, y, w, p = problem((6, 4))

    def loss(z):
        return ct.binary_cross_entropy_with_logits(z, y, w, pos_weight=p, **options)

    expected, gradient = reference(z, y, w, p, **options)
    torch.testing.assert_close(torch.func.grad(loss)(z), gradient)
    torch.testing.assert_close(torch.func.jvp(loss, (z,), (torch.ones_like(z),))[1], gradient.sum())
    hessian = torch.func.hessian(loss)(z).reshape(24, 24)
    again = torch.autograd.functional.hessian(loss, z).reshape(24, 24)
    torch.testing.assert_close(hessian, again)
    assert (hessian - torch.diag(hessian.diagonal()) == 0).all()
    batch = torch.stack([z, -z])
    torch.testing.assert_close(torch.func.vmap(loss)(batch)[0], expected)
    with forward_ad.dual_level():
        dual = loss(forward_ad.make_dual(z, torch.ones_like(z)))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, gradient.sum())


@pytest.mark.parametrize(
    ("dtype", "options"),
    [(torch.float32, {"reduction": "none", "label_smoothing": 0.2, "focal_gamma": 0.5}), (torch.bfloat16, {})],
    ids=str,
)
def test_compiled(dtype, options):
    """Through the operator, which inductor calls."""
    z, y, w, p = problem((9, 5), dtype)

    def loss(z):
        return ct.binary_cross_entropy_with_logits(z, y, w, pos_weight=p, **options)

    plain, fast = (x.clone().requires_grad_() for x in (z, z))
    expected, found = loss(plain), torch.compile(loss, fullgraph=True)(fast)
    close(found, expected, torch.float32)
    expected.sum().backward()
    found.sum().backward()
    close(fast.grad, plain.grad, dtype)


def test_compiled_with_respect_to_a_weight():
    """Composed, for inductor to fuse."""
    z, y, w, p = problem()

    def loss(w):
        return ct.binary_cross_entropy_with_logits(z, y, w, pos_weight=p)

    plain, fast = (x.clone().requires_grad_() for x in (w, w))
    loss(plain).backward()
    torch.compile(loss, fullgraph=True)(fast).backward()
    torch.testing.assert_close(fast.grad, plain.grad)


def test_operators():
    z, y, w, p = problem((3, 4))
    ops = torch.ops.crossentropy
    for weights in ((None, None), (w, p)):
        torch.library.opcheck(ops.binary_losses, (z.clone().requires_grad_(), y, *weights, 0.1, 2.0))
        torch.library.opcheck(
            ops.binary_gradient, (z.clone().requires_grad_(), y, torch.ones_like(z), *weights, 0.0, 0.0)
        )
    assert torch.autograd.gradcheck(
        lambda z, g: ops.binary_gradient(z, y, g, w, p, 0.1, 1.0),
        (z.clone().requires_grad_(), torch.ones_like(z).requires_grad_()),
    )
    with pytest.raises(ValueError, match="of one shape"):
        ops.binary_losses(z, y[:1], None, None, 0.0, 0.0)


def test_layouts():
    z, y, w, p = problem((6, 5))
    expected = loss_and_gradient(z, y, w, p)
    for turn in (
        lambda x: x.t().contiguous().t(),
        lambda x: x.repeat_interleave(2, 1)[:, ::2],
        lambda x: x.flip(0).flip(0),
    ):
        torch.testing.assert_close(loss_and_gradient(turn(z), turn(y), turn(w), p), expected, rtol=0, atol=0)
    for weight in (w[:1], w[:, :1], w[0], w[0, 0], w.float()):
        found, dinput = loss_and_gradient(z, y, weight, p)
        torch.testing.assert_close((found, dinput), reference(z, y, weight, p))


@pytest.mark.usefixtures("path")
def test_what_differs_from_torch():
    z, y, w, _ = problem((3, 2))
    z[0, 0], w[0, 0] = torch.nan, 0
    w[1, 1] = 0
    loss, dinput = loss_and_gradient(z, y, w, None)
    assert loss.isfinite()
    assert dinput[0, 0] == 0
    assert dinput[1, 1] == 0
    loss, dinput = loss_and_gradient(*problem((0, 3)))
    assert loss == 0
    infinite = torch.tensor([torch.inf, -torch.inf, torch.inf, -torch.inf], dtype=torch.float64)
    y = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    for gamma in (0.0, 0.5, 2.0):
        losses, dinput = loss_and_gradient(infinite, y, None, None, torch.ones(4), reduction="none", focal_gamma=gamma)
        assert losses.tolist() == [0, 0, torch.inf, torch.inf]
        assert dinput.tolist() == [0, 0, 1, -1]


@pytest.mark.usefixtures("path")
def test_derivative_with_respect_to_a_weight_of_zero():
    z, y, w, p = problem((3, 2))
    w[0] = 0
    w.requires_grad_()
    ct.binary_cross_entropy_with_logits(z, y, w, reduction="sum", pos_weight=p).backward()
    expected = ct.binary_cross_entropy_with_logits(z, y, reduction="none", pos_weight=p)
    torch.testing.assert_close(w.grad, expected)


def test_half_precision_keeps_a_loss_scale():
    z = torch.tensor([-12.0], dtype=torch.float16, requires_grad=True)
    (65536 * ct.binary_cross_entropy_with_logits(z, torch.zeros(1))).backward()
    torch.testing.assert_close(z.grad, (65536 * torch.sigmoid(torch.tensor([-12.0]))).half())


def test_errors_are_torchs():
    z, y = torch.randn(3, 2), torch.rand(3, 2)
    for args, kwargs in (
        ((z, y[:1]), {}),
        ((z, y.long()), {}),
        ((z.long(), y), {}),
        ((z, y), {"reduction": "average"}),
        ((z, y, torch.ones(4)), {}),
        ((z, y, torch.ones(1, 1, 1, 2)), {}),
        ((z, y), {"pos_weight": torch.ones(4)}),
        ((z, [0.5]), {}),
    ):
        with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever it is
            F.binary_cross_entropy_with_logits(*args, **kwargs)
        with pytest.raises(theirs.type) as ours:
            ct.binary_cross_entropy_with_logits(*args, **kwargs)
        assert str(ours.value) == str(theirs.value)
    for options in ({"label_smoothing": 2.0}, {"focal_gamma": -1.0}):
        with pytest.raises(ValueError, match="expected a"):
            ct.binary_cross_entropy_with_logits(z, y, **options)
    for weights in ({"weight": torch.tensor(torch.inf)}, {"pos_weight": torch.tensor([1.0, torch.nan])}):
        with pytest.raises(ValueError, match="weight: expected finite weights"):
            ct.binary_cross_entropy_with_logits(z, y, **weights)


def test_deprecated_arguments():
    z, y, w, p = problem()
    with pytest.warns(UserWarning, match="deprecated"):
        found = ct.binary_cross_entropy_with_logits(z, y, w, False, None, pos_weight=p)
    torch.testing.assert_close(found, reference(z, y, w, p, "sum")[0])


def test_module():
    z, y, w, p = problem()
    module = ct.BCEWithLogitsLoss(w, pos_weight=p, label_smoothing=0.1, focal_gamma=1.0)
    torch.testing.assert_close(module(z, y), reference(z, y, w, p, label_smoothing=0.1, focal_gamma=1.0)[0])
    theirs = torch.nn.BCEWithLogitsLoss(w, pos_weight=p)
    ours = ct.BCEWithLogitsLoss()
    ours.register_buffer("weight", torch.ones(5, 3))
    ours.register_buffer("pos_weight", torch.ones(3))
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(z, y), theirs(z, y))
    assert EPS[ours(z, y).dtype] < 1e-13
