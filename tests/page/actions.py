"""A seeded reader: picks any control that can be reached, and uses it by mouse or by keys."""

import math
import random
import re
from collections import defaultdict

import numpy as np
from page.oracle import State
from playwright.sync_api import Locator, Page

FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]"
_LIST = """selector => [...document.querySelectorAll(selector)].map((e, index) => ({
  index, kind: e.localName === "input" ? e.type : e.localName, control: e.dataset.control || e.id || "",
  name: e.dataset.name || "", label: e.getAttribute("aria-label") || e.textContent.trim().slice(0, 40),
  value: e.value ?? "",
  use: !e.disabled && e.tabIndex >= 0 && e.checkVisibility({visibilityProperty: true}) && !e.closest("[inert]"),
})).filter(e => e.use)"""
NUMBERS = ["0", "1", "-2.5", "3.25", "0.1", "7", "-12", "40", "1e3", "800", "0.5", "10", "0.05", "2"]


def focusable(page: Page) -> list[dict]:
    return page.evaluate(_LIST, FOCUSABLE)


class Reader:
    def __init__(self, page: Page, seed: int):
        self.page, self.random = page, random.Random(seed)

    def act(self) -> tuple[dict, str]:
        """Use one control: which, and how."""
        groups = defaultdict(list)  # each has its share: the numbers are many, and only open the panel
        for element in focusable(self.page):
            groups[element["kind"], element["control"].split("[")[0]].append(element)
        chosen = self.random.choice(groups[self.random.choice(sorted(groups))])
        return chosen, self.use(chosen)

    def use(self, chosen: dict) -> str:
        element = self.page.locator(FOCUSABLE).nth(chosen["index"])
        by_mouse = self.random.random() < 0.5
        kind = chosen["kind"]
        if kind == "range":
            return self._drag(element) if by_mouse else self._keys(element)
        if kind in ("number", "text"):
            text = self.random.choice(NUMBERS)
            element.fill(text)
            element.press(self.random.choice(["Enter", "Tab"]))
            return f"type {text}"
        if kind == "radio":
            return self._click(element) if by_mouse else self._press(element, "ArrowRight", "ArrowLeft", " ")
        if kind == "select":
            options = element.locator("option").evaluate_all("all => all.map(e => e.value)")
            element.select_option(option := self.random.choice(options))
            return f"choose {option}"
        return self._click(element) if by_mouse else self._press(element, "Enter", " ")

    def _click(self, element: Locator) -> str:
        element.click()
        return "click"

    def _press(self, element: Locator, *keys: str) -> str:
        key = self.random.choice(keys)
        element.focus()
        self.page.keyboard.press(key)
        return f"press {key!r}"

    def _keys(self, element: Locator) -> str:
        pressed = [
            self._press(element, "ArrowRight", "ArrowLeft", "PageUp", "PageDown", "Home", "End") for _ in range(3)
        ]
        return ", ".join(pressed)

    def _drag(self, element: Locator) -> str:
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        height = box["y"] + box["height"] / 2
        start, end = (box["x"] + box["width"] * self.random.uniform(0.05, 0.95) for _ in range(2))
        self.page.mouse.move(start, height)
        self.page.mouse.down()
        self.page.mouse.move(end, height, steps=3)
        self.page.mouse.up()
        return f"drag to {end - box['x']:.0f} of {box['width']:.0f}"


# What each control may change of the state; all others nothing.
_CHANGES = {
    "logit": {"logits"},
    "target": {"q"},
    "soft": {"q"},
    "add3": {"logits"},
    "step": {"logits", "trace"},
    "reset": {"logits", "q", "trace", "temperature", "label_smoothing", "reduction", "rate", "row", "entry"},
    **{name: {name} for name in ("temperature", "label_smoothing", "reduction", "rate", "row", "entry")},
}
_LIMITS = {"logit": (-1e4, 1e4), "temperature": (0.05, 20), "label_smoothing": (0, 1), "rate": (5e-324, 100)}


def broken_promise(chosen: dict, how: str, before: State, after: State) -> str:
    """What an action should have done to the state and has not, or has done beside it."""
    root, *index = re.findall(r"\w+(?:-\w+)?", chosen["control"]) or [""]
    index = tuple(map(int, index))
    changed = {name for name in _CHANGES["reset"] if getattr(before, name) != getattr(after, name)}
    if changed - _CHANGES.get(root, set()):
        return f"changed {changed}"
    if root == "add3" and max(before.logits[before.row]) <= 9997:
        moved = np.subtract(after.logits, before.logits)
        moved[before.row] -= 3
        return f"added {moved.tolist()} beyond 3 to row {before.row}" if abs(moved).max() > 1e-9 else ""
    if root == "step":
        expected = before.x.logits - before.rate * before.x.dlogits
        if not np.allclose(after.logits, expected, rtol=1e-12, atol=1e-12):
            return f"logits {after.logits}, expected {expected.tolist()}"
        if after.trace[:-1] != before.trace or not math.isclose(after.trace[-1], float(before.x.loss), rel_tol=1e-9):
            return f"trace {after.trace}, expected {before.trace} and {before.x.loss}"
    if root in _LIMITS and how.startswith("type "):
        value, (least, most) = float(how.removeprefix("type ")), _LIMITS[root]
        name = "state." + chosen["control"].replace("logit[", "logits[")
        expected = value if least <= value <= most else before.expected(name).value
        if after.expected(name).value != expected:
            return f"{name} is {after.expected(name).value}, expected {expected}"
    if root in ("reduction", "row", "target") and how in ("click", "press ' '"):
        found = np.argmax(after.q[index[0]]) if root == "target" else getattr(after, root)
        return "" if str(found) == chosen["value"] else f"{root} is {found}, expected {chosen['value']}"
    return ""
