"""Figures of the live page in the pages of the site: where a page says `<!-- live: curve -->`, that figure stands.

All of a page show one state. Without script, and in print, they show what was drawn when the live page was built.
"""

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

HERE = Path(__file__).parent
PAGE = HERE.parent / "src" / "crossentropy" / "explore" / "page.html"


@cache
def live_page() -> BeautifulSoup:
    return BeautifulSoup(PAGE.read_text(encoding="utf-8"), "html.parser")


def figure(name: str) -> str | None:
    """The figure or the control of that name, with what belongs to it."""
    found = live_page().select_one(f'[data-figure="{name}"], [data-control="{name}"]')
    if found is None:
        return None
    return str(found.find_parent("figure") or found.find_parent(class_=["bench", "setting", "buttons"]) or found)


def style() -> str:
    """The style of the live page, for what stands in an element of class live; light or dark as the site is."""
    text = live_page().style.string
    text = re.sub(r"@font-face\{.*?\}", "", text)  # in site.css
    text = re.sub(r"@media ?\(prefers-color-scheme: ?dark\)\{:root\{(.*?)\}\}", r'html[data-theme="dark"] &{\1}', text)
    return ".live{" + text.replace(":root{", "&{").replace("color-scheme:light dark", "") + "}"


def store() -> str:
    """What the figures of a page share: the state, the panel, formulas to be filled in."""
    return "".join(map(str, live_page().select("#panel, #status, template[data-formula], #data")))


def script() -> str:
    """The script of the live page. It takes the address for a state, so anchors of this page are kept from it."""
    before = r"""{
const isState = () => /^#v\d/.test(location.hash), anchor = isState() ? "" : location.hash;
if (anchor) history.replaceState(null, "", location.href.replace(/#.*/, ""));
addEventListener("hashchange", (event) => isState() || event.stopImmediatePropagation());
addEventListener("load", () => anchor && location.replace(anchor));
}"""
    return f"<script>{before}</script><script>{live_page().find('script', type=None).string}</script>"


def live(html: str) -> nodes.raw:
    return nodes.raw("", f'<div class="live">{html}</div><!-- live -->', format="html")


class Figures(SphinxPostTransform):
    default_priority = 1

    def run(self, **_: Any) -> None:
        found = False
        for node in list(self.document.findall(nodes.raw)):
            if mark := re.fullmatch(r"\s*<!-- live: (\S+) -->\s*", node.astext()):
                found = True
                html = figure(mark[1])
                if html is None:
                    logging.getLogger(__name__).warning("the live page has no %s", mark[1], location=node)
                node.replace_self(live(html or ""))
        if found:
            problem = live_page().select_one("[data-problem]")  # what is said of a state that cannot be read
            self.document.insert(0, [nodes.raw("", f"<style>{style()}</style>", format="html"), live(str(problem))])
            self.document += [live(store()), nodes.raw("", script(), format="html")]


def add_live_page(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        shutil.copy(PAGE, app.outdir / "explore.html")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register this with Sphinx."""
    app.add_post_transform(Figures)
    app.connect("build-finished", add_live_page)
    return {"parallel_read_safe": True}
