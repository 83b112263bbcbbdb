// What the figures read: the numbers of the loss, and those that only the page has.
import { distributions, numbers, pitfalls } from "./loss.mjs";

const FAILING = [
  [[20, 0, 0], 0],
  [[1000, 0], 0],
  [[0, 800], 0],
];

const byName = ({ steps }) => Object.fromEntries(steps.map(({ name, value }) => [name, value]));
const failures = FAILING.map(([logits, target]) => {
  const found = pitfalls(logits, target);
  const values = Object.entries(found).map(([dtype, { textbook, stable }]) => [
    dtype, { textbook: byName(textbook), stable: byName(stable) },
  ]);
  return { logits, target, found, ...Object.fromEntries(values) };
});

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
    uniform: Math.log(state.names.length),
    tangent: target.map((t, i) => -1 / x.p[i][t]),
    twice: numbers({ ...state, logits: x.p, temperature: 1 }).losses,
    off_by_one: numbers({ ...state, targets: distributions(state).map((row) => [...row.slice(1), row[0]]) }).losses,
    losses_so_far: [...state.trace, x.loss],
    reach: Math.max(1, Math.ceil(largest)), // the longest arrow that there is room for
    fails: failures,
  };
}
