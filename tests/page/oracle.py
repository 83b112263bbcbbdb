"""What each number of the page must be: read from its address, computed by `explain`, else by mpmath."""

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import mpmath
import numpy as np

import crossentropy as ce

EXAMPLE = "#v1;A=2,1,0.1/0.1,2,1.9;Y=1,0;names=cat,dog,bird;t=1;eps=0;r=mean;rate=1;trace="


FAILING = [[20.0, 0.0, 0.0], [1000.0, 0.0], [0.0, 800.0]]  # of the page's section on precision; the target is class 0


def _at(value: Any, index: tuple[int, ...]) -> Any:
    return functools.reduce(lambda inner, k: inner[k], index, value)


def _rows(text: str) -> list[list[float]]:
    return [[float(x) for x in row.split(",")] for row in text.split("/")]


@dataclass(frozen=True)
class Expected:
    """A number, and the largest term of the sum that gives it: what its rounding error is measured by."""

    value: float
    term: float


class State:
    """The state in a fragment, read without the page's own code."""

    def __init__(self, fragment: str):
        version, *fields = (fragment or EXAMPLE).removeprefix("#").split(";")
        assert version == "v1"
        given = dict(field.split("=", 1) for field in fields)
        given = {"t": "1", "eps": "0", "r": "mean", "rate": "1", **given}
        self.logits = _rows(given["A"])
        indices = "/" not in given["Y"] and len(given["Y"].split(",")) == len(self.logits)
        soft = _rows(given["Y"])
        self.targets = [int(t) for t in soft[0]] if indices else soft
        names = given.get("names", ",".join(map(str, range(len(self.logits[0])))))
        self.names = [unquote(name) for name in names.split(",")]
        self.temperature, self.label_smoothing = float(given["t"]), float(given["eps"])
        self.reduction, self.rate = given["r"], float(given["rate"])
        self.trace = [float(x) for x in given["trace"].split(",")] if given.get("trace") else []
        self.row = int(given.get("row", 0))
        self.entry = [int(k) for k in given.get("entry", "0,0").split(",")]

    @cached_property
    def x(self) -> ce.Explanation:
        A = np.array(self.logits)
        options = {
            "temperature": self.temperature,
            "label_smoothing": self.label_smoothing,
            "reduction": self.reduction,
        }
        # `explain` refuses logits that look like probabilities; the page lets them pass.
        if (A >= 0).all() and (abs(A.sum(-1) - 1) <= 1e-3).all():
            A = A + 2.0**-8
        return ce.explain(A, self.targets, self.names, **options)

    @property
    def q(self) -> list[list[float]]:
        found: list[list[float]] = self.x.q.tolist()
        return found

    @cached_property
    def exact(self) -> dict[str, list[mpmath.mpf]]:
        """Losses and entropies by their definitions, in 60 digits."""
        with mpmath.workdps(60):
            losses, floors = [], []
            for z, q in zip(self.logits, self.x.q, strict=True):
                u = [mpmath.mpf(v) / mpmath.mpf(self.temperature) for v in z]
                eps = mpmath.mpf(self.label_smoothing)
                b = [(1 - eps) * mpmath.mpf(float(v)) + eps / len(u) for v in q]
                top = u.index(max(u))
                r = mpmath.fsum(mpmath.exp(v - u[top]) for c, v in enumerate(u) if c != top)
                losses.append(mpmath.fsum(bc * (u[top] - v) for bc, v in zip(b, u, strict=True)))
                losses[-1] += mpmath.fsum(b) * mpmath.log1p(r)
                floors.append(-mpmath.fsum(bc * mpmath.log(bc) for bc in b if bc > 0))
            return {"losses": losses, "entropy": floors}

    def expected(self, name: str) -> Expected:
        """The number that the page calls `name`."""
        if name.startswith("-"):
            found = self.expected(name[1:])
            return Expected(-found.value, found.term)
        *path, root = re.sub(r"\[\d+\]", "", name).split(".")
        index = tuple(map(int, re.findall(r"\[(\d+)\]", name)))
        if path == ["state"]:
            return Expected(_at(getattr(self, root), index), 0.0)
        if path[:1] == ["fails"]:
            value = _at(operations(index[0], path[1])[path[2]][root], index[1:])
            return Expected(value, abs(value))
        assert path == [], f"{name}: no path"
        return _NAMED[root](self, index) if root in _NAMED else self._of_explanation(root, index)

    def _of_explanation(self, root: str, index: tuple[int, ...]) -> Expected:
        x = self.x
        value = float(np.asarray(getattr(x, root))[index])
        if root in ("dtotal", "dmean", "dlogits"):
            i, c = index
            # B p − b, as its two parts that cannot cancel before they are added.
            parts = (x.B[i] - x.b[i, c]) * x.p[i, c], x.b[i, c] * x.rest[i, c]
            return Expected(value, max(map(abs, parts)) / self.temperature * self._far(i))
        if root in ("shifted", "u", "lse", "log_p"):
            return Expected(value, float(abs(x.u[index[0]]).max()) + abs(value))
        rows = index[:1] or range(len(x.losses))
        return Expected(value, abs(value) * max(self._far(i) for i in rows))

    def _far(self, i: int) -> float:
        """How much the rounding of u, before exp, adds to a relative error: nothing where u is the logit itself."""
        return 1.0 if self.temperature == 1 else 1 + float(abs(self.x.u[i]).max())


@np.errstate(all="ignore")
def operations(k: int, dtype: str) -> dict[str, dict[str, Any]]:
    """The textbook's formula and the stable one on `FAILING[k]`, each operation rounded to `dtype`."""

    def rounded(function: Callable[[Any], Any], x: Any) -> Any:
        return np.asarray(function(np.asarray(x, np.float64))).astype(dtype)

    A = np.array(FAILING[k], dtype)
    e = rounded(np.exp, A)
    S = functools.reduce(np.add, e)
    quotient = e[0] / S
    log = rounded(np.log, quotient)
    top = int(A.argmax())
    shift = A - A[top]
    f = rounded(np.exp, shift)
    r = functools.reduce(np.add, np.delete(f, top))
    log1p = rounded(np.log1p, r)
    return {
        "textbook": {"exp": e, "sum": S, "quotient": quotient, "log": log, "loss": -log},
        "stable": {"max": A[top], "shift": shift, "exp": f, "sum": r, "log1p": log1p, "loss": log1p - shift[0]},
    }


def _bits(state: State, index: tuple[int, ...]) -> Expected:
    nats = state.exact["losses"]
    with mpmath.workdps(60):
        value = float((nats[index[0]] if index else mpmath.fsum(nats) / len(nats)) / mpmath.log(2))
    return Expected(value, value * max(map(state._far, range(len(nats)))))


def _perplexity(state: State, index: tuple[int, ...]) -> Expected:
    nats = state.exact["losses"]
    with mpmath.workdps(60):
        mean = nats[index[0]] if index else mpmath.fsum(nats) / len(nats)
        value = float(mpmath.exp(mean))
    return Expected(value, value * (1 + float(mean)) * max(map(state._far, range(len(nats)))))


def _entropy(state: State, index: tuple[int, ...]) -> Expected:
    return Expected(float(state.exact["entropy"][index[0]]), 1.0)


def _jacobian(state: State, index: tuple[int, ...]) -> Expected:
    i, k, c = index
    value = float(state.x.derivation(i, c).jacobian[k, c])
    return Expected(value, abs(value) * state._far(i))


def _ratio(state: State, index: tuple[int, ...]) -> Expected:
    i, k = index
    value = float(state.x.derivation(i, 0).ratio[k])
    return Expected(value, abs(value) * state._far(i))


def _product(state: State, index: tuple[int, ...]) -> Expected:
    i, c = index
    d = state.x.derivation(i, c)
    with np.errstate(all="ignore"):
        terms = np.where(d.ratio == 0, 0.0, d.ratio * d.jacobian[:, c])
    return Expected(float(d.product[c]), float(abs(terms).max()) * state._far(i))


def _uniform(state: State, _: tuple[int, ...]) -> Expected:
    return Expected(math.log(len(state.names)), 1.0)


def _classes(state: State, _: tuple[int, ...]) -> Expected:
    return Expected(len(state.names), 0.0)


def _tangent(state: State, index: tuple[int, ...]) -> Expected:
    (i,) = index
    with np.errstate(divide="ignore"):
        value = float(-1 / state.x.p[i, state.x.q[i].argmax()])
    return Expected(value, abs(value) * state._far(i))


def _changed(state: State, index: tuple[int, ...], **changed: Any) -> Expected:
    other = State(EXAMPLE)
    other.__dict__.update({**vars(state), **changed})
    for cached in ("x", "exact"):
        other.__dict__.pop(cached, None)
    value = float(other.exact["losses"][index[0]])
    return Expected(value, abs(value) * max(state._far(index[0]), other._far(index[0])))


def _twice(state: State, index: tuple[int, ...]) -> Expected:
    return _changed(state, index, logits=state.x.p.tolist(), temperature=1.0)


def _off_by_one(state: State, index: tuple[int, ...]) -> Expected:
    return _changed(state, index, targets=np.roll(state.x.q, -1, axis=1).tolist())


_NAMED: dict[str, Callable[[State, tuple[int, ...]], Expected]] = {
    "bits": _bits,
    "perplexity": _perplexity,
    "entropy": _entropy,
    "jacobian": _jacobian,
    "ratio": _ratio,
    "product": _product,
    "C": _classes,
    "uniform": _uniform,
    "tangent": _tangent,
    "twice": _twice,
    "off_by_one": _off_by_one,
}


def close(shown: float, expected: Expected) -> bool:
    """Equal within 1e-12 of the largest term, or 1e-300."""
    if not math.isfinite(expected.value) or not math.isfinite(shown):
        return shown == expected.value or (math.isnan(shown) and math.isnan(expected.value))
    return abs(shown - expected.value) <= max(1e-12 * expected.term, 1e-300)
