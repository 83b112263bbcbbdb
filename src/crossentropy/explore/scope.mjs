// What the figures read: the numbers of the loss, and those that only the page has.
import { distributions, numbers, step } from "./loss.mjs";

const STEPS_AHEAD = 12;

/** The losses after the steps to come. */
function lossesAhead(state) {
  const found = [];
  for (let k = 0, at = state; k < STEPS_AHEAD; k++) {
    at = step(at);
    found.push(numbers(at).loss);
  }
  return found;
}

/** All that can be shown of a state. */
export function scope(state) {
  const x = numbers(state);
  const N = state.logits.length;
  const target = x.q.map((row) => row.indexOf(Math.max(...row)));
  const largest = Math.max(...x.dlogits.flat().map(Math.abs));
  return {
    ...x,
    state,
    row: Math.min(state.row ?? 0, N - 1),
    entry: state.entry ?? [0, 0],
    target,
    total_weight: N,
    C: state.names.length,
    uniform: Math.log(state.names.length),
    tangent: target.map((t, i) => -1 / x.p[i][t]),
    twice: numbers({ ...state, logits: x.p, temperature: 1 }).losses,
    off_by_one: numbers({ ...state, targets: distributions(state).map((row) => [...row.slice(1), row[0]]) }).losses,
    losses_so_far: [...state.trace, x.loss],
    losses_ahead: lossesAhead(state),
    reach: Math.max(1, Math.ceil(largest)), // the longest arrow that there is room for
  };
}
