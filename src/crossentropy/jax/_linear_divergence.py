"""Divergences of a student from its teacher from the hidden states of both, a chunk of rows at a time."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from .._divergence_call import Direction
from .._options import Reduction
from ._composed import reduced, row_dtype
from ._divergence import Options, kl_options, losses_of_rows, mixture_options, row_weights
from ._linear import as_head, by_chunks, logits_of, step_of

_Given = tuple[ArrayLike, ArrayLike, ArrayLike | None]


def linear_kl_divergence(
    hidden: ArrayLike,
    classifier: ArrayLike,
    teacher_hidden: ArrayLike,
    teacher_classifier: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    teacher_bias: ArrayLike | None = None,
    direction: Direction = "forward",
    sample_weight: ArrayLike | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    max_logits_bytes: int | None = None,
) -> Array:
    """Compute `kl_divergence` of the logits of two heads, a chunk of rows at a time.

    Parameters
    ----------
    hidden : array of float16, bfloat16, float32 or float64, shape (..., D)
        The student's hidden states; its logits are ``hidden @ classifier.T + bias``.
    classifier : array of the dtype of `hidden`, shape (C, D)
    teacher_hidden, teacher_classifier : arrays of shapes (..., E) and (C, E)
        The teacher's; its width E may be another one.
    bias, teacher_bias : arrays of shape (C,), optional
    direction, sample_weight, softcap, teacher_softcap, temperature, reduction
        As for `kl_divergence`.
    max_logits_bytes : int, optional
        At most so many bytes of logits of either model at a time, 64 MiB by default; at least one row.

    Returns
    -------
    Array
        As for `kl_divergence`.

    Raises
    ------
    TypeError, ValueError
        As for `kl_divergence`.

    Notes
    -----
    As for `linear_cross_entropy`. Of models that hardly differ the divergence is no more exact than the products that
    make their logits: for equal inputs it is 0.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from crossentropy.jax import linear_kl_divergence
    >>> hidden, teacher_hidden = jnp.array([[1.0, 0.5]]), jnp.array([[1.0, 0.5, -1.0]])
    >>> print(f"{linear_kl_divergence(hidden, jnp.eye(2), teacher_hidden, jnp.ones((2, 3))):.4f}")
    0.0309
    """
    options = kl_options(
        direction,
        softcap=softcap,
        teacher_softcap=teacher_softcap,
        temperature=temperature,
        reduction=reduction,
    )
    heads = (hidden, classifier, bias), (teacher_hidden, teacher_classifier, teacher_bias)
    return _of_heads(options, *heads, sample_weight, max_logits_bytes)


def linear_jensen_shannon(
    hidden: ArrayLike,
    classifier: ArrayLike,
    teacher_hidden: ArrayLike,
    teacher_classifier: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    teacher_bias: ArrayLike | None = None,
    beta: float = 0.5,
    sample_weight: ArrayLike | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    max_logits_bytes: int | None = None,
) -> Array:
    """Compute `jensen_shannon` of the logits of two heads, a chunk of rows at a time.

    Parameters
    ----------
    hidden, classifier, teacher_hidden, teacher_classifier, bias, teacher_bias, max_logits_bytes
        As for `linear_kl_divergence`.
    beta, sample_weight, softcap, teacher_softcap, temperature, reduction
        As for `jensen_shannon`.

    Returns
    -------
    Array
        As for `kl_divergence`.

    Raises
    ------
    TypeError, ValueError
        As for `kl_divergence`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from crossentropy.jax import linear_jensen_shannon
    >>> hidden, teacher_hidden = jnp.array([[1.0, 0.5]]), jnp.array([[1.0, 0.5, -1.0]])
    >>> print(f"{linear_jensen_shannon(hidden, jnp.eye(2), teacher_hidden, jnp.ones((2, 3))):.4f}")
    0.0076
    """
    options = mixture_options(
        beta,
        softcap=softcap,
        teacher_softcap=teacher_softcap,
        temperature=temperature,
        reduction=reduction,
    )
    heads = (hidden, classifier, bias), (teacher_hidden, teacher_classifier, teacher_bias)
    return _of_heads(options, *heads, sample_weight, max_logits_bytes)


def _of_heads(
    options: Options, student: _Given, teacher: _Given, sample_weight: ArrayLike | None, max_logits_bytes: int | None
) -> Array:
    ours, theirs = as_head(*student), as_head(*teacher, "teacher_")
    if theirs.rows != ours.rows:
        raise ValueError(
            f"teacher_hidden: expected rows of shape {ours.rows} as in hidden, got shape {jnp.shape(teacher[0])}"
        )
    if len(theirs.classifier) != len(ours.classifier):
        raise ValueError(
            f"teacher_classifier: expected the {len(ours.classifier)} classes of classifier, "
            f"got shape {theirs.classifier.shape}"
        )
    s = row_weights(sample_weight, ours.rows)
    step = min(step_of(max_logits_bytes, ours), step_of(max_logits_bytes, theirs))
    losses = _linear_losses(options, step, tuple(ours[:3]), tuple(theirs[:3]), s)
    return reduced(options.reduction, losses, s.astype(losses.dtype))


@partial(jax.jit, static_argnums=(0, 1))
def _linear_losses(
    options: Options, step: int, student: tuple[Array, ...], teacher: tuple[Array, ...], s: Array
) -> Array:
    (h, W, b), (g, V, c) = student, teacher

    def chunk(h: Array, g: Array, s: Array, W: Array, b: Array, V: Array, c: Array) -> Array:
        return losses_of_rows(options, logits_of(h, W, b, s != 0), logits_of(g, V, c, s != 0), s)

    losses: Array = by_chunks(chunk, step, (h, g, s), (W.astype(row_dtype(W)), b, V.astype(row_dtype(V)), c))
    return losses
