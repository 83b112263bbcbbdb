"""The NumPy front end on generated problems: python tests/fuzz/front_end.py [--seconds S | --problems N] [--seed FIRST]

Each is computed and compared with the reference in float64; or something in it is spoilt, which must be told by the
right exception with nothing written. A failure names its seed; `--seed` begins there. Without a limit it goes on until
it is interrupted.
"""

import argparse
import contextlib
import itertools
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from problems import OPTIONS, described, generate, pick

import crossentropy as ce

LINUX = sys.platform == "linux"  # which enforces a limit of memory
if LINUX:
    import resource


# What must come out.


def check(problem, rng):
    """A problem as it is."""
    given = [array.copy() for array in problem.inputs()]
    call, logits = dict(problem.options), problem.logits
    shape, dtype = np.shape(logits), np.asarray(logits).dtype
    native = np.dtype(np.float64) if dtype.kind in "iu" else dtype.newbyteorder("=")
    how = rng.integers(4)
    same = np.array(logits)  # laid out as what is computed: another layout may give other bits
    if how == 1:
        call["out"] = np.full(shape, 7, native)
    elif how == 2:
        call["out"] = np.full((*shape[::-1], 2), 7, native)[..., 0].T  # strided
    elif how == 3 and dtype == native:
        call["out"] = logits = np.array(logits)  # in place
    if LINUX and rng.random() < 0.05:
        written = call.get("out", np.zeros(0))
        before = written.copy()
        with little_memory(int(rng.integers(1 << 18))), contextlib.suppress(MemoryError):
            ce.cross_entropy_with_grad(logits, problem.targets, **call)
            written[...] = before  # there was enough
        assert written.tobytes() == before.tobytes(), "written before memory was refused"
    loss, dlogits = ce.cross_entropy_with_grad(logits, problem.targets, **call)
    assert dlogits is call.get("out", dlogits), "not out"
    for before, array in zip(given, problem.inputs(), strict=True):
        assert array.tobytes() == before.tobytes(), "an input has changed"

    plain = {name: value for name, value in call.items() if name not in ("out", "grad_output")}
    again = ce.cross_entropy(same if how == 3 else logits, problem.targets, **{**plain, "num_threads": 1})
    assert np.asarray(again).tobytes() == np.asarray(loss).tobytes(), "the loss alone has other bits"
    compare(problem, loss, np.moveaxis(dlogits, call.get("axis", -1), -1), native)


@contextlib.contextmanager
def little_memory(more):
    """Let the process have so many bytes more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def compare(problem, loss, dlogits, dtype):
    z, plain = problem.z, problem.plain
    expected, gradient = ce.reference.cross_entropy_with_grad(z, problem.t, **plain)
    info = np.finfo(np.float64 if dtype == np.float64 else np.float32)
    # The reference rounds logits over the temperature to float64, which exponentials magnify.
    largest = np.where(np.isfinite(z), np.abs(z), 0).max(-1)
    reach = largest.max(initial=0.0) / plain.get("temperature", 1.0)
    reach *= 1.0 + plain.get("focal_gamma", 0.0)
    wide = 16 * max(float(info.eps), float(np.finfo(np.float64).eps) * reach)

    # What is added up in a loss, and subtracted in a gradient, where weights and probabilities have both signs: their
    # sizes. The latter is the total of a row's coefficients, and what the z-loss adds.
    indexed = problem.t.shape == z.shape[:-1]
    t = problem.t if indexed else np.abs(problem.t)
    w, s = np.abs(plain.get("class_weight", np.ones(z.shape[-1]))), np.abs(plain["sample_weight"])
    bonus = abs(plain.get("entropy_bonus", 0.0))
    positive = {"class_weight": w, "sample_weight": s, "entropy_bonus": -bonus}
    terms = ce.reference.cross_entropy_with_grad(z, t, **{**plain, **positive})[0]
    known = np.where((t < 0) | (t >= len(w)), 0, t) if indexed else None
    omega = w[known] if indexed else 1.0
    total = (omega if indexed else (w * t).sum(-1)) + plain.get("label_smoothing", 0.0) * w.mean()
    # Probabilities below the smallest normal number count as 0.
    tiny = float(info.tiny) * z.shape[-1] * float((total * s).max(initial=0.0)) + float(info.smallest_subnormal)
    with np.errstate(invalid="ignore"):
        allowed = np.asarray(wide * np.abs(terms) + tiny)
        right = np.abs(loss - np.asarray(expected)) <= allowed
    wrong = ~(right | same(np.asarray(loss), expected, dtype))
    got, exact = np.asarray(loss)[wrong][:3], np.asarray(expected)[wrong][:3]
    assert not wrong.any(), f"loss: {got} for {exact}, within {allowed[wrong][:3]}"

    temperature = plain.get("temperature", 1.0)
    scale = 2 * plain.get("z_loss", 0.0) + bonus
    tail = scale * omega * (2 * largest / min(1.0, temperature) + np.log(z.shape[-1]))
    divisor = 1.0
    if plain["reduction"] == "mean":
        divisor = (s * omega * (t != plain["ignore_index"]) if indexed else s).sum() or 1.0
    size = (total + tail) * s * np.abs(plain.get("grad_output", 1.0)) / divisor / temperature
    allowed = wide * np.asarray(size)[..., None] + rounding(gradient, dtype)
    with np.errstate(invalid="ignore"):
        right = np.abs(dlogits.astype(np.float64) - gradient) <= allowed
    wrong = ~(right | same(dlogits, gradient, dtype))
    assert not wrong.any(), f"gradient: {dlogits[wrong][:3]} for {gradient[wrong][:3]}, within {allowed[wrong][:3]}"


def rounding(gradient, dtype):
    """One unit in the last place of a result, or the smallest number of its type."""
    info = ml_dtypes.finfo(dtype)
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.abs(gradient) * float(info.eps) + float(info.smallest_normal))


def same(got, exact, dtype):
    """NaN for NaN, infinity for infinity or what rounds to it."""
    got = got.astype(np.float64)
    with np.errstate(all="ignore"):
        beyond = np.abs(exact) > float(ml_dtypes.finfo(dtype).max)
        return (np.isnan(got) & np.isnan(exact)) | (got == exact) | (beyond & np.isinf(got) & (got * exact > 0))


# What must be refused.


def spoilt(problem, rng):
    """The arguments with one thing wrong in them, and the exceptions that may tell it."""
    shape, rows = np.shape(problem.logits), problem.z.shape[:-1]
    classes = problem.z.shape[-1]
    logits, targets, options = problem.logits, problem.targets, dict(problem.options)
    value, dtype = np.ones(shape), np.asarray(logits).dtype
    out = np.full(shape, 7, np.float64 if dtype.kind in "iu" else dtype.newbyteorder("="))
    wrong = int(rng.integers(14))
    error: Any = ValueError
    if wrong == 0 and problem.z.size:
        t = rng.integers(0, classes, rows)
        flat = t.reshape(-1)
        flat[rng.integers(len(flat))] = pick(rng, (classes, -1, 2**62, -(2**63), classes + 2**32))
        targets, options["ignore_index"], error = t, -100, IndexError
    elif wrong == 1 and shape != rows:
        targets, error = np.zeros(rows), TypeError
    elif wrong == 2:
        targets = np.zeros((*shape, 1), pick(rng, (int, float)))
    elif wrong == 3:
        options["class_weight"] = np.full(classes, pick(rng, (np.nan, -np.inf, np.inf, -1e101, 1e-101, -5e-324)))
    elif wrong == 4 and np.prod(rows):
        options["sample_weight"] = np.full(rows, pick(rng, (-1.0, np.nan, np.inf, -np.inf, 1e308, 5e-324)))
        if (options["sample_weight"] == -1).all():
            options["reduction"] = "mean"
    elif wrong == 5:
        options["class_weight"] = np.ones(classes + 1)
    elif wrong == 6:
        options["axis"] = pick(rng, (len(shape), -len(shape) - 1, 99))
    elif wrong == 7:
        name = pick(rng, list(OPTIONS))
        options[name] = pick(rng, (np.nan, -np.inf, 10**400, *([-1.0] if name != "entropy_bonus" else [])))
    elif wrong == 8:
        options["num_threads"] = pick(rng, (0, -1, -(10**30)))
    elif wrong == 9:
        name = pick(rng, ("reduction", "temperature", "ignore_index", "num_threads", "z_loss"))
        options[name], error = pick(rng, (None, "many", 1j, [1])), (TypeError, ValueError)
        if options[name] is None and name in ("ignore_index", "num_threads"):
            options[name] = "many"
    elif wrong == 10:
        logits, error = pick(rng, (value.astype(complex), value > 0, value.astype("U"), np.ma.array(value))), TypeError
    elif wrong == 11 and value.size > 1:
        logits, out = value, as_strided(np.full(1, 7.0), shape, [0] * len(shape))
    elif wrong == 12 and value.size and sum(n > 1 for n in shape) > 1:
        logits = value
        out = sliding_window_view(np.full(np.prod(shape) + 4, 7.0), shape[-1], writeable=True)
        out = as_strided(out, shape, [8] * len(shape))
    else:
        logits = value
        out = pick(rng, (np.full(shape, 7, "f4"), np.full((*shape, 1), 7.0), np.full(shape, 7.0, ">f8"), [1.0], "out"))
    return logits, targets, options, out, error


def check_spoilt(problem, rng):
    logits, targets, options, out, error = spoilt(problem, rng)
    before = np.copy(out)
    try:
        ce.cross_entropy_with_grad(logits, targets, **options, out=out)
    except error as raised:
        message = str(raised)
    else:
        raise AssertionError(f"not refused; expected {error}")
    assert "expected" in message, f"the message does not tell what was expected: {message}"
    np.testing.assert_array_equal(out, before, "written in spite of an error")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--problems", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    end = time.monotonic() + given.seconds
    done = 0
    for seed in itertools.count(given.seed):
        if time.monotonic() > end or done == given.problems:
            break
        rng = np.random.default_rng(seed)
        problem = None
        try:
            problem = generate(rng)
            check_spoilt(problem, rng) if seed % 4 == 3 else check(problem, rng)
        except Exception:
            traceback.print_exc()
            raise SystemExit(f"seed {seed}: {problem and described(problem)}") from None
        done += 1
    print(f"{done} problems")


if __name__ == "__main__":
    main()
