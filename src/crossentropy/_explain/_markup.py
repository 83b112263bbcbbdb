"""Steps as HTML for notebooks, and as LaTeX."""

from collections.abc import Iterable
from html import escape

from ._notation import tex_formula, tex_text
from ._step import Cell, Step, Table


def html(steps: Iterable[Step]) -> str:
    """A numbered list with tables, without style sheet or script."""
    return "<ol>" + "".join(f"<li>{_html_step(step)}</li>" for step in steps) + "</ol>"


def _html_step(step: Step) -> str:
    parts = [f"<strong>{escape(step.title)}</strong>"]
    if step.formula:
        parts.append(f"<br><code>{escape(step.formula)}</code>")
    parts += [f"<br>{escape(line)}" for line in step.lines]
    if step.table is not None:
        head = "".join(f"<th>{escape(name)}</th>" for name in ("", *step.table.columns))
        body = "".join(
            f"<tr><th>{escape(name)}</th>{''.join(map(_html_cell, cells))}</tr>"
            for name, cells in zip(step.table.rows, step.table.cells, strict=True)
        )
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if step.note:
        parts.append(f"<p>{escape(step.note)}</p>")
    return "".join(parts)


def _html_cell(cell: Cell) -> str:
    result = f"<strong>{escape(cell.result)}</strong>" if cell.strong else escape(cell.result)
    return f"<td>{escape(cell.expression)}<br>{result}</td>" if cell.expression else f"<td>{result}</td>"


def tex(steps: Iterable[Step]) -> str:
    """A numbered list with displayed formulas. It needs the package amsmath."""
    lines = ["% needs \\usepackage{amsmath}", r"\begin{enumerate}"]
    for step in steps:
        lines.append(rf"\item \textbf{{{tex_text(step.title)}}}")
        if step.note:
            lines.append(tex_text(step.note))
        if step.formula:
            lines.append(rf"\[ {tex_formula(step.formula)} \]")
        if step.table is not None:
            for part in step.table.chunks(80):
                lines += _tex_table(part)
        for line in step.lines:
            lines.append(rf"\[ {tex_formula(line)} \]")
    return "\n".join([*lines, r"\end{enumerate}", ""])


def _tex_table(table: Table) -> list[str]:
    lines = [rf"\[ \begin{{array}}{{l{'r' * len(table.columns)}}}"]
    head = ["", *(rf"\text{{{tex_text(name)}}}" for name in table.columns)]
    lines.append(" & ".join(head) + r" \\ \hline")
    for name, cells in zip(table.rows, table.cells, strict=True):
        lines.append(" & ".join([rf"\text{{{tex_text(name)}}}", *map(_tex_cell, cells)]) + r" \\")
    return [*lines, r"\end{array} \]"]


def _tex_cell(cell: Cell) -> str:
    if cell.words:
        return rf"\text{{{tex_text(cell.value)}}}"
    return tex_formula(f"{cell.expression} {cell.result}".strip())
