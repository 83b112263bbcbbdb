// Every number of the loss, with the names of the record that `explain` returns. Arrays are indexed [row][class].
// As in the library, nothing is subtracted that was just added: a confident row keeps all its digits.

import { MAX_LOGIT, MAX_TRACE } from "./state.mjs";

const MIN_NORMAL = 2 ** -1022;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const without = (values, index) => values.filter((_, k) => k !== index);
const indexOfLargest = (values) => values.indexOf(Math.max(...values));

/** The target distributions: one-hot for class indices. */
export function distributions({ logits, targets }) {
  return targets.map((target, i) => (Array.isArray(target) ? target : logits[i].map((_, c) => Number(c === target))));
}

/** The numbers of one row, from its logits and target distribution. */
function numbersOfRow(logits, q, temperature, smoothing) {
  const C = logits.length;
  const smoothed = q.map((value) => (1 - smoothing) * value + smoothing / C);
  const B = sum(smoothed);
  const u = logits.map((z) => z / temperature);
  const top = indexOfLargest(u);
  const m = u[top];
  const shifted = u.map((value) => value - m);
  const e = shifted.map(Math.exp);
  const r = sum(without(e, top)); // the largest, exp 0 = 1, is left out: 1 + r would lose what is small in r
  const S = 1 + r;
  const logS = Math.log1p(r);
  const p = e.map((value) => (value < MIN_NORMAL ? 0 : value / S)); // 0 where the library's is
  const rest = p.map((value, c) => (c === top ? r / S : 1 - value));
  const log_p = shifted.map((value) => value - logS);
  const times = (b, value) => (b === 0 ? 0 : b * value); // a zero coefficient removes its term: 0·∞ too
  const jacobian = p.map((pk, k) => p.map((pc, c) => (k === c ? pk * rest[k] : -pk * pc)));
  const ratio = smoothed.map((b, k) => (b === 0 ? 0 : b / p[k]));
  const b_of_others = sum(without(smoothed, top));
  const du = p.map((pc, c) => (c === top ? (b_of_others - smoothed[c] * r) / S : B * pc - smoothed[c]));
  return {
    q, smoothed, u, m, shifted, e, r, S, p, rest, log_p, jacobian, ratio,
    lse: m + logS,
    losses: sum(smoothed.map((b, c) => times(b, -shifted[c]))) + B * logS,
    product: p.map((_, c) => -sum(ratio.map((value, k) => times(value, jacobian[k][c])))),
    entropy: -sum(smoothed.map((b) => times(b, Math.log(b)))), // the floor: no logits have a smaller loss
    dtotal: du.map((value) => value / temperature),
  };
}

/** All numbers of a state. `perplexity` and `bits` are those of the mean. */
export function numbers(state) {
  const q = distributions(state);
  const rows = state.logits.map((row, i) => numbersOfRow(row, q[i], state.temperature, state.label_smoothing));
  const N = rows.length;
  const found = Object.fromEntries(Object.keys(rows[0]).map((name) => [name, rows.map((row) => row[name])]));
  const total = sum(found.losses);
  const mean = total / N;
  const dmean = found.dtotal.map((row) => row.map((value) => value / N));
  const inMean = state.reduction === "mean";
  return {
    ...found, total, mean, dmean,
    loss: inMean ? mean : total,
    dlogits: inMean ? dmean : found.dtotal,
    perplexity: Math.exp(mean),
    bits: mean / Math.LN2,
  };
}

/** The state after a step against the gradient. Its trace holds the loss before each step; logits keep to the limits. */
export function step(state) {
  const { loss, dlogits } = numbers(state);
  const moved = (z, derivative) => Math.min(MAX_LOGIT, Math.max(-MAX_LOGIT, z - state.rate * derivative));
  return {
    ...state,
    logits: state.logits.map((row, i) => row.map((z, c) => moved(z, dlogits[i][c]))),
    trace: [...state.trace, loss].slice(-MAX_TRACE),
  };
}

const DIGITS_LOST = 1e-3; // a relative error that counts, as in the library's pitfalls
const ROUNDING = { float32: Math.fround, float64: (x) => x };

/** What is wrong with a result, beside the right one: the words of the library's pitfalls. */
function verdict(found, right) {
  if (Number.isNaN(found)) return "NaN";
  if (!Number.isFinite(found)) return "inf";
  if (found === 0 && right !== 0) return "0";
  return Math.abs(found - right) > DIGITS_LOST * Math.abs(right) ? "digits" : "";
}

/** -log(exp(A_t) / Σ exp(A)), an operation at a time, each rounded; with what fails in it. */
function textbook(logits, target, round, right) {
  const e = logits.map((z) => round(Math.exp(z)));
  const S = e.reduce((total, value) => round(total + value), 0);
  const p = round(e[target] / S);
  const log = round(Math.log(p));
  const loss = -log;
  const result = verdict(loss, right.loss);
  const rounds = result === "0" || result === "digits";
  const lost = (digits, exact) => rounds && !(Math.abs(digits - exact) <= DIGITS_LOST * exact);
  const marks = {
    exp: e.includes(Infinity) ? "overflow" : e[target] === 0 ? "underflow" : "",
    sum: S === Infinity && !e.includes(Infinity) ? "overflow" : lost(S - e[target], right.others) ? "digits lost" : "",
    quotient: Number.isNaN(p) ? (S === 0 ? "0/0" : "inf/inf") : lost(1 - p, right.rest) ? "digits lost" : "",
    log: p === 0 ? "log 0" : "",
    loss: "",
  };
  return operations({ exp: e, sum: S, quotient: p, log, loss }, marks, result);
}

/** m - A_t + log1p(r), an operation at a time, each rounded. Only what is too small for the precision is lost. */
function stable(logits, target, round, right) {
  const top = indexOfLargest(logits);
  const shifted = logits.map((z) => round(z - logits[top]));
  const e = shifted.map((value) => round(Math.exp(value)));
  const r = without(e, top).reduce((total, value) => round(total + value), 0);
  const log1p = round(Math.log1p(r));
  const loss = round(log1p - shifted[target]);
  return operations({ max: logits[top], shift: shifted, exp: e, sum: r, log1p, loss }, {}, verdict(loss, right.loss));
}

/** The operations in order; `first` is the index of the first that fails, -1 where none does. */
function operations(values, marks, result) {
  const steps = Object.entries(values).map(([name, value]) => ({ name, value, mark: marks[name] ?? "" }));
  return { steps, first: result === "" ? -1 : steps.findIndex(({ mark }) => mark !== ""), verdict: result };
}

/** The textbook's formula and the stable one on one row with one right class, in float32 and float64. */
export function pitfalls(logits, target) {
  return Object.fromEntries(
    Object.entries(ROUNDING).map(([dtype, round]) => {
      const A = logits.map(round);
      const { losses, rest, u } = numbers({
        logits: [A], targets: [target], temperature: 1, label_smoothing: 0, reduction: "sum",
      });
      const others = sum(without(u[0], target).map(Math.exp));
      const right = { loss: losses[0], rest: rest[0][target], others };
      return [dtype, { textbook: textbook(A, target, round, right), stable: stable(A, target, round, right) }];
    }),
  );
}
