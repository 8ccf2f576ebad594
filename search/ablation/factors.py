"""Factors of a study and their levels.

factors:
  context: {static: {"stages[*].mixer.context": static}, dynamic: {}}     # named levels, each a patch
  kernel: {"stages[*].mixer.kernel": [11, 3, 7]}                          # a path and its values, which name the levels

The first level of a factor is the one that others are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from archspec.errors import Problem, shorten
from archspec.tree import Node
from archspec.validation import problem


@dataclass(frozen=True, slots=True)
class Level:
    """One setting of a factor; `node` is where it is written."""

    factor: str
    name: str
    patches: Node = field(compare=False, repr=False)
    node: Node = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.factor} {self.name}"


Factor: TypeAlias = tuple[Level, ...]


def read_factors(node: Node, problems: list[Problem]) -> tuple[Factor, ...]:
    """The factors in the order of the file; none, and problems, when any is at fault."""
    if not node.mapping:
        problems.append(problem(node, f"{node.describe()} where a mapping of factor: levels is expected"))
        return ()
    found = len(problems)
    factors = tuple(_levels(name, child, problems) for name, child in node.mapping.items())
    return factors if len(problems) == found else ()


def _levels(factor: str, node: Node, problems: list[Problem]) -> Factor:
    entries = node.mapping or {}
    by_value = [path for path, child in entries.items() if child.items is not None]
    if by_value and len(entries) == 1:
        levels = _by_value(factor, by_value[0], entries[by_value[0]], problems)
    else:
        levels = _named(factor, node, problems)
    if levels and len(levels) < 2:
        problems.append(problem(node, f"'{shorten(factor)}' has one level, which compares nothing"))
    return levels


def _by_value(factor: str, path: str, node: Node, problems: list[Problem]) -> Factor:
    levels: dict[str, Level] = {}
    for value in node.items or ():
        name = level_name(value)
        if name in levels:
            problems.append(problem(value, f"{name} is there more than once"))
        patches = Node({path: replace(value, key_place=node.key_place)}, value.place, path=value.path)
        levels[name] = Level(factor, name, patches, value)
    if not levels:
        problems.append(problem(node, "an empty list where the values of a path are expected"))
    return tuple(levels.values())


def _named(factor: str, node: Node, problems: list[Problem]) -> Factor:
    if not node.mapping:
        hint = 'such as {small: {...}, large: {...}}, or {"stages[*].depth": [1, 2]}'
        problems.append(problem(node, f"{node.describe()} where the levels of a factor are expected", hint))
    for name, child in (node.mapping or {}).items():
        if child.mapping is None:
            rule = f"{child.describe()} where the patches of the level '{shorten(name)}' are expected"
            hint = "a path with a list of values stands alone" if child.items is not None else "{} for none"
            problems.append(problem(child, rule, hint))
    return tuple(Level(factor, name, child, child) for name, child in (node.mapping or {}).items())


def level_name(node: Node) -> str:
    """How a value is called as a level: as YAML writes it on one line, without quotes."""
    return _on_one_line(node.plain())


def _on_one_line(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_on_one_line(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_on_one_line(item) for item in value) + "]"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return str(value)


def one_at_a_time(factors: Sequence[Factor]) -> list[tuple[Level, ...]]:
    """All first levels, then each other level of each factor with the first levels of the others."""
    first = tuple(levels[0] for levels in factors)
    others = [
        (*first[:index], level, *first[index + 1 :]) for index, levels in enumerate(factors) for level in levels[1:]
    ]
    return [first, *others]
