"""From a tree to validated values: pydantic checks, archspec says what is wrong, where, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import NoneType, UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from archspec import registry
from archspec.errors import Place, Problem, nearest, shorten
from archspec.hashing import HashedOnce
from archspec.registry import KINDS, RESERVED, Entry, Kind
from archspec.tree import Node, child_path
from archspec.wording import explain, unknown_key

Location = tuple[int | str, ...]
MISSING = "missing; "  # how the rule of an absent key begins
Value = str | int | float | bool | None | tuple["Value", ...]


class Frame(BaseModel):
    """A mapping of the language with fixed keys; fields of type Node are taken as they are."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )
    called: ClassVar[str]  # in messages, such as "a stage"
    grammar: ClassVar[str] = "spec"  # of which it is a part: keys are looked for in the same one


F = TypeVar("F", bound=Frame)


@dataclass(frozen=True, slots=True)
class Part(HashedOnce):
    """A part of a network with every option explicit. Equal and hashed by kind, type and options, not by its place."""

    kind: Kind
    type: str
    options: tuple[tuple[str, Value], ...]
    node: Node = field(compare=False, repr=False)
    __hash__ = HashedOnce.__hash__

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


def read_frame(model: type[F], node: Node, problems: list[Problem]) -> F | None:
    """Validate a mapping with fixed keys; on failure add to `problems` and return None."""
    if node.mapping is None:
        keys = f"there are: {', '.join(model.model_fields)}"
        problems.append(problem(node, f"{node.describe()} where the keys of {model.called} are expected", keys))
        return None
    before = len(problems)
    values = {key: _value(model, key, child, problems) for key, child in node.mapping.items()}
    try:
        made = model.model_validate(values)
    except ValidationError as error:
        problems.extend(_problems(error, node, model.called, model.model_fields, model.grammar))
        return None
    return made if len(problems) == before else None


def _value(model: type[Frame], key: str, node: Node, problems: list[Problem]) -> Any:
    """What pydantic is given for a key: a tree, a frame that is read in its turn, or plain data."""
    annotation = model.model_fields[key].annotation if key in model.model_fields else None
    if annotation in (Node, Node | None):
        return node
    choices = get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)
    frames = [one for one in choices if isinstance(one, type) and issubclass(one, Frame)]
    if not frames:
        return frozen(node.plain())
    if node.value == "none" and NoneType in choices:
        return None
    section = frames[0]
    if isinstance(node.value, str) and "type" in section.model_fields:
        node = replace(node, value={"type": replace(node, path=child_path(node.path, "type"))})  # the short form
    entries = node.mapping or {}
    if "type" not in section.model_fields and "type" in entries and entries["type"].value == "none":
        # `none` that was amended: what amends it switches the section on
        node = replace(node, value={name: child for name, child in entries.items() if name != "type"})
    return read_frame(section, node, problems) or section.model_construct()  # what is wrong with it is known


def read_part(kind: Kind, node: Node, problems: list[Problem], *, whole: bool = True) -> Part | None:
    """Validate a part in short or long form; `none`, and whatever adds a problem, gives None.

    whole: refuse it when options are missing; not so for a default, which a stage may complete.
    """
    type_node = node if node.mapping is None else node.mapping.get("type")
    if type_node is None:
        problems.append(problem(node, f"this {kind} names no type", _type_hint(kind, node)))
        return None
    if not isinstance(type_node.value, str):
        rule = f"{type_node.describe()} where the name of a {kind} is expected"
        problems.append(problem(type_node, rule, "" if type_node.value else "write none to leave it out"))
        return None
    if type_node.value == "none":
        _refuse_options_of_none(kind, node, problems)
        return None
    names = registry.names(kind)
    if type_node.value not in names:
        hint = nearest(type_node.value, [*names, "none"]) or f"there are: {', '.join(names)}"
        problems.append(problem(type_node, f"there is no {kind} '{shorten(type_node.value)}'", hint))
        return None
    return _read_options(registry.find(kind, type_node.value), node, problems, whole=whole)


def _read_options(entry: Entry, node: Node, problems: list[Problem], *, whole: bool) -> Part | None:
    reserved = RESERVED if entry.kind == "modifier" else {"type"}
    children = {key: child for key, child in (node.mapping or {}).items() if key not in reserved}
    try:
        model = entry.options.model_validate({key: frozen(child.plain()) for key, child in children.items()})
    except ValidationError as error:
        found = _problems(error, node, f"the {entry.title}", entry.options.model_fields)
        problems.extend(one for one in found if whole or not one.rule.startswith(MISSING))
        return None
    return Part(entry.kind, entry.name, tuple(model), node)


def _type_hint(kind: Kind, node: Node) -> str:
    """For a part without a type: the parts of that kind, or those of them that have the options which are written."""
    names = registry.names(kind)
    written = set(node.mapping or {}) - RESERVED
    fitting = [name for name in names if written <= set(_options(kind, name))]
    return f"there are: {', '.join(f'type: {name}' for name in fitting or names)}"


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


def _problems(
    error: ValidationError, node: Node, what: str, known: Iterable[str], grammar: str = "spec"
) -> list[Problem]:
    """One problem for each value at fault; the branches of a union are joined by 'or'."""
    found: dict[str, Problem] = {}
    details = error.errors(include_url=False, include_input=False)
    hints = [nearest(str(detail["loc"][-1]), known) for detail in details if detail["type"] == "extra_forbidden"]
    for detail in details:
        if detail["type"] == "missing" and any(f"'{detail['loc'][-1]}'" in hint for hint in hints):
            continue  # it is there, misspelt, and that is said
        if detail["type"] == "too_short" and any(_is_inside(other["loc"], detail["loc"]) for other in details):
            continue  # pydantic counts the good items alone
        one = _problem(detail, node, what, known, grammar)
        earlier = found.get(one.path)
        if earlier is None:
            found[one.path] = one
        elif one.rule not in earlier.rule:
            found[one.path] = Problem(place=earlier.place, path=one.path, rule=f"{earlier.rule}, or {one.rule}")
    return list(found.values())


def _problem(detail: ErrorDetails, node: Node, what: str, known: Iterable[str], grammar: str) -> Problem:
    location, at = detail["loc"], node
    for step in location:
        child = _child(at, step)
        if child is None:
            break
        at = child
    if detail["type"] == "missing":
        return Problem(place=at.place, path=child_path(at.path, location[-1]), rule=f"{MISSING}{what} needs it")
    if detail["type"] == "extra_forbidden":
        rule, suggestion = unknown_key(str(location[-1]), what, known, _homes(str(location[-1]), known, grammar))
        return problem(at, rule, suggestion, key=True)
    rule, suggestion = explain(detail, at)
    return problem(at, rule, suggestion)


def _is_inside(place: Location, of: Location) -> bool:
    return len(place) > len(of) and place[: len(of)] == of


def _homes(key: str, known: Iterable[str], grammar: str) -> list[str]:
    """What else has this key: another level of the language, or a kind of part that may stand here."""
    levels = [
        model.called
        for model in _levels(Frame)
        if model.grammar == grammar and key in model.model_fields and "called" in vars(model)
    ]
    kinds = [
        kind for kind in KINDS if kind in known and any(key in _options(kind, name) for name in registry.names(kind))
    ]
    return levels[::-1] or [f"the {kind}" for kind in kinds]


def _levels(model: type[Frame]) -> list[type[Frame]]:
    return [level for child in model.__subclasses__() for level in (child, *_levels(child))]


def _options(kind: Kind, name: str) -> Iterable[str]:
    return registry.find(kind, name).options.model_fields


def _child(node: Node, step: int | str) -> Node | None:
    if node.mapping is not None:
        return node.mapping.get(str(step))
    if node.items is not None and isinstance(step, int) and step < len(node.items):
        return node.items[step]
    return None
