"""The binary loss and its gradient: one logit and one target an element."""

from __future__ import annotations

from typing import Literal, Never, TypedDict, Unpack, overload

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_array, as_grad_output, rounds_to_nearest
from ._binary_call import binary_loss, binary_loss_and_gradient, binary_options, prepare_binary
from ._keywords import refuse_keywords, teaches_keywords
from ._modules import times
from ._options import Reduction

_REASONS = {
    "class_weight": "pos_weight is the weight of class 1",
    "weight": "sample_weight weighs elements, pos_weight class 1",
    "ignore_index": "elements of sample_weight 0 do not count",
    "axis": "each logit has a target of its own",
    "alpha": "pos_weight is the weight of class 1; alpha and 1 - alpha are those of sample_weight",
}


class _Given(TypedDict, total=False):
    pos_weight: npt.ArrayLike | None
    label_smoothing: float
    focal_gamma: float
    sample_weight: npt.ArrayLike | None
    num_threads: int | None


@overload
def binary_cross_entropy(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_Given],
) -> float: ...
@overload
def binary_cross_entropy(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    reduction: Literal["none"],
    **options: Unpack[_Given],
) -> Array: ...
@teaches_keywords(**_REASONS)
def binary_cross_entropy(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    pos_weight: npt.ArrayLike | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    sample_weight: npt.ArrayLike | None = None,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    **unknown: Never,
) -> float | Array:
    r"""Compute the cross-entropy of two classes given as one logit (sigmoid, logistic loss), in nats.

    For labels that exclude no other: several of them on an axis, or one of two classes.

    Parameters
    ----------
    logits : array_like of float16, bfloat16 (of ml_dtypes, or over DLPack), float32 or float64, any shape
        The log-odds of class 1: scores before the sigmoid. Lists and integers are taken as float64.
    targets : array_like of the logits' shape, of a real or boolean dtype
        1 or True for class 1, 0 or False for class 0; or the probability of class 1.
    pos_weight : array_like that broadcasts to the logits' shape, optional
        A factor of the terms of class 1: a number, one for each class on the last axis, or others; 0 or in
        [1e-100, 1e100]. Above 1 it favours recall, below 1 precision.
    label_smoothing : float in [0, 1]
        Targets y become (1 - label_smoothing) y + label_smoothing / 2.
    focal_gamma : float
        At least 0. Each loss is multiplied by (1 - p)^focal_gamma, p the probability of the (smoothed) target, which
        for a target y between 0 and 1 is p_1 y + (1 - p_1)(1 - y); targets outside [0, 1] give NaN then.
    sample_weight : array_like that broadcasts to the logits' shape, optional
        A weight for each element: 0, or of a size in [1e-100, 1e100]. An element of weight 0 does not count, whatever
        it holds. Weights may be negative, but not for a mean, which divides by them.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides the sum by the sum of the sample weights of all elements, without weights by their number. Where
        that is zero the loss is 0.
    num_threads : int, optional
        At most so many threads, see `set_num_threads`. The result does not depend on it.

    Returns
    -------
    float or ndarray
        For 'mean' and 'sum' a float. For 'none' one loss an element, float64 for float64 logits, else float32; for
        logits of shape () a NumPy scalar.

    Raises
    ------
    TypeError
        Logits, targets or weights of a dtype that has no meaning here.
    ValueError
        A shape, a weight or an option is out of range; the message tells what was expected.

    See Also
    --------
    binary_cross_entropy_with_grad : the gradient too, for little more than the loss.
    cross_entropy : for classes of which exactly one is right.
    crossentropy.reference : the definition in NumPy.

    Notes
    -----
    For a logit :math:`z` with target :math:`y` the loss is :math:`-w y \log \sigma(z) - (1 - y) \log \sigma(-z)`,
    :math:`\sigma` the sigmoid and :math:`w` the weight of class 1; :math:`\log \sigma(\mp z)` is
    :math:`\mp z - \log(1 + e^{-|z|})` on the side where that is far from 0, and :math:`-\log(1 + e^{-|z|})` on the
    other [1]_. It so keeps its digits on both sides: within 4 ULP of float64 for float64 logits, else of float32, where
    targets lie in [0, 1] (of the sum of the sizes of the terms where not); sums run in float64 in a fixed order. The
    focal factor [2]_ is computed in float64, within :math:`4 + 3 \gamma |\log(1 - p)|` ULP of it. Sigmoids below
    the smallest normal number (a logit of -87 in float32, -708 in float64) count as zero.

    An infinite logit gives the limits, a loss of 0 or inf and a finite gradient. NaN gives NaN in its element alone.

    References
    ----------
    .. [1] M. Mächler, "Accurately computing :math:`\log(1 - \exp(-|a|))`", vignette of the R package Rmpfr, 2012.
    .. [2] T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017.

    Examples
    --------
    >>> import crossentropy as ce
    >>> round(ce.binary_cross_entropy([2.0, -1.0, 0.5], [1, 0, 1]), 12)
    0.304755560914
    >>> print(ce.binary_cross_entropy(-40.0, 0))  # log(1 + exp(-40)), where 1 + exp(-40) is 1
    4.248354255291589e-18
    """
    if unknown:
        refuse_keywords(binary_cross_entropy, unknown)
    options = binary_options(label_smoothing, focal_gamma, reduction)
    return binary_loss(
        prepare_binary(
            options, logits, targets, pos_weight=pos_weight, sample_weight=sample_weight, num_threads=num_threads
        )
    )


class _GivenWithGrad(_Given, total=False):
    grad_output: npt.ArrayLike
    out: Array | None


@overload
def binary_cross_entropy_with_grad(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_GivenWithGrad],
) -> tuple[float, Array]: ...
@overload
def binary_cross_entropy_with_grad(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    reduction: Literal["none"],
    **options: Unpack[_GivenWithGrad],
) -> tuple[Array, Array]: ...
@teaches_keywords(**_REASONS)
def binary_cross_entropy_with_grad(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    pos_weight: npt.ArrayLike | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    sample_weight: npt.ArrayLike | None = None,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    grad_output: npt.ArrayLike = 1.0,
    out: Array | None = None,
    **unknown: Never,
) -> tuple[float | Array, Array]:
    r"""Compute the binary cross-entropy, in nats, and its gradient with respect to the logits.

    Parameters
    ----------
    logits, targets, pos_weight, label_smoothing, focal_gamma, sample_weight, reduction, num_threads
        As for `binary_cross_entropy`.
    grad_output : float, or for reduction 'none' also an array of the logits' shape
        The upstream gradient: the gradient is multiplied by it before it is rounded to the logits' dtype. Elements that
        count get NaN where it, or its product with their weights, is not a finite number of float64.
    out : ndarray, optional
        Where to write the gradient: of the logits' shape and native dtype, writable, with a place for each element;
        `logits` itself, or memory that no input shares. A buffer used again spares the cost of fresh memory pages.

    Returns
    -------
    loss : float or ndarray
        As `binary_cross_entropy` returns it, the same bits.
    dlogits : ndarray
        The gradient, of the logits' shape and dtype; `out` if that was given. Elements that do not count are zero.

    Raises
    ------
    TypeError, ValueError
        As for `binary_cross_entropy`; also for an `out` that does not fit. Nothing has been written then.

    Notes
    -----
    For a logit with target 0 or 1 the gradient is :math:`\sigma(z)` or :math:`-w \sigma(-z)`, over the number of
    elements for the mean: within 4 ULP of itself, on both sides. For targets in between it is within 4 ULP of the
    larger of these two, weighted by :math:`1 - y` and :math:`y`. In half precision it is rounded once, after it has
    been multiplied by `grad_output`, which so serves as a loss scale.

    Examples
    --------
    >>> import crossentropy as ce
    >>> loss, dlogits = ce.binary_cross_entropy_with_grad([2.0, -1.0, 40.0], [1, 0, 1])
    >>> print([f"{g:.4g}" for g in dlogits])  # the last is -sigmoid(-40) / 3
    ['-0.03973', '0.08965', '-1.416e-18']
    """
    if unknown:
        refuse_keywords(binary_cross_entropy_with_grad, unknown)
    options = binary_options(label_smoothing, focal_gamma, reduction)
    call = prepare_binary(
        options, logits, targets, pos_weight=pos_weight, sample_weight=sample_weight, num_threads=num_threads
    )
    return binary_loss_and_gradient(call, grad_output, out)


class BinaryCrossEntropyLoss:
    """Binary cross-entropy as an object that remembers its last call.

    Parameters
    ----------
    pos_weight, label_smoothing, focal_gamma, reduction, num_threads
        As for `binary_cross_entropy`.

    Notes
    -----
    `forward` computes loss and gradient together, and `backward` hands the gradient out: logits and targets may change
    in between. In half precision, where the gradient is computed anew, `forward` keeps copies of both. After a
    `forward` that failed, `backward` raises.

    Examples
    --------
    >>> import crossentropy as ce
    >>> criterion = ce.BinaryCrossEntropyLoss(pos_weight=2.0)
    >>> loss = criterion([2.0, -1.0, 0.5], [1, 0, 1])
    >>> criterion.backward().round(4)
    array([-0.0795,  0.0896, -0.2517])
    """

    @teaches_keywords(**_REASONS | {"sample_weight": "it is data, which forward takes"})
    def __init__(
        self,
        *,
        pos_weight: npt.ArrayLike | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
        reduction: Reduction = "mean",
        num_threads: int | None = None,
    ) -> None:
        self._options = binary_options(label_smoothing, focal_gamma, reduction)
        self._pos_weight = pos_weight
        self._num_threads = num_threads
        # The last gradient; in half precision what it is computed from.
        self._last: Array | tuple[Array, Array, npt.ArrayLike | None] | None = None

    @teaches_keywords()
    def forward(
        self, logits: npt.ArrayLike, targets: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> float | Array:
        """Return the loss of logits and targets, as `binary_cross_entropy` does."""
        self._last = None  # if this forward fails, backward must not use an earlier one
        logits, targets = as_array("logits", logits), as_array("targets", targets)
        if logits.dtype.itemsize == 2:
            loss, _ = self._loss_and_gradient(logits, targets, sample_weight)
            weight = None if sample_weight is None else as_array("sample_weight", sample_weight).copy()
            self._last = logits.copy(), targets.copy(), weight
        else:
            loss, self._last = self._loss_and_gradient(logits, targets, sample_weight)
        return loss

    __call__ = forward

    @rounds_to_nearest
    def backward(self, grad_output: npt.ArrayLike = 1.0) -> Array:
        """Return the gradient of the last loss with respect to its logits, times `grad_output`.

        Parameters
        ----------
        grad_output : float, or for reduction 'none' also an array of the logits' shape

        Returns
        -------
        ndarray
            Of the logits' shape and dtype, a new one for each call.

        Raises
        ------
        RuntimeError
            There was no forward yet, or it failed.

        Notes
        -----
        In float32 and float64 the gradient is multiplied as it was rounded: what was too small or too large for its
        dtype stays 0 or infinite. `binary_cross_entropy_with_grad` with `grad_output` rounds once.
        """
        if self._last is None:
            raise RuntimeError("backward: call forward(logits, targets) first")
        if isinstance(self._last, tuple):  # half precision is multiplied before it is rounded: after it, it may be 0
            return self._loss_and_gradient(*self._last, grad_output)[1]
        scale, scales = as_grad_output(grad_output, self._last.shape, self._options.reduction == "none")
        factor = np.asarray(scale) if scales is None else scales
        return times(self._last, np.where(np.isfinite(factor), factor, np.nan))

    def _loss_and_gradient(
        self,
        logits: Array,
        targets: Array,
        sample_weight: npt.ArrayLike | None,
        grad_output: npt.ArrayLike = 1.0,
    ) -> tuple[float | Array, Array]:
        call = prepare_binary(
            self._options,
            logits,
            targets,
            pos_weight=self._pos_weight,
            sample_weight=sample_weight,
            num_threads=self._num_threads,
        )
        return binary_loss_and_gradient(call, grad_output)
