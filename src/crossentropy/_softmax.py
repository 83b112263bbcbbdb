"""Softmax, log-softmax, log-sum-exp, and the softmax's derivatives.

The derivatives are computed in float64 and rounded once. None of them subtracts numbers that nearly cancel. For the
likeliest class j, 1 - p_j is the sum of the other probabilities, and the mean p . x is x_j + p . (x - x_j).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, as_array, as_logits, empty, rounds_to_nearest, row_type
from ._config import get_num_threads
from ._keywords import teaches_keywords
from ._options import LossOptions

# Codes of the core's Output.
_SOFTMAX, _LOG_SOFTMAX = 1, 2


def _of_each_logit(logits: npt.ArrayLike, axis: int, output: int) -> Array:
    """The softmax or its logarithm, as `output` says."""
    z = as_logits(logits, axis)
    matrix = empty(z.data.shape, z.data.dtype)
    _core.softmax(logits=z, output=output, out=matrix, num_threads=get_num_threads())
    if not z.moved:
        return matrix
    result = empty(z.shape, matrix.dtype)
    np.copyto(result, np.moveaxis(matrix, -1, z.axis))
    return result


@teaches_keywords()
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
        Probabilities, of the logits' shape and dtype. A row that has a NaN or a ``+inf``, or only ``-inf``, becomes
        NaN.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape or axis that has no meaning here.

    Notes
    -----
    The error is at most 4 ULP where the probability is a normal number. A smaller one may become 0.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.softmax([2.0, 1.0, 0.1]).round(3)
    array([0.659, 0.242, 0.099])
    """
    return _of_each_logit(logits, axis, _SOFTMAX)


@teaches_keywords()
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
        Log-probabilities, of the logits' shape and dtype. A row that has a NaN or a ``+inf``, or only ``-inf``,
        becomes NaN.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape or axis that has no meaning here.

    Notes
    -----
    The error is at most 4 ULP. This holds for the likeliest class of a confident row too, where the result is close to
    minus the sum of the other probabilities.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.log_softmax([2.0, 1.0, 0.1]).round(3)
    array([-0.417, -1.417, -2.317])
    >>> ce.log_softmax([50.0, 0.0])
    array([-1.92874985e-22, -5.00000000e+01])
    """
    return _of_each_logit(logits, axis, _LOG_SOFTMAX)


@teaches_keywords()
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
        Of the logits' shape without `axis`, a NumPy scalar for shape (C,); float64 for float64 logits, else
        float32. A row of only ``-inf`` gives ``-inf``, one that has a ``+inf`` gives ``+inf``, one that has a NaN gives
        NaN.

    Raises
    ------
    TypeError, ValueError
        A dtype, shape or axis that has no meaning here.

    Notes
    -----
    Computed as the largest logit plus log1p of a sum: of the exponentials of the other logits minus the largest. The
    error is at most 4 ULP of the larger of the two terms.

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
    _core.softmax(logits=z, output=_SOFTMAX, logsumexp=values, num_threads=get_num_threads())
    return np.expand_dims(values, z.axis) if keepdims else values[()]


@teaches_keywords()
@rounds_to_nearest
def softmax_jacobian(logits: npt.ArrayLike) -> Array:
    r"""Compute the Jacobian of the softmax, :math:`J_{ij} = a_i (\delta_{ij} - a_j)`.

    Parameters
    ----------
    logits : array_like, shape (..., C)
        As for `softmax`, the classes on the last axis.

    Returns
    -------
    ndarray of shape (..., C, C)
        Of the logits' dtype; symmetric. It has C² numbers a row: `softmax_vjp` and `softmax_jvp` multiply by it
        without building it.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.softmax_jacobian([2.0, 1.0, 0.1]).round(4)
    array([[ 0.2247, -0.1598, -0.065 ],
           [-0.1598,  0.1837, -0.0239],
           [-0.065 , -0.0239,  0.0889]])
    """
    given = as_logits(logits, -1)
    p, rest = probabilities(given.data.astype(np.float64))
    jacobian: Array = -p[..., :, None] * p[..., None, :]
    diagonal = np.arange(given.classes)
    jacobian[..., diagonal, diagonal] = p * rest
    return jacobian.astype(given.data.dtype)


@teaches_keywords()
@rounds_to_nearest
def softmax_vjp(logits: npt.ArrayLike, v: npt.ArrayLike, *, axis: int = -1) -> Array:
    r"""Multiply a vector by the Jacobian of the softmax: the gradient of :math:`v \cdot \sigma(z)`.

    Parameters
    ----------
    logits : array_like, shape (..., C, ...)
        As for `softmax`.
    v : array_like of the logits' shape
        The upstream gradient.
    axis : int
        The class axis.

    Returns
    -------
    ndarray
        Of the logits' shape and dtype. The time is linear in their number.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.softmax_vjp([2.0, 1.0, 0.1], [0.0, 1.0, 0.0]).round(4)
    array([-0.1598,  0.1837, -0.0239])
    """
    given = as_logits(logits, axis)
    p, _ = probabilities(np.moveaxis(given.given, axis, -1).astype(np.float64))
    around_mean, _ = centred(p, np.moveaxis(as_vector(v, given.given), axis, -1))
    return np.ascontiguousarray(np.moveaxis(p * around_mean, -1, axis), given.data.dtype)


@teaches_keywords()
def softmax_jvp(logits: npt.ArrayLike, v: npt.ArrayLike, *, axis: int = -1) -> Array:
    """Multiply the Jacobian of the softmax by a vector: how the softmax changes when the logits change by `v`.

    Parameters
    ----------
    logits, v, axis
        As for `softmax_vjp`; `v` is the change of the logits.

    Returns
    -------
    ndarray
        Of the logits' shape and dtype. The Jacobian is symmetric: this is `softmax_vjp`.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.softmax_jvp([2.0, 1.0, 0.1], [0.0, 1.0, 0.0]).round(4)
    array([-0.1598,  0.1837, -0.0239])
    """
    return softmax_vjp(logits, v, axis=axis)


def scaled(logits: Array, options: LossOptions) -> tuple[Array, Array, Array]:
    """Apply soft cap and temperature: u, and its first and second derivatives with respect to the logits."""
    k, tau = options.softcap, options.temperature
    if k == math.inf:
        return logits / tau, np.full(logits.shape, 1 / tau), np.zeros(logits.shape)
    with np.errstate(all="ignore"):
        tanh = np.tanh(logits / k)
        slope = 1 / np.cosh(logits / k) ** 2 / tau
        return np.where(np.isinf(logits), logits, k * tanh) / tau, slope, -2 / k * tanh * slope


def probabilities(u: Array) -> tuple[Array, Array]:
    """The softmax over the last axis, and one minus it without cancellation."""
    p = softmax(u)
    top = np.arange(u.shape[-1]) == u.argmax(-1)[..., None]
    return p, np.where(top, np.where(top, 0.0, p).sum(-1, keepdims=True), 1 - p)


def centred(p: Array, x: Array) -> tuple[Array, Array]:
    """Return x minus its mean under the probabilities p, and that mean."""
    likeliest = p.argmax(-1)[..., None]
    x_likeliest = np.take_along_axis(x, likeliest, -1)
    difference = x - x_likeliest
    mean = np.where(p == 0, 0.0, p * difference).sum(-1, keepdims=True)
    return difference - mean, x_likeliest + mean


def as_vector(v: npt.ArrayLike, logits: Array) -> Array:
    """Check a vector that multiplies a Jacobian or Hessian, and return it in float64."""
    array = as_array("v", v)
    if array.shape != logits.shape:
        raise ValueError(f"v: expected the logits' shape {logits.shape}, got {array.shape}")
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise TypeError(f"v: expected real numbers, got {array.dtype}")
    return array.astype(np.float64)
