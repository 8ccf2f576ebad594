"""What a search is for, and how its candidates are judged: objectives and evaluations of a study file.

objectives: accuracy                               # or loss, alone
objectives: [accuracy, macs]                       # a Pareto front; the first is the primary one
objectives: {params: maximize}                     # with a direction of one's own
evaluation: {train: digits, data: digits, epochs: 5}
evaluation: {score: synflow, data: digits, batch: 64}
evaluation: cost                                   # objectives are costs alone
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from archspec.errors import Problem, SpecError, UsageError, nearest, shorten
from archspec.loading import SUFFIXES
from archspec.training.recipe import Recipe, load_recipe
from archspec.tree import Node
from archspec.validation import problem, read_frame

from ..budgets import MEASURES
from .frames import ScoreFrame, TrainFrame

Direction: TypeAlias = Literal["maximize", "minimize"]
FOUND: dict[str, Direction] = {"accuracy": "maximize", "loss": "minimize", "score": "maximize"}  # by evaluating
DIRECTIONS: dict[str, Direction] = {**FOUND, **dict.fromkeys(MEASURES, "minimize")}


@dataclass(frozen=True, slots=True)
class Objective:
    """One thing to find the largest, or the smallest, of. accuracy: a share, 0 to 1; loss: nats."""

    name: str
    direction: Direction

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.direction == "maximize" else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Train by a recipe, from a seed."""

    recipe: Recipe
    data: str
    seed: int
    finds = ("accuracy", "loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Score without training."""

    score: str
    data: str
    batch: int
    seed: int
    finds = ("score",)


@dataclass(frozen=True, slots=True)
class CostOnly:
    """Nothing but what the plan costs."""

    finds = ()


Evaluation: TypeAlias = Training | Scoring | CostOnly


def read_objectives(node: Node | None, evaluation: Evaluation | None, problems: list[Problem]) -> tuple[Objective, ...]:
    """The objectives, primary first; adds what is wrong to `problems`, and what the evaluation does not find."""
    if node is None:
        if evaluation is None or not evaluation.finds:
            return ()
        name = evaluation.finds[0]
        return (Objective(name, DIRECTIONS[name]),)
    found = [one for one in _said(node, problems) if one]
    twice = {one.name for one, _ in found if sum(one.name == other.name for other, _ in found) > 1}
    for one, at in found:
        if one.name in twice:
            problems.append(problem(at, f"{one.name} stands twice among the objectives"))
        if evaluation is not None and one.name in FOUND and one.name not in evaluation.finds:
            problems.append(problem(at, f"{one.name}: the evaluation does not find it", _finds(evaluation)))
    if evaluation is not None and evaluation.finds and found and found[0][0].name not in FOUND:
        rule = f"the first objective is the primary one, and {found[0][0].name} needs no evaluation"
        problems.append(problem(node, rule, f"put {evaluation.finds[0]} first"))
    return tuple(one for one, _ in found)


def _finds(evaluation: Evaluation) -> str:
    return f"it finds {' and '.join(evaluation.finds)}" if evaluation.finds else "it prices candidates alone"


def _said(node: Node, problems: list[Problem]) -> Iterable[tuple[Objective, Node] | None]:
    if node.mapping:
        return [_objective(key, child, child, problems) for key, child in node.mapping.items()]
    items = node.items if node.items is not None else (node,)
    if not items:
        problems.append(problem(node, "an empty list where an objective is expected", "such as accuracy"))
    return [_objective(item.value, None, item, problems) for item in items]


def _objective(name: Any, direction: Node | None, at: Node, problems: list[Problem]) -> tuple[Objective, Node] | None:
    if not isinstance(name, str) or name not in DIRECTIONS:
        hint = (nearest(name, DIRECTIONS) if isinstance(name, str) else "") or f"there are: {', '.join(DIRECTIONS)}"
        what = f"'{shorten(name)}'" if isinstance(name, str) else at.describe()
        problems.append(problem(at, f"{what} is no objective", hint, key=direction is not None))
        return None
    if direction is None:
        return Objective(name, DIRECTIONS[name]), at
    if direction.value not in ("maximize", "minimize"):
        problems.append(problem(direction, f"{direction.describe()} is no direction", "maximize or minimize"))
        return None
    if name in FOUND and direction.value != FOUND[name]:
        problems.append(problem(direction, f"{name} is what to {FOUND[name]}"))
        return None
    return Objective(name, direction.value), at  # type: ignore[arg-type]  # one of the two, as was checked


def read_evaluation(node: Node, path: Path, allow_outside: bool, problems: list[Problem]) -> Evaluation | None:
    """The evaluation that the study in the file `path` writes; adds what is wrong to `problems`."""
    if node.value == "cost":
        return CostOnly()
    entries: Mapping[str, Node] = node.mapping or {}
    if "score" in entries and "train" not in entries:
        scored = read_frame(ScoreFrame, node, problems)
        return Scoring(**scored.model_dump()) if scored else None
    if "train" not in entries:
        problems.append(
            problem(
                node, f"{node.describe()} is no evaluation", "{train: RECIPE, data: ...}, {score: NAME, ...} or cost"
            )
        )
        return None
    frame = read_frame(TrainFrame, node, problems)
    if frame is None:
        return None
    recipe = _recipe(frame, entries["train"], path, allow_outside, problems)
    return Training(recipe=recipe, data=frame.data, seed=frame.seed) if recipe else None


def _recipe(frame: TrainFrame, node: Node, path: Path, allow_outside: bool, problems: list[Problem]) -> Recipe | None:
    """A recipe's file stands where it does as seen from the study's."""
    name = str(path.parent / frame.train) if Path(frame.train).suffix in SUFFIXES else frame.train
    try:
        return load_recipe(name, [f"epochs={frame.epochs}"] if frame.epochs else [], allow_outside=allow_outside)
    except SpecError as error:
        problems.extend(error.problems)
    except UsageError as error:
        problems.append(problem(node, str(error)))
    return None
