"""Divergences of rows whose classes are split: against one process and mpmath, in one process and in several."""

import math
from itertools import pairwise

import pytest
import torch
from family_oracle import divergence, worst

import crossentropy.torch as ct
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
    whole = parts.join_first(sides[0], torch.stack([parts.first_round(of) for of in sides]))
    sums = parts.join_second(torch.stack([parts.second_round(of, whole) for of in sides]))
    found = parts.found(whole, sums)
    scale = torch.ones(len(z), dtype=torch.float64) if scale is None else scale
    for of in sides:
        parts.write_gradients(of, whole, found, scale, of.a, of.b)
    return found.value, z, w


def of_one(z, w, direction="forward", scale=None, **options):
    z, w = z.detach().requires_grad_(), w.detach().requires_grad_()
    value = ct.kl_divergence(z, w, direction=direction, reduction="none", **options)
    upstream = torch.ones_like(value) if scale is None else scale.to(value.dtype)
    return value.detach(), *torch.autograd.grad(value, (z, w), upstream)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-3, 1.0, 60.0])
@pytest.mark.parametrize(("spread", "shift", "temperature"), [(1.0, 0.0, 1.0), (3.0, 1e4, 1.0), (20.0, 0.0, 0.7)])
def test_digits(cuts, apart, spread, shift, temperature, direction):
    w = spread * torch.randn(1, 20, dtype=torch.float64)
    z = w + apart * torch.randn(1, 20, dtype=torch.float64) + shift
    value, dz, dw = in_parts(z, w, cuts, direction, temperature=temperature)
    exact, student, teacher, scale = divergence(z[0], w[0], direction, temperature)
    if apart == shift == 0.0:
        assert value.item() == 0.0
        assert not dz.any()
        assert not dw.any()
        return
    allowed = 30 if spread < 20 else 400
    if exact < 1e-40:
        return
    assert worst(value, [exact]) < max(40, allowed / 4)
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
