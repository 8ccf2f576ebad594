"""A search space: what may change in a base network, and how a candidate is drawn, patched and checked.

A candidate is a mapping of parameters to values, such as {"stages[0].width": 64, "stages[0].mixer": "mat"}. Parameters
are named by their concrete paths; a choice's value is its label. A path that selects several places is one parameter
for all of them, under the path as written, unless its distribution says `each: true`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from archspec.errors import Place, Problem, SpecError
from archspec.paths import Path, apply_patches, match_paths
from archspec.tree import Node, from_plain
from archspec.validation import problem

from .distributions import Choice, Derived, Distribution, IntRange, read_distribution, size
from .expressions import Absent, Expression, NoValue

Value: TypeAlias = str | int | float
Candidate: TypeAlias = Mapping[str, Value]
Patches: TypeAlias = list[tuple[Path, Node]]
_INDEX = re.compile(r"\[(\d+)\]")


class Suggest(Protocol):
    """Where values come from: a sampler, or a candidate that is read again."""

    def choice(self, name: str, labels: Sequence[str]) -> str:
        """One of the labels."""

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        """A whole number of the range."""

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """A number of the range."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value to choose. path: where it is set; index: what `i` is in an expression, the first index of the path."""

    name: str
    path: Path
    distribution: Distribution
    place: Place | None = field(compare=False)

    @property
    def index(self) -> int | None:
        """The stage that the path stands in."""
        found = _INDEX.search(self.name)
        return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Constraint:
    """What must hold between values, at each stage that it speaks of."""

    expression: Expression
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Space:
    """Parameters in the order of the file, and constraints between values. `base` is the tree that they patch."""

    base: Node = field(compare=False, repr=False)
    parameters: tuple[Parameter, ...]
    constraints: tuple[Constraint, ...]

    def size(self) -> float:
        """How many candidates there are, constraints not regarded; infinite with a range of real numbers."""
        return math.prod(size(parameter.distribution) for parameter in self.parameters)

    def draw(self, suggest: Suggest) -> tuple[dict[str, Value], Patches]:
        """A candidate and its patches, derived values included. Raises SpecError where one cannot be derived."""
        drawing = _Drawing(suggest)
        for parameter in self.parameters:
            drawing.take(parameter)
        patches = drawing.patches
        if drawing.derived:
            tree = apply_patches(self.base, patches)
            patches = [*patches, *(_derive(parameter, tree) for parameter in drawing.derived)]
        return drawing.values, patches

    def violated(self, tree: Node) -> Constraint | None:
        """The first constraint that a patched tree breaks. Raises SpecError for one that makes no sense there."""
        return next((one for one in self.constraints if not _holds(one, tree)), None)


class _Drawing:
    """Asks for one value after another; what is nested is asked for where it is there."""

    def __init__(self, suggest: Suggest) -> None:
        self.suggest = suggest
        self.values: dict[str, Value] = {}
        self.patches: Patches = []
        self.derived: list[Parameter] = []

    def take(self, parameter: Parameter) -> None:
        name, drawn = parameter.name, parameter.distribution
        if isinstance(drawn, Derived):
            self.derived.append(parameter)
        elif isinstance(drawn, Choice):
            self.choose(parameter, drawn)
        elif isinstance(drawn, IntRange):
            self.set(parameter, self.suggest.integer(name, drawn.low, drawn.high, drawn.step, drawn.log))
        else:
            self.set(parameter, self.suggest.real(name, drawn.low, drawn.high, drawn.log))

    def set(self, parameter: Parameter, value: Value) -> None:
        self.values[parameter.name] = value
        self.patches.append((parameter.path, from_plain(value, parameter.place or Place(parameter.name))))

    def choose(self, parameter: Parameter, choice: Choice) -> None:
        labels = [option.label for option in choice.options]
        label = self.suggest.choice(parameter.name, labels)
        option = choice.find(label)
        self.values[parameter.name] = label
        self.patches.append((parameter.path, option.value))
        for key, nested in option.nested:
            name = f"{parameter.name}={label}.{key}"
            path = Path((*parameter.path.steps, key))
            self.take(Parameter(name, path, nested, parameter.place))


def _derive(parameter: Parameter, tree: Node) -> tuple[Path, Node]:
    assert isinstance(parameter.distribution, Derived)
    expression = parameter.distribution.expression
    place = parameter.place or Place(parameter.name)
    try:
        value = expression.value(tree, parameter.index)
    except Absent as error:
        rule = f"{expression.text}: there is no {error}"
        raise SpecError([Problem(place=place, path=parameter.name, rule=rule)]) from None
    except NoValue as error:
        raise SpecError([Problem(place=place, path=parameter.name, rule=str(error))]) from None
    whole = isinstance(value, float) and value.is_integer()
    return parameter.path, from_plain(int(value) if whole else value, place)


def _holds(constraint: Constraint, tree: Node) -> bool:
    """With `i`, at every stage where its paths exist; it must exist at one of them."""
    expression = constraint.expression
    stages = (tree.mapping or {}).get("stages")
    found, missing = [], ""
    for index in range(len(stages.items or ()) if stages else 0) if expression.indexed else (None,):
        try:
            found.append(bool(expression.value(tree, index)))
        except Absent as error:
            missing = str(error)
        except NoValue as error:
            raise SpecError([Problem(place=constraint.place, path="constraints", rule=str(error))]) from None
    if not found:
        rule = f"{expression.text}: there is no {missing}"
        raise SpecError([Problem(place=constraint.place, path="constraints", rule=rule)])
    return all(found)


def read_space(node: Node, constraints: Node | None, base: Node, problems: list[Problem]) -> Space:
    """The space that a study file writes over a base tree; adds what is wrong to `problems`."""
    if not node.mapping:
        problems.append(problem(node, f"{node.describe()} where a mapping of path: values is expected"))
    parameters: dict[str, Parameter] = {}
    for text, said in (node.mapping or {}).items():
        for parameter in _parameters(text, said, base, problems):
            if parameter.name in parameters:
                problems.append(problem(said, f"{parameter.name} is a parameter already", key=True))
            parameters[parameter.name] = parameter
    return Space(base, tuple(parameters.values()), tuple(_constraints(constraints, problems)))


def _parameters(text: str, node: Node, base: Node, problems: list[Problem]) -> list[Parameter]:
    try:
        path = Path.parse(text, node.key_place)
    except SpecError as error:
        problems.extend(error.problems)
        return []
    last = path.steps[-1]
    read = read_distribution(last if isinstance(last, str) else "", node, problems)
    if read is None:
        return []
    distribution, each = read
    places = _concrete(path, base)
    if not places:
        problems.append(problem(node, f"{text} selects nothing in the base", key=True))
        return []
    chosen = [Path.parse(place) for place in places] if each else [path]
    return [Parameter(str(one), one, distribution, node.place) for one in chosen]


def _concrete(path: Path, base: Node) -> list[str]:
    """The places that a path selects; its last names may be new."""
    found, steps = match_paths(base, path), path.steps
    rest: list[str] = []
    while not found and len(steps) > 1 and isinstance(last := steps[-1], str):
        steps, rest = steps[:-1], [last, *rest]
        found = match_paths(base, Path(steps))
    if not found and isinstance(steps[0], str) and len(steps) == 1:
        return [str(path)]  # at the top
    return [str(Path((*Path.parse(place).steps, *rest))) for place in found]


def _constraints(node: Node | None, problems: list[Problem]) -> Iterator[Constraint]:
    if node is None:
        return
    if node.items is None:
        problems.append(problem(node, f"{node.describe()} where a list of expressions is expected"))
    for item in node.items or ():
        if not isinstance(item.value, str):
            problems.append(
                problem(item, f"{item.describe()} is no expression", "stages[i].width <= stages[i+1].width")
            )
            continue
        try:
            yield Constraint(Expression.parse(item.value), item.place)
        except ValueError as error:
            problems.append(problem(item, str(error)))


class Replay:
    """Gives the values of a candidate again. Raises KeyError for a parameter that it does not have."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate

    def choice(self, name: str, labels: Sequence[str]) -> str:
        """The label that was chosen."""
        return str(self.candidate[name])

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        """The number that was chosen."""
        return int(self.candidate[name])

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """The number that was chosen."""
        return float(self.candidate[name])
