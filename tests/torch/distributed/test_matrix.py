"""Every option over classes that are split among processes: each rank beside the definition in one process."""

import functools

import pytest
import torch
import torch.distributed as dist
from torch_oracle import EPS, REDUCTIONS, problem, reference

from crossentropy.torch.distributed import vocab_parallel_cross_entropy

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
LOSS_EPS = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 1e-6}
# How many of the classes each rank has, by the number of ranks.
SPLITS = {
    2: [(12, 1), (0, 13), (700, 345)],
    3: [(5, 3, 5), (9, 0, 4), (300, 701, 44)],
}
OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0},
    {"z_loss": 1e-2},
    {"entropy_bonus": 0.3},
    {"entropy_bonus": -0.2, "temperature": 2.5},
    {"focal_gamma": 2.0},
    {"softcap": 3.0},
    {"temperature": 0.4},
    {"ignore_index": 3},
    {"num_items": 2.5},
    {"focal_gamma": 0.5, "z_loss": 1e-2, "entropy_bonus": 0.1, "softcap": 4.0, "temperature": 0.7},
    {"label_smoothing": 0.2, "z_loss": 1e-2, "entropy_bonus": 0.3, "softcap": 5.0, "temperature": 1.5},
]
WEIGHTS = [(), ("weight",), ("sample_weight",), ("weight", "sample_weight")]
ROWS = 6


def cases(probabilities):
    """Options, reduction and names of weights; one kind of weight alone with the mean, whose divisor depends on it."""
    found = [
        (options, reduction, weights)
        for options in OPTIONS
        for reduction in REDUCTIONS
        for weights in WEIGHTS
        if (reduction == "mean" or (len(weights) != 1 and "num_items" not in options))
    ]
    of_indices = {"focal_gamma", "ignore_index"}
    return [case for case in found if not (probabilities and of_indices & case[0].keys())]


def upstream(reduction, rows=ROWS):
    return torch.linspace(-1.0, 2.0, rows, dtype=torch.float64) if reduction == "none" else torch.tensor(0.75).double()


def of_rank(split):
    """The classes of this rank."""
    first = sum(split[: dist.get_rank()])
    return slice(first, first + split[dist.get_rank()])


def own(tensor, split):
    return tensor[..., of_rank(split)].clone()


def on_rank(split, probabilities, dtype):
    """Loss and gradient of this rank's logits, in every case."""
    z, t, w, s = made(sum(split), probabilities, dtype)
    target, found = own(t, split) if probabilities else t, []
    for options, reduction, weights in cases(probabilities):
        shard = own(z, split).requires_grad_()
        given = {"weight": own(w, split), "sample_weight": s}
        loss = vocab_parallel_cross_entropy(
            shard, ignoring(target, options), reduction=reduction, **{name: given[name] for name in weights}, **options
        )
        loss.backward(upstream(reduction).to(loss.dtype))
        found.append((loss.detach(), shard.grad))
    return found


def made(classes, probabilities, dtype):
    torch.manual_seed(0)
    return problem((ROWS, classes), probabilities, dtype)


def ignoring(target, options):
    """The rows that are ignored, by the index that the options tell."""
    return target if target.is_floating_point() else target.masked_fill(target < 0, options.get("ignore_index", -100))


@functools.cache
def answers(classes, probabilities, dtype):
    """Loss and gradient of one process, in every case."""
    problem_of = made(classes, probabilities, dtype)
    return [expected(case, *problem_of) for case in cases(probabilities)]


def expected(case, z, t, w, s):
    options, reduction, weights = dict(case[0]), *case[1:]
    t = ignoring(t, options)
    given = (w if "weight" in weights else None, s if "sample_weight" in weights else None)
    # The reference has no num_items: it is a factor of the sum.
    items = options.pop("num_items", None)
    scale = 1.0 if items is None else 1.0 / items
    how = {"ignore_index": -100, "reduction": reduction if items is None else "sum", **options}
    loss, gradient = reference(z, t, *given, grad_output=(scale * upstream(reduction)).numpy(), **how)
    return scale * loss, gradient


@pytest.mark.parametrize("probabilities", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matrix(ranks, probabilities, dtype):
    for split in SPLITS[ranks.size]:
        found = ranks.run(on_rank, split, probabilities, dtype)
        one = answers(sum(split), probabilities, dtype)
        assert len(found[0]) == len(cases(probabilities)) > 60
        for i, case in enumerate(cases(probabilities)):
            loss, gradient = one[i]
            losses, gradients = zip(*(of_rank[i] for of_rank in found), strict=True)
            message = f"{split}: {case}"
            assert all(torch.equal(losses[0], other) for other in losses), f"the same bits: {message}"
            assert losses[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32), message
            close(losses[0], loss, LOSS_EPS[dtype], message)
            assert [g.shape[-1] for g in gradients] == list(split), message
            assert {g.dtype for g in gradients} == {dtype}, message
            close(torch.cat(gradients, -1), gradient, EPS[dtype], message)


def of_a_vocabulary(split, dtype, rows):
    """Loss and gradient of rows of which some are ignored."""
    z, t = vocabulary(sum(split), dtype, rows)
    shard = own(z, split).requires_grad_()
    loss = vocab_parallel_cross_entropy(shard, t, label_smoothing=0.1, z_loss=1e-4)
    loss.backward()
    return loss.detach(), shard.grad


def vocabulary(classes, dtype, rows):
    torch.manual_seed(1)
    z, t = (2 * torch.randn(rows, classes)).to(dtype), torch.randint(0, classes, (rows,))
    t[::5] = -100
    return z, t


@pytest.mark.parametrize("classes", [32000, 32003])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_vocabularies_on_four_ranks(world, classes, dtype):
    split = [len(part) for part in torch.arange(classes).tensor_split(4)]
    assert (len(set(split)) > 1) == (classes == 32003)
    found = world(4).run(of_a_vocabulary, split, dtype, 20)
    z, t = vocabulary(classes, dtype, 20)
    one_hot = torch.nn.functional.one_hot(t.clamp(min=0), classes)  # of indices the reference makes a square matrix
    loss, gradient = reference(z, one_hot, None, t >= 0, label_smoothing=0.1, z_loss=1e-4)
    actual = torch.cat([of_rank for _, of_rank in found], -1)
    for others, _ in found:
        assert torch.equal(others, found[0][0])
    close(found[0][0], loss, 1e-6, "loss")
    assert not actual[::5].any()
    smoothed = 0.1 / classes / (t >= 0).sum()  # what every class's gradient is the difference of
    bound = 4 * torch.finfo(torch.float32).eps * (gradient.abs() + smoothed)
    bound += torch.finfo(dtype).eps / 2 * gradient.abs()
    assert ((actual.double() - gradient).abs() <= bound).all()


def with_one(value, where, split):
    """Losses and gradients of rows of which each holds a value at one place of this class, or its target there."""
    z, t = holding(value, where, sum(split))
    shard, found = own(z, split).requires_grad_(), []
    for options in INFINITE_OPTIONS:
        losses = vocab_parallel_cross_entropy(shard, t, reduction="none", **options)
        (gradient,) = torch.autograd.grad(losses, shard, torch.ones_like(losses))
        found.append((losses.detach(), gradient))
    return found


INFINITE_OPTIONS = [{}, {"label_smoothing": 0.1}, {"z_loss": 1e-2, "entropy_bonus": 0.1}, {"softcap": 5.0}]


def holding(value, where, classes):
    """Row 0 is usual; row 1 holds the value off its target, row 2 at it; row 3 is ignored; row 4 holds nothing else."""
    torch.manual_seed(2)
    z = torch.randn(5, classes)
    t = torch.full((5,), (where + 1) % classes)
    z[1:, where], z[4], t[2], t[3] = value, value, where, -100
    return z, t


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_nan_and_infinities_on_each_rank(ranks, value):
    split = [6, 0, 7][: ranks.size] if ranks.size == 3 else [6, 7]
    for where in (2, 9):
        found = ranks.run(with_one, value, where, split)
        z, t = holding(value, where, sum(split))
        for i, options in enumerate(INFINITE_OPTIONS):
            losses, gradient = reference(z, t, None, None, "none", ignore_index=-100, **options)
            close(found[0][i][0], losses, 1e-6, f"{where}: {options}")
            close(torch.cat([of_rank[i][1] for of_rank in found], -1), gradient, 1e-6, f"{where}: {options}")
            usual = losses[[0, 3]]
            assert usual.isfinite().all()
            assert value < 0 or losses[[1, 2, 4]].isnan().all() or options.get("softcap")


def close(actual, exact, eps, message):
    torch.testing.assert_close(
        actual.double(), exact.double(), rtol=eps, atol=eps, equal_nan=True, msg=lambda text: f"{message}\n{text}"
    )
