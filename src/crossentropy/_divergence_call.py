"""A call of a divergence between two models: validated once, then given to the core."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple, ParamSpec, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import (
    FLOAT64,
    Array,
    Logits,
    Shape,
    as_array,
    as_grad_output,
    as_logits,
    as_weights,
    check_out,
    classes_last,
    empty,
    row_type,
)
from ._call import require_mean
from ._config import resolve_threads
from ._keywords import teaches_keywords
from ._options import LossOptions, Reduction, as_number, loss_options
from ._targets import Targets

Direction = Literal["forward", "reverse"]
Wrt = Literal["logits", "teacher_logits"]

P = ParamSpec("P")
R = TypeVar("R")

_OF_TARGETS = ("targets", "class_weight", "ignore_index", "label_smoothing", "z_loss")


class DivergenceGradients(NamedTuple):
    """Gradients of a divergence, None where not asked for.

    Examples
    --------
    >>> import numpy as np
    >>> import crossentropy as ce
    >>> ce.DivergenceGradients(logits=np.array([0.5, -0.5]))
    DivergenceGradients(logits=array([ 0.5, -0.5]), teacher_logits=None)
    """

    logits: Array | None = None
    teacher_logits: Array | None = None


# What belongs to targets is a TypeError that tells what does instead.
refuses_targets = teaches_keywords(
    **dict.fromkeys(_OF_TARGETS, "it has no meaning between two models; a row is left out by a sample_weight of 0")
)


class GivenDivergence(TypedDict, total=False):
    """What both divergences take as a caller gives it, without the reduction: it is what overloads differ by."""

    axis: int
    sample_weight: npt.ArrayLike | None
    softcap: float | None
    teacher_softcap: float | None
    temperature: float
    num_threads: int | None


class GivenWithGrad(TypedDict, total=False):
    """What their gradients take beside."""

    wrt: Sequence[Wrt]
    grad_output: npt.ArrayLike
    out: DivergenceGradients | None


class DivergenceOptions(NamedTuple):
    """What a divergence is, beside its data. Without beta it is KL."""

    teacher_first: bool  # KL(teacher || student), not KL(student || teacher)
    beta: float | None
    student: LossOptions  # soft cap, temperature, reduction
    teacher: LossOptions  # soft cap


def of_teacher(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a check of the student's; its errors name what is the teacher's."""
    try:
        return function(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"teacher_{error}") from None


def divergence_options(
    *,
    direction: Direction = "forward",
    beta: float | None = None,
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> DivergenceOptions:
    """Validate the options of a divergence."""
    student = loss_options(softcap=softcap, temperature=temperature, reduction=reduction)
    teacher = of_teacher(loss_options, softcap=teacher_softcap)
    if direction not in ("forward", "reverse"):
        raise ValueError(f"direction: expected 'forward' or 'reverse', got {direction!r}")
    if beta is not None:
        beta = as_number("beta", beta)
        if not 0.0 < beta < 1.0:
            raise ValueError(
                f"beta: expected a number between 0 and 1, got {beta}: at either end the Jensen-Shannon divergence is "
                "0; for what some mean by these, see kl_divergence: 'forward' by 0, 'reverse' by 1"
            )
    return DivergenceOptions(direction == "forward", beta, student, teacher)


class DivergenceCall(NamedTuple):
    """The options and data of a divergence. The classes of both logits are brought last."""

    options: DivergenceOptions
    logits: Logits
    teacher_logits: Logits
    sample_weight: Array | None
    num_threads: int
    weight_given: object = None  # before it was converted


def prepare_divergence(
    options: DivergenceOptions,
    logits: npt.ArrayLike,
    teacher_logits: npt.ArrayLike,
    *,
    axis: int = -1,
    sample_weight: npt.ArrayLike | None = None,
    num_threads: int | None = None,
) -> DivergenceCall:
    """Validate the data of a divergence."""
    z = as_logits(logits, axis)
    given = as_array("teacher_logits", teacher_logits)
    if given.shape != z.shape:
        raise ValueError(f"teacher_logits: expected the logits' shape {z.shape}, got {given.shape}")
    t = of_teacher(as_logits, given, axis)
    s = None if sample_weight is None else as_weights_of_rows(sample_weight, z.row_shape, options.student.reduction)
    return DivergenceCall(options, classes_last(z), classes_last(t), s, resolve_threads(num_threads), sample_weight)


def as_weights_of_rows(sample_weight: npt.ArrayLike, row_shape: Shape, reduction: Reduction) -> Array:
    """Check sample weights: none is negative if a mean divides by them."""
    weights = as_weights("sample_weight", sample_weight, row_shape)
    if reduction == "mean":
        require_mean(Targets(), None, weights)
    return weights


def evaluate(call: DivergenceCall, gradients: dict[str, Array], **given: Any) -> float:
    """Have the core compute a divergence, and the gradients that have an array."""
    options = call.options
    names = ("teacher_logits", "logits") if options.teacher_first else ("logits", "teacher_logits")
    softcaps = {"logits": options.student.softcap, "teacher_logits": options.teacher.softcap}
    return _core.divergence(
        first=getattr(call, names[0]),
        second=getattr(call, names[1]),
        beta=options.beta,
        softcap_first=softcaps[names[0]],
        softcap_second=softcaps[names[1]],
        temperature=options.student.temperature,
        reduction=options.student.reduction,
        sample_weight=call.sample_weight,
        dfirst=gradients.get(names[0]),
        dsecond=gradients.get(names[1]),
        num_threads=call.num_threads,
        **given,
    )


def _values(call: DivergenceCall) -> Array | None:
    """An array for one divergence a row, if these are wanted."""
    if call.options.student.reduction != "none":
        return None
    wide = FLOAT64 in (call.logits.data.dtype, call.teacher_logits.data.dtype)
    return np.empty(call.logits.row_shape, FLOAT64 if wide else row_type(call.logits.data.dtype))


def divergence(call: DivergenceCall) -> float | Array:
    """The reduced divergence, or one a row."""
    values = _values(call)
    value = evaluate(call, {}, values=values)
    return value if values is None else values[()]


def divergence_and_gradients(
    call: DivergenceCall, wrt: Sequence[Wrt], grad_output: npt.ArrayLike, out: DivergenceGradients | None
) -> tuple[float | Array, DivergenceGradients]:
    """The divergence, and the gradients asked for."""
    per_row = call.options.student.reduction == "none"
    scale, row_scale = as_grad_output(grad_output, call.logits.row_shape, per_row)
    outputs = _outputs(call, wrt, out, grad_output)
    # The core writes what is laid out as the logits it reads: the outputs themselves, or arrays to be copied from.
    written = {}
    for name, output in outputs.items():
        z: Logits = getattr(call, name)
        fits = not z.moved and output.flags.carray
        written[name] = output if fits else empty(z.data.shape, z.data.dtype)
    values = _values(call)
    value = evaluate(call, written, gradient_scale=scale, grad_output=row_scale, values=values)
    for name, output in outputs.items():
        z = getattr(call, name)
        if written[name] is not output:
            np.copyto(output, np.moveaxis(written[name], -1, z.axis) if z.moved else written[name])
    return value if values is None else values[()], DivergenceGradients(**outputs)


def _outputs(
    call: DivergenceCall, wrt: Sequence[Wrt], out: DivergenceGradients | None, grad_output: npt.ArrayLike
) -> dict[str, Array]:
    """The arrays for the gradients in `wrt`: those of `out`, else new ones."""
    names = DivergenceGradients._fields
    if not isinstance(wrt, Collection) or isinstance(wrt, str) or not all(name in names for name in wrt):
        raise ValueError(f"wrt: expected some of {names}, got {wrt!r}")
    if out is not None and not isinstance(out, DivergenceGradients):
        raise TypeError(f"out: expected DivergenceGradients or None, got {type(out).__name__}")
    found: dict[str, Array] = {}
    for name in names:
        z: Logits = getattr(call, name)
        other: Logits = getattr(call, "teacher_logits" if name == "logits" else "logits")
        given = None if out is None else getattr(out, name)
        if name not in wrt:
            if given is not None:
                raise ValueError(f"out: expected no array for {name}, whose gradient is not asked for")
        elif given is None:
            found[name] = empty(z.shape, z.data.dtype)
        else:
            inputs = (other.given, call.weight_given, grad_output, *found.values())
            found[name] = check_out(given, z, inputs, f"out.{name}")
    return found
