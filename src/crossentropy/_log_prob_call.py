"""Log-probabilities of chosen classes, the entropy of the prediction, and their gradients: the calls of the core."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import _advice, _core
from ._arrays import FLOAT64, LOGIT_TYPES, Array, Layout, Logits, Shape, as_array, as_grad_output, row_type
from ._call import Call, with_advice
from ._config import resolve_threads
from ._keywords import teaches_keywords
from ._options import LossOptions
from ._targets import Targets, accepted_indices, as_targets, check_indices, has_k_classes, shape_of_k

Upstream = tuple[float, Array | None]  # a factor for all, and one for each or None

teaches_log_prob = teaches_keywords(
    entropy="the function of this name with _and_entropy returns it too",
    entropy_bonus="a bonus b is a dentropy of -b for log_prob_and_entropy_vjp",
    reduction="each index has its log-probability; nothing is added up",
    **dict.fromkeys(
        ("sample_weight", "weights", "mask", "where"),
        "an index that is ignore_index does not count; weigh the others afterwards, their gradients by grad_output or "
        "dlog_prob",
    ),
)


class Named(NamedTuple):
    """The classes whose log-probabilities are asked for: one index a row, or K."""

    targets: Targets
    shape: Shape  # of the indices as they were given
    axis: int  # of the K
    empty: Array | None = None  # which of K slots are ignored; None for one index a row

    def of_rows(self, rows: slice | Array) -> "Named":
        """Those of some rows, where the rows are along one axis."""
        t = self.targets
        indices, sparse_indices = (None if a is None else a[rows] for a in (t.indices, t.sparse_indices))
        return Named(
            Targets(indices, sparse_indices=sparse_indices, k=t.k),
            self.shape,
            self.axis,
            None if self.empty is None else self.empty[rows],
        )

    @property
    def sample_weight(self) -> Array | None:
        """0 for the rows whose K slots are all ignored."""
        ignored = self.targets.ignored
        return None if ignored is None else np.where(ignored, 0.0, 1.0)

    def upstream(self, name: str, values: npt.ArrayLike) -> Upstream:
        """Check the upstream gradient of log-probabilities; return those of K with the K last."""
        scale, array = as_grad_output(values, self.shape, True, name)
        if array is not None and self.empty is not None:
            array = np.ascontiguousarray(np.moveaxis(array, self.axis, -1)).reshape(self.empty.shape)
        return scale, array

    def as_given(self, log_prob: Array) -> Array:
        """Log-probabilities in the shape of the indices."""
        if self.empty is None:
            return log_prob.reshape(self.shape)[()]
        rows = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        return np.ascontiguousarray(np.moveaxis(log_prob.reshape(*rows, self.targets.k), -1, self.axis))


@contextmanager
def named_indices() -> Iterator[None]:
    """What is said of targets within, said of indices."""
    try:
        yield
    except (IndexError, TypeError, ValueError) as error:
        raise type(error)(str(error).replace("targets", "indices")) from None


def as_named(indices: npt.ArrayLike, logits: Logits | Layout, ignore_index: int | None) -> Named:
    """Check class indices: of the rows' shape, or K of each row on the class axis."""
    given = as_array("indices", indices)
    axis = logits.axis
    accepted = f"class indices (integers) of shape {logits.row_shape} or {shape_of_k(logits)}"
    if given.dtype.kind not in "iu" and (given.size or given is indices):
        found = _advice.of_labels(given, logits.shape, ignore_index, "indices")
        raise TypeError(f"indices: expected {accepted}, got {found}")
    if given.shape == logits.row_shape:
        with named_indices():
            return Named(as_targets(given, logits, ignore_index), given.shape, axis)
    if not has_k_classes(given, logits):
        raise ValueError(f"indices: expected {accepted}, got shape {given.shape}")
    if given.dtype.kind not in "iu":
        raise TypeError(f"indices: expected class indices (integers), got {given.dtype}")
    k = given.shape[axis]
    t = np.ascontiguousarray(np.moveaxis(given, axis, -1)).reshape(logits.rows, k)
    empty = np.zeros(t.shape, bool) if ignore_index is None else np.asarray(t == ignore_index)
    check_indices("indices", t, empty, logits, accepted_indices(logits.classes, ignore_index))
    ignored = np.asarray(empty.all(-1)) if k else np.zeros(logits.rows, bool)
    of_rows = ignored.reshape(logits.row_shape) if ignored.any() else None
    sparse_indices = np.where(empty, -1, t).astype(np.int64)
    return Named(Targets(sparse_indices=sparse_indices, k=k, given=(given,), ignored=of_rows), given.shape, axis, empty)


def call_of(options: LossOptions, logits: Logits, named: Named, num_threads: int | None) -> Call:
    """The call of the core; its class indices are checked there."""
    return Call(options, logits, named.targets, None, named.sample_weight, resolve_threads(num_threads))


def evaluate(
    call: Call,
    named: Named,
    *,
    entropy: bool = False,
    dlog_prob: Upstream | None = None,
    dentropy: Array | None = None,
    matrix: Array | None = None,
) -> tuple[Array, Array | None]:
    """Log-probabilities (rows,) or (rows, K), and if asked for entropies (rows,).

    `matrix` receives the gradient of the logits for the upstream gradients.
    """
    z, t = call.logits, call.targets
    dtype = row_type(z.data.dtype)
    scale, each = (0.0, None) if dlog_prob is None else dlog_prob
    entropies = np.empty(z.rows, dtype) if entropy else None
    log_prob = np.empty(z.rows if named.empty is None else (z.rows, t.k), dtype)
    if named.empty is None:  # they are minus the losses
        try:
            _core.loss(
                call,
                gradient_scale=-scale,
                grad_output=each,
                losses=log_prob,
                dlogits=matrix,
                entropy_grad_output=dentropy,
                entropies=entropies,
            )
        except IndexError as error:
            with named_indices():
                raise with_advice(error, call.options, z, t) from None
        np.subtract(0.0, log_prob, out=log_prob)
    else:
        if dlog_prob is not None:  # the log-probabilities times these are a loss whose target probabilities they are
            q = np.full(named.empty.shape, -scale) if each is None else -scale * each
            q[named.empty] = 0.0
            call = call._replace(targets=t._replace(probabilities=q, type=LOGIT_TYPES[FLOAT64]))
        _core.loss(
            call,
            dlogits=matrix,
            entropy_grad_output=dentropy,
            entropies=entropies,
            log_probabilities=log_prob,
        )
    return log_prob, entropies
