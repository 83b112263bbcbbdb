// What a control makes of the state. A state that is refused elsewhere changes nothing.
import { distributions, step } from "./loss.mjs";

const replaced = (list, index, value) => list.map((old, k) => (k === index ? value : old));
const indices = (text) => text.match(/\d+/g)?.map(Number) ?? [];

function withTarget(state, i, c) {
  if (!Array.isArray(state.targets[0])) return { ...state, targets: replaced(state.targets, i, c) };
  return withDistributions(state, replaced(state.targets, i, state.names.map((_, k) => Number(k === c))));
}

/** Targets as class indices where every row has one right class. */
function withDistributions(state, rows) {
  const isOneHot = rows.every((row) => row.every((q) => q === 0 || q === 1));
  return { ...state, targets: isOneHot ? rows.map((row) => row.indexOf(1)) : rows };
}

/** One class's target changed; the others of the row keep their proportions, or share what is left. */
function withPart(state, i, c, part) {
  const rows = distributions(state);
  const old = rows[i];
  const others = old.reduce((sum, q, k) => (k === c ? sum : sum + q), 0);
  const share = (q) => (others > 0 ? (q * (1 - part)) / others : (1 - part) / (old.length - 1));
  return withDistributions(state, replaced(rows, i, old.map((q, k) => (k === c ? part : share(q)))));
}

const CHANGES = {
  logit: (state, [i, c], value) => ({ ...state, logits: replaced(state.logits, i, replaced(state.logits[i], c, value)) }),
  target: (state, [i], value) => withTarget(state, i, value),
  soft: (state, [i, c], value) => withPart(state, i, c, value),
  row: (state, _, value) => ({ ...state, row: value }),
  temperature: (state, _, value) => ({ ...state, temperature: value }),
  label_smoothing: (state, _, value) => ({ ...state, label_smoothing: value }),
  rate: (state, _, value) => ({ ...state, rate: value }),
};

/** The state that a slider, field or choice asks for; nothing where it holds no number. */
export function change(state, { dataset: { control }, value }) {
  if (!control) return undefined;
  if (control === "reduction") return { ...state, reduction: value };
  if (value === "" || !Number.isFinite(Number(value))) return undefined;
  return CHANGES[control.split("[")[0]]?.(state, indices(control), Number(value));
}

const ACTIONS = {
  add3: (state) => ({
    ...state,
    logits: replaced(state.logits, state.row ?? 0, state.logits[state.row ?? 0].map((z) => z + 3)),
  }),
  step: (state) => step(state),
  reset: (_, __, given) => given,
  entry: (state, button) => ({ ...state, entry: indices(button.dataset.entry) }),
};

/** The state after a button; nothing where the button does not change it. */
export const act = (state, button, given) => ACTIONS[button.dataset.control]?.(state, button, given);
