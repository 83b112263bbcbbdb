// The panel: the formula of the number that has been tapped or focused, and its inputs lit.
import { show } from "./morph.mjs";
import { filled } from "./markup.mjs";
import { origin } from "./origins.mjs";

const panel = document.getElementById("panel");
let asked; // the path of the number that the panel is about

export function openPanel(button, x, formulas) {
  asked = button.dataset.name;
  refreshPanel(x, formulas);
}

/** Formula and lights anew, after the numbers have changed. */
export function refreshPanel(x, formulas) {
  const found = asked && exists() ? origin(x, asked) : undefined;
  const formula = found && !isUnfolded() ? String(filled(x, formulas[found.formula], found.slots)) : "";
  show(panel.querySelector("output"), formula);
  panel.hidden = formula === "";
  light(found?.lit ?? []);
}

function light(paths) {
  for (const element of document.querySelectorAll(".lit")) element.classList.remove("lit");
  for (const path of paths)
    for (const element of document.querySelectorAll(`[data-name="${path}"],[data-input="${path}"]`)) element.classList.add("lit");
}

/** Whether the number is still on the page: rows and classes may have become fewer. */
const exists = () => document.querySelector(`button[data-name="${asked}"]`) !== null;

/** Whether the formula stands with its figure already. */
const isUnfolded = () => document.querySelector(`button[data-name="${asked}"][aria-pressed="true"]`) !== null;

function close() {
  asked = undefined;
  show(panel.querySelector("output"), "");
  panel.hidden = true;
  light([]);
}

export function startPanel() {
  panel.querySelector("button").addEventListener("click", close);
  document.addEventListener("keydown", ({ key }) => key === "Escape" && close());
}
