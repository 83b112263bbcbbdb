"""What one rank alone sees is raised on every rank, the same error, and the ranks go on."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed._functional_collectives import all_gather_single_autograd as all_gather_single

from crossentropy.torch import cross_entropy
from crossentropy.torch.distributed import vocab_parallel_cross_entropy as loss_of
from crossentropy.torch.distributed import vocab_parallel_log_prob

ROWS, EACH = 5, 4


def data():
    z = torch.linspace(-2, 3, ROWS * EACH).reshape(ROWS, EACH).clone().requires_grad_()
    return z, torch.tensor([0, 3, 5, -100, 7])


# On rank 1 something else than on the others.


def bad_index(z, t, other, check):
    return loss_of(z, torch.where(t == 5, 99, t) if other else t, check=check)


def bad_index_everywhere(z, t, other, check):
    return loss_of(z, torch.where(t == 5, 99, t), check=check)


def bad_weight(z, t, other, check):
    return loss_of(z, t, weight=torch.full((EACH,), 1e200 if other else 1.0, dtype=torch.float64), check=check)


def weight_of_no_number(z, t, other, check):
    return loss_of(z, t, weight=torch.full((EACH,), torch.inf if other else 1.0), check=check)


def other_shard(z, t, other, check):
    return loss_of(z[:, 1:] if other else z, t, check=check)


def other_rows(z, t, other, check):
    return loss_of(z[other:], t[other:], check=check)


def other_dtype(z, t, other, check):
    return loss_of(z.double() if other else z, t, check=check)


def other_option(z, t, other, check):
    return loss_of(z, t, z_loss=0.1 * other, check=check)


def other_reduction(z, t, other, check):
    return loss_of(z, t, reduction="sum" if other else "mean", check=check)


def other_targets(z, t, other, check):
    return loss_of(z, t.roll(1) if other else t, check=check)


def other_kind_of_targets(z, t, other, check):
    return loss_of(z, torch.ones_like(z) if other else t, check=check)


def other_sample_weight(z, t, other, check):
    return loss_of(z, t, sample_weight=torch.arange(5.0) + other, check=check)


def other_items(z, t, other, check):
    return loss_of(z, t, num_items=3 + other, check=check)


def other_function(z, t, other, check):
    return loss_of(z, t, check=check) if other else vocab_parallel_log_prob(z, t, check=check)


def bad_option(z, t, other, check):
    return loss_of(z, t, z_loss=-1.0 if other else 0.0, check=check)


def bad_shape(z, t, other, check):
    return loss_of(z, t[:3] if other else t, check=check)


def no_tensor(z, t, other, check):
    return loss_of(None if other else z, t, check=check)


def no_targets(z, t, other, check):
    return loss_of(z, t.tolist() if other else t, check=check)


def bad_offset(z, t, other, check):
    return loss_of(z, t, class_offset=EACH + 1 if other else 0, check=check)


def offset_below_0(z, t, other, check):
    return loss_of(z, t, class_offset=-1 if other else 0, check=check)


def offset_of_no_integer(z, t, other, check):
    return loss_of(z, t, class_offset=4.0 if other else 0, check=check)


def no_classes(z, t, other, check):
    return loss_of(z[:, :0], t, check=check)


def one_offset(z, t, other, check):
    return loss_of(z, t, class_offset=EACH if other else None, check=check)


def gradient_of_target(z, t, other, check):
    return loss_of(z, torch.ones_like(z).requires_grad_(other), check=check)


def sparse(z, t, other, check):
    return loss_of(z.to_sparse() if other else z, t, check=check)


def transformed(z, t, other, check):
    return torch.func.grad(lambda z: loss_of(z, t, check=check))(z)


def memory_gone(z, t, other, check):
    if other:
        z = torch.empty(ROWS, EACH)
        z.untyped_storage().resize_(0)
    return loss_of(z, t, check=check)


CASES = [
    (bad_index, True, ValueError, "^target: expected the same on every rank, got 5 numbers of checksum "),
    (bad_index, False, IndexError, r"^target: expected class indices in \[0, 8\) .* got 99 in row 2, on rank 1$"),
    (bad_index_everywhere, True, IndexError, "got 99 in row 2, on rank 0$"),
    (bad_index_everywhere, False, IndexError, "got 99 in row 2, on rank 0$"),
    (bad_weight, True, ValueError, "^weight: expected finite weights, .* got 1e[+]200, on rank 1$"),
    (bad_weight, False, ValueError, "^weight: expected finite weights, .* got 1e[+]200, on rank 1$"),
    (weight_of_no_number, True, ValueError, "^weight: expected finite weights, .* got inf, on rank 1$"),
    (other_shard, True, IndexError, r"expected class indices in \[0, 7\) .* got 7 in row 4, on rank 0$"),
    (other_shard, False, ValueError, "^check: expected True for another shard .* got 3 classes, on rank 1$"),
    (other_rows, True, ValueError, "^input_shard: .* got 5 rows of torch.float32 on rank 0, 4 rows of .* on rank 1$"),
    (other_dtype, True, ValueError, "^input_shard: .* torch.float32 on rank 0, 5 rows of torch.float64 on rank 1$"),
    (other_option, True, ValueError, "^z_loss: expected the same on every rank, got 0.0 on rank 0, 0.1 on rank 1$"),
    (other_reduction, True, ValueError, "^reduction: .* got mean on rank 0, sum on rank 1$"),
    (other_targets, True, ValueError, "^target: expected the same"),
    (other_kind_of_targets, True, ValueError, "^target: .* on rank 0, probabilities of torch.float32 on rank 1$"),
    (other_sample_weight, True, ValueError, "^sample_weight: expected the same"),
    (other_items, True, ValueError, "^num_items: .* got 3.0 on rank 0, 4.0 on rank 1$"),
    (other_function, True, ValueError, "^function: expected the same"),
    (bad_option, True, ValueError, "^z_loss: expected a finite number of at least 0, got -1.0, on rank 1$"),
    (bad_shape, True, ValueError, r"^target: expected class indices of shape \(5,\), got \(3,\), on rank 1$"),
    (no_tensor, True, TypeError, "^input_shard: expected a Tensor, got NoneType, on rank 1$"),
    (no_targets, True, TypeError, "^target: expected a Tensor, got list, on rank 1$"),
    (bad_offset, True, ValueError, r"^class_offset: expected .*, got \(0, 5\) for shards of \(4, 4\) classes$"),
    (offset_below_0, True, ValueError, "^class_offset: expected at least 0, got -1, on rank 1$"),
    (offset_of_no_integer, True, TypeError, "^class_offset: expected an integer or None, got 4.0, on rank 1$"),
    (no_classes, True, ValueError, "^input_shard: expected at least one class on some rank, got none$"),
    (one_offset, True, ValueError, r"^class_offset: expected .*, got \(-1, 4\) for shards"),
    (gradient_of_target, True, NotImplementedError, "^target: expected a tensor that needs no gradient, .* on rank 1$"),
    (sparse, True, NotImplementedError, "^input_shard: expected a dense tensor on the CPU, .* on rank 1$"),
    (transformed, True, NotImplementedError, "^group: expected no transform of torch.func"),
    (memory_gone, True, RuntimeError, "^input_shard: expected 80 bytes in memory, got 0 on cpu, on rank 1$"),
]


def attempted(name, check):
    """The error, where there is one; then that the same ranks compute a loss."""
    z, t = data()
    loss_of(z, t)
    error = None
    try:
        globals()[name](z, t, dist.get_rank() == 1, check)
    except Exception as raised:
        error = raised
    with torch.no_grad():
        return error, loss_of(z, t)


@pytest.mark.parametrize(("case", "check", "kind", "message"), CASES, ids=lambda each: getattr(each, "__name__", ""))
def test_every_rank_raises_the_same(world, case, check, kind, message):
    found = world(2).run(attempted, case.__name__, check)
    for error, loss in found:
        with pytest.raises(kind, match=message):
            raise error
        assert (type(error), str(error)) == (type(found[0][0]), str(found[0][0]))
        z, t = data()
        torch.testing.assert_close(loss, cross_entropy(torch.cat([z, z], 1), t).detach())


def differentiated_twice():
    z, t = data()
    rejected = []
    for loss in (loss_of(z, t), loss_of(z, t, reduction="none").sum(), vocab_parallel_log_prob(z, t).sum()):
        try:
            torch.autograd.grad(loss, z, create_graph=True)
        except NotImplementedError as error:
            rejected.append(str(error))
    losses = loss_of(z, t, reduction="none")
    try:
        torch.autograd.grad(losses, z, torch.eye(ROWS), is_grads_batched=True)
    except NotImplementedError as error:
        rejected.append(str(error))
    return rejected


def test_no_gradient_of_a_gradient(world):
    for rejected in world(2).run(differentiated_twice):
        assert len(rejected) == 4
        assert all("expected create_graph=False" in message for message in rejected)


def backward_on_one_rank():
    z, t = data()
    loss = loss_of(z, t)
    if dist.get_rank() == 1:
        loss.backward()
    return z.grad


def test_the_backward_pass_waits_for_nobody(world):
    of_others, of_one = world(2).run(backward_on_one_rank)
    assert of_others is None
    assert of_one.abs().sum() > 0


def changed_in_place():
    z, t = data()
    logits = z * 1
    loss = loss_of(logits, t)
    with torch.no_grad():
        logits += 1
    try:
        loss.backward()
    except RuntimeError as error:
        return str(error)


def test_logits_that_changed_since(world):
    assert all("modified by an inplace operation" in error for error in world(2).run(changed_in_place))


def saved_elsewhere():
    z, t = data()
    expected = torch.autograd.grad(loss_of(z, t), z)[0]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x.t().clone().t() if x.dim() == 2 else x):
        strided = torch.autograd.grad(loss_of(z, t), z)[0]
    rejected = []
    for changed in (
        lambda x: x[:1],
        lambda x: x.half() if x.is_floating_point() else x,
        lambda x: x.expand(2, *x.shape),
    ):
        with torch.autograd.graph.saved_tensors_hooks(lambda x: x, changed):
            loss = loss_of(z, t)
            log_probs = vocab_parallel_log_prob(z, t, entropy=True)[1].sum()
        for value in (loss, log_probs):
            try:
                value.backward()
            except (RuntimeError, ValueError) as error:
                rejected.append(str(error))
    return bool(torch.equal(expected, strided)), rejected


def test_saved_tensors_come_back_as_they_were_or_not_at_all(world):
    for strided, rejected in world(2).run(saved_elsewhere):
        assert strided
        assert len(rejected) == 6
        assert all("expected" in message for message in rejected)


def gathered_logits():
    z, t = data()
    same = z * 1
    group = dist.new_group([dist.get_rank()], use_local_synchronization=True)
    late = all_gather_single(same, 0, group)
    loss = loss_of(late, t)
    return type(late).__name__, float((loss - loss_of(z, t)).detach()), torch.autograd.grad(loss, z)[0]


def test_logits_that_are_still_gathered(world):
    for kind, difference, gradient in world(2).run(gathered_logits):
        assert kind == "AsyncCollectiveTensor"
        assert difference == 0
        assert gradient.any()


def test_groups():
    z, t = data()
    with pytest.raises(RuntimeError, match=r"^group: expected torch.distributed.init_process_group to be called"):
        loss_of(z, t)
    with pytest.raises(TypeError, match=r"^group: expected a process group .* a member of, got 'model'$"):
        loss_of(z, t, group="model")
