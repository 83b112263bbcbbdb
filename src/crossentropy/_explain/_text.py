"""Steps as text for a terminal, by rich."""

import textwrap
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from ._step import Step, Table


def text(steps: Iterable[Step]) -> RenderableType:
    """All steps, numbered."""
    return Group(*(_Numbered(i, step) for i, step in enumerate(steps, 1)))


_INDENT = (0, 0, 0, 3)


def _wrapped(line: str, options: ConsoleOptions, style: str = "") -> Text:
    """Wrap a line here, since rich would pad it with spaces."""
    width = max(options.max_width - 1, 4)
    return Text(textwrap.fill(line, width, initial_indent="   ", subsequent_indent="   "), style=style)


class _Numbered:
    """A step with its number, as rich prints it."""

    def __init__(self, number: int, step: Step) -> None:
        self.number, self.step = number, step

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        step = self.step
        yield Text(f"{self.number}. {step.title}", style="bold")
        side_by_side = bool(step.lines) and len(step.formula) + max(map(len, step.lines)) + 6 <= options.max_width
        if side_by_side:
            head = RichTable.grid(padding=(0, 3))
            head.add_row(Text(step.formula, style="cyan"), Text("\n".join(step.lines)))
            yield Padding(head, _INDENT, expand=False)
        else:
            if step.formula:
                yield _wrapped(step.formula, options, "cyan")
            yield from (_wrapped(line, options) for line in step.lines)
        if step.table is not None:
            for part in step.table.chunks(options.max_width - 4):
                yield Padding(_table(part), _INDENT, expand=False)
        if step.note:
            yield _wrapped(step.note, options, "dim")
        yield Text("")


def _table(table: Table) -> RichTable:
    grid = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    grid.add_column("")
    for name in table.columns:
        grid.add_column(Text(name), justify="right", no_wrap=True)
    for name, cells in zip(table.rows, table.cells, strict=True):
        row = [Text(name)]
        for cell in cells:
            shown = Text(f"{cell.expression}\n", style="dim") if any(c.expression for c in cells) else Text()
            row.append(shown.append(Text(cell.result, style="bold green" if cell.strong else "not dim")))
        grid.add_row(*row)
    return grid
