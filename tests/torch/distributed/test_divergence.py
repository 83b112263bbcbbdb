"""Divergences of rows whose classes are split: against one process and mpmath, in one process and in several."""

import math
from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from family_oracle import divergence, worst

import crossentropy.torch as ct
import crossentropy.torch.distributed as cd
from crossentropy import _head
from crossentropy._options import loss_options
from crossentropy.torch._composed_divergence import DivergenceOptions
from crossentropy.torch.distributed import _divergence_parts as parts

INF = math.inf
DIRECTIONS = ["forward", "reverse"]
CUTS = [[0, 20], [0, 7, 7, 20], [0, 0, 1, 2, 20, 20]]


def in_parts(z, w, cuts, direction="forward", scale=None, softcap=None, teacher_softcap=None, temperature=1.0):
    """The divergence of each row and its gradients in z and w, from parts."""
    options = DivergenceOptions(
        direction,
        loss_options(softcap=softcap, temperature=temperature),
        loss_options(softcap=teacher_softcap, temperature=temperature),
    )
    z, w = z.clone(), w.clone()  # the gradients take the logits' place
    sides = [parts.sides_of(options, z[:, i:j], w[:, i:j]) for i, j in pairwise(cuts)]
    told = [parts.first_round(of) for of in sides]
    whole = parts.join_first(sides[0], torch.stack(told))
    sums = parts.join_second(torch.stack([parts.second_round(*of, whole) for of in zip(sides, told, strict=True)]))
    found = parts.found(whole, sums)
    scale = torch.ones(len(z), dtype=torch.float64) if scale is None else scale
    for of, own in zip(sides, told, strict=True):
        parts.write_gradients(of, own, whole, found, scale, of.a, of.b)
    return found.value, z, w


def of_one(z, w, direction="forward", scale=None, **options):
    z, w = z.detach().requires_grad_(), w.detach().requires_grad_()
    value = ct.kl_divergence(z, w, direction=direction, reduction="none", **options)
    upstream = torch.ones_like(value) if scale is None else scale.to(value.dtype)
    return value.detach(), *torch.autograd.grad(value, (z, w), upstream)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("cuts", CUTS[1:], ids=str)
@pytest.mark.parametrize(
    ("dtype", "apart"),
    [(torch.float64, 0.0), (torch.float64, 1e-9), (torch.float64, 1.0), (torch.float32, 1e-3), (torch.float32, 60.0)],
)
@pytest.mark.parametrize(("spread", "shift", "temperature"), [(1.0, 0.0, 1.0), (3.0, 1e4, 1.0), (8.0, 0.0, 0.7)])
def test_digits(cuts, dtype, apart, spread, shift, temperature, direction):
    w = spread * torch.randn(1, 20, dtype=dtype)
    z = w + apart * torch.randn(1, 20, dtype=dtype) + shift
    value, dz, dw = in_parts(z, w, cuts, direction, temperature=temperature)
    if apart == shift == 0.0:
        assert not torch.cat([value, dz[0], dw[0]]).any()
        return
    exact, student, teacher, scale = divergence(z[0], w[0], direction, temperature)
    if exact < 1e-40:
        return
    allowed = 30 if spread < 8 else 100
    assert worst(value.to(dtype), [exact]) < max(40, allowed / 4)
    assert worst(dz, student, scale) < allowed
    assert worst(dw, teacher, scale) < allowed


OPTIONS = [
    {},
    {"temperature": 0.3},
    {"softcap": 5.0},
    {"softcap": 5.0, "teacher_softcap": 5.0, "temperature": 2.0},
    {"softcap": 3.0, "teacher_softcap": 7.0},
]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtypes", [("float64", "float64"), ("float32", "float32"), ("bfloat16", "float64")], ids=str)
def test_parts_are_the_whole(cuts, options, dtypes, direction):
    z, w = (3 * torch.randn(6, 20, dtype=torch.float64) for _ in range(2))
    z[1] = w[1] + 1e-6 * z[1]
    z[2, 5] = 60
    w[3, 4] = 60
    z[4, 3] = w[4, 3] = -INF
    z, w = (logits.to(getattr(torch, dtype)) for logits, dtype in zip((z, w), dtypes, strict=True))
    scale = torch.randn(6, dtype=torch.float64)
    for got, expected in zip(
        in_parts(z, w, cuts, direction, scale, **options), of_one(z, w, direction, scale, **options), strict=True
    ):
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 8e-3}[expected.dtype]
        torch.testing.assert_close(got.to(expected.dtype), expected, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("place", [0, 3, 19])
@pytest.mark.parametrize("which", ["student", "teacher", "both"])
@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
def test_infinities(bad, which, place, direction):
    z, w = torch.randn(4, 20, dtype=torch.float64), torch.randn(4, 20, dtype=torch.float64)
    if which != "teacher":
        z[1, place] = bad
        z[3] = bad
    if which != "student":
        w[1, place] = bad
    scale = torch.tensor([1.0, -2.0, 0.0, 1.0], dtype=torch.float64)
    expected = of_one(z, w, direction, scale)
    for cuts in CUTS:
        for got, of in zip(in_parts(z, w, cuts, direction, scale), expected, strict=True):
            torch.testing.assert_close(got, of, rtol=1e-12, atol=1e-14, equal_nan=True)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("softcap", [None, 4.0])
def test_models_that_differ_by_little_under_caps(softcap, direction):
    w = 6 * torch.randn(50, 20, dtype=torch.float64)
    z = w + 1e-9 * torch.randn(50, 20, dtype=torch.float64)
    options = {"softcap": softcap, "teacher_softcap": softcap}
    value, dz, _ = in_parts(z, w, [0, 3, 20], direction, **options)
    for row in range(5):
        exact, student, _, scale = divergence(z[row], w[row], direction, 1.0, softcap, softcap)
        assert worst(value[row], [exact]) < 100
        if softcap is None:
            assert worst(dz[row], student, scale) < 100
    assert (value >= 0).all()


# On ranks.

ROWS, CLASSES, WIDTH = 9, 20, 5
SPLITS = {2: [0, 7, 20], 3: [0, 7, 7, 20]}


def shard(tensor, cuts, axis):
    rank = dist.get_rank()
    return tensor.narrow(axis, cuts[rank], cuts[rank + 1] - cuts[rank]).clone().requires_grad_()


def divergence_on_rank(z, w, s, cuts, upstream, options):
    axis = min(1, z.dim() - 1)
    inputs = [shard(logits, cuts, axis) for logits in (z, w)]
    value = cd.vocab_parallel_kl_divergence(*inputs, sample_weight=s, **options)
    return value.detach(), *torch.autograd.grad(value, inputs, upstream * torch.ones_like(value))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(CLASSES,), (ROWS, CLASSES), (3, CLASSES, 2, 2)], ids=str)
def test_logits_on_ranks(ranks, shape, reduction):
    axis = min(1, len(shape) - 1)
    z, w = (2 * torch.randn(shape).double() for _ in range(2))
    s = None
    if len(shape) > 1:
        s = torch.rand(shape[:1] + shape[2:]).double()
        s.view(-1)[2] = 0
        z[torch.where(s.unsqueeze(1) == 0, True, False).expand(shape)] = math.nan
    options = {"reduction": reduction, "direction": "reverse", "temperature": 1.5}
    inputs = [logits.clone().requires_grad_() for logits in (z, w)]
    expected = ct.kl_divergence(*inputs, sample_weight=s, **options)
    gradients = torch.autograd.grad(expected, inputs, 0.7 * torch.ones_like(expected))
    found = ranks.run(divergence_on_rank, z, w, s, SPLITS[ranks.size], 0.7, options)
    for value, *_ in found:
        assert torch.equal(value, found[0][0])
        torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=1e-14)
    for i, gradient in enumerate(gradients):
        torch.testing.assert_close(torch.cat([of[1 + i] for of in found], axis), gradient, rtol=1e-11, atol=1e-14)


def heads_on_rank(heads, s, cuts, chunk, sequence, wanted, options):
    _head.MAX_LOGITS_BYTES = chunk
    rank, inputs = dist.get_rank(), []
    begin, end = (0, ROWS) if sequence is None else (sum(sequence[:rank]), sum(sequence[: rank + 1]))
    for h, w, b in heads:
        inputs += [h[begin:end].clone().requires_grad_(), shard(w, cuts, 0), shard(b, cuts, 0)]
    a, b, c, d, e, f = (tensor.requires_grad_(asked) for tensor, asked in zip(inputs, wanted, strict=True))
    value = cd.vocab_parallel_linear_kl_divergence(
        a,
        b,
        d,
        e,
        linear_bias_shard=c,
        teacher_linear_bias_shard=f,
        sample_weight=s,
        sequence_parallel=sequence is not None,
        **options,
    )
    of = [tensor for tensor in inputs if tensor.requires_grad]
    return value.detach(), *torch.autograd.grad(value, of, 0.7 * torch.ones_like(value))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("split_rows", [False, True])
def test_heads_on_ranks(ranks, dtype, split_rows):
    s = torch.rand(ROWS).double()
    s[3] = 0
    heads = [
        [torch.randn(size).double().to(dtype) for size in ((ROWS, width), (CLASSES, width), (CLASSES,))]
        for width in (WIDTH, WIDTH + 2)
    ]
    sequence = {2: [4, 5], 3: [1, 0, 8]}[ranks.size] if split_rows else None
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
    for wanted in ((True,) * 6, (True, True, False, False, False, False)):
        for direction, reduction, chunk in (("forward", "mean", 1 << 26), ("reverse", "none", 200 * 16)):
            options = {"direction": direction, "reduction": reduction, "softcap": 8.0}
            inputs = [tensor.clone().requires_grad_() for head in heads for tensor in head]
            a, b, c, d, e, f = inputs
            expected = ct.linear_kl_divergence(
                a, b, d, e, linear_bias=c, teacher_linear_bias=f, sample_weight=s, **options
            )
            gradients = torch.autograd.grad(expected, inputs, 0.7 * torch.ones_like(expected))
            found = ranks.run(heads_on_rank, heads, s, SPLITS[ranks.size], chunk, sequence, wanted, options)
            for value, *_ in found:
                assert torch.equal(value, found[0][0])
                torch.testing.assert_close(value, expected.detach(), rtol=10 * tolerance, atol=tolerance)
            for i in range(sum(wanted)):
                parts_of = [of[1 + i] for of in found]
                if i % 3 == 0 and not split_rows:  # of hidden states
                    assert all(torch.equal(part, parts_of[0]) for part in parts_of)
                    parts_of = parts_of[:1]
                torch.testing.assert_close(torch.cat(parts_of), gradients[i], rtol=20 * tolerance, atol=tolerance)


def refused_on_rank(kind):
    rank, axes = dist.get_rank(), (3, 4)
    z, w = torch.randn(axes), torch.randn(axes)
    h, v = torch.randn(3, 2, requires_grad=kind == "twice"), torch.randn(4, 2)
    if kind == "shape" and rank == 1:
        w = w[:, :3]
    if kind == "weight":
        s = torch.ones(3, dtype=torch.float64)
        if rank == 1:
            s[0] = math.nan
        cd.vocab_parallel_kl_divergence(z, w, sample_weight=s)
    if kind == "option":
        cd.vocab_parallel_kl_divergence(z, w, temperature=1.0 + rank)
    if kind == "classes" and rank == 1:
        v = v[:3]
    if kind in ("classes", "twice"):
        value = cd.vocab_parallel_linear_kl_divergence(h, v, torch.randn(3, 2), torch.randn(4, 2))
        torch.autograd.grad(value, h, create_graph=True)
    if kind == "none":
        z, w = z[:, :0], w[:, :0]
    cd.vocab_parallel_kl_divergence(z, w)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("shape", ValueError, r"teacher_input_shard: expected the shape of input_shard.*on rank 1"),
        ("none", ValueError, r"input_shard: expected at least one class on some rank, got none"),
        ("weight", ValueError, r"sample_weight: expected finite weights.*on rank 1"),
        ("option", ValueError, r"temperature: expected the same on every rank, got 1.0 on rank 0, 2.0 on rank 1"),
        ("classes", ValueError, r"teacher_weight_shard: expected \(3,\) rows.*on rank 1"),
        ("twice", NotImplementedError, r"vocab_parallel_linear_kl_divergence: expected create_graph=False"),
    ],
)
def test_what_one_rank_sees_all_raise(world, kind, error, message):
    for raised in world(2).outcomes(refused_on_rank, kind):
        with pytest.raises(error, match=message):
            raise raised


def unlike_dtypes():
    z = torch.ones(2, 3, dtype=torch.float64 if dist.get_rank() else torch.float32)
    return cd.vocab_parallel_kl_divergence(z, 2 * z)


def unlike_functions():
    z = torch.ones(2, 3)
    if dist.get_rank():
        return cd.vocab_parallel_kl_divergence(z, 2 * z)
    return cd.vocab_parallel_cross_entropy(z, torch.tensor([0, 5]))


@pytest.mark.parametrize(("call", "name"), [(unlike_dtypes, "input_shard"), (unlike_functions, "function")])
def test_ranks_that_differ(world, call, name):
    for error in world(2).outcomes(call):
        assert isinstance(error, ValueError)
        assert str(error).startswith(f"{name}: expected the same on every rank")
