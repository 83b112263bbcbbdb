"""Losses of DTensors against the definition in one process: rows split, classes split, and both."""

import functools
import itertools

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard
from torch_oracle import OPTIONS, REDUCTIONS, close, problem, reference

import crossentropy.torch as ct
from crossentropy.torch import _eager, _operator

WHOLE, ROWS, CLASSES = Replicate(), Shard(0), Shard(1)
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
FOCAL = {"focal_gamma": 2.0}
mesh_of = functools.cache(functools.partial(init_device_mesh, "cpu"))


def spread(tensor, mesh, placements):
    """The tensor, of which each rank keeps its part."""
    return distribute_tensor(tensor, mesh, placements, src_data_rank=None)


def of_rows(placements, axis=1):
    """Placements of what has one element a row, for those of logits."""
    return tuple(
        WHOLE if p.is_shard(axis) else Shard(p.dim - 1) if p.is_shard() and p.dim > axis else p for p in placements
    )


def compare(mesh, placements, shape, probabilities, dtype, reduction, options):
    """Loss and gradient, values and placements."""
    torch.manual_seed(0)
    z, t, w, s = problem(shape, probabilities, dtype)
    axis = min(1, len(shape) - 1)
    rows = of_rows(placements, axis)
    upstream = torch.rand(s.shape, dtype=torch.float64) if reduction == "none" else torch.tensor(2.0)
    expected = reference(z, t, w, s, reduction, upstream.numpy(), **options)
    input = spread(z, mesh, placements).requires_grad_()
    loss = ct.cross_entropy(
        input,
        spread(t, mesh, placements if probabilities else rows),
        w,
        reduction=reduction,
        sample_weight=spread(s, mesh, rows),
        **options,
    )
    assert loss.placements == (rows if reduction == "none" else (WHOLE,) * len(placements))
    assert loss.shape == expected[0].shape
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    loss.backward(spread(upstream.to(loss.dtype), mesh, loss.placements))
    assert input.grad.placements == placements
    assert input.grad.dtype == dtype
    close(loss.full_tensor().detach(), expected[0], torch.float32 if dtype.itemsize == 2 else dtype)
    close(input.grad.full_tensor(), expected[1], dtype)


def compare_all(mesh_shape, cases):
    """Each (placements, shape) with targets of both kinds in every dtype and reduction; the options in turn."""
    options = itertools.cycle([*OPTIONS, FOCAL])
    for placements, shape in cases:
        for probabilities, dtype, reduction in itertools.product([False, True], DTYPES, REDUCTIONS):
            of_loss = next(options)
            if probabilities and of_loss is FOCAL:
                of_loss = next(options)
            compare(mesh_of(mesh_shape), placements, shape, probabilities, dtype, reduction, of_loss)


def rows_split():
    cases = [((5, 7), 0), ((3, 5, 4), 0), ((2, 5, 3), 2), ((2, 5), 0)]
    compare_all((2,), [((Shard(dim),), shape) for shape, dim in cases] + [((WHOLE,), (7,))])


def test_rows_split(world):
    world(2).run(rows_split)


def classes_split():
    shapes = [(5, 7), (4, 2), (3, 5, 4), (4, 1)]  # the last leaves one rank without classes
    compare_all((2,), [((CLASSES,), shape) for shape in shapes] + [((Shard(0),), (7,))])


def test_classes_split(world):
    world(2).run(classes_split)


def both_split():
    of_mesh = [(ROWS, CLASSES), (CLASSES, ROWS), (WHOLE, CLASSES), (ROWS, ROWS), (ROWS, WHOLE), (CLASSES, Shard(2))]
    compare_all((2, 2), [(placements, (5, 7, 3)) for placements in of_mesh])


def test_rows_and_classes_split(world):
    world(4).run(both_split)


def composed():
    """The path of other devices, on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_eager, "under_transform", lambda: True)
        patch.setattr(_operator, "core_applies", lambda *_: False)
        compare_all((2,), [((ROWS,), (5, 7)), ((WHOLE,), (5, 7))])


def test_composed(world):
    world(2).run(composed)


# What is reduced.


def means():
    mesh = mesh_of((2,))
    torch.manual_seed(0)
    z, t, found = torch.randn(6, 5), torch.tensor([0, 4, -100, 2, -100, 3]), []
    for placements in [(ROWS,), (CLASSES,)]:
        input, target = spread(z, mesh, placements), spread(t, mesh, of_rows(placements))
        for options in [{}, {"reduction": "sum"}, {"num_items": 7}]:
            alone = ct.cross_entropy(z, t, **options)
            loss = ct.cross_entropy(input, target, **options)
            assert loss.to_local().item() == pytest.approx(alone.item(), rel=2e-7)
            found.append(loss.to_local().item())
        counted = (target != -100).sum()  # a sum whose parts are still to be added, where the rows are split
        assert (
            ct.cross_entropy(input, target, num_items=counted).to_local() == ct.cross_entropy(input, target).to_local()
        )
        # Weights that add up to 0 on one rank; on both; nothing that counts.
        for weights, expected in [([1, -1, 0, 1, 0, 2], None), ([1, -1, 0, 1, 0, -1], "nan"), ([0] * 6, 0.0)]:
            s = torch.tensor(weights, dtype=torch.float32)
            loss = ct.cross_entropy(input, target, sample_weight=spread(s, mesh, of_rows(placements))).to_local()
            if expected is None:
                expected = ct.cross_entropy(z, t, sample_weight=s).item()
            assert loss.item() == pytest.approx(float(expected), rel=1e-6, nan_ok=True)
    return found


def test_means(world):
    """They count the rows of all ranks, and have the same bits on each."""
    first, second = world(2).run(means)
    assert first == second


def sums():
    mesh, rank = mesh_of((4,)), torch.distributed.get_rank()
    torch.manual_seed(0)
    for _ in range(20):
        z, t = 100 * torch.randn(8, 50, dtype=torch.float64), torch.randint(0, 50, (8,))
        loss = ct.cross_entropy(spread(z, mesh, (ROWS,)), t, reduction="sum").to_local()
        parts = [ct.cross_entropy(z[2 * r : 2 * r + 2], t[2 * r : 2 * r + 2], reduction="sum") for r in range(4)]
        assert loss == ((parts[0] + parts[1]) + parts[2]) + parts[3]
        for placement in (ROWS, CLASSES):  # rounded once
            loss = ct.cross_entropy(spread(z.float(), mesh, (placement,)), t, reduction="sum").to_local()
            assert loss == ct.cross_entropy(z.float(), t, reduction="sum"), (placement, rank)


def test_sums(world):
    """They are added in float64, in the order of the ranks."""
    world(4).run(sums)


def confident():
    mesh = mesh_of((2,))
    z, t = torch.tensor([[20.0, 0.0, 0.0]] * 2), torch.tensor([0, 0])
    for placements in [(ROWS,), (CLASSES,)]:
        input = spread(z, mesh, placements).requires_grad_()
        loss = ct.cross_entropy(input, t)
        loss.backward()
        assert loss.to_local().item() == pytest.approx(4.122307e-9, rel=1e-6)
        assert input.grad.full_tensor()[0].tolist() == pytest.approx([-2.061154e-9, *[1.030577e-9] * 2], rel=1e-6)


def test_a_confident_row_keeps_its_digits(world):
    world(2).run(confident)


# What else is given.


def placed_otherwise():
    """Targets and weights are whole on every rank, or lie otherwise than the logits."""
    mesh = mesh_of((2,))
    torch.manual_seed(0)
    for placements, probabilities in itertools.product([(ROWS,), (CLASSES,)], [False, True]):
        z, t, w, s = problem((5, 4), probabilities)
        expected = reference(z, t, w, s)[0]
        input = spread(z, mesh, placements)
        others = [lambda x: x, *(functools.partial(spread, mesh=mesh, placements=[p]) for p in (WHOLE, ROWS))]
        for of_target, of_weight, of_sample in itertools.product(others, repeat=3):
            loss = ct.cross_entropy(input, of_target(t), of_weight(w), sample_weight=of_sample(s))
            close(loss.to_local(), expected, torch.float64)


def test_targets_placed_otherwise(world):
    world(2).run(placed_otherwise)


def other_gradients():
    """Those of soft targets and of weights, where the rows are split."""
    mesh = mesh_of((2,))
    torch.manual_seed(0)
    for reduction, probabilities in itertools.product(REDUCTIONS, [False, True]):
        z, t, w, s = problem((5, 4), probabilities)
        alone = [z, t, w, s]
        over_ranks = [spread(x, mesh, (ROWS,)) for x in (z, t)] + [w.clone(), spread(s, mesh, (ROWS,))]
        over_ranks[0] = over_ranks[0].detach()
        for tensors in (alone, over_ranks):
            for tensor in tensors:
                if tensor.is_floating_point():
                    tensor.requires_grad_()
            input, target, weight, sample_weight = tensors
            loss = ct.cross_entropy(input, target, weight, sample_weight=sample_weight, reduction=reduction)
            loss.sum().backward()
        for expected, found in zip(alone, over_ranks, strict=True):
            if expected.grad is not None:
                grad = found.grad.full_tensor() if isinstance(found.grad, DTensor) else found.grad
                torch.testing.assert_close(grad, expected.grad, rtol=1e-12, atol=1e-14)


def test_gradients_of_targets_and_weights(world):
    world(2).run(other_gradients)


def second_order():
    mesh = mesh_of((2,))
    torch.manual_seed(0)
    z, t = torch.randn(4, 5, dtype=torch.float64), torch.randint(0, 5, (4,))
    again = []
    for input in (z.requires_grad_(), spread(z.detach(), mesh, (ROWS,)).requires_grad_()):
        (gradient,) = torch.autograd.grad(ct.cross_entropy(input, t), input, create_graph=True)
        again.append(torch.autograd.grad(gradient.square().sum(), input)[0])
    torch.testing.assert_close(again[1].full_tensor(), again[0], rtol=1e-12, atol=0)
    input = spread(z.detach(), mesh, (CLASSES,)).requires_grad_()
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(ct.cross_entropy(input, t), input, create_graph=True)


def test_second_order(world):
    world(2).run(second_order)


def under_way():
    """Parts that a collective has still to deliver."""
    mesh = mesh_of((2,))
    torch.manual_seed(0)
    z, t = torch.randn(4, 6, dtype=torch.float64), torch.randint(0, 6, (4,))
    expected = reference(z, t, None, None)
    for start, placements in [((ROWS,), (WHOLE,)), ((ROWS,), (CLASSES,))]:
        leaf = spread(z, mesh, start).requires_grad_()
        input = leaf.redistribute(placements=placements, async_op=True)
        loss = ct.cross_entropy(input, t)
        loss.backward()
        close(loss.to_local().detach(), expected[0], torch.float64)
        close(leaf.grad.full_tensor(), expected[1], torch.float64)


def test_logits_under_way(world):
    world(2).run(under_way)


# The family.


def compare_family(placements, shape, calls, *leaves, **others):
    """Calls yield results of tensors, in one process and over ranks; so are the gradients of their leaves."""
    mesh = mesh_of((2,))

    def of(tensor):
        return placements if tensor.dim() == len(shape) else of_rows(placements, min(1, len(shape) - 1))

    alone = [leaf.clone().requires_grad_() for leaf in leaves]
    over_ranks = [spread(leaf, mesh, of(leaf)).requires_grad_() for leaf in leaves]
    other = {name: spread(tensor, mesh, of(tensor)) for name, tensor in others.items()}
    for expected, found in zip(calls(*alone, **others), calls(*over_ranks, **other), strict=True):
        torch.testing.assert_close(found.full_tensor(), expected, rtol=1e-6, atol=1e-7)
        for each in (expected, found):
            each.sum().backward(retain_graph=True)
    for expected, found in zip(alone, over_ranks, strict=True):
        assert found.grad.placements == found.placements
        torch.testing.assert_close(found.grad.full_tensor(), expected.grad, rtol=1e-5, atol=1e-7)


def log_probs():
    def calls(z, t, several=None):
        yield ct.log_prob(z, t)
        yield from ct.log_prob(z, t, entropy=True, temperature=2.0)
        if several is not None:
            yield from ct.log_prob(z, several, entropy=True)

    torch.manual_seed(0)
    for shape, placement in [((5, 7), ROWS), ((3, 5, 4), Shard(2)), ((5, 7), CLASSES), ((3, 5, 4), CLASSES)]:
        rows = shape[:1] + shape[2:]
        t, several = torch.randint(0, shape[1], rows), torch.randint(0, shape[1], (shape[0], 2, *shape[2:]))
        t.view(-1)[0] = -100
        others = {"t": t} if placement == CLASSES else {"t": t, "several": several}
        compare_family((placement,), shape, calls, torch.randn(shape), **others)
    compare_family((Shard(0),), (7,), calls, torch.randn(7), t=torch.tensor(6))


def test_log_prob(world):
    world(2).run(log_probs)


def divergences():
    def kl(z, w, s):
        for reduction in REDUCTIONS:
            yield ct.kl_divergence(z, w, reduction=reduction, sample_weight=s)
            yield ct.kl_divergence(z, w, direction="reverse", reduction=reduction, temperature=2.0)

    def both(z, w, s):
        yield from kl(z, w, s)
        for reduction in REDUCTIONS:
            yield ct.jensen_shannon(z, w, beta=0.3, reduction=reduction, sample_weight=s)

    torch.manual_seed(0)
    for shape, placement in [
        ((5, 7), ROWS),
        ((3, 5, 4), Shard(2)),
        ((5, 7), CLASSES),
        ((3, 1, 4), CLASSES),
        ((7,), ROWS),
    ]:
        leaves = torch.randn(shape), torch.randn(shape), torch.rand(shape[:1] + shape[2:] if shape[1:] else ())
        split = placement == CLASSES or shape == (7,)
        compare_family((placement,), shape, kl if split else both, *leaves)


def test_divergences(world):
    world(2).run(divergences)


# Errors.


def refused():
    mesh, rank = mesh_of((2,)), torch.distributed.get_rank()
    z, t = torch.zeros(4, 6), torch.tensor([0, 1, 2, 3])
    rows = spread(z, mesh, (ROWS,))
    with pytest.raises(ValueError, match=r"input: expected placements .*Partial"):
        ct.cross_entropy(DTensor.from_local(z, mesh, [Partial()]), t)
    strided = DTensor.from_local(z[:2], mesh, [_StridedShard(0, split_factor=2)], shape=z.shape, stride=z.stride())
    with pytest.raises(ValueError, match=r"input: expected placements .*_StridedShard"):
        ct.cross_entropy(strided, t)
    with pytest.raises(ValueError, match=r"target: expected placements .*Partial"):
        ct.cross_entropy(rows, DTensor.from_local(t, mesh, [Partial()]))
    with pytest.raises(ValueError, match="target: expected the mesh of the logits"):
        ct.cross_entropy(rows, spread(t, mesh_of((2, 1)), (ROWS, WHOLE)))
    with pytest.raises(ValueError, match=r"cross_entropy: expected .*, got \(4, 6\) of torch.float32, \(2,\)"):
        ct.cross_entropy(rows, t[:2])  # whole, or a DTensor: not this rank's part
    with pytest.raises(ValueError, match="label_smoothing"):
        ct.cross_entropy(rows, t, label_smoothing=2.0)
    with pytest.raises(ValueError, match="num_items: expected a number"):
        ct.cross_entropy(rows, t, num_items=torch.tensor(1.0, requires_grad=True))
    # What rank 1 alone can see.
    for placements in [(ROWS,), (CLASSES,)]:
        input = spread(z, mesh, placements)
        for reduction in REDUCTIONS:
            bad = spread(torch.tensor([0, 1, 2, 6]), mesh, of_rows(placements))
            with pytest.raises(IndexError, match=r"targets?: .*6") as caught:
                ct.cross_entropy(input, bad, reduction=reduction)
            assert getattr(caught.value, "__notes__", None) == (["on rank 1"] if placements == (ROWS,) else None)
        with pytest.raises(ValueError, match="sample_weight: expected finite"):
            ct.cross_entropy(input, t, sample_weight=torch.tensor([1.0, 1.0, 1.0, torch.inf]))
        part = spread(z, mesh, placements).to_local()
        input = DTensor.from_local(part[:1, :2] if rank else part, mesh, placements, shape=z.shape, stride=z.stride())
        for reduction, target in itertools.product(REDUCTIONS, [t, spread(t, mesh, (ROWS,))]):
            with pytest.raises(ValueError, match="input: expected a part of shape"):
                ct.cross_entropy(input, target, reduction=reduction)
        with pytest.raises(IndexError, match=r"target: .*6"):
            ct.log_prob(spread(z, mesh, placements), bad)
    classes = spread(z, mesh, (CLASSES,))
    with pytest.raises(ValueError, match=r"target: expected one index a row.*, got shape \(4, 2\)"):
        ct.log_prob(classes, torch.zeros(4, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="input: expected a DTensor whose classes are not split"):
        ct.jensen_shannon(classes, classes)
    with pytest.raises(ValueError, match="sample_weight: expected finite"):
        ct.kl_divergence(classes, classes, sample_weight=torch.tensor([1.0, 1.0, 1.0, torch.inf]))


def test_refused(world):
    world(2).run(refused)


def refused_on_two_dimensions():
    mesh = mesh_of((2, 2))
    with pytest.raises(ValueError, match="classes split over at most one dimension of the mesh"):
        ct.cross_entropy(spread(torch.zeros(4, 8), mesh, (CLASSES, CLASSES)), torch.zeros(4, dtype=torch.long))
    # An index that one of four ranks sees.
    z, t = torch.zeros(4, 8), torch.tensor([0, 1, 2, 8])
    for placements in [(ROWS, ROWS), (ROWS, CLASSES), (CLASSES, ROWS)]:
        with pytest.raises(IndexError, match=r"targets?: .*8"):
            ct.cross_entropy(spread(z, mesh, placements), spread(t, mesh, of_rows(placements)))


def test_refused_on_two_dimensions(world):
    world(4).run(refused_on_two_dimensions)
