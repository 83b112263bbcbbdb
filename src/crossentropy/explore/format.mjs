// A number as text, as `number` of `_explain/_notation.py` writes it.

const SPARE = 25; // digits beyond those kept: enough to tell an exact tie from its neighbours

/** Keep `digits` after the point. An exact tie goes to the even digit, as in Python; JavaScript goes up. */
function rounded(x, write, digits) {
  const [, kept, beyond, exponent] = /^(.*)(\d{25})(e.*)?$/.exec(write(x, digits + SPARE));
  const tie = /^50*$/.test(beyond);
  return tie && /[02468]\.?$/.test(kept) ? kept + (exponent ?? "") : write(x, digits);
}

const toFixed = (x, digits) => x.toFixed(digits);
const toExponential = (x, digits) => x.toExponential(digits);
const withoutZeros = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);

/** Four decimals, or more for three significant digits. A number that needs fewer is written with fewer. */
export function number(x) {
  if (Number.isNaN(x)) return "NaN";
  const sign = x < 0 ? "−" : "";
  const size = Math.abs(x);
  if (size === Infinity) return `${sign}∞`;
  if (size === 0) return "0";
  if (size >= 1e-4 && size < 1e6) {
    const exponent = Number(size.toExponential().split("e")[1]);
    const text = rounded(size, toFixed, Math.max(4, 2 - exponent));
    return sign + (Number(text) === Number(size.toPrecision(12)) ? withoutZeros(text) : text);
  }
  const [mantissa, exponent] = rounded(size, toExponential, 2).split("e");
  if (exponent === "-4") return `${sign}0.0001`;
  const power = exponent.slice(1).padStart(2, "0");
  return `${sign}${withoutZeros(mantissa)}e${exponent[0] === "-" ? "−" : "+"}${power}`;
}
