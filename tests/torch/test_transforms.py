"""crossentropy.torch under every transform of torch: compared with torch.nn.functional under the same."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode
from torch.func import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.library import opcheck
from torch_oracle import loss_and_gradient, problem

import crossentropy.torch as ct
from crossentropy._options import LossOptions

Z, T = torch.arange(15.0).reshape(3, 5).sin(), torch.tensor([1, 2, 3])


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
NOT_COMPILED_BY_TORCH = ["vmap of hessian", "linearize"]  # of its own function neither


@pytest.mark.parametrize("name", OURS)
def test_transform(name):
    torch.testing.assert_close(OURS[name](), THEIRS[name]())


@pytest.mark.parametrize("name", [name for name in OURS if name not in NOT_COMPILED_BY_TORCH])
def test_compiled_transform(name):
    torch.testing.assert_close(torch.compile(OURS[name], fullgraph=True, backend="aot_eager")(), THEIRS[name]())


@pytest.mark.parametrize("name", NOT_COMPILED_BY_TORCH)
def test_torch_still_does_not_compile(name):
    # In a process of its own: what fails halfway leaves torch in whatever state it was.
    code = (
        f"import test_transforms as t, torch; torch.compile(t.THEIRS[{name!r}], fullgraph=True, backend='aot_eager')()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode
    assert "torch._dynamo.exc" in done.stderr


def test_compiled_by_inductor():
    @torch.compile(fullgraph=True, dynamic=True)
    def step(z, t, options):
        return ct.cross_entropy(3 * z, t, **options).exp()

    for rows in (4, 7):
        for options in ({}, {"z_loss": 0.1, "softcap": 2.0, "temperature": 0.5, "label_smoothing": 0.1}):
            z, t, _, _ = problem((rows, 5))
            loss, dlogits = loss_and_gradient(z, t, function=lambda z, t, options=options: step(z, t, options))
            expected = loss_and_gradient(
                z, t, function=lambda z, t, options=options: ct.cross_entropy(3 * z, t, **options).exp()
            )
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
        torch.testing.assert_close(program.module()(Z, T), ct.cross_entropy(Z, T, label_smoothing=0.1))
        assert any("crossentropy.loss" in str(node.target) for node in program.graph.nodes)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traced():
    traced = torch.jit.trace(lambda z, t: ct.cross_entropy(z, t, label_smoothing=0.1), (Z, T))
    z, t = torch.randn(4, 5), torch.tensor([4, 0, -100, 1])
    torch.testing.assert_close(loss_and_gradient(z, t, function=traced), loss_and_gradient(z, t, label_smoothing=0.1))


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
    rest = (w, s, -100, LossOptions(label_smoothing=0.1).numbers)
    opcheck(torch.ops.crossentropy.row_losses, (z.requires_grad_(), t, *rest))
    g = torch.rand(s.shape, dtype=torch.float64)
    opcheck(torch.ops.crossentropy.row_gradient, (z, t, g, *rest))
    opcheck(
        torch.ops.crossentropy.row_gradient, (z.detach().transpose(0, -1).contiguous().transpose(0, -1), t, g, *rest)
    )
    losses = vmap(lambda z: torch.ops.crossentropy.row_losses(z, t, *rest))(torch.stack([z, 2 * z]).detach())
    assert torch.equal(losses[1], torch.ops.crossentropy.row_losses(2 * z.detach(), t, *rest))


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("mapped", [m for m in itertools.product((False, True), repeat=5) if any(m)], ids=str)
def test_vmap_of_operators_over_any_of_their_tensors(mapped, probabilities):
    """Logits, targets, class weights, sample weights and the upstream gradient: mapped or shared by the batch."""
    options = (-100, LossOptions(label_smoothing=0.1, softcap=5.0).numbers)
    problems = [problem((4, 5), probabilities) for _ in range(3)]
    each = [(*p, torch.rand(4, dtype=torch.float64)) for p in problems]
    each = [tuple(new if m else old for m, new, old in zip(mapped, one, each[0], strict=True)) for one in each]
    given = [
        torch.stack([one[i] for one in each], -1 if i < 4 else 0) if m else each[0][i] for i, m in enumerate(mapped)
    ]
    dims = tuple((-1 if i < 4 else 0) if m else None for i, m in enumerate(mapped))

    def gradient(z, t, w, s, g):
        return torch.ops.crossentropy.row_gradient(z, t, g, w, s, *options)

    def losses(z, t, w, s):
        return torch.ops.crossentropy.row_losses(z, t, w, s, *options)

    expected = torch.stack([gradient(*one) for one in each])
    assert torch.equal(vmap(gradient, in_dims=dims)(*given), expected)
    if any(mapped[:4]):
        assert torch.equal(vmap(losses, in_dims=dims[:4])(*given[:4]), torch.stack([losses(*one[:4]) for one in each]))


def test_vmap_of_no_rows():
    z, t = torch.randn(3, 0, 5), torch.zeros(3, 0, dtype=torch.long)
    assert vmap(ct.cross_entropy)(z, t).tolist() == [0, 0, 0]
    assert vmap(grad(ct.cross_entropy))(z, t).shape == z.shape


def test_forward_mode():
    z, v = torch.randn(3, 5).double(), torch.randn(3, 5).double()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z, v)
        tangent = torch.autograd.forward_ad.unpack_dual(ct.cross_entropy(dual, T)).tangent
    torch.testing.assert_close(tangent, jvp(lambda z: F.cross_entropy(z, T), (z,), (v,))[1])
    x = z.clone().requires_grad_()
    with torch.device("cpu"):  # a mode, so that the operator is called
        by_operator = ct.cross_entropy(x, T)
    for loss in (ct.cross_entropy(x, T), by_operator):
        check_upstream_tangent(loss, x)


def check_upstream_tangent(loss, x):
    """The gradient is linear in its upstream gradient, also where that moves after the loss was computed."""
    with torch.autograd.forward_ad.dual_level():
        upstream = torch.autograd.forward_ad.make_dual(
            torch.ones((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        )
        (dlogits,) = torch.autograd.grad(loss, x, upstream)
        tangent = torch.autograd.forward_ad.unpack_dual(dlogits).tangent
    torch.testing.assert_close(tangent, loss_and_gradient(x, T)[1])


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
    with torch.autocast("cpu", dtype=torch.bfloat16):
        head = ct.linear_cross_entropy(z, model.weight, T)
    product = z.bfloat16() @ model.weight.bfloat16().t()
    assert torch.equal(head, ct.cross_entropy(product, T))
