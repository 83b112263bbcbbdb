"""Data-parallel training: the average of the ranks' gradients is that of one process with all the rows."""

import contextlib
import re
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

import crossentropy.torch as ct
from crossentropy.torch.distributed import num_items

# (rows of rank 0, of rank 1, ...), as many parts as there are: uneven, one empty, of one all ignored.
PARTS = [[(5, 2)], [(3, 1), (0, 4), (2, 2)]]


def batch(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 4, dtype=torch.float64, generator=generator)
    targets = torch.randint(0, 6, (rows,), generator=generator)
    targets[torch.rand(rows, generator=generator) < 0.3] = -100
    return inputs, targets, torch.rand(rows, dtype=torch.float64, generator=generator)


def model_of():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6)).double()


WEIGHT = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)


def trained(parts, weighted):
    """The gradient on every rank, and what it should be: that of one process."""
    rank = torch.distributed.get_rank()
    model = DistributedDataParallel(model_of())
    of_rank = [[batch(rows, 10 * i + r) for r, rows in enumerate(sizes)] for i, sizes in enumerate(parts)]

    def options(s):
        return {"weight": WEIGHT, "sample_weight": s} if weighted else {}

    items = sum(num_items(part[rank][1], **options(part[rank][2])) for part in of_rank)
    for i, part in enumerate(of_rank):
        x, t, s = part[rank]
        loss = ct.cross_entropy(model(x), t, num_items=items, label_smoothing=0.1, **options(s))
        if i < len(of_rank) - 1:
            with model.no_sync():
                loss.backward()
        else:
            loss.backward()
    alone = model_of()
    x, t, s = (torch.cat(tensors) for tensors in zip(*(rows for part in of_rank for rows in part), strict=True))
    ct.cross_entropy(alone(x), t, label_smoothing=0.1, **options(s)).backward()
    for found, expected in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-12, atol=1e-14)
    return items.item()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("parts", PARTS, ids=["one part", "accumulated"])
def test_the_gradient_is_that_of_one_process(world, parts, weighted):
    first, second = world(2).run(trained, parts, weighted)
    assert first == second


def example():
    """The page's own code, for two parts of a batch on each rank."""
    page = Path(__file__).parents[3] / "docs" / "torch.md"
    (block,) = re.findall(
        r"```py\n(from crossentropy.torch.distributed import num_items.*?)```", page.read_text(), re.S
    )
    rank = torch.distributed.get_rank()
    of_ranks = [
        [batch(rows, 10 * i + r)[:2] for i, rows in enumerate(sizes)] for r, sizes in enumerate([(3, 1), (1, 4)])
    ]
    model, alone = DistributedDataParallel(model_of()), model_of()
    exec(block, {"contextlib": contextlib, "ct": ct, "model": model, "parts": of_ranks[rank]})
    x, t = (torch.cat(tensors) for tensors in zip(*of_ranks[0], *of_ranks[1], strict=True))
    ct.cross_entropy(alone(x), t).backward()
    for found, expected in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-12, atol=1e-14)


def test_the_example_of_the_page(world):
    world(2).run(example)


def counted():
    rank = torch.distributed.get_rank()
    targets = torch.tensor([[0, 1, -100], [2, 2, 7]])[rank]
    assert num_items(targets).item() == 2.5
    assert num_items(targets, ignore_index=2).item() == 2.0
    assert num_items(targets.to(torch.uint8), ignore_index=156).item() == 2.5
    assert num_items(targets, weight=torch.arange(8)).item() == 6.0
    assert num_items(targets, sample_weight=torch.tensor([0.5, 0.0, 9.0])).item() == 5.0
    assert num_items(torch.full((3,), -100)).item() == 0.0
    assert num_items(targets, weight=torch.tensor([1.0, 1, -0.5, 0, 0, 0, 0, -1])).isnan()
    own = torch.distributed.new_group([rank], use_local_synchronization=True)
    assert num_items(targets, own).item() == [2, 3][rank]
    with pytest.raises(IndexError, match=r"target: expected class indices in .*, got 7"):
        num_items(targets, weight=torch.ones(5))  # which rank 1 alone sees
    with pytest.raises(ValueError, match="sample_weight: expected finite"):
        num_items(targets, sample_weight=torch.tensor([1.0, torch.inf if rank else 1.0, 1.0]))


def test_num_items(world):
    world(2).run(counted)


def test_num_items_of_one_process():
    assert not torch.distributed.is_initialized()
    assert num_items(torch.tensor([[1, -100], [2, 3]])).item() == 3.0
    with pytest.raises(TypeError, match=r"target: expected .*integers.*, got torch.float32"):
        num_items(torch.ones(2))
    with pytest.raises(ValueError, match=r"weight: expected real numbers of shape \(C,\)"):
        num_items(torch.tensor([1]), weight=torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"sample_weight: expected real numbers of shape \(2,\)"):
        num_items(torch.tensor([1, 1]), sample_weight=torch.ones(3))


def items_of_another_group():
    rank = torch.distributed.get_rank()
    of_ranks = [torch.distributed.new_group([each]) for each in (0, 1)]
    other = of_ranks[1 - rank]
    return num_items(torch.tensor([0, 1]), other)


def test_num_items_of_a_group_without_this_rank(world):
    for error in world(2).outcomes(items_of_another_group):
        assert isinstance(error, TypeError)


def items_of_unlike_arguments(case):
    rank = torch.distributed.get_rank()
    target = torch.tensor([0, 1]) if rank or case else torch.ones(2)
    return num_items(target, sample_weight=torch.ones(3 - rank) if case else None)


@pytest.mark.parametrize(("case", "kind"), [(0, TypeError), (1, ValueError)])
def test_wrong_arguments_of_one_rank_reach_all(world, case, kind):
    for error in world(2).outcomes(items_of_unlike_arguments, case):
        assert isinstance(error, kind)
