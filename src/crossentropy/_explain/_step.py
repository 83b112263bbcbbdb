"""What a lesson is made of. Nothing here knows the loss."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """A number (or words), how it comes about, and whether it is the target's."""

    value: str
    expression: str = ""
    strong: bool = False
    words: bool = False

    @property
    def result(self) -> str:
        return f"= {self.value}" if self.expression else self.value


@dataclass(frozen=True)
class Table:
    """Numbers in rows and columns, each with a heading."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]

    def chunks(self, width: int) -> Iterator["Table"]:
        """The table in pieces of so many characters at most, each with the rows' names."""
        gap = 2
        widths = [
            gap + max((len(name), *(len(text) for row in self.cells for text in (row[j].expression, row[j].result))))
            for j, name in enumerate(self.columns)
        ]
        free = width - max(map(len, self.rows), default=0) - gap
        begin = 0
        while begin < len(widths):
            end, used = begin + 1, widths[begin]
            while end < len(widths) and used + widths[end] <= free:
                used += widths[end]
                end += 1
            yield Table(self.columns[begin:end], self.rows, tuple(row[begin:end] for row in self.cells))
            begin = end


@dataclass(frozen=True)
class Step:
    """One step: what it is, its formula, why; a table; lines of the formula with numbers."""

    title: str
    formula: str = ""
    note: str = ""
    table: Table | None = None
    lines: tuple[str, ...] = ()
