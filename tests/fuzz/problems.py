"""Problems for the NumPy front end, generated from a seed: in every dtype and layout, with every option."""

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

import crossentropy as ce

LOGITS = ("<f4", "<f8", "<f2", ml_dtypes.bfloat16, ">f4", ">f8", "<i4", "|u1")
INDICES = ("<i8", "<i4", ">i8", "<i2", "<u8", "<u4", ">u2")
PROBABILITIES = ("<f8", "<f4", ">f4", "<f2", ml_dtypes.bfloat16, "|u1", "<i8", "|b1")
OPTIONS = {
    "label_smoothing": (0.1, 1.0),
    "z_loss": (0.01, 1e-6),
    "entropy_bonus": (0.1, -1.0),
    "softcap": (5.0, 30.0, 1e-3),
    "temperature": (0.7, 3.0, 1e-2, 50.0),
}


@dataclass
class Problem:
    """Arguments of `cross_entropy_with_grad`, and the same in plain form for the reference: the classes last."""

    logits: Any
    targets: Any
    options: dict[str, Any]
    z: np.ndarray
    t: np.ndarray
    plain: dict[str, Any] = field(default_factory=dict)

    def inputs(self):
        top = isinstance(self.targets, ce.TopKTargets)
        arrays = [self.logits, *((self.targets.indices, self.targets.probabilities) if top else (self.targets,))]
        arrays += [self.options[name] for name in ("class_weight", "sample_weight") if name in self.options]
        return [array for array in arrays if isinstance(array, np.ndarray)]


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def signs(rng, shape, likely=0.3):
    """1 and -1, mostly all 1."""
    return np.where(rng.random(shape) < 0.3, -1.0, 1.0) if rng.random() < likely else np.ones(shape)


def laid_out(rng, array):
    """The same values, otherwise in memory."""
    kind = rng.integers(8)
    if kind == 0 and array.ndim:
        return np.ascontiguousarray(array.T).T
    if kind == 1 and array.ndim:  # backwards
        return np.ascontiguousarray(array[::-1])[::-1]
    if kind == 2 and array.ndim:  # with gaps
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if kind == 3:  # not aligned
        memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
        moved = memory.view(array.dtype).reshape(array.shape)
        moved[...] = array
        return moved
    if kind == 4:
        array = array.copy()
        array.flags.writeable = False
    if kind == 5 and array.size and array.dtype.kind in "iuf" and array.dtype.isnative and array.dtype.itemsize > 2:
        return array.tolist() if array.dtype.kind in "iu" or array.dtype == np.float64 else array
    return array


def generate(rng):
    rows = tuple(
        int(n) for n in rng.choice([0, 1, 2, 3, 7, 33], rng.integers(0, 3), p=[0.04, 0.2, 0.2, 0.2, 0.2, 0.16])
    )
    classes = int(pick(rng, (1, 2, 3, 10, 32, 33, 100, 192, 193, 257, 1000, 5000)))
    if np.prod(rows) * classes > 60_000:
        rows = rows[:1]
    dtype = np.dtype(pick(rng, LOGITS))
    width = float(pick(rng, (0.01, 1.0, 10.0, 80.0)))
    z = (width * rng.standard_normal((*rows, classes))).clip(0 if dtype.kind == "u" else None, 250).astype(dtype)
    if dtype.kind in "fV" and rng.random() < 0.2 and z.size:
        special = rng.random(z.shape) < 0.02
        z[special] = rng.choice([-np.inf, -np.inf, np.inf, np.nan], int(special.sum())).astype(dtype)

    options: dict[str, Any] = {name: pick(rng, values) for name, values in OPTIONS.items() if rng.random() < 0.2}
    options["reduction"] = pick(rng, ("mean", "sum", "none"))
    options["ignore_index"] = pick(rng, (-100, -100, None, 0, 2**40))
    plain = dict(options)
    if rng.random() < 0.3:
        w = rng.random(classes) * (rng.random(classes) < 0.9) * float(pick(rng, (1.0, 1e-30, 1e30)))
        if options["reduction"] != "mean":
            w *= signs(rng, classes)
        options["class_weight"], plain["class_weight"] = laid_out(rng, w), w
    s = np.ones(rows)
    if rng.random() < 0.3:
        s = np.asarray(rng.random(rows) * (rng.random(rows) < 0.8))
        if options["reduction"] != "mean":
            s = np.asarray(s * signs(rng, rows))
        options["sample_weight"] = laid_out(rng, s)
    targets, t = generate_targets(rng, z, options, s)
    if t.shape == rows and not options.get("label_smoothing") and rng.random() < 0.2:
        options["focal_gamma"] = plain["focal_gamma"] = float(pick(rng, (0.5, 2.0, 5.0)))
    plain["sample_weight"] = s
    if rng.random() < 0.3:
        per_row = options["reduction"] == "none" and rng.random() < 0.5
        g = np.asarray(rng.standard_normal(rows)) if per_row else float(rng.standard_normal())
        options["grad_output"], plain["grad_output"] = laid_out(rng, g) if per_row else g, g
    axis = int(rng.integers(len(rows) + 1))
    if axis < len(rows):
        options["axis"] = axis if rng.random() < 0.5 else axis - len(rows) - 1
        z, targets = moved(z, axis), moved_targets(targets, axis, rows)
    if not isinstance(targets, ce.TopKTargets):
        targets = laid_out(rng, targets)
    if rng.random() < 0.5:
        options["num_threads"] = int(rng.integers(1, 5))
    logits = laid_out(rng, z)
    last = np.moveaxis(z, axis, -1) if z.dtype.isnative else np.moveaxis(z.astype(z.dtype.newbyteorder("=")), axis, -1)
    return Problem(logits, targets, options, last.astype(np.float64), t, plain)


def generate_targets(rng, z, options, s):
    """The targets as they are given, and as the reference takes them; rows without any lose their sample weight."""
    rows, classes = z.shape[:-1], z.shape[-1]
    kind = rng.integers(4)
    if kind == 0:
        t = rng.random(z.shape) * (rng.random(z.shape) < 0.5)
        dtype = np.dtype(pick(rng, PROBABILITIES))
        t = np.eye(classes)[t.argmax(-1)] if dtype.kind in "iub" else t * signs(rng, z.shape)
        given = t.astype(dtype)
        return given, given.astype(np.float64)
    if kind == 1:
        k = int(rng.integers(1, 5))
        indices, q = rng.integers(0, classes, (*rows, k)), rng.random((*rows, k))
        q *= signs(rng, classes)[indices]  # what a row adds up for one class has one sign
        dense = np.zeros(z.shape)
        for row in np.ndindex(rows):
            np.add.at(dense[row], indices[row], q[row])
        return ce.TopKTargets(indices, q), dense
    t = rng.integers(0, classes, rows)
    dtype = np.dtype(pick(rng, [name for name in INDICES if np.iinfo(name).max >= classes]))
    ignored = options["ignore_index"]
    if ignored is not None and np.iinfo(dtype).min <= ignored <= np.iinfo(dtype).max:
        t = np.where(rng.random(rows) < 0.2, ignored, t)
    return np.asarray(t).astype(dtype), np.asarray(t, np.int64)


def moved(array, axis):
    return np.ascontiguousarray(np.moveaxis(array, -1, axis))


def moved_targets(targets, axis, rows):
    if isinstance(targets, ce.TopKTargets):
        return ce.TopKTargets(moved(targets.indices, axis), moved(targets.probabilities, axis))
    return moved(targets, axis) if targets.ndim > len(rows) else targets


def described(problem):
    given = {"logits": problem.logits, "targets": problem.targets, **problem.options}
    return {
        name: f"{value.dtype.str} of {value.shape}, strides {value.strides}" if isinstance(value, np.ndarray) else value
        for name, value in given.items()
        if not isinstance(value, list | ce.TopKTargets)
    }
