"""The core on a shard of the classes: rows of contiguous logits (n, C_r), plain tensors on the CPU."""

from typing import Any

import torch
from torch import Tensor

from ... import _core
from ..._arrays import new_tuple
from ..._call import Call
from ..._config import resolve_threads
from ..._options import LossOptions
from ..._targets import Targets
from .._kernel import TYPES, LogitsInMemory, TargetTensors, address, as_weights, readable
from ._arguments import check_targets
from ._exchange import Join
from ._group import Shard

# Fields of a part where one class of a row has a coefficient and no entropy is wanted.
_SINGLE_FIELDS = 5
WEIGHT_OF_TARGET = 3

_NOWHERE = 64  # an address that nothing is read from


def _in_memory(targets: TargetTensors) -> TargetTensors:
    """Targets and weights as the core reads them: contiguous int64 indices, or probabilities; float64 weights."""
    target, weight, sample_weight = targets
    target = readable("target", target)
    target = target if target.is_floating_point() else target.long()
    return TargetTensors(
        target.contiguous(),
        None if weight is None else as_weights("weight", readable("weight", weight).to(torch.float64)),
        None if sample_weight is None else as_weights("sample_weight", sample_weight),
    )


def fields_of(options: LossOptions, targets: TargetTensors, entropy: bool = False) -> int:
    """How many numbers a part has of each row."""
    few = not (entropy or options.entropy_bonus or options.label_smoothing or targets.target.is_floating_point())
    return _SINGLE_FIELDS if few else int(_core.part_fields)


def part_of_rows(
    options: LossOptions, logits: Tensor, targets: TargetTensors, shard: Shard, entropy: bool = False
) -> Tensor:
    """(n, fields): what this rank's classes tell of each row. A class index out of range raises IndexError."""
    part = torch.empty(logits.shape[0], _core.part_fields, dtype=torch.float64)
    record, memory = _logits(logits)
    call = _call(options, record, targets)
    try:
        _core.part_of_rows(call, classes=shard.classes, first_class=shard.first, entropy=entropy, out=part.data_ptr())
    except IndexError as error:
        raise IndexError(str(error).replace("targets:", "target:", 1)) from None
    del memory  # until here: the core has read it
    return part[:, : fields_of(options, targets, entropy)]


def joining(options: LossOptions, targets: TargetTensors, entropy: bool = False) -> Join:
    """Joins parts (R, n, fields) to (n, fields), in the order of the ranks."""

    def join(parts: Tensor) -> Tensor:
        count, rows, fields = parts.shape
        given, whole = widened(parts), torch.empty(rows, _core.part_fields, dtype=torch.float64)
        shape = (rows, 0) if targets.target.is_floating_point() else (rows,)
        call = _call(options, _no_logits(rows), TargetTensors(targets.target.new_empty(shape)))  # which are not read
        _core.join_parts(call, entropy=entropy, parts=given.data_ptr(), count=count, out=whole.data_ptr())
        return whole[:, :fields].contiguous()

    return join


def widened(parts: Tensor) -> Tensor:
    """Parts with all fields that the core reads."""
    missing = int(_core.part_fields) - parts.shape[-1]
    return torch.nn.functional.pad(parts, (0, missing)) if missing else parts


def losses_of(
    options: LossOptions, targets: TargetTensors, shard: Shard, whole: Tensor, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The loss of each row, in float64, and where asked for its entropy: from what all classes tell of it, so that
    every rank gets the same bits.
    """
    _check_numbers("whole", whole, (whole.shape[0], _core.part_fields))
    losses = torch.empty(whole.shape[0], dtype=torch.float64)
    entropies = torch.empty_like(losses) if entropy else None
    target = targets.target[:, :0] if targets.target.is_floating_point() else targets.target
    _core.loss_of_part(
        _call(options, _no_logits(whole.shape[0]), TargetTensors(target, None, targets.sample_weight)),
        classes=shard.classes,
        first_class=shard.first,
        whole=whole.data_ptr(),
        losses=losses.data_ptr(),
        entropies=address(entropies),
        entropy=entropy,
    )
    return losses, entropies


def write_gradient(
    options: LossOptions,
    logits: Tensor,
    targets: TargetTensors,
    shard: Shard,
    whole: Tensor,
    grad_output: Tensor,
    out: Tensor,
    entropy_grad_output: Tensor | None = None,
    entropy: bool = False,
) -> None:
    """Write the gradient of this rank's logits; float64 upstream gradients of each row's loss, and entropy.

    `out` is as `empty_gradient` makes it of contiguous logits.
    """
    rows = logits.shape[0]
    _check_numbers("whole", whole, (rows, _core.part_fields))
    for of_rows in (grad_output, entropy_grad_output):
        if of_rows is not None:
            _check_numbers("grad_output", of_rows, (rows,))
    if out.shape != logits.shape or out.dtype != logits.dtype or not out.is_contiguous():
        raise ValueError(
            f"out: expected the logits' shape and dtype, contiguous, got {tuple(out.shape)} of {out.dtype}"
        )
    record, memory = _logits(logits)
    _core.loss_of_part(
        _call(options, record, targets),
        classes=shard.classes,
        first_class=shard.first,
        whole=whole.data_ptr(),
        dlogits=out.data_ptr(),
        grad_output=grad_output.data_ptr(),
        entropy_grad_output=address(entropy_grad_output),
        entropy=entropy,
    )
    del memory  # until here: the core has read it


def total(values: Tensor) -> float:
    """The sum of float64 numbers, the same on every CPU; NaN for weights that do not all vanish but add up to 0."""
    values = values.contiguous()
    record: Any = LogitsInMemory(values.shape[0], 1)
    none: Any = Targets()
    return _core.total_weight(
        LossOptions().core, logits=record, targets=none, class_weight=None, sample_weight=values.data_ptr()
    )


def _logits(logits: Tensor) -> tuple[LogitsInMemory, Tensor]:
    """Logits as the core reads them, and the tensor whose memory that is."""
    memory = readable("input_shard", logits).contiguous()
    rows, classes = memory.shape
    return LogitsInMemory(rows, classes, 1, memory.data_ptr(), TYPES[memory.dtype]), memory


def _check_numbers(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless these are numbers that the core may read, whatever an operator or a hook of saved tensors gave."""
    if tensor.shape != shape or tensor.dtype != torch.float64 or not (tensor.is_cpu and tensor.is_contiguous()):
        raise ValueError(
            f"{name}: expected contiguous float64 numbers of shape {shape}, got {tuple(tensor.shape)} of {tensor.dtype}"
        )


def _no_logits(rows: int) -> LogitsInMemory:
    """Rows of which only what all classes tell is read; in float64, so that losses are not rounded."""
    return LogitsInMemory(rows, 0, 1, 0, TYPES[torch.float64])


def _call(options: LossOptions, logits: LogitsInMemory, targets: TargetTensors) -> Call:
    """A call that owns the targets and weights that it has addresses of."""
    check_targets(options, torch.Size(logits[:2]), targets)
    target, weight, sample_weight = owned = _in_memory(targets)
    data: Any = target.data_ptr()
    of_targets = Targets(data)
    if target.is_floating_point():
        if not data:  # an empty shard has no probabilities; the core is told that they are the targets
            data = _NOWHERE
        of_targets = Targets(None, data, TYPES[target.dtype])
    record: Any = logits
    threads = min(resolve_threads(None), torch.get_num_threads())
    return new_tuple(Call, (options, record, of_targets, address(weight), address(sample_weight), threads, owned))
