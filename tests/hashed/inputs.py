"""Problems made by integer arithmetic: every dtype, layout, kind of targets, option; edges; what is refused."""

import itertools
from collections.abc import Container, Iterable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

import crossentropy as ce

Options = dict[str, Any]
REDUCTIONS = ("mean", "sum", "none")


def integers(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers of 64 bits: splitmix64."""
    count = int(np.prod(shape, dtype=np.int64))
    x = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))).reshape(shape)


def numbers(seed: int, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """In [low, high), exact where both are of few binary digits."""
    return np.asarray(low + (high - low) * ((integers(seed, shape) >> np.uint64(40)).astype(np.float64) / 2**24))


def dtype_of(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


class Problem(NamedTuple):
    """Logits and targets."""

    name: str
    logits: Any
    axis: int
    targets: Any

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """The shape of the rows, and the number of classes."""
        rows = list(np.shape(self.logits))
        classes = rows.pop(self.axis)
        return tuple(rows), classes


def targets(kind: str, shape: tuple[int, ...], axis: int) -> Any:
    """Targets for logits of a shape."""
    rows = list(shape)
    classes = rows.pop(axis)
    index = (integers(2, tuple(rows)) % np.uint64(min(classes, 200))).astype(np.int64)
    if kind == "indices":
        index.flat[1:2] = -100
        return index
    if kind.startswith("indices "):
        return index.astype(kind.removeprefix("indices "))
    if kind.startswith("one-hot "):
        return np.moveaxis(np.arange(classes) == index[..., None], -1, axis).astype(kind.removeprefix("one-hot "))
    if kind.startswith("top"):
        k = min(3, classes)
        few = (integers(3, (*rows, k)) % np.uint64(classes)).astype(np.int64)
        q = numbers(4, (*rows, k), 0.0, 1.0)
        few.reshape(-1, k)[1:2], q.reshape(-1, k)[1:2] = -100, 0.0
        return ce.TopKTargets(np.moveaxis(few, -1, axis), np.moveaxis(q, -1, axis), renormalize=kind.endswith("1"))
    q = numbers(5, shape, 0.0, 2.0 / classes)
    if kind == "negative":
        return q - 1.0 / classes
    return q.astype(dtype_of(kind.removeprefix("probabilities ")))


KINDS = ("indices", "one-hot int64", "probabilities float64", "probabilities float32", "top 3", "top 3, sum 1")
MORE_KINDS = (
    *("indices uint8", "indices int16", "indices >i8", "indices uint64", "one-hot bool", "one-hot uint8"),
    *("probabilities float16", "probabilities bfloat16", "probabilities >f4", "negative"),
)
DTYPES = ("float16", "bfloat16", "float32", "float64")
# Few classes, side by side; the widest of them; one row at a time; blocks of a row; strided; one row; none.
ROWS = [(9, 1), (37, 10), (3, 192), (3, 193), (4, 1000), (2, 40000), (0, 3), (2, 0, 3)]
SHAPES = dict.fromkeys(ROWS, -1) | {(2, 10, 5): 1, (2, 193, 3): -2, (6, 4): 0, (5,): 0}


def laid_out(layout: str, array: np.ndarray) -> np.ndarray:
    """The same numbers in another order of memory."""
    if layout == "columns":
        return np.asfortranarray(array)
    if layout == "reversed":
        return np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    if layout == "every other":
        wide = np.zeros([2 * n for n in array.shape], array.dtype)
        there = (slice(None, None, 2),) * array.ndim
        wide[there] = array
        return wide[there]
    if layout == "unaligned":
        memory = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        memory[...] = array
        return memory
    array = array.copy()
    array.flags.writeable = False
    return array


def problems(dtypes: tuple[str, ...] = DTYPES, shapes: dict[tuple[int, ...], int] = SHAPES) -> Iterator[Problem]:
    for (shape, axis), dtype in itertools.product(shapes.items(), dtypes):
        z = numbers(1, shape, -8.0, 8.0).astype(dtype_of(dtype))
        for kind in KINDS:
            yield Problem(f"{shape} axis {axis}, {dtype}, {kind}", z, axis, targets(kind, shape, axis))


def further_problems() -> Iterator[Problem]:
    """Other dtypes, layouts, targets, and lists."""
    for shape, axis in (((9, 10), -1), ((3, 200), -1), ((2, 7, 3), 1)):
        name = f"{shape} axis {axis}"
        for dtype in (">f2", ">f4", ">f8", "int8", "uint16", "int64"):
            z = numbers(1, shape, 0.0, 8.0).astype(dtype)
            yield Problem(f"{name}, {dtype}", z, axis, targets("indices", shape, axis))
        for dtype in DTYPES:
            z = numbers(1, shape, -8.0, 8.0).astype(dtype_of(dtype))
            for kind in MORE_KINDS:
                yield Problem(f"{name}, {dtype}, {kind}", z, axis, targets(kind, shape, axis))
            for layout in ("columns", "reversed", "every other", "unaligned", "read-only"):
                for kind in ("indices", "probabilities float32"):
                    given = laid_out(layout, targets(kind, shape, axis))
                    yield Problem(f"{name}, {dtype}, {kind}, {layout}", laid_out(layout, z), axis, given)
        yield Problem(f"{name}, lists", z.astype(float).tolist(), axis, targets("indices", shape, axis).tolist())


def edges(widths: tuple[int, ...] = (3, 200)) -> Iterator[Problem]:
    """Rows that few formulas survive, each with two kinds of targets."""
    inf, nan = np.inf, np.nan
    for classes, dtype in itertools.product(widths, DTYPES):
        largest, tiny = (float(getattr(ml_dtypes.finfo(dtype_of(dtype)), x)) for x in ("max", "smallest_subnormal"))
        rows = np.array(
            [
                *([nan, 0, 0], [0, nan, 0], [inf, 0, 0], [inf, nan, -inf], [-inf, 1, 0], [0, -inf, 0], [-inf] * 3),
                *([x, 0, 0] for x in (5, 10, 20, 40, 80, 100, 700, 1000)),
                *([0, x, 0] for x in (5, 10, 20, 40, 80, 100, 700, 1000)),
                *([3, 3, 0], [0, 0, 0], [-0.0, 0, -0.0], [largest, -largest, 0], [-largest, -largest, -largest]),
                *([tiny, 0, -tiny], [1e4, 1e4 - 1, 0], [largest, largest, largest / 2]),
            ]
        )
        z = np.full((len(rows), classes), -inf)
        z[:, :3] = rows
        if classes > 3:
            z[::2, 3:] = numbers(6, (len(z[::2]), classes - 3), -4.0, 0.0)
        with np.errstate(over="ignore"):
            z = z.astype(dtype_of(dtype))
        index = np.zeros(len(z), np.int64)
        index[[0, 2]] = -100
        for kind, t in (("indices", index), ("one-hot", np.eye(1, classes).repeat(len(z), 0))):
            yield Problem(f"edges, {classes} classes, {dtype}, {kind}", z, -1, t)


def options(problem: Problem) -> dict[str, Options]:
    """Every option alone, some together, some at the ends of their range."""
    rows, classes = problem.sizes()
    w, s = numbers(7, (classes,), 0.5, 2.0), numbers(8, rows, 0.5, 2.0)
    some_w, some_s = np.where(np.arange(classes) % 4 == 1, 0, w), s.copy()
    some_s.flat[::4] = 0
    extreme = np.array([1e-100, 1e100, 1.0])
    return {
        "plain": {},
        "smoothed": {"label_smoothing": 0.1},
        "uniform": {"label_smoothing": 1.0},
        "z-loss": {"z_loss": 1e-2},
        "capped": {"softcap": 5.0},
        "temperature": {"temperature": 0.7},
        "weights": {"class_weight": w.astype(np.float32), "sample_weight": s},
        "weights of 0": {"class_weight": some_w, "sample_weight": some_s, "label_smoothing": 0.1},
        "nothing counts": {"sample_weight": np.zeros(rows)},
        "extreme weights": {"class_weight": extreme[np.arange(classes) % 3], "sample_weight": np.resize(extreme, rows)},
        "extreme cap": {"softcap": 1e-100, "temperature": 1e100},
        "ignored class": {"ignore_index": 0},
        "none ignored": {"ignore_index": None},
        "all": {
            "label_smoothing": 0.2,
            "z_loss": 1e-3,
            "softcap": 30.0,
            "temperature": 1.5,
            "class_weight": w,
            "sample_weight": s,
            "ignore_index": 2,
        },
    }


def variants(problem: Problem, names: Container[str] | None = None) -> Iterator[tuple[str, Problem, Options]]:
    """A problem with each set of options, or those named; only where no other index is ignored has it a -100."""
    for name, given in options(problem).items():
        if names is None or name in names:
            t = problem.targets
            if "ignore_index" in given and isinstance(t, ce.TopKTargets):
                t = ce.TopKTargets(np.maximum(t.indices, 0), t.probabilities, t.renormalize)
            elif "ignore_index" in given and np.shape(t) == problem.sizes()[0]:
                t = np.where(np.asarray(t) == -100, 0, t)
            yield f"{problem.name}, {name}", problem._replace(targets=t), given


def cases(some: Iterable[Problem], names: Container[str] | None = None) -> Iterator[tuple[str, Problem, Options]]:
    """Problems with options, all or those named, of every reduction."""
    for problem in some:
        for name, variant, given in variants(problem, names):
            for reduction in REDUCTIONS:
                yield f"{name}, {reduction}", variant, {"reduction": reduction, **given}


A = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]])
# Logits, targets and options, of which something is wrong.
WRONG: list[tuple[Any, Any, Options]] = [
    *((z, [1, 0], {}) for z in (A > 1, A.astype(complex), A.astype(object), A.astype(str))),
    *((z, [1, 0], {}) for z in (3.0, A[:, :0], A[0], [[1], [1, 2]])),
    *((A, t, {}) for t in ([1.0, 0.0], [True, False], [0, 1, 2], [3, 0], [0, -1])),
    *((A, t, {}) for t in (A.astype(complex), -A.astype(int), A.T)),
    *((A, t, {}) for t in (np.array([0, 2**64 - 100], np.uint64), np.ma.array([0, 1]), ce.TopKTargets([[0]], [[1.0]]))),
    (A, ce.TopKTargets([[0], [7]], [[1.0], [0.5]]), {}),
    (A, ce.TopKTargets([[0.0], [1.0]], [[1.0], [0.5]]), {}),
    *((A, [1, 0], {"label_smoothing": x}) for x in (1.5, -0.1, np.nan, "0.1", True, None)),
    *((A, [1, 0], {"z_loss": x}) for x in (-1.0, np.inf, np.nan, "0.1", 10**400)),
    *((A, [1, 0], {"softcap": x}) for x in (0.0, -1.0, 1e-101, 1e101, np.nan, "30", True)),
    *((A, [1, 0], {"temperature": x}) for x in (0.0, -1.0, 1e-310, np.inf, np.nan, 10**400, None)),
    *((A, [1, 0], {"ignore_index": x}) for x in (1.5, 2**63, "0", True)),
    *((A, [1, -100], {"ignore_index": x}) for x in (None, 5, -1)),
    *((A, [1, 0], {"reduction": x}) for x in ("average", None, 1)),
    *((A, [1, 0], {"axis": x}) for x in (2, -3, 1.5, None)),
    *((A, [1, 0], {"class_weight": x}) for x in ([1, -1, 1], [1, np.inf, 1], [1, 1], [1, 1e308, 1], ["a", "b", "c"])),
    *((A, [1, 0], {"sample_weight": x}) for x in ([1, np.nan], [1], [-1, 1], [5e-324, 0], [1j, 1])),
    *((A, [1, 0], {"num_threads": x}) for x in (0, 1.5, 10**5000)),
    (A, [1, 0], {"unknown": 1}),
]
