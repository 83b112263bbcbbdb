// The textbook's formula and the stable one on rows where the first fails. The same for every reader: drawn at build time.
import { pitfalls } from "./loss.mjs";
import { filled, html, shown } from "./markup.mjs";

const FAILING = [
  [[20, 0, 0], 0],
  [[1000, 0], 0],
  [[0, 800], 0],
];

const byName = ({ steps }) => Object.fromEntries(steps.map(({ name, value }) => [name, value]));
const fails = FAILING.map(([logits, target]) => {
  const found = pitfalls(logits, target);
  const values = Object.entries(found).map(([dtype, { textbook, stable }]) => [
    dtype, { textbook: byName(textbook), stable: byName(stable) },
  ]);
  return { logits, found, ...Object.fromEntries(values) };
});

/** An operation of one formula in one precision: its numbers, marked where it is the one that fails. */
function result(k, dtype, which, index) {
  const { steps, first, verdict } = fails[k].found[dtype][which];
  const { name, value, mark } = steps[index];
  const path = `fails[${k}].${dtype}.${which}.${name}`;
  const paths = Array.isArray(value) ? value.map((_, c) => `${path}[${c}]`) : [path];
  const isLast = index === steps.length - 1;
  return html`<td class="${index === first ? "fails" : isLast && (verdict ? "wrong" : "right")}">
    ${paths.map((at, c) => html`${c > 0 && ", "}${shown({ fails }, at)}`)}
    ${index === first && html`<strong>${mark}</strong>`}</td>`;
}

/** The textbook's formula and the stable one, an operation a line. */
export function failing(formulas, words) {
  return html`${fails.map(({ logits, found }, k) => html`<div class="failing"><h3>A = [${logits.join(", ")}]</h3>
    ${["textbook", "stable"].map((which) => html`<div class="scroll"><table><caption>${which}</caption><thead><tr>
      <th scope="col">operation</th><th scope="col"><code>float32</code></th><th scope="col"><code>float64</code></th></tr></thead>
      <tbody>${found.float32[which].steps.map(({ name }, index) => html`<tr>
        <th scope="row"><span class="unseen" data-constant>${words[`${which}-${name}`]}</span><span aria-hidden="true"
          >${filled({}, formulas[`${which}-${name}`], {})}</span></th>
        ${["float32", "float64"].map((dtype) => result(k, dtype, which, index))}</tr>`)}</tbody></table></div>`)}</div>`)}`;
}
