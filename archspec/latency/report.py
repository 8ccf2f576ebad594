"""What was measured and what was predicted, as a table for people and as one object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table as Printed

from archspec.cost import plan_cost
from archspec.latency.measure import Measurement
from archspec.latency.setting import Setting
from archspec.latency.timing import Interval
from archspec.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A network: measured, or predicted, or both. by_macs: seconds by the fit over the table's units."""

    plan: Plan
    measured: Measurement | None = None
    predicted: Interval | None = None
    by_macs: float | None = None

    @property
    def error(self) -> float | None:
        """By how much the prediction is above what was measured, as a share of that."""
        return self.predicted.median / self.measured.seconds.median - 1 if self.predicted and self.measured else None


def printed(rows: Sequence[Row], batch: int) -> Printed:
    """A line a network; columns without any figure are left out."""
    table = Printed()
    table.add_column("network")
    columns = {
        "run": ["compiled" if row.measured and row.measured.compiled else "" for row in rows],
        "median": [_ms(row.measured.seconds.median) if row.measured else "" for row in rows],
        "quartiles": [_range(row.measured.seconds) if row.measured else "" for row in rows],
        "images/s": [f"{batch / row.measured.seconds.median:.1f}" if row.measured else "" for row in rows],
        "peak memory": [_mib(row.measured.peak_memory) if row.measured else "" for row in rows],
        "predicted": [_ms(row.predicted.median) if row.predicted else "" for row in rows],
        "within": [_range(row.predicted) if row.predicted else "" for row in rows],
        "error": ["" if row.error is None else f"{100 * row.error:+.1f}%" for row in rows],
        "by MACs": ["" if row.by_macs is None else _ms(row.by_macs) for row in rows],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    for name in shown:
        table.add_column(name, justify="right")
    for index, row in enumerate(rows):
        table.add_row(row.plan.name, *(cells[index] for cells in shown.values()))
    return table


def as_json(rows: Sequence[Row], setting: Setting, table: Path | None) -> dict[str, Any]:
    """One object; seconds are of one call with the setting's batch, memory is in bytes."""
    return {**asdict(setting), "table": str(table) if table else None, "networks": [_plain(row) for row in rows]}


def _plain(row: Row) -> dict[str, Any]:
    measured = row.measured
    return {
        "name": row.plan.name,
        "input": [row.plan.source.width, *row.plan.source.grid],
        "macs": plan_cost(row.plan).macs,
        "compiled": measured.compiled if measured else None,
        "runs": measured.runs if measured else None,
        "seconds": asdict(measured.seconds) if measured else None,
        "peak_memory": measured.peak_memory if measured else None,
        "predicted": asdict(row.predicted) if row.predicted else None,
        "error": row.error,
        "predicted_by_macs": row.by_macs,
    }


def _ms(seconds: float) -> str:
    return f"{_number(seconds)} ms"


def _range(seconds: Interval) -> str:
    return f"{_number(seconds.low)}..{_number(seconds.high)}"


def _number(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 0.1 else f"{1000 * seconds:.0f}"


def _mib(amount: int | None) -> str:
    return "" if amount is None else f"{amount / 2**20:.0f} MiB"
