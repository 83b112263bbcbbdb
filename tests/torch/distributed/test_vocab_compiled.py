"""Losses over split classes in compiled programs: the same bits as without, the collectives in the graph."""

import warnings

import pytest
import torch
import torch.distributed as dist

from crossentropy.torch.distributed import (
    VocabParallelCrossEntropyLoss,
    _exchange,
    vocab_parallel_cross_entropy,
    vocab_parallel_log_prob,
)

SIZES = [3, 4]
OPTIONS = (
    {},
    {"reduction": "none", "check": False},
    {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 5.0},
    {"num_items": 3, "entropy_bonus": 0.1},
    {"num_items": torch.tensor(2.5), "focal_gamma": 1.0},
)


def data(rows=6):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(rows, sum(SIZES), 2, generator=generator)
    t = torch.randint(0, sum(SIZES), (rows, 2), generator=generator)
    t[0] = -100
    first = 0 if dist.get_rank() == 0 else SIZES[0]
    return (
        z[:, first : first + SIZES[dist.get_rank()]].clone().requires_grad_(),
        t,
        torch.rand(rows, 2, generator=generator),
    )


def compiled(function, **options):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, **options)


def loss_and_gradient(function, z, t, **options):
    loss = function(z, t, **options)
    upstream = torch.linspace(0.5, 2, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    return loss.detach(), *torch.autograd.grad(loss, z, upstream)


def loss_of(z, t, **options):
    return vocab_parallel_cross_entropy(2 * z, t, group=dist.group.WORLD, **options)


def both(options):
    z, t, s = data()
    calls = [(t, {}), (t, {"sample_weight": s, "weight": torch.rand(z.shape[1])})]
    if "focal_gamma" not in options:
        calls.append((torch.softmax(z.detach(), 1), {}))
    for targets, more in calls:
        eager = loss_and_gradient(loss_of, z, targets, **more, **options)
        graph = loss_and_gradient(compiled(loss_of, backend="aot_eager"), z, targets, **more, **options)
        yield all(map(torch.equal, eager, graph))


def all_equal(options):
    return list(both(options))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_bits(world, options):
    for found in world(2).run(all_equal, options, within=300):
        assert all(found)


def by_the_compiler():
    z, t, _ = data()
    module = VocabParallelCrossEntropyLoss(label_smoothing=0.1)
    eager = loss_and_gradient(module, z, t)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".torch.jit", DeprecationWarning)  # of torch's own code
        graph = loss_and_gradient(compiled(module), z, t)
    return list(map(torch.equal, eager, graph))


def test_a_module_in_a_compiled_program(world):
    for found in world(2).run(by_the_compiler, within=300):
        assert all(found)


def by_rows():
    z, t, _ = data()
    graphs = []

    def backend(graph, _):
        graphs.append(str(graph.graph))
        return graph.forward

    try:
        _exchange.GATHER_RANKS, _exchange.GATHER_BYTES = 0, -1
        eager, graph = loss_of(z, t), compiled(loss_of, backend=backend)(z, t)
    finally:
        _exchange.GATHER_RANKS, _exchange.GATHER_BYTES = 4, 1 << 20
    gathered = compiled(loss_of, backend=backend)(z, t)
    return bool(torch.equal(eager, graph) and torch.equal(eager, gathered)), graphs


def test_collectives_are_in_the_graph(world):
    for equal, (by_rows_graph, graph) in world(2).run(by_rows, within=300):
        assert equal
        assert by_rows_graph.count("all_to_all_single") == by_rows_graph.count("all_gather_into_tensor") == 1
        assert graph.count("all_gather_into_tensor") == 1
        assert "all_to_all" not in graph


def log_probs():
    z, t, _ = data()
    found = []
    for entropy in (False, True):

        def function(z, t, entropy=entropy):
            values = vocab_parallel_log_prob(2 * z, t, entropy=entropy, softcap=4.0)
            return torch.stack(values) if entropy else values

        eager = loss_and_gradient(function, z, t)
        graph = loss_and_gradient(compiled(function, backend="aot_eager"), z, t)
        found.append(all(map(torch.equal, eager, graph)))
    return found


def test_log_probabilities(world):
    for found in world(2).run(log_probs, within=300):
        assert all(found)


def several_sizes():
    torch._dynamo.utils.counters.clear()
    function = compiled(loss_of, dynamic=True, backend="aot_eager")
    equal = []
    for rows in (9, 5, 7):
        z, t, _ = data(rows)
        equal.append(bool(torch.equal(function(z, t), loss_of(z, t))))
    return equal, torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_one_graph_for_all_numbers_of_rows(world):
    for equal, graphs in world(2).run(several_sizes, within=300):
        assert all(equal)
        assert graphs == 1


def errors():
    z, t, _ = data()
    function = compiled(loss_of, backend="aot_eager")
    bad = t.clone()
    bad[2, 1] = 7
    raised = []
    for targets, check in ((bad if dist.get_rank() == 1 else t, False), (bad, True), (t.roll(dist.get_rank()), True)):
        try:
            function(z, targets, check=check)
        except (IndexError, ValueError) as error:
            raised.append((type(error), str(error)))
    (gradient,) = torch.autograd.grad(function(z, t), z, create_graph=True)
    try:
        gradient.sum().backward()
    except RuntimeError as error:
        raised.append((type(error), str(error)))
    return raised, bool(torch.equal(function(z, t), loss_of(z, t)))


def test_every_rank_raises_the_same(world):
    first, second = world(2).run(errors, within=300)
    assert first == second
    raised, equal = first
    assert equal
    assert raised[0] == (
        IndexError,
        "target: expected class indices in [0, 7) or ignore_index -100, got 7 in row 5, on rank 1",
    )
    assert raised[1][1].endswith("got 7 in row 5, on rank 0")
    assert raised[2][1].startswith("target: expected the same on every rank")
    assert "does not currently support double backward" in raised[3][1]
