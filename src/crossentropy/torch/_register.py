"""Registration of operators, so that a compiled program reaches the core with little between.

Users of a graph see an operator that has a derivative. What it is differentiated into are two that have none: the
function itself, which makes the gradients too, and one that hands them out. A compiled program calls these, without
the checks and the questions for derivatives of torch.library.custom_op.
"""

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("crossentropy", "FRAGMENT")  # operators end with it


def operator(name: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """An operator on the CPU, without derivatives."""
    _library.define(f"{name}{torch.library.infer_schema(function, mutates_args=())}")
    _library.impl(name, function, "CPU")
    torch.library.register_fake(f"crossentropy::{name}", fake, lib=_library)
    return getattr(torch.ops.crossentropy, name).default


def differentiable_operator(
    name: str, function: Callable[..., Any], fake: Callable[..., Any], derivative: type[torch.autograd.Function]
) -> Any:
    """An operator on the CPU whose derivative is that of an autograd.Function."""
    made = operator(name, function, fake)
    _library.impl(name, lambda *arguments: derivative.apply(*arguments), "Autograd")
    return made
