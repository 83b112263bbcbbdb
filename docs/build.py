"""Fills the templates of this folder with what the library computes and what was measured: numbers, outputs, pictures.

    python docs/build.py [FOLDER]

Writes README.md, a page of docs/ for each other .md.j2, and their pictures, into FOLDER, by default the project's. In a
template, `run` shows a command with its output (or the steps of it whose titles begin so), `python` shows code with its
output, `number` writes a number as the lesson does; `f` are the lesson's formulas, `m` and `M` write one in a line or
as a block; `results` is results.json, `figures` are the functions of it, `scaling` is the model of many ranks.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import figures
import jinja2
import numpy as np
import scaling

import crossentropy as ce
from crossentropy._arrays import LARGE
from crossentropy._explain import Explanation, _formulas
from crossentropy._explain._notation import number
from crossentropy._explain._tree import Formula
from crossentropy._head import MAX_LOGITS_BYTES

HERE = Path(__file__).parent
COMMAND = Path(sys.executable).with_name("crossentropy")


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def run(command: str, *titles: str) -> str:
    """A command and what it prints; with titles, only those steps."""
    program, *arguments = shlex.split(command)
    assert program == "crossentropy"
    environment = {**os.environ, "COLUMNS": "88", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, env=environment, encoding="utf-8")
    output = "\n".join(line.rstrip() for line in (done.stdout + done.stderr).splitlines())
    if titles:
        steps = re.split(r"(?m)^(?=\d+\. )", output)
        chosen = [step.strip() for title in titles for step in steps if re.match(rf"\d+\. {title}", step)]
        assert len(chosen) == len(titles), f"{command}: steps {titles}"
        output = "\n\n".join(["⋮", *chosen, "⋮"])
    return _block("console", f"$ {command}\n{output}")


def python(code: str) -> str:
    """Code and what it prints; an error as its last line."""
    code, printed = code.strip(), io.StringIO()
    with contextlib.redirect_stdout(printed), np.errstate(all="ignore"):
        try:
            exec(code, {"np": np, "ce": ce})
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
    return f"{_block('python', code)}\n\n{_block('text', printed.getvalue())}"


def block_formula(formula: Formula) -> str:
    """A formula in a paragraph of its own."""
    return f"$$\n{formula.tex()}\n$$"


def build(root: Path) -> list[Path]:
    """Write all pages; their pictures go to docs/."""
    folder = root / "docs"
    folder.mkdir(exist_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )

    def picture(explanation: Explanation, name: str) -> None:
        explanation.plot(folder / name)

    pages = []
    names = {"ce": ce, "np": np, "run": run, "python": python, "number": number, "picture": picture}
    names |= {"f": _formulas, "m": lambda formula: f"${formula.tex()}$", "M": block_formula}
    names |= {"figures": figures, "results": figures.RESULTS, "scaling": scaling}
    names |= {"default_mebibytes": MAX_LOGITS_BYTES >> 20, "kept_mebibytes": LARGE >> 20}
    figures.draw_speed(folder / "speed.png")
    scaling.draw(folder / "scaling.png")
    for template in sorted(HERE.glob("*.md.j2")):
        page = (root if template.stem == "README.md" else folder) / template.stem
        page.write_text(environment.get_template(template.name).render(names), encoding="utf-8")
        pages.append(page)
    return pages


if __name__ == "__main__":
    for path in build(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent):
        print(f"wrote {path}")
