"""Losses as objects, with forward and backward."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import Array, TopKTargets, as_array, as_grad_output
from ._functional import evaluate
from ._options import Reduction, loss_options
from ._softmax import scaled, softmax


class _Forward(NamedTuple):
    """What the last forward was given and found."""

    logits: Array
    targets: Array | TopKTargets
    sample_weight: npt.ArrayLike | None
    loss: float | Array
    dlogits: Array


class CrossEntropyLoss:
    """Softmax cross-entropy as an object that remembers its last call.

    Parameters
    ----------
    axis, class_weight, ignore_index, label_smoothing, z_loss, softcap, temperature, reduction, num_threads
        As for `cross_entropy`.

    Notes
    -----
    `forward` computes loss and gradient together, `backward` hands the gradient out: logits that change in between
    do no harm.

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

    def __init__(
        self,
        *,
        axis: int = -1,
        class_weight: npt.ArrayLike | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        softcap: float | None = None,
        temperature: float = 1.0,
        reduction: Reduction = "mean",
        num_threads: int | None = None,
    ) -> None:
        self._options = loss_options(ignore_index, label_smoothing, z_loss, softcap, temperature, reduction)
        self._axis = axis
        self._class_weight = class_weight
        self._num_threads = num_threads
        self._last: _Forward | None = None

    def _evaluate(
        self,
        logits: npt.ArrayLike,
        targets: npt.ArrayLike | TopKTargets,
        sample_weight: npt.ArrayLike | None,
        grad_output: npt.ArrayLike = 1.0,
    ) -> tuple[float | Array, Array]:
        data = (logits, targets, self._axis, self._class_weight, sample_weight, self._num_threads)
        loss, dlogits = evaluate(self._options, *data, True, grad_output)
        assert dlogits is not None
        return loss, dlogits

    def forward(
        self, logits: npt.ArrayLike, targets: npt.ArrayLike | TopKTargets, sample_weight: npt.ArrayLike | None = None
    ) -> float | Array:
        """Return the loss of logits and targets, as `cross_entropy` does."""
        logits = as_array(logits)
        targets = targets if isinstance(targets, TopKTargets) else as_array(targets)
        loss, dlogits = self._evaluate(logits, targets, sample_weight)
        self._last = _Forward(logits, targets, sample_weight, loss, dlogits)
        return loss

    __call__ = forward

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
            There was no forward yet; or, in half precision, logits or targets have changed since.
        """
        last = self._forward_done("backward")
        dlogits = last.dlogits
        if dlogits.dtype.itemsize == 2:  # half precision is multiplied before it is rounded: rounded, it may be 0
            self._require_unchanged("backward")
            return self._evaluate(last.logits, last.targets, last.sample_weight, grad_output)[1]
        row_shape = np.moveaxis(dlogits, self._axis, -1).shape[:-1]
        scale, row_scale = as_grad_output(grad_output, row_shape, self._options.reduction == "none")
        factor = np.asarray(scale) if row_scale is None else np.expand_dims(row_scale, self._axis)
        factor = np.where(np.isfinite(factor), factor, np.nan)
        # A zero of the gradient stays one whatever it is multiplied by: its row may not count.
        scaled: Array = np.multiply(
            dlogits, factor, out=np.zeros_like(dlogits), where=dlogits != 0, casting="same_kind"
        )
        return scaled

    @property
    def softmax(self) -> Array:
        """The probabilities of the last forward's logits (capped, over the temperature), computed now.

        Raises RuntimeError where there was no forward yet, or where logits or targets have changed since.
        """
        last = self._forward_done("softmax")
        self._require_unchanged("softmax")
        return softmax(scaled(last.logits, self._options)[0], axis=self._axis)

    def _require_unchanged(self, what: str) -> None:
        last = self._forward_done(what)
        dlogits = self._evaluate(last.logits, last.targets, last.sample_weight)[1]
        if dlogits.tobytes() != last.dlogits.tobytes():
            raise RuntimeError(f"{what}: the logits or targets of the last forward have been changed since")

    def _forward_done(self, what: str) -> _Forward:
        if self._last is None:
            raise RuntimeError(f"{what}: call forward(logits, targets) first")
        return self._last
