"""The cells of an ablation: how its rows are trained, what each costs, and which are within the budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archspec import api
from archspec.errors import Problem, SpecError, UsageError, in_order, shorten
from archspec.loading import SUFFIXES
from archspec.plan import Plan
from archspec.training.data import Data
from archspec.training.failures import predicted
from archspec.training.recipe import Recipe, load_recipe
from archspec.tree import Node
from archspec.validation import problem

from ..jobs.cells import Cell, Source
from .study import Ablation, Row

COUNTED = ("params", "params_trainable", "macs", "flops", "ops", "activations")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line says of the training; it comes before what the study says."""

    recipe: str = ""
    recipe_sets: Sequence[str] = ()
    data: str = ""
    data_options: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    device: str = "auto"
    allow_outside: bool = False


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the rows of a study are trained. recipe_name: with what was patched in it."""

    recipe: Recipe
    recipe_name: str
    source: Source
    seeds: tuple[int, ...]
    device: str


@dataclass(frozen=True, kw_only=True)
class TrainedRow:
    """A row with a cell for each seed. costs: by column; bytes and seconds. over_budget: why it is not trained."""

    row: Row
    cells: tuple[Cell, ...]
    costs: Mapping[str, float]
    over_budget: tuple[str, ...]


def training_of(study: Ablation, path: Path, wishes: Wishes) -> Training:
    """How the study in `path` is trained. Raises SpecError with places, UsageError for the command line's part."""
    recipe = _recipe(study, path, wishes)
    data = wishes.data or _data(study, path)
    patches = f" with {', '.join(wishes.recipe_sets)}" if wishes.recipe_sets else ""
    return Training(
        recipe=recipe,
        recipe_name=f"{recipe.name}{patches}",
        source=Source(data, wishes.data_options),
        seeds=wishes.seeds or study.seeds,
        device=wishes.device,
    )


def _recipe(study: Ablation, path: Path, wishes: Wishes) -> Recipe:
    if wishes.recipe:
        return load_recipe(wishes.recipe, wishes.recipe_sets, allow_outside=wishes.allow_outside, option="--recipe-set")
    if study.recipe is None:
        raise UsageError(f"{path}: says no recipe (--recipe RECIPE trains it; --count-only needs none)")
    name: str | Path = study.recipe
    node = _entry(study, "recipe")
    if Path(name).suffix in SUFFIXES:
        name = path.parent / name
        if not wishes.allow_outside and not name.resolve().is_relative_to(path.parent.resolve()):
            rule = f"'{shorten(study.recipe)}' leaves the folder {path.parent}"
            raise SpecError([problem(node, rule, "--allow-outside permits it")])
    try:
        return load_recipe(name, wishes.recipe_sets, allow_outside=wishes.allow_outside, option="--recipe-set")
    except UsageError as error:
        raise SpecError([problem(node, str(error))]) from error


def _data(study: Ablation, path: Path) -> str:
    """A folder as seen from the study's file, or a name."""
    if study.data is None:
        raise UsageError(f"{path}: says no data (--data DATA trains on it; --count-only needs none)")
    beside = path.parent / Path(study.data).expanduser()
    return str(beside) if beside.is_dir() else study.data


def _entry(study: Ablation, key: str) -> Node:
    return (study.node.mapping or {})[key]


def rows_of(study: Ablation, training: Training, *, memory: bool = False) -> tuple[TrainedRow, ...]:
    """The rows with their cells and costs. memory: predict that of training, whether or not the study asks for it.

    Raises SpecError where rows do not fit the data or the recipe, or the row that others are compared with is over
    budget; RunError where a network cannot be timed.
    """
    plans = _checked(study, training)
    latencies = _latencies(study, training) if _wanted(study, "latency") else {}
    rows = []
    for row in study.rows:
        costs = row_costs(row.plan)
        if memory or _wanted(study, "train_memory"):
            data = training.source.open(plans[row.name], training.recipe)
            costs["train_memory"] = training_memory(plans[row.name], training.recipe, data)
        if row.name in latencies:
            costs["latency"] = latencies[row.name]
        cells = tuple(training.source.cell(row.plan, training.recipe, seed) for seed in training.seeds)
        rows.append(TrainedRow(row=row, cells=cells, costs=costs, over_budget=_over_budget(study, costs)))
    _refuse_reference(study, rows)
    return tuple(rows)


def row_costs(plan: Plan) -> dict[str, float]:
    """What can be counted, by column."""
    cost = api.count(plan)
    return {column: getattr(cost, column) for column in COUNTED}


def training_memory(plan: Plan, recipe: Recipe, data: Data) -> int:
    """Bytes that a step of a recipe is predicted to need."""
    return predicted(plan, recipe, -(-data.batch // recipe.accumulate))


def _checked(study: Ablation, training: Training) -> dict[str, Plan]:
    """The plans as they are trained, by row; what is wrong with several rows in the same way is told of the first."""
    problems: dict[str, Problem] = {}
    plans = {}
    for row in study.rows:
        try:
            plans[row.name] = training.source.cell(row.plan, training.recipe, 0).plan
        except UsageError as error:
            problems.setdefault(str(error), problem(row.node, str(error)))
    if problems:
        raise SpecError(in_order(problems.values()))
    return plans


def _wanted(study: Ablation, column: str) -> bool:
    return column in study.columns or any(budget.measure == column for budget in study.budgets)


def _latencies(study: Ablation, training: Training) -> dict[str, float]:
    """Seconds of one image, measured here and now, by row."""
    from archspec.latency.measure import measure
    from archspec.latency.setting import setting_here

    plans = [row.plan for row in study.rows]
    found = measure(plans, setting_here(device=training.device))
    return {row.name: one.seconds.median for row, one in zip(study.rows, found, strict=True)}


def _over_budget(study: Ablation, costs: Mapping[str, float]) -> tuple[str, ...]:
    known = [(budget, costs[budget.measure]) for budget in study.budgets]
    return tuple(budget.explain(value) for budget, value in known if not budget.check(value))


def _refuse_reference(study: Ablation, rows: Sequence[TrainedRow]) -> None:
    """Without it nothing could be compared, which one would learn when all is trained."""
    row = next(row for row in rows if row.row.name == study.reference)
    if not row.over_budget:
        return
    broken = [(budget, row.costs[budget.measure]) for budget in study.budgets]
    told = [
        Problem(
            place=budget.place,
            path=f"budgets.{budget.measure}",
            rule=f"'{shorten(study.reference)}', which the others are compared with, is over it: "
            f"{budget.explain(value)}",
            suggestion="another `reference`, or a wider budget",
        )
        for budget, value in broken
        if not budget.check(value)
    ]
    raise SpecError(told)
