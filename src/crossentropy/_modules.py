"""Losses as objects, with forward and backward."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_array, as_grad_output, rounds_to_nearest
from ._call import Call, loss_and_gradient, prepare
from ._head import LinearGradients
from ._keywords import teaches_keywords
from ._linear_call import linear_loss, linear_loss_and_gradients, prepare_linear
from ._options import Reduction, loss_options
from ._softmax import scaled, softmax
from ._targets import TopKTargets


class _Forward(NamedTuple):
    """Inputs and results of the last forward."""

    logits: Array
    targets: Array | TopKTargets
    sample_weight: npt.ArrayLike | None
    dlogits: Array
    silent: tuple[Array, Array] | None  # rows that do not count, and a copy of their logits


class CrossEntropyLoss:
    """Softmax cross-entropy as an object that remembers its last call.

    Parameters
    ----------
    axis, class_weight
        As for `cross_entropy`.
    ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature, reduction, num_threads
        As for `cross_entropy`.

    Notes
    -----
    `forward` computes loss and gradient together, and `backward` hands the gradient out. In float32 and float64 the
    logits may change in between. In half precision `backward` needs them again, as `softmax` does in every dtype: if
    they have changed, both raise. To notice it, `forward` copies the logits of rows that do not count, whose gradient
    does not depend on them. After a `forward` that failed, `backward` and `softmax` raise.

    Examples
    --------
    >>> import crossentropy as ce
    >>> criterion = ce.CrossEntropyLoss(label_smoothing=0.1)
    >>> loss = criterion([[2.0, 1.0, 0.1]], [0])
    >>> criterion.backward().round(4)
    array([[-0.2743,  0.2091,  0.0652]])
    >>> criterion.softmax.round(3)
    array([[0.659, 0.242, 0.099]])
    """

    @teaches_keywords(sample_weight="it is data, which forward takes")
    def __init__(
        self,
        *,
        axis: int = -1,
        class_weight: npt.ArrayLike | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        entropy_bonus: float = 0.0,
        focal_gamma: float = 0.0,
        softcap: float | None = None,
        temperature: float = 1.0,
        reduction: Reduction = "mean",
        num_threads: int | None = None,
    ) -> None:
        self._options = loss_options(
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            entropy_bonus=entropy_bonus,
            focal_gamma=focal_gamma,
            softcap=softcap,
            temperature=temperature,
            reduction=reduction,
        )
        self._axis = axis
        self._class_weight = class_weight
        self._num_threads = num_threads
        self._last: _Forward | None = None

    def _prepare(
        self, logits: npt.ArrayLike, targets: npt.ArrayLike | TopKTargets, sample_weight: npt.ArrayLike | None
    ) -> Call:
        return prepare(
            self._options,
            logits,
            targets,
            axis=self._axis,
            class_weight=self._class_weight,
            sample_weight=sample_weight,
            num_threads=self._num_threads,
        )

    @teaches_keywords()
    def forward(
        self, logits: npt.ArrayLike, targets: npt.ArrayLike | TopKTargets, sample_weight: npt.ArrayLike | None = None
    ) -> float | Array:
        """Return the loss of logits and targets, as `cross_entropy` does."""
        self._last = None  # if this forward fails, backward must not use an earlier one
        logits = as_array("logits", logits)
        targets = targets if isinstance(targets, TopKTargets) else as_array("targets", targets)
        call = self._prepare(logits, targets, sample_weight)
        loss, dlogits = loss_and_gradient(call)
        silent = self._silent_rows(call)
        held = None if silent is None else (silent, np.moveaxis(logits, self._axis, -1)[silent])
        self._last = _Forward(logits, targets, sample_weight, dlogits, held)
        return loss

    __call__ = forward

    @rounds_to_nearest
    def backward(self, grad_output: npt.ArrayLike = 1.0) -> Array:
        """Return the gradient of the last loss with respect to its logits, times `grad_output`.

        Parameters
        ----------
        grad_output : float, or for reduction 'none' also an array with one number a row

        Returns
        -------
        ndarray
            Of the logits' shape and dtype, a new one for each call.

        Raises
        ------
        RuntimeError
            There was no forward yet, or it failed; or, in half precision, logits or targets have changed since.

        Notes
        -----
        In float32 and float64 the gradient is multiplied as it was rounded: what was too small or too large for its
        dtype stays 0 or infinite. `cross_entropy_with_grad` with `grad_output` rounds once.
        """
        last = self._forward_done("backward")
        dlogits = last.dlogits
        if dlogits.dtype.itemsize == 2:  # half precision is multiplied before it is rounded: after it, it may be 0
            self._require_unchanged("backward")
            call = self._prepare(last.logits, last.targets, last.sample_weight)
            return loss_and_gradient(call, grad_output)[1]
        row_shape = np.moveaxis(dlogits, self._axis, -1).shape[:-1]
        scale, row_scale = as_grad_output(grad_output, row_shape, self._options.reduction == "none")
        factor = np.asarray(scale) if row_scale is None else np.expand_dims(row_scale, self._axis)
        return times(dlogits, np.where(np.isfinite(factor), factor, np.nan))

    @property
    @rounds_to_nearest
    def softmax(self) -> Array:
        """The probabilities of the last forward's logits (capped, over the temperature), computed now.

        Raises RuntimeError where there was no forward yet, or where logits or targets have changed since.
        """
        last = self._forward_done("softmax")
        self._require_unchanged("softmax")
        u = scaled(last.logits.astype(np.float64), self._options)[0]
        return softmax(u, axis=self._axis).astype(last.dlogits.dtype)

    def _silent_rows(self, call: Call) -> Array | None:
        """The rows that do not count: a change of their logits would not show in the gradient."""
        targets = call.targets.indices
        silent: Array | None = None
        if targets is not None:
            silent = np.asarray(targets == self._options.ignore_index)
            if call.class_weight is not None:
                silent = silent | (call.class_weight[np.where(silent, 0, targets)] == 0)
        if call.sample_weight is not None:
            unweighted = call.sample_weight == 0
            silent = unweighted if silent is None else silent | unweighted
        return silent if silent is not None and silent.any() else None

    def _require_unchanged(self, what: str) -> None:
        last = self._forward_done(what)
        dlogits = loss_and_gradient(self._prepare(last.logits, last.targets, last.sample_weight))[1]
        changed = dlogits.tobytes() != last.dlogits.tobytes()
        if last.silent is not None and not changed:
            rows, held = last.silent
            changed = np.moveaxis(last.logits, self._axis, -1)[rows].tobytes() != held.tobytes()
        if changed:
            raise RuntimeError(f"{what}: the logits or targets of the last forward have been changed since")

    def _forward_done(self, what: str) -> _Forward:
        if self._last is None:
            raise RuntimeError(f"{what}: call forward(logits, targets) first")
        return self._last


class LinearCrossEntropyLoss:
    """The linear head and its loss as an object that remembers its last call.

    Parameters
    ----------
    class_weight, max_logits_bytes
        As for `linear_cross_entropy`.
    ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature, reduction, num_threads
        As for `linear_cross_entropy`.

    Notes
    -----
    For 'mean' and 'sum' `forward` computes loss and gradients together: three products. For 'none', and in half
    precision for a `grad_output` that is not 1, `backward` computes them anew: hidden states and classifier must not
    have been changed since.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> criterion = ce.LinearCrossEntropyLoss()
    >>> loss = criterion([[1.0, 0.5]], [[1.0, 0.0], [0.0, 1.0]], [0])
    >>> criterion.backward().hidden.round(4)
    array([[-0.3775,  0.3775]])
    """

    @teaches_keywords(sample_weight="it is data, which forward takes")
    def __init__(
        self,
        *,
        class_weight: npt.ArrayLike | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        entropy_bonus: float = 0.0,
        focal_gamma: float = 0.0,
        softcap: float | None = None,
        temperature: float = 1.0,
        reduction: Reduction = "mean",
        num_threads: int | None = None,
        max_logits_bytes: int | None = None,
    ) -> None:
        self._options = loss_options(
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            entropy_bonus=entropy_bonus,
            focal_gamma=focal_gamma,
            softcap=softcap,
            temperature=temperature,
            reduction=reduction,
        )
        self._data: dict[str, Any] = {
            "class_weight": class_weight,
            "num_threads": num_threads,
            "max_logits_bytes": max_logits_bytes,
        }
        self._last: tuple[dict[str, Any], LinearGradients | None] | None = None

    @teaches_keywords()
    def forward(
        self,
        hidden: npt.ArrayLike,
        classifier: npt.ArrayLike,
        targets: npt.ArrayLike | TopKTargets,
        bias: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float | Array:
        """Return the loss, as `linear_cross_entropy` does."""
        self._last = None  # if this forward fails, backward must not use an earlier one
        data: dict[str, Any] = {
            "hidden": as_array("hidden", hidden),
            "classifier": as_array("classifier", classifier),
            "targets": targets if isinstance(targets, TopKTargets) else as_array("targets", targets),
            "bias": None if bias is None else as_array("bias", bias),
            "sample_weight": sample_weight,
        }
        call = prepare_linear(self._options, **data, **self._data)
        gradients = None
        if self._options.reduction == "none":
            loss = linear_loss(call)
        else:
            loss, gradients = linear_loss_and_gradients(call)
        self._last = data, gradients
        return loss

    __call__ = forward

    @rounds_to_nearest
    def backward(self, grad_output: npt.ArrayLike = 1.0) -> LinearGradients:
        """Return the gradients of the last loss, times `grad_output`.

        Parameters
        ----------
        grad_output : float, or for reduction 'none' also an array with one number a row

        Returns
        -------
        LinearGradients
            New arrays for each call.

        Raises
        ------
        RuntimeError
            There was no forward yet.
        """
        if self._last is None:
            raise RuntimeError("backward: call forward(hidden, classifier, targets) first")
        data, gradients = self._last
        scale = 0.0 if gradients is None else as_grad_output(grad_output, (), False)[0]
        half = gradients is not None and any(g is not None and g.dtype.itemsize == 2 for g in gradients)
        if gradients is None or (half and scale != 1.0):
            call = prepare_linear(self._options, **data, **self._data)
            return linear_loss_and_gradients(call, grad_output=grad_output)[1]
        factor = scale if math.isfinite(scale) else math.nan
        return LinearGradients(*(None if g is None else times(g, factor) for g in gradients))


def times(gradient: Array, factor: float | Array) -> Array:
    """A gradient times an upstream gradient. A zero stays one, whatever the factor: its row may not count."""
    out = np.zeros_like(gradient)
    np.multiply(gradient, factor, out=out, where=gradient != 0, casting="same_kind")
    return out
