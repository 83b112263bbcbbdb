"""Compiled programs: one for all numbers of rows, that reads the logits once."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounterWithBackend
from torch.library import opcheck
from torch_oracle import OPTIONS, loss_and_gradient, problem, reference

import crossentropy.torch as ct
from crossentropy.torch import _linear, _linear_divergence_kernel, _loss_operator, _token

CLASSES, WIDTH = 11, 6
ROWS = (7, 5, 8, 9, 12, 13, 33, 64, 20, 101, 2)


def compiled(function, backend="aot_eager"):
    counter = CompileCounterWithBackend(backend)
    return torch.compile(function, fullgraph=True, backend=counter), counter


def dynamic(*tensors):
    for tensor in tensors:
        torch._dynamo.mark_dynamic(tensor, 0)


# The loss.


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_one_program_for_all_batches(options, reduction):
    def loss(z, t, w, s):
        return ct.cross_entropy(z, t, w, sample_weight=s, reduction=reduction, **options)

    program, counter = compiled(loss)
    for rows in ROWS:
        z, t, w, s = problem((rows, CLASSES))
        z = z.requires_grad_()
        dynamic(z, t, s)
        upstream = (
            torch.randn(rows).double() if reduction == "none" else torch.tensor(1.0 if rows % 2 else -0.5).double()
        )
        found = program(z, t, w, s)
        (dlogits,) = torch.autograd.grad(found, z, upstream)
        expected = reference(
            z, t, w, s, reduction, upstream.numpy() if reduction == "none" else upstream.item(), **options
        )
        torch.testing.assert_close((found.detach(), dlogits), expected)
    assert counter.frame_count == 1


@pytest.fixture
def calls(monkeypatch):
    """Calls of the core."""
    noted = []

    def noting(*args, original=_loss_operator.reduced_loss):
        noted.append(args)
        return original(*args)

    monkeypatch.setattr(_loss_operator, "reduced_loss", noting)
    return noted


@pytest.mark.parametrize("backend", ["inductor", "aot_eager", "eager"])
def test_a_step_reads_the_logits_once(backend, calls):
    program = torch.compile(lambda z, t: ct.cross_entropy(3 * z, t), fullgraph=True, backend=backend)
    z, t, _, _ = problem((6, CLASSES))
    loss, dlogits = loss_and_gradient(z, t, function=program)
    assert len(calls) == 1
    torch.testing.assert_close(
        (loss, dlogits), loss_and_gradient(z, t, function=lambda z, t: ct.cross_entropy(3 * z, t))
    )
    with torch.no_grad():
        program(z, t)
    assert len(calls) == 2
    assert calls[1][4] is None  # no gradient is made where none is asked for


def test_another_upstream_gradient_enters_before_rounding(calls):
    program, _ = compiled(ct.cross_entropy)
    z, t, _, _ = problem((64, 50), dtype=torch.float16)
    scale = torch.tensor(65536.0)
    assert torch.equal(loss_and_gradient(z, t, scale, program)[1], loss_and_gradient(z, t, scale)[1])
    assert len(calls) == 2


def test_gradients_are_handed_out_once(calls):
    program, _ = compiled(ct.cross_entropy)
    z, t, _, _ = problem((6, CLASSES))
    z = z.requires_grad_()
    loss = program(z, t)
    first, second = (torch.autograd.grad(loss, z, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    assert len(calls) == 2


def test_a_graph_that_dies_frees_its_gradient():
    program, _ = compiled(ct.cross_entropy)
    z, t, _, _ = problem((6, CLASSES))
    before = len(_token._owners)
    loss = program(z.requires_grad_(), t)
    assert len(_token._owners) == before + 1
    del loss
    assert len(_token._owners) == before


def test_a_copied_token_owns_nothing():
    token = _token.keep(torch.ones(3))
    assert _token.take(token.clone()) is None
    assert _token.take(token)[0].tolist() == [1, 1, 1]
    assert _token.take(token) is None


@pytest.mark.parametrize("items", [5, 5.0, torch.tensor(5), torch.tensor([0.0])], ids=str)
def test_the_number_of_items(items, calls):
    program, _ = compiled(ct.cross_entropy)
    z, t, _, _ = problem((6, CLASSES))
    found = loss_and_gradient(z, t, function=program, num_items=items)
    assert len(calls) == 1
    torch.testing.assert_close(found, loss_and_gradient(z, t, num_items=items))


def test_targets_and_divisors_that_are_to_be_learnt():
    z, q, _, _ = problem((6, CLASSES), True)
    z, q, items = z.requires_grad_(), q.requires_grad_(), torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    program, _ = compiled(ct.cross_entropy)
    for options in ({}, {"num_items": items}):
        of = (z, q, items) if options else (z, q)
        expected = torch.autograd.grad(ct.cross_entropy(z, q, **options), of)
        torch.testing.assert_close(torch.autograd.grad(program(z, q, **options), of), expected)


@pytest.mark.parametrize("probabilities", [False, True])
def test_twice_differentiated(probabilities):
    z, t, w, s = problem((5, 4), probabilities)
    program, _ = compiled(lambda z: ct.cross_entropy(z, t, w, sample_weight=s, z_loss=0.1), "eager")
    assert torch.autograd.gradcheck(program, (z.requires_grad_(),), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(program, (z,))


# Heads.


def cross_entropy(h, W, U, t):
    return ct.linear_cross_entropy(h, W, t, z_loss=0.1)


def cross_entropy_of_rows(h, W, U, t):
    return ct.linear_cross_entropy(h, W, t, reduction="none")


def log_prob(h, W, U, t):
    return ct.linear_log_prob(h, W, t)


def log_prob_and_entropy(h, W, U, t):
    log_probs, entropies = ct.linear_log_prob(h, W, t, entropy=True)
    return log_probs + 0.1 * entropies


def divergence(h, W, U, t):
    return ct.linear_kl_divergence(h, W, h, U)


def divergence_of_rows(h, W, U, t):
    return ct.linear_jensen_shannon(h, W, h, U, reduction="none")


def plain(function):
    """The same of whole logits, in torch's own operators."""

    def losses(h, W, U, t):
        logits = h @ W.t()
        p, q = logits.log_softmax(1), (h @ U.t()).log_softmax(1)
        chosen = p.gather(1, t.unsqueeze(1)).squeeze(1)
        m = torch.logsumexp(torch.stack([p, q]), 0) - math.log(2)
        return {
            cross_entropy: lambda: F.cross_entropy(logits, t) + 0.1 * logits.logsumexp(1).square().mean(),
            cross_entropy_of_rows: lambda: -chosen,
            log_prob: lambda: chosen,
            log_prob_and_entropy: lambda: chosen - 0.1 * (p.exp() * p).sum(1),
            divergence: lambda: (q.exp() * (q - p)).sum(1).mean(),
            divergence_of_rows: lambda: ((p.exp() * (p - m)).sum(1) + (q.exp() * (q - m)).sum(1)) / 2,
        }[function]()

    return losses


HEADS = [cross_entropy, cross_entropy_of_rows, log_prob, log_prob_and_entropy, divergence, divergence_of_rows]


def head(rows):
    h, W, U = (torch.randn(n, WIDTH, dtype=torch.float64, requires_grad=True) for n in (rows, CLASSES, CLASSES))
    return h, W, U, torch.randint(0, CLASSES, (rows,))


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("function", HEADS)
def test_one_program_for_all_batches_of_a_head(function, marked):
    program, counter = compiled(function)
    _, W, U, _ = head(2)
    for rows in ROWS:
        h, _, _, t = head(rows)
        if marked:
            dynamic(h, t)
        expected = plain(function)(h, W, U, t)
        found = program(h, W, U, t)
        torch.testing.assert_close(found, expected)
        of = [tensor for tensor in (h, W, U) if "divergence" in function.__name__ or tensor is not U]
        for upstream in (torch.ones_like(found), torch.randn_like(found)):
            theirs = torch.autograd.grad(expected, of, upstream, retain_graph=True)
            torch.testing.assert_close(torch.autograd.grad(program(h, W, U, t), of, upstream), theirs)
    assert counter.frame_count == (1 if marked else 2)  # the first is for the first number of rows alone


@pytest.mark.parametrize("function", [*HEADS, ct.cross_entropy])
def test_exported_with_any_number_of_rows(function):
    class Model(torch.nn.Module):
        def forward(self, *args):
            return function(*args)

    def arguments(rows):
        h, W, U, t = (tensor.detach() for tensor in head(rows))
        return (h @ W.t(), t) if function is ct.cross_entropy else (h, W, U, t)

    rows = torch.export.Dim("rows", min=2)
    shapes = (({0: rows}, {0: rows}) if function is ct.cross_entropy else ({0: rows}, None, None, {0: rows}),)
    program = torch.export.export(Model(), arguments(4), dynamic_shapes=shapes).module()
    for n in ROWS:
        args = arguments(n)
        torch.testing.assert_close(program(*args), function(*args))


@pytest.mark.parametrize("function", [cross_entropy, divergence])
def test_a_step_makes_the_logits_once(function, monkeypatch):
    made = []

    def noting(original):
        return lambda *args, **options: (made.append(args), original(*args, **options))[1]

    monkeypatch.setattr(_linear, "loss_from_core", noting(_linear.loss_from_core))
    monkeypatch.setattr(_linear_divergence_kernel, "evaluate", noting(_linear_divergence_kernel.evaluate))
    program, _ = compiled(function)
    program(*head(6)).backward()
    assert len(made) == 1


@pytest.mark.parametrize("function", HEADS)
def test_heads_twice_differentiated(function):
    h, W, U, t = head(3)
    program, _ = compiled(lambda h, W, U: function(h, W, U, t), "eager")
    if function in (divergence, divergence_of_rows):
        inputs = (h, W, U)
        assert torch.autograd.gradcheck(program, inputs)
        assert torch.autograd.gradgradcheck(program, inputs)
    else:
        assert torch.autograd.gradcheck(lambda h, W: program(h, W, U), (h, W))
        assert torch.autograd.gradgradcheck(lambda h, W: program(h, W, U), (h, W))


def test_a_head_with_a_bias_places_and_ignored_rows():
    h, W, b = (torch.randn(n, dtype=torch.float64, requires_grad=True) for n in ((6, 4), (5, 3, 4), (5, 3)))
    _, t, w, s = problem((6, 5, 3))

    def loss(h, W, b):
        return ct.linear_cross_entropy(h, W, t, linear_bias=b, weight=w, sample_weight=s, num_items=7)

    program, _ = compiled(loss)
    torch.testing.assert_close(
        torch.autograd.grad(program(h, W, b), (h, W, b)), torch.autograd.grad(loss(h, W, b), (h, W, b))
    )
    torch.testing.assert_close(torch.autograd.grad(program(h, W.detach(), b), b), torch.autograd.grad(loss(h, W, b), b))


# Operators.


def test_operators_are_registered_right():
    z, t, w, s = problem((4, CLASSES))
    h, W, U, index = head(4)
    numbers = [0.1, 0.0, 0.0, 0.0, math.inf, 1.0]
    ops = torch.ops.crossentropy
    rest = ("mean", -100, numbers)
    opcheck(ops.loss, (z.requires_grad_(), t, w, s, None, *rest))
    opcheck(ops._loss_and_token, (z.detach(), t, w, s, None, *rest, True))
    opcheck(
        ops._loss_gradient, (torch.zeros(1, dtype=torch.uint8), torch.tensor(2.0), z.detach(), t, w, s, None, *rest)
    )
    for reduction in ("mean", "none"):
        opcheck(ops.head_loss, (h, W, None, index, None, None, None, [CLASSES], reduction, -100, numbers))
        two = (h, W, None, h.detach(), U, None)
        opcheck(ops.head_divergence, (*two, None, [CLASSES], reduction, "forward", [0.0, math.inf, math.inf, 1.0]))
    for entropy in (False, True):
        opcheck(ops.head_log_prob, (h, W, None, index, [CLASSES], entropy, -100, numbers))
