"""The live page: the loss, its gradient and its Jacobian on the reader's own numbers, in one file of HTML."""

import json
import math
import reprlib
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_ROWS, MAX_CLASSES, MAX_LOGIT, MAX_NAME, MAX_TRACE = 8, 10, 10000, 60, 200
_DEFAULTS = {
    "temperature": 1,
    "label_smoothing": 0,
    "reduction": "mean",
    "rate": 1,
    "trace": [],
    "row": 0,
    "entry": [0, 0],
}
_LARGEST = sys.float_info.max
_OPTIONS = (
    ("temperature", 0.05, 20, "a number from 0.05 to 20"),
    ("label_smoothing", 0, 1, "a number from 0 to 1"),
    ("rate", math.ulp(0), 100, "a number above 0, up to 100"),
)
_OPEN, _CLOSE = '<script type="application/json" id="data">', "</script>"


def page(state: Mapping[str, Any] | None = None) -> str:
    """Return the page as HTML, with a state in place of the example's.

    Parameters
    ----------
    state : mapping, optional
        `logits`, a list of rows; `targets`, class indices or rows of probabilities; `names` of the classes. As there
        is need `temperature`, `label_smoothing`, `reduction` ("mean" or "sum"), the learning `rate`; `trace`, the loss
        before each step that was taken; the `row` that is looked at, and the `entry` of its Jacobian.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        The page cannot show the state: too many rows or classes, logits too large, ...
    """
    html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    if state is None:
        return html
    state = _DEFAULTS | dict(state)
    problem = validate(state)
    if problem:
        raise ValueError(problem)
    before, _, after = html.partition(_OPEN)
    return before + data_block(state) + after.partition(_CLOSE)[2]


def data_block(state: Mapping[str, Any]) -> str:
    """The element of the page that holds the state; nothing in it can end the element."""
    return _OPEN + json.dumps(state, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c") + _CLOSE


def validate(state: Mapping[str, Any]) -> str | None:
    """What is wrong with a state, in words; None where nothing is. `validate` in state.mjs refuses the same."""
    get: Callable[[str], Any] = state.get
    logits, targets, names, trace = get("logits"), get("targets"), get("names"), get("trace")
    if not _is_list(logits, 1, MAX_ROWS):
        return _wrong("logits", f"1 to {MAX_ROWS} rows", _count(logits))
    for row in logits:
        if not _is_list(row, 2, MAX_CLASSES) or len(row) != len(logits[0]):
            return _wrong("logits", f"rows of equally many classes, 2 to {MAX_CLASSES}", _count(row))
    for z in (z for row in logits for z in row):
        if not _in_range(z, -MAX_LOGIT, MAX_LOGIT):
            return _wrong("logits", f"numbers from -{MAX_LOGIT} to {MAX_LOGIT}", z)
    N, C = len(logits), len(logits[0])
    if not _is_list(targets, N, N):
        return _wrong("targets", f"{N}, one for each row", _count(targets))
    if not all(_is_index(t, C) for t in targets) and not all(_is_distribution(t, C) for t in targets):
        return _wrong(
            "targets", f"class indices from 0 to {C - 1}, or rows of {C} probabilities that sum to 1", list(targets)
        )
    if not _is_list(names, C, C):
        return _wrong("names", f"{C}, one for each class", _count(names))
    for name in names:
        if not _is_name(name):
            return _wrong("names", f"1 to {MAX_NAME} printable characters each", name)
    for option, least, most, expected in _OPTIONS:
        if not _in_range(get(option), least, most):
            return _wrong(option, expected, get(option))
    if get("reduction") not in ("mean", "sum"):
        return _wrong("reduction", "mean or sum", get("reduction"))
    if not _is_list(trace, 0, MAX_TRACE):
        return _wrong("trace", f"at most {MAX_TRACE} numbers", _count(trace))
    if not all(_in_range(loss, -_LARGEST, _LARGEST) for loss in trace):
        return _wrong("trace", "finite numbers", list(trace))
    if not _is_index(get("row"), N):
        return _wrong("row", f"an integer from 0 to {N - 1}", get("row"))
    if not _is_list(get("entry"), 2, 2) or not all(_is_index(k, C) for k in get("entry")):
        return _wrong("entry", f"two class indices from 0 to {C - 1}", get("entry"))
    return None


def _wrong(name: str, expected: str, got: object) -> str:
    return f"{name}: expected {expected}, got {reprlib.repr(got)}"


def _count(x: Any) -> object:
    return len(x) if _is_list(x, 0, sys.maxsize) else x


def _is_list(x: object, least: int, most: int) -> bool:
    return isinstance(x, Sequence) and not isinstance(x, str) and least <= len(x) <= most


def _in_range(x: object, least: float, most: float) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and least <= x <= most


def _is_index(t: object, count: int) -> bool:
    return isinstance(t, int | float) and _in_range(t, 0, count - 1) and float(t).is_integer()


def _is_distribution(t: Any, C: int) -> bool:
    return _is_list(t, C, C) and all(_in_range(q, 0, 2) for q in t) and abs(sum(t) - 1) <= 1e-6


def _is_name(x: object) -> bool:
    """Whether it can stand in a line: no control characters, none that turn the text around it."""
    return (
        isinstance(x, str)
        and x.replace("\ufeff", "").strip() != ""
        and len(x) <= MAX_NAME
        and not any(map(_is_unprintable, x))
    )


def _is_unprintable(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"
