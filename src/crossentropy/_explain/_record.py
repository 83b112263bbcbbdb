"""The base of everything that an explanation returns: frozen records of numbers and read-only arrays."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


class Record:
    """A frozen dataclass whose arrays cannot be written to."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                own = value.copy()
                own.flags.writeable = False
                object.__setattr__(self, name, own)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.__post_init__()

    def to_dict(self) -> dict[str, Any]:
        """All numbers as lists, for JSON. Numbers that are not finite become "NaN", "Infinity" or "-Infinity"."""
        return {name: _plain(value) for name, value in vars(self).items() if not name.startswith("_")}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
