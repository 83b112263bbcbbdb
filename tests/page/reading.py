"""What the page shows, read from its document and compared with the oracle."""

import itertools
import math

from page.oracle import State, close
from playwright.sync_api import Page

from crossentropy._explain._notation import number

_COLLECT = """() => ({
  fragment: location.hash,
  numbers: [...document.querySelectorAll("[data-name]")].map(e => {
    const box = e instanceof SVGGraphicsElement ? e.getBBox() : e.getBoundingClientRect()
    // An arrow points away from where its path begins.
    const back = e instanceof SVGPathElement && e.getTotalLength() && e.getPointAtLength(0).x > box.x + box.width / 2
    return {
      name: e.dataset.name, value: e.dataset.value, text: e.textContent.trim(),
      label: e.getAttribute("aria-label") ?? "",
      shape: e.dataset.length !== undefined, length: Number(e.dataset.length), scale: Number(e.dataset.scale),
      drawn: back ? -box.width : box.width, visible: e.checkVisibility(),
      figure: e.closest("[data-figure]")?.dataset.figure, dot: e instanceof SVGCircleElement,
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


# What the figures are about: for each class, row or once; as text, and as a bar or an arrow.
_TEXTS = {
    "rows": ["p[{i}][{c}]", "-dlogits[{i}][{c}]"],
    "loss": ["loss"],
    "units": ["mean", "bits", "perplexity"],
    "batch": ["losses[{n}]", "total", "mean", "total_weight"],
    "gradients": ["dtotal[{i}][{c}]", "dmean[{i}][{c}]"],
    "jacobian": ["jacobian[{i}][{c}][{k}]"],
    "product": ["-ratio[{i}][{c}]", "product[{i}][{c}]", "p[{i}][{c}]", "smoothed[{i}][{c}]"],
    "soft": ["q[{i}][{c}]", "smoothed[{i}][{c}]"],
    "floor": ["losses[{n}]", "entropy[{n}]"],
}
_SHAPES = {
    "rows": ["p[{i}][{c}]", "-dlogits[{i}][{c}]"],
    "batch": ["losses[{n}]", "total", "mean"],
    "balance": ["-dlogits[{i}][{c}]"],
    "floor": ["losses[{n}]"],
}


def missing(seen: dict, state: State) -> list[str]:
    """The numbers that the figures are about and do not show."""
    N, C = len(state.logits), len(state.names)
    found = []
    for kind, figures in (("text", _TEXTS), ("shape", _SHAPES)):
        for figure, patterns in figures.items():
            there = {n["name"] for n in seen["numbers"] if n["figure"] == figure and n["visible"] and n[kind]}
            needed = {
                pattern.format(i=state.row, n=n, c=c, k=k)
                for pattern, n, c, k in itertools.product(patterns, range(N), range(C), range(C))
            }
            found += [f"{figure}: no {kind} {name}" for name in sorted(needed - there)]
    return found


def wrong(seen: dict, state: State | None = None) -> list[str]:
    """Every number, text, arrow and field that is not what the address says."""
    state = state or State(seen["fragment"])
    found = missing(seen, state)
    for n in seen["numbers"]:
        expected, shown = state.expected(n["name"]), float(n["value"])
        if not close(shown, expected):
            found.append(f"{n['name']} = {shown!r}, expected {expected.value!r}")
        elif n["shape"]:
            found += _wrong_shape(n, shown)
        elif n["text"] != number(shown) and not (n["dot"] and not n["text"]):
            found.append(f"{n['name']}: text {n['text']!r}, expected {number(shown)!r}")
        elif n["label"] and not n["label"].endswith(f": {number(shown)}"):
            found.append(f"{n['name']}: label {n['label']!r}, expected {number(shown)!r}")
    for field in seen["fields"]:
        if field["control"].startswith(("logit[", "soft[", "temperature", "label_smoothing", "rate")):
            found += _wrong_field(field, state)
    return found


def _wrong_shape(n: dict, value: float) -> list[str]:
    """A shape is as long as its number, to a thousandth of a unit; what has no length is not drawn."""
    length = value * n["scale"] if math.isfinite(value) else 0
    found = []
    if abs(n["length"] * n["scale"] - length) > 1e-3:
        found.append(f"{n['name']}: length {n['length']}, expected {value}")
    if n["visible"] and abs(n["drawn"] - length) > 0.01:
        found.append(f"{n['name']}: drawn {n['drawn']}, expected {length}")
    return found


def _wrong_field(field: dict, state: State) -> list[str]:
    value = state.expected("state." + field["control"].replace("logit[", "logits[").replace("soft[", "q[")).value
    if field["type"] == "range":  # holds the nearest number that it can
        value = min(max(value, float(field["min"])), float(field["max"]))
        near = abs(float(field["value"]) - value) <= 0.5001 * float(field["step"] or 1)
    else:
        near = float(field["value"] or "nan") == value
    return [] if near else [f"{field['type']} {field['control']}: {field['value']}, expected {value}"]
