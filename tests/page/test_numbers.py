"""After each action every number, arrow and field of the page is what `explain` says of the state in the address."""

import zlib

from page.actions import Reader, broken_promise
from page.opening import settle
from page.oracle import EXAMPLE, State
from page.reading import read, strays, wrong

ACTIONS = 50  # in each of the four layouts


def test_example(open_page, layout):
    page = open_page(layout=layout)
    seen = read(page)
    assert len(seen["numbers"]) > 60
    assert wrong(seen, State(EXAMPLE)) == []
    assert strays(page) == []


def test_actions(open_page, layout):
    page = open_page(layout=layout)
    reader = Reader(page, zlib.crc32(layout.encode()))
    before, told = State(""), []
    for _ in range(ACTIONS):
        chosen, how = reader.act()
        told.append(f"{chosen['kind']} {chosen['control'] or chosen['name'] or chosen['label']}: {how}")
        settle(page)
        seen = read(page)
        after = State(seen["fragment"])
        found = wrong(seen, after) + strays(page)
        found += filter(None, [broken_promise(chosen["control"], before, after)])
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
