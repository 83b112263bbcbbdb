"""What `explain` refuses beyond what `cross_entropy` does, and the names of the classes."""

import math
from collections.abc import Iterable, Sequence

import numpy.typing as npt

from .._arrays import Array, Shape
from .._probabilities import looks_like_probabilities
from .._targets import TopKTargets

MAX_ROWS, MAX_LOGITS = 32, 1 << 22
MAX_NAMES = 20  # that an error lists


def refuse_many(name: str, shape: Shape) -> None:
    """Refuse what is too large to explain. The shape is enough, so a file is refused before it is read."""
    rows, classes = math.prod(shape[:-1]), math.prod(shape[-1:])
    if rows > MAX_ROWS or rows * classes > MAX_LOGITS:
        raise ValueError(
            f"{name}: expected at most {MAX_ROWS} rows and {MAX_LOGITS:,} numbers to explain, got {rows:,} rows of "
            f"{classes:,} classes; choose some, as in logits[:8] or with --rows :8, or score them all with "
            "'crossentropy eval'"
        )


def refuse_probabilities(A: Array) -> None:
    """Refuse logits that are a softmax already."""
    if looks_like_probabilities(A):
        raise ValueError(
            "logits: these look like probabilities: no number is negative and every row sums to 1, so the softmax "
            "would be taken twice. Expected logits, the scores before the softmax; np.log(probabilities) are some. If "
            "these are logits, add 1 to each: that changes no probability"
        )


def class_names(names: Sequence[str] | None, C: int) -> tuple[str, ...]:
    """The classes' names as one printable line each; their indices where none are given."""
    if names is None:
        return tuple(map(str, range(C)))
    if isinstance(names, str) or len(names) != C:
        got = repr(names) if isinstance(names, str) else f"{len(names)}"
        raise ValueError(f"names: expected {C}, one for each class, got {got}")
    return tuple(map(_printable, names))


def _printable(name: object) -> str:
    line = " ".join(str(name).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def column_names(frame: object) -> list[str] | None:
    """The names of a DataFrame's columns, pandas' or polars'; None for anything else."""
    return list(map(str, frame.columns)) if hasattr(frame, "columns") and hasattr(frame, "to_numpy") else None


def refuse_other_columns(targets: object, columns: list[str] | None) -> None:
    """Refuse target distributions whose columns are not those of the logits, in their order."""
    found = column_names(targets)
    if None not in (found, columns) and found != columns:
        raise ValueError(f"targets: expected the columns of the logits, {_listed(columns)}, got {_listed(found)}")


def without_names(targets: npt.ArrayLike | TopKTargets, names: Sequence[str]) -> npt.ArrayLike | TopKTargets:
    """Turn names of classes into their indices; other targets stay what they are."""
    if isinstance(targets, str):
        return _index(targets, names)
    if not isinstance(targets, Iterable) or getattr(targets, "ndim", 1) != 1 or column_names(targets) is not None:
        return targets
    words = [word for word in targets if isinstance(word, str)]
    return [_index(str(word), names) for word in words] if words and len(words) == len(targets) else targets


def _index(word: str, names: Sequence[str]) -> int:
    found = [c for c, name in enumerate(names) if name == _printable(word)]
    if len(found) != 1:
        got = f"{word!r}, the name of classes {', '.join(map(str, found))}" if found else repr(word)
        raise ValueError(f"targets: expected class indices or names out of {_listed(names)}; got {got}")
    return found[0]


def _listed(names: Sequence[str] | None) -> str:
    names = names or []
    return ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else "")
