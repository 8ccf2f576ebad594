"""What a parameter of a search space may be: a choice, a range of whole or real numbers, or derived from others.

stages[0].width: [32, 64, 96]                                # a choice
stages[*].depth: {int: [1, 4], each: true}                   # one parameter a stage; without `each`, one for all
stages[1:].width: {int: [64, 256], step: 32, each: true}
drop_path: {float: [0, 0.3]}                                 # log: true draws evenly in the logarithm
stages[*].mixer: {tagged: convolution, without: [ems]}       # the registry's mixers with that tag; `any` takes all
stages[0].mixer: [attention, {type: mat, heads: [2, 4]}]     # heads is there only where mat is chosen
stages[*].mixer.heads: {derive: "stages[i].width // 16"}     # follows from what was chosen
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

import yaml
from pydantic import Field

from archspec import registry
from archspec.errors import Problem, nearest
from archspec.registry import KINDS
from archspec.tree import Node
from archspec.validation import Frame, problem, read_frame

from .expressions import Expression

MAX_CHOICES = 1_000
Step: TypeAlias = Annotated[int, Field(ge=1)]  # here, as `int` is a key of the frame below


@dataclass(frozen=True, slots=True)
class Option:
    """One value of a choice, by its label. nested: parameters that are there only where it is chosen, by option."""

    label: str
    value: Node = field(compare=False, repr=False)
    nested: tuple[tuple[str, Distribution], ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values."""

    options: tuple[Option, ...]

    def find(self, label: str) -> Option:
        """The option of that label. Raises KeyError."""
        return {option.label: option for option in self.options}[label]


@dataclass(frozen=True, slots=True)
class IntRange:
    """Whole numbers from `low` to `high`, both included, in steps."""

    low: int
    high: int
    step: int = 1
    log: bool = False


@dataclass(frozen=True, slots=True)
class FloatRange:
    """Real numbers from `low` to `high`."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Derived:
    """What follows from other values; nothing is drawn."""

    expression: Expression


Distribution: TypeAlias = Choice | IntRange | FloatRange | Derived


def size(distribution: Distribution) -> float:
    """How many different values there are; infinite for real numbers."""
    if isinstance(distribution, Choice):
        return sum(math.prod(size(nested) for _, nested in option.nested) for option in distribution.options)
    if isinstance(distribution, IntRange):
        return (distribution.high - distribution.low) // distribution.step + 1
    return 1 if isinstance(distribution, Derived) or distribution.low == distribution.high else math.inf


class _RangeFrame(Frame):
    """The long form of a distribution."""

    called = "a distribution"
    grammar = "study"

    choice: Node | None = None
    int: Node | None = None
    float: Node | None = None
    tagged: Node | None = None
    derive: Node | None = None
    without: tuple[str, ...] = ()
    step: Step = 1
    log: bool = False
    each: bool = False


MAIN = ("choice", "int", "float", "tagged", "derive")
WITH = {"step": ("int",), "log": ("int", "float"), "without": ("tagged",)}


def is_distribution(node: Node) -> bool:
    """Whether a node inside of a choice's value is one: a list, or a mapping with one of the words above."""
    return node.items is not None or bool(set(node.mapping or ()) & set(MAIN))


def read_distribution(kind: str, node: Node, problems: list[Problem]) -> tuple[Distribution, bool] | None:
    """A distribution, and whether each selected place has its own. kind: the last name of the path, such as mixer."""
    if node.items is not None:
        chosen = _choice(node, problems)
        return (chosen, False) if chosen else None
    if node.mapping is None:
        problems.append(problem(node, f"{node.describe()} where a list or a range is expected", "such as [2, 4, 8]"))
        return None
    found = len(problems)
    frame = read_frame(_RangeFrame, node, problems)
    named = [key for key in MAIN if key in node.mapping]
    if frame is None or len(named) != 1:
        if len(problems) == found:
            rule = f"{' and '.join(named)} in one distribution" if named else "this names no values"
            problems.append(problem(node, rule, f"one of {', '.join(MAIN)}"))
        return None
    _refuse_strange(node, named[0], problems)
    distribution = _of(named[0], kind, node.mapping[named[0]], frame, problems)
    each = frame.each or isinstance(distribution, Derived)
    return (distribution, each) if distribution and len(problems) == found else None


def _refuse_strange(node: Node, main: str, problems: list[Problem]) -> None:
    for key, owners in WITH.items():
        if key in (node.mapping or {}) and main not in owners:
            problems.append(problem((node.mapping or {})[key], f"'{key}' belongs to {' and '.join(owners)}", key=True))


def _of(main: str, kind: str, node: Node, frame: _RangeFrame, problems: list[Problem]) -> Distribution | None:
    if main == "choice":
        return _choice(node, problems)
    if main == "tagged":
        return _tagged(kind, node, frame.without, problems)
    if main == "derive":
        return _derived(node, problems)
    ends = _ends(node, main, problems)
    if ends is None:
        return None
    low, high = ends
    if frame.log and low <= 0:
        problems.append(problem(node, f"{low} with log: true; the logarithm needs more than 0"))
        return None
    if main == "float":
        return FloatRange(float(low), float(high), frame.log)
    if frame.log and frame.step > 1:
        problems.append(problem(node, "log and step in one range", "leave out one of them"))
        return None
    return IntRange(int(low), int(high), frame.step, frame.log)


def _ends(node: Node, main: str, problems: list[Problem]) -> tuple[float, float] | None:
    values = [item.value for item in node.items or ()]
    right = all(type(value) is int or (main == "float" and type(value) is float) for value in values)
    if len(values) != 2 or not right:
        what = "whole numbers" if main == "int" else "numbers"
        problems.append(problem(node, f"{node.describe()} where two {what} are expected", "[lowest, highest]"))
        return None
    low, high = values
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if low > high:
        problems.append(problem(node, f"the range ends before it starts, at {high}", f"[{high}, {low}]"))
        return None
    return low, high


def _derived(node: Node, problems: list[Problem]) -> Derived | None:
    if not isinstance(node.value, str):
        problems.append(problem(node, f"{node.describe()} where an expression is expected", "stages[i].width // 16"))
        return None
    try:
        return Derived(Expression.parse(node.value))
    except ValueError as error:
        problems.append(problem(node, str(error)))
        return None


def _tagged(kind: str, node: Node, without: Iterable[str], problems: list[Problem]) -> Choice | None:
    """The parts of a kind with one of the tags, as they are by default."""
    if kind not in KINDS:
        problems.append(problem(node, f"'tagged' chooses parts, and '{kind}' is none", f"of {', '.join(KINDS)}"))
        return None
    wanted = {str(item.value) for item in node.items or (node,)}
    entries = [entry for entry in registry.entries() if entry.kind == kind]
    tags = {tag for entry in entries for tag in entry.tags} | {"any"}
    for tag in sorted(wanted - tags):
        problems.append(problem(node, f"no {kind} is tagged '{tag}'", nearest(tag, tags) or ", ".join(sorted(tags))))
    for name in without:
        if name not in {entry.name for entry in entries}:
            hint = nearest(name, [entry.name for entry in entries])
            problems.append(problem(node, f"there is no {kind} '{name}' to leave out", hint))
    chosen = [
        entry.name for entry in entries if ("any" in wanted or wanted & set(entry.tags)) and entry.name not in without
    ]
    return Choice(tuple(Option(name, Node(name, node.place, node.key_place, node.path)) for name in chosen))


def _choice(node: Node, problems: list[Problem]) -> Choice | None:
    if not node.items or len(node.items) > MAX_CHOICES:
        rule = f"{node.describe()} of {len(node.items or ())} values where 1 to {MAX_CHOICES} are expected"
        problems.append(problem(node, rule))
        return None
    options: dict[str, Option] = {}
    for item in node.items:
        option = _option(item, problems)
        if option.label in options:
            problems.append(problem(item, f"{option.label} stands twice in this choice"))
        options[option.label] = option
    return Choice(tuple(options.values()))


def _option(node: Node, problems: list[Problem]) -> Option:
    """A value; distributions in a part's options are parameters of their own."""
    if node.mapping is None:
        return Option(_label(node), node)
    nested, fixed = [], {}
    for key, child in node.mapping.items():
        if not is_distribution(child):
            fixed[key] = child
        elif (found := read_distribution(key, child, problems)) is not None:
            nested.append((key, found[0]))
    value = Node(fixed, node.place, node.key_place, node.path)
    return Option(_label(value), value, tuple(nested))


def _label(node: Node) -> str:
    """`mat`, `64`, `{type: mat, window: 7}`: as one would write it."""
    value = node.plain()
    if isinstance(value, dict) and set(value) == {"type"}:
        value = value["type"]
    if isinstance(value, str):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n...\n").rstrip("\n")
