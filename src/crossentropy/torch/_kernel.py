"""The core on torch's tensors, which it reads and writes by their addresses."""

import ctypes
import math
import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import _core
from .._arrays import LARGE, new_tuple
from .._call import Call
from .._config import resolve_threads
from .._options import LARGEST, RANGE, SMALLEST, LossOptions
from .._targets import Targets

# Codes of the core's ElementType.
TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
# Types of tensors that are memory and nothing else.
PLAIN = (Tensor, torch.nn.Parameter)
_INDEX_TYPES = (torch.int64, torch.uint8)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
WEIGHT_TYPES = (*TYPES, *INTEGERS, torch.bool)


class LogitsInMemory(NamedTuple):
    """Logits as the core reads them, by these names; the shape alone is enough for their total weight."""

    rows: int
    classes: int
    class_stride: int = 1
    data: int = 0  # their address
    type: int = 0


class TargetTensors(NamedTuple):
    """Class indices or probabilities, and weights."""

    target: Tensor
    weight: Tensor | None = None  # of the classes
    sample_weight: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for tensor in self if tensor is not None]


def class_axis(input: Tensor) -> int:
    return 1 if input.dim() > 1 else 0


def row_shape(input: Tensor) -> torch.Size:
    axis = class_axis(input)
    return input.shape[:axis] + input.shape[axis + 1 :]


def row_dtype(input: Tensor) -> torch.dtype:
    """The dtype of losses. It is never half precision, which has only two or three digits."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def _classes_last(input: Tensor) -> bool:
    return input.movedim(class_axis(input), -1).is_contiguous()


def empty_gradient(input: Tensor) -> Tensor:
    """An uninitialised gradient with the layout in which the core reads the logits."""
    keeps = input.is_contiguous() or _classes_last(input)
    if type(input) in PLAIN and input.nbytes >= LARGE and input.is_cpu:  # not a tensor that is traced
        return _large(input.shape, input.stride() if keeps else _strides(input.shape), input)
    return torch.empty_like(input) if keeps else torch.empty_like(input, memory_format=torch.contiguous_format)


def empty(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor, with huge pages where it is large. (The core advises those of its own outputs.)"""
    if math.prod(shape) * like.element_size() >= LARGE and type(like) in PLAIN and like.is_cpu:
        return _large(shape, _strides(shape), like)
    tensor = like.new_empty(shape)
    _core.advise_huge_pages(tensor.data_ptr(), tensor.nbytes)
    return tensor


def _large(shape: tuple[int, ...], strides: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor in memory that is kept for the next, which `resize_` cannot change."""
    capsule = _core.empty_dlpack(shape, strides, TYPES[like.dtype])
    if capsule is None:  # nothing is kept
        return torch.empty_strided(shape, strides, dtype=like.dtype)
    return torch.utils.dlpack.from_dlpack(capsule)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Those of a contiguous tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def targets_fit(shape: torch.Size, targets: TargetTensors) -> bool:
    """Whether the shapes and dtypes of targets and class weights fit logits of this shape."""
    target, weight, _ = targets
    axis = 1 if len(shape) > 1 else 0
    if not shape or shape[axis] == 0:
        return False
    if weight is not None and (weight.shape != shape[axis : axis + 1] or weight.dtype not in WEIGHT_TYPES):
        return False
    target_shape = target.shape
    if target_shape == shape:
        return target.dtype in TYPES
    if weight is not None and weight.dtype is torch.bool:  # like torch: for probabilities only
        return False
    return target_shape == (shape[:1] + shape[2:] if axis else ()) and target.dtype in _INDEX_TYPES


def check(input: Tensor, targets: TargetTensors, grad_output: Tensor | None = None) -> None:
    """Raise if shapes, dtypes or devices do not fit: an operator may be called without other checks."""
    if input.dtype not in TYPES or not targets_fit(input.shape, targets):
        raise ValueError(
            "expected floating-point logits of at least one class, a class index for each row (int64 or uint8) or as "
            "many probabilities, and real class weights, got " + ", ".join(map(_description, (input, *targets[:2])))
        )
    rows = row_shape(input)
    for name, tensor, types in (
        ("sample_weight", targets.sample_weight, WEIGHT_TYPES),
        ("grad_output", grad_output, TYPES),
    ):
        if tensor is not None and (tensor.shape != rows or tensor.dtype not in types):
            raise ValueError(f"{name}: expected real numbers of shape {tuple(rows)}, got {_description(tensor)}")
    for tensor in (*targets, grad_output):
        if tensor is not None and tensor.device != input.device:
            raise RuntimeError(f"expected all tensors on {input.device}, got one on {tensor.device}")


def _description(tensor: Tensor | None) -> str:
    return "None" if tensor is None else f"{tuple(tensor.shape)} of {tensor.dtype}"


def under_transform() -> bool:
    """Whether a mode or a transform is active, so that tensors may have no memory to read."""
    return bool(
        torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._is_torch_function_mode_enabled()
        or torch._C._get_tracing_state() is not None
    )


def is_memory(tensor: Tensor) -> bool:
    """Whether a tensor is nothing but elements in the CPU's memory."""
    return type(tensor) in PLAIN and tensor.is_cpu and tensor.layout is torch.strided


def is_distributed(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, which lies on a mesh of ranks."""
    if type(tensor) in PLAIN:
        return False
    module = sys.modules.get("torch.distributed.tensor")  # it takes a while to import
    return module is not None and isinstance(tensor, module.DTensor)


def autocasts(input: Tensor) -> bool:
    """Whether torch would make a product of this tensor in another dtype."""
    device = input.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def readable(name: str, tensor: Tensor) -> Tensor:
    """The tensor with a pending negation carried out; raises if its storage is too small for its elements."""
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    begin = tensor.storage_offset()
    bytes = tensor.nbytes if tensor.is_contiguous() else _span(tensor)
    held = tensor.untyped_storage().nbytes() - (begin and begin * tensor.element_size())
    if (held < bytes or not tensor.data_ptr()) and bytes:
        if tensor._is_zerotensor():
            return torch.zeros(tensor.shape, dtype=tensor.dtype)
        raise RuntimeError(f"{name}: expected {bytes} bytes in memory, got {max(held, 0)} on {tensor.device}")
    return tensor


def check_memory(**tensors: Tensor | None) -> None:
    """Raise if the storage of a tensor is too small: some of torch's operators would read past its end."""
    if under_transform():
        return
    wrapped, batched = torch._C._functorch.is_functorch_wrapped_tensor, torch._C._functorch.is_legacy_batchedtensor
    for name, tensor in tensors.items():  # of a transform that has ended, some are still wrapped
        if tensor is not None and is_memory(tensor) and not (wrapped(tensor) or batched(tensor)):
            readable(name, tensor)


def _span(tensor: Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return (1 + sum((n - 1) * step for n, step in steps)) * tensor.element_size() if tensor.numel() else 0


def scalar(value: float, dtype: torch.dtype) -> Tensor:
    """A number rounded to a dtype; one beyond it is infinite, where torch would raise."""
    if dtype is torch.float32 and abs(value) > 3e38:
        value = ctypes.c_float(value).value
    return torch.scalar_tensor(value, dtype=dtype)


def as_weights(name: str, tensor: Tensor) -> Tensor:
    """Weights as the core reads them. Class weights ("weight") are checked where they are float64, which alone holds
    finite numbers out of range.
    """
    weights = readable(name, tensor).to(torch.float64).contiguous()
    if not weights.numel() or (name == "weight" and tensor.dtype is not torch.float64):
        return weights
    least, most = torch.aminmax(weights)  # a third of the time of what follows
    if least.item() >= SMALLEST and most.item() <= LARGEST:
        return weights
    sizes = weights.abs()
    fit = (sizes == 0) | ((sizes >= SMALLEST) & (sizes <= LARGEST))
    if not fit.all():
        got = weights[~fit][0].item()
        raise ValueError(f"{name}: expected finite weights, each 0 or of a size in {RANGE}, got {got}")
    return weights


def loss_from_core(
    options: LossOptions,
    input: Tensor,
    targets: TargetTensors,
    losses: Tensor | None = None,
    gradient: Tensor | None = None,
    scale: float = 1.0,
    row_scale: Tensor | None = None,
) -> float:
    """Compute the reduced loss; write one loss a row, and the gradient times the scales, where given.

    `input`, (C,) or (N, C, ...), is a plain tensor on the CPU, as are all others; their shapes are right.
    """
    input = readable("input", input)
    z, logits = logits_in_memory(input)
    target, weight, sample_weight = targets
    target = readable("target", target)
    probabilities = target.shape == input.shape
    if probabilities and z.class_stride == 1:  # a class axis that is the last in memory, if not by its place
        target = target.movedim(class_axis(input), -1)
    if not probabilities and target.dtype is not torch.int64:  # a call that does nothing costs 0.3 µs
        target = target.long()
    target = target.contiguous()
    weight = None if weight is None else as_weights("weight", weight)
    sample_weight = None if sample_weight is None else as_weights("sample_weight", sample_weight)
    if row_scale is not None:
        row_scale = readable("grad_output", row_scale).to(torch.float64).contiguous()
    record: Any = z
    threads = min(resolve_threads(None), torch.get_num_threads())
    of_targets = Targets(None, target.data_ptr(), TYPES[target.dtype]) if probabilities else Targets(target.data_ptr())
    call = new_tuple(Call, (options, record, of_targets, address(weight), address(sample_weight), threads, ()))
    loss = _core.loss(
        call,
        gradient_scale=scale,
        grad_output=address(row_scale),
        losses=address(losses),
        dlogits=address(gradient),
    )
    del logits  # until here: the core has read its memory
    return loss


def logits_in_memory(input: Tensor) -> tuple[LogitsInMemory, Tensor]:
    """Logits as the core reads them, and the tensor whose memory that is: keep it until they are read."""
    shape, axis = input.shape, class_axis(input)
    contiguous = input.is_contiguous()
    last = not contiguous and _classes_last(input)
    logits = input if contiguous or last else input.contiguous()
    rows = input.numel() // shape[axis]
    class_stride = 1 if last or axis == 0 or rows == 0 else rows // shape[0]
    fields = rows, shape[axis], class_stride, logits.data_ptr(), TYPES[logits.dtype]
    return new_tuple(LogitsInMemory, fields), logits


def address(tensor: Tensor | None) -> Any:
    """The address of a tensor's memory, which the core takes in place of an array."""
    return None if tensor is None else tensor.data_ptr()


def mean_divisor(options: LossOptions, shape: torch.Size, targets: TargetTensors) -> float:
    """What the mean over logits of this shape, (N, C, ...), divides by; a bad class index raises IndexError.

    0 if no row counts, NaN if the weights of those that do add up to 0.
    """
    target, weight, sample_weight = targets
    indices = None if target.shape == shape else readable("target", target).long().contiguous()
    weight = None if weight is None else as_weights("weight", weight)
    sample_weight = None if sample_weight is None else as_weights("sample_weight", sample_weight)
    return _core.total_weight(
        options.core,
        logits=LogitsInMemory(math.prod(shape) // shape[1], shape[1]),
        targets=Targets(address(indices)),
        class_weight=address(weight),
        sample_weight=address(sample_weight),
    )
