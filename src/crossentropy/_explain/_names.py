"""The classes' names in the picture: short, distinct, in letters that its font has."""

from collections.abc import Iterable

from matplotlib.font_manager import findfont, get_font
from matplotlib.textpath import TextPath

from ._numbers import LossNumbers

FONT, FONT_SIZE = "DejaVu Sans", 9  # matplotlib brings this font along
MAX_NAME, MAX_WIDTH = 12, 76  # letters of a class's name, and points
_MISSING = "□"  # for a letter that the font lacks


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """How wide a text is, in points."""
    if not text.strip():
        return 0.0
    literal = text.replace("$", r"\$")  # else what stands between two is read as a formula
    return float(TextPath((0, 0), literal, size=size).get_extents().width)


def labels(x: LossNumbers, classes: Iterable[int]) -> list[str]:
    """The classes' names, shortened, in letters of the font; their numbers where that leaves two the same."""
    font = get_font(findfont(FONT))
    found = {}
    for c in classes:
        name = "".join(letter if font.get_char_index(ord(letter)) else _MISSING for letter in x.names[c])
        found[c] = _short(name) if set(name) - {_MISSING, " "} else str(c)
    names = list(found.values())
    return [str(c) if names.count(name) > 1 else name for c, name in found.items()]


def _short(name: str) -> str:
    """Both ends of a name, since many differ at one of them."""
    if len(name) <= MAX_NAME and text_width(name) <= MAX_WIDTH:
        return name
    for kept in range(MAX_NAME, 3, -2):
        short = f"{name[: kept // 2]}…{name[1 - kept // 2 :]}"
        if text_width(short) <= MAX_WIDTH:
            break
    return short
