"""Divergences of a student from its teacher."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from .._divergence_call import Direction, DivergenceOptions, divergence_options
from .._options import Reduction, as_number
from . import _divergence_rules
from ._composed import reduced, row_dtype
from ._functional import as_logits, weights
from ._indices import as_axis
from ._pairs import Scales
from ._softmax import Scale, held


def kl_divergence(
    logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    axis: int = -1,
    direction: Direction = "forward",
    sample_weight: ArrayLike | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Array:
    r"""Compute the Kullback-Leibler divergence between a teacher's softmax q and a student's p, in nats.

    .. math:: \mathrm{KL}(q \| p) = \sum_c q_c \log \frac{q_c}{p_c}

    Parameters
    ----------
    logits, teacher_logits : arrays of float16, bfloat16, float32 or float64, shape (..., C, ...)
        Scores before the softmax, of the student and of the teacher, of one shape. Either may be differentiated.
    axis : int
        The class axis of both.
    direction : {'forward', 'reverse'}
        'forward' is KL(teacher‖student), 'reverse' KL(student‖teacher).
    sample_weight : array of the logits' shape without the class axis, optional
        Weights of rows; a row of weight 0 is left out, and may hold NaN.
    softcap, teacher_softcap : float, optional
        The soft caps of the student's and of the teacher's logits.
    temperature : float
        What both are divided by. The result is not multiplied by its square.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides the sum by the total weight of the rows that count, not by the number of elements; where none
        counts it is 0.

    Returns
    -------
    Array
        A scalar, or for 'none' one divergence a row: float64 if either is float64, else float32. Never negative; 0 for
        logits that are equal up to a constant.

    Raises
    ------
    TypeError, ValueError
        Dtypes, shapes or options that do not fit; the message tells what was expected.

    Notes
    -----
    Composed of JAX's operations: all transformations apply, to any order. Value and gradient come from the differences
    of the logits, and keep their digits for models that hardly differ, where log q − log p has none left. The gradient
    of half-precision logits is computed in float32 and rounded once.

    A class that is −∞ in both adds nothing. In the teacher alone the forward divergence is finite, in the student alone
    ∞, with a finite gradient for the student; the reverse one has it the other way round. NaN stays in its row.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from crossentropy.jax import kl_divergence
    >>> logits, teacher = jnp.array([[2.0, 1.0, 0.1]]), jnp.array([[2.001, 1.0, 0.1]])
    >>> loss, dlogits = jax.value_and_grad(kl_divergence)(logits, teacher)
    >>> print(f"{loss:.4g}", [f"{g:.4g}" for g in dlogits[0]])
    1.123e-07 ['-0.0002247', '0.0001597', '6.494e-05']
    """
    options = kl_options(
        direction,
        softcap=softcap,
        teacher_softcap=teacher_softcap,
        temperature=temperature,
        reduction=reduction,
    )
    return _of_logits(options, logits, teacher_logits, axis, sample_weight)


def jensen_shannon(
    logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    axis: int = -1,
    beta: float = 0.5,
    sample_weight: ArrayLike | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Array:
    r"""Compute the Jensen-Shannon divergence between a teacher's softmax q and a student's p, in nats.

    .. math:: \beta\, \mathrm{KL}(q \| m) + (1 - \beta)\, \mathrm{KL}(p \| m), \qquad m = \beta q + (1 - \beta) p

    Parameters
    ----------
    logits, teacher_logits, axis, sample_weight, softcap, teacher_softcap, temperature, reduction
        As for `kl_divergence`.
    beta : float
        The teacher's share of the mixture, between 0 and 1. (Divided by it or by 1 - beta, the divergence tends to
        those of `kl_divergence`.)

    Returns
    -------
    Array
        As for `kl_divergence`. Always finite, at most :math:`-\beta \log \beta - (1 - \beta) \log(1 - \beta)`.

    Raises
    ------
    TypeError, ValueError
        As for `kl_divergence`.

    Notes
    -----
    As for `kl_divergence`. The generalised form is that of Agarwal et al., On-policy distillation of language models
    (2024).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from crossentropy.jax import jensen_shannon
    >>> loss = jensen_shannon(jnp.array([[2.0, 1.0, 0.1]]), jnp.array([[0.1, 1.0, 2.0]]))
    >>> print(f"{loss:.4f}")
    0.2322
    """
    options = mixture_options(
        beta,
        softcap=softcap,
        teacher_softcap=teacher_softcap,
        temperature=temperature,
        reduction=reduction,
    )
    return _of_logits(options, logits, teacher_logits, axis, sample_weight)


class Options(NamedTuple):
    """What JAX compiles a divergence for."""

    kind: Literal["forward", "reverse", "mixture"]  # the function's name in `_divergence_rules`
    beta: float  # of the mixture
    scales: Scales
    reduction: Reduction


def kl_options(direction: Direction, **given: Any) -> Options:
    """Check the options of `kl_divergence`."""
    options = divergence_options(direction=direction, **given)
    return _static("forward" if options.teacher_first else "reverse", 0.5, options)


def mixture_options(beta: float, **given: Any) -> Options:
    """Check the options of `jensen_shannon`."""
    options = divergence_options(beta=as_number("beta", beta), **given)
    return _static("mixture", float(beta), options)


def _static(kind: Literal["forward", "reverse", "mixture"], beta: float, options: DivergenceOptions) -> Options:
    temperature = options.student.temperature
    scales = Scales(*(Scale(model.softcap, temperature) for model in (options.student, options.teacher)))
    return Options(kind, beta, scales, options.student.reduction)


def _of_logits(
    options: Options, logits: ArrayLike, teacher_logits: ArrayLike, axis: int, sample_weight: ArrayLike | None
) -> Array:
    z, y = as_logits(logits), as_logits(teacher_logits, "teacher_logits")
    axis = as_axis(axis, z)
    if y.shape != z.shape:
        raise ValueError(f"teacher_logits: expected the shape of logits, {z.shape}, got {y.shape}")
    s = row_weights(sample_weight, z.shape[:axis] + z.shape[axis + 1 :])
    return _reduced_logits(options, jnp.moveaxis(z, axis, -1), jnp.moveaxis(y, axis, -1), s)


def row_weights(sample_weight: ArrayLike | None, rows: tuple[int, ...]) -> Array:
    return jnp.ones(rows, jnp.float32) if sample_weight is None else weights("sample_weight", sample_weight, rows)


def losses_of_rows(options: Options, z: Array, y: Array, s: Array) -> Array:
    """The weighted divergence of each row; one that does not count is 0 and may hold NaN."""
    dtype = jnp.promote_types(row_dtype(z), row_dtype(y))
    z, y = (jnp.where((s != 0)[..., None], x.astype(dtype), 0.0) for x in (z, y))
    beta = held(options.beta, dtype)
    divergences = getattr(_divergence_rules, options.kind)(options.scales, beta, z, y)
    return jnp.where(s == 0, 0.0, s.astype(dtype) * divergences)


@partial(jax.jit, static_argnums=0)
def _reduced_logits(options: Options, z: Array, y: Array, s: Array) -> Array:
    losses = losses_of_rows(options, z, y, s)
    return reduced(options.reduction, losses, s.astype(losses.dtype))
