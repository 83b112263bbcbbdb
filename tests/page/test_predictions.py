"""The three guesses: a right one is told so, a wrong one is told its misconception, and none is needed to read on."""

import pytest
from page.opening import settle
from page.oracle import EXAMPLE, State

# For each guess the words that its misconception cannot be told without.
TOLD = {
    2: {"off-by-one": "count from", "right": "Yes", "twice": "taken twice", "surer": "not surer"},
    3: {"no-division": "1/N", "right": "Yes", "sign": "push"},
    4: {"target-only": "other", "right": "Yes", "surer": "not surer"},
}


def test_guesses(open_page, layout):
    page = open_page(layout=layout)
    for number, told in TOLD.items():
        asked = page.locator(f"[data-prediction='{number}']")
        messages = asked.locator("[data-message]")
        guesses = asked.locator("[data-guess]").evaluate_all("all => all.map(e => e.dataset.guess)")
        assert sorted(guesses) == sorted(told)
        assert messages.locator("visible=true").count() == 0
        for guess, words in told.items():
            button = asked.locator(f"[data-guess='{guess}']")
            button.click()
            assert words in messages.locator("visible=true").inner_text()
            assert button.get_attribute("aria-pressed") == "true"
            assert asked.locator("[aria-pressed=true]").count() == 1
            assert ("right" in (button.get_attribute("class") or "")) == (guess == "right")


def test_sections_are_there_without_a_guess(open_page):
    page = open_page()
    assert page.locator("section h2").count() == 8
    assert all(section.is_visible() for section in page.locator("section").all())


def test_right_guesses_are_right(open_page):
    """By `explain`, on the example: what the third guess says in words, and the numbers of the other two."""
    x = State(EXAMPLE).x
    page = open_page()
    shown = [
        float(page.locator(f"[data-prediction='{number}'] [data-right] [data-name]").get_attribute("data-value"))
        for number in (2, 3)
    ]
    assert shown == pytest.approx([x.losses[0], x.dmean[0, 1]], rel=1e-12)
    assert (x.dlogits[0] < 0).any()  # some logits rise with a step
    assert (x.dlogits[0] > 0).any()
    assert "some rise, the others fall" in page.locator("[data-prediction='4'] [data-right]").inner_text()


def test_equal_numbers_are_equally_right(open_page):
    """With one row the gradients of sum and mean are the same number."""
    page = open_page("#v1;A=2,1,0.1;Y=1;names=cat,dog,bird")
    asked = page.locator("[data-prediction='3']")
    asked.locator("[data-guess=no-division]").click()
    assert asked.locator("[data-message=right]").is_visible()


def test_guess_is_judged_anew_when_the_numbers_change(open_page):
    page = open_page("#v1;A=2,1,0.1;Y=1;names=cat,dog,bird")
    asked = page.locator("[data-prediction='3']")
    asked.locator("[data-guess=no-division]").click()
    page.evaluate("location.hash = '#v1;A=2,1,0.1/0.1,2,1.9;Y=1,0;names=cat,dog,bird'")
    settle(page)
    assert asked.locator("[data-message=no-division]").is_visible()
    assert not asked.locator("[data-message=right]").is_visible()
