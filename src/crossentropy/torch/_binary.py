"""The binary loss as torch's users call it."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import _reduction

from .._binary_call import binary_options
from .._options import Reduction
from ._arguments import refuse
from ._binary_composed import reduced
from ._binary_eager import BinaryLoss, loss_from_core
from ._binary_operator import element_losses, fits
from ._kernel import check_memory, is_memory, under_transform


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    r"""Compute the binary cross-entropy in nats, in place of `torch.nn.functional.binary_cross_entropy_with_logits`.

    Parameters
    ----------
    input : Tensor of float16, bfloat16, float32 or float64, any shape
        Logits.
    target : Tensor of a floating-point dtype, of the input's shape
        Probabilities of class 1.
    weight : Tensor that broadcasts to the input's shape, optional
        A factor of each loss, 0 or of a size in [1e-100, 1e100]; negative ones too. 'mean' does not divide by it. An
        element of weight 0 does not count, whatever it holds.
    size_average, reduce : bool, optional
        Deprecated by torch; they stand for a `reduction`.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements. Without any the loss is 0.
    pos_weight : Tensor that broadcasts to the input's shape, optional
        A factor of the terms of class 1, as `weight`.
    label_smoothing : float in [0, 1]
        Targets y become (1 - label_smoothing) y + label_smoothing / 2.
    focal_gamma : float
        At least 0. Each loss is multiplied by (1 - p)^focal_gamma, p the probability of the (smoothed) target, which
        for a target y between 0 and 1 is p_1 y + (1 - p_1)(1 - y).

    Returns
    -------
    Tensor
        A scalar, or for 'none' one loss an element: float64 for float64 input, else float32.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        What torch raises for shapes, dtypes and options that do not fit, in its own words; ValueError for options that
        torch does not have, and for weights out of range.

    See Also
    --------
    crossentropy.binary_cross_entropy : the same for arrays; its notes tell how exact it is.

    Notes
    -----
    Where it differs from torch's own: the mean over nothing is 0, not NaN; an element of weight 0 does not count, even
    if it is NaN; the loss of half-precision input is float32, not rounded to eight or eleven bits; the dtype of
    targets and weights does not change that of the loss.

    It is differentiable in every tensor, to any order. On the CPU loss and gradient are the core's, compiled too; with
    respect to others than `input`, from the second order on, in forward mode, under `torch.func`, on other devices and
    for subclasses of Tensor they are composed of torch's operators. At most `torch.get_num_threads()` threads are used.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import binary_cross_entropy_with_logits
    >>> input = torch.tensor([-40.0, 40.0], requires_grad=True)
    >>> loss = binary_cross_entropy_with_logits(input, torch.tensor([0.0, 1.0]))
    >>> loss.backward()
    >>> print(f"{loss.item():.4g}", [f"{g:.4g}" for g in input.grad.tolist()])
    4.248e-18 ['2.124e-18', '-2.124e-18']
    """
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    if not (isinstance(input, Tensor) and isinstance(target, Tensor) and fits(input, target, weight, pos_weight)):
        theirs = F.binary_cross_entropy_with_logits
        refuse(theirs, input, target, weight, None, None, reduction, pos_weight=pos_weight)
    try:
        options = binary_options(label_smoothing, focal_gamma, reduction)
    except (TypeError, ValueError) as error:
        refuse(F.binary_cross_entropy_with_logits, input, target, None, None, None, reduction, because=error)
    tensors = (input, target, weight, pos_weight)
    if not under_transform() and all(tensor is None or is_memory(tensor) for tensor in tensors):
        if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
            return BinaryLoss.apply(*tensors, options)
        return loss_from_core(options, *tensors)
    check_memory(input=input, target=target, weight=weight, pos_weight=pos_weight)
    return reduced(options, element_losses(options, *tensors))


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """`binary_cross_entropy_with_logits` as a module, in place of `torch.nn.BCEWithLogitsLoss`.

    Parameters
    ----------
    weight, size_average, reduce, reduction, pos_weight, label_smoothing, focal_gamma
        As for `binary_cross_entropy_with_logits`.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import BCEWithLogitsLoss
    >>> criterion = BCEWithLogitsLoss(pos_weight=torch.tensor(2.0))
    >>> criterion(torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.0, 1.0]))
    tensor(0.5051)
    """

    label_smoothing: float
    focal_gamma: float

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: Reduction = "mean",
        pos_weight: Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction, pos_weight)
        self.label_smoothing, self.focal_gamma = label_smoothing, focal_gamma

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute the loss; arguments as for `binary_cross_entropy_with_logits`."""
        return binary_cross_entropy_with_logits(
            input,
            target,
            self.weight,
            reduction=self.reduction,
            pos_weight=self.pos_weight,
            label_smoothing=self.label_smoothing,
            focal_gamma=self.focal_gamma,
        )
