"""Log-probabilities and entropies of a linear head, and their gradients: what users call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from ._arrays import Array
from ._head import LinearGradients
from ._linear_call import Wrt, gradient_outputs
from ._linear_log_prob_call import over_chunks, prepare_linear_log_prob
from ._log_prob import per_row
from ._log_prob_call import teaches_log_prob
from ._options import loss_options


@teaches_log_prob
def linear_log_prob(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    indices: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    num_threads: int | None = None,
    max_logits_bytes: int | None = None,
) -> Array:
    """Compute the log-probabilities, in nats, of chosen classes from hidden states, without holding all logits.

    Parameters
    ----------
    hidden, classifier, bias, max_logits_bytes
        As for `linear_cross_entropy`.
    indices : array_like of integers in [0, C), shape (...) or (..., K)
        One class of each row of hidden states, or K.
    ignore_index, softcap, temperature, num_threads
        As for `log_prob`.

    Returns
    -------
    ndarray
        As for `log_prob`: float64 where the products are, else float32.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for `log_prob` and `linear_cross_entropy`.

    Notes
    -----
    Logits are those of `linear_cross_entropy`, and as exact for them as `log_prob` is. Rows that do not count are left
    out of the products.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> ce.linear_log_prob([[1.0, 0.5], [-1.0, 2.0]], np.eye(2), [0, 1]).round(4)
    array([-0.4741, -0.0486])
    """
    call = prepare_linear_log_prob(
        loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none"),
        hidden,
        classifier,
        indices,
        bias=bias,
        num_threads=num_threads,
        max_logits_bytes=max_logits_bytes,
    )
    return over_chunks(call)[0]


@teaches_log_prob
def linear_log_prob_with_grad(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    indices: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    num_threads: int | None = None,
    max_logits_bytes: int | None = None,
    grad_output: npt.ArrayLike = 1.0,
    wrt: Sequence[Wrt] = ("hidden", "classifier", "bias"),
    out: LinearGradients | None = None,
) -> tuple[Array, LinearGradients]:
    """Compute the log-probabilities of `linear_log_prob`, and the gradients of their sum times `grad_output`.

    Parameters
    ----------
    hidden, classifier, indices, bias, ignore_index, softcap, temperature, num_threads, max_logits_bytes
        As for `linear_log_prob`.
    grad_output : float, or array of the shape of `indices`
        The upstream gradient.
    wrt, out
        As for `linear_cross_entropy_with_grad`.

    Returns
    -------
    log_prob : ndarray
        As `linear_log_prob` returns it.
    gradients : LinearGradients
        As `linear_cross_entropy_with_grad` returns them.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for `linear_log_prob`; also for an `out` that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> log_p, gradients = ce.linear_log_prob_with_grad([[1.0, 0.5]], np.eye(2), [0])
    >>> gradients.hidden.round(4)
    array([[ 0.3775, -0.3775]])
    """
    call = prepare_linear_log_prob(
        loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none"),
        hidden,
        classifier,
        indices,
        bias=bias,
        num_threads=num_threads,
        max_logits_bytes=max_logits_bytes,
    )
    upstream = call.named.upstream("grad_output", grad_output)
    gradients = gradient_outputs(call.head, (*call.inputs, grad_output), wrt, out)
    return over_chunks(call, gradients=gradients, dlog_prob=upstream)[0], gradients


@teaches_log_prob
def linear_log_prob_and_entropy(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    indices: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    num_threads: int | None = None,
    max_logits_bytes: int | None = None,
) -> tuple[Array, Array]:
    """Compute the log-probabilities of `linear_log_prob` and each row's entropy, in nats, in one pass.

    Parameters
    ----------
    hidden, classifier, indices, bias, ignore_index, softcap, temperature, num_threads, max_logits_bytes
        As for `linear_log_prob`.

    Returns
    -------
    log_prob, entropy : ndarray
        As `log_prob_and_entropy` returns them.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for `linear_log_prob`.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> log_p, entropy = ce.linear_log_prob_and_entropy([[1.0, 0.5]], np.eye(2), [0])
    >>> entropy.round(4)
    array([0.6628])
    """
    call = prepare_linear_log_prob(
        loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none"),
        hidden,
        classifier,
        indices,
        bias=bias,
        num_threads=num_threads,
        max_logits_bytes=max_logits_bytes,
    )
    log_p, entropies = over_chunks(call, entropy=True)
    assert entropies is not None
    return log_p, entropies


@teaches_log_prob
def linear_log_prob_and_entropy_vjp(
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    indices: npt.ArrayLike,
    dlog_prob: npt.ArrayLike,
    dentropy: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
    num_threads: int | None = None,
    max_logits_bytes: int | None = None,
    wrt: Sequence[Wrt] = ("hidden", "classifier", "bias"),
    out: LinearGradients | None = None,
) -> tuple[tuple[Array, Array], LinearGradients]:
    """Compute log-probabilities and entropies of a linear head, and its gradients for their upstream gradients.

    Parameters
    ----------
    hidden, classifier, indices, bias, ignore_index, softcap, temperature, num_threads, max_logits_bytes
        As for `linear_log_prob`.
    dlog_prob, dentropy
        As for `log_prob_and_entropy_vjp`.
    wrt, out
        As for `linear_cross_entropy_with_grad`.

    Returns
    -------
    values : tuple of two ndarrays
        As `linear_log_prob_and_entropy` returns them.
    gradients : LinearGradients
        As `linear_cross_entropy_with_grad` returns them.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for `linear_log_prob`; also for an `out` that does not fit.

    Notes
    -----
    Upstream gradients that depend on the log-probabilities, as the ratios of a clipped policy gradient do, take two
    calls: `linear_log_prob_and_entropy` first, without gradients.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> values, gradients = ce.linear_log_prob_and_entropy_vjp([[1.0, 0.5]], np.eye(2), [0], -1.0, -0.01)
    >>> gradients.hidden.round(4)
    array([[-0.3764,  0.3764]])
    """
    call = prepare_linear_log_prob(
        loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none"),
        hidden,
        classifier,
        indices,
        bias=bias,
        num_threads=num_threads,
        max_logits_bytes=max_logits_bytes,
    )
    upstream = call.named.upstream("dlog_prob", dlog_prob)
    of_entropy = per_row("dentropy", dentropy, call.row_shape).reshape(-1)
    gradients = gradient_outputs(call.head, (*call.inputs, dlog_prob, dentropy), wrt, out)
    log_p, entropies = over_chunks(call, entropy=True, gradients=gradients, dlog_prob=upstream, dentropy=of_entropy)
    assert entropies is not None
    return (log_p, entropies), gradients
