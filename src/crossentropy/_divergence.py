"""The Kullback-Leibler divergence between the predictions of two models, from their logits, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack, overload

import numpy.typing as npt

from ._arrays import Array
from ._divergence_call import (
    Direction,
    DivergenceGradients,
    GivenDivergence,
    GivenWithGrad,
    Wrt,
    divergence,
    divergence_and_gradients,
    divergence_options,
    prepare_divergence,
    refuses_targets,
)
from ._options import Reduction


class _GivenKl(GivenDivergence, total=False):
    direction: Direction


@overload
def kl_divergence(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_GivenKl],
) -> float: ...
@overload
def kl_divergence(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    reduction: Literal["none"],
    **options: Unpack[_GivenKl],
) -> Array: ...
@refuses_targets
def kl_divergence(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    axis: int = -1,
    direction: Direction = "forward",
    sample_weight: npt.ArrayLike | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
) -> float | Array:
    r"""Compute the Kullback-Leibler divergence between the softmax of two models' logits, in nats.

    Parameters
    ----------
    logits : array_like of float16, bfloat16 (of ml_dtypes, or over DLPack), float32 or float64, shape (..., C, ...)
        Scores of the model, the student :math:`p`, before the softmax; the C classes on `axis`. Lists and integers are
        taken as float64. ``-inf`` is a class with probability zero.
    teacher_logits : array_like of such a dtype, of the shape of `logits`
        Scores of the model that it is compared with, the teacher :math:`q`. Of probabilities q, ``np.log(q)`` are such;
        probabilities themselves would be taken for logits.
    axis : int
        The class axis of both.
    direction : {'forward', 'reverse'}
        'forward' is KL(teacher || student), :math:`\sum_c q_c \log (q_c / p_c)`: a student that learns by it covers all
        that the teacher does. 'reverse' is KL(student || teacher): the student seeks the teacher's likeliest classes.
    sample_weight : array_like of the logits' shape without the class axis, optional
        A weight for each row: 0, or of a size in [1e-100, 1e100]. A row of weight 0 does not count, whatever it holds:
        padding is left out so. Weights may be negative, but not for a mean that divides by them.
    softcap, teacher_softcap : float, optional
        Logits z of the student, of the teacher, become softcap * tanh(z / softcap) first; in [1e-100, 1e100].
    temperature : float
        (Capped) logits of both are divided by it; in [1e-100, 1e100]. The divergence is not multiplied by its square,
        as some do to keep the size of gradients.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides the sum by the number of rows, or by the sum of their weights: not by the number of elements.
        Where that is zero the divergence is 0.
    num_threads : int, optional
        At most so many threads, see `set_num_threads`. The result does not depend on it.

    Returns
    -------
    float or ndarray
        For 'mean' and 'sum' a float. For 'none' one divergence a row, float64 where one of the logits is, else float32;
        for logits of shape (C,) a NumPy scalar.

    Raises
    ------
    TypeError
        Logits or weights of a dtype that has no meaning here; or an option that belongs to targets, as `class_weight`.
    ValueError
        A shape or an option is out of range; the message tells what was expected.
    MemoryError
        There is not enough memory for scratch: at most five rows for each thread.

    See Also
    --------
    kl_divergence_with_grad : the gradients too.
    jensen_shannon : symmetric for ``beta=0.5``, and finite.
    linear_kl_divergence : from hidden states, without the logits in memory.
    TopKTargets : for `cross_entropy`, where a teacher gives its likeliest classes only.

    Notes
    -----
    Never negative, and exactly 0 for equal logits, also where they differ by a constant that is exactly the same for
    all classes. With :math:`\delta_c = \log (p_c / q_c)` it is computed as the sum of
    :math:`q_c (e^{\delta_c} - 1 - \delta_c)`, whose terms are all positive [1]_; the differences of logits carry their
    rounding errors, and what the rounding of log-sum-exp leaves in :math:`\sum_c q_c (e^{\delta_c} - 1)`, which should
    be 0, is taken out again. So models that hardly differ keep their digits: within 1e-6 of itself for float32 logits,
    1e-13 for float64, where :math:`\sum_c q_c (\log q_c - \log p_c)` returns noise of either sign.

    A class that is impossible (``-inf``) in both models adds 0. One that is possible in the first model of KL(first ||
    second) only makes it inf. A NaN, a ``+inf``, or nothing but ``-inf`` in a row of either makes that row NaN.
    Probabilities below the smallest normal number (a gap of 87 in float32, 708 in float64) count as zero.

    References
    ----------
    .. [1] J. Schulman, "Approximating KL divergence", 2020: the positive form, as an estimator.

    Examples
    --------
    >>> import crossentropy as ce
    >>> round(ce.kl_divergence([[2.0, 1.0, 0.1]], [[2.5, 0.5, 0.1]]), 12)
    0.065850952568
    >>> ce.kl_divergence([[2.0, 1.0, 0.1]], [[2.5, 0.5, 0.1]], direction="reverse", reduction="none").round(6)
    array([0.078486])
    """
    options = divergence_options(
        direction=direction,
        softcap=softcap,
        teacher_softcap=teacher_softcap,
        temperature=temperature,
        reduction=reduction,
    )
    call = prepare_divergence(
        options, logits, teacher_logits, axis=axis, sample_weight=sample_weight, num_threads=num_threads
    )
    return divergence(call)


class _GivenKlWithGrad(_GivenKl, GivenWithGrad, total=False):
    pass


@overload
def kl_divergence_with_grad(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[_GivenKlWithGrad],
) -> tuple[float, DivergenceGradients]: ...
@overload
def kl_divergence_with_grad(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    reduction: Literal["none"],
    **options: Unpack[_GivenKlWithGrad],
) -> tuple[Array, DivergenceGradients]: ...
@refuses_targets
def kl_divergence_with_grad(
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    axis: int = -1,
    direction: Direction = "forward",
    sample_weight: npt.ArrayLike | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    num_threads: int | None = None,
    wrt: Sequence[Wrt] = ("logits",),
    grad_output: npt.ArrayLike = 1.0,
    out: DivergenceGradients | None = None,
) -> tuple[float | Array, DivergenceGradients]:
    r"""Compute the divergence of `kl_divergence`, in nats, and its gradients with respect to the logits.

    Parameters
    ----------
    logits, teacher_logits, axis, direction, sample_weight, softcap, teacher_softcap, temperature, reduction
        As for `kl_divergence`.
    num_threads : int, optional
        As for `kl_divergence`.
    wrt : sequence of 'logits', 'teacher_logits'
        The gradients to compute.
    grad_output : float, or for reduction 'none' also an array of the logits' shape without the class axis
        The upstream gradient: gradients are multiplied by it before they are rounded to their dtype. Rows that count
        get NaN where it, or its product with their weights, is not a finite number of float64.
    out : DivergenceGradients, optional
        Where to write gradients: for each, an array of the shape and native dtype of the logits that it belongs to,
        writable, with a place for each element; these logits themselves, or memory that nothing else shares; or None
        for a new one.

    Returns
    -------
    loss : float or ndarray
        As `kl_divergence` returns it, the same bits.
    gradients : DivergenceGradients
        Each of the shape and dtype of its logits; None where not asked for. Rows that do not count are zero.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As for `kl_divergence`; also for an `out` that does not fit. Nothing has been written then.

    Notes
    -----
    For a row of the forward divergence the gradients are :math:`p - q` for the student and
    :math:`q_c (\log (q_c / p_c) - \mathrm{KL})` for the teacher; of the reverse one, the same with the models
    exchanged. The difference is computed as :math:`q_c (e^{\delta_c} - 1)`: within 1e-6 (float64 logits: 1e-14) of
    :math:`\max(p_c, q_c) \max(|\delta_c|, \sqrt{2\,\mathrm{KL}})`, in float32 for divergences up to about 100.

    Where the divergence is inf, the gradient of the first model's logits is ``inf`` at the classes that make it so and
    ``-inf`` at the others that are possible; that of the second's is finite.

    Examples
    --------
    >>> import crossentropy as ce
    >>> loss, gradients = ce.kl_divergence_with_grad([[2.0, 1.0, 0.1]], [[2.5, 0.5, 0.1]])
    >>> gradients.logits.round(6)
    array([[-0.156624,  0.13205 ,  0.024574]])
    >>> gradients.teacher_logits is None
    True
    """
    options = divergence_options(
        direction=direction,
        softcap=softcap,
        teacher_softcap=teacher_softcap,
        temperature=temperature,
        reduction=reduction,
    )
    call = prepare_divergence(
        options, logits, teacher_logits, axis=axis, sample_weight=sample_weight, num_threads=num_threads
    )
    return divergence_and_gradients(call, wrt, grad_output, out)
