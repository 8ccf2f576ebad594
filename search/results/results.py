"""What a search has found, from its record and its folder alone: while it runs, or any time after."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec import api
from archspec.errors import RunError
from archspec.loading import load_spec
from archspec.plan import Plan
from archspec.training.folder import ENVIRONMENT

from ..samplers.sampling import is_evaluated
from ..session.folder import SearchFolder
from ..session.reading import pareto, read_record
from ..sheet import shown_cost
from ..space.space import Candidate
from ..space.suggest import dice
from ..study.objectives import Objective
from ..study.pricing import Pricer
from ..study.search import Search
from .importance import importances

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TOP = 5  # specs that are written where there is one objective
SHOWN = 1_500  # candidates in a picture
OF_FRONT = 100  # of a front, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A candidate that was evaluated to its end. objectives: in the study's order, as in the record.

    taken: known from another search. parent: the trial that it was made from, where the sampler makes them so.
    """

    number: int
    values: Candidate
    objectives: tuple[float, ...]
    costs: Mapping[str, float]
    seconds: float
    taken: bool
    parent: int | None


@dataclass(frozen=True, kw_only=True)
class SearchResults:
    """A search with its trials. top: how many of the best there are with one objective."""

    folder: SearchFolder
    search: Search
    trials: Sequence[FrozenTrial]
    top: int = TOP

    @cached_property
    def found(self) -> tuple[Found, ...]:
        """What was evaluated to its end, in the order of the numbers."""
        whole = (trial for trial in self.trials if is_evaluated(trial) and trial.state.name == "COMPLETE")
        return tuple(_found(trial) for trial in whole)

    @cached_property
    def best(self) -> tuple[Found, ...]:
        """The front, or as many from all along it as people look at; with one objective, the best."""
        return tuple(self._ranked[: self.top] if len(self.search.objectives) == 1 else evenly(self.front, OF_FRONT))

    @cached_property
    def front(self) -> tuple[Found, ...]:
        """The Pareto front by its primary objective; of candidates that are equally good in all, the first."""
        numbers = set(pareto(self.search, list(self.trials)))
        first: dict[tuple[float, ...], Found] = {}
        for one in self._ranked:
            if one.number in numbers:
                first.setdefault(one.objectives, one)
        return tuple(first.values())

    @cached_property
    def _ranked(self) -> list[Found]:
        signed = [(one.sign, index) for index, one in enumerate(self.search.objectives)]
        return sorted(
            self.found, key=lambda one: (*(-sign * one.objectives[index] for sign, index in signed), one.number)
        )

    @cached_property
    def became(self) -> Counter[str]:
        """How many proposals came to what: see `BECAME`."""
        return Counter(_became(trial) for trial in self.trials)

    @cached_property
    def failures(self) -> tuple[tuple[int, str], ...]:
        """Trials that failed, with the reason."""
        failed = (trial for trial in self.trials if trial.state.name == "FAIL")
        return tuple((trial.number, trial.user_attrs.get("outcome", {}).get("reason", "")) for trial in failed)

    @cached_property
    def importances(self) -> dict[str, dict[str, float]]:
        """By objective, shares of the parameters: see importance.py."""
        return {
            one.name: importances(
                self.trials, {found.number: -one.sign * found.objectives[index] for found in self.found}
            )
            for index, one in enumerate(self.search.objectives)
        }

    @property
    def seconds(self) -> float:
        """That evaluations took, one after another."""
        return sum(float(trial.user_attrs.get("outcome", {}).get("seconds", 0.0)) for trial in self.trials)

    @cached_property
    def environments(self) -> list[dict[str, Any]]:
        """On what it was started, once for every start."""
        try:
            found: list[dict[str, Any]] = json.loads((self.folder.path / ENVIRONMENT).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it is for people; the results stand without it
            return []
        return found

    @cached_property
    def plans(self) -> dict[int, Plan]:
        """The networks of the best, by number, each named after its trial."""
        return {one.number: self.plan(one) for one in self.best}

    def plan(self, found: Found) -> Plan:
        """A candidate's network, as it was evaluated; what was only priced, or taken over, is made from its values."""
        file = self.folder.trial(found.number) / "spec.yaml"
        if file.exists():
            return api.make_plan(load_spec(file))
        plan = self._pricer.of(found.values).plan
        if plan is None:
            raise RunError(f"{self.folder.path}: trial {found.number} is no network any more")
        return api.make_plan(replace(plan.spec, name=f"{self.search.name}_{found.number:05d}"))

    @cached_property
    def _pricer(self) -> Pricer:
        return Pricer(self.search)

    @cached_property
    def base(self) -> Plan:
        """The hand-designed network that the search began with."""
        return self._pricer.base

    def value(self, found: Found, name: str) -> float | None:
        """A cost or an objective of a candidate; costs are whole numbers, which the record's objectives are not."""
        known = dict(zip((one.name for one in self.search.objectives), found.objectives, strict=True))
        return found.costs.get(name, known.get(name))

    @property
    def within(self) -> str:
        """The budgets: `macs <=5M, params <=100k`."""
        return ", ".join(str(budget).replace(": ", " ") for budget in self.search.budgets)


# What proposals came to, in the order of telling, and in words.
BECAME = {
    "done": "evaluated",
    "stopped": "ended early",
    "failed": "failed",
    "running": "under way",
    "taken": "known from another search",
    "refused": "refused unbuilt: over budget, or no network",
    "duplicate": "proposed again",
    "screened": "left out by the prescreen",
}


def _became(trial: FrozenTrial) -> str:
    kind: str = trial.user_attrs["kind"]
    if kind != "evaluated":
        return "running" if kind == "screening" else kind
    return {"COMPLETE": "done", "PRUNED": "stopped", "FAIL": "failed"}.get(trial.state.name, "running")


def _found(trial: FrozenTrial) -> Found:
    said = trial.user_attrs
    return Found(
        number=trial.number,
        values=dict(trial.params),
        objectives=tuple(trial.values),
        costs=said["costs"],
        seconds=said.get("outcome", {}).get("seconds", 0.0),
        taken=said["kind"] == "taken",
        parent=said.get("parent"),
    )


def read_results(folder: Path, *, storage: str = "", top: int = TOP) -> SearchResults:
    """What there is so far. storage: an Optuna URL, where the record is not the folder's journal.

    Raises UsageError for a folder without a search, RunError where its record cannot be read.
    """
    search, trials = read_record(folder, storage)
    return SearchResults(folder=SearchFolder(folder), search=search, trials=trials, top=top)


def heading(name: str) -> str:
    """What a table calls an objective or a cost."""
    return {"accuracy": "accuracy %", "macs": "MACs", "train_memory": "memory"}.get(name, name)


def shown_value(name: str, value: float) -> str:
    """An objective or a cost for people; accuracy in percent, as its heading says."""
    if name == "accuracy":
        return f"{100 * value:.2f}"
    if name == "loss":
        return f"{value:.4f}"
    return f"{value:.5g}" if name == "score" else shown_cost(name, value)


def told(objectives: Sequence[Objective], found: Found) -> str:
    """`accuracy 95.28 %, macs 3.204M`."""
    known = {**dict(zip((one.name for one in objectives), found.objectives, strict=True)), **found.costs}
    return ", ".join(f"{name} {shown_value(name, value)}{' %' * (name == 'accuracy')}" for name, value in known.items())


def tip(results: SearchResults, found: Found) -> str:
    """`trial 7: accuracy 95.28 %, macs 3.204M`."""
    return f"trial {found.number}: {told(results.search.objectives, found)}"


def thinned(results: SearchResults, most: int = SHOWN) -> list[Found]:
    """All candidates, or as many as a picture bears: the best, and others drawn evenly."""
    if len(results.found) <= most:
        return list(results.found)
    best = {one.number for one in results.best}
    others = [one for one in results.found if one.number not in best]
    kept = dice("thinned", len(others)).sample(others, max(0, most - len(best)))
    numbers = best | {one.number for one in kept}
    return [one for one in results.found if one.number in numbers]


def evenly(found: Sequence[Found], most: int) -> list[Found]:
    """The first, the last, and others between."""
    if len(found) <= most or most < 2:
        return list(found[:most])
    return [found[round(index * (len(found) - 1) / (most - 1))] for index in range(most)]
