"""The built page as a file: what it may load and run, its size, and the state that Python puts into it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from crossentropy import explore

BUILT = Path(explore.__file__).with_name("page.html")


class Reader(HTMLParser):
    """The elements of a page with their attributes, and what is in its scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.raw = [], {"script": [], "style": []}
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_data(self, data):
        if self.elements and self.cdata_elem:
            self.raw[self.cdata_elem][-1] += data

    def state(self):
        (position,) = [
            i for i, (_, a) in enumerate(e for e in self.elements if e[0] == "script") if a.get("id") == "data"
        ]
        return json.loads(self.raw["script"][position])


@pytest.fixture(scope="module")
def built():
    return Reader(BUILT.read_text(encoding="utf-8"))


def test_size():
    assert BUILT.stat().st_size < 150_000


def test_policy_allows_its_script_and_its_style_alone(built):
    (policy,) = [a["content"] for tag, a in built.elements if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    run = [text for text, (_, a) in zip(
        built.raw["script"], (e for e in built.elements if e[0] == "script"), strict=True
    ) if a.get("type") != "application/json"]  # fmt: skip
    assert len(run) == len(built.raw["style"]) == 1

    def hashed(text):
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    assert rules == {
        "default-src": "'none'",
        "script-src": hashed(run[0]),
        "style-src": hashed(built.raw["style"][0]),
        "font-src": "data:",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    before = [tag for tag, _ in built.elements[: next(i for i, e in enumerate(built.elements) if "http-equiv" in e[1])]]
    assert set(before) <= {"html", "head", "meta"}  # a policy holds for what comes after it


def test_nothing_comes_from_elsewhere(built):
    for tag, attributes in built.elements:
        assert not {"style", "srcset", "background", "ping", "srcdoc"} & set(attributes), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "action", "data", "poster", "xlink:href"):
            assert re.match("data:,?$|#|$", attributes.get(name) or ""), (tag, attributes)
    html = BUILT.read_text(encoding="utf-8")
    found = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[\w./-]*", re.sub(r"base64,[^)]*", "", html)))
    assert found <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML", "http://www.w3.org/1999/xhtml"}
    assert not re.search(r"@import|url\((?!\"?data:)", html)


def test_example_is_in_it(built):
    assert explore.validate(built.state()) is None
    assert built.state()["logits"] == [[2, 1, 0.1], [0.1, 2, 1.9]]
    assert explore.page() == BUILT.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["</script>", "<!--<script>", "]]>", "\N{CAT FACE}", "&lt;", "\\u003c", '"'])
def test_state_stays_in_its_block(built, name):
    state = {"logits": [[1.5, -2], [0.1, 1e-7]], "targets": [[0.25, 0.75], [1, 0]], "names": [name, "dog"]}
    page = Reader(explore.page(state))
    defaults = {"temperature": 1, "label_smoothing": 0, "reduction": "mean", "rate": 1, "trace": [], "row": 0}
    assert page.state() == {**defaults, "entry": [0, 0], **state}
    assert page.elements == built.elements


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"names": ["cat"]}, "names: expected 2, one for each class, got 1"),
        ({"logits": [[1, 2, 3], [1, 2]]}, "logits: expected rows of equally many classes, 2 to 10, got 2"),
        ({"logits": [[1, float("nan")]]}, "logits: expected numbers from -10000 to 10000, got nan"),
        ({"targets": [2]}, r"targets: expected class indices from 0 to 1, or rows of 2 .* that sum to 1, got \[2\]"),
        ({"rate": 0}, "rate: expected a number above 0, up to 100, got 0"),
    ],
)
def test_states_that_are_refused(changed, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        explore.page({"logits": [[1, 2]], "targets": [0], "names": ["cat", "dog"]} | changed)
