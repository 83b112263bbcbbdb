"""What `explain` is given: files, or numbers and names as people type or paste them."""

import contextlib
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import Array
from .._explain._inputs import refuse_many
from .._stored import Stored
from ._files import fail, load


def read(given: Mapping[str, str | None], names: Sequence[str] | None, rows: str | None) -> tuple[dict[str, Any], int]:
    """Read logits, targets and weights, of what has rows the chosen ones; and tell the number of the first."""
    chosen = None if rows is None else _slice(rows)
    with contextlib.ExitStack() as opened:
        found = {name: _source(name, text, names, opened) for name, text in given.items() if text is not None}
        logits, first = found["logits"], 0
        if chosen is not None:
            count = logits.shape[0] if logits.ndim > 1 else 1
            at = range(count)[chosen]
            if not at:
                fail(None, f"rows: expected some of the {count:,} rows of the logits, counted from 0, got {rows}")
            first = at[0]
        of_rows = [name for name in found if name != "class_weight" and chosen is not None and logits.ndim > 1]
        for name in of_rows:
            if found[name].shape[:1] != logits.shape[:1]:
                fail(None, f"{name}: expected {count:,} rows, as the logits have, got shape {found[name].shape}")
        arrays = {name: _array(name, source, chosen if name in of_rows else None) for name, source in found.items()}
    return _by_rows({name: arrays.get(name) for name in given}), first


def _slice(rows: str) -> slice:
    begin, colon, end = rows.partition(":")
    try:
        first, last = (int(word) if word.strip() else None for word in (begin, end))
        if not colon:
            first = int(begin)
            last = first + 1 or None  # -1 is the last row
    except ValueError:
        fail(None, f"rows: expected a row such as 3, or rows such as 3:8, :8 or 3:, got {rows!r}")
    return slice(first, last)


def _source(name: str, text: str, names: Sequence[str] | None, opened: contextlib.ExitStack) -> Array | Stored:
    if text.endswith(".npy"):
        return load(Path(text), opened)
    words = split_names(text, names) if name == "targets" and names else None
    try:
        return numbers(name, text) if words is None else np.array(words)
    except ValueError as error:
        return fail(None, error)


def _array(name: str, source: Array | Stored, chosen: slice | None) -> Array:
    shape = source.shape if chosen is None else (len(range(source.shape[0])[chosen]), *source.shape[1:])
    try:
        refuse_many(name, shape)
    except ValueError as error:
        fail(source.path if isinstance(source, Stored) else None, error)
    return source[() if chosen is None else (chosen,)]


def _by_rows(arrays: dict[str, Any]) -> dict[str, Any]:
    """One row is a matrix of one row; numbers for each row, or for each class, may stand in a column."""
    logits, targets = arrays["logits"], arrays["targets"]
    if logits.ndim == 1:
        logits = logits[None]
    classes = logits.shape[-1] if logits.ndim else 1
    if targets.ndim == 0 or targets.shape[1:] == (1,) != (classes,):
        targets = targets.reshape(-1)
    elif targets.shape == (classes,) != (1,) and logits.ndim and len(logits) == 1:
        targets = targets[None]
    weights = {
        name: weight.reshape(-1) if weight is not None and weight.size == max(weight.shape, default=1) else weight
        for name, weight in arrays.items()
        if name.endswith("weight")
    }
    return {"logits": logits, "targets": targets, **weights}


def numbers(name: str, text: str) -> Array:
    """Read numbers, parted by spaces or commas; rows by ';', line breaks or brackets. A single row has one axis."""
    text = text.replace("−", "-")  # as the lesson prints it
    if "[" in text or "]" in text:
        lines, flat = _bracketed(name, text)
    else:
        lines, flat = [line for line in re.split("[;\n]", text) if line.strip()], True
    rows = [line.replace(",", " ").split() for line in lines]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1 or lengths == [0]:
        got = f"rows of {' and '.join(map(str, lengths))}" if len(lengths) > 1 else "none"
        raise ValueError(f'{name}: expected rows of equally many numbers, as in "2.0 1.0 0.1; 0.1 2.0 1.9", got {got}')
    for number_type in (int, float):
        try:
            array = np.array([[number_type(word) for word in row] for row in rows])
        except ValueError:
            continue
        if array.dtype == object:  # integers of more than 64 bits
            continue
        return array[0] if flat and len(rows) == 1 else array
    wrong = next(word for row in rows for word in row if not _is_number(word))
    raise ValueError(f"{name}: expected numbers or the name of a .npy file, got {wrong!r}")


def _bracketed(name: str, text: str) -> tuple[list[str], bool]:
    """Split lists into rows, which NumPy breaks into lines, and tell whether it is a single list."""
    lists = r"\[([^\[\]]*)\]"
    around = re.sub(r"[\s,;]", "", re.sub(lists, "", text))
    called = re.fullmatch(r"[\w.]+\((\[\])?[^\[\]]*\)", around)  # array([[2., 1.]], dtype=float32)
    if called:
        around = called[1] or ""
    if around not in ("", "[]"):
        raise ValueError(f"{name}: expected a list of numbers or a list of such lists, got {reprlib.repr(text)}")
    rows = [line for row in re.findall(lists, text) for line in row.strip().rstrip(";").split(";")]
    return rows, around == ""


def split_names(text: str, names: Sequence[str]) -> list[str] | None:
    """Split names of classes, at commas, ';' or line breaks, else at spaces; None where all words are numbers."""
    if all(map(_is_number, re.sub(r"[\[\],;]", " ", text).split())):
        return None
    parted = re.split("[,;\n]", text.strip("[],; \t\n"))
    if len(parted) == 1 and _bare(text) not in map(_bare, names):
        parted = text.strip().strip("[]").split()
    by_bare = {_bare(name): name for name in names}  # the name of a class may have brackets or quotes itself
    return [by_bare.get(name, name) for word in parted if (name := _bare(word))]


def _bare(word: str) -> str:
    return " ".join(word.strip(" \t[]'\"").split())


def _is_number(word: str) -> bool:
    try:
        float(word.replace("−", "-"))
    except ValueError:
        return False
    return True
