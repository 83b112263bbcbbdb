"""The loss and its gradient."""

from __future__ import annotations

from typing import Literal, Never, Unpack, overload

import numpy.typing as npt

from ._arrays import Array
from ._call import loss, loss_and_gradient, prepare
from ._keywords import refuse_keywords, teaches_keywords
from ._options import GivenOptions, Reduction, loss_options
from ._targets import TopKTargets


class _Given(GivenOptions, total=False):
    axis: int
    class_weight: npt.ArrayLike | None
    sample_weight: npt.ArrayLike | None
    num_threads: int | None


@overload
def cross_entropy(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_Given],
) -> float: ...
@overload
def cross_entropy(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    reduction: Literal["none"],
    **options: Unpack[_Given],
) -> Array: ...
@teaches_keywords()
def cross_entropy(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    **unknown: Never,
) -> float | Array:
    r"""Compute the softmax cross-entropy between logits and targets, in nats.

    Parameters
    ----------
    logits : array_like of float16, bfloat16 (of ml_dtypes, or over DLPack), float32 or float64, shape (..., C, ...)
        Scores before the softmax, the C classes on `axis`. Lists and integers are taken as float64. ``-inf`` is a
        class with probability zero.
    targets : array_like
        Either class indices, integers in [0, C), of the logits' shape without the class axis; or of the logits' shape
        probabilities, which need not sum to one, or one-hot rows of integers or booleans; or `TopKTargets`.
    axis : int
        The class axis of the logits.
    class_weight : array_like of shape (C,), optional
        A weight for each class: 0, or of a size in [1e-100, 1e100]. For class indices the mean divides by the weights
        of the targets.
    sample_weight : array_like of the logits' shape without the class axis, optional
        A weight for each row: 0, or of a size in [1e-100, 1e100]. A row of weight 0 does not count, whatever it holds.
        Weights may be negative, as advantages of a policy are, but not for a mean that divides by them.
    ignore_index : int or None
        Rows with this class index do not count. It may be a class. None: no row is ignored.
    label_smoothing : float in [0, 1]
        The part of each target that is spread evenly over all classes.
    z_loss : float
        Factor of the squared log-sum-exp that is added to each row's loss, at least 0. Weights multiply it as they do
        the rest of the loss: the sample weight, and for class indices the class weight of the target. (Other libraries
        leave weights out of it.)
    entropy_bonus : float
        Factor of the entropy of the prediction, which is subtracted from each row's loss: a penalty on confidence [3]_.
        Weights multiply it as they do the z-loss. (For policy gradients, whose weights are advantages of both signs,
        see `log_prob_and_entropy_vjp`.)
    focal_gamma : float
        The cross-entropy of each row is multiplied by :math:`(1 - p_t)^\gamma`, of its target's probability: the focal
        loss [4]_. At least 0; for class indices without label smoothing.
    softcap : float, optional
        Logits z become softcap * tanh(z / softcap) first; in [1e-100, 1e100].
    temperature : float
        (Capped) logits are divided by it; in [1e-100, 1e100].
    reduction : {'mean', 'sum', 'none'}
        'mean' divides the sum by the total weight of the rows that count: of their sample weights, for class indices
        times the class weights of their targets. Where that is zero the loss is 0.
    num_threads : int, optional
        At most so many threads, see `set_num_threads`. The result does not depend on it.

    Returns
    -------
    float or ndarray
        For 'mean' and 'sum' a float. For 'none' one loss a row, float64 for float64 logits, else float32; for
        logits of shape (C,) a NumPy scalar.

    Raises
    ------
    IndexError
        A class index is neither in [0, C) nor `ignore_index`.
    TypeError
        Logits, targets or weights of a dtype that has no meaning here (boolean logits, floating-point class indices).
    ValueError
        A shape or an option is out of range; the message tells what was expected. Integer or boolean targets that are
        no one-hot rows.
    MemoryError
        There is not enough memory for scratch: at most a row for each thread, or some MiB.

    See Also
    --------
    binary_cross_entropy : for one logit that tells two classes apart, and for labels that exclude no other.
    looks_like_probabilities : whether logits are a softmax already. The logits of probabilities p are ``np.log(p)``.
    cross_entropy_with_grad : the gradient too, for little more than the loss.
    crossentropy.reference : the definition in NumPy.

    Notes
    -----
    For a row with logits :math:`z` and target distribution :math:`q` the loss is
    :math:`-\sum_c q_c \log \sigma(z)_c`, :math:`\sigma` the softmax [1]_. It is computed as
    :math:`\sum_c q_c (m - z_c) + \log(1 + r)`, with :math:`m` the largest logit and :math:`r` the sum of
    :math:`\exp(z_c - m)` over every class but one that attains it [2]_, and so keeps its digits where the model is
    confident. Within 4 ULP of float64 for float64 logits, else of float32; sums run in float64 in a fixed order. Where
    coefficients have both signs these are ULP of the sum of the sizes of the terms, from which the loss may cancel.
    Probabilities below the smallest normal number (a gap of 87 in float32, 708 in float64) count as zero.

    A NaN, a ``+inf``, or nothing but ``-inf`` in a row makes that row's loss NaN; a target on a ``-inf`` makes it inf,
    or ``-inf`` where it is negative.

    References
    ----------
    .. [1] I. Goodfellow, Y. Bengio, A. Courville, *Deep Learning*, MIT Press, 2016, section 6.2.2.
    .. [2] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
       IMA Journal of Numerical Analysis 41(4), 2021.
    .. [3] G. Pereyra, G. Tucker, J. Chorowski, Ł. Kaiser, G. Hinton, "Regularizing neural networks by penalizing
       confident output distributions", 2017.
    .. [4] T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollár, "Focal loss for dense object detection", ICCV 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> A = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]])
    >>> Y = np.array([[0, 1, 0], [1, 0, 0]])
    >>> round(ce.cross_entropy(A, Y), 12)
    2.018508394742
    >>> ce.cross_entropy(A, [1, 0], reduction="none").round(6)
    array([1.41703 , 2.619987])
    """
    if unknown:
        refuse_keywords(cross_entropy, unknown)
    options = loss_options(
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        entropy_bonus=entropy_bonus,
        focal_gamma=focal_gamma,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    call = prepare(
        options,
        logits,
        targets,
        axis=axis,
        class_weight=class_weight,
        sample_weight=sample_weight,
        num_threads=num_threads,
    )
    return loss(call)


class _GivenWithGrad(_Given, total=False):
    grad_output: npt.ArrayLike
    out: Array | None


@overload
def cross_entropy_with_grad(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_GivenWithGrad],
) -> tuple[float, Array]: ...
@overload
def cross_entropy_with_grad(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    reduction: Literal["none"],
    **options: Unpack[_GivenWithGrad],
) -> tuple[Array, Array]: ...
@teaches_keywords()
def cross_entropy_with_grad(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike | TopKTargets,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    grad_output: npt.ArrayLike = 1.0,
    out: Array | None = None,
    **unknown: Never,
) -> tuple[float | Array, Array]:
    r"""Compute the softmax cross-entropy, in nats, and its gradient with respect to the logits.

    Parameters
    ----------
    logits, targets, axis, class_weight, sample_weight
        As for `cross_entropy`.
    ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature, reduction, num_threads
        As for `cross_entropy`.
    grad_output : float, or for reduction 'none' also an array of the logits' shape without the class axis
        The upstream gradient: the gradient is multiplied by it before it is rounded to the logits' dtype. Rows that
        count get NaN where it, or its product with their weights, is not a finite number of float64.
    out : ndarray, optional
        Where to write the gradient: of the logits' shape and native dtype, writable, with a place for each element;
        `logits` itself, or memory that no input shares. A buffer used again spares the cost of fresh memory pages.

    Returns
    -------
    loss : float or ndarray
        As `cross_entropy` returns it, the same bits.
    dlogits : ndarray
        The gradient, of the logits' shape and dtype; `out` if that was given. Rows that do not count are zero.

    Raises
    ------
    IndexError, TypeError, ValueError, MemoryError
        As for `cross_entropy`; also for an `out` that does not fit. Nothing has been written then.

    Notes
    -----
    For a row with target distribution :math:`q` and the mean over :math:`N` rows the gradient is
    :math:`(\sigma(z) \sum_c q_c - q) / N`. Within 4 ULP of the larger of the two terms (where coefficients have both
    signs, with the sum of their sizes in it), and at a confident maximum, where none is negative, within 4 ULP of
    itself: there the difference is :math:`-r / (1 + r)`, not :math:`p - 1`. In half precision it is rounded once,
    after it has been multiplied by `grad_output`, which so serves as a loss scale.

    Examples
    --------
    >>> import crossentropy as ce
    >>> loss, dlogits = ce.cross_entropy_with_grad([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], [1, 0])
    >>> dlogits.round(6)
    array([[ 0.329501, -0.378784,  0.049283],
           [-0.463598,  0.243379,  0.220219]])
    """
    if unknown:
        refuse_keywords(cross_entropy_with_grad, unknown)
    options = loss_options(
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        entropy_bonus=entropy_bonus,
        focal_gamma=focal_gamma,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
    )
    call = prepare(
        options,
        logits,
        targets,
        axis=axis,
        class_weight=class_weight,
        sample_weight=sample_weight,
        num_threads=num_threads,
    )
    return loss_and_gradient(call, grad_output, out)
