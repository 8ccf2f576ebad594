"""The best of a search as a table and as specs, and all of its trials as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import archspec
from archspec import api, resolved

from ..formats import as_csv
from ..sheet import Field, Sheet
from ..study.objectives import Scoring, Training
from .results import Found, SearchResults, heading, shown_value, told

COUNTED = ("params", "macs")  # of every network, whether or not the study asked for them


def best_sheet(results: SearchResults) -> Sheet:
    """The best by rank: trial, objectives, costs; the best of each objective is bold."""
    names = [*(one.name for one in results.search.objectives), *_cost_names(results)]
    rows = []
    for rank, one in enumerate(results.best, start=1):
        fields = [Field(shown_value(name, value), _is_best(results, name, value)) for name, value in _row(results, one)]
        rows.append((Field(str(rank)), Field(str(one.number)), *fields))
    described = f": {results.search.description}" if results.search.description else ""
    return Sheet(
        name=results.search.name,
        title=f"{results.search.name}{described}",
        headings=("", "trial", *map(heading, names)),
        rows=tuple(rows),
        prose=False,
        notes=tuple(_notes(results)),
    )


def _cost_names(results: SearchResults) -> list[str]:
    """Costs that are no objectives: what is always counted, then what budgets speak of."""
    taken = {one.name for one in results.search.objectives}
    known = [name for one in results.best[:1] for name in one.costs]
    return [name for name in dict.fromkeys([*COUNTED, *known]) if name not in taken]


def _row(results: SearchResults, one: Found) -> Iterator[tuple[str, float]]:
    cost = api.count(results.plans[one.number])
    for name in (*(objective.name for objective in results.search.objectives), *_cost_names(results)):
        value = results.value(one, name)
        yield name, getattr(cost, name) if value is None else value


def _is_best(results: SearchResults, name: str, value: float) -> bool:
    for index, objective in enumerate(results.search.objectives):
        if objective.name == name:
            signed = [objective.sign * one.objectives[index] for one in results.best]
            return objective.sign * value == max(signed)
    return False


def _notes(results: SearchResults) -> Iterator[str]:
    search = results.search
    aims = " and ".join(f"{one.direction} {one.name}" for one in search.objectives)
    within = f", within {results.within}" if search.budgets else ""
    what = "The Pareto front" if len(search.objectives) > 1 else f"The best {len(results.best)}"
    if len(search.objectives) > 1 and len(results.best) < len(results.front):
        what = f"{len(results.best)} of the {len(results.front):,} on the Pareto front, from all along it,"
    yield f"{what} of {len(results.found)} candidates that were evaluated to their end: {aims}{within}."
    yield f"{_evaluated(results)}. Candidates were proposed by {search.sampler.type}, seed {search.seed}."


def _evaluated(results: SearchResults) -> str:
    how = results.search.evaluation
    if isinstance(how, Training):
        recipe = f"recipe {how.recipe.name}, {how.recipe.epochs} epoch{'s' * (how.recipe.epochs > 1)}"
        return f"Trained once, by {recipe}, seed {how.seed}: small differences may be chance (`archspec retrain` tells)"
    if isinstance(how, Scoring):
        return f"Scored by {how.score} without training, on {how.batch} images, seed {how.seed}"
    return "Priced, not evaluated"


def best_csv(results: SearchResults) -> str:
    """A line for each of the best, with all digits: trial, objectives, costs, and the values of the space."""
    parameters = list(dict.fromkeys(name for one in results.best for name in one.values))
    lines = [
        {
            "rank": rank,
            "trial": one.number,
            **dict(_row(results, one)),
            **{name: one.values.get(name, "") for name in parameters},
        }
        for rank, one in enumerate(results.best, start=1)
    ]
    return as_csv(lines, ["rank", "trial", *[one.name for one in results.search.objectives]])


def trials_csv(results: SearchResults) -> str:
    """A line for each proposal: what became of it, objectives, costs, values, and why it was refused or failed."""
    objectives = [one.name for one in results.search.objectives]
    found = {one.number: one for one in results.found}
    costs = list(dict.fromkeys(name for trial in results.trials for name in trial.user_attrs["costs"]))
    parameters = list(dict.fromkeys(name for trial in results.trials for name in trial.params))
    lines = []
    for trial in results.trials:
        said = trial.user_attrs
        outcome = said.get("outcome", {})
        one = found.get(trial.number)
        values = {name: results.value(one, name) for name in objectives} if one else {}
        lines.append(
            {
                "trial": trial.number,
                "kind": said["kind"],
                "state": trial.state.name.lower(),
                **{name: values.get(name, "") for name in objectives},
                **{name: said["costs"].get(name, "") for name in costs},
                "seconds": outcome.get("seconds", ""),
                "plan": said.get("plan", ""),
                "same_as": said.get("same_as", ""),
                "reason": said.get("reason") or outcome.get("reason", ""),
                **{name: trial.params.get(name, "") for name in parameters},
            }
        )
    return as_csv(lines, ["trial", "kind", "state", *objectives])


def best_specs(results: SearchResults) -> dict[str, str]:
    """Full specs of the best, which every command takes as they are, by the names of their files."""
    named = zip(spec_names(results), results.best, strict=True)
    return {name: _spec(results, one, rank) for rank, (name, one) in enumerate(named, start=1)}


def spec_names(results: SearchResults) -> list[str]:
    """The files of the best, which sort by rank."""
    digits = max(2, len(str(len(results.best))))
    return [f"{rank:0{digits}d}_trial{one.number}.yaml" for rank, one in enumerate(results.best, start=1)]


def _spec(results: SearchResults, one: Found, rank: int) -> str:
    search = results.search
    figures = told(search.objectives, one)
    spec = replace(
        results.plans[one.number].spec,
        description=f"Trial {one.number} of the search {search.name}: {figures}",
        published=None,
    )
    lines = [*_lineage(results, one, rank, figures), resolved.to_yaml(spec)]
    return "\n".join(lines)


def _lineage(results: SearchResults, one: Found, rank: int, figures: str) -> Iterator[str]:
    search = results.search
    what = "on the Pareto front" if len(search.objectives) > 1 else f"of the best {len(results.best)}"
    yield f"# Number {rank} {what} of the search {_line(search.name)}: trial {one.number}."
    yield f"# {_line(figures)}"
    if search.budgets:
        yield f"# within {_line(results.within)}"
    yield f"# {_line(_evaluated(results))}."
    came = f"made from trial {one.parent}" if one.parent is not None else f"proposed by {search.sampler.type}"
    known = "; evaluated by another search" if one.taken else ""
    base = _line(results.base.name)
    yield f"# {came}, seed {search.seed}, over the base {base}{known}; archspec {archspec.__version__}"
    yield "# values:"
    for name, value in one.values.items():
        yield f"#   {_line(name)}: {_line(str(value))}"


def _line(text: str) -> str:
    """Nothing in it ends the comment."""
    return " ".join(text.split())
