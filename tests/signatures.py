"""Signatures compared with `LossOptions`, the only list of the loss's options."""

import ast
import dataclasses
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_overloads, get_type_hints

from crossentropy._options import LossOptions, Reduction


class Option(NamedTuple):
    """As signatures have it. What is infinite in `LossOptions` is None in them."""

    name: str
    annotation: Any
    default: Any
    written: str  # the annotation

    def line(self) -> str:
        default = "None" if self.default is None else repr(self.default).replace("'", '"')
        return f"    {self.name}: {self.written} = {default},"


def _options() -> Iterator[Option]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(LossOptions))).body
    written = {
        node.target.id: ast.unparse(node.annotation) for node in definition.body if isinstance(node, ast.AnnAssign)
    }
    for field in dataclasses.fields(LossOptions):
        if field.default == math.inf:
            yield Option(field.name, field.type | None, None, f"{written[field.name]} | None")
        else:
            yield Option(field.name, field.type, field.default, written[field.name])


OPTIONS = {option.name: option for option in _options()}


@dataclasses.dataclass(frozen=True)
class Differs:
    """What a signature has otherwise, and why."""

    because: str
    without: tuple[str, ...] = ()
    first: tuple[str, ...] = ()  # these come before the others
    annotations: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    documented: bool = True  # in its own docstring
    typer: bool = False  # annotations are names of crossentropy.cli._options, which tell typer of a help text


def takes(function: Callable[..., Any]) -> bool:
    """Whether any of its parameters is an option of the loss."""
    return any(name in OPTIONS for name in inspect.signature(function).parameters)


def expected_options(differs: Differs | None) -> list[Option]:
    if differs is None:
        return list(OPTIONS.values())
    order = [*differs.first, *(name for name in OPTIONS if name not in differs.first)]
    return [_as_it_differs(OPTIONS[name], differs) for name in order if name not in differs.without]


def _as_it_differs(option: Option, differs: Differs) -> Option:
    if option.name in differs.annotations:
        annotation = differs.annotations[option.name]
        written = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        option = option._replace(annotation=annotation, written=written)
    if differs.typer:
        option = option._replace(written=option.name.title().replace("_", ""))
    return option._replace(default=differs.defaults.get(option.name, option.default))


def differences(label: str, function: Callable[..., Any], differs: Differs | None = None) -> list[str]:
    """What a signature lacks or has otherwise: the lines to be added or changed."""
    parameters = inspect.signature(function).parameters
    hints = get_type_hints(function.__init__ if isinstance(function, type) else function)
    expected = expected_options(differs)
    found = []
    before = "the arguments that are no options"
    for option in expected:
        name, given = option.name, parameters.get(option.name)
        if given is None:
            found.append(f"{label}: add `{option.line()}` after {before}")
        elif hints.get(name) != option.annotation:
            found.append(f"{label}: expected `{option.line()}`, got the annotation {hints.get(name)}")
        elif type(given.default) is not type(option.default) or given.default != option.default:
            found.append(f"{label}: expected `{option.line()}`, got the default {given.default!r}")
        before = name
    order = [option.name for option in expected if option.name in parameters]
    given_order = [name for name in parameters if name in order]
    if given_order != order:
        found.append(f"{label}: expected the order {', '.join(order)}, got {', '.join(given_order)}")
    if differs is None or (differs.documented and not differs.typer):
        words = re.findall(r"\w+", inspect.getdoc(function) or "")
        found += [f"{label}: name {name} in its docstring" for name in order if name not in words]
    without = () if differs is None else differs.without
    found += [f"{label}: takes {name}, although {differs.because}" for name in without if name in parameters]
    return found


def differences_of_overloads(label: str, function: Callable[..., Any]) -> list[str]:
    """What overloads, and the TypedDicts that they unpack, lack or have otherwise than the function itself."""
    parameters, hints = inspect.signature(function).parameters, get_type_hints(function)
    overloads = get_overloads(function)
    found, reductions = [], set()
    for overload in overloads:
        own = get_type_hints(overload)
        accepted = {name: own[name] for name in inspect.signature(overload).parameters}
        named = f"an overload of {label}"
        for name, parameter in inspect.signature(overload).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                (unpacked,) = get_args(accepted.pop(name))
                named = f"{unpacked.__name__}, that overloads of {label} unpack"
                accepted |= get_type_hints(unpacked)
        reductions.update(get_args(accepted["reduction"]))
        for name in parameters:
            line = f"    {name}: {OPTIONS[name].written if name in OPTIONS else inspect.formatannotation(hints[name])}"
            if name not in accepted:
                found.append(f"{named}: add `{line}`")
            elif name != "reduction" and accepted[name] != hints[name]:
                found.append(f"{named}: expected `{line}`, got the annotation {accepted[name]}")
        found += [f"{named}: takes {name}, which {label} does not" for name in accepted if name not in parameters]
    if overloads and reductions != set(get_args(Reduction)):
        found.append(
            f"overloads of {label}: expected reductions {get_args(Reduction)}, got {tuple(sorted(reductions))}"
        )
    return list(dict.fromkeys(found))


def report(found: list[str]) -> str:
    return "\n".join(["", *found])
