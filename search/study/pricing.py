"""What a candidate costs, and by how much it misses the budgets, in microseconds and before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING

from archspec.errors import ArchspecError
from archspec.plan import Plan
from archspec.variants import Variants

from ..budgets import Budget, Measure
from ..space.space import Candidate, Patches, Replay
from .search import Search

if TYPE_CHECKING:
    from archspec.latency.table import Table

COUNTED: tuple[Measure, ...] = ("params", "macs", "activations")
DEARER: tuple[Measure, ...] = ("train_memory", "latency")  # asked for where the others are kept
VALID = "valid"  # the name of the constraint that a candidate is a network, and keeps the study's own constraints


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of a candidate. costs: by measure, in ones, bytes or seconds; those that budgets or objectives name.

    excess: by budget, how far beyond it the cost is as a share of the limit, 0 or less within; and VALID, 1 for what is
    no network or breaks a constraint. reason: why the candidate is refused, empty where it fits. plan: None for what is
    no network.
    """

    plan: Plan | None = field(repr=False)
    costs: Mapping[str, float]
    excess: Mapping[str, float]
    reason: str

    @property
    def fits(self) -> bool:
        """Whether the candidate may be evaluated."""
        return not self.reason

    @property
    def violation(self) -> float:
        """How much there is of all excess; 0 for what fits."""
        return sum(max(0.0, value) for value in self.excess.values())


class Pricer:
    """Prices candidates of a search; what they share is read, checked and counted once.

    measures: units that the latency table does not know are timed on this machine, and added to its file; else the
    latency of their networks stays unknown.
    """

    def __init__(self, search: Search, *, measures: bool = True) -> None:
        self.search, self.measures = search, measures
        self.variants = Variants(search.base)
        self._names = (VALID, *(budget.measure for budget in search.budgets))

    @property
    def base(self) -> Plan:
        """The network that candidates change. Raises SpecError where it is none by itself."""
        return self.variants.plan([])

    def price(self, patches: Patches) -> Price:
        """The price of the network that the patches make. Raises CountError for an operation that is not counted,
        UsageError where latency has to be measured and cannot be."""
        try:
            if self.search.space.constraints:
                broken = self.search.space.violated(self.variants.tree(patches))
                if broken is not None:
                    return self._refused(f"breaks {broken.expression.text}")
            plan = self.variants.plan(patches)
            costs = self._counted(plan)
        except ArchspecError as error:
            if error.exit_code == 1:  # a bug, or a block that is not counted: no fault of the candidate's
                raise
            return self._refused(str(error).partition("\n")[0])
        excess = self._excess(costs)
        if all(value <= 0 for value in excess.values()):
            costs |= self._dearer(plan)
            excess = self._excess(costs)
        return Price(plan=plan, costs=costs, excess=excess, reason=self._reason(costs))

    def of(self, candidate: Candidate) -> Price:
        """The price of a candidate by its values."""
        return self.price(self.search.space.draw(Replay(candidate))[1])

    def _refused(self, reason: str) -> Price:
        return Price(plan=None, costs={}, excess={**dict.fromkeys(self._names, 0.0), VALID: 1.0}, reason=reason)

    def _counted(self, plan: Plan) -> dict[str, float]:
        from archspec.cost import plan_cost

        wanted = [measure for measure in COUNTED if measure in self.search.measures]
        if not wanted:
            return {}
        cost = plan_cost(plan)
        return {measure: getattr(cost, measure) for measure in wanted}

    def _dearer(self, plan: Plan) -> dict[str, float]:
        """Training memory, and the median of what the table predicts."""
        costs: dict[str, float] = {}
        if "train_memory" in self.search.measures:
            from archspec.memory import training_memory

            costs["train_memory"] = training_memory(plan, **self.search.memory.model_dump()).total
        if self._table is not None:
            from archspec.latency.predict import missing, predict

            if missing(plan, self._table) and self.measures:
                self._measure(plan, self._table)
            if not missing(plan, self._table):
                costs["latency"] = predict(plan, self._table).median
        return costs

    def _measure(self, plan: Plan, table: Table) -> None:
        """Raises UsageError where the table is of another machine, or cannot be written."""
        from archspec.latency.fill import fill
        from archspec.latency.setting import setting_here
        from archspec.latency.table import refuse_other
        from archspec.latency.timing import Effort

        own, path = table.setting, self.search.latency_table
        assert path is not None, "there is no table without a file"
        here = setting_here(device=own.device, threads=own.threads, mode=own.mode, batch=own.batch)
        refuse_other(path, own, here)
        fill(table, [plan], effort=Effort(seconds=1.0), path=path)

    @cached_property
    def _table(self) -> Table | None:
        if "latency" not in self.search.measures or self.search.latency_table is None:
            return None
        from archspec.latency.table import read_table

        return read_table(self.search.latency_table)

    def _excess(self, costs: Mapping[str, float]) -> dict[str, float]:
        """What is not known counts as kept."""
        known = [one for one in self.search.budgets if one.measure in costs]
        over: dict[str, float] = {one.measure: excess(one, costs[one.measure]) for one in known}
        return {**dict.fromkeys(self._names, 0.0), **over}

    def _reason(self, costs: Mapping[str, float]) -> str:
        broken: Iterable[Budget] = (
            one for one in self.search.budgets if one.measure in costs and not one.check(costs[one.measure])
        )
        return "; ".join(one.explain(costs[one.measure]) for one in broken)


def excess(budget: Budget, value: float) -> float:
    """By what share of its limit a value misses a budget; 0 or less within it, and more than 0 outside."""
    over = value / float(budget.highest.value) - 1 if budget.highest and budget.highest.value else -1.0
    under = 1 - value / float(budget.lowest.value) if budget.lowest and budget.lowest.value else -1.0
    most = max(over, under)
    if budget.check(value):
        return min(most, 0.0)  # floats may round what is exactly at the limit to either side
    return max(most, float(Decimal("1e-9")))
