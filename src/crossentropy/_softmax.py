"""Softmax, log-softmax and log-sum-exp."""

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, Logits, as_logits, memory_of, row_type
from ._config import get_num_threads

# The core's Output.
_SOFTMAX, _LOG_SOFTMAX = 1, 2


def _write(z: Logits, output: int, logsumexp: Array | None, matrix: Array | None) -> None:
    data = memory_of(z.data, z.code)
    _core.softmax(data, z.rows, z.classes, z.inner, z.code, output, logsumexp, matrix, get_num_threads())


def _matrix(logits: npt.ArrayLike, axis: int, output: int) -> Array:
    z = as_logits(logits, axis)
    matrix = np.empty(z.data.shape, z.data.dtype)
    _core.softmax(
        memory_of(z.data, z.code),
        z.rows,
        z.classes,
        z.inner,
        z.code,
        output,
        None,
        memory_of(matrix, z.code),
        get_num_threads(),
    )
    return np.ascontiguousarray(np.moveaxis(matrix, -1, z.axis)) if z.moved else matrix


def softmax(logits: npt.ArrayLike, *, axis: int = -1) -> Array:
    r"""Compute the softmax, :math:`\exp(z_c - \mathrm{logsumexp}(z))`.

    Parameters
    ----------
    logits : array_like of float16, bfloat16, float32 or float64, shape (..., C, ...)
        Lists and integers are taken as float64.
    axis : int
        The class axis.

    Returns
    -------
    ndarray
        Probabilities, of the logits' shape and dtype. Rows with a NaN or a ``+inf``, or with nothing but ``-inf``, are
        NaN.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape or axis that has no meaning here.

    Notes
    -----
    Within 4 ULP of each probability that is a normal number; smaller ones may be 0.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.softmax([2.0, 1.0, 0.1]).round(3)
    array([0.659, 0.242, 0.099])
    """
    return _matrix(logits, axis, _SOFTMAX)


def log_softmax(logits: npt.ArrayLike, *, axis: int = -1) -> Array:
    r"""Compute the logarithm of the softmax, :math:`z_c - \mathrm{logsumexp}(z)`, in nats.

    Parameters
    ----------
    logits : array_like of float16, bfloat16, float32 or float64, shape (..., C, ...)
        Lists and integers are taken as float64.
    axis : int
        The class axis.

    Returns
    -------
    ndarray
        Log-probabilities, of the logits' shape and dtype. Rows with a NaN or a ``+inf``, or with nothing but
        ``-inf``, are NaN.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape or axis that has no meaning here.

    Notes
    -----
    Within 4 ULP, also for the likeliest class of a confident row, where it is minus the sum of the other
    probabilities.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.log_softmax([2.0, 1.0, 0.1]).round(3)
    array([-0.417, -1.417, -2.317])
    >>> ce.log_softmax([50.0, 0.0])
    array([-1.92874985e-22, -5.00000000e+01])
    """
    return _matrix(logits, axis, _LOG_SOFTMAX)


def logsumexp(logits: npt.ArrayLike, *, axis: int = -1, keepdims: bool = False) -> Array:
    r"""Compute the logarithm of the sum of exponentials, :math:`\log \sum_c \exp z_c`.

    Parameters
    ----------
    logits : array_like of float16, bfloat16, float32 or float64, shape (..., C, ...)
        Lists and integers are taken as float64.
    axis : int
        The axis that is summed over.
    keepdims : bool
        Keep that axis, with one element.

    Returns
    -------
    ndarray
        Of the logits' shape without `axis`; float64 for float64 logits, else float32. ``-inf`` for nothing but
        ``-inf``, ``+inf`` where one is ``+inf``, NaN where one is NaN.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape or axis that has no meaning here.

    Notes
    -----
    The largest logit plus log1p of the others' exponentials relative to it: within 4 ULP of the larger of the two.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax functions", IMA Journal
    of Numerical Analysis 41(4), 2021.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.logsumexp([[2.0, 1.0, 0.1], [1000.0, 1000.0, 0.0]]).round(3)
    array([   2.417, 1000.693])
    """
    z = as_logits(logits, axis)
    values = np.empty(z.row_shape, row_type(z.data.dtype))
    _core.softmax(
        memory_of(z.data, z.code), z.rows, z.classes, z.inner, z.code, _SOFTMAX, values, None, get_num_threads()
    )
    return np.expand_dims(values, z.axis) if keepdims else values[()]
