"""Gradients of 32 MiB or more: in memory that later ones take over."""

import gc
import io
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import crossentropy as ce
import crossentropy.torch as ct
from crossentropy import _core
from crossentropy.torch._kernel import empty, empty_gradient

sys.path.insert(0, str(Path(__file__).parent.parent))
from kept_memory import BLOCK, is_supported, kept, live, run

N, C = 9, 1 << 20


@pytest.fixture(autouse=True)
def _nothing_kept():
    gc.collect()
    ce.set_kept_memory(0)
    ce.set_kept_memory(None)
    yield
    ce.set_kept_memory(0)
    ce.set_kept_memory(None)


@pytest.fixture
def keeps():
    if not is_supported():
        pytest.skip("this system lets nothing be kept: memory is limited, or not marked as free")


def logits(dtype=torch.float32, shape=(N, C)):
    return (
        torch.randn(9973)
        .to(dtype)
        .repeat(-(-torch.Size(shape).numel() // 9973))[: torch.Size(shape).numel()]
        .view(shape)
    )


TARGET = torch.arange(N)


def gradient(z):
    p = z.detach().requires_grad_()
    ct.cross_entropy(p, TARGET).backward()
    return p.grad


@pytest.mark.usefixtures("keeps")
class TestReuse:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
    def test_the_gradient_is_the_block(self, dtype):
        """Autograd takes the block itself as the gradient of a leaf."""
        z = logits(dtype, (N, 2 * C))
        first = gradient(z)
        assert live() == first.nbytes
        expected, place = first.clone(), first.data_ptr()
        assert place % (1 << 21) == 0
        del first
        assert (live(), kept()) == (0, z.nbytes)
        again = gradient(z)
        assert again.data_ptr() == place
        assert torch.equal(again, expected)
        assert again.is_contiguous()
        ce.set_kept_memory(0)
        assert torch.equal(gradient(z), expected)
        assert live() == again.nbytes

    @pytest.mark.parametrize(
        "result",
        [
            lambda z, t: ct.kl_divergence(z, z.detach().flip(-1)),
            lambda z, t: ct.binary_cross_entropy_with_logits(z, (z > 0).to(z.dtype)),
            lambda z, t: ct.log_prob(z, t).sum(),
            lambda z, t: ct.cross_entropy(z, t, reduction="none").sum(),
            lambda z, t: ct.linear_cross_entropy(torch.ones(9, 9), z.view(C, 9), t),
        ],
        ids=["divergence", "binary", "log_prob", "none", "head"],
    )
    def test_every_function_does(self, result):
        p = logits().requires_grad_()
        found = []
        for _ in range(3):
            p.grad = None
            result(p, TARGET).backward()
            found.append(p.grad.clone())
            gc.collect()
        assert kept() + live() >= BLOCK
        assert torch.equal(found[0], found[2])
        ce.set_kept_memory(0)
        p.grad = None
        result(p, TARGET).backward()
        assert torch.equal(p.grad, found[0])

    def test_a_tensor_dies_on_another_thread(self):
        held = [gradient(logits())]
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
        assert (live(), kept()) == (0, BLOCK)

    def test_a_capsule_that_nobody_takes(self):
        capsule = _core.empty_dlpack((BLOCK,), (1,), 0)
        assert live() == 4 * BLOCK
        del capsule
        assert live() == 0

    def test_refused(self):
        with pytest.raises(MemoryError):
            _core.empty_dlpack((1 << 46,), (1,), 0)
        assert live() == 0


class TestLayout:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_strides(self, dtype):
        """Those of `torch.empty_like`, where the core writes that layout; else contiguous."""
        z = logits(dtype, (2, 3, 1 << 10, 1 << 12))
        channels_last = z.to(memory_format=torch.channels_last)
        for tensor in (z, channels_last):
            made, like = empty_gradient(tensor), torch.empty_like(tensor)
            assert (made.shape, made.stride(), made.dtype) == (like.shape, like.stride(), like.dtype)
        made = empty_gradient(z.transpose(2, 3))
        assert (made.shape, made.is_contiguous()) == (z.transpose(2, 3).shape, True)
        made = empty(z, 5, 1 << 12, 1 << 10)
        assert (made.shape, made.is_contiguous(), made.dtype) == ((5, 1 << 12, 1 << 10), True, dtype)

    def test_of_parameters(self):
        assert type(empty_gradient(nn.Parameter(logits()))) is torch.Tensor

    def test_channels_last(self):
        z = logits(shape=(2, 3, 1 << 10, 1 << 11))
        t = torch.randint(0, 3, (2, 1 << 10, 1 << 11))
        found = []
        for given in (z, z.to(memory_format=torch.channels_last)):
            p = given.requires_grad_()
            ct.cross_entropy(p, t).backward()
            found.append(p.grad)
        assert torch.equal(*found)


class TestTraining:
    def test_accumulation_and_optimisers(self):
        """Every step is that of memory which is never reused."""
        z = logits()
        models = [nn.Parameter(z.clone()) for _ in range(2)]
        for model, limit in zip(models, (None, 0), strict=True):
            ce.set_kept_memory(limit)
            optimizer = torch.optim.AdamW([model], lr=0.1, fused=True)
            for _ in range(3):
                optimizer.zero_grad()
                for shift in (0, 1):
                    ct.cross_entropy(model, TARGET + shift).backward()
                optimizer.step()
        assert torch.equal(*models)

    def test_hooks_may_keep_gradients(self):
        p, seen = logits().requires_grad_(), []
        p.register_hook(seen.append)
        for shift in (0, 1):
            p.grad = None
            ct.cross_entropy(p, TARGET + shift).backward()
        assert not torch.equal(*seen)

    def test_compiled(self):
        z = logits()
        compiled = torch.compile(ct.cross_entropy, fullgraph=True, backend="aot_eager")
        for seed in (0, 1):
            p = (z + seed * z.flip(-1)).requires_grad_()
            compiled(p, TARGET).backward()
            torch.testing.assert_close(p.grad, gradient(p))


class TestTensors:
    def test_saved_and_shared(self):
        g = gradient(logits())
        expected = g.clone()
        file = io.BytesIO()
        torch.save(g, file)
        file.seek(0)
        assert torch.equal(torch.load(file), expected)
        g.share_memory_()
        assert g.is_shared()
        assert torch.equal(g, expected)
        assert torch.equal(g.to(torch.float64), expected.to(torch.float64))

    def test_numpy_views_outlive_the_tensor(self):
        g = gradient(logits())
        view, expected = g.numpy()[3], g[3].clone()
        del g
        gradient(logits())
        assert torch.equal(torch.from_numpy(view), expected)

    @pytest.mark.usefixtures("keeps")
    def test_resize_is_refused(self):
        with pytest.raises(RuntimeError, match="not resizable"):
            gradient(logits()).resize_(20, C)

    def test_at_the_end(self):
        script = """
import torch, crossentropy.torch as ct
p = torch.zeros(9, 1 << 20, requires_grad=True)
ct.cross_entropy(p, torch.arange(9)).backward()
class Node: pass
a = Node()
a.a, a.g = a, p.grad
"""
        assert run(script) == ""

    @pytest.mark.parametrize("start", ["fork", "spawn"])
    def test_queue(self, start, tmp_path):
        script = tmp_path / "queues.py"
        script.write_text("""
import sys, warnings, torch, crossentropy.torch as ct
warnings.simplefilter("ignore", DeprecationWarning)
torch.set_num_threads(1)
def gradient(z):
    p = z.clone().requires_grad_()
    ct.cross_entropy(p, torch.arange(9)).backward()
    return p.grad
def work(given, found):
    for _ in range(2):
        found.put(gradient(given.get(timeout=120)))
    given.get(timeout=120)
if __name__ == "__main__":
    context = torch.multiprocessing.get_context(sys.argv[1])
    z = torch.linspace(-9, 9, 9 << 20).view(9, 1 << 20)
    held = gradient(z)
    given, found = context.Queue(), context.Queue()
    worker = context.Process(target=work, args=(given, found))
    worker.start()
    for _ in range(2):
        given.put(held if _ else z)
        assert torch.equal(found.get(timeout=120), gradient(held) if _ else held)
    given.put(None)
    worker.join()
    assert worker.exitcode == 0
""")
        run(script, start)
