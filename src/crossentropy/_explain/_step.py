"""What a lesson is made of: steps, tables, cells. Nothing here depends on the loss."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ._tree import Formula, Words

# A text in which formulas stand.
Prose = str | tuple[str | Formula, ...]


def parts_of(prose: Prose) -> tuple[str | Formula, ...]:
    return (prose,) if isinstance(prose, str) else prose


def plain(prose: Prose) -> str:
    """The text with its formulas in Unicode."""
    return "".join(map(str, parts_of(prose)))


class Cell(NamedTuple):
    """A cell of a table."""

    value: Formula  # a number, or words
    expression: Formula | None = None  # what the number is computed from
    strong: bool = False  # printed in bold

    @property
    def result(self) -> str:
        return f"= {self.value}" if self.expression else str(self.value)


@dataclass(frozen=True)
class Table:
    """Numbers in rows and columns, each with a heading."""

    columns: tuple[str | Formula, ...]
    rows: tuple[str | Formula, ...]
    cells: tuple[tuple[Cell, ...], ...]

    def has_words(self, column: int) -> bool:
        """Whether a column holds words rather than numbers."""
        return all(isinstance(row[column].value, Words) for row in self.cells)

    def chunks(self, width: int) -> Iterator["Table"]:
        """Split the table into tables of some of its columns, each at most `width` characters wide if it can be."""
        gap = 2
        widths = [
            gap + max((len(str(name)), *(len(text) for row in self.cells for text in _texts(row[j]))))
            for j, name in enumerate(self.columns)
        ]
        free = width - max((len(str(name)) for name in self.rows), default=0) - gap
        begin = 0
        while begin < len(widths):
            end, used = begin + 1, widths[begin]
            while end < len(widths) and used + widths[end] <= free:
                used += widths[end]
                end += 1
            yield Table(self.columns[begin:end], self.rows, tuple(row[begin:end] for row in self.cells))
            begin = end


def _texts(cell: Cell) -> tuple[str, str]:
    return str(cell.expression or ""), cell.result


@dataclass(frozen=True)
class Step:
    """One step of a lesson."""

    title: str
    formulas: tuple[Formula, ...] = ()
    note: Prose = ""  # why
    table: Table | None = None
    lines: tuple[Formula, ...] = ()  # the formulas with numbers in them
