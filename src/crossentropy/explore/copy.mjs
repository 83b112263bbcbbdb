// Texts to copy: those of the page with the reader's numbers in them, and a figure by itself.
import { number } from "./format.mjs";

const matrix = (rows) => `[${rows.map((row) => `[${row.join(", ")}]`).join(", ")}]`;
const texNumber = (value) => number(value).replace("−", "-").replace(/e([-+−]?)0*(\d+)/, (_, sign, digits) => `\\cdot 10^{${sign === "+" ? "" : sign && "-"}${digits}}`);
const texMatrix = (rows) => rows.map((row) => row.map(texNumber).join(" & ")).join(" \\\\ ");

/** A text with the numbers of `x` between its braces. */
export function snippet(text, x) {
  const { logits, targets, temperature, label_smoothing, reduction } = x.state;
  const soft = Array.isArray(targets[0]);
  const values = {
    logits: matrix(logits),
    distributions: matrix(x.q),
    targets: soft ? `${matrix(targets)}, dtype=torch.float64` : `[${targets.join(", ")}]`,
    temperature,
    label_smoothing,
    reduction,
    divided: reduction === "mean" ? " / len(A)" : "",
    A: texMatrix(logits),
    Y: texMatrix(x.smoothed),
    p: texMatrix(x.p),
    loss: texNumber(x.loss),
    dlogits: texMatrix(x.dlogits),
  };
  return text.replace(/\{(\w+)\}/g, (braces, key) => (key in values ? values[key] : braces));
}

const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-family", "font-size", "opacity"];

/** The curve as a file of its own: what the style sheet says stands in each element. */
export function svgText() {
  const drawn = document.querySelector('[data-figure="curve"] svg');
  const copy = drawn.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const originals = [drawn, ...drawn.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, k) => {
    const style = getComputedStyle(originals[k]);
    for (const name of STYLES) element.setAttribute(name, style.getPropertyValue(name));
    for (const { name } of [...element.attributes]) if (/^(class|aria-|data-)/.test(name)) element.removeAttribute(name);
  });
  return new XMLSerializer().serializeToString(copy);
}
