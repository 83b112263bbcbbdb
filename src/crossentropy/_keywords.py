"""Arguments by names that a function does not take: say what the caller probably meant.

Python's own message names the wrong word alone. A wrapper that looks at it costs a call 0.1 to 0.4 µs. Where that is
much a function takes unknown names and refuses them itself, for 0.02 µs::

    @teaches_keywords(class_weight="two models have no classes to weigh")
    def divergence(logits, teacher_logits, *, axis=-1, **unknown: Never):
        if unknown:
            refuse_keywords(divergence, unknown)

Type checkers read the overloads in place of this signature. A function without overloads is wrapped, so that they say
of a name that it is unexpected.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, ParamSpec, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")

# What other libraries call it, and what it is here: the first of these that the function takes, or all of them.
_ELSEWHERE: Final[dict[str, tuple[str, ...]]] = {
    "weight": ("class_weight", "classifier"),
    "weights": ("sample_weight", "class_weight"),
    "mask": ("sample_weight",),
    "where": ("sample_weight",),
    "padding_idx": ("ignore_index",),
    "ignore_label": ("ignore_index",),
    **dict.fromkeys(("labels", "y_true", "y", "target", "classes"), ("targets", "indices")),
    **dict.fromkeys(("y_pred", "scores", "outputs", "predictions"), ("logits",)),
    **dict.fromkeys(("input", "inputs", "x"), ("logits", "hidden")),
    **dict.fromkeys(("embeddings", "hidden_states", "features"), ("hidden",)),
    **dict.fromkeys(("linear_weight", "lin_weight", "W", "head"), ("classifier",)),
    "linear_bias": ("bias",),
    "teacher": ("teacher_logits", "teacher_hidden"),
    **dict.fromkeys(("actions", "tokens"), ("indices", "targets")),
    "dim": ("axis",),
    "keepdim": ("keepdims",),
    **dict.fromkeys(("reduce", "size_average", "normalize", "average"), ("reduction",)),
    **dict.fromkeys(("smoothing", "epsilon", "eps"), ("label_smoothing",)),
    **dict.fromkeys(("T", "tau"), ("temperature",)),
    **dict.fromkeys(("cap", "logit_cap", "soft_cap"), ("softcap",)),
    "lse_square_scale": ("z_loss",),
    **dict.fromkeys(("gamma", "focal"), ("focal_gamma",)),
    **dict.fromkeys(("entropy_coef", "ent_coef", "entropy_weight", "confidence_penalty"), ("entropy_bonus",)),
    **dict.fromkeys(("n_jobs", "threads"), ("num_threads",)),
    **dict.fromkeys(("grad", "upstream"), ("grad_output",)),
    "grad_output": ("dlog_prob", "dentropy"),
}
_REASONS: Final = {
    "from_logits": "logits are always expected; of probabilities p, np.log(p) are some",
    "dtype": "results have the dtype of what is given: convert that, as in logits.astype(np.float32)",
    "log_target": "logits are always expected; logarithms of probabilities are some",
    "beta": "jensen_shannon has it",
    "direction": "kl_divergence has it",
    "device": "NumPy arrays are on the CPU; for tensors there is crossentropy.torch",
}


class _Missing:
    def __repr__(self) -> str:
        return "no argument"


# The default of arguments that have none: an unknown name is told before what is missing for it, as targets are for
# labels=. `as_array` refuses it.
MISSING: Final = _Missing()


def teaches_keywords(**reasons: str) -> Callable[[F], F]:
    """Decorate a function to say, of a name that it does not take, what was probably meant.

    `reasons` tell why it does not take a name that its neighbours do. To all who ask for the signature it is that
    without ``**unknown``. Decorators that wrap the function come below this one.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        *parameters, last = signature.parameters.values()
        if last.kind is not last.VAR_KEYWORD:
            return cast(F, _wrapped(function, reasons))
        positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        function.__defaults__ = tuple(MISSING if p.default is p.empty else p.default for p in positional)
        function.__dict__.update(__signature__=signature.replace(parameters=parameters), _refused=reasons)
        return function

    return decorate


def _wrapped(function: Callable[P, R], reasons: Mapping[str, str]) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            unknown = [name for name in kwargs if name not in taken]
            if unknown:
                refuse_keywords(call, unknown)
            if len(args) > len(taken) - len(named) and named:
                raise TypeError(f"{error}: what follows has a name, as in {named[0]}=") from None
            raise

    taken = inspect.signature(function).parameters
    named = [name for name, parameter in taken.items() if parameter.kind is parameter.KEYWORD_ONLY]
    call.__dict__["_refused"] = reasons
    return call


def refuse_keywords(function: Callable[..., Any], unknown: Iterable[str]) -> NoReturn:
    """Raise Python's TypeError for the first of the unknown names, with what was probably meant."""
    name = next(iter(unknown))
    of = function.__qualname__.removesuffix(".__init__")
    takes = [taken for taken in inspect.signature(function).parameters if taken != "self"]
    reasons: Mapping[str, str] = _REASONS | getattr(function, "_refused", {})
    advice = reasons.get(name) or _meant(name, takes) or f"expected some of {', '.join(takes)}"
    raise TypeError(f"{of}() got an unexpected keyword argument {name!r}: {advice}") from None


def _meant(name: str, takes: list[str]) -> str | None:
    known = dict.fromkeys(takes, ()) | {other: ours for other, ours in _ELSEWHERE.items() if set(ours) & set(takes)}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75) if name not in known else [name]
    if not near:
        return None
    ours = [taken for taken in known[near[0]] if taken in takes] or near
    return f"did you mean {' or '.join(ours)}?"
