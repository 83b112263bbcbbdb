"""Steps as HTML with MathML for notebooks, and as LaTeX."""

from collections.abc import Iterable
from html import escape

from ._latex import latex_words
from ._step import Cell, Prose, Step, Table, parts_of
from ._tree import Formula


def html(steps: Iterable[Step]) -> str:
    """A numbered list with tables and formulas, without style sheet or script."""
    return "<ol>" + "".join(f"<li>{_html_step(step)}</li>" for step in steps) + "</ol>"


def html_prose(prose: Prose) -> str:
    return "".join(part.mathml() if isinstance(part, Formula) else escape(part) for part in parts_of(prose))


def _html_step(step: Step) -> str:
    parts = [f"<strong>{escape(step.title)}</strong>"]
    parts += [f"<p>{formula.mathml(block=True)}</p>" for formula in (*step.formulas, *step.lines)]
    if step.table is not None:
        head = "".join(f"<th>{html_prose((name,))}</th>" for name in ("", *step.table.columns))
        body = "".join(
            f"<tr><th>{html_prose((name,))}</th>{''.join(map(_html_cell, cells))}</tr>"
            for name, cells in zip(step.table.rows, step.table.cells, strict=True)
        )
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if step.note:
        parts.append(f"<p>{html_prose(step.note)}</p>")
    return "".join(parts)


def _html_cell(cell: Cell) -> str:
    value = cell.value.mathml()
    result = f"<strong>{value}</strong>" if cell.strong else value
    return f"<td>{cell.expression.mathml()}<br>= {result}</td>" if cell.expression else f"<td>{result}</td>"


def tex(steps: Iterable[Step]) -> str:
    """A numbered list with displayed formulas. It needs the package amsmath."""
    lines = ["% needs \\usepackage{amsmath}", r"\begin{enumerate}"]
    for step in steps:
        lines.append(rf"\item \textbf{{{latex_words(step.title)}}}")
        if step.note:
            lines.append("".join(_tex_part(part) for part in parts_of(step.note)))
        lines += [rf"\[ {formula.tex()} \]" for formula in step.formulas]
        if step.table is not None:
            for part in step.table.chunks(80):
                lines += _tex_table(part)
        lines += [rf"\[ {formula.tex()} \]" for formula in step.lines]
    return "\n".join([*lines, r"\end{enumerate}", ""])


def _tex_part(part: str | Formula) -> str:
    return f"${part.tex()}$" if isinstance(part, Formula) else latex_words(part)


def _tex_heading(name: str | Formula) -> str:
    return name.tex() if isinstance(name, Formula) else rf"\text{{{latex_words(name)}}}"


def _tex_table(table: Table) -> list[str]:
    sides = "".join("l" if table.has_words(j) else "r" for j in range(len(table.columns)))
    lines = [rf"\[ \begin{{array}}{{l{sides}}}"]
    lines.append(" & ".join(["", *map(_tex_heading, table.columns)]) + r" \\ \hline")
    for name, cells in zip(table.rows, table.cells, strict=True):
        lines.append(" & ".join([_tex_heading(name), *map(_tex_cell, cells)]) + r" \\")
    return [*lines, r"\end{array} \]"]


def _tex_cell(cell: Cell) -> str:
    return f"{cell.expression.tex()} = {cell.value.tex()}" if cell.expression else cell.value.tex()
