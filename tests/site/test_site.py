"""The built site, build/site: `make site` makes it, `make test-site` comes here."""

import ast
import html
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "build" / "site"
PAGES = sorted(path for path in SITE.rglob("*.html") if "_static" not in path.parts)
PACKAGE = ROOT / "src" / "crossentropy"
# Attributes by which a page loads what they name; of a link only where it is no mere relation.
LOADS = {"src", "srcset", "poster", "data", "background", "action", "formaction", "ping", "xlink:href"}
RELATIONS = {"author", "canonical", "index", "next", "prev", "search", "copyright"}
# What scripts name and do not load: the namespace of SVG, a page that a message of the theme recommends.
NAMED = {
    "http://www.w3.org/2000/svg",
    "https://pydata-sphinx-theme.readthedocs.io/en/stable/user_guide/version-dropdown.html",
}
LIVE = r'<div class="live">(?s:(.*?))</div><!-- live -->'


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads, self.elements, self.texts = set(), [], [], [], []
        self._open = []
        self.text = path.read_text(encoding="utf-8")
        self.live = re.findall(LIVE, self.text)
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.elements.append((tag, given))
        self._open.append(tag)
        self.ids.add(given.get("id"))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and not set(given["rel"].split()) & RELATIONS:
            self.loads.append(given["href"])
        elif tag in ("use", "image"):
            self.loads += [given["href"]] if "href" in given else []
        self.loads += [value for name, value in given.items() if name in LOADS and value]
        self.loads += re.findall(r"url\(([^)]*)\)", given.get("style") or "")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.append((tuple(self._open), data))

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)


@cache
def read(path):
    return Page(path)


def name(path):
    return str(path.relative_to(SITE))


every_page = pytest.mark.parametrize("page", PAGES, ids=name)


def test_there_are_pages():
    assert len(PAGES) > 40, "make site"
    assert all(read(page).links for page in PAGES if page.name != "explore.html")
    assert (SITE / "explore.html").read_bytes() == (PACKAGE / "explore" / "page.html").read_bytes()
    assert (SITE / "index.html").read_bytes() == (SITE / "README.html").read_bytes()


@every_page
def test_one_heading_of_first_rank(page):
    assert read(page).count("h1") == 1


@every_page
def test_links(page):
    for link in read(page).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            assert parts.scheme in ("https", "mailto"), link
            continue
        to = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        assert to.is_file(), link
        if parts.fragment and to.suffix == ".html":
            assert unquote(parts.fragment) in read(to).ids, link


@every_page
def test_nothing_is_loaded_from_elsewhere(page):
    assert read(page).loads
    for load in read(page).loads:
        parts = urlsplit(load)
        assert parts.scheme in ("", "data"), load
        assert not parts.netloc, load
        assert parts.scheme or (page.parent / unquote(parts.path)).exists(), load


def code():
    """Scripts and styles, those in pages too, without their comments."""
    for path in sorted([*SITE.rglob("*.js"), *SITE.rglob("*.css"), *PAGES]):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            text = "\n".join(re.findall(r"(?s)<(?:script|style)\b[^>]*>(.*?)</(?:script|style)>", text))
        yield path, re.sub(r"(?s)/\*.*?\*/|(?m:^\s*//[^\n]*$)", "", text)


def test_scripts_and_styles_name_no_other_host():
    paths = []
    for path, text in code():
        paths.append(path)
        found = set(re.findall(r"(?:https?:|wss?:)//[^\s\"'`)]+|(?<=[\"'`(])//[\w.-]+\.\w+", text))
        assert found <= NAMED, path
    assert {path.suffix for path in paths} == {".js", ".css", ".html"}


PUBLIC = []
for module in ("", "torch", "torch.distributed", "jax"):
    tree = ast.parse((PACKAGE / module.replace(".", "/") / "__init__.py").read_text())
    (names,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
    PUBLIC += [".".join(filter(None, ["crossentropy", module, name])) for name in ast.literal_eval(names)]
PUBLIC.remove("crossentropy.__version__")


@pytest.mark.parametrize("public", PUBLIC)
def test_every_public_name_has_a_page(public):
    page = SITE / "docs" / "api" / f"{public}.html"
    (anchor,) = {public, f"module-{public}"} & read(page).ids
    assert f"api/{public}.html#{anchor}" in read(SITE / "docs" / "api.html").links
    shown = re.sub(r"<[^>]+>", "", read(page).text)
    if not re.search(
        r"\.((Linear)?(Divergence)?Gradients|get_num_threads|show_config|loss_parallel|reference)$", public
    ):
        assert "Parameters" in shown
    if "torch" not in public:
        assert ">>> " in shown or "&gt;&gt;&gt; " in shown


def test_the_api_lists_nothing_else():
    assert {page.stem for page in (SITE / "docs" / "api").glob("*.html")} == set(PUBLIC)


SOURCES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]


def prose(source):
    return re.sub(r"(?ms)^```.*?^```|^ {4}[^\n]*|`[^`\n]*`", "", source.read_text(encoding="utf-8"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_formulas_are_mathml(source):
    page = read(SITE / source.relative_to(ROOT).with_suffix(".html"))
    formulas = re.findall(r"(?s)\$\$.+?\$\$|\$[^$\n]+\$", prose(source))
    shown = re.findall(r"<math\b[^>]*>", re.sub(LIVE + "|(?s:<script>.*?</script>)", "", page.text))
    assert len(shown) == len(formulas)
    displayed = sum(formula.startswith("$$") for formula in formulas)
    assert sum('display="block"' in tag for tag in shown) == displayed
    written = [text for inside, text in page.texts if not {"code", "pre", "script", "style"} & set(inside)]
    assert not [text for text in written if "$" in text or re.search(r"\\[a-zA-Z]", text)]


def test_formulas_of_docstrings_are_mathml():
    page = read(SITE / "docs" / "api" / "crossentropy.cross_entropy_with_grad.html")
    assert page.count("math") >= 3
    assert not [text for _, text in page.texts if r"\frac" in text]


def test_formulas_say_what_they_said():
    chapter = read(SITE / "docs" / "the-loss.html").text
    formulas = re.findall(r"(?s)<math\b.*?</math>", chapter)
    said = {re.sub(r"<[^>]+>|[\u2061\s]", "", html.unescape(formula)) for formula in formulas}
    assert said >= {"σ(A)c=eAc∑keAk", "ℓ=−∑cYc⋅logσc", "H(A,Y)=(−Y∘logσ(A))⋅ιC", "𝐚"}
    assert re.search(r"<mfrac><msup>.*?</msup><mrow><munder><mo[^>]*>∑</mo><mi>k</mi></munder>", chapter)
    assert re.search(r"<msubsup><mi>ι</mi><mi>N</mi><mi>𝖳</mi></msubsup>", chapter)
    entry = r"<mtd[^>]*>(?:(?!</?mtd).)*</mtd>"
    assert re.search(rf"<mtable[^>]*>(?:<mtr>(?:{entry}){{3}}</mtr>){{3}}</mtable>", chapter), "the Jacobian"


def test_the_live_figures_of_the_chapter_have_one_store_and_are_drawn_without_script():
    source = (ROOT / "docs" / "the-loss.md").read_text(encoding="utf-8")
    page = read(SITE / "docs" / "the-loss.html")
    names = re.findall(r"<!-- live: (\S+) -->", source)
    problem, *figures, store = page.live
    assert "data-problem" in problem
    assert len(figures) == len(names) >= 5
    for name, figure in zip(names, figures, strict=True):
        assert re.search(rf'data-(?:figure|control)="{name}"', figure)
        empty = re.findall(r'<(?:div|span)[^>]* data-figure="[^"]*"[^>]*>\s*</(?:div|span)>', figure)
        assert not empty
    live_page = (PACKAGE / "explore" / "page.html").read_text(encoding="utf-8")
    for given in (' type="application/json" id="data"', ""):
        (script,) = re.findall(rf"(?s)<script{given}>(.*?</script>)", live_page)
        assert page.text.count(script) == 1
    assert "<script>" not in store
    ids = [given["id"] for _, given in page.elements if given.get("id")]
    assert len(ids) == len(set(ids))
    assert read(SITE / "docs" / "jax.html").live == []
    (style,) = re.findall(r"(?s)<style>(\.live.*?)</style>", page.text)
    assert ":root" not in style, "its colours are those of the figures"
    assert 'html[data-theme="dark"] &{' in style


def test_flowcharts_are_drawn():
    source = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    page = read(SITE / "docs" / "architecture.html")
    charts = re.findall(r"(?s)```mermaid\n(.*?)```", source)
    drawn = [svg for svg in re.findall(r"(?s)<svg.*?</svg>", page.text) if 'class="graph"' in svg]
    assert len(charts) >= 4
    for chart, svg in zip(charts, drawn, strict=True):
        assert svg.count('class="node"') == len(re.findall(r'\w+[\[{]"', chart))
        assert svg.count('class="edge"') == len(re.findall(r"-->", chart))
        shown = html.unescape("".join(re.findall(r">([^<>]+)</text>", svg))).replace("\xa0", "").replace(" ", "")
        for label in re.findall(r'[\[{]"(.*?)"[\]}]| -- (.*?) -->', chart):
            assert "".join(label).replace("<br>", "").replace(" ", "") in shown


def test_drawings_stand_in_the_page():
    """They take its colours there; a file of their own would not."""
    for source in SOURCES:
        page = read(SITE / source.relative_to(ROOT).with_suffix(".html"))
        for picture in re.findall(r"!\[.*?\]\((.*?\.svg)\)", source.read_text(encoding="utf-8")):
            assert (source.parent / picture).read_text(encoding="utf-8") in page.text
        assert not any(load.endswith(".svg") for load in page.loads)


def test_examples_show_what_they_print_and_draw():
    digits = read(SITE / "docs" / "examples" / "digits.html")
    assert re.search(r"training loss 2\.3026 -(&gt;|>) 0\.\d+ nats", digits.text)
    assert any("sphx_glr_digits" in load for load in digits.loads)
    words = read(SITE / "docs" / "examples" / "word_model.html")
    assert "def with_whole_logits" in re.sub(r"<[^>]+>", "", words.text)
    assert any(load.endswith("words.png") for load in words.loads)
    thumbnails = [load for load in read(SITE / "docs" / "examples" / "index.html").loads if "_thumb" in load]
    assert len(thumbnails) == 5
    assert not any("no_image" in load for load in thumbnails)
    distil, policy = (read(SITE / "docs" / "examples" / f"{name}.html") for name in ("distil", "policy_gradient"))
    assert re.search(r"the teacher's logits +\d\.\d+ ±", html.unescape(distil.text))
    assert re.search(r"entropy bonus 0\.02: mean reward 0\.1\d+ -(&gt;|>) 0\.9", policy.text)
    for page, name in ((distil, "distil"), (policy, "policy_gradient")):
        assert any(f"sphx_glr_{name}" in load for load in page.loads)
    for page in (digits, words, distil, policy):
        assert "sphinx_gallery" not in page.text


def test_no_page_names_a_place_on_the_machine_that_built_it():
    for page in PAGES:
        assert str(ROOT) not in read(page).text, name(page)
