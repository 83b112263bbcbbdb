"""Scoring saved logits: arrays larger than memory, read block by block."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import _advice
from ._arrays import Array, Layout, Shape, as_floating, as_logits, as_read_by_core, as_weights, empty
from ._call import has_mean, losses_and_sum, prepare, require_mean
from ._head import as_head
from ._options import LossOptions
from ._probabilities import looks_like_probabilities
from ._stored import Index, Stored
from ._targets import accepted_indices, accepted_targets, require_one_hot

BLOCK_ELEMENTS = 1 << 22
SCATTERED = 4  # larger blocks where the classes of a row lie apart in a file: longer runs, measured twice as fast


@dataclass(frozen=True)
class Score:
    """What a file of logits scores. Losses in nats; `ignored` rows do not count.

    There is no mean where weights are negative: it is NaN, with what depends on it.
    """

    rows: int
    ignored: int
    classes: int
    mean: float
    standard_error: float
    total: float
    top1: float
    top5: float
    looks_like_probabilities: bool
    negative_targets: bool
    has_mean: bool

    @property
    def perplexity(self) -> float:
        if not self.rows:
            return math.nan
        return math.exp(self.mean) if not self.mean > 709 else math.inf

    def to_dict(self) -> dict[str, float | None]:
        """The numbers for JSON; None for those that are not finite."""
        numbers: dict[str, float] = {
            "rows": self.rows,
            "ignored": self.ignored,
            "classes": self.classes,
            "mean_nats": self.mean,
            "standard_error_nats": self.standard_error,
            "mean_bits": self.mean / math.log(2),
            "standard_error_bits": self.standard_error / math.log(2),
            "sum_nats": self.total,
            "perplexity": self.perplexity,
            "top1_accuracy": self.top1,
            "top5_accuracy": self.top5,
            "looks_like_probabilities": self.looks_like_probabilities,
            "negative_targets": self.negative_targets,
        }
        return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


class HeadLogits:
    """The logits of hidden states and a linear head, made when a block of them is asked for."""

    def __init__(self, hidden: Array | Stored, classifier: Array, bias: Array | None) -> None:
        one = as_floating("hidden", np.zeros((1,) * hidden.ndim, hidden.dtype))
        self._head = as_head(np.broadcast_to(one, hidden.shape), classifier, bias)
        self._hidden = hidden
        self.shape = (*hidden.shape[:-1], len(self._head.classifier))
        self.width, self.dtype = hidden.shape[-1], self._head.dtype

    def __getitem__(self, at: Index) -> Array:
        hidden = self._hidden[at].astype(self._head.dtype, copy=False)
        logits = empty((*hidden.shape[:-1], self.shape[-1]), self._head.dtype)
        rows = math.prod(hidden.shape[:-1])
        self._head.write_logits(hidden.reshape(rows, self.width), logits.reshape(rows, self.shape[-1]))
        return logits


def blocks(shape: Shape, width: int, times: int = 1) -> Iterator[Index]:
    """Index a shape of rows piece by piece, each of about BLOCK_ELEMENTS elements (so many times) or one row."""
    elements = times * BLOCK_ELEMENTS
    if not math.prod(shape):
        return
    if not shape:
        yield ()
        return
    axis = len(shape) - 1  # the axis that is cut: the first that leaves pieces small enough
    while axis > 0 and math.prod(shape[axis:]) * width <= elements:
        axis -= 1
    step = max(1, elements // max(1, math.prod(shape[axis + 1 :]) * width))
    for leading in np.ndindex(shape[:axis]):
        for begin in range(0, shape[axis], step):
            yield (*leading, slice(begin, begin + step))


class _RatioOfSums:
    """Mean and standard error of sum L / sum w, for losses L that contain their weights w."""

    def __init__(self) -> None:
        self.rows, self.loss, self.weight = 0, 0.0, 0.0
        self.pilot = math.nan  # an early mean: squares are of small differences from it
        self.dd = self.dw = self.ww = 0.0

    def add(self, total: float, losses: Array, weights: Array) -> None:
        weight = float(weights.sum())
        if math.isnan(self.pilot) and weight:
            self.pilot = total / weight
        self.rows += int(np.count_nonzero(weights))
        self.loss += total
        self.weight += weight
        d = losses - self.pilot * weights
        self.dd += float(d @ d)
        self.dw += float(d @ weights)
        self.ww += float(weights @ weights)

    @property
    def mean(self) -> float:
        return self.loss / self.weight if self.weight else 0.0

    @property
    def standard_error(self) -> float:
        if self.rows < 2 or not math.isfinite(self.dd):
            return math.nan
        delta = self.mean - self.pilot
        squares = max(self.dd - 2 * delta * self.dw + delta * delta * self.ww, 0.0)
        return math.sqrt(squares * self.rows / (self.rows - 1)) / self.weight


def check_logits(logits: Array | Stored | HeadLogits, axis: int) -> tuple[Shape, np.dtype[Any]]:
    """Check logits: return the shape of their rows and the dtype of their gradient."""
    rows = list(logits.shape)
    classes = rows.pop(axis)
    few = np.empty((0, classes) if classes else logits.shape, logits.dtype)  # a stand-in that takes no memory
    return tuple(rows), as_logits(few, -1 if classes else axis).data.dtype


@np.errstate(all="ignore")  # NaN and infinity are returned, not warned of
def score(
    logits: Array | Stored | HeadLogits,
    targets: Array | Stored,
    options: LossOptions,
    *,
    axis: int = -1,
    class_weight: Array | None = None,
    sample_weight: Array | Stored | None = None,
    num_threads: int | None = None,
    losses_out: Array | Stored | None = None,
    dlogits_out: Array | Stored | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Score:
    """Score logits of any size; `losses_out` and `dlogits_out` receive each row's loss and the gradient.

    The gradient is that of the reduction in `options`. `progress` is told the number of rows of each block.
    """
    z = logits if isinstance(logits, HeadLogits) else _classes_last(logits, axis)
    shape, classes = z.shape[:-1], z.shape[-1]
    read = max(classes, z.width) if isinstance(z, HeadLogits) else classes  # numbers for each row
    times = SCATTERED if isinstance(z, Stored) and z.axes[-1] != z.ndim - 1 else 1
    dense = targets.shape == logits.shape
    t = _classes_last(targets, axis) if dense else targets
    layout = Layout(math.prod(shape), classes, logits.shape, shape, axis % len(logits.shape))
    if not dense and targets.shape != shape:
        alike = np.broadcast_to(np.zeros((), targets.dtype), targets.shape)  # takes no memory
        found = _advice.of_shape(alike, logits.shape, None if isinstance(z, HeadLogits) else layout.axis)
        raise ValueError(f"targets: expected {accepted_targets(layout)}, got {found}")
    if not dense:
        _check_indices(t, layout, options.ignore_index)
    w = None if class_weight is None else as_weights("class_weight", class_weight, (classes,))
    s = np.broadcast_to(1.0, shape) if sample_weight is None else sample_weight
    if s.shape != shape:
        raise ValueError(f"sample_weight: expected shape {shape}, got {s.shape}")
    if s.dtype.kind not in "fiub":
        raise TypeError(f"sample_weight: expected real numbers, got {s.dtype}")
    if dense and t.dtype.kind in "biu":
        _check_one_hot(t, s, blocks(shape, read, times))
    dz = None if dlogits_out is None else _classes_last(dlogits_out, axis)

    def counted_and_weight(at: Index) -> tuple[Array, Array]:
        """Which rows of a block count, and what each weighs in the mean."""
        sample = np.asarray(s[at], np.float64)
        counted = sample != 0
        if dense:
            return counted, sample
        if options.ignore_index is not None:
            counted &= t[at] != options.ignore_index
        weight = 1.0 if w is None else w[np.where(counted, t[at], 0)]
        return counted, np.where(counted, sample * weight, 0.0)

    scale = 1.0
    if dz is not None and options.reduction == "mean":
        total_weight = math.fsum(counted_and_weight(at)[1].sum() for at in blocks(shape, read, times))
        scale = 1.0 / total_weight if total_weight else 0.0

    summed = replace(options, reduction="sum")
    ratio = _RatioOfSums()
    counted_rows = hits1 = hits5 = 0
    probabilities = math.prod(shape) > 0
    negative, mean = False, True
    for at in blocks(shape, read, times):
        block, block_targets = np.ascontiguousarray(z[at]), t[at]
        call = prepare(summed, block, block_targets, class_weight=w, sample_weight=s[at], num_threads=num_threads)
        if options.reduction == "mean":
            require_mean(call.targets, w, call.sample_weight)
        mean = mean and has_mean(call.targets, w, call.sample_weight)
        losses, total, dblock = losses_and_sum(call, None if dz is None else scale)
        if losses_out is not None:
            losses_out[at] = losses
        if dz is not None and dblock is not None:
            dz[at] = dblock if scale else np.zeros_like(dblock)  # zeros, where the gradient is NaN too
        counted, weight = counted_and_weight(at)
        negative = negative or (dense and bool((block_targets < 0)[counted].any()))
        ratio.add(total, losses.ravel().astype(np.float64), weight.ravel())
        best = block_targets.argmax(-1) if dense else np.where(counted, block_targets, 0)
        rank = np.where(counted & ~np.isnan(losses), _rank(block, best), classes)
        counted_rows += int(counted.sum())
        hits1 += int((rank < 1).sum())
        hits5 += int((rank < 5).sum())
        if probabilities:
            probabilities = looks_like_probabilities(block)
        progress(losses.size)

    return Score(
        rows=counted_rows,
        ignored=math.prod(shape) - counted_rows,
        classes=classes,
        mean=ratio.mean if mean else math.nan,
        standard_error=ratio.standard_error if mean else math.nan,
        total=ratio.loss,
        top1=hits1 / counted_rows if counted_rows else math.nan,
        top5=hits5 / counted_rows if counted_rows else math.nan,
        looks_like_probabilities=probabilities,
        negative_targets=negative,
        has_mean=mean,
    )


def _classes_last(array: Array | Stored, axis: int) -> Array | Stored:
    axes = list(range(array.ndim))
    axes.append(axes.pop(axis))
    return array.transpose(axes)


def _check_one_hot(targets: Array | Stored, sample_weight: Array | Stored, pieces: Iterator[Index]) -> None:
    """Find a row that is not one-hot in the whole file, as `_check_indices` finds an index."""
    first = 0
    for at in pieces:
        block = np.asarray(targets[at])
        require_one_hot(as_read_by_core(block, block.dtype.newbyteorder("=")), -1, sample_weight[at], first)
        first += math.prod(block.shape[:-1])


def _check_indices(targets: Array | Stored, logits: Layout, ignore_index: int | None) -> None:
    """Find a class index out of range in the whole file: the core would count its row from the start of a block."""
    classes = logits.classes
    if targets.dtype.kind not in "iu":
        some = np.asarray(targets[next(blocks(targets.shape, 1), (slice(0),))])
        found = _advice.of_labels(some, logits.shape, ignore_index)
        raise TypeError(f"targets: expected {accepted_targets(logits)}, got {found}")
    first = 0
    for at in blocks(targets.shape, 1):
        block = np.asarray(targets[at]).reshape(-1)
        wrong = (block < 0) | (block >= classes)
        if ignore_index is not None:
            wrong &= block != ignore_index
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            accepted = accepted_indices(classes, ignore_index)
            each = np.unique([n for at in blocks(targets.shape, 1) for n in np.unique(targets[at])])
            advice = _advice.of_indices(each, classes, ignore_index, in_order=False)
            raise IndexError(f"targets: expected {accepted}, got {block[row]} in row {first + row}{advice}")
        first += block.size


def _rank(block: Array, target: Array) -> Array:
    """How many classes come before the target: a larger logit, or the same one and a smaller index."""
    target = np.asarray(target, np.int64)[..., None]
    at_target = np.take_along_axis(block, target, -1)
    earlier = np.arange(block.shape[-1]) < target
    before: Array = ((block > at_target) | ((block == at_target) & earlier)).sum(-1)
    return before
