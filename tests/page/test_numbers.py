"""After each action every number, arrow and field of the page is what `explain` says of the state in the address."""

import zlib

from page.actions import Reader, broken_promise
from page.opening import settle
from page.oracle import EXAMPLE, State
from page.reading import read, strays, wrong

from crossentropy._explain._notation import number

ACTIONS = 50  # in each of the four layouts
LONG = ",".join(f"a%20class%20with%20the%20long%20name%20{letter}" for letter in "ABCDEFGHIJ")
MANY = "/".join(",".join(str((7 * i * c + c) % 11 - 5 + c / 8) for c in range(10)) for i in range(8))
STARTS = {
    "wide-light": "",
    "wide-dark": f"#v1;A={MANY};Y=0,1,2,3,4,9,8,7;names={LONG};row=3;entry=9,0",
    "phone-light": "#v1;A=1,-30,4,2.5;Y=0.25,0,0.5,0.25;names=a,b%20%25,c_d,%5Ce;eps=0.1",
    "phone-dark": "#v1;A=1000,0/0,800;Y=0,0;names=no,yes;t=0.5;r=sum",
}


def test_example(open_page, layout):
    page = open_page(layout=layout)
    seen = read(page)
    assert len(seen["numbers"]) > 60
    assert wrong(seen, State(EXAMPLE)) == []
    assert strays(page) == []


def test_actions(open_page, layout):
    page = open_page(STARTS[layout], layout=layout)
    assert wrong(read(page)) == []
    reader = Reader(page, zlib.crc32(layout.encode()))
    before, told = State(STARTS[layout]), []
    for _ in range(ACTIONS):
        chosen, how = reader.act()
        told.append(f"{chosen['kind']} {chosen['control'] or chosen['name'] or chosen['label']}: {how}")
        settle(page)
        seen = read(page)
        after = State(seen["fragment"])
        found = wrong(seen, after) + strays(page)
        found += filter(None, [broken_promise(chosen, how, before, after)])
        assert found == [], f"after {told[-3:]}\n{seen['fragment']}"
        before = after
    page.keyboard.press("Escape")  # closes the panel
    settle(page)
    shown = {n["name"]: n["value"] for n in read(page)["numbers"]}
    page.reload()
    settle(page)
    again = read(page)
    assert again["fragment"] == seen["fragment"]
    assert {n["name"]: n["value"] for n in again["numbers"]} == shown


_MARKS = """all => all.map(e => [...e.querySelectorAll("td.fails")].map(cell => [
  cell.querySelector("[data-name]").dataset.name.replace(/\\[\\d\\]/g, ""), cell.querySelector("strong").textContent,
]))"""


def test_failing_operations(open_page):
    """Of section 6, in each precision: which operation of the textbook's formula fails; none of the other does."""
    marks = open_page().locator(".failing").evaluate_all(_MARKS)
    assert marks == [
        [["fails.float32.textbook.sum", "digits lost"]],
        [["fails.float32.textbook.exp", "overflow"], ["fails.float64.textbook.exp", "overflow"]],
        [["fails.float32.textbook.exp", "overflow"], ["fails.float64.textbook.exp", "overflow"]],
    ]


def test_one_live_region_says_the_loss(open_page):
    page = open_page()
    live = page.locator("[aria-live], [role=status], [role=log]")
    assert live.count() == 1
    assert live.get_attribute("aria-live") == "polite"
    page.locator("[data-control=step]").click()
    page.clock.run_for(100)
    assert not live.inner_text()  # in a drag it would speak without end
    settle(page)
    assert live.locator("[data-name=loss]").inner_text() == number(State(read(page)["fragment"]).x.loss)
