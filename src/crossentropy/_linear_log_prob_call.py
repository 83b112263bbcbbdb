"""Log-probabilities and entropies of a linear head: validated once, then computed a chunk of rows at a time."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Layout, Shape, empty, rounds_to_nearest, row_type
from ._call import total_weight
from ._config import resolve_threads
from ._head import GradientAccumulator, Head, LinearGradients, as_head, rows_of_chunk
from ._linear_call import logits_of_chunk
from ._log_prob_call import Named, Upstream, as_named, call_of, evaluate, named_indices
from ._options import LossOptions


@dataclass(slots=True)
class LinearLogProbCall:
    """The data of a head's log-probabilities; rows are along one axis."""

    options: LossOptions
    head: Head
    row_shape: Shape
    named: Named
    num_threads: int
    kept: Array | None  # the rows that count; None: all of them
    chunk: int  # rows of logits that are held at a time
    inputs: tuple[object, ...]  # arrays that an output may not overlap


def prepare_linear_log_prob(
    options: LossOptions,
    hidden: npt.ArrayLike,
    classifier: npt.ArrayLike,
    indices: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None,
    num_threads: int | None,
    max_logits_bytes: int | None,
) -> LinearLogProbCall:
    """Validate the data of a head's log-probabilities."""
    head = as_head(hidden, classifier, bias)
    classes, row_shape = len(head.classifier), head.hidden.shape[:-1]
    rows = math.prod(row_shape)
    layout = Layout(rows, classes, (*row_shape, classes), row_shape, len(row_shape))
    named = as_named(indices, layout, options.ignore_index)
    t = named.targets
    kept = np.ones(rows, bool) if t.ignored is None else ~t.ignored.reshape(rows)
    if t.indices is not None:
        with named_indices():
            total_weight(options, layout, t)  # for its IndexError
        t = t._replace(indices=t.indices.reshape(rows))
        if options.ignore_index is not None:
            kept &= t.indices != options.ignore_index
    return LinearLogProbCall(
        options,
        head,
        row_shape,
        named._replace(targets=t._replace(ignored=None)),
        resolve_threads(num_threads),
        None if kept.all() else np.flatnonzero(kept),
        rows_of_chunk(max_logits_bytes, classes * head.dtype.itemsize),
        (*head[:3], *t.given),
    )


@rounds_to_nearest
def over_chunks(
    call: LinearLogProbCall,
    *,
    entropy: bool = False,
    gradients: LinearGradients | None = None,
    dlog_prob: Upstream = (0.0, None),
    dentropy: Array | None = None,
) -> tuple[Array, Array | None]:
    """Log-probabilities, and entropies if asked for; the gradients that have an array are written."""
    head, named = call.head, call.named
    rows = math.prod(call.row_shape)
    hidden = head.hidden.reshape(rows, head.hidden.shape[-1])
    dtype = row_type(head.dtype)
    log_prob = np.zeros(rows if named.empty is None else named.empty.shape, dtype)
    entropies = np.zeros(rows, dtype) if entropy else None
    count = rows if call.kept is None else len(call.kept)
    logits = empty((min(call.chunk, count), len(head.classifier)), head.dtype)
    accumulator = None if gradients is None else GradientAccumulator(head, gradients)
    if gradients is not None and gradients.hidden is not None and (call.kept is not None or not count):
        gradients.hidden[...] = 0  # of rows that do not count
    scale, each = dlog_prob
    each = each.reshape(rows) if each is not None and named.empty is None else each
    for begin in range(0, count, call.chunk):
        chunk: slice | Array = slice(begin, min(begin + call.chunk, count))
        chunk = chunk if call.kept is None else call.kept[chunk]
        h = hidden[chunk].astype(head.dtype, copy=False)
        z = logits[: len(h)]
        head.write_logits(h, z)
        of_rows = named.of_rows(chunk)
        log_prob[chunk], of_entropy = evaluate(
            call_of(call.options, logits_of_chunk(z), of_rows, call.num_threads),
            of_rows,
            entropy=entropy,
            dlog_prob=None if accumulator is None else (scale, None if each is None else each[chunk]),
            dentropy=None if dentropy is None else dentropy[chunk],
            matrix=None if accumulator is None else z,
        )
        if entropies is not None:
            entropies[chunk] = of_entropy
        if accumulator is not None:
            accumulator.add(chunk, h, z)
    if accumulator is not None:
        accumulator.finish()
    return named.as_given(log_prob), None if entropies is None else entropies.reshape(call.row_shape)[()]
