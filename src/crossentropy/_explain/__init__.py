"""The loss step by step: its numbers, its steps, their text, their picture."""

from ._compute import explain
from ._explanation import Explanation

__all__ = ["Explanation", "explain"]
