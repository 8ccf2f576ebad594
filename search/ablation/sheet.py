"""An ablation's result as a table."""

from __future__ import annotations

from collections.abc import Iterator

from ..sheet import HEADINGS, Field, Sheet, shown_cost
from .comparison import CONFIDENCE, Difference, Summary
from .result import METRICS, AblationResult, RowOutcome

PUBLISHED = {"params": "params", "params_trainable": "trained", "macs": "MACs", "ops": "ops", "top1": "top-1"}
MINUS = "\N{MINUS SIGN}"


def make_sheet(result: AblationResult) -> Sheet:
    """Costs with their differences, each metric with its own, and what was published."""
    several = len(result.seeds) > 1
    prose = any(row.published for row in result.rows)
    headings = ["", *(HEADINGS[column] for column in result.cost_columns)]
    for metric in result.metrics:
        name = METRICS[metric][0]
        headings += [name, f"Δ {name.removesuffix(' %')}", *(["p"] if several else [])]
    columns = [list(_metric_fields(result, metric, several)) for metric in result.metrics]
    reference = result.row(result.reference)
    rows = []
    for index, row in enumerate(result.rows):
        costs = [Field(_cost(column, row, reference)) for column in result.cost_columns]
        measured = [field for fields in columns for field in fields[index]]
        published = [Field(_published(row))] if prose else []
        rows.append((Field(row.name), *costs, *measured, *published))
    return Sheet(
        name=result.name,
        title=f"{result.name}: {result.description}" if result.description else result.name,
        headings=(*headings, *(["published"] if prose else [])),
        rows=tuple(rows),
        prose=prose,
        notes=tuple(_notes(result)),
    )


def _cost(column: str, row: RowOutcome, reference: RowOutcome) -> str:
    if column not in row.costs:
        return ""
    value = row.costs[column]
    change = value - reference.costs[column]
    if not change:
        return shown_cost(column, value)
    return f"{shown_cost(column, value)} ({MINUS if change < 0 else '+'}{shown_cost(column, abs(change))})"


def _metric_fields(result: AblationResult, metric: str, several: bool) -> Iterator[list[Field]]:
    """For each row: the mean, the difference, and p where there are several seeds."""
    summaries, differences, best = result.summaries(metric), result.differences(metric), result.best(metric)
    for row in result.rows:
        summary = summaries.get(row.name)
        difference = None if row.name == result.reference else differences.get(row.name)
        mean = Field(_mean(metric, summary, len(result.seeds)) if summary else _without(row), row.name in best)
        yield [mean, Field(_change(metric, difference)), *([Field(_p(difference))] if several else [])]


def _without(row: RowOutcome) -> str:
    if row.over_budget:
        return "over budget"
    return "failed" if any(cell.status == "failed" for cell in row.cells) else ""


def _mean(metric: str, summary: Summary, seeds: int) -> str:
    deviation = f" ± {_number(metric, summary.deviation)}" if summary.deviation is not None else ""
    some = f" ({summary.count} of {seeds} seeds)" if summary.count < seeds else ""
    return f"{_number(metric, summary.mean)}{deviation}{some}"


def _number(metric: str, value: float) -> str:
    return f"{value:.4f}" if metric == "loss" else f"{value:.2f}"


def _signed(metric: str, value: float) -> str:
    shown = _number(metric, abs(value))
    return shown if not float(shown) else f"{MINUS if value < 0 else '+'}{shown}"


def _change(metric: str, difference: Difference | None) -> str:
    if difference is None:
        return ""
    mean = _signed(metric, difference.mean)
    if difference.low is None or difference.high is None:
        return mean
    return f"{mean} [{_signed(metric, difference.low)}, {_signed(metric, difference.high)}]"


def _p(difference: Difference | None) -> str:
    if difference is None or difference.p_corrected is None:
        return ""
    return "<0.001" if difference.p_corrected < 0.001 else f"{difference.p_corrected:.3f}"


def _published(row: RowOutcome) -> str:
    return ", ".join(f"{name} {row.published[key]}" for key, name in PUBLISHED.items() if key in row.published)


def _notes(result: AblationResult) -> Iterator[str]:
    seeds = ", ".join(map(str, result.seeds))
    trained = f"Recipe {result.recipe}, data {result.data}"
    if len(result.seeds) == 1:
        yield f"{trained}, seed {seeds}. Δ: the difference to {_quoted(result.reference)}."
    else:
        tests = max((len(_tested(result, metric)) for metric in result.metrics), default=0)
        yield f"{trained}. Mean ± standard deviation over the seeds {seeds}."
        yield (
            f"Δ: the mean difference to {_quoted(result.reference)} over the same seeds, with the {CONFIDENCE:.0%} "
            f"interval of each difference alone; p: paired t-test, by Holm's correction for {tests} "
            f"row{'s' * (tests != 1)}; none where the differences do not vary."
        )
    for row in result.rows:
        yield from _row_notes(row)
    if result.source:
        yield f"{result.source[:1].upper()}{result.source[1:]}."


def _tested(result: AblationResult, metric: str) -> list[str]:
    return [name for name in result.differences(metric) if not result.row(name).same_as]


def _row_notes(row: RowOutcome) -> Iterator[str]:
    if row.note:
        yield f"{row.name}: {row.note}."
    if row.same_as:
        yield f"{row.name}: the same network as {_quoted(row.same_as)}."
    if row.over_budget:
        yield f"{row.name}: over budget and not trained: {'; '.join(row.over_budget)}."
    for cell in row.cells:
        if cell.status == "failed":
            yield f"{row.name}, seed {cell.seed}: failed: {cell.reason}."
        elif cell.status == "waiting" and not row.over_budget:
            yield f"{row.name}, seed {cell.seed}: not trained yet."


def _quoted(name: str) -> str:
    return f"“{name}”"
