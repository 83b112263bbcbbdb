"""crossentropy.torch.linear_cross_entropy: compared with the loss of whole logits."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch_oracle import OPTIONS, REDUCTIONS, problem, reference

import crossentropy.torch as ct
from crossentropy import _head
from crossentropy.torch import _linear


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
                    torch.testing.assert_close(
                        gradients, torch.autograd.grad(expected, of, upstream, retain_graph=True)
                    )


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


def test_a_loss_scale_enters_before_rounding():
    h, W, t = torch.randn(64, 32).half().requires_grad_(), (1e-4 * torch.randn(100, 32)).half(), torch.arange(64)
    scale = torch.tensor(65536.0)
    (dhidden,) = torch.autograd.grad(ct.linear_cross_entropy(h, W, t), h, scale)
    wide = h.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(ct.linear_cross_entropy(wide, W.double(), t), wide, scale.double())
    assert (dhidden.double() - expected).norm() < 2e-3 * expected.norm()


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


# Linux tells the largest resident size since it was last asked to forget it.
MEMORY = """
import pathlib, torch, crossentropy.torch as ct
from crossentropy import _head
rows, width, classes = 2048, 16, 32000
_head.MAX_LOGITS_BYTES = {limit}
h, W = torch.randn(rows, width, requires_grad=True), torch.randn(classes, width, requires_grad=True)
t, s = torch.randint(0, classes, (rows,)), torch.ones(rows, requires_grad={composed})
ct.linear_cross_entropy(h[:64], W, t[:64], sample_weight=s[:64]).backward()
h.grad = W.grad = s.grad = None
pathlib.Path("/proc/self/clear_refs").write_text("5")
def resident(): return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = resident()
ct.linear_cross_entropy(h, W, t, sample_weight=s).backward()
print((resident() - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="/proc is Linux's")
@pytest.mark.parametrize(("limit", "composed"), [(1 << 26, False), (1 << 21, True)])
def test_head_never_holds_the_logits(limit, composed):
    code = MEMORY.format(limit=limit, composed=composed)
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}  # freed memory goes back, not into gaps of a heap
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    used = int(done.stdout)
    assert used < 100e6 < 2048 * 32000 * 4


FAMILY = """
import pathlib, torch, crossentropy.torch as ct
rows, width, classes = 2048, 16, 32000
h, W, U = (torch.randn(n, width, requires_grad=True) for n in (rows, classes, classes))
t = torch.randint(0, classes, (rows, 2))
def log_probs(n):
    return sum(result.sum() for result in ct.linear_log_prob(h[:n], W, t[:n], entropy=True))
def divergence(n):
    return ct.linear_kl_divergence(h[:n], W, h[:n], U)
{function}(64).backward()
h.grad = W.grad = U.grad = None
pathlib.Path("/proc/self/clear_refs").write_text("5")
def resident(): return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = resident()
{function}(rows).backward()
print((resident() - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="/proc is Linux's")
@pytest.mark.parametrize(("function", "limit"), [("log_probs", 100e6), ("divergence", 170e6)])
def test_the_family_never_holds_the_logits(function, limit):
    code = FAMILY.format(function=function)
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert int(done.stdout) < limit < 2048 * 32000 * 4
