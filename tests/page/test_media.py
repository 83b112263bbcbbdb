"""Colours, small screens, paper, less motion, no script, a file of one's own, and how soon the page is ready."""

import os
import re
import signal
import statistics
import subprocess
import sys
from collections import Counter

import pytest
from page.actions import Reader
from page.opening import BUILT, settle
from page.oracle import EXAMPLE, State
from page.reading import read, strays, wrong

GROUNDS = ["paper", "card", "lit"]
TEXTS = ["ink", "muted", "target", "up", "down"]
MARKS = ["bar", "focus"]
DECORATION = ["line"]

_PALETTE = """() => {
  const probe = document.body.appendChild(document.createElement("i")), found = {}
  for (const sheet of document.styleSheets) for (const rule of sheet.cssRules)
    for (const name of rule.style ?? [])
      if (name.startsWith("--")) {
        probe.style.color = ""
        probe.style.color = `var(${name})`
        const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim()
        if (CSS.supports("color", value)) found[name.slice(2)] = getComputedStyle(probe).color
      }
  probe.remove()
  return found
}"""


def luminance(colour):
    red, green, blue = (float(x) / 255 for x in re.findall(r"[\d.]+", colour)[:3])
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("layout", ["wide-light", "wide-dark"])
def test_contrast(open_page, layout):
    palette = open_page(layout=layout).evaluate(_PALETTE)
    assert set(palette) == {*GROUNDS, *TEXTS, *MARKS, *DECORATION}
    poor = {
        f"{name} on {ground}": round(ratio, 2)
        for names, least in ((TEXTS, 4.5), (MARKS, 3))
        for name in names
        for ground in GROUNDS
        if (ratio := contrast(palette[name], palette[ground])) < least
    }
    assert poor == {}
    assert (luminance(palette["paper"]) < 0.2) == (layout == "wide-dark")


def test_colours_stand_in_the_palette_alone():
    style = re.search(r"<style>(.*?)</style>", BUILT.read_text(encoding="utf-8"), re.DOTALL)[1]
    style = re.sub(r"url\([^)]*\)", "", style)
    elsewhere = re.sub(r"--[\w-]+:[^;}]*", "", style)
    assert re.findall(r"#[0-9a-f]{3,8}\b|(?:rgb|hsl|oklch|lab)a?\([^)]*\)", elsewhere) == []


def test_contrast_of_black_and_white():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.005)


# The lines of the window that stay covered however far the page is scrolled.
_COVERED = """() => {
  const boxes = [...document.querySelectorAll("body *")]
    .filter(e => ["sticky", "fixed"].includes(getComputedStyle(e).position) && e.checkVisibility())
    .map(e => e.getBoundingClientRect())
  return Array.from({length: innerHeight}, (_, y) => boxes.some(box => box.top <= y && y < box.bottom))
    .filter(Boolean).length
}"""


@pytest.mark.parametrize("layout", ["phone-light", "phone-dark"])
def test_sticky_parts_leave_two_thirds_of_a_phone(open_page, layout):
    page = open_page(layout=layout)
    height = page.evaluate("document.documentElement.scrollHeight")
    covered = []
    for part in range(1, 10):
        page.evaluate("y => scrollTo({top: y, behavior: 'instant'})", height * part / 10)
        covered.append(page.evaluate(_COVERED))
    assert statistics.median(covered) > 0
    assert max(covered) < 844 / 3


def test_less_motion(open_page):
    page = open_page(layout="phone-dark")
    reader = Reader(page, 3)
    for _ in range(5):
        reader.act()
        assert page.evaluate("document.getAnimations().length") == 0
    moving = """() => [...document.querySelectorAll("*")].filter(e => {
      const style = getComputedStyle(e)
      return style.transitionDuration.split(", ").some(t => parseFloat(t) > 0.001) || style.animationName !== "none"
    }).map(e => e.outerHTML.slice(0, 100))"""
    assert page.evaluate(moving) == []


def test_print_shows_everything(open_page):
    page = open_page(layout="wide-dark")
    on_screen = Counter((n["figure"], n["name"]) for n in read(page)["numbers"] if n["visible"])
    page.emulate_media(media="print", color_scheme="light")
    on_paper = Counter((n["figure"], n["name"]) for n in read(page)["numbers"] if n["visible"])
    assert on_screen - on_paper == Counter()
    assert page.evaluate("[...document.querySelectorAll('section')].every(e => e.checkVisibility())")
    assert page.evaluate(_COVERED) == 0
    assert page.pdf().startswith(b"%PDF")


def test_without_script(open_page):
    page = open_page(java_script_enabled=False)
    seen = read(page)
    assert len(seen["numbers"]) > 60
    assert wrong(seen, State(EXAMPLE)) == []
    assert strays(page) == []


def test_written_file(open_page, tmp_path):
    command = ["explore", "-o", "page.html", "--logits", "3 -1; 0.5 2", "--targets", "1 0", "--names", "no,yes"]
    subprocess.run([sys.executable, "-m", "crossentropy", *command], cwd=tmp_path, check=True, capture_output=True)
    page = open_page(file=tmp_path / "page.html")
    shown = State("#v1;A=3,-1/0.5,2;Y=1,0;names=no,yes;t=1;eps=0;r=mean;rate=1;trace=")
    assert wrong(read(page), shown) == []
    Reader(page, 5).act()
    settle(page)


def test_served(open_page):
    """The page as the command serves it; of a browser's other requests the page has none."""
    command = [sys.executable, "-m", "crossentropy", "explore", "--no-browser", "--logits", "3 -1", "--targets", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        address = re.search(r"http://\S+", server.stdout.readline())[0]
        page = open_page(address=address)
        assert wrong(read(page), State("#v1;A=3,-1;Y=1")) == []
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 0


def test_chromium_is_named_where_it_is_missing(tmp_path):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "test_without_script", __file__]
    done = subprocess.run(command, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "sudo apt install chromium" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_ready_soon(open_page, layout, capsys):
    page = open_page(layout=layout, clock=False)
    took = []
    for _ in range(3):
        page.reload()
        page.wait_for_selector("[data-ready='1']", state="attached")
        took.append(page.evaluate("performance.getEntriesByName('ready')[0]?.startTime ?? performance.now()"))
    with capsys.disabled():
        print(f"  {layout}: ready after {min(took):.0f} to {max(took):.0f} ms")
    assert min(took) < 2000
