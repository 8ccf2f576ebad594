"""What an ablation came to: one file, results.json, from which every table and picture is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from archspec.errors import UsageError
from archspec.files import write_whole

from .comparison import Difference, Summary, differences, summarize

RESULTS = "results.json"
# Metrics with their headings, and whether more is better; top1 and top5 in percent.
METRICS = {"top1": ("top-1 %", True), "top5": ("top-5 %", True), "loss": ("loss", False)}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CellOutcome(_Model):
    """A row with one seed. key: of its folder in the store. metrics: see jobs/job.py."""

    seed: int
    key: str
    status: Literal["done", "failed", "waiting"]
    metrics: dict[str, float] = {}
    reason: str = ""


class RowOutcome(_Model):
    """A row. costs: by column; bytes and seconds for memory and latency. over_budget: why it was not trained."""

    name: str
    note: str = ""
    published: dict[str, Any] = {}
    same_as: str = ""
    over_budget: tuple[str, ...] = ()
    costs: dict[str, int | float]
    cells: tuple[CellOutcome, ...] = ()

    def values(self, metric: str) -> dict[int, float]:
        """A metric by seed, of the cells that are done."""
        return {cell.seed: cell.metrics[metric] for cell in self.cells if cell.status == "done"}


class AblationResult(_Model):
    """The file. recipe, data: names for people; the cells' keys say exactly what was trained."""

    format: Literal[1] = 1
    study: Literal["ablation"] = "ablation"
    name: str
    description: str = ""
    source: str = ""
    reference: str
    columns: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: str
    data: str
    rows: tuple[RowOutcome, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that the study shows, in its order; top1 unless it says any."""
        return tuple(column for column in self.columns if column in METRICS) or ("top1",)

    @property
    def cost_columns(self) -> tuple[str, ...]:
        """The others."""
        return tuple(column for column in self.columns if column not in METRICS)

    def row(self, name: str) -> RowOutcome:
        """The row of that name. Raises KeyError."""
        return {row.name: row for row in self.rows}[name]

    def summaries(self, metric: str) -> dict[str, Summary]:
        """By row; rows without a value are left out."""
        found = {row.name: list(row.values(metric).values()) for row in self.rows}
        return {name: summarize(values) for name, values in found.items() if values}

    def differences(self, metric: str) -> dict[str, Difference]:
        """By row, to the reference over the seeds that both have. A row that is another's network is no test of its
        own: it has that row's."""
        tested = {row.name: row.values(metric) for row in self.rows if not row.same_as}
        found = differences(tested, self._tested(self.reference))
        twins = {row.name: row.same_as for row in self.rows if row.same_as in found}
        return {**found, **{name: found[twin] for name, twin in twins.items()}}

    def _tested(self, name: str) -> str:
        return self.row(name).same_as or name

    def best(self, metric: str) -> set[str]:
        """The rows with the best mean."""
        means = {name: summary.mean for name, summary in self.summaries(metric).items()}
        if not means:
            return set()
        best = max(means.values()) if METRICS[metric][1] else min(means.values())
        return {name for name, mean in means.items() if mean == best}

    def write(self, folder: Path) -> None:
        """Into a study's folder. Raises OSError."""
        write_whole(folder / RESULTS, (self.model_dump_json(indent=2) + "\n").encode())


def read_result(folder: Path) -> AblationResult:
    """What a study's folder holds. Raises UsageError for a folder without results."""
    try:
        return AblationResult.model_validate_json((folder / RESULTS).read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: holds no study: there is no {RESULTS}") from error
    except (OSError, ValidationError) as error:
        reason = f"{error.errors()[0]['msg']}" if isinstance(error, ValidationError) else error.strerror
        raise UsageError(f"{folder / RESULTS}: cannot be read: {reason}") from error
