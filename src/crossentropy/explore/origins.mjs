// Where a number comes from: its formula, what fills its slots, and the numbers to be lit.

const all = (values, path) => values.map((_, k) => path(k));

function gradient(x, kind, i, c, divided, path) {
  const scaled = x.state.temperature === 1 ? "" : "-scaled";
  return {
    formula: `${kind}${scaled}-${divided ? "mean" : "sum"}`,
    slots: { p: `p[${i}][${c}]`, y: `smoothed[${i}][${c}]`, temperature: "state.temperature", N: "total_weight", value: path },
    lit: [`p[${i}][${c}]`, `smoothed[${i}][${c}]`],
  };
}

const ORIGINS = {
  p: (x, path, i, c) => ({
    formula: "p",
    slots: { e: `e[${i}][${c}]`, S: `S[${i}]`, value: path },
    lit: all(x.p[i], (k) => `logits[${i}][${k}]`),
  }),
  "-log_p": (x, path, i, c) => ({ formula: "log_p", slots: { p: `p[${i}][${c}]`, value: path }, lit: [`p[${i}][${c}]`] }),
  tangent: (x, path, i) => {
    const p = `p[${i}][${x.target[i]}]`;
    return { formula: "tangent", slots: { p, value: path }, lit: [p] };
  },
  losses: (x, path, i) => {
    const t = x.target[i];
    const p = `p[${i}][${t}]`;
    const isOneHot = x.smoothed[i][t] === 1;
    return isOneHot
      ? { formula: "losses-one-hot", slots: { p, value: path }, lit: [p, `smoothed[${i}][${t}]`] }
      : { formula: "losses", slots: { value: path }, lit: all(x.p[i], (k) => `p[${i}][${k}]`) };
  },
  total: (x, path) => {
    const losses = all(x.losses, (i) => `losses[${i}]`);
    return { formula: "total", slots: { losses, value: path }, lit: losses };
  },
  mean: (x, path) => ({
    formula: "mean",
    slots: { total: "total", N: "total_weight", value: path },
    lit: all(x.losses, (i) => `losses[${i}]`),
  }),
  loss: (x, path) => ORIGINS[x.state.reduction === "mean" ? "mean" : "total"](x, path),
  bits: (x, path) => ({ formula: "bits", slots: { mean: "mean", value: path }, lit: ["mean"] }),
  perplexity: (x, path) => ({ formula: "perplexity", slots: { mean: "mean", value: path }, lit: ["mean"] }),
  entropy: (x, path, i) => ({ formula: "entropy", slots: { value: path }, lit: all(x.p[i], (c) => `smoothed[${i}][${c}]`) }),
  "-dlogits": (x, path, i, c) => gradient(x, "push", i, c, x.state.reduction === "mean", path),
  dtotal: (x, path, i, c) => gradient(x, "gradient", i, c, false, path),
  dmean: (x, path, i, c) => gradient(x, "gradient", i, c, true, path),
  jacobian: (x, path, i, k, c) => ({
    formula: k === c ? "jacobian-same" : "jacobian-other",
    slots: {
      e_k: `e[${i}][${k}]`, e_c: `e[${i}][${c}]`, S: `S[${i}]`,
      p_k: `p[${i}][${k}]`, p_c: `p[${i}][${c}]`, rest: `rest[${i}][${c}]`, value: path,
    },
    lit: [`p[${i}][${k}]`, `p[${i}][${c}]`],
  }),
  smoothed: (x, path, i, c) => ({
    formula: "smoothed",
    slots: { label_smoothing: "state.label_smoothing", q: `q[${i}][${c}]`, C: "C", value: path },
    lit: [`q[${i}][${c}]`],
  }),
  "-ratio": (x, path, i, k) => ({
    formula: "ratio",
    slots: { y: `smoothed[${i}][${k}]`, p: `p[${i}][${k}]`, value: path },
    lit: [`smoothed[${i}][${k}]`, `p[${i}][${k}]`],
  }),
  product: (x, path, i, c) => ({
    formula: "product-of",
    slots: { p: `p[${i}][${c}]`, y: `smoothed[${i}][${c}]`, value: path },
    lit: all(x.p[i], (k) => [`-ratio[${i}][${k}]`, `jacobian[${i}][${k}][${c}]`]).flat(),
  }),
};

/** The origin of a named number; undefined where it has none on the page. */
export function origin(x, path) {
  const [, name, indices] = /^(-?\w+)((?:\[\d+\])*)$/.exec(path) ?? [];
  return ORIGINS[name]?.(x, path, ...(indices.match(/\d+/g) ?? []).map(Number));
}
