"""Numbers as text."""

import math

_MINUS = "−"


def number(x: float) -> str:
    """Four decimals, or more for three significant digits. A number that needs fewer is written with fewer."""
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "∞" if x > 0 else f"{_MINUS}∞"
    size = abs(x)
    if size == 0:
        return "0"
    if 1e-4 <= size < 1e6:
        text = f"{x:.{max(4, 2 - math.floor(math.log10(size)))}f}"
        if float(text) == float(f"{x:.12g}"):
            text = text.rstrip("0").rstrip(".")
    else:
        text = f"{x:.3g}"
    return text.replace("-", _MINUS)
