"""One broken sign in the page's sources, and the comparison with `explain` fails."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from page.actions import broken_promise
from page.opening import settle
from page.oracle import EXAMPLE, State
from page.reading import read, wrong

SOURCES = Path(__file__).parents[2] / "src/crossentropy/explore"
MUTATIONS = [
    ("loss.mjs", "B * pc - smoothed[c]", "B * pc + smoothed[c]"),
    ("loss.mjs", "-pk * pc", "pk * pc"),
    ("loss.mjs", "z - state.rate * derivative", "z + state.rate * derivative"),
    ("markup.mjs", "fine(value * scale)", "fine(-value * scale)"),
    ("format.mjs", 'x < 0 ? "−" : ""', 'x < 0 ? "" : "−"'),
    ("figures.mjs", "${arrow(x, `-dlogits[${i}][${c}]`, { y: 0", "${arrow(x, `dlogits[${i}][${c}]`, { y: 0"),
]


def mistakes(page):
    """What is wrong at first, and after a step."""
    seen = read(page)
    found = wrong(seen, before := State(EXAMPLE))
    page.locator("[data-control=step]").click()
    settle(page)
    after = State(read(page)["fragment"])
    return [
        *found,
        *wrong(read(page), after),
        *filter(None, [broken_promise({"control": "step"}, "click", before, after)]),
    ]


def test_whole_page_has_no_mistakes(open_page):
    assert mistakes(open_page()) == []


@pytest.mark.parametrize(("name", "right", "broken"), MUTATIONS)
def test_mutations(open_page, tmp_path, name, right, broken):
    copy = tmp_path / "explore"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("node_modules", "page.html", "__pycache__"))
    (copy / "node_modules").symlink_to(SOURCES / "node_modules")
    source = (copy / name).read_text(encoding="utf-8")
    assert source.count(right) == 1
    (copy / name).write_text(source.replace(right, broken), encoding="utf-8")
    subprocess.run([sys.executable, copy / "build.py"], check=True, capture_output=True)
    assert mistakes(open_page(file=copy / "page.html")) != []
