"""Linear heads whose classes are split, on real ranks: against one process."""

import math

import pytest
import torch
import torch.distributed as dist
from torch_oracle import REDUCTIONS

import crossentropy.torch as ct
import crossentropy.torch.distributed as cd
from crossentropy import _head

N, D, C = 13, 6, 40
CUTS = {2: [[0, 17, 40], [0, 0, 40]], 3: [[0, 3, 30, 40], [0, 40, 40, 40]]}
OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 1e-2},
    {"softcap": 3.0, "temperature": 0.7},
    {"focal_gamma": 2.0},
    {"label_smoothing": 0.2, "z_loss": 1e-2, "entropy_bonus": 0.3, "softcap": 5.0},
]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2}
SEQUENCES = {2: [5, 8], 3: [6, 0, 7]}


def problem(dtype=torch.float64, probabilities=False):
    """Hidden states, classifier, bias, targets, class and sample weights: one row is ignored, one does not count."""
    h, w, b = (torch.randn(shape, dtype=torch.float64).to(dtype) for shape in ((N, D), (C, D), (C,)))
    t = torch.rand(N, C, dtype=dtype) if probabilities else torch.randint(0, C, (N,))
    if not probabilities:
        t[1] = -100
    s = torch.rand(N, dtype=torch.float64) + 0.5
    s[0] = 0
    h[:2] = math.nan if not probabilities else 1.0
    return h, w, b, t, torch.rand(C, dtype=torch.float64) + 0.5, s


def shard(tensor, cuts, axis=0):
    rank = dist.get_rank()
    return None if tensor is None else tensor.narrow(axis, cuts[rank], cuts[rank + 1] - cuts[rank]).clone()


def rows_of(tensor, sequence):
    rank = dist.get_rank()
    return tensor if sequence is None else tensor[sum(sequence[:rank]) : sum(sequence[: rank + 1])]


def gradients_of(results, inputs, upstream):
    wanted = [tensor for tensor in inputs if tensor is not None]
    found = torch.autograd.grad(results, wanted, upstream)
    return [result.detach() for result in results], list(found)


def loss_on_rank(problem, cuts, chunk, upstream, sequence, options):
    h, w, b, t, cw, s = problem
    _head.MAX_LOGITS_BYTES = chunk
    h = rows_of(h, sequence).clone().requires_grad_()
    w, b, cw = (shard(tensor, cuts) for tensor in (w, b, cw))
    w, b = (None if tensor is None else tensor.requires_grad_() for tensor in (w, b))
    t = shard(t, cuts, 1) if t.dim() == 2 else t
    more = {"sequence_parallel": True} if sequence is not None else {}
    loss = cd.vocab_parallel_linear_cross_entropy(
        h, w, t, linear_bias_shard=b, weight=cw, sample_weight=s, **more, **options
    )
    return gradients_of([loss], [h, w, b], [torch.ones_like(loss) * upstream])


def of_one(problem, upstream, options):
    h, w, b, t, cw, s = problem
    inputs = [None if tensor is None else tensor.clone().requires_grad_() for tensor in (h, w, b)]
    loss = ct.linear_cross_entropy(
        inputs[0], inputs[1], t, linear_bias=inputs[2], weight=cw, sample_weight=s, **options
    )
    return gradients_of([loss], inputs, [torch.ones_like(loss) * upstream])


def check(found, expected, dtype, sequence=None):
    """Of all ranks against one process: the results and gradients of hidden states have the same bits on all."""
    tolerance = TOLERANCE[dtype]
    for results, gradients in found:
        for result, first, of in zip(results, found[0][0], expected[0], strict=True):
            torch.testing.assert_close(result, first, rtol=0, atol=0, equal_nan=True)
            torch.testing.assert_close(result, of, rtol=tolerance, atol=tolerance, equal_nan=True)
        if sequence is None:
            assert torch.equal(gradients[0], found[0][1][0])
    whole = [torch.cat(of_ranks) for of_ranks in zip(*(gradients for _, gradients in found), strict=True)]
    if sequence is None:
        whole[0] = found[0][1][0]
    for gradient, of in zip(whole, expected[1], strict=True):
        assert gradient.dtype == of.dtype
        torch.testing.assert_close(gradient, of, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("probabilities", [False, True])
def test_loss_is_that_of_one_process(ranks, options, probabilities):
    if probabilities and "focal_gamma" in options:
        return
    given = problem(probabilities=probabilities)
    for cuts in CUTS[ranks.size]:
        for reduction in REDUCTIONS:
            for chunk, upstream in ((1 << 26, 1.0), (C * 8 * 4, -0.7)):
                of = options | {"reduction": reduction}
                found = ranks.run(loss_on_rank, given, cuts, chunk, upstream, None, of)
                check(found, of_one(given, upstream, of), torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("probabilities", [False, True])
def test_other_dtypes(ranks, dtype, probabilities):
    given = problem(dtype, probabilities)
    for options in ({}, {"reduction": "none", "label_smoothing": 0.1}):
        for upstream in (1.0, 3.0):
            found = ranks.run(loss_on_rank, given, CUTS[ranks.size][0], C * 8 * 4, upstream, None, options)
            check(found, of_one(given, upstream, options), dtype)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("chunk", [1 << 26, C * 8 * 6])
def test_rows_of_a_sequence(ranks, chunk, weights):
    h, w, b, t, cw, s = problem()
    given = (h, w, b, t, cw, s) if weights else (torch.randn(N, D).double(), w, None, t.clamp(min=0), None, None)
    sequence = SEQUENCES[ranks.size]
    for reduction in REDUCTIONS:
        options = {"reduction": reduction, "z_loss": 1e-3}
        found = ranks.run(loss_on_rank, given, CUTS[ranks.size][0], chunk, 0.3, sequence, options)
        check(found, of_one(given, 0.3, options), torch.float64, sequence)


def log_prob_on_rank(problem, cuts, chunk, upstream, sequence):
    h, w, b, t, _, _ = problem
    _head.MAX_LOGITS_BYTES = chunk
    inputs = [rows_of(h, sequence).clone(), shard(w, cuts), shard(b, cuts)]
    h, w, b = (tensor.requires_grad_() for tensor in inputs)
    results = cd.vocab_parallel_linear_log_prob(
        h, w, t, linear_bias_shard=b, entropy=len(upstream) == 2, sequence_parallel=sequence is not None, softcap=6.0
    )
    return gradients_of(results if isinstance(results, tuple) else [results], inputs, upstream)


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("split_rows", [False, True])
def test_log_prob_is_that_of_one_process(ranks, entropy, split_rows):
    h, w, b, t, _, _ = given = problem()
    upstream = [torch.randn(N).double() for _ in range(2 if entropy else 1)]
    h[0] = 1.0
    inputs = [tensor.clone().requires_grad_() for tensor in (h, w, b)]
    results = ct.linear_log_prob(inputs[0], inputs[1], t, linear_bias=inputs[2], entropy=entropy, softcap=6.0)
    expected = gradients_of(results if entropy else [results], inputs, upstream)
    sequence = SEQUENCES[ranks.size] if split_rows else None
    for cuts in CUTS[ranks.size]:
        for chunk in (1 << 26, C * 8 * 4):
            found = ranks.run(log_prob_on_rank, given, cuts, chunk, upstream, sequence)
            check(found, expected, torch.float64, sequence)
