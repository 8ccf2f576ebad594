"""Fill a table: the units of plans that it does not know are timed, in chains of those plans."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from archspec.cost import unit_cost
from archspec.latency.predict import missing
from archspec.latency.runs import Chain, Reference
from archspec.latency.setting import Setting, applied
from archspec.latency.table import Entry, Table, describe, read_table, refuse_other, unit_key, write_table
from archspec.latency.timing import TOGETHER, Clock, Effort, Run, Span, Subject, clock_of, summary, take_turns
from archspec.plan import Plan, Step

Progress = Callable[[int, int], None]


def open_table(path: Path, setting: Setting) -> Table:
    """The table in a file, or an empty one where there is none. Raises UsageError for a table of another setting."""
    if not path.exists():
        return Table(setting=setting)
    table = read_table(path)
    refuse_other(path, table.setting, setting)
    return table


def fill(
    table: Table,
    plans: Iterable[Plan],
    *,
    effort: Effort = Effort(),  # noqa: B008  # frozen
    path: Path | None = None,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> int:
    """Measure the units of `plans` that the table does not know; returns how many. `path`: written as it goes on.

    Raises RunError where a network does not run, UsageError where the file cannot be written.
    """
    before = len(table.units)
    chosen = _covering(plans, table)
    with applied(table.setting):
        for first in range(0, len(chosen), TOGETHER):
            chains = [Chain(plan, table.setting) for plan in chosen[first : first + TOGETHER]]
            subjects: list[tuple[Subject, Effort]] = [(chain, effort) for chain in chains]
            subjects.insert(0, (Reference(table.setting), Reference.EFFORT))
            reference, *runs = take_turns(subjects, clock or clock_of(table.setting), progress)
            record(table, list(zip(chains, runs, strict=True)), reference)
            if path:
                write_table(path, table)
    return len(table.units) - before


def record(table: Table, timed: Sequence[tuple[Chain, Sequence[Run]]], reference: Sequence[Run]) -> None:
    """Add what chains have shown: the units that are new, each with all its runs at all its places."""
    spans: dict[str, list[Span]] = defaultdict(list)
    steps: dict[str, Step] = {}
    for chain, runs in timed:
        for index, step in enumerate(chain.plan.steps()):
            key = unit_key(step, table.setting.mode)
            if key not in table.units:
                steps[key] = step
                spans[key] += [run[index] for run in runs]
    found = {key: _entry(steps[key], taken) for key, taken in spans.items()}
    table.add(found, summary([run[0] for run in reference]).median)


def _entry(step: Step, spans: Sequence[Span]) -> Entry:
    unit = step.unit
    return Entry(
        unit=describe(unit),
        source=str(unit.source),
        macs=unit_cost(unit).macs,
        runs=len(spans),
        seconds=summary(spans),
    )


def _covering(plans: Iterable[Plan], table: Table) -> list[Plan]:
    """Those of the plans, in order, that have a unit which neither the table nor a plan before them has."""
    covered: set[str] = set()
    chosen = []
    for plan in plans:
        wanted = {unit_key(step, table.setting.mode) for step in missing(plan, table)}
        if wanted - covered:
            chosen.append(plan)
            covered |= wanted
    return chosen
