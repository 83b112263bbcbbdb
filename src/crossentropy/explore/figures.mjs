// The figures: each a function of the numbers `x`, which hold the state as `x.state`.
import { number } from "./format.mjs";
import { arrow, bar, filled, fine, html, named, shown, valueOf, written } from "./markup.mjs";
import { origin } from "./origins.mjs";

const classes = (x) => x.state.names.map((name, c) => ({ name, c }));
// A name in a drawing, where no line can break: both ends of a long one.
const brief = (name) => ([...name].length > 12 ? `${[...name].slice(0, 6).join("")}…${[...name].slice(-5).join("")}` : name);
const examples = (x) => x.state.logits.map((_, i) => i);
const rowName = (i) => html`<span data-constant>row ${i}</span>`;

/** Which example is looked at. */
function chosen(x) {
  const option = (i) => html`<label><input type="radio" name="row" data-control="row" value="${i}"
    ${i === x.row && html`checked`}>${rowName(i)}</label>`;
  if (examples(x).length === 1) return html``;
  return html`<fieldset class="choose"><legend class="unseen">Example</legend>
    ${examples(x).map(option)}</fieldset>`;
}

/** Its classes: logits and targets, and what follows from them. */
function rows(x) {
  const i = x.row;
  return html`${classes(x).map(({ name, c }) => html`<div class="class" role="group" aria-label="${name}">
    <label class="name"><input type="radio" name="target" data-control="target[${i}]" value="${c}"
      ${x.target[i] === c && html`checked`}><span>${name}</span></label>
    <input type="range" min="-10" max="10" step="0.1" value="${x.state.logits[i][c]}"
      data-control="logit[${i}][${c}]" aria-label="logit of ${name}, slider">
    <input type="number" min="-10000" max="10000" step="any" value="${x.state.logits[i][c]}"
      data-control="logit[${i}][${c}]" data-input="logits[${i}][${c}]" aria-label="logit of ${name}">
    ${probability(x, i, c)} ${shown(x, `p[${i}][${c}]`, `probability of ${name}`)}
    ${push(x, i, c)} ${shown(x, `-dlogits[${i}][${c}]`, `push on the logit of ${name}`)}</div>`)}`;
}

function probability(x, i, c) {
  const at = fine(100 * x.smoothed[i][c]);
  return html`<svg class="probability" viewBox="0 0 100 16" preserveAspectRatio="none" aria-hidden="true">
    <rect class="track" width="100" height="16"/>
    ${bar(x, `p[${i}][${c}]`, { y: 3, height: 10, scale: 100 })}
    <path class="target" data-input="smoothed[${i}][${c}]" d="M${at} 0V16"/></svg>`;
}

/** The push on a logit, on a scale that all rows share. */
function push(x, i, c) {
  return html`<svg class="push" viewBox="-62 -8 124 16" aria-hidden="true"><path class="axis" d="M0 -8V8"/>
    ${arrow(x, `-dlogits[${i}][${c}]`, { y: 0, scale: 60 / x.reach })}</svg>`;
}

const reduction = (x) => html`${x.state.reduction}`;

/** The loss alone, for the line that stays in sight. */
const loss = (x) => html`${shown(x, "loss", "loss")}`;

const PLOT = { left: 34, right: 390, top: 12, bottom: 226 };

/** −log p with the example's classes on it, its tangent at the target, and the line of knowing nothing. */
function curve(x) {
  const [i, t] = [x.row, x.target[x.row]];
  const highest = Math.min(12, Math.max(4, Math.ceil(-x.log_p[i][t] * 1.15)));
  const X = (p) => PLOT.left + (PLOT.right - PLOT.left) * p;
  const Y = (nats) => PLOT.bottom - (PLOT.bottom - PLOT.top) * Math.min(1, nats / highest);
  const lowest = Math.exp(-highest);
  const line = Array.from({ length: 97 }, (_, k) => lowest ** (1 - k / 96));
  const p = x.p[i][t];
  const tangent = (at) => -x.log_p[i][t] - (at - p) / p;
  // The tangent's ends: where it leaves the drawing above and below, or at p = 0 and 1.
  const ends = [Math.max(0, p * (1 - highest - x.log_p[i][t])), Math.min(1, p * (1 - x.log_p[i][t]))];
  return html`<svg class="plot" viewBox="0 0 400 260" role="img" aria-labelledby="curve-caption">
    <path class="axis" d="M${PLOT.left} ${PLOT.top}V${PLOT.bottom}H${PLOT.right}"/>
    <path class="knowing-nothing" d="M${PLOT.left} ${Y(x.uniform)}H${PLOT.right}"/>
    <text x="${PLOT.right}" y="${Y(x.uniform) - 5}" text-anchor="end" class="quiet">log C</text>
    ${written(x, "uniform", [PLOT.right - 36, Y(x.uniform) - 5], "end")}
    <path class="curve" d="${line.map((at, k) => `${k ? "L" : "M"}${X(at).toFixed(2)} ${Y(-Math.log(at)).toFixed(2)}`)}"/>
    ${p > lowest && html`<path class="tangent" d="M${X(ends[0])} ${Y(tangent(ends[0]))}L${X(ends[1])} ${Y(tangent(ends[1]))}"/>`}
    ${classes(x).map(({ name, c }) => point(x, i, c, name, X, Y, c === t))}
    <text x="${PLOT.left}" y="${PLOT.bottom + 16}" text-anchor="middle" class="quiet" data-constant>0</text>
    <text x="${PLOT.right}" y="${PLOT.bottom + 16}" text-anchor="end" class="quiet" data-constant>1</text>
    <text x="${(PLOT.left + PLOT.right) / 2}" y="${PLOT.bottom + 16}" text-anchor="middle" class="quiet">p</text>
    <text x="${PLOT.left + 6}" y="${PLOT.top + 4}" class="quiet">−log p</text></svg>`;
}

function point(x, i, c, name, X, Y, isTarget) {
  const [left, top] = [X(x.p[i][c]), Y(-x.log_p[i][c])];
  const end = x.p[i][c] > 0.6;
  const label = html`<text x="${left + (end ? -8 : 8)}" y="${top - 7}" text-anchor="${end ? "end" : "start"}"
    class="${isTarget ? "of-target" : "quiet"}">${brief(name)}</text>`;
  return html`<circle class="${isTarget ? "target" : "other"}" cx="${left}" cy="${top}" r="${isTarget ? 6 : 3.5}"/>${label}`;
}

/** What the target's probability costs, in three units. */
function units(x) {
  const [i, t] = [x.row, x.target[x.row]];
  const name = x.state.names[t];
  return html`<dl class="facts">
    <div><dt>probability of ${name}</dt><dd>${shown(x, `p[${i}][${t}]`, `probability of ${name}`)}</dd></div>
    <div><dt>−log of it</dt><dd>${shown(x, `-log_p[${i}][${t}]`, `−log of the probability of ${name}`)} nats</dd></div>
    <div><dt><span data-constant>slope there, −1/p</span></dt><dd>${shown(x, `tangent[${i}]`, "slope of the tangent")}</dd></div>
    <div><dt>mean loss</dt><dd>${shown(x, "mean", "mean loss")} nats</dd></div>
    <div><dt>the same in bits</dt><dd>${shown(x, "bits", "mean loss in bits")}</dd></div>
    <div><dt>perplexity</dt><dd>${shown(x, "perplexity", "perplexity")}</dd></div></dl>`;
}

/** The rows' losses head to tail make the sum; the mean is the N-th part of it. */
function batch(x) {
  const scale = Number.isFinite(x.total) && x.total > 0 ? 340 / x.total : 0.001;
  let from = 56;
  const bars = examples(x).map((i) => {
    const drawn = bar(x, `losses[${i}]`, { from, y: 2, height: 18, scale, kind: i % 2 ? "bar odd" : "bar" });
    from += Math.max(0, x.losses[i] * scale) || 0;
    return drawn;
  });
  const line = (name, y) => html`<text class="quiet" y="${y + 13}">${name}</text>`;
  return html`<svg class="plot" viewBox="0 0 400 76" aria-hidden="true">${line("rows", 2)} ${bars}
    ${line("sum", 28)} ${bar(x, "total", { from: 56, y: 28, height: 18, scale, kind: "bar whole" })}
    ${line("mean", 54)} ${bar(x, "mean", { from: 56, y: 54, height: 18, scale })}</svg>
    <div class="scroll"><table><thead><tr><td></td><th scope="col">target</th><th scope="col">its probability</th>
      <th scope="col">loss ℓ</th></tr></thead><tbody>${examples(x).map((i) => html`<tr><th scope="row">${rowName(i)}</th>
      <td>${x.state.names[x.target[i]]}</td><td>${shown(x, `p[${i}][${x.target[i]}]`, `probability of the target, row ${i}`)}</td>
      <td>${shown(x, `losses[${i}]`, `loss of row ${i}`)}</td></tr>`)}</tbody>
      <tfoot><tr><th scope="row" colspan="3">sum</th><td>${shown(x, "total", "sum of the losses")}</td></tr>
      <tr><th scope="row" colspan="3">mean = sum/${shown(x, "total_weight")}</th><td>${shown(x, "mean", "mean of the losses")}</td></tr>
      </tfoot></table></div>`;
}

/** The gradient of the sum and of the mean, for the chosen row. */
function gradients(x) {
  const i = x.row;
  return html`<div class="scroll"><table><thead><tr><th scope="col">${rowName(i)}</th>
    ${classes(x).map(({ name }) => html`<th scope="col">${name}</th>`)}</tr></thead><tbody>
    ${[["dtotal", "of the sum"], ["dmean", "of the mean"]].map(([path, label]) => html`<tr><th scope="row">${label}</th>
      ${classes(x).map(({ name, c }) => html`<td>${shown(x, `${path}[${i}][${c}]`, `gradient ${label}, ${name}`)}</td>`)}</tr>`)}
    </tbody></table></div>`;
}

/** The pushes on one row's logits, head to tail: they come back to where they began. */
function balance(x) {
  const i = x.row;
  const scale = 170 / x.reach;
  let from = 0;
  const lines = classes(x).map(({ name, c }) => {
    const drawn = html`<text x="-200" y="${c * 22 + 4}" class="quiet" text-anchor="start">${brief(name)}</text>
      ${arrow(x, `-dlogits[${i}][${c}]`, { from, y: c * 22, scale })}`;
    from += valueOf(x, `-dlogits[${i}][${c}]`) * scale || 0;
    return drawn;
  });
  const height = lines.length * 22;
  return html`<svg class="plot" viewBox="-200 -12 400 ${height + 8}" role="img" aria-labelledby="balance-caption">
    <path class="axis" d="M0 -12V${height - 6}"/>${lines}</svg>`;
}

/** The loss before each step, the one now, and where the next steps would lead. */
function trace(x) {
  const losses = x.losses_so_far;
  const now = losses.length - 1;
  const all = [...losses, ...x.losses_ahead];
  const highest = Math.max(...all.filter(Number.isFinite), 1e-300);
  const X = (k) => 8 + (384 * k) / (all.length - 1);
  const Y = (loss) => 108 - 100 * Math.max(0, Math.min(1, loss / highest)); // an address may hold any trace
  const line = (from, to) => all.slice(from, to).map((loss, k) => `${k ? "L" : "M"}${fine(X(from + k))} ${fine(Y(loss))}`);
  return html`<svg class="plot" viewBox="0 0 400 116" role="img" aria-labelledby="trace-caption">
    <path class="axis" d="M8 4V108H392"/><path class="ahead" d="${line(now)}"/>
    <path class="curve" d="${line(0, losses.length)}"/>
    ${losses.map((loss, k) => html`<circle class="dot" cx="${fine(X(k))}" cy="${fine(Y(loss))}" r="3"
      ${named(x, k < now ? `state.trace[${k}]` : "loss")}/>`)}
    ${written(x, "loss", [fine(X(now)) + 8, fine(Math.max(12, Y(x.loss) - 6))])}</svg>`;
}

/** The derivatives of every probability by every logit; one is unfolded. */
function jacobian(x) {
  const i = x.row;
  const [chosenK, chosenC] = x.entry;
  const name = (k) => x.state.names[k];
  const cell = (k, c) => {
    const path = `jacobian[${i}][${k}][${c}]`;
    const chosen = k === chosenK && c === chosenC;
    return html`<td><button type="button" data-control="entry" data-entry="${k},${c}" aria-pressed="${chosen}"
      ${named(x, path)} aria-label="probability of ${name(k)} by logit of ${name(c)}: ${number(valueOf(x, path))}"
      >${number(valueOf(x, path))}</button></td>`;
  };
  return html`<div class="scroll"><table class="matrix"><thead><tr><th scope="col">σ by A</th>
    ${classes(x).map(({ name }) => html`<th scope="col">${name}</th>`)}</tr></thead>
    <tbody>${classes(x).map(({ name, c: k }) => html`<tr><th scope="row">${name}</th>
      ${classes(x).map(({ c }) => cell(k, c))}</tr>`)}</tbody></table></div>`;
}

/** The chosen entry by the quotient rule. */
function unfolded(x, formulas) {
  const { formula, slots } = origin(x, `jacobian[${x.row}][${x.entry[0]}][${x.entry[1]}]`);
  return filled(x, formulas[formula], slots);
}

/** −Y/σ, and what becomes of it when the Jacobian multiplies it. */
function product(x) {
  const i = x.row;
  const line = (label, path, words) => html`<tr><th scope="row">${label}</th>${classes(x).map(({ name, c }) =>
    html`<td>${shown(x, path(c), `${words}, ${name}`)}</td>`)}</tr>`;
  return html`<div class="scroll"><table><thead><tr><th scope="col">${rowName(i)}</th>
    ${classes(x).map(({ name }) => html`<th scope="col">${name}</th>`)}</tr></thead><tbody>
    ${line("−Y/σ", (c) => `-ratio[${i}][${c}]`, "minus target by probability")}
    ${line("times J", (c) => `product[${i}][${c}]`, "row vector times Jacobian")}
    ${line("σ", (c) => `p[${i}][${c}]`, "probability")}
    ${line("Y", (c) => `smoothed[${i}][${c}]`, "target")}</tbody></table></div>`;
}

/** The loss of each row, and the floor below which no logits bring it. */
function floor(x) {
  const highest = Math.max(1, ...x.losses.filter(Number.isFinite), ...x.entropy) * 1.02;
  const scale = 300 / highest;
  return html`<svg class="plot" viewBox="0 0 302 ${examples(x).length * 28}" aria-hidden="true">
    ${examples(x).map((i) => html`${bar(x, `losses[${i}]`, { y: i * 28 + 4, height: 18, scale })}
      <path class="floor" d="M${x.entropy[i] * scale} ${i * 28}V${i * 28 + 26}"/>`)}</svg>
    <table><thead><tr><td></td><th scope="col">loss</th><th scope="col">floor H(Y)</th></tr></thead>
    <tbody>${examples(x).map((i) => html`<tr><th scope="row">${rowName(i)}</th>
    <td>${shown(x, `losses[${i}]`, `loss of row ${i}`)}</td>
    <td>${shown(x, `entropy[${i}]`, `floor of row ${i}`)}</td></tr>`)}</tbody></table>`;
}

/** The target of the chosen row as a distribution. */
function soft(x) {
  const i = x.row;
  return html`${classes(x).map(({ name, c }) => html`<label class="soft"><span>${name}</span>
    <input type="range" min="0" max="1" step="0.01" value="${x.q[i][c]}" data-control="soft[${i}][${c}]"
      aria-label="target of ${name}">${shown(x, `q[${i}][${c}]`)}
    <svg class="probability" viewBox="0 0 100 16" preserveAspectRatio="none" aria-hidden="true">
    ${bar(x, `smoothed[${i}][${c}]`, { y: 3, height: 10, scale: 100, kind: "bar of-target" })}</svg>
    ${shown(x, `smoothed[${i}][${c}]`)}</label>`)}`;
}

/** The formula of the loss with temperature and smoothing in it; a changed term is lit. */
const options = (x, formulas) => html`<div class="${[
  x.state.temperature !== 1 && "hot", x.state.label_smoothing !== 0 && "smooth", x.q.flat().some((q) => q % 1) && "soft",
].filter(Boolean).join(" ")}">${filled(x, formulas.options, { temperature: "state.temperature", label_smoothing: "state.label_smoothing", C: "C" })}</div>`;

/** A number in the text: $i is the chosen row, $t the class of its target. */
export function prose(x, path) {
  const [i, t] = [x.row, x.target[x.row]];
  return path === "$name" ? html`${x.state.names[t]}` : shown(x, path.replaceAll("$i", i).replaceAll("$t", t));
}

export const figures = {
  chosen, rows, reduction, loss, curve, units, batch, gradients, balance, trace, jacobian, unfolded, product, options, floor, soft,
};
