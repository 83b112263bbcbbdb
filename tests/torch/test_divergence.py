"""crossentropy.torch's divergences: values and gradients against mpmath, derivatives against torch's."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from family_oracle import divergence, worst
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.library import opcheck

import crossentropy as ce
import crossentropy.torch as ct
from crossentropy import _head
from crossentropy._options import LossOptions
from crossentropy.torch import _divergence_kernel
from crossentropy.torch._composed_divergence import DivergenceOptions

KINDS = ["forward", "reverse", 0.5, 0.001]
INF = math.inf


def of(kind, *args, **options):
    if isinstance(kind, str):
        return ct.kl_divergence(*args, direction=kind, **options)
    return ct.jensen_shannon(*args, beta=kind, **options)


def of_head(kind, *args, **options):
    if isinstance(kind, str):
        return ct.linear_kl_divergence(*args, direction=kind, **options)
    return ct.linear_jensen_shannon(*args, beta=kind, **options)


def plain(kind, z, w):
    """One divergence a row in torch's operators, digits apart."""
    a, b = z.log_softmax(1), w.log_softmax(1)
    if not isinstance(kind, str):
        m = (kind * b.exp() + (1 - kind) * a.exp()).log()
        return (kind * b.exp() * (b - m) + (1 - kind) * a.exp() * (a - m)).sum(1)
    if kind == "reverse":
        a, b = b, a
    return (b.exp() * (b - a)).sum(1)


def value_and_gradients(kind, z, w, **options):
    z, w = z.detach().requires_grad_(), w.detach().requires_grad_()
    value = of(kind, z, w, **options)
    return value.detach(), *torch.autograd.grad(value.sum(), (z, w))


# Digits.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-3), (torch.float64, 1e-9), (torch.float64, 1e-3)])
@pytest.mark.parametrize(
    ("spread", "shift", "temperature"), [(1.0, 0.0, 1.0), (3.0, 1e4, 1.0), (3.0, 0.0, 0.7), (20.0, 0.0, 1.0)]
)
def test_nearly_equal_models(spread, shift, temperature, dtype, apart, kind, path):
    w = spread * torch.randn(1, 20, dtype=dtype)
    check_digits(kind, w + apart * torch.randn(1, 20, dtype=dtype) + shift, w, temperature, 30 if spread < 20 else 400)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("apart", [1.0, 10.0, 60.0])
def test_different_models(apart, dtype, kind, path):
    w = torch.randn(1, 20, dtype=dtype)
    check_digits(kind, w + apart * torch.randn(1, 20, dtype=dtype), w, 1.0, 600)


def check_digits(kind, z, w, temperature, allowed):
    value, dz, dw = value_and_gradients(kind, z, w, temperature=temperature)
    exact, student, teacher, scale = divergence(z[0], w[0], kind, temperature)
    if not isinstance(kind, str):
        scale = [kind * (1 - kind) * x for x in scale]
    assert worst(value, [exact]) < max(40, allowed / 4)
    for actual, expected in ((dz, student), (dw, teacher)):
        normal = [s if s > 1e-25 else mp.mpf(0) for s in scale]  # else float32 has fewer digits for it
        assert worst(actual, expected, normal) < allowed


@pytest.mark.parametrize("kind", KINDS)
def test_equal_models(kind, path):
    w = torch.randn(6, 50)
    for z in (w, w + 0.0, (w * 1024).round() / 1024):
        same = z + 8 if z is not w else z
        for options in ({}, {"softcap": 5.0, "teacher_softcap": 5.0, "temperature": 0.3}):
            other = z if options else same  # up to an exact constant, which a cap does not leave alone
            if torch.equal(other - z, torch.full_like(z, (other - z)[0, 0].item())):
                value, dz, dw = value_and_gradients(kind, other, z, **options)
                assert value == 0
                assert not dz.any()
                assert not dw.any()


@pytest.mark.parametrize("kind", KINDS)
def test_soft_caps(kind, path):
    z, w = 5 * torch.randn(1, 20).double(), 5 * torch.randn(1, 20).double()
    for caps in ((2.0, 2.0), (2.0, None), (None, 3.0), (2.0, 3.0)):
        value = of(kind, z, w, softcap=caps[0], teacher_softcap=caps[1])
        assert worst(value, [divergence(z[0], w[0], kind, 1.0, *caps)[0]]) < 100
    near = z + 1e-8 * torch.randn(1, 20).double()
    exact = divergence(near[0], z[0], kind, 1.0, 20.0, 20.0)[0]
    assert worst(of(kind, near, z, softcap=20.0, teacher_softcap=20.0), [exact]) < 1e4  # of 1e8 without any care


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype, kind, path):
    w = (3 * torch.randn(6, 50)).to(dtype)
    z = (w + 0.5 * torch.randn(6, 50)).to(dtype)
    value, dz, dw = value_and_gradients(kind, z, w, reduction="sum")
    exact, student, teacher = value_and_gradients(kind, z.double(), w.double(), reduction="sum")
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=0)
    for actual, expected in ((dz, student), (dw, teacher)):
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-7)
    mixed = of(kind, z, w.float())
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.double(), exact / 6, rtol=1e-6, atol=0)
    assert of(kind, z, w.double()).dtype == torch.float64


# Shapes, weights, infinities.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(5,), (6, 5), (4, 5, 2, 3), (0, 5), (6, 1)], ids=str)
def test_shapes_weights_and_reductions(shape, kind, path):
    axis = min(1, len(shape) - 1)
    rows = shape[:axis] + shape[axis + 1 :]
    z, w, s = torch.randn(shape).double(), torch.randn(shape).double(), torch.rand(rows).double()
    expected = plain(kind, z if axis else z[None], w if axis else w[None]).reshape(rows)
    torch.testing.assert_close(of(kind, z, w, reduction="none"), expected)
    torch.testing.assert_close(of(kind, z, w, reduction="sum", sample_weight=s), (s * expected).sum())
    mean = (s * expected).sum() / s.sum() if s.numel() else torch.zeros(()).double()
    torch.testing.assert_close(of(kind, z, w, sample_weight=s), mean)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_do_not_count_hold_anything(kind, path):
    z, w, s = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([1.0, 0.0, 2.0, 1.0])
    z[1], w[1] = math.nan, INF
    value, dz, dw = value_and_gradients(kind, z, w, sample_weight=s)
    kept = s != 0
    expected = value_and_gradients(kind, z[kept], w[kept], sample_weight=s[kept])
    torch.testing.assert_close((value, dz[kept], dw[kept]), expected)
    assert not dz[1].any()
    assert not dw[1].any()
    assert of(kind, z, w, sample_weight=torch.zeros(4)) == 0
    one = of(kind, z, w, reduction="none")  # NaN stays in its row
    assert one.isnan().tolist() == [False, True, False, False]


def test_learnt_weights():
    z, w, s = torch.randn(4, 5).double(), torch.randn(4, 5).double(), torch.rand(4).double().requires_grad_()
    rows = plain("forward", z, w)
    expected = torch.autograd.grad((s * rows).sum() / s.sum(), s)
    torch.testing.assert_close(torch.autograd.grad(ct.kl_divergence(z, w, sample_weight=s), s), expected)


A, B, MISSING, AT_TOP = [1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [1.0, -INF, 3.0], [1.0, 2.0, -INF]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("z", "w"),
    [
        (MISSING, A), (A, MISSING), (AT_TOP, A), (A, AT_TOP), (MISSING, [2.0, -INF, 3.5]), (AT_TOP, MISSING),
        ([1.0, -INF, 2.0], [-INF, 1.0, -INF]), ([200.0, 0.0, 1.0], [0.0, 200.0, 1.0]),
    ],
    ids=str,
)  # fmt: skip
def test_infinite_logits(z, w, kind, path):
    value, dz, dw = value_and_gradients(kind, torch.tensor([z]).double(), torch.tensor([w]).double())
    p, q = torch.tensor(z).double().softmax(0), torch.tensor(w).double().softmax(0)
    student_only, teacher_only = (p > 0) & (q == 0), (q > 0) & (p == 0)
    infinite = (kind == "forward" and teacher_only.any()) or (kind == "reverse" and student_only.any())
    if infinite:
        assert value == INF
        finite, expected = (dz, p - q) if kind == "forward" else (dw, q - p)
        torch.testing.assert_close(finite[0], expected)
        if path == "core" and (p > 0).logical_and(q > 0).any():
            other, only = (dw, teacher_only) if kind == "forward" else (dz, student_only)
            assert (other[0][only] == INF).all()
            assert (other[0][((q if kind == "forward" else p) > 0) & ~only] == -INF).all()
        return
    first, second = (p, q) if kind == "reverse" else (q, p)

    def from_to(a, b):
        return torch.where(a > 0, a * (a / b).log(), 0.0).sum()

    if isinstance(kind, str):
        expected = from_to(first, second)
    else:
        m = kind * q + (1 - kind) * p
        expected = kind * from_to(q, m) + (1 - kind) * from_to(p, m)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    assert dz.isfinite().all()
    assert dw.isfinite().all()
    assert abs(dz.sum()) < 1e-15
    if kind == "forward":
        torch.testing.assert_close(dz[0], p - q)
    if kind == "reverse":
        torch.testing.assert_close(dw[0], q - p)


@pytest.mark.parametrize("row", [[-INF] * 3, [1.0, INF, 0.0], [1.0, math.nan, 0.0]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_a_distribution(kind, row, path):
    for z, w in (([row, A], [A, B]), ([A, A], [row, B])):
        value, dz, dw = value_and_gradients(kind, torch.tensor(z), torch.tensor(w), reduction="none")
        assert value.isnan().tolist() == [True, False]
        for gradient in (dz, dw):
            assert gradient[0].isnan().any()
            assert gradient[1].isfinite().all()


# Derivatives.

Z, W, V = (torch.randn(3, 4).double() for _ in range(3))
TRANSFORMS = {
    "grad": lambda f: grad(f, argnums=(0, 1))(Z, W),
    "hessian": lambda f: hessian(f, argnums=(0, 1))(Z, W),
    "jvp": lambda f: jvp(f, (Z, W), (V, Z)),
    "jacfwd twice": lambda f: jacfwd(jacfwd(f), argnums=1)(Z, W),
    "third": lambda f: jacrev(jacrev(jacrev(f)), argnums=1)(Z, W),
    "vmap of grad": lambda f: vmap(grad(f, argnums=1), in_dims=(0, None))(torch.stack([Z, V]), W),
}


@pytest.mark.parametrize("kind", ["forward", "reverse", 0.3])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name, kind):
    ours = TRANSFORMS[name](lambda z, w: of(kind, z, w, reduction="sum"))
    torch.testing.assert_close(ours, TRANSFORMS[name](lambda z, w: plain(kind, z, w).sum()))


@pytest.mark.parametrize("kind", ["forward", 0.3])
@pytest.mark.parametrize("name", ["grad", "jvp", "vmap of grad"])
def test_compiled_transforms(name, kind):
    def transformed():
        return TRANSFORMS[name](lambda z, w: of(kind, z, w, reduction="sum"))

    expected = TRANSFORMS[name](lambda z, w: plain(kind, z, w).sum())
    torch.testing.assert_close(torch.compile(transformed, fullgraph=True, backend="aot_eager")(), expected)


@pytest.mark.parametrize("kind", ["forward", "reverse", 0.3])
def test_differentiates_twice(kind):
    z, w = Z[:2, :3].clone().requires_grad_(), W[:2, :3].clone().requires_grad_()
    s = torch.tensor([2.0, 0.5]).double()

    def loss(z, w):
        return of(kind, z, w, softcap=3.0, temperature=0.7, sample_weight=s)

    assert torch.autograd.gradcheck(loss, (z, w), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(loss, (z, w))


@pytest.mark.parametrize("kind", ["forward", "reverse", 0.3])
def test_second_derivatives_at_equal_models(kind):
    """Those of nearly equal models: in the student's logits diag(p) - p p, times beta (1 - beta) for the mixture."""
    p = Z.softmax(1)[0]
    expected = torch.diag(p) - torch.outer(p, p)
    if not isinstance(kind, str):
        expected = kind * (1 - kind) * expected
    for argnums, sign in (((0, 0), 1), ((1, 1), 1), ((0, 1), -1)):
        second = jacrev(jacrev(lambda z, w: of(kind, z, w), argnums[0]), argnums[1])
        torch.testing.assert_close(second(Z[0], Z[0]), sign * expected)


def test_compiled_by_inductor():
    compiled = torch.compile(ct.kl_divergence, fullgraph=True)
    w = torch.randn(4, 6)
    for apart in (1.0, 1e-3):
        z = (w + apart * torch.randn(4, 6)).requires_grad_()
        loss, expected = compiled(z, w), ct.kl_divergence(z, w)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
        actual, (dz,) = torch.autograd.grad(loss, z)[0], torch.autograd.grad(expected, z)
        assert (actual - dz).abs().max() < 1e-5 * dz.abs().max()


@pytest.mark.parametrize(("shape", "kind"), [((4, 5), "forward"), ((2, 5, 3), 0.3)])
def test_operators_are_registered_right(shape, kind):
    z, w = torch.randn(shape).double(), torch.randn(shape).double()
    s = torch.rand(shape[0], *shape[2:]).double()
    rest = _divergence_kernel.numbers_of(DivergenceOptions(kind, LossOptions(softcap=3.0), LossOptions()))
    opcheck(torch.ops.crossentropy.row_divergences, (z.requires_grad_(), w.requires_grad_(), s, *rest))
    z, w = z.detach(), w.detach()
    opcheck(torch.ops.crossentropy.divergence_gradients, (z, w, None, s, kind == "forward", True, *rest))


@pytest.mark.parametrize("kind", ["forward", "reverse", 0.3])
def test_compiled_and_twice_differentiated(kind):
    def penalty(of, z, w):
        rows = of(z, w)
        dz, dw = torch.autograd.grad(rows.square().sum(), (z, w), create_graph=True)
        return dz.square().sum() + dw.pow(3).sum()

    z, w = Z.clone().requires_grad_(), W.clone().requires_grad_()
    compiled = torch.compile(lambda z, w: of(kind, z, w, reduction="none"), fullgraph=True, backend="eager")
    expected = torch.autograd.grad(penalty(lambda z, w: plain(kind, z, w), z, w), (z, w))
    torch.testing.assert_close(torch.autograd.grad(penalty(compiled, z, w), (z, w)), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_as_for_arrays(kind):
    z, w = torch.randn(7, 40), torch.randn(7, 40)
    value, dz, dw = value_and_gradients(kind, z, w, softcap=20.0)
    options = {"axis": 1, "softcap": 20.0, "wrt": ("logits", "teacher_logits")}
    if isinstance(kind, str):
        expected, gradients = ce.kl_divergence_with_grad(z.numpy(), w.numpy(), direction=kind, **options)
    else:
        expected, gradients = ce.jensen_shannon_with_grad(z.numpy(), w.numpy(), beta=kind, **options)
    assert value.item() == np.float32(expected)
    for actual, exact in zip((dz, dw), gradients, strict=True):
        assert torch.equal(actual, torch.from_numpy(exact))


def test_a_loss_scale_enters_before_rounding():
    z, w = torch.randn(64, 50).half().requires_grad_(), torch.randn(64, 50).half().requires_grad_()
    for scale in (65536.0, 1.0, 1e-3):
        gradients = torch.autograd.grad(ct.kl_divergence(z, w), (z, w), torch.tensor(scale))
        wide = z.detach().double().requires_grad_(), w.detach().double().requires_grad_()
        expected = torch.autograd.grad(ct.kl_divergence(*wide), wide, torch.tensor(scale).double())
        for actual, exact in zip(gradients, expected, strict=True):
            torch.testing.assert_close(actual.double(), exact, rtol=2**-10, atol=2**-24)


def test_second_backward_and_saved_tensors():
    z, w = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5)
    loss = ct.kl_divergence(z, w)
    (first,) = torch.autograd.grad(loss, z, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss, z, torch.tensor(2.0))
    assert torch.equal(first, kept)
    assert torch.equal(second, 2 * kept)
    y = z * 1
    loss = ct.kl_divergence(y, w)
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_meta_tensors():
    z = torch.randn(3, 5, 2, device="meta", dtype=torch.float16, requires_grad=True)
    loss = ct.jensen_shannon(z, torch.randn(3, 5, 2, device="meta"), reduction="none")
    loss.sum().backward()
    assert (loss.device.type, loss.shape, loss.dtype, z.grad.dtype) == ("meta", (3, 2), torch.float32, torch.float16)


# Errors.


@pytest.mark.parametrize(
    ("args", "options", "error", "match"),
    [
        ((Z, W.numpy()), {}, TypeError, "teacher_input: expected a Tensor, got ndarray"),
        ((Z.long(), W), {}, TypeError, "input: expected float16"),
        ((Z, W[:2]), {}, ValueError, r"teacher_input: expected the shape of input, \(3, 4\), got \(2, 4\)"),
        ((Z[:, :0], W[:, :0]), {}, ValueError, "input: expected shape .* at least one class"),
        ((Z, W), {"teacher_softcap": 0.0}, ValueError, "^teacher_softcap: expected"),
        ((Z, W), {"softcap": 0.0}, ValueError, "^softcap: expected"),
        ((Z, W), {"temperature": 0.0}, ValueError, "^temperature: expected"),
        ((Z, W), {"reduction": "batchmean"}, ValueError, "^reduction: expected"),
        ((Z, W), {"sample_weight": torch.ones(2)}, ValueError, "^sample_weight: expected"),
        ((Z, W), {"ignore_index": 1}, TypeError, "ignore_index"),
        ((Z, W), {"label_smoothing": 0.1}, TypeError, "label_smoothing"),
    ],
)
def test_refuses(args, options, error, match):
    for function in (ct.kl_divergence, ct.jensen_shannon):
        with pytest.raises(error, match=match):
            function(*args, **options)


def test_refuses_directions_and_betas():
    with pytest.raises(ValueError, match="direction: expected 'forward' or 'reverse', got 'backward'"):
        ct.kl_divergence(Z, W, direction="backward")
    for beta in (0, 1.0, -1, math.nan):
        with pytest.raises(ValueError, match=r"beta: expected a number in \(0, 1\).* kl_divergence"):
            ct.jensen_shannon(Z, W, beta=beta)
    with pytest.raises(TypeError, match="beta: expected a number"):
        ct.jensen_shannon(Z, W, beta="half")


# From hidden states.


@pytest.mark.parametrize("chunk", [1, 3, 1000], ids="{} rows a chunk".format)
@pytest.mark.parametrize("places", [(), (2,)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["forward", "reverse", 0.3])
def test_head_equals_whole_logits(kind, chunk, places, bias, path, monkeypatch):
    monkeypatch.setattr(_head, "MAX_LOGITS_BYTES", 2 * chunk * 5 * math.prod(places) * 8)
    h, W = torch.randn(7, 4).double().requires_grad_(), torch.randn(5, *places, 4).double().requires_grad_()
    g, U = torch.randn(7, 3).double().requires_grad_(), torch.randn(5, *places, 3).double().requires_grad_()
    b, c = (torch.randn(5, *places).double().requires_grad_() if bias else None for _ in range(2))
    s = torch.rand(7, *places).double()
    s[1] = 0
    wanted = [tensor for tensor in (h, W, b, g, U, c) if tensor is not None]

    def logits(h, W, b):
        return F.linear(h, W.flatten(0, -2), None if b is None else b.flatten()).unflatten(1, (5, *places))

    for reduction in ("mean", "sum", "none"):
        options = {"reduction": reduction, "sample_weight": s, "temperature": 0.8, "teacher_softcap": 4.0}
        expected = of(kind, logits(h, W, b), logits(g, U, c), **options)
        actual = of_head(kind, h, W, g, U, linear_bias=b, teacher_linear_bias=c, **options)
        torch.testing.assert_close(actual, expected)
        upstream = torch.randn_like(expected)
        found = torch.autograd.grad(actual, wanted, upstream, retain_graph=True)
        torch.testing.assert_close(found, torch.autograd.grad(expected, wanted, upstream, retain_graph=True))
        (alone,) = torch.autograd.grad(of_head(kind, h, W, g.detach(), U.detach(), **options), W, upstream)
        expected = of(kind, logits(h, W, None), logits(g, U, None).detach(), **options)
        torch.testing.assert_close(alone, torch.autograd.grad(expected, W, upstream)[0])


@pytest.mark.parametrize("kind", ["forward", "reverse", 0.3])
def test_head_of_equal_models_and_of_rows_that_do_not_count(kind, path):
    h, W = torch.randn(6, 4), torch.randn(50, 4).requires_grad_()
    loss = of_head(kind, h, W, h, W.detach())
    assert loss == 0
    assert not torch.autograd.grad(loss, W)[0].any()
    h[2] = math.nan
    s = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    loss = of_head(kind, h, W, torch.randn(6, 4), W.detach() + 0.1, sample_weight=s)
    assert torch.autograd.grad(loss, W)[0].isfinite().all()
    assert of_head(kind, h[0], W, h[0], 2 * W.detach(), reduction="none").shape == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_head_in_half_precision(dtype):
    h, W, g, U = (torch.randn(n).to(dtype).requires_grad_() for n in ((64, 32), (100, 32), (64, 16), (100, 16)))
    loss = ct.linear_kl_divergence(h, W, g, U)
    wide = [tensor.detach().double().requires_grad_() for tensor in (h, W, g, U)]
    exact = ct.linear_kl_divergence(*wide)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=4 * torch.finfo(dtype).eps)
    for actual, expected in zip(torch.autograd.grad(loss, (h, W, g, U)), torch.autograd.grad(exact, wide), strict=True):
        assert actual.dtype == dtype
        assert (actual.double() - expected).norm() < 8 * torch.finfo(dtype).eps * expected.norm()


def test_head_differentiates_twice_in_chunks(monkeypatch):
    monkeypatch.setattr(_head, "MAX_LOGITS_BYTES", 2 * 3 * 8)
    tensors = [torch.randn(n, dtype=torch.float64, requires_grad=True) for n in ((2, 2), (3, 2), (2, 1), (3, 1))]
    assert torch.autograd.gradcheck(ct.linear_kl_divergence, tensors)
    assert torch.autograd.gradgradcheck(ct.linear_kl_divergence, tensors)


def test_head_compiled():
    tensors = [torch.randn(n, requires_grad=True) for n in ((6, 4), (7, 4), (6, 3), (7, 3))]
    expected = torch.autograd.grad(ct.linear_kl_divergence(*tensors), tensors)
    compiled = torch.compile(ct.linear_kl_divergence, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(*tensors), tensors), expected)


def test_head_refuses():
    h, W, g, U = torch.randn(4, 3), torch.randn(5, 3), torch.randn(4, 2), torch.randn(5, 2)
    for args, options, match in (
        ((h, W, g[:3], U), {}, "teacher_input: expected"),
        ((h, W, g, U[:4]), {}, "teacher_linear_weight: expected"),
        ((h, W, g, W), {}, r"teacher_linear_weight: expected shape \(C, 2\)"),
        ((h, W, g, U), {"teacher_linear_bias": torch.zeros(4)}, r"teacher_linear_bias: expected shape \(5,\)"),
        ((h, W, g, U), {"sample_weight": torch.ones(3)}, "sample_weight: expected"),
        ((h, W, g, U), {"teacher_softcap": -1.0}, "teacher_softcap: expected"),
    ):
        for function in (ct.linear_kl_divergence, ct.linear_jensen_shannon):
            with pytest.raises(ValueError, match=match):
                function(*args, **options)


@pytest.mark.parametrize("function", [ct.kl_divergence, ct.jensen_shannon])
def test_weights_that_cancel_have_no_mean(function):
    z = torch.randn(3, 4, requires_grad=True)
    value = function(z, torch.randn(3, 4), sample_weight=torch.tensor([1.0, -1.0, 0.0]))
    assert value.isnan()
    (gradient,) = torch.autograd.grad(value, z)
    assert gradient[:2].isnan().all()
    assert (gradient[2] == 0).all()
    assert function(z, torch.randn(3, 4), sample_weight=torch.zeros(3)) == 0
