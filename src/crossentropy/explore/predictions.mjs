// The predictions: a wrong guess is told its misconception. The words are in the page, hidden.
import { valueOf } from "./markup.mjs";

/** Whether a choice is right: its number may happen to equal that of the right one. */
function isRight(x, choice) {
  const right = choice.closest("[data-prediction]").querySelector("[data-right]");
  const number = (button) => button.querySelector("[data-name]")?.dataset.name;
  if (choice === right) return true;
  return number(choice) !== undefined && valueOf(x, number(choice)) === valueOf(x, number(right));
}

/** Mark a choice and show what is said to it, of which a copy is returned for those who listen. */
export function judge(x, choice) {
  const prediction = choice.closest("[data-prediction]");
  const right = isRight(x, choice);
  for (const button of prediction.querySelectorAll("[data-guess]")) {
    button.setAttribute("aria-pressed", button === choice);
    button.classList.toggle("right", button === choice && right);
  }
  const name = right ? "right" : choice.dataset.guess;
  for (const message of prediction.querySelectorAll("[data-message]")) message.hidden = message.dataset.message !== name;
  return prediction.querySelector(`[data-message="${name}"]`).cloneNode(true).childNodes;
}

/** After a change of the numbers a guess is judged anew. */
export function restore(x) {
  for (const choice of document.querySelectorAll('[data-guess][aria-pressed="true"]')) judge(x, choice);
}
