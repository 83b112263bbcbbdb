"""Addresses and data that are wrong or mean harm: the page says so, shows the example, and runs nothing."""

import json

import pytest
from page.oracle import EXAMPLE, State
from page.reading import read, wrong

from crossentropy import explore

GOOD = {"A": "3,1,0", "Y": "2", "names": "a,b,c", "t": "1", "eps": "0", "r": "mean", "rate": "1"}


def fragment(version="v1", **changed):
    fields = {**GOOD, **changed}
    return f"#{version};" + ";".join(f"{key}={value}" for key, value in fields.items() if value is not None)


HOSTILE = {
    "version": fragment("v2"),
    "foreign": "#section-2",
    "no field": "#v1",
    "missing": fragment(A=None),
    "NaN": fragment(A="NaN,1,0"),
    "infinity": fragment(A="Infinity,1,0"),
    "1e999": fragment(A="1e999,1,0"),
    "1e308": fragment(A="1e308,1,0"),
    "empty number": fragment(A=",1,0"),
    "hexadecimal": fragment(A="0x10,1,0"),
    "one class": fragment(A="1", Y="0", names="a"),
    "ragged": fragment(A="1,2/1,2,3", Y="0,1"),
    "rows": fragment(A="/".join(["1,2,3"] * 9), Y=",".join("012012012")),
    "classes": fragment(A=",".join("01234567890"), names=",".join("abcdefghijk")),
    "target": fragment(Y="3"),
    "half a target": fragment(Y="0.5"),
    "negative target": fragment(Y="-1"),
    "soft sum": fragment(Y="0.5,0.5,0.5"),
    "soft negative": fragment(Y="1.5,-0.5,0"),
    "names": fragment(names="a,b"),
    "temperature": fragment(t="0"),
    "hot": fragment(t="1e6"),
    "smoothing": fragment(eps="1.5"),
    "reduction": fragment(r="none"),
    "prototype": fragment(r="__proto__"),
    "rate": fragment(rate="-1"),
    "trace": fragment(trace="1,NaN"),
    "percent": fragment(names="%E0%A4%A,b,c"),
    "100 kB": fragment(names="a" * 100_000 + ",b,c"),
    "100 kB of numbers": "#v1;A=" + ",".join(["1"] * 50_000),
}


def test_hostile_addresses(open_page):
    page = open_page()
    for name, address in HOSTILE.items():
        page.evaluate("address => { location.hash = address }", address)
        page.clock.run_for(1000)
        seen = read(page)
        assert page.locator("[data-problem]").inner_text().strip(), name
        assert wrong(seen, State(EXAMPLE)) == [], name


@pytest.mark.parametrize("name", ["version", "NaN", "percent", "100 kB"])
def test_hostile_address_from_the_start(open_page, name):
    page = open_page(HOSTILE[name])
    assert page.locator("[data-problem]").inner_text().strip()
    assert wrong(read(page), State(EXAMPLE)) == []


def test_good_address_has_no_problem(open_page):
    page = open_page(fragment())
    assert not page.locator("[data-problem]").inner_text().strip()
    assert wrong(read(page)) == []
    assert read(page)["fragment"].startswith("#v1;A=3,1,0;Y=2;")


@pytest.mark.parametrize("layout", ["wide-light", "phone-light"])
def test_extreme_addresses(open_page, layout):
    """What an address may hold at most: it is drawn without a complaint, and nothing scrolls sideways."""
    lines = ",".join(["1.7e308", "-1.7e308"] * 100)
    far = "/".join(",".join(str(-10000 + 200 * i * c) for c in range(10)) for i in range(8))
    names = ",".join(f"{'W' * 59}{c}" for c in range(10))
    for changed in (
        {"trace": lines},
        {"A": far, "Y": "0,1,2,3,4,5,6,7", "names": names, "t": "0.05", "eps": "1", "rate": "100", "entry": "9,9"},
        {"A": "10000,-10000,0", "t": "0.05", "r": "sum"},
    ):
        page = open_page(fragment(**changed), layout=layout)
        assert not page.locator("[data-problem]").inner_text().strip()
        assert wrong(read(page)) == []
        page.set_viewport_size({"width": 320, "height": 640})


NAMES = ["<script>document.title = 'run'</script>", '"><img src=x onerror="document.title=\'run\'">', "';&amp;%41"]


def encoded(names):
    return ",".join("".join(f"%{byte:02X}" for byte in name.encode()) for name in names)


def test_names_are_text(open_page):
    page = open_page(fragment(names=encoded(NAMES)))
    assert not page.locator("[data-problem]").inner_text().strip()
    text = page.locator("body").inner_text()
    assert all(name in text for name in NAMES)
    assert page.title() != "run"
    assert page.locator("body img").count() == 0
    assert wrong(read(page)) == []


def test_hostile_data_block(open_page, tmp_path):
    names = ["</script><script>document.title = 'run'</script>", "<!-- <script>", "\\u003c '\"&"]
    state = {
        "logits": [[0.5, -1.25, 30.0]],
        "targets": [2],
        "names": names,
        "temperature": 0.5,
        "label_smoothing": 0.1,
        "reduction": "sum",
        "rate": 2,
        "trace": [],
    }
    file = tmp_path / "page.html"
    file.write_text(explore.page(state), encoding="utf-8")
    page = open_page(file=file)
    assert page.title() != "run"
    assert json.loads(page.locator("#data").text_content())["names"] == names
    assert names[0] in page.locator("body").inner_text()
    shown = State(fragment(A="0.5,-1.25,30", Y="2", names=encoded(names), t="0.5", eps="0.1", r="sum", rate="2"))
    assert wrong(read(page), shown) == []
    with pytest.raises(ValueError, match="names: expected"):
        explore.page({**state, "names": ["a", "b", "\u2028"]})
