"""From a tree to validated values: pydantic checks, archspec says what is wrong, where, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from archspec import registry
from archspec.errors import Place, Problem, UnknownName, nearest
from archspec.registry import RESERVED, Entry, Kind
from archspec.tree import Node, child_path

Value = str | int | float | bool | None | tuple["Value", ...]


class Frame(BaseModel):
    """A mapping of the language with fixed keys; fields of type Node are taken as they are."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )


F = TypeVar("F", bound=Frame)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a network with every option explicit. Equal and hashed by kind, type and options, not by its place."""

    kind: Kind
    type: str
    options: tuple[tuple[str, Value], ...]
    node: Node = field(compare=False, repr=False)

    @property
    def entry(self) -> Entry:
        """The registered class behind it."""
        return registry.find(self.kind, self.type)

    def plain(self) -> Any:
        """As YAML would say it in full."""
        return {"type": self.type, **{name: unfrozen(value) for name, value in self.options}}

    def option_node(self, option: str) -> Node:
        """Where an option is written, or the part itself where the default stands."""
        return (self.node.mapping or {}).get(option, self.node)


def read_frame(model: type[F], node: Node, what: str, problems: list[Problem]) -> F | None:
    """Validate a mapping with fixed keys; on failure add to `problems` and return None."""
    if node.mapping is None:
        problems.append(problem(node, f"{node.describe()} where {what} is expected"))
        return None
    raw = {name for name, info in model.model_fields.items() if info.annotation in (Node, Node | None)}
    values = {key: child if key in raw else frozen(child.plain()) for key, child in node.mapping.items()}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems.extend(_problems(error, node, what, model.model_fields))
        return None


def read_part(kind: Kind, node: Node, problems: list[Problem]) -> Part | None:
    """Validate a part in short or long form; `none`, and whatever adds a problem, gives None."""
    type_node = node if node.mapping is None else node.mapping.get("type")
    if type_node is None:
        problems.append(problem(node, f"this {kind} names no type", _type_hint(kind, node)))
        return None
    if not isinstance(type_node.value, str):
        problems.append(problem(type_node, f"{type_node.describe()} where the name of a {kind} is expected"))
        return None
    if type_node.value == "none":
        _refuse_options_of_none(kind, node, problems)
        return None
    try:
        entry = registry.find(kind, type_node.value)
    except UnknownName as error:
        problems.append(problem(type_node, str(error)))
        return None
    return _read_options(entry, node, problems)


def _read_options(entry: Entry, node: Node, problems: list[Problem]) -> Part | None:
    children = {key: child for key, child in (node.mapping or {}).items() if key not in RESERVED}
    try:
        model = entry.options.model_validate({key: frozen(child.plain()) for key, child in children.items()})
    except ValidationError as error:
        problems.extend(_problems(error, node, f"the {entry.title}", entry.options.model_fields))
        return None
    return Part(entry.kind, entry.name, tuple(model), node)


def _type_hint(kind: Kind, node: Node) -> str:
    """For a part without a type: the parts of that kind which have the options that are written."""
    written = set(node.mapping or {}) - RESERVED
    fitting = [name for name in registry.names(kind) if written <= set(registry.find(kind, name).options.model_fields)]
    return f"such as type: {fitting[0]}" if written and fitting else ""


def _refuse_options_of_none(kind: Kind, node: Node, problems: list[Problem]) -> None:
    for key, child in (node.mapping or {}).items():
        if key not in RESERVED:
            problems.append(problem(child, f"'none' has no options; this {kind} is left out", key=True))


def problem(node: Node, rule: str, suggestion: str = "", *, key: bool = False) -> Problem:
    """A problem at a node's value, or at its key."""
    place: Place = node.key_place if key and node.key_place else node.place
    return Problem(place=place, path=node.path, rule=rule, suggestion=suggestion)


def frozen(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    if isinstance(value, list):
        return tuple(frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return value


def unfrozen(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    return [unfrozen(item) for item in value] if isinstance(value, tuple) else value


def _problems(error: ValidationError, node: Node, what: str, known: Iterable[str]) -> list[Problem]:
    """One problem for each value at fault; the branches of a union are joined by 'or'."""
    found: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        one = _problem(detail, node, what, known)
        earlier = found.get(one.path)
        if earlier is None:
            found[one.path] = one
        elif one.rule not in earlier.rule:
            found[one.path] = Problem(place=earlier.place, path=one.path, rule=f"{earlier.rule}, or {one.rule}")
    return list(found.values())


def _problem(detail: ErrorDetails, node: Node, what: str, known: Iterable[str]) -> Problem:
    location, at = detail["loc"], node
    for step in location:
        child = _child(at, step)
        if child is None:
            break
        at = child
    if detail["type"] == "missing":
        return Problem(place=at.place, path=child_path(at.path, str(location[-1])), rule=f"{what} needs this key")
    if detail["type"] == "extra_forbidden":
        hint = nearest(str(location[-1]), known) or f"there are: {', '.join(sorted(known)) or 'none'}"
        return problem(at, f"'{location[-1]}' is no key of {what}", hint, key=True)
    rule, suggestion = _rule(detail, at)
    return problem(at, rule, suggestion)


def _child(node: Node, step: int | str) -> Node | None:
    if node.mapping is not None:
        return node.mapping.get(str(step))
    if node.items is not None and isinstance(step, int) and step < len(node.items):
        return node.items[step]
    return None


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "none_required": "nothing",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "less than", "at least"),
    "greater_than": ("gt", "not more than", "more than"),
    "less_than_equal": ("le", "more than", "at most"),
    "less_than": ("lt", "not less than", "less than"),
}


def _rule(detail: ErrorDetails, node: Node) -> tuple[str, str]:
    """What is wrong with the value, and what to write."""
    kind, context, shown = detail["type"], detail.get("ctx", {}), node.describe()
    if kind in _EXPECTED:
        return f"{shown} is not {_EXPECTED[kind]}", _unquoted(node, kind)
    if kind in _BOUNDS:
        key, is_wrong, remedy = _BOUNDS[kind]
        return f"{shown} is {is_wrong} {context[key]}", f"{remedy} {context[key]}"
    if kind == "literal_error":
        expected = str(context["expected"])
        return f"{shown} is not {expected}", nearest(
            str(node.value), expected.replace("'", "").split(" or ")[0].split(", ")
        )
    if kind in ("too_long", "too_short"):
        return f"a list of {context['actual_length']} where the length is {_length(context)}", ""
    message = detail["msg"].removeprefix("Value error, ")
    return f"{shown}: {message[:1].lower()}{message[1:]}", ""


def _length(context: Mapping[str, Any]) -> str:
    return f"at least {context['min_length']}" if "min_length" in context else f"at most {context['max_length']}"


def _unquoted(node: Node, kind: str) -> str:
    """`write 8` for a number in quotes."""
    if kind in ("int_type", "float_type") and isinstance(node.value, str):
        text = node.value.strip()
        if text.lstrip("+-").replace(".", "", 1).isdigit():
            return f"write {text}, without quotes"
    return ""
