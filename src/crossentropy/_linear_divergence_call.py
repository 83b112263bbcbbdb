"""A call of a divergence between two linear heads: validated once, then computed a chunk of rows at a time.

The logits of a chunk are made in two buffers. The core turns them into their own gradients there, as for one head.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from ._arrays import LOGIT_TYPES, Array, Logits, Shape, as_grad_output, check_array, empty, rounds_to_nearest, row_type
from ._config import resolve_threads
from ._divergence_call import DivergenceCall, DivergenceOptions, as_weights_of_rows, evaluate, of_teacher
from ._head import GradientAccumulator, Head, LinearGradients, as_head, rows_of_chunk

Wrt = Literal["hidden", "classifier", "bias", "teacher_hidden", "teacher_classifier", "teacher_bias"]


class LinearDivergenceGradients(NamedTuple):
    """Gradients of a divergence between two linear heads, None where not asked for.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> ce.LinearDivergenceGradients(bias=np.array([0.5, -0.5])).bias
    array([ 0.5, -0.5])
    """

    hidden: Array | None = None
    classifier: Array | None = None
    bias: Array | None = None
    teacher_hidden: Array | None = None
    teacher_classifier: Array | None = None
    teacher_bias: Array | None = None


class GivenLinear(TypedDict, total=False):
    """What both divergences take as a caller gives it, without the reduction: it is what overloads differ by."""

    bias: npt.ArrayLike | None
    teacher_bias: npt.ArrayLike | None
    sample_weight: npt.ArrayLike | None
    softcap: float | None
    teacher_softcap: float | None
    temperature: float
    num_threads: int | None
    max_logits_bytes: int | None


class GivenLinearWithGrad(TypedDict, total=False):
    """What their gradients take beside."""

    wrt: Sequence[Wrt]
    grad_output: npt.ArrayLike
    out: LinearDivergenceGradients | None


@dataclass(slots=True)
class LinearDivergenceCall:
    """The options and data of a divergence between heads."""

    options: DivergenceOptions
    student: Head
    teacher: Head
    row_shape: Shape  # of the hidden states that were given
    sample_weight: Array | None  # along one axis
    num_threads: int
    total_weight: float
    kept: Array | None  # the rows that count; None: all of them
    chunk: int  # rows of logits that are held at a time
    inputs: tuple[object, ...]  # arrays that an output may not overlap

    @property
    def count(self) -> int:
        """How many rows count."""
        return math.prod(self.row_shape) if self.kept is None else len(self.kept)

    def chunks(self) -> Iterator[slice | Array]:
        """Rows that count, a chunk at a time."""
        for begin in range(0, self.count, self.chunk):
            rows = slice(begin, min(begin + self.chunk, self.count))
            yield rows if self.kept is None else self.kept[rows]

    def of_rows(self, options: DivergenceOptions, rows: slice | Array, logits: list[Array]) -> DivergenceCall:
        """The call of the divergence of some rows, given both logits."""
        student, teacher = map(_as_they_are, logits)
        sample_weight = None if self.sample_weight is None else self.sample_weight[rows]
        return DivergenceCall(options, student, teacher, sample_weight, self.num_threads)


def _as_they_are(logits: Array) -> Logits:
    rows, classes = logits.shape
    return Logits(
        data=logits,
        type=LOGIT_TYPES[logits.dtype],
        rows=rows,
        classes=classes,
        class_stride=1,
        shape=logits.shape,
        row_shape=(rows,),
        axis=1,
        moved=False,
        given=logits,
    )


def prepare_linear_divergence(
    options: DivergenceOptions,
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    teacher_hidden: npt.ArrayLike,
    teacher_classifier: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    teacher_bias: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    num_threads: int | None = None,
    max_logits_bytes: int | None = None,
) -> LinearDivergenceCall:
    """Validate the data of a divergence between heads."""
    threads = resolve_threads(num_threads)
    student = as_head(hidden, classifier, bias)
    teacher = of_teacher(as_head, teacher_hidden, teacher_classifier, teacher_bias)
    row_shape, classes = student.hidden.shape[:-1], len(student.classifier)
    if teacher.hidden.shape[:-1] != row_shape:
        raise ValueError(
            f"teacher_hidden: expected the rows of hidden, shape {(*row_shape, teacher.hidden.shape[-1])}, got "
            f"{teacher.hidden.shape}"
        )
    if len(teacher.classifier) != classes:
        raise ValueError(
            f"teacher_classifier: expected the {classes} classes of the classifier, got {len(teacher.classifier)}"
        )
    rows = math.prod(row_shape)
    s, kept, total = None, None, float(rows)
    if sample_weight is not None:
        s = as_weights_of_rows(sample_weight, row_shape, options.student.reduction).reshape(rows)
        kept, total = None if s.all() else np.flatnonzero(s), math.fsum(s)
    chunk = rows_of_chunk(max_logits_bytes, classes * max(student.dtype.itemsize, teacher.dtype.itemsize))
    inputs = (*student[:3], *teacher[:3], sample_weight)
    return LinearDivergenceCall(options, student, teacher, row_shape, s, threads, total, kept, chunk, inputs)


def linear_divergence(call: LinearDivergenceCall) -> float | Array:
    """The reduced divergence, or one a row."""
    return _over_chunks(call, LinearDivergenceGradients())


def linear_divergence_and_gradients(
    call: LinearDivergenceCall,
    wrt: Sequence[Wrt],
    grad_output: npt.ArrayLike,
    out: LinearDivergenceGradients | None,
) -> tuple[float | Array, LinearDivergenceGradients]:
    """The divergence, and the gradients asked for."""
    scale, row_scale = as_grad_output(grad_output, call.row_shape, call.options.student.reduction == "none")
    gradients = _outputs(call, wrt, out)
    return _over_chunks(call, gradients, scale, row_scale), gradients


@rounds_to_nearest
def _over_chunks(
    call: LinearDivergenceCall,
    gradients: LinearDivergenceGradients,
    scale: float = 1.0,
    row_scale: Array | None = None,
) -> float | Array:
    """Compute the divergence, and the gradients that have an array, a chunk of rows at a time."""
    heads, rows = (call.student, call.teacher), math.prod(call.row_shape)
    per_row, mean = call.options.student.reduction == "none", call.options.student.reduction == "mean"
    wide = max((head.dtype for head in heads), key=lambda dtype: dtype.itemsize)
    values = np.zeros(rows, row_type(wide)) if per_row else None
    if mean:
        scale = scale / call.total_weight if call.total_weight else 0.0
    of_chunk = call.options
    if not per_row:
        of_chunk = of_chunk._replace(student=replace(of_chunk.student, reduction="sum"))
    chunks = [] if mean and not call.total_weight else list(call.chunks())
    height = min(call.chunk, call.count) if chunks else 0
    logits = [empty((height, len(head.classifier)), head.dtype) for head in heads]
    hidden = [head.hidden.reshape(rows, head.hidden.shape[-1]) for head in heads]
    parts = [LinearGradients(*gradients[:3]), LinearGradients(*gradients[3:])]
    for part in parts:
        if part.hidden is not None and (call.kept is not None or not chunks):
            part.hidden[...] = 0  # of rows that do not count
    accumulators = [GradientAccumulator(head, part) for head, part in zip(heads, parts, strict=True)]
    wanted = [any(gradient is not None for gradient in part) for part in parts]
    sums = []
    for chunk in chunks:
        h = [states[chunk].astype(head.dtype, copy=False) for states, head in zip(hidden, heads, strict=True)]
        z = [array[: len(states)] for array, states in zip(logits, h, strict=True)]
        for head, states, array in zip(heads, h, z, strict=True):
            head.write_logits(states, array)
        of_rows = None if values is None else np.empty(len(z[0]), values.dtype)
        names = ("logits", "teacher_logits")
        value = evaluate(
            call.of_rows(of_chunk, chunk, z),
            {name: array for name, array, asked in zip(names, z, wanted, strict=True) if asked},
            gradient_scale=scale,
            grad_output=None if row_scale is None else row_scale.reshape(rows)[chunk],
            values=of_rows,
        )
        if values is None:
            sums.append(value)
        else:
            values[chunk] = of_rows
        for accumulator, states, array, asked in zip(accumulators, h, z, wanted, strict=True):
            if asked:
                accumulator.add(chunk, states, array)
    for accumulator in accumulators:
        accumulator.finish()
    if values is not None:
        return values.reshape(call.row_shape)[()]
    total = math.fsum(sums) if all(map(math.isfinite, sums)) else sum(sums)
    if mean:
        total = total / call.total_weight if call.total_weight else 0.0
    return total


def _outputs(
    call: LinearDivergenceCall, wrt: Sequence[Wrt], out: LinearDivergenceGradients | None
) -> LinearDivergenceGradients:
    """The arrays for the gradients in `wrt`: those of `out`, else new ones."""
    like = dict(zip(LinearDivergenceGradients._fields, (*call.student[:3], *call.teacher[:3]), strict=True))
    if not isinstance(wrt, Collection) or isinstance(wrt, str) or not all(name in list(like) for name in wrt):
        raise ValueError(f"wrt: expected some of {tuple(like)}, got {wrt!r}")
    if out is not None and not isinstance(out, LinearDivergenceGradients):
        raise TypeError(f"out: expected LinearDivergenceGradients or None, got {type(out).__name__}")
    found: dict[str, Array] = {}
    for name, array in like.items():
        given = None if out is None else getattr(out, name)
        if name not in wrt or array is None:
            if given is not None:
                raise ValueError(f"out: expected no array for {name}, whose gradient is not asked for")
        elif given is None:
            found[name] = empty(array.shape, array.dtype)
        else:
            name_of = f"out.{name}"
            found[name] = check_array(name_of, given, array.shape, array.dtype, (*call.inputs, *found.values()))
            if not given.flags.c_contiguous:
                raise ValueError(f"{name_of}: expected a C-contiguous array")
    return LinearDivergenceGradients(**found)
