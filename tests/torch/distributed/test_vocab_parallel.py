"""Losses over split classes on real processes: against one process, mpmath and each other."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from crossentropy.torch import cross_entropy, log_prob
from crossentropy.torch.distributed import (
    VocabParallelCrossEntropyLoss,
    _exchange,
    _group,
    vocab_parallel_cross_entropy,
    vocab_parallel_log_prob,
)

SIZES = {2: ([7, 4], [0, 11], [1, 4200]), 3: ([7, 4, 1], [0, 11, 0], [4200, 1, 0])}
OPTIONS = (
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 1e-3, "temperature": 0.7},
    {"softcap": 5.0},
    {"softcap": 3.0, "label_smoothing": 0.2, "entropy_bonus": 0.1},
    {"entropy_bonus": 0.2},
    {"focal_gamma": 2.0},
)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2}


def mine(sizes):
    first = sum(sizes[: dist.get_rank()])
    return slice(first, first + sizes[dist.get_rank()])


def split(sizes, z, targets, upstream=None, *, weight=None, function=vocab_parallel_cross_entropy, **options):
    """What this rank returns for its slice: loss and gradient."""
    of_rank = mine(sizes)
    logits = z[:, of_rank].clone().requires_grad_()
    if targets.is_floating_point():
        targets = targets[:, of_rank]
    if weight is not None:
        options["weight"] = weight[of_rank]
    loss = function(logits, targets, **options)
    loss.backward(torch.ones_like(loss) if upstream is None else upstream.to(loss.dtype))
    return loss.detach(), logits.grad


def split_all(calls):
    return [split(*arguments, **options) for arguments, options in calls]


def same_bits(results):
    first, *others = results
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            assert mine[0].dtype == theirs[0].dtype
            assert mine[0].numpy().tobytes() == theirs[0].numpy().tobytes()


def problem(rows, classes, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = (4 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)).to(dtype)
    return z, torch.randint(0, classes, (rows,), generator=generator), generator


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dense", [False, True])
def test_loss_and_gradient_are_those_of_one_process(ranks, options, dense):
    if dense and "focal_gamma" in options:
        return  # which is of one class
    calls, expected = [], []
    cases = itertools.product(SIZES[ranks.size], TOLERANCE, ("mean", "sum", "none"), (False, True))
    for seed, (sizes, dtype, reduction, weighted) in enumerate(cases):
        z, t, generator = problem(6, sum(sizes), dtype, seed)
        t[3] = -100
        if dense:
            t = torch.rand(z.shape, generator=generator, dtype=torch.float64)
            t /= t.sum(1, keepdim=True)
        weights = {}
        if weighted:
            weights["weight"] = torch.rand(sum(sizes), generator=generator, dtype=torch.float64) + 0.5
            weights["sample_weight"] = torch.tensor([1.0, 0.5, 0.0, 1.0, -0.25, 2.0])
        whole = z.to(torch.float64, copy=True).requires_grad_()
        loss = cross_entropy(whole, t, reduction=reduction, **weights, **options)
        upstream = torch.randn(loss.shape, generator=generator, dtype=torch.float64)
        loss.backward(upstream)
        calls.append(((sizes, z, t, upstream), {"reduction": reduction, **weights, **options}))
        expected.append((loss.detach(), whole.grad, dtype))
    results = ranks.run(split_all, calls)
    same_bits(results)
    for i, (loss, gradient, dtype) in enumerate(expected):
        found = results[0][i][0]
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(found.double(), loss, rtol=min(tolerance, 1e-6), atol=min(tolerance, 1e-6))
        parts = torch.cat([of_rank[i][1] for of_rank in results], 1)
        assert parts.dtype == dtype
        torch.testing.assert_close(parts.double(), gradient, rtol=tolerance, atol=tolerance)


def test_a_confident_row_keeps_its_digits(ranks):
    z = torch.tensor([[60.0, 1.0, -2.0, 0.5, 3.0], [-800.0, 0.0, 40.0, 2.0, 1.0]], dtype=torch.float64)
    t = torch.tensor([0, 2])
    sizes = [2, 1, 2] if ranks.size == 3 else [2, 3]
    with mpmath.workdps(60):
        rows = [[mpmath.exp(mpmath.mpf(x)) for x in row] for row in z.tolist()]
        losses = [float(mpmath.log(sum(e) / e[c])) for e, c in zip(rows, t.tolist(), strict=True)]
        p = [[x / sum(e) for x in e] for e in rows]
        gradient = [[float(x - (i == c)) for i, x in enumerate(of)] for of, c in zip(p, t.tolist(), strict=True)]
    results = ranks.run(split_rows, sizes, z, t)
    np.testing.assert_allclose(results[0][0], losses, rtol=1e-15)
    np.testing.assert_allclose(torch.cat([g for _, g in results], 1), gradient, rtol=1e-14)


def split_rows(sizes, z, t, **options):
    return split(sizes, z, t, reduction="none", **options)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_on_any_rank(ranks, bad):
    sizes = [3, 2, 4][: ranks.size]
    classes, calls, expected = sum(sizes), [], []
    for at in range(classes):
        z, t, _ = problem(3, classes)
        z[1, at] = bad
        whole = z.clone().requires_grad_()
        losses = cross_entropy(whole, t, reduction="none")
        losses.sum().backward()
        calls.append(((sizes, z, t), {"reduction": "none"}))
        expected.append((losses.detach(), whole.grad))
    results = ranks.run(split_all, calls)
    same_bits(results)
    for i, (losses, gradient) in enumerate(expected):
        parts = torch.cat([of_rank[i][1] for of_rank in results], 1)
        torch.testing.assert_close(results[0][i][0], losses, rtol=1e-14, atol=0, equal_nan=True)
        torch.testing.assert_close(parts, gradient, rtol=1e-13, atol=1e-16, equal_nan=True)


def test_nothing_that_counts(ranks):
    sizes = [3, 2, 4][: ranks.size]
    z, t, _ = problem(2, sum(sizes))
    z[0, 0] = torch.nan
    for rows, targets, options in (
        (z, torch.full_like(t, -100), {}),
        (z[:0], t[:0], {}),
        (z, t, {"sample_weight": torch.zeros(2)}),
        (z, t, {"weight": torch.zeros(sum(sizes))}),
        (z[1:], t[1:], {"num_items": 0}),
    ):
        for [(loss, gradient)] in ranks.run(split_all, [((sizes, rows, targets), options)]):
            assert loss == 0
            assert not gradient.any()


def test_weights_of_both_signs_have_no_mean(ranks):
    sizes = [3, 2, 4][: ranks.size]
    z, _, _ = problem(2, sum(sizes))
    options = {"sample_weight": torch.tensor([1.0, -1.0])}
    t = torch.tensor([0, 0])
    for [(loss, _)] in ranks.run(split_all, [((sizes, z, t), options)]):
        assert loss.isnan()
    z[1] = z[0]
    for [(loss, _)] in ranks.run(split_all, [((sizes, z, t), {"reduction": "sum", **options})]):
        assert loss == 0


def by_both_ways(sizes, z, t, options):
    gathered = split(sizes, z, t, **options)
    try:
        _exchange.GATHER_RANKS, _exchange.GATHER_BYTES = 0, -1
        return gathered, split(sizes, z, t, **options)
    finally:
        _exchange.GATHER_RANKS, _exchange.GATHER_BYTES = 4, 1 << 20


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 64])
def test_both_ways_to_join_give_the_same_bits(ranks, options, rows):
    sizes = [3, 2, 4][: ranks.size]
    z, t, _ = problem(rows, sum(sizes), torch.float32)
    results = ranks.run(by_both_ways, sizes, z, t, {"reduction": "none", **options})
    same_bits([[way for of_rank in results for way in of_rank][:1], [results[-1][1]]])
    for gathered, scattered in results:
        assert all(torch.equal(a, b) for a, b in zip(gathered, scattered, strict=True))


def test_a_way_is_chosen_by_what_is_received():
    def chunks(ranks, rows, fields):
        return _exchange.chunks_for((rows, fields), _group.Ranks("", 0, ranks))

    assert chunks(4, 1 << 20, 5) == 1
    assert chunks(5, 5242, 5) == 1
    assert chunks(5, 5243, 5) == 5
    assert chunks(64, 8192, 5) == 64


def more_axes(z, t, sizes):
    of_rank, upstream = mine(sizes), torch.linspace(-1, 2, t.numel()).reshape(t.shape)
    logits = z[:, of_rank].clone().requires_grad_()
    losses = vocab_parallel_cross_entropy(logits, t, reduction="none")
    (gradient,) = torch.autograd.grad(losses, logits, upstream)
    alone = vocab_parallel_cross_entropy(z[0, of_rank, 1], t[0, 1])
    narrow = vocab_parallel_cross_entropy(logits, t.to(torch.uint8))
    return losses.detach(), gradient, alone, narrow.detach(), upstream


def test_more_axes_and_one(ranks):
    sizes = [3, 2, 4][: ranks.size]
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, sum(sizes), 3, generator=generator, dtype=torch.float64)
    t = torch.randint(0, sum(sizes), (5, 3), generator=generator)
    results = ranks.run(more_axes, z, t, sizes)
    losses, _, alone, narrow, upstream = results[0]
    whole = z.clone().requires_grad_()
    expected = cross_entropy(whole, t, reduction="none")
    (gradient,) = torch.autograd.grad(expected, whole, upstream.double())
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-13, atol=0)
    torch.testing.assert_close(torch.cat([g for _, g, *_ in results], 1), gradient, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(alone, expected[0, 1].detach(), rtol=1e-13, atol=0)
    torch.testing.assert_close(narrow, expected.mean().detach(), rtol=1e-13, atol=0)


def with_groups(z, t, sizes):
    rank, of_rank = dist.get_rank(), mine(sizes)
    classes = sum(sizes)
    end = classes - sum(sizes[:rank])
    turned = z[:, end - sizes[rank] : end]
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    group = dist.new_group()
    criterion = VocabParallelCrossEntropyLoss(group=group, class_offset=end - sizes[rank])
    return (
        vocab_parallel_cross_entropy(z[:, of_rank], t, group=group),
        vocab_parallel_cross_entropy(z[:, of_rank], t, group=mesh, check=False),
        vocab_parallel_cross_entropy(z[:, of_rank], t, group=mesh, check=False),
        criterion(turned, t),
    )


def test_groups_and_the_order_of_shards(ranks):
    sizes = [3, 2, 4][: ranks.size]
    z, t, _ = problem(5, sum(sizes))
    for losses in ranks.run(with_groups, z, t, sizes):
        for loss in losses:
            torch.testing.assert_close(loss, cross_entropy(z, t), rtol=1e-14, atol=0)


def log_probs(sizes, z, t, upstream, options):
    logits = z[:, mine(sizes)].clone().requires_grad_()
    alone = vocab_parallel_log_prob(logits, t, **options)
    both = vocab_parallel_log_prob(logits, t, entropy=True, **options)
    first = torch.autograd.grad(alone, logits, upstream[0].to(alone.dtype))
    second = torch.autograd.grad(both, logits, [each.to(alone.dtype) for each in upstream])
    last = torch.autograd.grad(vocab_parallel_log_prob(logits, t, entropy=True, **options)[1].sum(), logits)
    return [(x.detach(),) for x in (alone, *both)], (*first, *second, *last)


@pytest.mark.parametrize("options", [{}, {"softcap": 3.0, "temperature": 1.5}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_log_probabilities_and_entropy(ranks, options, dtype):
    for sizes in SIZES[ranks.size]:
        z, t, generator = problem(6, sum(sizes), dtype)
        t[2] = -100
        upstream = torch.randn(2, 6, generator=generator, dtype=torch.float64)
        whole = z.to(torch.float64, copy=True).requires_grad_()
        values = log_prob(whole, t, entropy=True, **options)
        gradients = (
            *torch.autograd.grad(values[0], whole, upstream[0], retain_graph=True),
            *torch.autograd.grad(values, whole, list(upstream), retain_graph=True),
            *torch.autograd.grad(values[1].sum(), whole),
        )
        results = ranks.run(log_probs, sizes, z, t, upstream, options)
        same_bits([found for found, _ in results])
        tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        for (found,), expected in zip(results[0][0], (values[0], *values), strict=True):
            torch.testing.assert_close(found.double(), expected.detach(), **tolerance)
        for i, expected in enumerate(gradients):
            parts = torch.cat([of_rank[i] for _, of_rank in results], 1)
            torch.testing.assert_close(parts.double(), expected, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("small", [1e-30, 1e30])
def test_class_weights_beyond_float32_on_one_rank(ranks, dtype, small):
    sizes = [3, 2, 4][: ranks.size]
    z, t, _ = problem(6, sum(sizes), dtype)
    weight = torch.ones(sum(sizes), dtype=torch.float64)
    weight[0] = small
    whole = z.to(torch.float64, copy=True).requires_grad_()
    expected = cross_entropy(whole, t, weight, label_smoothing=0.1, reduction="sum")
    expected.backward()
    results = ranks.run(split_all, [((sizes, z, t), {"weight": weight, "label_smoothing": 0.1, "reduction": "sum"})])
    same_bits(results)
    torch.testing.assert_close(results[0][0][0].double(), expected.detach(), rtol=1e-6, atol=0)
    parts = torch.cat([gradient for [(_, gradient)] in results], 1).double()
    torch.testing.assert_close(parts, whole.grad, rtol=1e-5, atol=1e-5 * max(1.0, small))
