"""The loss of rows whose classes are split over the devices of a mesh axis: from logits, and through a linear head."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from .._options import LossOptions, Reduction, loss_options
from . import _composed, _shards
from ._alike import alike, varying
from ._composed import row_dtype
from ._foreign import NONE
from ._functional import as_class_indices_or_probabilities, as_logits, weights
from ._linear import Head, as_head, by_chunks, logits_of, step_of
from ._raised import in_range
from ._shards import AxisName, Part, Shards, check_split, check_whole, shards_of


def vocab_parallel_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis_name: AxisName = "model",
    num_classes: int | None = None,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Array:
    r"""Compute `cross_entropy` of rows whose classes are split over a mesh axis, inside `jax.shard_map`.

    Parameters
    ----------
    logits : array of float16, bfloat16, float32 or float64, shape (..., C / R)
        This device's shard of the classes, the last axis, of R shards of equal size in the order of the mesh axis.
    targets : array
        Class indices of shape (...), which count all classes and are the same on all devices of the axis; or this
        device's shard of the probabilities, of the logits' shape.
    axis_name : str or tuple of str
        The mesh axis, or axes, that the classes are split over.
    num_classes : int, optional
        How many classes there are, where that is fewer than the shards hold: what is beyond them, at the end, is
        padding. It may hold anything, and has the gradient 0.
    class_weight : array of shape (C / R,) or (num_classes,), optional
        Of this device's shard; or of all classes, the same on all devices of the axis.
    sample_weight : array of shape (...), optional
        The same on all devices of the axis.
    ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature
        As for `cross_entropy`.
    reduction : {'mean', 'sum', 'none'}
        Of the rows of this device: where another mesh axis splits the rows, what is to be joined over it is yours.

    Returns
    -------
    Array
        A scalar, or for 'none' one loss a row, the same on all devices of the axis: float64 for float64 logits, else
        float32.

    Raises
    ------
    TypeError, ValueError
        Dtypes, shapes or options that do not fit, `jax.shard_map` with ``check_vma=False``, a shard that does not vary
        over the axis or targets that do. A class index out of range is the runtime's error, on every device.

    Notes
    -----
    On the CPU. The devices gather 40 bytes a row and shard, with label smoothing, probabilities or an entropy bonus 72,
    and join them in the order of the axis, so that all have the same bits. The gradient of a shard's logits needs
    nothing of the others. Differentiable once, in logits and sample weights.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from jax.sharding import AxisType, PartitionSpec as P
    >>> from crossentropy.jax import vocab_parallel_cross_entropy
    >>> mesh = jax.make_mesh((1,), ("model",), (AxisType.Auto,))
    >>> loss = jax.shard_map(
    ...     vocab_parallel_cross_entropy, mesh=mesh, in_specs=(P(None, "model"), P()), out_specs=P()
    ... )
    >>> print(f"{loss(jnp.array([[2.0, 1.0, 0.1]]), jnp.array([0])):.4f}")
    0.4170
    """
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
    z = as_logits(logits)
    shards = shards_of(axis_name, z.shape[-1], num_classes)
    check_split("logits", z, shards)
    part, s = _part(options, shards, z.shape[:-1], row_dtype(z), targets, class_weight, sample_weight)
    whole = _shards.join(options, shards, _shards.tell(options, shards, z, part), part, z.dtype)
    return _reduced(options, _shards.losses(options, shards, z, part, whole), whole, part, s)


def vocab_parallel_linear_cross_entropy(
    hidden: ArrayLike,
    classifier: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    axis_name: AxisName = "model",
    num_classes: int | None = None,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    max_logits_bytes: int | None = None,
) -> Array:
    """Compute `linear_cross_entropy` with the classifier's rows split over a mesh axis, inside `jax.shard_map`.

    Parameters
    ----------
    hidden : array of float16, bfloat16, float32 or float64, shape (..., D)
        Hidden states, the same on all devices of the axis.
    classifier : array of the dtype of `hidden`, shape (C / R, D)
        This device's shard, of R shards of equal size in the order of the mesh axis.
    bias : array of shape (C / R,), optional
        Likewise.
    targets, axis_name, num_classes, class_weight, sample_weight, ignore_index, label_smoothing, z_loss, entropy_bonus,
    focal_gamma, softcap, temperature, reduction
        As for `vocab_parallel_cross_entropy`.
    max_logits_bytes : int, optional
        At most so many bytes of a shard's logits at a time, 64 MiB by default; at least one row.

    Returns
    -------
    Array
        As for `vocab_parallel_cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As for `vocab_parallel_cross_entropy`.

    Notes
    -----
    As for `linear_cross_entropy` and `vocab_parallel_cross_entropy`. What is known of all rows is gathered once, and
    the gradient of the hidden states is added up once over the axis, in float32 or wider. The gradient of a shard of
    the classifier needs nothing of the others.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from jax.sharding import AxisType, PartitionSpec as P
    >>> from crossentropy.jax import vocab_parallel_linear_cross_entropy
    >>> mesh = jax.make_mesh((1,), ("model",), (AxisType.Auto,))
    >>> loss = jax.shard_map(
    ...     vocab_parallel_linear_cross_entropy, mesh=mesh, in_specs=(P(), P("model"), P()), out_specs=P()
    ... )
    >>> print(f"{loss(jnp.array([[1.0, 0.5]]), jnp.eye(2), jnp.array([0])):.4f}")
    0.4741
    """
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
    head = as_head(hidden, classifier, bias)
    shards = shards_of(axis_name, len(head.classifier), num_classes)
    check_whole("hidden", head.hidden, shards)
    check_split("classifier", head.classifier, shards)
    dtype = row_dtype(head.hidden)
    part, s = _part(options, shards, head.rows, dtype, targets, class_weight, sample_weight)
    # Here their gradient is added up over the axis: once, and not rounded before.
    h, W, b = alike(*(array.astype(dtype) for array in head[:3]))
    step = step_of(max_logits_bytes, Head(h, W, b))
    counted = _composed.counted_rows(options, head.rows, part.targets, part.counted)
    shared = (part.class_weight, part.first, W, b)

    def told(h: Array, t: Array, counted: Array, of_row: Array, w: Array, first: Array, W: Array, b: Array) -> Array:
        z = logits_of(h, W, b, counted)
        return _shards.tell(options, shards, z, Part(t, w, of_row, first))

    fixed = [lax.stop_gradient(array) for array in (h, part.targets, counted, part.counted, *shared)]
    whole = _shards.join(options, shards, by_chunks(told, step, fixed[:4], fixed[4:]), part, dtype)

    def losses(h: Array, *arrays: Array) -> Array:
        t, losses, weight, words, counted, of_row, w, first, W, b = arrays
        z = logits_of(h, W, b, counted)
        return _shards.losses(options, shards, z, Part(t, w, of_row, first), _shards.Whole(losses, weight, words))

    of_rows = (h, part.targets, *whole, counted, part.counted)
    return _reduced(options, by_chunks(losses, step, of_rows, shared), whole, part, s)


def _part(
    options: LossOptions,
    shards: Shards,
    rows: tuple[int, ...],
    dtype: Any,
    targets: ArrayLike,
    class_weight: ArrayLike | None,
    sample_weight: ArrayLike | None,
) -> tuple[Part, Array]:
    """What is known of the rows beside their logits, and the sample weights, all checked."""
    probabilities = jnp.ndim(targets) > len(rows)
    size = shards.size if probabilities else shards.classes
    t = as_class_indices_or_probabilities(targets, (*rows, size), len(rows), options, dtype)
    (check_split if probabilities else check_whole)("targets", t, shards)
    t = _shards.constant("targets", t) if probabilities else in_range(options, shards.classes, t)
    s = jnp.ones(rows, dtype) if sample_weight is None else weights("sample_weight", sample_weight, rows)
    check_whole("sample_weight", s, shards)
    w = (
        jnp.asarray(NONE)
        if class_weight is None
        else _shards.constant("class_weight", _shard_of_weights(shards, class_weight))
    )
    return Part(t, w, jnp.where(s == 0, 0.0, 1.0).astype(jnp.float32), shards.first), s


def _shard_of_weights(shards: Shards, class_weight: ArrayLike) -> Array:
    if set(shards.axes) <= varying(jnp.asarray(class_weight)):
        return weights("class_weight", class_weight, (shards.size,))
    w = weights("class_weight", class_weight, (shards.classes,))
    padded = jnp.pad(w, (0, -shards.classes % shards.size + lax.axis_size(shards.axes) * shards.size))
    return lax.dynamic_slice_in_dim(padded, shards.first, shards.size)


def _reduced(options: LossOptions, losses: Array, whole: _shards.Whole, part: Part, s: Array) -> Array:
    counted = _composed.counted_rows(options, s.shape, part.targets, s)
    s = s.astype(losses.dtype)
    weight = s if part.targets.ndim > s.ndim else s * whole.class_weight
    losses, weight = (jnp.where(counted, values, 0.0) for values in (s * losses, weight))
    return _composed.reduced(options.reduction, losses, weight)
