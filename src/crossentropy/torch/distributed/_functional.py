"""The loss over classes that are split among processes, as it is called."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from ..._options import LossOptions, Reduction, loss_options
from .._arguments import divisor_of
from .._kernel import TargetTensors, row_dtype
from .._loss_operator import as_items
from . import _loss_operator, _operator
from ._arguments import SplitRows, check_place, split_rows, told_of
from ._group import Ranks, Shard, attempt, ranks_of, shard_of
from ._loss import joined, reduced_loss

Group: TypeAlias = dist.ProcessGroup | DeviceMesh | None


class Given(NamedTuple):
    """Arguments that fit."""

    options: LossOptions
    rows: SplitRows
    num_items: float | Tensor | None = None


def vocab_parallel_cross_entropy(
    input_shard: Tensor,
    target: Tensor,
    *,
    group: Group = None,
    class_offset: int | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
    num_items: float | Tensor | None = None,
    check: bool = __debug__,
) -> Tensor:
    r"""Compute the softmax cross-entropy in nats where each process of a group has some of the classes.

    Every process calls it, with the same rows in the same order, and gets the same loss, bit by bit. Each gets the
    gradient of its own logits.

    Parameters
    ----------
    input_shard : Tensor of float16, bfloat16, float32 or float64, shape (C_r,), (N, C_r) or (N, C_r, d_1, ..., d_K)
        Logits of the C_r classes of this process: any number of them, 0 too.
    target : Tensor of the input's shape without C_r, or of its shape
        Class indices (integers) that count all classes, the same on every rank; or the probabilities (floating point)
        of this rank's classes.
    group : ProcessGroup or DeviceMesh of one dimension, optional
        The processes among which the classes are split; all of them where it is not given.
    class_offset : int, optional
        How many classes come before this rank's. Where it is not given, on any rank, they follow each other in the
        order of the ranks.
    weight : Tensor of shape (C_r,), optional
        A weight for each class of this rank, as for `crossentropy.torch.cross_entropy`; without, each is 1.
    ignore_index : int
        Rows with this class index do not count.
    reduction, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature
        As for `crossentropy.torch.cross_entropy`; "all classes" are those of all ranks.
    sample_weight : Tensor of the input's shape without C_r, optional
        A weight for each row, the same on every rank.
    num_items : number or Tensor of one, optional
        What 'mean' divides by instead.
    check : bool
        Whether to compare first what has to be the same on every rank: the number of rows, the dtype, class indices,
        sample weights and options. An error of one rank is then raised on every rank. By default it is False where
        Python runs with -O.

    Returns
    -------
    Tensor
        A scalar, or for 'none' one loss a row: float64 for float64 input, else float32.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        An argument is not what it should be on some rank, or not the same on all. Every rank raises the same error,
        whose message ends with the first rank that has it.
    IndexError
        On some rank a class index is neither in [0, C) nor `ignore_index`; likewise.
    RuntimeError
        From torch: another process has died, or has not come within the group's time.

    See Also
    --------
    crossentropy.torch.cross_entropy : the same in one process.

    Notes
    -----
    Each rank reads its logits once for what they tell of each row: their maximum, the sum of the others'
    exponentials, the target's logit and weight. These 40 bytes (72 with probabilities, label smoothing or an entropy
    bonus) are gathered and joined in the order of the ranks. From five ranks on, where a rank would receive more than
    1 MiB, each joins its part of the rows and what is joined is gathered, with the same bits. The backward pass reads
    the logits again and communicates nothing.

    `check` costs one gather of 32 bytes a rank and a checksum of indices and sample weights. Without it classes are
    taken to be split as in the group's call before (the first is always checked); bad class indices and weights still
    raise everywhere, but shapes and dtypes that do not fit raise on their own rank alone, and the others wait for it.

    The gradient cannot be differentiated. Tensors lie on the CPU. A program that torch compiles has the collectives in
    its graph.

    Examples
    --------
    In one process, which has all classes:

    >>> import torch
    >>> from crossentropy.torch.distributed import vocab_parallel_cross_entropy
    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> input = torch.tensor([[20.0, 0.0, 0.0]], requires_grad=True)
    >>> loss = vocab_parallel_cross_entropy(input, torch.tensor([0]))
    >>> loss.backward()
    >>> print(f"{loss.item():.4g}", [f"{g:.4g}" for g in input.grad[0].tolist()])
    4.122e-09 ['-4.122e-09', '2.061e-09', '2.061e-09']
    >>> torch.distributed.destroy_process_group()
    """
    ranks = ranks_of(group)

    def validated() -> Given:
        options = loss_options(
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            entropy_bonus=entropy_bonus,
            focal_gamma=focal_gamma,
            softcap=softcap,
            temperature=temperature,
            reduction=reduction,
        )
        rows = split_rows(options, input_shard, TargetTensors(target, weight, sample_weight))
        return Given(options, rows, None if num_items is None else divisor_given(num_items, reduction))

    name = "vocab_parallel_cross_entropy"
    if torch.compiler.is_compiling():
        options, rows, items = validated()
        as_tensor = as_items(items)
        found = _operator.joined(name, options, rows, ranks, class_offset, check, as_tensor)
        loss = _loss_operator.loss(options, rows, *found, as_tensor)
    else:
        (options, rows, items), shard, whole = joined_rows(name, validated, ranks, class_offset, check)
        loss = reduced_loss(options, rows.logits, rows.targets, whole, shard, items)
    loss = loss.to(row_dtype(input_shard))
    return loss.reshape(rows.shape) if reduction == "none" else loss


def divisor_given(num_items: float | Tensor, reduction: str) -> float | Tensor:
    """The number to divide by; a tensor while torch compiles."""
    number = divisor_of(num_items, reduction)
    if not isinstance(number, Tensor):
        return number if torch.compiler.is_compiling() else float(number)
    check_place("num_items", number)
    if number.requires_grad:
        raise NotImplementedError("num_items: expected a tensor that needs no gradient, got one that does")
    return number if torch.compiler.is_compiling() else divisor_of(number.item(), reduction)


def joined_rows(
    name: str,
    validated: Callable[[], Given],
    ranks: Ranks,
    class_offset: int | None,
    check: bool,
    entropy: bool = False,
) -> tuple[Given, Shard, Tensor]:
    """The arguments, this rank's classes, and what all classes tell of each row; or the same error on every rank."""

    def given_and_told() -> tuple[Given, dict[str, object]]:
        options, rows, items = given = validated()
        logits = rows.logits
        return given, told_of(name, options, logits.shape[0], logits.dtype, rows.targets, num_items=items)

    found, error = attempt(given_and_told)
    given, told = (None, {}) if found is None else found
    size = 0 if given is None else given.rows.logits.shape[1]
    shard, error = shard_of(ranks, size, class_offset, told, check, error)
    assert given is not None  # else the error was raised
    options, rows, _ = given
    return given, shard, joined(options, rows.logits, rows.targets, shard, entropy, error)
