// The figures of the example as markup, for a reader without script: node prerender.mjs < content.json
import { readFileSync } from "node:fs";
import { snippet } from "./copy.mjs";
import { failing } from "./failing.mjs";
import { figures, prose } from "./figures.mjs";
import { html } from "./markup.mjs";
import { scope } from "./scope.mjs";
import { EXAMPLE } from "./state.mjs";

const content = JSON.parse(readFileSync(0, "utf8"));
const x = scope(EXAMPLE);
const drawn = Object.entries(figures).map(([name, figure]) => [name, String(figure(x, content.formulas))]);
const numbers = content.prose.map((path) => [path, String(prose(x, path))]);
const snippets = Object.entries(content.snippets).map(([name, text]) => [`snippet-${name}`, String(html`${snippet(text, x)}`)]);
const all = [...drawn, ...numbers, ...snippets, ["failing", String(failing(content.formulas, content.operations))]];
process.stdout.write(JSON.stringify(Object.fromEntries(all)));
