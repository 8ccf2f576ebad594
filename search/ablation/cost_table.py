"""The cost columns of an ablation: what each row costs, by how much it differs, and what the publication prints."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from archspec import api
from archspec.cost import Cost
from archspec.quantities import humanize
from archspec.report import FIGURES, compare

from ..sheet import COUNTED
from .study import Ablation, Row

DIFFERENCES = ("params", "macs")


def count_table(study: Ablation) -> Table:
    """The study's cost columns, with the differences of parameters and MACs to the reference row."""
    title = f"{study.name}: {study.description}" if study.description else study.name
    table = Table(title=escape(title), title_justify="left")
    table.add_column("row", overflow="fold")
    counted = [column for column in study.columns if column in COUNTED]
    compared = [column for column in DIFFERENCES if column in counted]
    for heading in [*(COUNTED[column] for column in counted), *(f"Δ {COUNTED[column]}" for column in compared)]:
        table.add_column(heading, justify="right")
    table.add_column("published", overflow="fold")
    costs = {row.name: api.count(row.plan) for row in study.rows}
    reference = costs[study.reference]
    for row in study.rows:
        cost = costs[row.name]
        figures = [humanize(getattr(cost, column)) for column in counted]
        differences = [_difference(getattr(cost, column) - getattr(reference, column)) for column in compared]
        table.add_row(escape(row.name), *figures, *differences, escape("\n".join(_beside(study, row, cost))))
    return table


def _difference(amount: int) -> str:
    return f"{'-' if amount < 0 else '+'}{humanize(abs(amount))}" if amount else ""


def _beside(study: Ablation, row: Row, cost: Cost) -> list[str]:
    """The published figures of a row, each with ours in its unit, and what else there is to say."""
    lines = []
    for key in FIGURES if row.published else ():
        text = getattr(row.published, key)
        if text is not None and row.published:
            rounding: Any = "truncated" if key in row.published.truncated else "rounded"
            lines.append(f"{key} {compare(text, getattr(cost, key), rounding)}")
    if row.published and row.published.top1 is not None:
        lines.append(f"top-1 {row.published.top1} %")
    same = [f"the same network as '{row.same_as}'"] if row.same_as else []
    return [*lines, *([row.note] if row.note else []), *same, *over_budget(study, cost)]


def over_budget(study: Ablation, cost: Cost) -> list[str]:
    """Which of the study's budgets a network breaks, of those that a count can tell."""
    known = {budget: getattr(cost, budget.measure) for budget in study.budgets if budget.measure in COUNTED}
    return [f"over budget: {budget.explain(value)}" for budget, value in known.items() if not budget.check(value)]
