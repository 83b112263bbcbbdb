"""The page for everyone: axe's rules, the keyboard, contrast, small screens, paper, less motion, no script."""

from pathlib import Path

from page.actions import FOCUSABLE, Reader, focusable
from page.opening import settle

ROOT = Path(__file__).parents[2]
AXE = ROOT / "src/crossentropy/explore/node_modules/axe-core/axe.min.js"
BUSY = "#v1;A=3,1,-2/0.5,2,1.5;Y=2,0;names=cat,dog,bird;t=2;eps=0.1;r=sum;rate=0.5;trace=3"


def violations(page):
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{v['id']}: {v['help']}: {[n['html'][:150] for n in v['nodes'][:3]]}" for v in found]


def open_all(page):
    """Unfold every panel."""
    for element in page.locator("summary").all():
        element.click()
    for control in ("guess-2", "guess-3", "guess-4"):
        page.locator(f"[data-control={control}]").first.click()


def test_axe(open_page, layout):
    page = open_page(layout=layout, clock=False)
    assert violations(page) == []
    open_all(page)
    reader = Reader(page, 1)
    for _ in range(8):
        reader.act()
    page.wait_for_timeout(1000)  # what the page puts off; axe itself needs a clock that runs
    assert violations(page) == []


_AT = """selector => [
  [...document.querySelectorAll(selector)].indexOf(document.activeElement),
  document.activeElement.outerHTML.slice(0, 200),
]"""


def test_every_focusable_element_is_reached_named_and_used(open_page):
    page = open_page(BUSY)
    open_all(page)
    settle(page)
    page.evaluate("getSelection().removeAllRanges(), document.activeElement.blur()")
    reached, others = [], set()
    while reached.count(reached[0] if reached else None) < 2:
        page.keyboard.press("Tab")
        index, markup = page.evaluate(_AT, FOCUSABLE)
        if index >= 0:
            reached.append(index)
        elif not markup.startswith("<body"):
            others.add(markup)
    assert others == set()  # a browser stops at what scrolls, too
    radios = """e => e.type === "radio" && !e.checked && [...document.getElementsByName(e.name)].some(r => r.checked)"""
    elements = [e for e in focusable(page) if e["index"] not in reached]
    assert [e for e in elements if not page.locator(FOCUSABLE).nth(e["index"]).evaluate(radios)] == []
    assert page.locator(":is(a, button, input, select, textarea, summary)[tabindex='-1']").count() == 0
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    nameless = [
        node["role"]["value"]
        for node in tree
        if not node["ignored"]
        and any(p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", []))
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []


_DIGEST = """() => JSON.stringify([document.body.outerHTML.replace(/ data-focus[^ >]*/g, ""), location.hash, scrollY,
  [...document.querySelectorAll("input, select")].map(e => [e.value, e.checked])])"""


def test_every_focusable_element_is_used(open_page):
    page = open_page(BUSY)
    keys = {"range": ["ArrowLeft", "ArrowRight"], "number": ["ArrowUp", "ArrowDown"], "radio": [" ", "ArrowRight"]}
    useless = []
    for chosen in focusable(page):
        element = page.locator(FOCUSABLE).nth(chosen["index"])
        page.evaluate("document.activeElement.blur(), document.getElementById('status').replaceChildren()")
        settle(page)
        before = page.evaluate(_DIGEST)
        element.focus()
        if chosen["kind"] == "select":
            page.keyboard.press("ArrowDown")
        for key in keys.get(chosen["kind"], ["Enter"]):
            page.keyboard.press(key)
            if chosen["control"].startswith("copy-"):  # the clipboard answers when it likes
                page.locator("#status:not(:empty)").wait_for(state="attached")
            settle(page)
            if page.evaluate(_DIGEST) != before:
                break
        else:
            useless.append(chosen)
    assert useless == []
