"""The linear head: loss and gradients from hidden states, the logits never held all at once.

Rows of logits are made in one buffer, a chunk at a time; the core turns them into their own gradient there, and two
products take it from there to the hidden states and the classifier.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import (
    Array,
    as_array,
    as_grad_output,
    as_matrix,
    as_weights,
    check_array,
    rounds_to_nearest,
    row_type,
    rows_of,
)
from ._config import resolve_threads
from ._evaluate import evaluate, total_weight
from ._options import LossOptions, as_integer
from ._targets import TopKTargets, as_targets

# At most so many bytes of logits at a time by default: more does not make the products faster, and all that is beside
# inputs and gradients stays below 70 MiB.
MAX_LOGITS_BYTES = 1 << 26
# Blocks of the classifier, converted or to be added to its gradient: large enough for the products' full speed.
BLOCK_BYTES = 1 << 22

Wrt = Literal["hidden", "classifier", "bias"]


class LinearGradients(NamedTuple):
    """Gradients of the loss of a linear head, None where not asked for.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.LinearGradients(bias=[0.5, -0.5])
    LinearGradients(hidden=None, classifier=None, bias=[0.5, -0.5])
    """

    hidden: Array | None = None
    classifier: Array | None = None
    bias: Array | None = None


class Head(NamedTuple):
    """Hidden states (..., D), a classifier (C, D) and a bias (C,), and the dtype of their products."""

    hidden: Array
    classifier: Array
    bias: Array | None
    dtype: np.dtype[Any]

    @property
    def block(self) -> int:
        """Classes of a block of the classifier."""
        width = int(self.classifier.shape[1])
        return max(1, BLOCK_BYTES // (max(width, 1) * self.dtype.itemsize))

    def classifier_blocks(self) -> Iterator[tuple[slice, Array]]:
        """The classifier in the dtype of the products: as it is, or block by block."""
        classes = len(self.classifier)
        step = classes if self.classifier.dtype == self.dtype else self.block
        for begin in range(0, classes, step):
            block = slice(begin, min(begin + step, classes))
            yield block, self.classifier[block].astype(self.dtype, copy=False)

    def write_logits(self, hidden: Array, out: Array) -> None:
        """Write the logits of hidden states (N, D), which are of the products' dtype."""
        for block, weights in self.classifier_blocks():
            np.matmul(hidden, weights.T, out=out[:, block])
        if self.bias is not None:
            out += self.bias.astype(self.dtype, copy=False)


def as_head(hidden: npt.ArrayLike, classifier: npt.ArrayLike, bias: npt.ArrayLike | None) -> Head:
    """Check what a head is made of."""
    h, w = as_matrix("hidden", hidden), as_matrix("classifier", classifier)
    b = None if bias is None else as_matrix("bias", bias)
    if w.ndim != 2 or not len(w) or h.shape[-1] != w.shape[1]:
        raise ValueError(
            f"classifier: expected shape (C, {h.shape[-1]}) for hidden states of shape {h.shape} and at least one "
            f"class, got {w.shape}"
        )
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"bias: expected shape {w.shape[:1]}, got {b.shape}")
    wide = np.dtype(np.float64) in (h.dtype, w.dtype)
    return Head(h, w, b, np.dtype(np.float64 if wide else np.float32))


class Problem:
    """A validated problem: a head, targets and weights, and the rows that count."""

    def __init__(
        self,
        options: LossOptions,
        hidden: npt.ArrayLike,
        classifier: npt.ArrayLike,
        targets: npt.ArrayLike | TopKTargets,
        bias: npt.ArrayLike | None,
        class_weight: npt.ArrayLike | None,
        sample_weight: npt.ArrayLike | None,
        num_threads: int | None,
        max_logits_bytes: int | None,
    ) -> None:
        self.options, self.num_threads = options, resolve_threads(num_threads)
        self.head = head = as_head(hidden, classifier, bias)
        self.classes, self.width = head.classifier.shape
        self.row_shape = head.hidden.shape[:-1]
        self.rows = head.hidden.reshape(math.prod(self.row_shape), self.width)
        self.dtype = head.dtype
        self.class_weight = None if class_weight is None else as_weights("class_weight", class_weight, (self.classes,))
        given = rows_of(self.row_shape, self.classes, self.dtype)
        self.targets = as_targets(targets, given, options.ignore_index)
        self.dense: Array | None = None  # probabilities of all classes, one row each
        if self.targets.probabilities is not None and not isinstance(targets, TopKTargets):
            self.dense = as_array("targets", targets).reshape(-1, self.classes)
        self.sample_weight = None
        if sample_weight is not None:
            self.sample_weight = as_weights("sample_weight", sample_weight, self.row_shape)
        self.inputs = (*head[:3], *self.targets.given, class_weight, sample_weight)
        self.total = total_weight(self.targets, given, options.ignore_index, self.class_weight, self.sample_weight)
        self.kept = self._kept()
        row_bytes = self.classes * self.dtype.itemsize
        if self.kept is not None and self.dense is not None:  # a chunk of them is copied
            row_bytes += self.classes * self.dense.itemsize
        self.chunk = rows_of_chunk(max_logits_bytes, row_bytes)

    def _kept(self) -> Array | None:
        """The rows that count, or None for all of them."""
        t = self.targets
        kept = np.ones(len(self.rows), bool)
        if t.indices is not None and self.options.ignore_index is not None:
            kept &= t.indices.reshape(-1) != self.options.ignore_index
        if t.ignored is not None:
            kept &= ~t.ignored.reshape(-1)
        if self.sample_weight is not None:
            kept &= self.sample_weight.reshape(-1) > 0
        return None if kept.all() else np.flatnonzero(kept)

    @property
    def count(self) -> int:
        """How many rows count."""
        return len(self.rows) if self.kept is None else len(self.kept)

    def chunks(self) -> Iterator[slice | Array]:
        """Rows that count, a chunk at a time."""
        count = self.count
        for begin in range(0, count, self.chunk):
            rows = slice(begin, min(begin + self.chunk, count))
            yield rows if self.kept is None else self.kept[rows]

    def targets_of(self, rows: slice | Array) -> Array | TopKTargets:
        t = self.targets
        if self.dense is not None:
            return self.dense[rows]
        if t.indices is not None:
            return t.indices.reshape(-1)[rows]
        assert t.sparse_indices is not None
        assert t.probabilities is not None
        return TopKTargets(t.sparse_indices[rows], t.probabilities[rows])


def rows_of_chunk(max_logits_bytes: int | None, row_bytes: int) -> int:
    """How many rows of logits are held at a time."""
    limit = MAX_LOGITS_BYTES
    if max_logits_bytes is not None:
        limit = as_integer("max_logits_bytes", max_logits_bytes, "an integer or None")
    if limit < 1:
        raise ValueError(f"max_logits_bytes: expected at least 1, got {limit}")
    rows = max(1, limit // row_bytes)
    return rows // 64 * 64 or rows  # whole tiles of the products


@rounds_to_nearest
def evaluate_head(
    problem: Problem, wrt: Sequence[Wrt] = (), grad_output: npt.ArrayLike = 1.0, out: LinearGradients | None = None
) -> tuple[float | Array, LinearGradients]:
    """Compute the loss, and the gradients asked for, a chunk of rows at a time."""
    options = problem.options
    per_row = options.reduction == "none"
    scale, row_scale = as_grad_output(grad_output, problem.row_shape, per_row)
    gradients = _outputs(problem, wrt, out)
    wanted = any(gradient is not None for gradient in gradients)
    losses = np.zeros(len(problem.rows), row_type(problem.dtype)) if per_row else None
    mean = options.reduction == "mean"
    if mean:
        scale = scale / problem.total if problem.total else 0.0
    total = _Total(problem, gradients)
    of_chunk = options if per_row else replace(options, reduction="sum")
    chunks = [] if mean and not problem.total else list(problem.chunks())
    logits = np.empty((min(problem.chunk, problem.count) if chunks else 0, problem.classes), problem.dtype)
    if gradients.hidden is not None and (problem.kept is not None or not chunks):
        gradients.hidden[...] = 0  # of rows that do not count
    sums = []
    for rows in chunks:
        hidden = problem.rows[rows].astype(problem.dtype, copy=False)
        z = logits[: len(hidden)]
        problem.head.write_logits(hidden, z)
        weight = None if problem.sample_weight is None else problem.sample_weight.reshape(-1)[rows]
        upstream = scale if row_scale is None else row_scale.reshape(-1)[rows]
        loss, dz = evaluate(
            of_chunk,
            z,
            problem.targets_of(rows),
            -1,
            problem.class_weight,
            weight,
            problem.num_threads,
            wanted,
            upstream,
            z if wanted else None,
        )
        if losses is not None:
            losses[rows] = loss
        else:
            sums.append(float(loss))
        if dz is not None:
            total.add(rows, hidden, dz)
    total.finish()
    if losses is not None:
        return losses.reshape(problem.row_shape)[()], gradients
    loss = math.fsum(sums) if all(map(math.isfinite, sums)) else sum(sums)
    if mean:
        loss = loss / problem.total if problem.total else 0.0
    return loss, gradients


class _Total:
    """Gradients of the head, added up chunk by chunk in the dtype of the products or a wider one."""

    def __init__(self, problem: Problem, gradients: LinearGradients) -> None:
        self.head, self.rows, self.gradients = problem.head, len(problem.rows), gradients
        self.started = False
        classifier = gradients.classifier
        if classifier is not None and classifier.dtype != problem.dtype:
            classifier = np.empty(classifier.shape, problem.dtype)
        self.classifier = classifier
        self.bias = None if gradients.bias is None else np.zeros(problem.classes)

    def add(self, rows: slice | Array, hidden: Array, dz: Array) -> None:
        head = self.head
        if self.gradients.hidden is not None:
            dhidden = self.gradients.hidden.reshape(self.rows, hidden.shape[1])
            if isinstance(rows, slice) and dhidden.dtype == head.dtype:
                self._to_hidden(dz, dhidden[rows])
            else:
                dhidden[rows] = self._to_hidden(dz, np.empty(hidden.shape, head.dtype))
        if self.classifier is not None and not self.started:
            np.matmul(dz.T, hidden, out=self.classifier)
        elif self.classifier is not None:
            # Products add to nothing in NumPy: a block at a time is made and added while it is in the cache.
            product = np.empty((min(head.block, len(head.classifier)), hidden.shape[1]), head.dtype)
            for begin in range(0, len(head.classifier), head.block):
                block = self.classifier[begin : begin + head.block]
                block += np.matmul(dz[:, begin : begin + head.block].T, hidden, out=product[: len(block)])
        if self.bias is not None:
            self.bias += np.ones(len(dz), head.dtype) @ dz
        self.started = True

    def _to_hidden(self, dz: Array, out: Array) -> Array:
        blocks = self.head.classifier_blocks()
        block, weights = next(blocks)
        np.matmul(dz[:, block], weights, out=out)
        for block, weights in blocks:
            out += dz[:, block] @ weights
        return out

    def finish(self) -> None:
        for total, gradient in ((self.classifier, self.gradients.classifier), (self.bias, self.gradients.bias)):
            if total is None or gradient is None:
                continue
            if not self.started:
                gradient[...] = 0
            elif total is not gradient:
                np.copyto(gradient, total, casting="same_kind")


def _outputs(problem: Problem, wrt: Sequence[Wrt], out: LinearGradients | None) -> LinearGradients:
    """Where the gradients asked for go: arrays of `out`, or new ones."""
    head = problem.head
    like = {"hidden": head.hidden, "classifier": head.classifier, "bias": head.bias}
    if isinstance(wrt, str) or not set(wrt) <= set(like):
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
            found[name] = np.empty(array.shape, array.dtype)
        else:
            name_of = f"out.{name}"
            found[name] = check_array(name_of, given, array.shape, array.dtype, (*problem.inputs, *found.values()))
            if not given.flags.c_contiguous:
                raise ValueError(f"{name_of}: expected a C-contiguous array")
    return LinearGradients(**found)
