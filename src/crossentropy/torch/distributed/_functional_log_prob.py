"""Log-probabilities over classes that are split among processes, as they are called."""

from typing import Literal, overload

import torch
from torch import Tensor

from ..._options import loss_options
from .._kernel import TargetTensors, row_dtype
from . import _log_prob_operator, _operator
from ._arguments import check_indices, split_rows
from ._functional import Given, Group, joined_rows
from ._group import ranks_of
from ._log_prob import log_probs


@overload
def vocab_parallel_log_prob(
    input_shard: Tensor,
    target: Tensor,
    *,
    group: Group = None,
    class_offset: int | None = None,
    entropy: Literal[False] = False,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    check: bool = __debug__,
) -> Tensor: ...
@overload
def vocab_parallel_log_prob(
    input_shard: Tensor,
    target: Tensor,
    *,
    group: Group = None,
    class_offset: int | None = None,
    entropy: bool,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    check: bool = __debug__,
) -> Tensor | tuple[Tensor, Tensor]: ...
def vocab_parallel_log_prob(
    input_shard: Tensor,
    target: Tensor,
    *,
    group: Group = None,
    class_offset: int | None = None,
    entropy: bool = False,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    check: bool = __debug__,
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute the log-probability of one class a row, in nats, where each process of a group has some of the classes.

    Every process calls it, with the same rows in the same order, and gets the same numbers, bit by bit.

    Parameters
    ----------
    input_shard, group, class_offset, check
        As for `vocab_parallel_cross_entropy`.
    target : Tensor of integers, of the input's shape without C_r
        Class indices that count all classes, the same on every rank.
    entropy : bool
        Whether to return the entropy of each row too.
    ignore_index : int, optional
        Rows with this class index do not count: their log-probability and entropy are 0, with no gradient.
    softcap, temperature
        As for `crossentropy.torch.cross_entropy`.

    Returns
    -------
    Tensor, or a tuple of two
        The log-probabilities; then the entropies: float64 for float64 input, else float32.

    Raises
    ------
    TypeError, ValueError, NotImplementedError, IndexError, RuntimeError
        As for `vocab_parallel_cross_entropy`.

    See Also
    --------
    crossentropy.torch.log_prob : the same in one process.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch.distributed import vocab_parallel_log_prob
    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> vocab_parallel_log_prob(torch.tensor([[2.0, 1.0, 0.1], [20.0, 0.0, 0.0]]), torch.tensor([1, 0]))
    tensor([-1.4170e+00, -4.1223e-09])
    >>> torch.distributed.destroy_process_group()
    """
    ranks = ranks_of(group)

    def validated() -> Given:
        options = loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none")
        check_indices(target)
        return Given(options, split_rows(options, input_shard, TargetTensors(target)))

    name = f"vocab_parallel_log_prob, entropy {entropy}"
    if torch.compiler.is_compiling():
        options, rows, _ = validated()
        found = _operator.joined(name, options, rows, ranks, class_offset, check, entropy=entropy)
        values, entropies = _log_prob_operator.log_probs(options, rows, *found, entropy)
    else:
        (options, rows, _), shard, whole = joined_rows(name, validated, ranks, class_offset, check, entropy)
        values, entropies = log_probs(options, rows.logits, rows.targets.target, whole, shard, entropy)
    dtype = row_dtype(input_shard)
    values = values.to(dtype).reshape(rows.shape)
    return values if entropies is None else (values, entropies.to(dtype).reshape(rows.shape))
