"""Calls of the adapters as mypy reads them, and those that it must refuse; never run.

PyTorch's and JAX's own types are unknown to it here: what is left are names, their places, and the options.
"""

from typing import Any, assert_type

import crossentropy.jax as cj
import crossentropy.torch as ct
from crossentropy._options import Reduction


def of_torch(tensor: Any, reduction: Reduction) -> None:
    ct.cross_entropy(tensor, tensor, tensor, None, -100, None, reduction, 0.1, z_loss=1e-4, softcap=30, temperature=2)
    ct.cross_entropy(tensor, tensor, sample_weight=tensor, num_items=8)
    ct.linear_cross_entropy(
        tensor,
        tensor,
        tensor,
        linear_bias=tensor,
        weight=None,
        reduction=reduction,
        ignore_index=None,
        label_smoothing=0.1,
        z_loss=1e-4,
        softcap=30,
        temperature=2,
        sample_weight=tensor,
        num_items=tensor,
    )
    ct.binary_cross_entropy_with_logits(
        tensor, tensor, tensor, None, None, reduction, tensor, label_smoothing=0.1, focal_gamma=2
    )
    ct.BCEWithLogitsLoss(tensor, reduction=reduction, pos_weight=tensor, focal_gamma=2)(tensor, tensor)
    ct.CrossEntropyLoss(tensor, reduction=reduction, softcap=30)(tensor, tensor, sample_weight=tensor, num_items=8)
    ct.LinearCrossEntropyLoss(16, 1000, bias=True, reduction=reduction)(tensor, tensor, sample_weight=tensor)
    for module in (ct.CrossEntropyLoss(), ct.LinearCrossEntropyLoss(16, 1000)):
        assert_type(module.z_loss, float)
        assert_type(module.softcap, float | None)
        assert_type(module.temperature, float)

    ct.cross_entropy(tensor, tensor, reduction="max")  # type: ignore[arg-type]
    ct.linear_cross_entropy(tensor, tensor, tensor, reduction="max")  # type: ignore[arg-type]
    ct.CrossEntropyLoss(reduction="max")  # type: ignore[arg-type]
    ct.LinearCrossEntropyLoss(16, 1000, reduction="max")  # type: ignore[arg-type]
    ct.binary_cross_entropy_with_logits(tensor, tensor, reduction="max")  # type: ignore[arg-type]
    ct.cross_entropy(tensor, tensor, class_weight=tensor)  # type: ignore[call-arg]
    ct.cross_entropy(tensor, tensor, None, None, -100, None, "mean", 0.1, 1e-4)  # type: ignore[call-arg]
    ct.cross_entropy(tensor, tensor, ignore_index=None)  # type: ignore[arg-type]
    ct.LinearCrossEntropyLoss(16, 1000, ())  # type: ignore[call-arg]


def of_jax(array: Any, reduction: Reduction) -> None:
    cj.cross_entropy(
        array,
        array,
        axis=1,
        where=array,
        class_weight=array,
        sample_weight=array,
        ignore_index=None,
        label_smoothing=0.1,
        z_loss=1e-4,
        softcap=30,
        temperature=2,
        reduction=reduction,
    )
    cj.linear_cross_entropy(array, array, array, bias=array, reduction=reduction, max_logits_bytes=1 << 20)
    cj.softmax_cross_entropy(array, array, None, array)
    cj.softmax_cross_entropy(array, array, axis=(0, 2))
    cj.softmax_cross_entropy_with_integer_labels(array, array, (0, 2), where=array)
    cj.binary_cross_entropy(array, array, pos_weight=2, sample_weight=array, focal_gamma=2, reduction=reduction)
    cj.sigmoid_binary_cross_entropy(array, array)
    cj.sigmoid_focal_loss(array, array, alpha=0.25, gamma=2)

    cj.binary_cross_entropy(array, array, reduction="max")  # type: ignore[arg-type]
    cj.cross_entropy(array, array, reduction="max")  # type: ignore[arg-type]
    cj.linear_cross_entropy(array, array, array, reduction="max")  # type: ignore[arg-type]
    cj.cross_entropy(array, array, 1)  # type: ignore[call-arg]
    cj.cross_entropy(array, array, axis=(0, 1))  # type: ignore[arg-type]
    cj.cross_entropy(array, array, weight=array)  # type: ignore[call-arg]
    cj.softmax_cross_entropy(array, array, reduction="mean")  # type: ignore[call-arg]
    cj.softmax_cross_entropy_with_integer_labels(array, array, axis=None)  # type: ignore[arg-type]
