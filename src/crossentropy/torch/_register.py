"""Registration of operators, with less between a compiled program and the core than torch.library.custom_op has."""

from collections.abc import Callable
from typing import Any

import torch


def operators(**functions: tuple[Callable[..., Any], ...]) -> torch.library.Library:
    """Register operators by their names: their functions on the CPU, their fakes, what they save, their derivatives.

    The library must be kept: they end with it.
    """
    library = torch.library.Library("crossentropy", "FRAGMENT")
    for name, (function, fake, save, backward) in functions.items():
        library.define(name + torch.library.infer_schema(function, mutates_args=()))
        library.impl(name, function, "CPU")
        torch.library.register_fake(f"crossentropy::{name}", fake, lib=library)
        torch.library.register_autograd(f"crossentropy::{name}", backward, setup_context=save, lib=library)
    return library
