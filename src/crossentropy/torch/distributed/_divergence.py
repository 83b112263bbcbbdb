"""Divergences between two models' predictions, whose classes are split among processes."""

import math

import torch
from torch import Tensor

from ..._options import Reduction, loss_options
from .._arguments import check_direction, check_real, check_weights, teacher_options
from .._composed_divergence import DivergenceOptions, reduced, values_dtype
from .._divergence import Direction
from .._kernel import as_weights, class_axis, readable, row_shape
from ._arguments import _checksum, check_place
from ._divergence_kernel import row_divergences
from ._functional import Group
from ._group import attempt, check_same, ranks_of
from ._linear_arguments import waited

_NAME = "vocab_parallel_kl_divergence"


@torch.compiler.disable  # a compiled program calls it as it is
def vocab_parallel_kl_divergence(
    input_shard: Tensor,
    teacher_input_shard: Tensor,
    *,
    group: Group = None,
    direction: Direction = "forward",
    reduction: Reduction = "mean",
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
    check: bool = __debug__,
) -> Tensor:
    r"""Compute `kl_divergence` where each process of a group has the logits of some classes, of both models.

    Parameters
    ----------
    input_shard : Tensor of float16, bfloat16, float32 or float64, shape (C_r,), (N, C_r) or (N, C_r, d_1, ..., d_K)
        The student's logits of this rank's classes. A rank may have any number of them, also none.
    teacher_input_shard : Tensor of that shape
        The teacher's, of the same classes; they may be of another dtype.
    group, check
        As for `vocab_parallel_cross_entropy`; but the header of `check` is sent in any case.
    direction, reduction, softcap, teacher_softcap, temperature
        As for `kl_divergence`.
    sample_weight : Tensor of the input's shape without C_r, optional
        As for `kl_divergence`; the same on every rank.

    Returns
    -------
    Tensor
        As for `kl_divergence`; the same on every rank.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        An argument is not what it should be. Every rank raises what one alone has found.

    Notes
    -----
    Ranks exchange seven float64 numbers a row, in two rounds: of both models the maximum of the logits and the sum of
    exponentials without it; then the sums over :math:`q\,(e^\delta - 1 - \delta)` and :math:`q\,(e^\delta - 1)`, with
    :math:`\delta = \log(p / q)`. No term is below 0, and all vanish with :math:`\delta`: as exact as `kl_divergence`,
    and never negative. The gradient of each rank's logits, for either model or both, needs no other rank; it cannot be
    differentiated again (`create_graph`).

    Examples
    --------
    Of one process:

    >>> import torch
    >>> import torch.distributed as dist
    >>> from crossentropy.torch.distributed import vocab_parallel_kl_divergence
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> vocab_parallel_kl_divergence(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]]))
    tensor(0.4621)
    >>> dist.destroy_process_group()
    """
    ranks = ranks_of(group)
    input_shard, teacher_input_shard = waited(input_shard), waited(teacher_input_shard)

    def validated() -> DivergenceOptions:
        check_direction(direction)
        for name, logits in (("input_shard", input_shard), ("teacher_input_shard", teacher_input_shard)):
            check_real(name, logits)
            check_place(name, logits)
            readable(name, logits)
        if not input_shard.dim() or teacher_input_shard.shape != input_shard.shape:
            raise ValueError(
                "teacher_input_shard: expected the shape of input_shard, (C_r,), (N, C_r) or (N, C_r, d_1, ...), "
                f"{tuple(input_shard.shape)}, got {tuple(teacher_input_shard.shape)}"
            )
        return checked_options(
            direction, reduction, softcap, teacher_softcap, temperature, sample_weight, row_shape(input_shard)
        )

    options, error = attempt(validated)
    told: dict[str, object] = {}
    own = 0
    if options is not None:
        own = input_shard.shape[class_axis(input_shard)]
        if check:
            told = told_of_divergence(_NAME, options, sample_weight)
            told["input_shard"] = f"rows of shape {tuple(row_shape(input_shard))} of {input_shard.dtype}"
            told["teacher_input_shard"] = f"rows of {teacher_input_shard.dtype}"
    sizes = check_same(ranks, told, [own, 0], error)  # as many numbers as the other functions send
    assert options is not None  # else every rank has raised the error
    if not any(size for size, _ in sizes):
        raise ValueError("input_shard: expected at least one class on some rank, got none")
    shape, axis = row_shape(input_shard), class_axis(input_shard)
    student, teacher = (
        logits.movedim(axis, -1).reshape(math.prod(shape), logits.shape[axis])
        for logits in (input_shard, teacher_input_shard)
    )
    counted = None if sample_weight is None else (sample_weight != 0).reshape(-1)
    rows = row_divergences(options, student, teacher, counted, ranks).reshape(shape)
    return reduced_divergence(options, rows, sample_weight).to(values_dtype(input_shard, teacher_input_shard))


def checked_options(
    direction: str,
    reduction: Reduction,
    softcap: float | None,
    teacher_softcap: float | None,
    temperature: float,
    sample_weight: Tensor | None,
    rows: torch.Size,
) -> DivergenceOptions:
    """The options, when they and the weights of rows of this shape are what they should be."""
    check_direction(direction)
    if sample_weight is not None:
        check_place("sample_weight", sample_weight)
        check_weights(rows, None, sample_weight)
        as_weights("sample_weight", sample_weight.detach())
    student = loss_options(softcap=softcap, temperature=temperature, reduction=reduction)
    return DivergenceOptions(direction, student, teacher_options(teacher_softcap, temperature))


def told_of_divergence(function: str, options: DivergenceOptions, sample_weight: Tensor | None) -> dict[str, object]:
    """What has to be the same on every rank, by the names of arguments."""
    return {
        "function": function,
        "sample_weight": None if sample_weight is None else _checksum(sample_weight.to(torch.float64).reshape(-1)),
        "direction": options.kind,
        "reduction": options.student.reduction,
        "softcap": options.student.softcap,
        "teacher_softcap": options.teacher.softcap,
        "temperature": options.student.temperature,
    }


def reduced_divergence(options: DivergenceOptions, rows: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Weigh and reduce the divergences of rows, in float64."""
    if sample_weight is not None:
        rows = torch.where(sample_weight != 0, sample_weight.to(torch.float64) * rows, 0.0)
    return reduced(options, rows, sample_weight)
