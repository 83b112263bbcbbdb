"""The losses as torch's users call them."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn import _reduction

from .._options import Reduction, loss_options
from . import _eager, _loss_operator
from ._arguments import check_focal, check_weights, divisor_of, fits, fits_head, refuse
from ._head_chunks import as_head
from ._head_operator import head_loss
from ._kernel import TargetTensors, check_memory, is_distributed, row_shape


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    *,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""Compute the softmax cross-entropy in nats, in place of `torch.nn.functional.cross_entropy`.

    Parameters
    ----------
    input : Tensor of float16, bfloat16, float32 or float64, shape (C,), (N, C) or (N, C, d_1, ..., d_K)
        Logits.
    target : Tensor
        Class indices (int64 or uint8), of the input's shape without C; or probabilities (floating point), of the
        input's shape, which need not sum to one.
    weight : Tensor of shape (C,), optional
        A weight for each class, 0 or of a size in [1e-100, 1e100]; negative ones too.
    size_average, reduce : bool, optional
        Deprecated by torch; they stand for a `reduction`.
    ignore_index : int
        Rows with this class index do not count.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of rows that count, for class indices by the sum of their targets' class weights.
        Where no row counts the loss is 0; where weights of both signs add up to 0 it is NaN.
    label_smoothing : float in [0, 1]
        The part of each target that is spread evenly over all classes.
    z_loss : float
        Factor of the squared log-sum-exp that is added to each row's loss, at least 0. Class and sample weights
        multiply it too.
    entropy_bonus : float
        Factor of the entropy of the prediction that is subtracted from each row's loss, the confidence penalty; one
        below 0 adds it. Class and sample weights multiply it as they do the z-loss.
    focal_gamma : float
        Each row's loss is multiplied by (1 - p) ** focal_gamma, p the probability of its class: the focal loss, which
        learns less from what is right already. At least 0; for class indices without smoothing.
    softcap : float, optional
        Logits z become softcap * tanh(z / softcap) first; in [1e-100, 1e100].
    temperature : float
        (Capped) logits are divided by it; in [1e-100, 1e100].
    sample_weight : Tensor of the input's shape without C, optional
        A weight for each row, as `weight`; the mean's divisor counts it. A row of weight 0 does not count,
        whatever it holds.
    num_items : number or Tensor of one, optional
        What 'mean' divides by instead, at least 0: for a batch that comes in parts, the items of them all.

    Returns
    -------
    Tensor
        A scalar, or for 'none' one loss a row: float64 for float64 input, else float32.

    Raises
    ------
    RuntimeError, ValueError, TypeError, NotImplementedError
        What torch raises for shapes, dtypes and options that do not fit, in its own words; ValueError for options that
        torch does not have.
    IndexError
        A class index is neither in [0, C) nor `ignore_index`.

    See Also
    --------
    crossentropy.cross_entropy : the same for arrays; its notes tell how exact it is.

    Notes
    -----
    Where it differs from torch's own: the mean over nothing that counts is 0, with zero gradients, not NaN; the loss
    of half-precision input is float32, not rounded to eight or eleven bits.

    On the CPU loss and gradient are the core's, at any order of differentiation, under `torch.func` and compiled; in
    forward mode, on other devices and for subclasses of Tensor they are composed of torch's operators. At most
    `torch.get_num_threads()` threads are used.

    Of a DTensor each rank computes on its part, rows or classes; the loss is a DTensor, and the gradient lies as the
    logits do. Targets and weights are DTensors, or plain tensors of the whole shape that every rank holds.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import cross_entropy
    >>> input = torch.tensor([[20.0, 0.0, 0.0]], requires_grad=True)
    >>> loss = cross_entropy(input, torch.tensor([0]))
    >>> loss.backward()
    >>> print(f"{loss.item():.4g}", [f"{g:.4g}" for g in input.grad[0].tolist()])
    4.122e-09 ['-4.122e-09', '2.061e-09', '2.061e-09']
    """
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    targets = TargetTensors(target, weight, sample_weight)
    if not (isinstance(input, Tensor) and isinstance(target, Tensor) and fits(input, targets, ignore_index)):
        refuse(F.cross_entropy, input, target, weight, None, ignore_index, None, reduction, label_smoothing)
    try:
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
    except (TypeError, ValueError) as error:
        torch_options = (weight, None, ignore_index, None, reduction, label_smoothing)
        refuse(F.cross_entropy, input, target, *torch_options, because=error)
    check_focal(options, input.shape, target)
    if weight is not None or sample_weight is not None:
        check_weights(row_shape(input), weight, sample_weight)
    if num_items is not None:
        num_items = divisor_of(num_items, options.reduction)
    if is_distributed(input):
        from .distributed import _dtensor

        return _dtensor.loss(options, input, targets, num_items)
    if (num_items is None or not isinstance(num_items, Tensor)) and _eager.is_plain(input, targets):
        return _eager.loss(options, input, targets, num_items)
    check_memory(input=input, **targets._asdict())
    return _loss_operator.loss(options, input, targets, num_items)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
    num_items: float | Tensor | None = None,
    options: Any = None,
) -> Tensor:
    r"""Compute the cross-entropy of ``input @ linear_weight.T + linear_bias``, in place of torch's own function.

    The logits are made a chunk of rows at a time and never held all at once, nor is their gradient.

    Parameters
    ----------
    input : Tensor of float16, bfloat16, float32 or float64, shape (D,) or (N, D)
        Hidden states.
    linear_weight : Tensor of shape (C, D) or (C, d_1, ..., d_K, D)
        The classifier.
    target : Tensor
        Class indices of shape (), (N,) or (N, d_1, ..., d_K); or probabilities of shape (C,), (N, C) or
        (N, C, d_1, ..., d_K).
    linear_bias : Tensor of shape (C,) or (C, d_1, ..., d_K), optional
        Added to the logits.
    weight, reduction, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature
        As for `cross_entropy`.
    sample_weight, num_items
        As for `cross_entropy`.
    ignore_index : int, optional
        Rows with this class index do not count; -100 where it is not given.
    options : optional
        Accepted as torch accepts it, and ignored: chunks are chosen here.

    Returns
    -------
    Tensor
        As for `cross_entropy`.

    Raises
    ------
    RuntimeError, ValueError, TypeError, IndexError
        As for `cross_entropy`.

    Notes
    -----
    Loss and gradients of 'mean' and 'sum' take three products. 'none' takes four: the logits are made again when
    their upstream gradients are known; so does another upstream gradient than 1 in half precision.

    Beside inputs and gradients there are 64 MiB of logits; in half precision at least half of all, so that at most two
    chunks round what they add to the classifier's gradient. The loss is exact to float32 for the logits as the product
    rounds them.

    float32 and float64 are multiplied by NumPy's BLAS where it is much faster than torch's (measured once in a
    process). A compiled program is one for all numbers of rows. Where the gradient itself is to be differentiated, in
    forward mode, under `torch.func` and on other devices, the same is composed of torch's operators, in row chunks
    (compiled, of all rows at once).

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import linear_cross_entropy
    >>> hidden = torch.tensor([[1.0, 0.5]], requires_grad=True)
    >>> loss = linear_cross_entropy(hidden, torch.eye(2), torch.tensor([0]))
    >>> loss.backward()
    >>> hidden.grad
    tensor([[-0.3775,  0.3775]])
    """
    arguments: dict[str, Any] = {
        "linear_bias": linear_bias,
        "weight": weight,
        "reduction": reduction,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
    }
    given = (input, linear_weight, target)
    if not (
        all(isinstance(tensor, Tensor) for tensor in given) and fits_head(*given, linear_bias, weight, ignore_index)
    ):
        refuse(F.linear_cross_entropy, *given, **arguments)
    try:
        loss_of = loss_options(
            ignore_index=-100 if ignore_index is None else ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            entropy_bonus=entropy_bonus,
            focal_gamma=focal_gamma,
            softcap=softcap,
            temperature=temperature,
            reduction=reduction,
        )
    except (TypeError, ValueError) as error:
        refuse(F.linear_cross_entropy, *given, because=error, **arguments)

    head, batched = as_head(input, linear_weight, linear_bias), input.dim() == 2
    if not batched:
        target = target.unsqueeze(0)
        sample_weight = None if sample_weight is None else sample_weight.unsqueeze(0)
    check_focal(loss_of, head.logits.shape, target)
    if weight is not None or sample_weight is not None:
        check_weights(row_shape(head.logits), weight, sample_weight)
    if num_items is not None:
        num_items = divisor_of(num_items, loss_of.reduction)
    loss = head_loss(loss_of, head, TargetTensors(target, weight, sample_weight), num_items)
    return loss if batched or reduction != "none" else loss.squeeze(0)
