// The state of the page: what it accepts, and its text in the address. `page` in `__init__.py` accepts the same.

export const MAX_ROWS = 8, MAX_CLASSES = 10, MAX_LOGIT = 10000, MAX_NAME = 60, MAX_TRACE = 200;
const MAX_FRAGMENT = 20000; // characters

export const EXAMPLE = Object.freeze({
  logits: [[2, 1, 0.1], [0.1, 2, 1.9]],
  targets: [1, 0],
  names: ["cat", "dog", "bird"],
  temperature: 1,
  label_smoothing: 0,
  reduction: "mean",
  rate: 1,
  trace: [], // the loss before each step that was taken
  row: 0, // the row that is looked at
  entry: [0, 0], // the entry [k, c] of its Jacobian
});

const inRange = (x, least, most) => Number.isFinite(x) && least <= x && x <= most;
const isList = (x, least, most) => Array.isArray(x) && least <= x.length && x.length <= most;
// Control characters, halves of surrogate pairs, ends of lines, and what turns the direction of the text around it.
const UNPRINTABLE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/u;
const isName = (x) => typeof x === "string" && x.trim() !== "" && [...x].length <= MAX_NAME && !UNPRINTABLE.test(x);

const count = (x) => (Array.isArray(x) ? x.length : x);
const wrong = (name, expected, got) => `${name}: expected ${expected}, got ${String(got).slice(0, 40)}`;

/** What is wrong with a state, in words; null where nothing is. */
export function validate(state) {
  if (typeof state !== "object" || state === null) return wrong("state", "an object", state);
  const { logits, targets, names, temperature, label_smoothing, reduction, rate, trace, row, entry } = state;
  if (!isList(logits, 1, MAX_ROWS)) return wrong("logits", `1 to ${MAX_ROWS} rows`, count(logits));
  const uneven = logits.find((row) => !isList(row, 2, MAX_CLASSES) || row.length !== logits[0].length);
  if (uneven !== undefined)
    return wrong("logits", `rows of equally many classes, 2 to ${MAX_CLASSES}`, count(uneven));
  const far = logits.flat().find((z) => !inRange(z, -MAX_LOGIT, MAX_LOGIT));
  if (far !== undefined) return wrong("logits", `numbers from -${MAX_LOGIT} to ${MAX_LOGIT}`, far);
  const N = logits.length, C = logits[0].length;
  if (!isList(targets, N, N)) return wrong("targets", `${N}, one for each row`, count(targets));
  const isIndex = (t, count = C) => Number.isInteger(t) && inRange(t, 0, count - 1);
  const isDistribution = (t) =>
    isList(t, C, C) && t.every((q) => inRange(q, 0, 2)) && Math.abs(t.reduce((a, b) => a + b, 0) - 1) <= 1e-6;
  if (!targets.every((t) => isIndex(t)) && !targets.every(isDistribution))
    return wrong("targets", `class indices from 0 to ${C - 1}, or rows of ${C} probabilities that sum to 1`, targets);
  if (!isList(names, C, C)) return wrong("names", `${C}, one for each class`, count(names));
  if (!names.every(isName))
    return wrong("names", `1 to ${MAX_NAME} printable characters each`, names.find((name) => !isName(name)));
  if (!inRange(temperature, 0.05, 20)) return wrong("temperature", "a number from 0.05 to 20", temperature);
  if (!inRange(label_smoothing, 0, 1)) return wrong("label_smoothing", "a number from 0 to 1", label_smoothing);
  if (!["mean", "sum"].includes(reduction)) return wrong("reduction", "mean or sum", reduction);
  if (!inRange(rate, Number.MIN_VALUE, 100)) return wrong("rate", "a number above 0, up to 100", rate);
  if (!isList(trace, 0, MAX_TRACE)) return wrong("trace", `at most ${MAX_TRACE} numbers`, count(trace));
  if (!trace.every(Number.isFinite)) return wrong("trace", "finite numbers", trace);
  if (!isIndex(row, N)) return wrong("row", `an integer from 0 to ${N - 1}`, row);
  if (!isList(entry, 2, 2) || !entry.every((k) => isIndex(k)))
    return wrong("entry", `two class indices from 0 to ${C - 1}`, entry);
  return null;
}

/** The state as the fragment of an address, without its "#". A number's text is the shortest that gives it back. */
export function toFragment(state) {
  const row = (values) => values.map(String).join(",");
  const rows = (values) => values.map(row).join("/");
  const soft = Array.isArray(state.targets[0]);
  return [
    "v1",
    `A=${rows(state.logits)}`,
    `Y=${soft ? rows(state.targets) : row(state.targets)}`,
    `names=${state.names.map(encodeURIComponent).join(",")}`,
    `t=${state.temperature}`,
    `eps=${state.label_smoothing}`,
    `r=${state.reduction}`,
    `rate=${state.rate}`,
    ...(state.trace.length ? [`trace=${row(state.trace)}`] : []),
    ...(state.row ? [`row=${state.row}`] : []),
    ...(state.entry.some(Boolean) ? [`entry=${row(state.entry)}`] : []),
  ].join(";");
}

function readNumber(text) {
  if (!/^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i.test(text))
    throw new SyntaxError(`expected a number, got "${text.slice(0, 20)}"`);
  return Number(text);
}
const readRow = (text) => text.split(",").map(readNumber);
const readRows = (text) => text.split("/").map(readRow);

/** A row of indices; rows of probabilities, which one row of several numbers is too where there is one row of logits. */
function readTargets(text, rows) {
  const read = readRows(text);
  return read.length > 1 || (rows === 1 && read[0].length > 1) ? read : read[0];
}

const PARTS = {
  A: ["logits", readRows],
  Y: ["targets", (text) => text],
  names: ["names", (text) => text.split(",").map(decodeURIComponent)],
  t: ["temperature", readNumber],
  eps: ["label_smoothing", readNumber],
  r: ["reduction", (text) => text],
  rate: ["rate", readNumber],
  trace: ["trace", readRow],
  row: ["row", readNumber],
  entry: ["entry", readRow],
};

function read(text) {
  if (text.length > MAX_FRAGMENT) throw new SyntaxError(`expected at most ${MAX_FRAGMENT} characters`);
  const [version, ...parts] = text.split(";");
  if (version !== "v1") throw new SyntaxError(`expected a link of version v1, got "${version.slice(0, 20)}"`);
  const given = {};
  for (const part of parts) {
    const [, key, value] = /^(\w+)=(.*)$/s.exec(part) ?? [];
    if (!Object.hasOwn(PARTS, key) || PARTS[key][0] in given)
      throw new SyntaxError(`expected ${Object.keys(PARTS).join(", ")}, each once, got "${part.slice(0, 20)}"`);
    given[PARTS[key][0]] = PARTS[key][1](value);
  }
  if (!given.logits || given.targets === undefined) throw new SyntaxError("expected logits A and targets Y");
  const names = given.logits[0].map((_, c) => String(c));
  const targets = readTargets(given.targets, given.logits.length);
  return { ...EXAMPLE, names, ...given, targets };
}

/** The state that a fragment holds. Without one, or where it is bad, `fallback`; `problem` says what is wrong. */
export function fromFragment(text, fallback = EXAMPLE) {
  const fragment = text.replace(/^#/, "");
  if (fragment === "") return { state: fallback, problem: null };
  try {
    const state = read(fragment);
    const problem = validate(state);
    return problem ? { state: fallback, problem } : { state, problem: null };
  } catch (error) {
    if (error instanceof URIError) return { state: fallback, problem: "names: expected %-codes of UTF-8" };
    if (error instanceof SyntaxError) return { state: fallback, problem: error.message };
    throw error;
  }
}
