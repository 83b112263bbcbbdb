"""Divergences between the predictions of two linear heads, whose classes are split among processes."""

import math

import torch
from torch import Tensor

from ..._options import Reduction
from .._arguments import check_weights
from .._composed_divergence import DivergenceOptions, values_dtype
from .._divergence import Direction
from ._divergence import checked_options, reduced_divergence, told_of_divergence
from ._functional import Group
from ._group import Shard, attempt, check_same, ranks_of
from ._linear_arguments import check_split_head, split_tensors, told_of_head, waited
from ._linear_divergence_kernel import row_divergences
from ._linear_head import SplitHead

_NAME = "vocab_parallel_linear_kl_divergence"


@torch.compiler.disable  # a compiled program calls it as it is
def vocab_parallel_linear_kl_divergence(
    input: Tensor,
    weight_shard: Tensor,
    teacher_input: Tensor,
    teacher_weight_shard: Tensor,
    *,
    linear_bias_shard: Tensor | None = None,
    teacher_linear_bias_shard: Tensor | None = None,
    group: Group = None,
    sequence_parallel: bool = False,
    direction: Direction = "forward",
    reduction: Reduction = "mean",
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
    check: bool = __debug__,
) -> Tensor:
    r"""Compute `linear_kl_divergence` where each process of a group has both classifiers' rows of some classes.

    Parameters
    ----------
    input : Tensor of float16, bfloat16, float32 or float64, shape (D,) or (N, D)
        Hidden states of the student, the same on every rank; with `sequence_parallel` (N_r, D), the rank's own rows.
    weight_shard : Tensor of shape (C_r, D)
        The student's classifier's rows of this rank's classes. A rank may have any number of them, also none.
    teacher_input, teacher_weight_shard : Tensor of shape (E,), (N, E) or (N_r, E), and of shape (C_r, E)
        The teacher's, for the same rows and classes.
    linear_bias_shard, teacher_linear_bias_shard : Tensor of shape (C_r,), optional
        Added to the logits.
    group, sequence_parallel, check
        As for `vocab_parallel_linear_cross_entropy`.
    direction, reduction, softcap, teacher_softcap, temperature
        As for `linear_kl_divergence`.
    sample_weight : Tensor of shape () or (N,), optional
        As for `linear_kl_divergence`; of all rows, the same on every rank.

    Returns
    -------
    Tensor
        As for `linear_kl_divergence`; the same on every rank.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        An argument is not what it should be. Every rank raises what one alone has found.

    Notes
    -----
    As for `vocab_parallel_kl_divergence`, and for `vocab_parallel_linear_cross_entropy`: gradients of hidden states are
    summed over the ranks, those of shards stay local. The backward pass makes the logits again.

    Examples
    --------
    Of one process:

    >>> import torch
    >>> import torch.distributed as dist
    >>> from crossentropy.torch.distributed import vocab_parallel_linear_kl_divergence
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> hidden, teacher_hidden = torch.tensor([[1.0, 0.5]]), torch.tensor([[2.0, -1.0, 0.0]])
    >>> vocab_parallel_linear_kl_divergence(hidden, torch.eye(2), teacher_hidden, torch.eye(2, 3))
    tensor(0.3069)
    >>> dist.destroy_process_group()
    """
    ranks = ranks_of(group)
    input, teacher_input = waited(input), waited(teacher_input)
    student = input, weight_shard, linear_bias_shard
    teacher = teacher_input, teacher_weight_shard, teacher_linear_bias_shard

    def validated() -> DivergenceOptions:
        check_split_head("", student, sequence_parallel)
        check_split_head("teacher_", teacher, sequence_parallel)
        for name, ours, theirs in (
            ("teacher_input", input.shape[:-1], teacher_input.shape[:-1]),
            ("teacher_weight_shard", weight_shard.shape[:1], teacher_weight_shard.shape[:1]),
        ):
            if ours != theirs:
                raise ValueError(f"{name}: expected {tuple(ours)} rows, as the student's has, got {tuple(theirs)}")
        rows = input.shape[:-1]
        if sequence_parallel and sample_weight is not None:
            rows = sample_weight.shape[:1]
        return checked_options(direction, reduction, softcap, teacher_softcap, temperature, sample_weight, rows)

    options, error = attempt(validated)
    told: dict[str, object] = {}
    own = [0, 0]
    if options is not None:
        own = [weight_shard.shape[0], input.shape[0]]
        if check:
            told = told_of_divergence(_NAME, options, sample_weight)
            told |= told_of_head("", student, sequence_parallel) | told_of_head("teacher_", teacher, sequence_parallel)
    sizes, counts = (tuple(numbers) for numbers in zip(*check_same(ranks, told, own, error), strict=True))
    assert options is not None  # else every rank has raised the error
    if not any(sizes):
        raise ValueError("weight_shard: expected at least one class on some rank, got none")
    shard = Shard(ranks, sum(sizes[: ranks.rank]), sizes[ranks.rank], sum(sizes), max(sizes))
    sequence, shape = None, input.shape[:-1]
    if sequence_parallel:
        sequence, shape = counts, torch.Size([sum(counts)])
        if sample_weight is not None:
            check_weights(shape, None, sample_weight)
    counted = None if sample_weight is None else (sample_weight != 0).reshape(-1)
    head, of_teacher = (SplitHead(*split_tensors(given), shard, sequence) for given in (student, teacher))
    rows = row_divergences(options, head, of_teacher, counted, math.prod(shape)).reshape(shape)
    return reduced_divergence(options, rows, sample_weight).to(values_dtype(head.input, of_teacher.input))
