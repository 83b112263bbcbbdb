"""Hashes of results."""

import hashlib
import json
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


class Hashes:
    """The cases of every function, in order: name, hash, whether it raised."""

    def __init__(self) -> None:
        self.cases: dict[str, list[tuple[str, str, bool]]] = defaultdict(list)

    def add(self, function: str, case: str, call: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Call, and note the hash of what is returned or raised."""
        try:
            result, raised = call(*args, **options), False
        except Exception as error:
            result, raised = (type(error).__name__, str(error)), True
        found = hashlib.sha256()
        for part in parts(result):
            found.update(part)
        self.cases[function].append((case, found.hexdigest(), raised))

    def lines(self) -> Iterator[str]:
        for function, cases in self.cases.items():
            found = hashlib.sha256()
            for name, digest, _ in cases:
                found.update(f"{name}\0{digest}\n".encode())
            raised = sum(raised for *_, raised in cases)
            yield f"{function:<44} {len(cases):>6} cases {raised:>5} errors  {found.hexdigest()}"

    def case_lines(self, function: str) -> Iterator[str]:
        for name, digest, raised in self.cases[function]:
            yield f"{digest[:16]} {'raises ' if raised else 'returns'} {name}"


def parts(value: Any) -> Iterator[bytes]:
    """What tells a value from every other, as bytes."""
    yield f"{type(value).__name__} ".encode()
    if isinstance(value, np.ndarray | np.generic):
        yield f"{value.dtype.str} {value.dtype.name} {value.shape} ".encode()
        yield value.tobytes()
    elif isinstance(value, float):
        yield struct.pack("<d", value)
    elif isinstance(value, tuple | list):
        yield f"{len(value)} ".encode()
        for item in value:
            yield from parts(item)
    elif isinstance(value, dict):
        yield json.dumps(value, allow_nan=False).encode()
    elif value is None or isinstance(value, bool | int | str):
        yield repr(value).encode()
    elif hasattr(value, "detach"):
        tensor = value.detach().resolve_neg().contiguous()
        yield f"{tensor.dtype} {tuple(tensor.shape)} {value.requires_grad} ".encode()
        yield (tensor.view(sys.modules["torch"].int16) if tensor.element_size() == 2 else tensor).numpy().tobytes()
    else:
        array = np.asarray(value)  # JAX's
        yield f"{value.weak_type} {array.dtype.name} {array.shape} ".encode()
        yield array.tobytes()
