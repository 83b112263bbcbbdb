"""A context in which torch's own cross-entropy of a DTensor is that of this library."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from .._functional import cross_entropy
from .._kernel import is_distributed


@contextmanager
def loss_parallel() -> Iterator[None]:
    """Compute `torch.nn.functional.cross_entropy` of a DTensor here by `crossentropy.torch.cross_entropy`.

    In place of `torch.distributed.tensor.parallel.loss_parallel`, for models that call torch's function or
    `torch.nn.CrossEntropyLoss` themselves: the logits' classes, rows, or both may be split over a mesh of ranks.
    Calls with plain tensors are torch's own.

    Notes
    -----
    Where it differs from torch's context:

    - `label_smoothing`, targets that are probabilities and ranks without classes are supported, and 'mean' where rows
      are split too. The loss of a confident row keeps its digits.
    - A class index out of range raises IndexError on every rank.
    - The mean over nothing that counts is 0, and losses of half precision are float32, as `cross_entropy` tells.
    - ``backward()`` may be called inside or after it.
    - 'sum' of split rows is a replicated tensor, not one whose addition is still to come.
    - It holds for the thread that enters it, for `cross_entropy` alone; the tensors' other operators are torch's.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch.distributed import loss_parallel
    >>> criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    >>> with loss_parallel():  # the logits are a plain tensor here, in a model of several ranks a DTensor
    ...     loss = criterion(torch.tensor([[2.0, 1.0, 0.1]]), torch.tensor([0]))
    >>> loss
    tensor(0.5137)
    """
    with _OfDTensors():
        yield


class _OfDTensors(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is F.cross_entropy and is_distributed(args[0]):  # input is the first, however it was given
            return cross_entropy(*args, **kwargs)
        return func(*args, **(kwargs or {}))
