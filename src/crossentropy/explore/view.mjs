// The page: one state, drawn by the figures, changed by the controls, kept in the address.
import { snippet, svgText } from "./copy.mjs";
import { act, change } from "./controls.mjs";
import { figures, prose } from "./figures.mjs";
import { shown } from "./markup.mjs";
import { show } from "./morph.mjs";
import { openPanel, refreshPanel, startPanel } from "./panel.mjs";
import { judge, restore } from "./predictions.mjs";
import { scope } from "./scope.mjs";
import { fromFragment, toFragment, validate } from "./state.mjs";

const given = JSON.parse(document.getElementById("data").textContent);
const templates = (name, textOf) =>
  Object.fromEntries([...document.querySelectorAll(`template[data-${name}]`)].map((item) => [item.dataset[name], textOf(item)]));
const formulas = templates("formula", (item) => item.innerHTML);
const texts = templates("text", (item) => item.content.textContent);
const status = document.getElementById("status");
const problem = document.querySelector("[data-problem]");
let state, x, saving, saying;

/** Show a state. */
function draw(next) {
  state = next;
  x = scope(state);
  for (const element of document.querySelectorAll("[data-figure]")) {
    const name = element.dataset.figure;
    show(element, String(figures[name] ? figures[name](x, formulas) : prose(x, name)));
  }
  for (const control of document.querySelectorAll("[data-setting]")) set(control, state[control.dataset.setting]);
  for (const text of document.querySelectorAll("[data-snippet]")) text.textContent = snippet(texts[text.dataset.snippet], x);
  restore(x);
  refreshPanel(x, formulas);
}

function set(control, value) {
  if (control.type === "radio") control.checked = control.value === value;
  else if (control.value === "" || Number(control.value) !== value) control.value = value;
}

/** Go on to a state that the reader made; the address and the live region follow a little later. */
function go(next) {
  const refused = validate(next);
  draw(refused ? state : next);
  clearTimeout(saying);
  if (refused) return say(code(refused));
  problem.hidden = true;
  problem.replaceChildren();
  clearTimeout(saving);
  saving = setTimeout(() => history.replaceState(null, "", `#${toFragment(state)}`), 250);
  saying = setTimeout(() => say("loss ", numberOf("loss"), " nats"), 700);
}

const say = (...parts) => status.replaceChildren(...parts);

function numberOf(name) {
  const element = document.createElement("span");
  show(element, String(shown(x, name)));
  return element.firstChild;
}

function code(text) {
  const element = document.createElement("code");
  element.textContent = text;
  return element;
}

function load() {
  const read = fromFragment(location.hash, given);
  draw(read.state);
  problem.hidden = !read.problem;
  problem.replaceChildren(...(read.problem ? [`${problem.dataset.problem} `, code(read.problem)] : []));
}

document.addEventListener("input", ({ target }) => {
  const next = change(state, target);
  if (next) go(next);
});
document.addEventListener("change", () => draw(state)); // a field left with what is no number
document.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (!button) return;
  const next = act(state, button, given);
  if (next) go(next);
  if (button.dataset.guess) say(...judge(x, button));
  if (button.dataset.control?.startsWith("copy-")) copy(button);
  if (button.dataset.name) openPanel(button, x, formulas);
});
document.addEventListener("focusin", ({ target }) => {
  if (target.matches("button[data-name]")) openPanel(target, x, formulas);
});
window.addEventListener("hashchange", load);

async function copy(button) {
  const what = button.dataset.control.slice("copy-".length);
  const text = { link: () => location.href.replace(/#.*/, "") + `#${toFragment(state)}`, svg: svgText }[what]?.();
  const source = document.querySelector(`[data-snippet="${what}"]`);
  let done = "selected";
  try {
    await navigator.clipboard.writeText(text ?? source.textContent);
    done = "copied";
  } catch {
    const shown = document.getElementById(`${what}-text`) ?? source;
    if (text) {
      shown.textContent = text;
      shown.hidden = false;
    }
    getSelection().selectAllChildren(shown);
  }
  say(button.dataset[done]);
}

startPanel();
load();
document.documentElement.dataset.ready = "1";
