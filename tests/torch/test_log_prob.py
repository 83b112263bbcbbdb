"""crossentropy.torch.log_prob and linear_log_prob: values against mpmath, derivatives against torch's."""

import math

import mpmath as mp
import pytest
import torch
import torch.nn.functional as F
from family_oracle import entropy, log_softmax, worst
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.library import opcheck

import crossentropy as ce
import crossentropy.torch as ct
from crossentropy import _head
from crossentropy._options import LossOptions

DTYPES = [torch.float32, torch.float64]


def plain(z, t, ignore_index=-100):
    """The same in torch's operators, digits apart."""
    logs = z.log_softmax(1)
    index = t.unsqueeze(1) if t.dim() < z.dim() else t
    counted = index != ignore_index
    log_probs = torch.where(counted, logs.gather(1, torch.where(counted, index, 0)), 0.0)
    entropies = torch.where(counted.any(1), -(logs.exp() * logs).sum(1), 0.0)
    return log_probs.reshape(t.shape), entropies


# Digits.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("gap", [0.0, 1e-3, 20.0, 40.0])
def test_keeps_its_digits(gap, shift, temperature, dtype, path):
    z = torch.randn(1, 30, dtype=dtype) * (gap if gap == 1e-3 else 1.0)
    z[0, 7] = z.max() + gap
    z = (z + shift).requires_grad_()
    t = torch.tensor([[7, 3]])
    chosen, h = ct.log_prob(z, t, entropy=True, temperature=temperature)
    logs = log_softmax(z[0], temperature)
    exact_h, dh, scale = entropy(z[0], temperature)
    allowed = 8 + 2 * gap  # differences of logits are rounded once
    assert worst(chosen, [logs[7], logs[3]]) < allowed
    assert worst(h, [exact_h]) < allowed
    assert worst(torch.autograd.grad(h, z, retain_graph=True)[0], dh, scale) < allowed
    p = [mp.exp(x) for x in logs]
    for k, c in enumerate(t[0].tolist()):
        exact = [-x / mp.mpf(temperature) for x in p]
        exact[c] = mp.fsum(x for i, x in enumerate(p) if i != c) / mp.mpf(temperature)
        assert worst(torch.autograd.grad(chosen[0, k], z, retain_graph=True)[0], exact) < allowed


def test_nearly_tied_classes(path):
    """The entropy's gradient is of the order of their distance, not of their probability."""
    z = torch.tensor([[1.0, 1.0 + 2**-13, -40.0]], requires_grad=True)
    ct.log_prob(z, torch.tensor([0]), entropy=True)[1].backward()
    _, expected, scale = entropy(z[0])
    assert worst(z.grad, expected, scale) < 30


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype, path):
    z, t = (3 * torch.randn(6, 50)).to(dtype).requires_grad_(), torch.randint(0, 50, (6, 4))
    results = ct.log_prob(z, t, entropy=True)
    wide = z.detach().double().requires_grad_()
    exact = ct.log_prob(wide, t, entropy=True)
    upstream = [torch.randn_like(result) for result in results]
    for result, expected in zip(results, exact, strict=True):
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=0)
    (dz,) = torch.autograd.grad(results, z, upstream)
    (expected,) = torch.autograd.grad(exact, wide, [g.double() for g in upstream])
    assert dz.dtype == dtype
    torch.testing.assert_close(dz.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-7)


# Shapes, rows that do not count, infinities.


@pytest.mark.parametrize("several", [(), (3,), (0,)], ids=str)
@pytest.mark.parametrize("shape", [(5,), (6, 5), (4, 5, 2, 3)], ids=str)
def test_shapes(shape, several, path):
    axis = min(1, len(shape) - 1)
    rows = shape[:axis] + shape[axis + 1 :]
    z, t = torch.randn(shape).double(), torch.randint(0, 5, (*shape[:axis], *several, *shape[axis + 1 :]))
    chosen, h = ct.log_prob(z, t, entropy=True)
    assert chosen.shape == t.shape
    assert h.shape == rows
    batch, targets = (z, t) if axis else (z.unsqueeze(0), t.unsqueeze(0))
    expected = plain(batch, targets)
    torch.testing.assert_close(chosen, expected[0].reshape(t.shape))
    torch.testing.assert_close(h, expected[1].reshape(rows) if several != (0,) else torch.zeros(rows).double())
    assert torch.equal(ct.log_prob(z, t.to(torch.uint8)), chosen)


def test_ignored_indices_and_rows(path):
    z = torch.randn(4, 5)
    z[1] = math.nan
    z.requires_grad_()
    for t in (torch.tensor([1, -100, 2, 0]), torch.tensor([[1, -100], [-100, -100], [2, 2], [-100, 4]])):
        chosen, h = ct.log_prob(z, t, entropy=True)
        assert not chosen[t == -100].any()
        assert h[1] == 0
        (dz,) = torch.autograd.grad((chosen, h), z, (torch.ones_like(chosen), torch.ones_like(h)))
        assert not dz[1].any()
        assert dz.isfinite().all()
        torch.testing.assert_close(chosen[2:], plain(z[2:], t[2:])[0])
    assert ct.log_prob(z[2:].detach(), torch.tensor([3, 0]), ignore_index=3)[0] == 0
    with pytest.raises(IndexError, match=r"target: expected class indices in \[0, 5\), got -100"):
        ct.log_prob(z.detach(), torch.tensor([1, -100, 2, 0]), ignore_index=None)


def test_infinite_logits(path):
    z = torch.tensor([[1.0, -math.inf, 2.0], [-math.inf] * 3, [math.inf, 0.0, 0.0], [0.0, math.nan, 1.0]])
    z.requires_grad_()
    chosen, h = ct.log_prob(z, torch.tensor([1, 0, 0, 0]), entropy=True)
    assert chosen[0] == -math.inf
    assert h[0].item() == pytest.approx(float(entropy(z[0, ::2])[0]), rel=1e-6)
    assert chosen[1:].isnan().all()
    assert h[1:].isnan().all()
    dz = torch.autograd.grad(chosen[0], z, retain_graph=True)[0]
    p = z[0].softmax(0)
    torch.testing.assert_close(dz[0], torch.tensor([0.0, 1.0, 0.0]) - p)
    (dz,) = torch.autograd.grad(h.sum(), z)
    assert dz[0].isfinite().all()
    assert dz[0, 1] == 0
    assert dz[1:].isnan().all()


# Derivatives.

Z, V, T = torch.randn(4, 5).double(), torch.randn(4, 5).double(), torch.tensor([1, 4, -100, 2])
SEVERAL = torch.tensor([[1, 1], [0, 4], [-100, -100], [2, -100]])


def of_both(log_prob, t):
    return lambda z: sum(result.square().sum() for result in log_prob(z, t))


TRANSFORMS = {
    "grad": lambda f: grad(f)(Z),
    "hessian": lambda f: hessian(f)(Z),
    "jvp": lambda f: jvp(f, (Z,), (V,)),
    "jacfwd twice": lambda f: jacfwd(jacfwd(f))(Z),
    "third": lambda f: jacrev(jacrev(jacrev(f)))(Z),
    "vmap of grad": lambda f: vmap(grad(f))(torch.stack([Z, V])),
}


@pytest.mark.parametrize("t", [T, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name, t):
    transform = TRANSFORMS[name]
    torch.testing.assert_close(
        transform(of_both(lambda z, t: ct.log_prob(z, t, entropy=True), t)), transform(of_both(plain, t))
    )


@pytest.mark.parametrize("name", ["grad", "hessian", "jvp", "vmap of grad"])
def test_compiled_transforms(name):
    def ours(z, t):
        return ct.log_prob(z, t, entropy=True)

    compiled = torch.compile(lambda: TRANSFORMS[name](of_both(ours, SEVERAL)), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), TRANSFORMS[name](of_both(plain, SEVERAL)))


def test_differentiates_twice():
    z = Z[:3, :3].clone().requires_grad_()
    t = torch.tensor([[1, 1], [-100, -100], [2, -100]])

    def both(z):
        return ct.log_prob(z, t, entropy=True, softcap=3.0, temperature=0.7)

    assert torch.autograd.gradcheck(both, (z,), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(both, (z,), check_fwd_over_rev=True)


def test_each_output_alone(path):
    z = Z.clone().requires_grad_()
    chosen, h = ct.log_prob(z, T, entropy=True)
    expected = plain(z, T)
    for output, reference in ((chosen, expected[0]), (h, expected[1])):
        g = torch.randn_like(output)
        actual = torch.autograd.grad(output, z, g, retain_graph=True)
        torch.testing.assert_close(actual, torch.autograd.grad(reference, z, g, retain_graph=True))


def test_compiled_by_inductor():
    @torch.compile(fullgraph=True)
    def step(z, t):
        chosen, h = ct.log_prob(2 * z, t, entropy=True)
        return chosen.sum() + 0.1 * h.sum()

    for _ in range(2):
        z, t = torch.randn(4, 6, requires_grad=True), torch.randint(0, 6, (4, 2))
        loss = step(z, t)
        chosen, h = plain(2 * z, t)
        expected = chosen.sum() + 0.1 * h.sum()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, z), torch.autograd.grad(expected, z))


@pytest.mark.parametrize(("shape", "several"), [((4, 5), ()), ((2, 5, 3), (2,))])
def test_operators_are_registered_right(shape, several):
    z, t = torch.randn(shape).double(), torch.randint(0, 5, (shape[0], *several, *shape[2:]))
    rest = -100, LossOptions(softcap=5.0).numbers
    g, h = torch.randn(t.shape).double(), torch.randn(shape[0], *shape[2:]).double()
    opcheck(torch.ops.crossentropy.log_prob, (z.requires_grad_(), t, True, *rest))
    opcheck(torch.ops.crossentropy.log_prob_gradient, (z, t, g if several else None, h, *rest))


def test_compiled_twice_differentiated():
    z = Z.clone().requires_grad_()

    def ours(z):
        return ct.log_prob(z, SEVERAL, entropy=True)

    expected = torch.autograd.grad(penalty_of(lambda z: plain(z, SEVERAL), z), z)
    actual = torch.autograd.grad(penalty_of(torch.compile(ours, fullgraph=True, backend="eager"), z), z)
    torch.testing.assert_close(actual, expected)


def penalty_of(log_prob, z):
    chosen, h = log_prob(z)
    (dz,) = torch.autograd.grad(chosen.sum() + (h * h).sum(), z, create_graph=True)
    return dz.square().sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("several", [(), (3,)], ids=str)
def test_the_same_bits_as_for_arrays(several, dtype):
    z, t = (3 * torch.randn(7, 40)).to(dtype), torch.randint(0, 40, (7, *several))
    t.view(-1)[0] = -100
    g, h = torch.randn(t.shape).double(), torch.randn(7).double()
    array = z if dtype == torch.bfloat16 else z.numpy()
    expected, dlogits = ce.log_prob_and_entropy_vjp(array, t.numpy(), g.numpy(), h.numpy(), axis=1)
    z.requires_grad_()
    results = ct.log_prob(z, t, entropy=True)
    (dz,) = torch.autograd.grad(results, z, [x.to(r.dtype) for x, r in zip((g, h), results, strict=True)])
    for actual, exact in zip(results, expected, strict=True):
        assert torch.equal(actual, torch.from_numpy(exact))
    if dtype == torch.float64:  # else the upstream gradients are float32 here
        assert torch.equal(dz, torch.from_numpy(dlogits))


def test_a_loss_scale_enters_before_rounding():
    z, t = torch.randn(64, 50).half().requires_grad_(), torch.randint(0, 50, (64,))
    chosen, h = ct.log_prob(z, t, entropy=True)
    (dz,) = torch.autograd.grad((chosen, h), z, (torch.full((64,), 1e-3), torch.full((64,), 1e-3)))
    wide = z.detach().double().requires_grad_()
    results = ct.log_prob(wide, t, entropy=True)
    (expected,) = torch.autograd.grad(results, wide, (torch.full((64,), 1e-3).double(),) * 2)
    torch.testing.assert_close(dz.double(), expected, rtol=2**-10, atol=2**-24)


def test_saved_tensors():
    z = torch.randn(4, 5, requires_grad=True)
    y = z * 1
    chosen = ct.log_prob(y, torch.tensor([0, 1, 2, 3]))
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        chosen.sum().backward()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x[:1]):
        chosen = ct.log_prob(z, torch.tensor([0, 1, 2, 3]))
    with pytest.raises(RuntimeError, match="saved tensors: expected"):
        chosen.sum().backward()


def test_meta_tensors():
    z = torch.randn(3, 5, 2, device="meta", dtype=torch.float16, requires_grad=True)
    chosen, h = ct.log_prob(z, torch.zeros(3, 4, 2, dtype=torch.long, device="meta"), entropy=True)
    (chosen.sum() + h.sum()).backward()
    assert (chosen.shape, h.shape, chosen.dtype, z.grad.dtype) == ((3, 4, 2), (3, 2), torch.float32, torch.float16)


# Errors.


@pytest.mark.parametrize(
    ("args", "options", "error", "match"),
    [
        (([1.0], T), {}, TypeError, "input: expected a Tensor, got list"),
        ((Z.long(), T), {}, TypeError, "input: expected float16"),
        ((torch.zeros(3, 0), T[:3]), {}, ValueError, "input: expected shape .* at least one class"),
        ((Z, T[:3]), {}, ValueError, r"target: expected shape \(4,\), one index a row, or \(4, K\)"),
        ((Z, T.double()), {}, TypeError, "target: expected class indices"),
        ((Z, torch.tensor([1, 9, 0, 0])), {}, IndexError, r"target: expected class indices in \[0, 5\).* got 9"),
        ((Z, T), {"temperature": 0.0}, ValueError, "temperature: expected"),
        ((Z, T), {"softcap": -1.0}, ValueError, "softcap: expected"),
        ((Z, T), {"reduction": "sum"}, TypeError, "reduction"),
    ],
)
def test_refuses(args, options, error, match):
    with pytest.raises(error, match=match):
        ct.log_prob(*args, **options)


# From hidden states.


@pytest.mark.parametrize("chunk", [1, 3, 1000], ids="{} rows a chunk".format)
@pytest.mark.parametrize("places", [(), (3, 2)], ids=str)
@pytest.mark.parametrize("several", [(), (2,)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_head_equals_whole_logits(chunk, places, several, bias, path, monkeypatch):
    monkeypatch.setattr(_head, "MAX_LOGITS_BYTES", chunk * 5 * math.prod(places) * 8)
    h, W = torch.randn(8, 4).double().requires_grad_(), torch.randn(5, *places, 4).double().requires_grad_()
    b = torch.randn(5, *places).double().requires_grad_() if bias else None
    t = torch.randint(0, 5, (8, *several, *places))
    t[1] = -100
    wanted = [tensor for tensor in (h, W, b) if tensor is not None]
    logits = F.linear(h, W.reshape(-1, 4), None if b is None else b.reshape(-1)).unflatten(1, (5, *places))
    for options in ({}, {"softcap": 3.0, "temperature": 0.7}):
        expected = ct.log_prob(logits, t, entropy=True, **options)
        actual = ct.linear_log_prob(h, W, t, linear_bias=b, entropy=True, **options)
        torch.testing.assert_close(actual, expected)
        assert torch.equal(ct.linear_log_prob(h, W, t, linear_bias=b, **options), actual[0])
        upstream = [torch.randn_like(result) for result in expected]
        for both in (slice(0, 1), slice(1, 2), slice(0, 2)):
            found = torch.autograd.grad(actual[both], wanted, upstream[both], retain_graph=True)
            of_logits = torch.autograd.grad(expected[both], wanted, upstream[both], retain_graph=True)
            torch.testing.assert_close(found, of_logits)


def test_head_differentiates_twice_in_chunks(monkeypatch):
    monkeypatch.setattr(_head, "MAX_LOGITS_BYTES", 2 * 3 * 8)
    h, W, b = (torch.randn(n, dtype=torch.float64, requires_grad=True) for n in ((3, 2), (3, 2), (3,)))
    t = torch.tensor([[0, 2], [-100, -100], [1, -100]])

    def both(h, W, b):
        return ct.linear_log_prob(h, W, t, linear_bias=b, entropy=True)

    assert torch.autograd.gradcheck(both, (h, W, b), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(both, (h, W, b))


def test_head_of_one_hidden_state_and_of_rows_that_do_not_count():
    h, W = torch.randn(3), torch.randn(5, 3)
    chosen, h_of = ct.linear_log_prob(h, W, torch.tensor(2), entropy=True)
    torch.testing.assert_close(chosen, F.linear(h, W).log_softmax(0)[2])
    assert h_of.shape == ()
    assert ct.linear_log_prob(h, W, torch.tensor([2, 0])).shape == (2,)
    hidden = torch.stack([h, torch.full((3,), math.nan)]).requires_grad_()
    W.requires_grad_()
    chosen, entropies = ct.linear_log_prob(hidden, W, torch.tensor([1, -100]), entropy=True)
    (chosen.sum() + entropies.sum()).backward()
    assert W.grad.isfinite().all()
    assert not hidden.grad[1].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("chunks", [1, 2])
def test_head_in_half_precision(dtype, chunks, monkeypatch):
    monkeypatch.setattr(_head, "MAX_LOGITS_BYTES", 1 << 26 if chunks == 1 else 1)
    h, W, b = (torch.randn(n).to(dtype).requires_grad_() for n in ((64, 32), (100, 32), (100,)))
    t = torch.randint(0, 100, (64, 2))
    results = ct.linear_log_prob(h, W, t, linear_bias=b, entropy=True)
    wide = [tensor.detach().double().requires_grad_() for tensor in (h, W, b)]
    exact = ct.linear_log_prob(*wide[:2], t, linear_bias=wide[2], entropy=True)
    for actual, expected in zip(results, exact, strict=True):
        assert actual.dtype == torch.float32
        assert (actual.double() - expected).norm() < 4 * torch.finfo(dtype).eps * expected.norm()
    upstream = [torch.randn_like(result) for result in results]
    expected = torch.autograd.grad(exact, wide, [g.double() for g in upstream])
    for actual, reference in zip(torch.autograd.grad(results, (h, W, b), upstream), expected, strict=True):
        assert actual.dtype == dtype
        assert (actual.double() - reference).norm() < 8 * torch.finfo(dtype).eps * reference.norm()


def test_head_compiled():
    h, W, t = torch.randn(6, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True), torch.randint(0, 7, (6,))

    def loss(h, W):
        chosen, entropies = ct.linear_log_prob(h, W, t, entropy=True)
        return chosen.sum() + entropies.sum()

    expected = torch.autograd.grad(loss(h, W), (h, W))
    actual = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(h, W), (h, W))
    torch.testing.assert_close(actual, expected)


def test_head_of_indices_of_one_byte():
    """Of which 156 has the bits of ignore_index -100."""
    h, w, t = torch.randn(3, 5), torch.randn(200, 5), torch.tensor([156, 3, 199], dtype=torch.uint8)
    for wanted in (False, True):  # another path where a gradient is wanted
        found = ct.linear_log_prob(h.requires_grad_(wanted), w, t)
        torch.testing.assert_close(found, ct.linear_log_prob(h, w, t.long()), rtol=0, atol=0)
        assert (found < 0).all()


def test_head_refuses():
    h, W, t = torch.randn(4, 3), torch.randn(5, 3), torch.tensor([0, 1, 2, 3])
    for args, options, error, match in (
        ((h, torch.randn(5, 2), t), {}, ValueError, r"linear_weight: expected shape \(C, 3\)"),
        ((h, W.double(), t), {}, TypeError, "linear_weight: expected torch.float32"),
        ((h, W, t), {"linear_bias": torch.zeros(4)}, ValueError, r"linear_bias: expected shape \(5,\)"),
        ((h[None], W, t), {}, ValueError, "input: expected shape"),
        ((h, W, t + 2), {}, IndexError, "got 5"),
        ((h, W, t), {"temperature": -1.0}, ValueError, "temperature: expected"),
    ):
        with pytest.raises(error, match=match):
            ct.linear_log_prob(*args, **options)
