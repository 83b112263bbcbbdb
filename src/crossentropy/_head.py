"""The linear head: it makes logits from hidden states, a chunk of rows at a time, and adds up its gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_floating, empty
from ._options import as_integer

# At most so many bytes of logits at a time by default: more does not make the products faster, and all that is beside
# inputs and gradients stays below 70 MiB.
MAX_LOGITS_BYTES = 1 << 26
# Blocks of the classifier, converted or to be added to its gradient: large enough for the products' full speed.
BLOCK_BYTES = 1 << 22


class LinearGradients(NamedTuple):
    """Gradients of the loss of a linear head, None where not asked for.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> ce.LinearGradients(bias=np.array([0.5, -0.5]))
    LinearGradients(hidden=None, classifier=None, bias=array([ 0.5, -0.5]))
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
    """Check the parts of a head."""
    h, w = as_floating("hidden", hidden), as_floating("classifier", classifier)
    b = None if bias is None else as_floating("bias", bias)
    transposed = w.ndim == 2 and h.shape[-1] == w.shape[0]
    if w.ndim != 2 or not len(w) or h.shape[-1] != w.shape[1]:
        raise ValueError(
            f"classifier: expected shape (C, {h.shape[-1]}) for hidden states of shape {h.shape} and at least one "
            f"class, got {w.shape}{': np.transpose(classifier) would do' if transposed else ''}"
        )
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"bias: expected shape {w.shape[:1]}, got {b.shape}")
    wide = np.dtype(np.float64) in (h.dtype, w.dtype)
    return Head(h, w, b, np.dtype(np.float64 if wide else np.float32))


def rows_of_chunk(max_logits_bytes: int | None, row_bytes: int) -> int:
    """How many rows of logits are held at a time."""
    limit = MAX_LOGITS_BYTES
    if max_logits_bytes is not None:
        limit = as_integer("max_logits_bytes", max_logits_bytes, "an integer or None")
    if limit < 1:
        raise ValueError(f"max_logits_bytes: expected at least 1, got {limit}")
    rows = max(1, limit // row_bytes)
    return rows // 64 * 64 or rows  # whole tiles of the products


class GradientAccumulator:
    """Gradients of a head, added up chunk by chunk in the dtype of the products or a wider one."""

    def __init__(self, head: Head, gradients: LinearGradients) -> None:
        self.head, self.gradients = head, gradients
        self.started = False
        classifier = gradients.classifier
        if classifier is not None and classifier.dtype != head.dtype:
            classifier = empty(classifier.shape, head.dtype)
        self.classifier = classifier
        self.bias = None if gradients.bias is None else np.zeros(len(head.classifier))

    def add(self, rows: slice | Array, hidden: Array, dz: Array) -> None:
        head = self.head
        if self.gradients.hidden is not None:
            dhidden = self.gradients.hidden.reshape(math.prod(head.hidden.shape[:-1]), hidden.shape[1])
            if isinstance(rows, slice) and dhidden.dtype == head.dtype:
                self._to_hidden(dz, dhidden[rows])
            else:
                dhidden[rows] = self._to_hidden(dz, np.empty(hidden.shape, head.dtype))
        if self.classifier is not None and not self.started:
            np.matmul(dz.T, hidden, out=self.classifier)
        elif self.classifier is not None:
            # NumPy cannot add a product to an array. Each block of it is added while it is in the cache.
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
