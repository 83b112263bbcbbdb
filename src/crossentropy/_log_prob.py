"""Log-probabilities of chosen classes, with the entropy of the prediction and with their gradients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Shape, as_grad_output, as_logits
from ._call import finish_gradient, gradient_arrays
from ._log_prob_call import as_named, call_of, evaluate, teaches_log_prob
from ._options import loss_options


@teaches_log_prob
def log_prob(
    logits: npt.ArrayLike,
    indices: npt.ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    num_threads: int | None = None,
) -> Array:
    r"""Compute the log-probabilities, in nats, that logits give to chosen classes.

    Parameters
    ----------
    logits : array_like of float16, bfloat16, float32 or float64, shape (..., C, ...)
        As for `cross_entropy`.
    indices : array_like of integers in [0, C)
        One class of each row, of the logits' shape without the class axis; or K of each row, of the logits' shape with
        K in place of C.
    axis : int
        The class axis of the logits.
    ignore_index : int or None
        An index that stands for no class: its log-probability is 0 and has no gradient. A row of nothing but such
        indices does not count, whatever it holds.
    softcap, temperature, num_threads
        As for `cross_entropy`.

    Returns
    -------
    ndarray
        Of the shape of `indices`, for one index a NumPy scalar: float64 for float64 logits, else float32.

    Raises
    ------
    IndexError
        An index is neither in [0, C) nor `ignore_index`.
    TypeError, ValueError
        As for `cross_entropy`.

    See Also
    --------
    log_prob_and_entropy : the entropy too, in the same pass.
    linear_log_prob : from hidden states, without the logits in memory.

    Notes
    -----
    With :math:`m` the largest logit and :math:`r` the sum of :math:`\exp(z_c - m)` over every class but one that
    attains it, :math:`\log p_t = -((m - z_t) + \log(1 + r))`: within 4 ULP without a soft cap, also where the model is
    confident. A class on ``-inf`` has ``-inf``; a NaN, a ``+inf``, or nothing but ``-inf`` in a row makes it NaN.

    Examples
    --------
    >>> import crossentropy as ce
    >>> ce.log_prob([[2.0, 1.0, 0.1]], [0]).round(6)
    array([-0.41703])
    >>> ce.log_prob([[2.0, 1.0, 0.1]], [[0, 2]]).round(6)
    array([[-0.41703, -2.31703]])
    >>> ce.log_prob([50.0, 0.0], 0)
    np.float64(-1.9287498479639178e-22)
    """
    options = loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none")
    z = as_logits(logits, axis)
    named = as_named(indices, z, options.ignore_index)
    return named.as_given(evaluate(call_of(options, z, named, num_threads), named)[0])


@teaches_log_prob
def log_prob_with_grad(
    logits: npt.ArrayLike,
    indices: npt.ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    num_threads: int | None = None,
    grad_output: npt.ArrayLike = 1.0,
    out: Array | None = None,
) -> tuple[Array, Array]:
    r"""Compute log-probabilities, and the gradient of their sum times `grad_output` with respect to the logits.

    Parameters
    ----------
    logits, indices, axis, ignore_index, softcap, temperature, num_threads
        As for `log_prob`.
    grad_output : float, or array of the shape of `indices`
        The upstream gradient: for a policy gradient minus the advantages, over the number of tokens that count.
    out : ndarray, optional
        Where to write the gradient, as for `cross_entropy_with_grad`.

    Returns
    -------
    log_prob : ndarray
        As `log_prob` returns it.
    dlogits : ndarray
        :math:`\sum_k g_k (e_{t_k} - p)` for upstream gradients :math:`g`, of the logits' shape and dtype.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for `log_prob`; also for an `out` that does not fit.

    Examples
    --------
    >>> import crossentropy as ce
    >>> log_p, dlogits = ce.log_prob_with_grad([[2.0, 1.0, 0.1]], [0])
    >>> dlogits.round(4)
    array([[ 0.341 , -0.2424, -0.0986]])
    """
    options = loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none")
    z = as_logits(logits, axis)
    named = as_named(indices, z, options.ignore_index)
    call = call_of(options, z, named, num_threads)
    upstream = named.upstream("grad_output", grad_output)
    dlogits, matrix = gradient_arrays(call, out, (grad_output,))
    found = evaluate(call, named, dlog_prob=upstream, matrix=matrix)[0]
    finish_gradient(z, dlogits, matrix)
    return named.as_given(found), dlogits


@teaches_log_prob
def log_prob_and_entropy(
    logits: npt.ArrayLike,
    indices: npt.ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    num_threads: int | None = None,
) -> tuple[Array, Array]:
    """Compute the log-probabilities of chosen classes and each row's entropy, in nats, in one pass.

    Parameters
    ----------
    logits, indices, axis, ignore_index, softcap, temperature, num_threads
        As for `log_prob`.

    Returns
    -------
    log_prob : ndarray
        As `log_prob` returns it.
    entropy : ndarray
        One a row, as `entropy` returns it; 0 for rows that do not count.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for `log_prob`.

    Examples
    --------
    >>> import crossentropy as ce
    >>> log_p, entropy = ce.log_prob_and_entropy([[2.0, 1.0, 0.1]], [0])
    >>> log_p.round(4), entropy.round(4)
    (array([-0.417]), array([0.8467]))
    """
    options = loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none")
    z = as_logits(logits, axis)
    named = as_named(indices, z, options.ignore_index)
    found, entropies = evaluate(call_of(options, z, named, num_threads), named, entropy=True)
    assert entropies is not None
    return named.as_given(found), entropies.reshape(z.row_shape)[()]


@teaches_log_prob
def log_prob_and_entropy_vjp(
    logits: npt.ArrayLike,
    indices: npt.ArrayLike,
    dlog_prob: npt.ArrayLike,
    dentropy: npt.ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    num_threads: int | None = None,
    out: Array | None = None,
) -> tuple[tuple[Array, Array], Array]:
    r"""Compute log-probabilities and entropies, and the gradient of the logits for their upstream gradients.

    Parameters
    ----------
    logits, indices, axis, ignore_index, softcap, temperature, num_threads
        As for `log_prob`.
    dlog_prob : float, or array of the shape of `indices`
        The upstream gradient :math:`g` of each log-probability.
    dentropy : float, or array of one number a row
        The upstream gradient :math:`h` of each entropy.
    out : ndarray, optional
        Where to write the gradient, as for `cross_entropy_with_grad`.

    Returns
    -------
    values : tuple of two ndarrays
        As `log_prob_and_entropy` returns them, the same bits.
    dlogits : ndarray
        :math:`\sum_k g_k (e_{t_k} - p) + h\, p \circ ((m - z) - A)`, with :math:`A = \sum_c p_c (m - z_c)`, of the
        logits' shape and dtype.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for `log_prob`; also for an `out` that does not fit.

    Notes
    -----
    A policy gradient with advantages :math:`a` and an entropy bonus :math:`\beta` over :math:`N` tokens has
    :math:`g = -a / N` and :math:`h = -\beta / N`. (Advantages as sample weights of `cross_entropy` with its
    `entropy_bonus` would weigh the bonus too, and reward certainty where an advantage is negative.)

    Examples
    --------
    >>> import crossentropy as ce
    >>> values, dlogits = ce.log_prob_and_entropy_vjp([[2.0, 1.0, 0.1]], [0], -1.0, -0.01)
    >>> dlogits.round(4)
    array([[-0.3382,  0.2411,  0.0971]])
    """
    options = loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none")
    z = as_logits(logits, axis)
    named = as_named(indices, z, options.ignore_index)
    call = call_of(options, z, named, num_threads)
    upstream = named.upstream("dlog_prob", dlog_prob)
    of_entropy = per_row("dentropy", dentropy, z.row_shape)
    dlogits, matrix = gradient_arrays(call, out, (dlog_prob, dentropy))
    found, entropies = evaluate(call, named, entropy=True, dlog_prob=upstream, dentropy=of_entropy, matrix=matrix)
    finish_gradient(z, dlogits, matrix)
    assert entropies is not None
    return (named.as_given(found), entropies.reshape(z.row_shape)[()]), dlogits


def per_row(name: str, values: npt.ArrayLike, row_shape: Shape) -> Array:
    """An upstream gradient as one number a row."""
    scale, array = as_grad_output(values, row_shape, True, name)
    return np.full(row_shape, scale) if array is None else array
