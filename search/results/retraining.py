"""The best of a search trained once more, at full length and over seeds, beside the network that it began with.

It is an ablation whose rows are the base and the best: trained, stored, resumed and shown as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from archspec import api
from archspec.errors import UsageError
from archspec.plan import Plan
from archspec.resolved import fingerprint
from archspec.training.recipe import load_recipe
from archspec.tree import Node

from ..ablation.cells import Training, Wishes, row_costs, training_of
from ..ablation.study import Ablation, Row
from ..study.objectives import CostOnly
from ..study.objectives import Training as Trained
from .results import Found, SearchResults, evenly, told

SEEDS = (0, 1, 2)
TOP = 3
SHOWN = ("activations", "train_memory")  # beside parameters and MACs, where the search speaks of them


def retraining(
    results: SearchResults, wishes: Wishes, *, top: int = TOP, trials: Sequence[int] = (), beside: Sequence[str] = ()
) -> tuple[Ablation, Training]:
    """The study, and how it is trained. top: how many of the best; trials: these instead; beside: more networks.

    Raises UsageError for trials that were not evaluated, or where the search does not say by what to train.
    """
    search, node = results.search, results.search.node.mapping or {}
    rows = [_row(results.base.name, results.base, _over_budget(results), node["base"])]
    for name in beside:
        plan = api.make_plan(name)
        rows.append(_row(plan.name, plan, "", node["base"]))
    for found in chosen(results, top, trials):
        note = f"in the search, {told(search.objectives, found)}"
        rows.append(_row(f"trial {found.number}", results.plan(found), note, node["space"]))
    _refuse_twice(rows)
    study = Ablation(
        name=f"{search.name}_retrained",
        description=f"the best of the search {search.name}, trained at full length",
        source="",
        rows=tuple(_with_twins(rows)),
        reference=rows[0].name,
        recipe=None,
        data=None,
        seeds=SEEDS,
        columns=("params", "macs", *(name for name in SHOWN if name in search.measures), "top1"),
        budgets=(),
        node=search.node,
    )
    return study, training_of(study, results.folder.path, _filled(results, wishes))


def chosen(results: SearchResults, top: int, trials: Sequence[int]) -> list[Found]:
    """The best, from all along a front where there is one; or those that were asked for. Raises UsageError."""
    known = {found.number: found for found in results.found}
    for number in trials:
        if number not in known:
            raise UsageError(f"--trials {number}: is no trial that was evaluated to its end")
    if not known:
        raise UsageError(f"{results.folder.path}: nothing was evaluated to its end yet")
    if trials:
        return [known[number] for number in dict.fromkeys(trials)]
    return list(results.best[:top]) if len(results.search.objectives) == 1 else evenly(results.front, top)


def _row(name: str, plan: Plan, note: str, node: Node) -> Row:
    return Row(name=name, plan=plan, published=None, note=note, node=node)


def _over_budget(results: SearchResults) -> str:
    """The base may be dearer than what was searched for."""
    costs = row_costs(results.base)
    known = [(budget, costs[budget.measure]) for budget in results.search.budgets if budget.measure in costs]
    broken = [budget.explain(cost) for budget, cost in known if not budget.check(cost)]
    return f"the search's base, beyond its budgets: {'; '.join(broken)}" if broken else "the search's base"


def _refuse_twice(rows: Sequence[Row]) -> None:
    names = [row.name for row in rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--beside {twice}: is among the rows already")


def _with_twins(rows: Sequence[Row]) -> list[Row]:
    """A network that is there twice is trained once, and said to be the same."""
    first: dict[str, str] = {}
    found = []
    for row in rows:
        twin = first.setdefault(fingerprint(row.plan.spec), row.name)
        found.append(row if twin == row.name else replace(row, same_as=twin))
    return found


def _filled(results: SearchResults, wishes: Wishes) -> Wishes:
    """What the command line leaves open is as the search has it; the recipe at the length that its own file says."""
    how = results.search.evaluation
    if isinstance(how, CostOnly):
        if not wishes.recipe or not wishes.data:
            raise UsageError(f"{results.folder.path}: nothing was trained there: --recipe and --data say how to")
        return wishes
    return replace(wishes, recipe=wishes.recipe or full_recipe(results), data=wishes.data or how.data)


def full_recipe(results: SearchResults) -> str:
    """The shipped recipe that the search has trained by for some epochs. Raises UsageError where it is none."""
    how, folder = results.search.evaluation, results.folder.path
    if not isinstance(how, Trained):
        raise UsageError(f"{folder}: nothing was trained there: --recipe says by what to")
    try:
        same = load_recipe(how.recipe.name, [f"epochs={how.recipe.epochs}"]).fingerprint() == how.recipe.fingerprint()
    except UsageError:
        same = False
    if not same:
        own = Path(folder, "recipe.yaml")
        raise UsageError(
            f"{folder}: its recipe '{how.recipe.name}' is no shipped one, of which the full length would be known "
            f"(--recipe says by what to train; --recipe {own} --epochs N, by the search's own)"
        )
    return how.recipe.name
