"""A call of the linear head's loss: validated once, then computed a chunk of rows at a time.

The logits of a chunk are made in one buffer. The core turns them into their own gradient there, and two products take
it from there to the hidden states and the classifier.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import (
    LOGIT_TYPES,
    Array,
    Layout,
    Logits,
    Shape,
    as_grad_output,
    as_weights,
    check_array,
    empty,
    rounds_to_nearest,
    row_type,
)
from ._call import Call, check_options, require_mean, total_weight, weights_of_rows
from ._config import resolve_threads
from ._head import GradientAccumulator, Head, LinearGradients, as_head, rows_of_chunk
from ._options import LossOptions
from ._targets import Targets, TopKTargets, as_targets

Wrt = Literal["hidden", "classifier", "bias"]


@dataclass(slots=True)
class LinearCall:
    """The options and data of a head's loss. The rows of targets and weights are along one axis."""

    options: LossOptions
    head: Head
    row_shape: Shape  # of the hidden states that were given
    targets: Targets
    class_weight: Array | None
    sample_weight: Array | None
    num_threads: int
    total_weight: float
    kept: Array | None  # the rows that count; None: all of them
    chunk: int  # rows of logits that are held at a time
    inputs: tuple[object, ...]  # arrays that an output may not overlap

    @property
    def count(self) -> int:
        """How many rows count."""
        return math.prod(self.row_shape) if self.kept is None else len(self.kept)

    def chunks(self) -> Iterator[slice | Array]:
        """Rows that count, a chunk at a time."""
        for begin in range(0, self.count, self.chunk):
            rows = slice(begin, min(begin + self.chunk, self.count))
            yield rows if self.kept is None else self.kept[rows]

    def of_rows(self, options: LossOptions, rows: slice | Array, logits: Array) -> Call:
        """The call of the loss of some rows, given their logits."""
        z = logits_of_chunk(logits)
        t = self.targets
        indices, probabilities, sparse_indices = (
            None if array is None else array[rows] for array in (t.indices, t.probabilities, t.sparse_indices)
        )
        remainder = None if t.remainder is None else t.remainder[rows]
        targets = Targets(indices, probabilities, t.type, sparse_indices, t.k, remainder=remainder)
        sample_weight = None if self.sample_weight is None else self.sample_weight[rows]
        return Call(options, z, targets, self.class_weight, sample_weight, self.num_threads)


def logits_of_chunk(logits: Array) -> Logits:
    """Logits that a head has made, (N, C), as the core reads them."""
    rows, classes = logits.shape
    return Logits(logits, LOGIT_TYPES[logits.dtype], rows, classes, 1, logits.shape, (rows,), 1, False, logits)


def prepare_linear(
    options: LossOptions,
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    bias: npt.ArrayLike | None = None,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    num_threads: int | None = None,
    max_logits_bytes: int | None = None,
) -> LinearCall:
    """Validate the data of a head's loss."""
    threads = resolve_threads(num_threads)
    head = as_head(hidden, classifier, bias)
    classes, row_shape = len(head.classifier), head.hidden.shape[:-1]
    rows = math.prod(row_shape)
    w = None if class_weight is None else as_weights("class_weight", class_weight, (classes,))
    layout = Layout(rows, classes, (*row_shape, classes), row_shape, len(row_shape))
    t = as_targets(targets, layout, options.ignore_index, sample_weight)
    check_options(options, t, class_weight)
    s = weights_of_rows(t, sample_weight, row_shape)
    if options.reduction == "mean":
        require_mean(t, w, s)
    total = total_weight(options, layout, t, w, s)
    inputs = (*head[:3], *t.given, class_weight, sample_weight)
    s = None if s is None else s.reshape(rows)
    indices, probabilities, sparse_indices = (
        None if array is None else array.reshape(rows, *array.shape[axis:])
        for array, axis in ((t.indices, len(row_shape)), (t.probabilities, -1), (t.sparse_indices, -1))
    )
    t = Targets(indices, probabilities, t.type, sparse_indices, t.k, remainder=t.remainder)
    kept = _rows_that_count(options, t, s, rows)
    row_bytes = classes * head.dtype.itemsize
    if kept is not None and t.probabilities is not None and t.sparse_indices is None:  # a chunk of them is copied
        row_bytes += classes * t.probabilities.itemsize
    chunk = rows_of_chunk(max_logits_bytes, row_bytes)
    return LinearCall(options, head, row_shape, t, w, s, threads, total, kept, chunk, inputs)


def _rows_that_count(options: LossOptions, targets: Targets, sample_weight: Array | None, rows: int) -> Array | None:
    """The rows that count, or None for all of them."""
    kept = np.ones(rows, bool)
    if targets.indices is not None and options.ignore_index is not None:
        kept &= targets.indices != options.ignore_index
    if sample_weight is not None:
        kept &= sample_weight != 0
    return None if kept.all() else np.flatnonzero(kept)


def linear_loss(call: LinearCall) -> float | Array:
    """The reduced loss, or one loss a row."""
    return _over_chunks(call, LinearGradients())


def linear_loss_and_gradients(
    call: LinearCall,
    *,
    wrt: Sequence[Wrt] = ("hidden", "classifier", "bias"),
    grad_output: npt.ArrayLike = 1.0,
    out: LinearGradients | None = None,
) -> tuple[float | Array, LinearGradients]:
    """The loss, and the gradients asked for."""
    scale, row_scale = as_grad_output(grad_output, call.row_shape, call.options.reduction == "none")
    gradients = gradient_outputs(call.head, call.inputs, wrt, out)
    return _over_chunks(call, gradients, scale, row_scale), gradients


@rounds_to_nearest
def _over_chunks(
    call: LinearCall, gradients: LinearGradients, scale: float = 1.0, row_scale: Array | None = None
) -> float | Array:
    """Compute the loss, and the gradients that have an array, a chunk of rows at a time."""
    head, options, rows = call.head, call.options, math.prod(call.row_shape)
    hidden = head.hidden.reshape(rows, head.hidden.shape[-1])
    per_row, mean = options.reduction == "none", options.reduction == "mean"
    losses = np.zeros(rows, row_type(head.dtype)) if per_row else None
    if mean:
        scale = scale / call.total_weight if call.total_weight else 0.0
    of_chunk = options if per_row else replace(options, reduction="sum")
    chunks = [] if mean and not call.total_weight else list(call.chunks())
    logits = empty((min(call.chunk, call.count) if chunks else 0, len(head.classifier)), head.dtype)
    if gradients.hidden is not None and (call.kept is not None or not chunks):
        gradients.hidden[...] = 0  # of rows that do not count
    accumulator = GradientAccumulator(head, gradients)
    wanted = any(gradient is not None for gradient in gradients)
    sums = []
    for chunk in chunks:
        h = hidden[chunk].astype(head.dtype, copy=False)
        z = logits[: len(h)]
        head.write_logits(h, z)
        upstream = None if row_scale is None else row_scale.reshape(rows)[chunk]
        of_rows = None if losses is None else np.empty(len(h), losses.dtype)
        value = _core.loss(
            call.of_rows(of_chunk, chunk, z),
            gradient_scale=scale,
            grad_output=upstream,
            losses=of_rows,
            dlogits=z if wanted else None,
        )
        if losses is None:
            sums.append(value)
        else:
            losses[chunk] = of_rows
        if wanted:
            accumulator.add(chunk, h, z)
    accumulator.finish()
    if losses is not None:
        return losses.reshape(call.row_shape)[()]
    loss = math.fsum(sums) if all(map(math.isfinite, sums)) else sum(sums)
    if mean:
        loss = loss / call.total_weight if call.total_weight else 0.0
    return loss


def gradient_outputs(
    head: Head, inputs: tuple[object, ...], wrt: Sequence[Wrt], out: LinearGradients | None
) -> LinearGradients:
    """The arrays for the gradients in `wrt`: those of `out`, which no input may overlap, else new ones."""
    like = {"hidden": head.hidden, "classifier": head.classifier, "bias": head.bias}
    if not isinstance(wrt, Collection) or isinstance(wrt, str) or not all(name in list(like) for name in wrt):
        raise ValueError(f"wrt: expected some of {tuple(like)}, got {wrt!r}")
    if out is not None and not isinstance(out, LinearGradients):
        raise TypeError(f"out: expected LinearGradients or None, got {type(out).__name__}")
    found: dict[str, Array] = {}
    for name, array in like.items():
        given = None if out is None else getattr(out, name)
        if name not in wrt or array is None:
            if given is not None:
                raise ValueError(f"out: expected no array for {name}, whose gradient is not asked for")
        elif given is None:
            found[name] = empty(array.shape, array.dtype)
        else:
            name_of = f"out.{name}"
            found[name] = check_array(name_of, given, array.shape, array.dtype, (*inputs, *found.values()))
            if not given.flags.c_contiguous:
                raise ValueError(f"{name_of}: expected a C-contiguous array")
    return LinearGradients(**found)
