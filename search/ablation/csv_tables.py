"""An ablation's result as CSV, with all digits."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..formats import as_csv
from .result import AblationResult, RowOutcome


def rows_csv(result: AblationResult) -> str:
    """A line a row, with all digits: costs, their differences, each metric's statistics, and what was published."""
    published = [key for key in ("params", "params_trainable", "macs", "ops", "top1") if _any_published(result, key)]
    lines = []
    for row in result.rows:
        line: dict[str, Any] = {"row": row.name, "reference": int(row.name == result.reference)}
        line |= _cost_entries(result, row)
        for metric in result.metrics:
            line |= _metric_entries(result, row, metric)
        line |= {f"published_{key}": row.published.get(key) for key in published}
        line |= {"same_as": row.same_as, "over_budget": "; ".join(row.over_budget), "note": row.note}
        lines.append(line)
    return as_csv(lines)


def _any_published(result: AblationResult, key: str) -> bool:
    return any(key in row.published for row in result.rows)


def _cost_entries(result: AblationResult, row: RowOutcome) -> dict[str, Any]:
    base = result.row(result.reference).costs
    entries: dict[str, Any] = {}
    for column in result.cost_columns:
        known = column in row.costs and column in base
        entries |= {
            column: row.costs.get(column),
            f"{column}_difference": row.costs[column] - base[column] if known else None,
        }
    return entries


def _metric_entries(result: AblationResult, row: RowOutcome, metric: str) -> dict[str, Any]:
    summary = result.summaries(metric).get(row.name)
    change = None if row.name == result.reference else result.differences(metric).get(row.name)
    said = asdict(summary) if summary else {}
    tested = asdict(change) if change else {}
    return {
        f"{metric}_mean": said.get("mean"),
        f"{metric}_std": said.get("deviation"),
        f"{metric}_seeds": said.get("count", 0),
        f"{metric}_difference": tested.get("mean"),
        **{f"{metric}_{name}": tested.get(name) for name in ("low", "high", "p", "p_corrected")},
    }


def cells_csv(result: AblationResult) -> str:
    """A line a cell: row, seed, how it came out, and where it stands in the store."""
    return as_csv(
        [
            {
                "row": row.name,
                "seed": cell.seed,
                "status": cell.status,
                **{metric: cell.metrics.get(metric) for metric in ("top1", "top5", "loss", "best_top1", "best_epoch")},
                "key": cell.key,
                "reason": cell.reason,
            }
            for row in result.rows
            for cell in row.cells
        ]
    )
