"""torch's own cross-entropy of DTensors, in the context that computes it here."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_dtensor import CLASSES, ROWS, WHOLE, mesh_of, spread
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch_oracle import close, reference

import crossentropy.torch as ct
from crossentropy.torch.distributed import loss_parallel


def caught():
    mesh = mesh_of((2,))
    torch.manual_seed(0)
    z, t = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 5, -100, 3])
    q, w = torch.rand(4, 6, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    for placements in [(ROWS,), (CLASSES,)]:
        for target in (t, q):
            expected = reference(z, target, w, None, label_smoothing=0.1)
            input = spread(z, mesh, placements).requires_grad_()
            with loss_parallel():
                losses = [
                    F.cross_entropy(input, target, w, None, -100, None, "mean", 0.1),
                    F.cross_entropy(input=input, target=target, weight=w, label_smoothing=0.1),
                    torch.nn.CrossEntropyLoss(w, label_smoothing=0.1)(input, target),
                    ct.CrossEntropyLoss(w, label_smoothing=0.1)(input, target),
                ]
            for loss in losses:
                assert loss.placements == (WHOLE,)
                close(loss.to_local().detach(), expected[0], torch.float64)
                (gradient,) = torch.autograd.grad(loss, input)  # after the context
                assert gradient.placements == placements
                close(gradient.full_tensor(), expected[1], torch.float64)
        with pytest.raises(IndexError, match=r"targets?: .*6"), loss_parallel():
            F.cross_entropy(input, torch.tensor([0, 1, 2, 6]))
        confident = spread(torch.tensor([[20.0, 0.0, 0.0]] * 2), mesh, placements)
        with loss_parallel():
            assert F.cross_entropy(confident, torch.tensor([0, 0])).to_local() > 0.0  # which torch rounds to 0
            assert F.cross_entropy(target=torch.tensor([0, 0]), input=confident).to_local() > 0.0
    with pytest.raises(ValueError, match="break"), loss_parallel():
        raise ValueError("break")
    assert not torch._C._is_torch_function_mode_enabled()


def test_calls_of_torch(world):
    world(2).run(caught)


def example():
    """The page's own code."""
    page = Path(__file__).parents[3] / "docs" / "torch.md"
    (block,) = re.findall(
        r"```py\n(from crossentropy.torch.distributed import loss_parallel.*?)```", page.read_text(), re.S
    )
    z, t = torch.tensor([[2.0, 1.0, 0.1]] * 2), torch.tensor([0, 2])
    names = {"torch": torch, "logits": spread(z, mesh_of((2,)), (CLASSES,)).requires_grad_(), "target": t}
    exec(block, names)
    expected = reference(z, t, None, None, label_smoothing=0.1)
    close(names["loss"].to_local().detach(), expected[0], torch.float32)
    close(names["logits"].grad.full_tensor(), expected[1], torch.float32)


def test_the_example_of_the_page(world):
    world(2).run(example)


def test_plain_tensors_stay_with_torch():
    z, t = torch.tensor([[20.0, 0.0, 0.0]]), torch.tensor([0])
    with loss_parallel():
        assert F.cross_entropy(z, t) == 0.0  # which torch rounds to
        assert ct.cross_entropy(z, t) > 0.0


class Model(torch.nn.Module):
    """One that computes its loss itself, with torch's own module."""

    def __init__(self):
        super().__init__()
        self.body, self.head = torch.nn.Linear(5, 8), torch.nn.Linear(8, 11)
        self.criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)

    def forward(self, x, t):
        return self.criterion(self.head(self.body(x).tanh()), t)


def model_of():
    torch.manual_seed(0)
    return Model().double()


def trained():
    """A head whose classes are split, as tensor parallelism leaves its logits; three steps."""
    mesh = mesh_of((2,))
    torch.manual_seed(1)
    x, t = torch.randn(6, 5, dtype=torch.float64), torch.randint(0, 11, (6,))
    alone, model = model_of(), model_of()
    split = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
    parallelize_module(model, mesh, {"head": split})
    models = [(alone, torch.optim.SGD(alone.parameters(), 0.5)), (model, torch.optim.SGD(model.parameters(), 0.5))]
    for _ in range(3):
        losses = []
        with loss_parallel():
            for each, optimizer in models:
                optimizer.zero_grad()
                loss = each(x, t)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
        torch.testing.assert_close(losses[1].full_tensor(), losses[0], rtol=1e-12, atol=0)
    return losses[0].item()


def test_tensor_parallel_training(world):
    first, second = world(2).run(trained)
    assert first == second
