"""The options of the loss: one frozen dataclass, validated here and nowhere else."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from numbers import Real
from typing import Any, Literal, TypedDict

from . import _core

Reduction = Literal["mean", "sum", "none"]

REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum", "none")

# The range of softcap, temperature and of the size of weights other than 0: products of them stay in that of float64.
SMALLEST, LARGEST, RANGE = 1e-100, 1e100, "[1e-100, 1e100]"


def as_number(name: str, value: float) -> float:
    """Check a number, as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number in the range of float64, got one beyond it") from None


def as_integer(name: str, value: int, expected: str = "an integer") -> int:
    """Check an integer, Python's or NumPy's. One beyond 64 bits is refused: some messages could not show it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{name}: expected {expected} of 64 bits, got one of {number.bit_length()}")
    return number


@dataclass(frozen=True)
class LossOptions:
    """What the loss is, beside its data: the only list of its options. An infinite `softcap` means none."""

    ignore_index: int | None = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    entropy_bonus: float = 0.0
    focal_gamma: float = 0.0
    softcap: float = math.inf
    temperature: float = 1.0
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        if self.ignore_index is not None:
            ignore_index = as_integer("ignore_index", self.ignore_index, "an integer or None")
            object.__setattr__(self, "ignore_index", ignore_index)
        for name in NUMBERS:
            value = getattr(self, name)
            if type(value) is not float:
                object.__setattr__(self, name, as_number(name, value))
        if not 0.0 <= self.label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing: expected a number in [0, 1], got {self.label_smoothing}")
        for name in ("z_loss", "focal_gamma"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a finite number of at least 0, got {getattr(self, name)}")
        if not abs(self.entropy_bonus) <= LARGEST:
            raise ValueError(f"entropy_bonus: expected a number of at most {LARGEST} in size, got {self.entropy_bonus}")
        if self.focal_gamma > 0.0 and self.label_smoothing > 0.0:
            raise ValueError(
                f"focal_gamma: expected 0 with label_smoothing {self.label_smoothing}, got {self.focal_gamma}: the "
                "focal loss is that of one class a row"
            )
        if not (SMALLEST <= self.softcap <= LARGEST or self.softcap == math.inf):
            raise ValueError(f"softcap: expected a positive number in {RANGE} or None, got {self.softcap}")
        if not SMALLEST <= self.temperature <= LARGEST:
            raise ValueError(f"temperature: expected a finite positive number in {RANGE}, got {self.temperature}")
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {self.reduction!r}")

    @cached_property
    def core(self) -> object:
        """The options as the core reads them. Made at the first call, since torch cannot trace it."""
        return _core.options(self)

    @property
    def numbers(self) -> list[float]:
        """The values of NUMBERS."""
        return [getattr(self, name) for name in NUMBERS]

    def __reduce__(self) -> tuple[type["LossOptions"], tuple[object, ...]]:
        return LossOptions, tuple(getattr(self, field.name) for field in fields(self))


# The options that are floating-point numbers.
NUMBERS = tuple(field.name for field in fields(LossOptions) if field.type is float)


class GivenOptions(TypedDict, total=False):
    """The options as a caller gives them, without the reduction: it is what overloads differ by."""

    ignore_index: int | None
    label_smoothing: float
    z_loss: float
    entropy_bonus: float
    focal_gamma: float
    softcap: float | None
    temperature: float


_DEFAULT = LossOptions()


def row_options(ignore_index: int | None, numbers: Sequence[float], reduction: str = "none") -> LossOptions:
    """Options from the values of NUMBERS, for one loss a row unless another reduction is given."""
    return _options_of(ignore_index, tuple(numbers), reduction)


@lru_cache(maxsize=64)  # making them costs more than a small loss
def _options_of(ignore_index: int | None, numbers: tuple[float, ...], reduction: Any) -> LossOptions:
    return LossOptions(ignore_index, reduction=reduction, **dict(zip(NUMBERS, numbers, strict=True)))


def loss_options(
    *,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    entropy_bonus: float = 0.0,
    focal_gamma: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> LossOptions:
    """Validated options; the shared default instance where nothing differs from it (building one costs 2 µs)."""
    if (
        reduction == "mean"
        and type(ignore_index) is int  # what only equals a default, as False does 0.0, is refused below
        and type(label_smoothing) is type(z_loss) is type(temperature) is float
        and type(entropy_bonus) is type(focal_gamma) is float
        and ignore_index == -100
        and label_smoothing == 0.0
        and z_loss == entropy_bonus == focal_gamma == 0.0
        and softcap is None
        and temperature == 1.0
    ):
        return _DEFAULT
    return LossOptions(
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        entropy_bonus=entropy_bonus,
        focal_gamma=focal_gamma,
        softcap=math.inf if softcap is None else softcap,
        temperature=temperature,
        reduction=reduction,
    )
