"""A search as the files that it can be read from again, and what of it must stay the same for its record to go on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml

from archspec.latency.table import read_table
from archspec.resolved import Dumper
from archspec.tree import Node

from ..space.distributions import Choice, Derived, Distribution, IntRange, Option
from ..space.space import Space
from .objectives import CostOnly, Evaluation, Scoring
from .search import Search

CHANGEABLE = ("description", "source", "sampler", "stopping", "prescreen", "trials", "seed", "retries")
BASE, RECIPE, TABLE = "base.yaml", "recipe.yaml", "latency_table.json"


def study_files(search: Search) -> dict[str, str]:
    """The text of each file that study.yaml names, by name."""
    files = {BASE: _yaml(search.base.plain())}
    if not isinstance(search.evaluation, Scoring | CostOnly):
        files[RECIPE] = search.evaluation.recipe.to_yaml()
    return files | {_start_name(index): _yaml(tree.plain()) for index, (_, tree) in enumerate(search.start)}


def study_plain(search: Search) -> dict[str, Any]:
    """study.yaml as plain data."""
    plain: dict[str, Any] = {"archspec": 1, "study": "search", "name": search.name}
    plain |= {key: getattr(search, key) for key in ("description", "source") if getattr(search, key)}
    plain |= {"base": BASE, "space": space_plain(search.space)}
    if search.space.constraints:
        plain["constraints"] = [one.expression.text for one in search.space.constraints]
    if search.budgets:
        plain["budgets"] = dict(str(budget).split(": ") for budget in search.budgets)
    plain["objectives"] = {one.name: one.direction for one in search.objectives}
    plain["evaluation"] = _evaluation(search.evaluation)
    frames = {"sampler": search.sampler, "stopping": search.stopping, "memory": search.memory}
    plain |= {key: frame.model_dump(exclude_none=True) for key, frame in frames.items()}
    if search.prescreen:
        plain["prescreen"] = search.prescreen.model_dump()
    if search.latency_table:
        plain["latency_table"] = TABLE
    plain |= {key: getattr(search, key) for key in ("trials", "seed", "retries", "feasible_share")}
    if search.start:
        plain["start"] = [_start_name(index) for index in range(len(search.start))]
    return plain


def identity(search: Search) -> dict[str, Any]:
    """What must be the same for a record to go on: all that candidates, their prices and their results depend on."""
    plain = {
        key: value for key, value in study_plain(search).items() if key not in (*CHANGEABLE, "feasible_share", "start")
    }
    plain["base"] = {key: value for key, value in search.base.plain().items() if key != "name"}
    if not isinstance(search.evaluation, Scoring | CostOnly):
        recipe = search.evaluation.recipe.to_plain()
        unnamed = {key: value for key, value in recipe.items() if key not in ("name", "description", "source")}
        plain["evaluation"] = {**plain["evaluation"], "train": unnamed}
    if search.latency_table:
        plain["latency_table"] = asdict(read_table(search.latency_table).setting)  # it may know more units by now
    if "train_memory" not in search.measures:
        del plain["memory"]
    return plain


def _yaml(plain: Any) -> str:
    return yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def _start_name(index: int) -> str:
    return f"start_{index}.yaml"


def _evaluation(evaluation: Evaluation) -> Any:
    if isinstance(evaluation, CostOnly):
        return "cost"
    if isinstance(evaluation, Scoring):
        keys = ("score", "data", "batch", "seed")
        return {key: getattr(evaluation, key) for key in keys}
    return {"train": RECIPE, "data": evaluation.data, "seed": evaluation.seed}


def space_plain(space: Space) -> dict[str, Any]:
    """A space as a study writes it, with every path, tag and label spelt out."""
    return {parameter.name: _distribution(parameter.distribution) for parameter in space.parameters}


def _distribution(distribution: Distribution) -> dict[str, Any]:
    if isinstance(distribution, Choice):
        return {"choice": [_option(option) for option in distribution.options]}
    if isinstance(distribution, Derived):
        return {"derive": distribution.expression.text}
    ends = [distribution.low, distribution.high]
    log = {"log": True} if distribution.log else {}
    if isinstance(distribution, IntRange):
        return {"int": ends, **({"step": distribution.step} if distribution.step > 1 else {}), **log}
    return {"float": ends, **log}


def _option(option: Option) -> Any:
    if not option.nested:
        return _plain(option.value)
    return {**_plain(option.value), **{key: _distribution(nested) for key, nested in option.nested}}


def _plain(node: Node) -> Any:
    return node.plain()
