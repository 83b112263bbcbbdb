"""The losses as modules."""

from typing import Any

import torch
from torch import Tensor

from .._options import Reduction
from ._functional import cross_entropy, linear_cross_entropy


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """`cross_entropy` as a module, in place of `torch.nn.CrossEntropyLoss`.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction, label_smoothing, z_loss, entropy_bonus, focal_gamma
        As for `cross_entropy`.
    softcap, temperature
        As for `cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import CrossEntropyLoss
    >>> criterion = CrossEntropyLoss(label_smoothing=0.1)
    >>> criterion(torch.tensor([[2.0, 1.0, 0.1]]), torch.tensor([0]))
    tensor(0.5137)
    """

    z_loss: float
    entropy_bonus: float
    focal_gamma: float
    softcap: float | None
    temperature: float

    def __init__(
        self,
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
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        self.z_loss, self.softcap, self.temperature = z_loss, softcap, temperature
        self.entropy_bonus, self.focal_gamma = entropy_bonus, focal_gamma

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        sample_weight: Tensor | None = None,
        num_items: float | Tensor | None = None,
    ) -> Tensor:
        """Compute the loss; arguments as for `cross_entropy`."""
        return cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
            entropy_bonus=self.entropy_bonus,
            focal_gamma=self.focal_gamma,
            softcap=self.softcap,
            temperature=self.temperature,
            sample_weight=sample_weight,
            num_items=num_items,
        )


class LinearCrossEntropyLoss(torch.nn.LinearCrossEntropyLoss):
    """A classifier and `linear_cross_entropy` as a module, in place of `torch.nn.LinearCrossEntropyLoss`.

    Parameters
    ----------
    in_features, num_classes, out_features, bias, device, dtype
        Of the classifier, as torch has them: `linear`, of D inputs and C classes at each of the K-dimensional places.
    reduction, weight, ignore_index, label_smoothing, z_loss, entropy_bonus, focal_gamma, softcap, temperature, options
        As for `linear_cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import LinearCrossEntropyLoss
    >>> criterion = LinearCrossEntropyLoss(16, 1000)
    >>> criterion(torch.zeros(4, 16), torch.tensor([1, 2, 3, 4]))
    tensor(6.9078, grad_fn=<_HeadLossBackward>)
    """

    z_loss: float
    entropy_bonus: float
    focal_gamma: float
    softcap: float | None
    temperature: float

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        reduction: Reduction = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        entropy_bonus: float = 0.0,
        focal_gamma: float = 0.0,
        softcap: float | None = None,
        temperature: float = 1.0,
        options: Any = None,
    ) -> None:
        super().__init__(
            in_features,
            num_classes,
            out_features=out_features,
            bias=bias,
            device=device,
            dtype=dtype,
            reduction=reduction,
            weight=weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            options=options,
        )
        self.z_loss, self.softcap, self.temperature = z_loss, softcap, temperature
        self.entropy_bonus, self.focal_gamma = entropy_bonus, focal_gamma

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        sample_weight: Tensor | None = None,
        num_items: float | Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of what the classifier makes of `input`; arguments as for `linear_cross_entropy`."""
        shape = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return linear_cross_entropy(
            input,
            self.linear.weight.reshape(*shape, self.linear.in_features),
            target,
            linear_bias=None if bias is None else bias.reshape(shape),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
            entropy_bonus=self.entropy_bonus,
            focal_gamma=self.focal_gamma,
            softcap=self.softcap,
            temperature=self.temperature,
            sample_weight=sample_weight,
            num_items=num_items,
        )
