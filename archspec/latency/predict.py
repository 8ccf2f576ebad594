"""The latency of a plan from a table, and from its multiply-accumulates alone.

A prediction is the sum over the plan's units, each as the table has it: of medians, of lower quartiles and of upper
quartiles. The ends of the interval are those of units that are slow or fast together, as they are when the whole
machine is; units that vary on their own would even one another out, and the interval is then wide rather than narrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import LinearRegression, linear_regression

from archspec.cost import unit_cost
from archspec.errors import UsageError
from archspec.latency.table import Table, describe
from archspec.latency.timing import Interval
from archspec.plan import Plan, Step


def missing(plan: Plan, table: Table) -> list[Step]:
    """The first step with each unit that the table does not know."""
    unknown = {step.unit: step for step in reversed(list(plan.steps())) if table.entry(step) is None}
    return list(unknown.values())[::-1]


def predict(plan: Plan, table: Table) -> Interval:
    """Seconds of one call with the table's batch, on its device. Raises UsageError naming units that are unknown."""
    entries = [table.entry(step) for step in plan.steps()]
    known = [entry.seconds for entry in entries if entry]
    if len(known) < len(entries):
        raise UsageError(_unknown(plan.name, missing(plan, table)))
    return sum(known, Interval(0.0, 0.0, 0.0))


def _unknown(name: str, steps: Sequence[Step]) -> str:
    named = [f"{step.name} ({describe(step.unit)}, {step.unit.source})" for step in steps[:3]]
    more = f" and {len(steps) - 3} more" if len(steps) > 3 else ""
    return f"{name}: not in the latency table: {', '.join(named)}{more} (--per-unit measures what is missing)"


@dataclass(frozen=True, slots=True)
class MacsFit:
    """Seconds as intercept + slope * multiply-accumulates (of one image): what a table has to be better than."""

    intercept: float
    slope: float

    def seconds(self, macs: int, count: int = 1) -> float:
        """Of `count` units, or networks, that have so many multiply-accumulates together."""
        return self.intercept * count + self.slope * macs

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, float]]) -> MacsFit:
        """Least squares over (macs, seconds). Where all have the same macs there is no slope."""
        macs, seconds = zip(*pairs, strict=True)
        if len(set(macs)) == 1:
            return cls(sum(seconds) / len(seconds), 0.0)
        line: LinearRegression = linear_regression(macs, seconds)
        return cls(line.intercept, line.slope)


def fit_macs(table: Table) -> MacsFit:
    """The fit over the units of a table. Raises UsageError for a table without units."""
    if not table.units:
        raise UsageError("the latency table is empty (--per-unit fills it)")
    return MacsFit.of((entry.macs, entry.seconds.median) for entry in table.units.values())


def predict_by_macs(plan: Plan, table: Table) -> float:
    """Seconds that a plan would take if each of its units kept to the fit over the table's units."""
    costs = [unit_cost(step.unit).macs for step in plan.steps()]
    return fit_macs(table).seconds(sum(costs), len(costs))
