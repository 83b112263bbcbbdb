"""Softmax, log-softmax and log-sum-exp."""

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import ELEMENT_TYPES, Array, Logits, as_logits
from ._config import get_num_threads

# The core's Output.
_SOFTMAX, _LOG_SOFTMAX = 1, 2


def _run(z: Logits, output: int, logsumexp: Array | None, matrix: Array | None) -> None:
    _core.softmax(z.data, z.rows, z.classes, ELEMENT_TYPES[z.data.dtype], output, logsumexp, matrix, get_num_threads())


def _matrix(logits: npt.ArrayLike, axis: int, output: int) -> Array:
    z = as_logits(logits, axis)
    matrix = np.empty(z.data.shape, z.data.dtype)
    _run(z, output, None, matrix)
    return np.ascontiguousarray(np.moveaxis(matrix, -1, z.axis))


def softmax(logits: npt.ArrayLike, *, axis: int = -1) -> Array:
    return _matrix(logits, axis, _SOFTMAX)


def log_softmax(logits: npt.ArrayLike, *, axis: int = -1) -> Array:
    return _matrix(logits, axis, _LOG_SOFTMAX)


def logsumexp(logits: npt.ArrayLike, *, axis: int = -1, keepdims: bool = False) -> Array:
    z = as_logits(logits, axis)
    values = np.empty(z.row_shape, z.data.dtype)
    _run(z, _SOFTMAX, values, None)
    return np.expand_dims(values, z.axis) if keepdims else values[()]
