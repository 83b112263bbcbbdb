"""Linear heads whose classes are split, on real ranks: against one process."""

import math

import pytest
import torch
import torch.distributed as dist
from torch_oracle import REDUCTIONS

import crossentropy.torch as ct
import crossentropy.torch.distributed as cd
from crossentropy import _head
from crossentropy.torch.distributed._group import Ranks, Shard, ranks_of
from crossentropy.torch.distributed._linear_head import SplitHead, chunks
from crossentropy.torch.distributed._pipeline import even_pieces, gathered, pipelined, summed

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
    return gradients_of([loss], [h, w, b], [torch.tensor(upstream, dtype=loss.dtype).expand(loss.shape)])


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


def sums_on_rank(rows):
    """Rows whose sum depends on the order, and which rank they come from."""
    rank = dist.get_rank()
    ranks = ranks_of(None)
    partial = torch.tensor([[2.0**60, 1.0], [1.0, 1.0], [-(2.0**60), 2.0**-60]])[rank].expand(rows, 2).contiguous()
    found = []

    def task():
        pieces = even_pieces(rows, ranks)
        piece = yield from summed(partial, torch.float32, pieces, ranks)
        found.append((yield from gathered(piece, pieces, ranks)))
        found.append((yield from gathered(torch.full((rank, 1), rank), [0, 1, 2], ranks)))

    pipelined([task()])
    return found


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_sums_are_made_in_the_order_of_ranks(world, rows):
    for sums, numbers in world(3).run(sums_on_rank, rows):
        assert sums.tolist() == [[0.0, 2.0]] * rows  # were the third rank to begin with its own, it would have 1
        assert sums.dtype == torch.float32
        assert numbers.tolist() == [[1], [2], [2]]


@pytest.mark.parametrize("sequence", [None, (5, 0, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_are_the_same_on_all_ranks(sequence, dtype, monkeypatch):
    monkeypatch.setattr(_head, "MAX_LOGITS_BYTES", 2 * 100 * 4 * 3)  # two chunks of three rows of 100 classes
    kept = torch.tensor([0, 1, 2, 4, 7, 8, 9, 11, 12])
    for rows in (None, kept):
        found = []
        for rank, size in enumerate((100, 0, 30)):
            shard = Shard(Ranks("", rank, 3), (0, 100, 100)[rank], size, 130, 100)
            input = torch.empty(N if sequence is None else sequence[rank], D, dtype=dtype)
            head = SplitHead(input, torch.empty(size, D, dtype=dtype), None, shard, sequence)
            found.append([(chunk, torch.arange(N)[chunk.rows]) for chunk in chunks(N, rows, [head], 2)])
            for chunk, of_chunk in found[-1]:
                own = torch.arange(len(input))[chunk.own]
                if sequence is not None:
                    mine = of_chunk.split(chunk.pieces)[rank]
                    assert own.tolist() == (mine - sum(sequence[:rank])).tolist()
                assert sum(chunk.pieces) == len(of_chunk) <= (3 if dtype == torch.float32 else (N + 1) // 2)
        plans = [[(of_chunk.tolist(), chunk.pieces) for chunk, of_chunk in of_rank] for of_rank in found]
        assert plans[0] == plans[1] == plans[2]
        covered = torch.cat([of_chunk for _, of_chunk in found[0]]).sort().values
        assert covered.tolist() == (list(range(N)) if rows is None else rows.tolist())


def test_the_next_chunk_computes_while_one_travels():
    order = []

    def task(name):
        order.append(f"{name} sends")
        yield
        order.append(f"{name} goes on")
        yield
        order.append(f"{name} ends")

    pipelined(map(task, "abc"))
    assert order == [
        *("a sends", "b sends", "a goes on", "c sends", "b goes on", "a ends"),
        *("c goes on", "b ends", "c ends"),
    ]


def module_on_rank(problem, upstream):
    h, w, b, t, _, s = problem
    criterion = cd.VocabParallelLinearCrossEntropyLoss(D, C, bias=True, dtype=h.dtype, label_smoothing=0.1)
    with torch.no_grad():
        criterion.linear.weight.copy_(w.tensor_split(dist.get_world_size())[dist.get_rank()])
        criterion.linear.bias.copy_(b.tensor_split(dist.get_world_size())[dist.get_rank()])
    h = h.clone().requires_grad_()
    loss = criterion(h, t, sample_weight=s)
    return gradients_of([loss], [h, *criterion.linear.parameters()], [torch.ones_like(loss) * upstream])


def test_module(ranks):
    h, w, b, t, _, s = problem()
    given = h, w, b, t, None, s
    check(ranks.run(module_on_rank, given, 0.7), of_one(given, 0.7, {"label_smoothing": 0.1}), torch.float64)


def nothing_counts_on_rank(weights):
    rank = dist.get_rank()
    h, w = torch.full((4, 3), math.nan, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    t = torch.tensor([0, 3, 1, 2]) if weights else torch.full((4,), -100)
    cw = torch.zeros(2) if weights else None
    loss = cd.vocab_parallel_linear_cross_entropy(h, w, t, weight=cw)
    loss.backward()
    return loss.item(), h.grad.abs().sum().item() + w.grad.abs().sum().item(), rank


@pytest.mark.parametrize("weights", [False, True])
def test_nothing_counts(world, weights):
    assert world(2).run(nothing_counts_on_rank, weights) == [(0.0, 0.0, 0), (0.0, 0.0, 1)]


def not_a_number_on_rank(where, value):
    rank = dist.get_rank()
    torch.manual_seed(1)
    h, w = torch.randn(4, 3, requires_grad=True), torch.randn(2, 3)
    b = torch.zeros(2)
    if rank == where:
        b[1] = value
    w.requires_grad_()
    losses = cd.vocab_parallel_linear_cross_entropy(
        h, w, torch.tensor([0, 1, 2, 3]), linear_bias_shard=b, reduction="none"
    )
    losses.sum().backward()
    return losses.detach(), h.grad


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_a_number_on_each_rank(world, value):
    for where in range(2):
        found = world(2).run(not_a_number_on_rank, where, value)
        for losses, dh in found:
            if value == -math.inf:  # the class is that of one row, and impossible
                assert losses.isinf().tolist() == [row == 2 * where + 1 for row in range(4)]
            else:
                assert losses.isnan().all()
            assert torch.equal(losses, found[0][0]) or losses.isnan().all()
            assert dh.isnan().all() == (value != -math.inf)


def refused_on_rank(kind):
    rank = dist.get_rank()
    h, w, t = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3), torch.tensor([0, 9, 3, 4])
    options = {}
    if kind == "classifier" and rank == 1:
        w = torch.randn(5, 4)
    if kind == "dtype" and rank == 1:
        w = w.double()
    if kind == "index":
        t[2] = 10
    if kind == "weight" and rank == 1:
        options["weight"] = torch.tensor([1, 1, math.inf, 1, 1]).double()
    elif kind == "weight":
        options["weight"] = torch.ones(5)
    if kind == "rows" and rank == 0:
        h, t = h[:3], t[:3]
    if kind == "gradient":
        h = h.detach().requires_grad_(rank == 0)
    if kind == "sequence":
        options["sequence_parallel"] = True
    loss = cd.vocab_parallel_linear_cross_entropy(h, w, t, **options)
    torch.autograd.grad(loss, h, create_graph=True)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("classifier", ValueError, r"weight_shard: expected shape \(C_r, 3\), got \(5, 4\), on rank 1"),
        ("dtype", TypeError, r"weight_shard: expected torch.float32, as input has, got torch.float64, on rank 1"),
        ("index", IndexError, r"target: expected class indices in \[0, 10\) or ignore_index -100, got 10 at \[2\]"),
        ("weight", ValueError, r"weight: expected finite weights, each 0 or .*, got inf, on rank 1"),
        ("rows", ValueError, r"target: expected the same on every rank|input: expected the same on every rank"),
        ("gradient", ValueError, r"input: expected the same on every rank, got .* that requires a gradient"),
        ("sequence", ValueError, r"input: expected 4 rows on all ranks together, got 4 \+ 4"),
        ("create_graph", NotImplementedError, r"vocab_parallel_linear_cross_entropy: expected create_graph=False"),
    ],
)
def test_what_one_rank_sees_all_raise(world, kind, error, message):
    for raised in world(2).outcomes(refused_on_rank, kind):
        with pytest.raises(error, match=message):
            raise raised


def compiled_on_rank(problem, cuts, upstream, sequence, options):
    h, w, b, t, cw, s = problem
    h = rows_of(h, sequence).clone().requires_grad_()
    w, b, cw = (shard(tensor, cuts) for tensor in (w, b, cw))
    group = dist.group.WORLD

    def loss_of(h, w, b):
        return cd.vocab_parallel_linear_cross_entropy(
            h,
            w,
            t,
            linear_bias_shard=b,
            weight=cw,
            sample_weight=s,
            group=group,
            sequence_parallel=sequence is not None,
            **options,
        )

    inputs = [h, w.requires_grad_(), b.requires_grad_()]
    loss = torch.compile(loss_of, fullgraph=True, backend="aot_eager")(*inputs)
    return gradients_of([loss], inputs, [torch.ones_like(loss) * upstream])


@pytest.mark.parametrize("split_rows", [False, True])
def test_compiled(world, split_rows):
    given = problem()
    sequence = SEQUENCES[2] if split_rows else None
    for reduction in ("mean", "none"):
        options = {"reduction": reduction, "z_loss": 1e-2}
        found = world(2).run(compiled_on_rank, given, CUTS[2][0], 0.7, sequence, options)
        check(found, of_one(given, 0.7, options), torch.float64, sequence)


def narrow_indices():
    """Indices of one byte, of which 156 has the bits of ignore_index -100."""
    torch.manual_seed(0)
    h, w, t = torch.randn(3, 5), torch.randn(200, 5), torch.tensor([156, 3, 199], dtype=torch.uint8)
    return cd.vocab_parallel_linear_cross_entropy(h, shard(w, [0, 77, 200]), t), ct.linear_cross_entropy(h, w, t.long())


def test_indices_of_one_byte(world):
    for found, whole in world(2).run(narrow_indices):
        torch.testing.assert_close(found, whole, rtol=1e-6, atol=0)


def weights_of_one_rank():
    w = torch.eye(3)[dist.get_rank() :]
    weight = torch.ones(len(w)) if dist.get_rank() else None
    return cd.vocab_parallel_linear_cross_entropy(torch.eye(3), w, torch.tensor([0, 1, 2]), weight=weight)


def cast_on_one_rank():
    with torch.autocast("cpu", torch.bfloat16, enabled=dist.get_rank() == 1):
        return cd.vocab_parallel_linear_cross_entropy(torch.eye(3), torch.eye(3), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(("call", "name"), [(weights_of_one_rank, "weight"), (cast_on_one_rank, "input")])
def test_ranks_that_differ(world, call, name):
    for error in world(2).outcomes(call):
        assert isinstance(error, ValueError)
        assert str(error).startswith(f"{name}: expected the same on every rank")


def divisor_that_requires_a_gradient():
    items = torch.tensor(3.0, requires_grad=True)
    return cd.vocab_parallel_linear_cross_entropy(torch.eye(3), torch.eye(3), torch.tensor([0, 1, 2]), num_items=items)


def test_no_gradient_of_num_items(world):
    for error in world(2).outcomes(divisor_that_requires_a_gradient):
        assert isinstance(error, NotImplementedError)
        assert "num_items" in str(error)


def nothing_as_input():
    return cd.vocab_parallel_linear_cross_entropy(None, torch.eye(3), torch.tensor([0]))


def boolean_weights():
    return cd.vocab_parallel_linear_cross_entropy(
        torch.eye(3), torch.eye(3), torch.tensor([0, 1, 2]), weight=torch.ones(3, dtype=torch.bool)
    )


@pytest.mark.parametrize(
    ("call", "kind", "name"), [(nothing_as_input, TypeError, "input"), (boolean_weights, ValueError, "weight")]
)
def test_wrong_arguments_are_named(world, call, kind, name):
    for error in world(2).outcomes(call):
        assert isinstance(error, kind)
        assert str(error).startswith(f"{name}: expected")
