// Reads a list of jobs, [function, ...arguments], from standard input and prints their results. JSON has no numbers
// that are not finite: these become text.
import { readFileSync } from "node:fs";

const folder = new URL("../../src/crossentropy/explore/", import.meta.url);
const functions = {};
for (const name of ["loss", "format", "state"]) Object.assign(functions, await import(new URL(`${name}.mjs`, folder)));

const results = JSON.parse(readFileSync(0, "utf8")).map(([name, ...given]) =>
  typeof functions[name] === "function" ? functions[name](...given) : functions[name],
);
const asText = (_, value) => (typeof value === "number" && !Number.isFinite(value) ? String(value) : value);
process.stdout.write(JSON.stringify(results, asText));
