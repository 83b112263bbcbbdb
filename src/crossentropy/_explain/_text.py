"""Steps as text for a terminal, by rich."""

import textwrap
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from ._step import Step, Table, plain


def text(steps: Iterable[Step]) -> RenderableType:
    """All steps, numbered."""
    return Group(*(_Numbered(i, step) for i, step in enumerate(steps, 1)))


_INDENT = (0, 0, 0, 3)


def _wrapped(text: str, options: ConsoleOptions, style: str = "") -> Text:
    """Wrap a line here, since rich would pad it with spaces. The lines of a matrix stay whole."""
    width = max(options.max_width - 1, 4)
    if "\n" in text:
        return Text(textwrap.indent(text, "   "), style=style, no_wrap=True, overflow="ignore")
    return Text(textwrap.fill(text, width, initial_indent="   ", subsequent_indent="   "), style=style)


class _Numbered:
    """A step with its number, as rich prints it."""

    def __init__(self, number: int, step: Step) -> None:
        self.number, self.step = number, step

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        step = self.step
        yield Text(f"{self.number}. {step.title}", style="bold")
        formulas, lines = "\n".join(map(str, step.formulas)), "\n".join(map(str, step.lines))
        if step.formulas and step.lines and _width(formulas) + _width(lines) + 6 <= options.max_width:
            head = RichTable.grid(padding=(0, 3))
            head.add_row(Text(formulas, style="cyan"), Text(lines))
            yield Padding(head, _INDENT, expand=False)
        else:
            yield from (_wrapped(str(formula), options, "cyan") for formula in step.formulas)
            yield from (_wrapped(str(line), options) for line in step.lines)
        if step.table is not None:
            for part in step.table.chunks(options.max_width - 4):
                yield Padding(_table(part), _INDENT, expand=False)
        if step.note:
            yield _wrapped(plain(step.note), options, "dim")
        yield Text("")


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))


def _table(table: Table) -> RichTable:
    grid = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    grid.add_column("")
    for j, name in enumerate(table.columns):
        grid.add_column(Text(str(name)), justify="left" if table.has_words(j) else "right", no_wrap=True)
    for name, cells in zip(table.rows, table.cells, strict=True):
        row = [Text(str(name))]
        for cell in cells:
            shown = Text(f"{cell.expression or ''}\n", style="dim") if any(c.expression for c in cells) else Text()
            row.append(shown.append(Text(cell.result, style="bold green" if cell.strong else "not dim")))
        grid.add_row(*row)
    return grid
