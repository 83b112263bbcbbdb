"""What the page shows, read from its document and compared with the oracle."""

import math

from page.oracle import State, close
from playwright.sync_api import Page

from crossentropy._explain._notation import number

_COLLECT = """() => ({
  fragment: location.hash,
  numbers: [...document.querySelectorAll("[data-name]")].map(e => {
    const box = e instanceof SVGGraphicsElement ? e.getBBox() : e.getBoundingClientRect()
    return {
      name: e.dataset.name, value: e.dataset.value, text: e.textContent.trim(),
      shape: e.dataset.length !== undefined, length: Number(e.dataset.length), scale: Number(e.dataset.scale),
      clipped: e.dataset.clipped !== undefined,
      drawn: Math.max(box.width, box.height), visible: e.checkVisibility(),
    }
  }),
  fields: [...document.querySelectorAll("input[data-control]")].filter(e => ["number", "range"].includes(e.type))
    .map(e => ({control: e.dataset.control, type: e.type, value: e.value, min: e.min, max: e.max, step: e.step})),
})"""

# Digits outside named numbers, formulas, code, headings and what is marked as a constant of the text.
_STRAYS = """() => {
  const named = "[data-name], [data-constant], math, code, pre, h1, h2, h3, option, script, style, textarea, title"
  const found = [...document.querySelectorAll("[data-slot]:not([data-name])")]
    .filter(e => e.checkVisibility() && e.textContent.trim()).map(e => "slot " + e.dataset.slot)
  const walker = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT)
  for (let node; (node = walker.nextNode());)
    if (/[0-9]/.test(node.data) && !node.parentElement.closest(named)) found.push(node.data.trim())
  return found
}"""


def read(page: Page) -> dict:
    return page.evaluate(_COLLECT)


def strays(page: Page) -> list[str]:
    return page.evaluate(_STRAYS)


def wrong(seen: dict, state: State | None = None) -> list[str]:
    """Every number, text, arrow and field that is not what the address says."""
    state = state or State(seen["fragment"])
    found = []
    for n in seen["numbers"]:
        expected, shown = state.expected(n["name"]), float(n["value"])
        if not close(shown, expected):
            found.append(f"{n['name']} = {shown!r}, expected {expected.value!r}")
        elif n["shape"]:
            found += _wrong_shape(n, abs(shown))
        elif n["text"] != number(shown):
            found.append(f"{n['name']}: text {n['text']!r}, expected {number(shown)!r}")
    for field in seen["fields"]:
        if field["control"].startswith(("logit[", "soft[", "temperature", "label_smoothing", "rate")):
            found += _wrong_field(field, state)
    return found


def _wrong_shape(n: dict, size: float) -> list[str]:
    found = []
    size = size if math.isfinite(size) else math.inf
    if n["length"] > size * (1 + 1e-9) or (not n["clipped"] and not math.isclose(n["length"], size, rel_tol=1e-9)):
        found.append(f"{n['name']}: length {n['length']}, expected {size}")
    if n["visible"] and abs(n["drawn"] - n["length"] * n["scale"]) > 0.51:
        found.append(f"{n['name']}: drawn {n['drawn']}, expected {n['length'] * n['scale']}")
    return found


def _wrong_field(field: dict, state: State) -> list[str]:
    value = state.expected("state." + field["control"].replace("logit[", "logits[").replace("soft[", "q[")).value
    if field["type"] == "range":  # holds the nearest number that it can
        value = min(max(value, float(field["min"])), float(field["max"]))
        near = abs(float(field["value"]) - value) <= 0.5001 * float(field["step"] or 1)
    else:
        near = float(field["value"] or "nan") == value
    return [] if near else [f"{field['type']} {field['control']}: {field['value']}, expected {value}"]
