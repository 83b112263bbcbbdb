"""Gradients that wait for the backward pass of a compiled program.

An operator may not return one of its arguments, and a compiler may write other things where an argument was: gradients
that are outputs of one operator and arguments of another would have to be copied. So the graph holds a token in their
place, a byte that owns them. Where it was copied, or they were taken before, they are computed anew.
"""

from collections.abc import Sequence
from weakref import WeakValueDictionary

import torch
from torch import Tensor

Gradients = Sequence[Tensor | None]


class _Owner(bytearray):
    gradients: Gradients | None


_owners: WeakValueDictionary[int, _Owner] = WeakValueDictionary()  # by the addresses of their bytes


def keep(*gradients: Tensor | None) -> Tensor:
    """A token that owns gradients as long as its memory lives."""
    owner = _Owner(1)
    owner.gradients = gradients
    token = torch.frombuffer(owner, dtype=torch.uint8)
    _owners[token.data_ptr()] = owner
    return token


def take(token: Tensor) -> Gradients | None:
    """What the token owns, once."""
    owner = _owners.get(token.data_ptr())
    if owner is None:
        return None
    gradients, owner.gradients = owner.gradients, None
    return gradients


def fake_token(like: Tensor) -> Tensor:
    return like.new_empty(1, dtype=torch.uint8)
