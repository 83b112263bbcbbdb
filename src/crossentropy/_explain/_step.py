"""What a lesson is made of: steps, tables, cells. Nothing here depends on the loss."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """A cell of a table."""

    value: str  # a number, or words
    expression: str = ""  # what the number is computed from
    strong: bool = False  # printed in bold
    words: bool = False  # whether the value is words

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
        """Split the table into tables of some of its columns, each at most `width` characters wide if it can be."""
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
    """One step of a lesson."""

    title: str
    formula: str = ""
    note: str = ""  # why
    table: Table | None = None
    lines: tuple[str, ...] = ()  # the formula with numbers in it
