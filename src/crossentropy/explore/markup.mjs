// Figures as markup: functions of the numbers, the same in the browser and where the page is built.
import { number } from "./format.mjs";

class Markup {
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
}

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const part = (value) => {
  if (value instanceof Markup) return value.text;
  if (Array.isArray(value)) return value.map(part).join("");
  return value === false || value == null ? "" : String(value).replace(/[&<>"]/g, (c) => ESCAPES[c]);
};

/** A template whose values are text, unless they are markup themselves. */
export const html = (strings, ...values) =>
  new Markup(strings.map((string, i) => (i ? part(values[i - 1]) : "") + string.replace(/\n\s*/g, " ")).join(""));

/** The number that a path such as "-dlogits[0][1]" names. */
export function valueOf(x, path) {
  const keys = path.replace(/^-/, "").split(/[.[\]]+/).filter(Boolean);
  const value = keys.reduce((at, key) => at[key], x);
  return path[0] === "-" ? -value : value;
}

/** A length in a drawing, without digits that nobody sees. */
export const fine = (length) => +length.toFixed(3);

/** The attributes of whatever shows a number, drawn or written. */
export const named = (x, path) => html`data-name="${path}" data-value="${valueOf(x, path)}"`;

/** A number; one with a label can be asked where it comes from. */
export const shown = (x, path, label) =>
  label
    ? html`<button type="button" ${named(x, path)} aria-label="${label}: ${number(valueOf(x, path))}"
        >${number(valueOf(x, path))}</button>`
    : html`<span ${named(x, path)}>${number(valueOf(x, path))}</span>`;

/** A number in a drawing. */
export const written = (x, path, at, anchor = "start") =>
  html`<text x="${at[0]}" y="${at[1]}" text-anchor="${anchor}" ${named(x, path)}
    >${number(valueOf(x, path))}</text>`;

/** A bar from `from`, as long as its number. */
export function bar(x, path, { from = 0, y, height, scale, kind = "bar" }) {
  const value = valueOf(x, path);
  const length = Number.isFinite(value) ? fine(Math.max(0, value * scale)) : 0;
  return html`<rect class="${kind}" x="${fine(from)}" y="${y}" width="${length}" height="${height}" ${named(x, path)}
    data-length="${length / scale}" data-scale="${scale}"/>`;
}

/** An arrow from `from` along x, as long as its number; its head never longer than itself. */
export function arrow(x, path, { from = 0, y, scale, size = 5 }) {
  const value = valueOf(x, path);
  const length = Number.isFinite(value) ? fine(value * scale) : 0;
  const head = fine(Math.sign(length) * Math.min(size * 1.6, Math.abs(length)));
  const body = fine(length - head);
  return html`<path class="${length < 0 ? "down" : "up"}" ${named(x, path)} data-length="${length / scale}"
    data-scale="${scale}" d="M${fine(from)} ${y - 1.5}h${body}v${1.5 - size}l${head} ${size}l${-head} ${size}v${1.5 - size}h${-body}z"/>`;
}

const slotOf = (x, path) => part(html`<mn ${named(x, path)}>${number(valueOf(x, path))}</mn>`);

/** A formula, its slots filled with numbers; a slot of several holds their sum. */
export const filled = (x, formula, slots) =>
  new Markup(
    formula.replace(/<mn data-slot="([^"]*)"><\/mn>/g, (_, slot) =>
      [slots[slot]].flat().map((path) => slotOf(x, path)).join("<mo>+</mo>"),
    ),
  );
