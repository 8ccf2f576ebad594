"""What `archspec ablate` and `archspec report` do: a study is trained, and its tables and pictures are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from archspec.errors import Interrupted, RunError, UsageError
from archspec.files import write_whole
from archspec.training.signals import Interrupts

from ..formats import as_latex, as_markdown
from ..jobs.driver import Stopped, train_cells
from ..jobs.executor import Executor
from ..jobs.job import Circumstances
from ..jobs.store import Result
from .cells import TrainedRow, Training
from .csv_tables import cells_csv, rows_csv
from .live import View
from .pictures import draw_costs, draw_differences
from .result import RESULTS, AblationResult, CellOutcome, RowOutcome, read_result
from .sheet import make_sheet
from .study import Ablation


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a study came to, and what failed, a line each."""

    result: AblationResult
    failures: tuple[str, ...]


def train_study(
    study: Ablation,
    training: Training,
    rows: Sequence[TrainedRow],
    circumstances: Circumstances,
    executor: Executor,
    folder: Path,
    *,
    retries: int = 0,
    console: Console | None = None,
) -> Outcome:
    """Train a study's cells, as far as they are not in the store, and keep the study's folder up to date meanwhile.

    console: for progress; stderr unless said. Raises Interrupted at SIGINT or SIGTERM once all is saved, UsageError
    where the folder holds another study.
    """
    claim(folder, study.name)
    circumstances.store.create()
    trained = [row for row in rows if not row.over_budget]
    # Seed by seed, so that rows can be compared long before the last is done.
    cells = [row.cells[index] for index in range(len(training.seeds)) for row in trained]

    def written(results: Mapping[str, Result]) -> None:
        gathered(study, training, rows, results).write(folder)

    view = View(
        study.name,
        {row.row.name: row.cells for row in trained},
        training.recipe.epochs,
        console=console,
        changed=written,
    )
    written({})
    with Interrupts() as interrupts, executor:
        try:
            with view:
                results = train_cells(
                    cells,
                    circumstances,
                    executor,
                    view,
                    retries=retries,
                    asked=lambda: interrupts.noted is not None,
                )
        except Stopped:
            name = interrupts.noted.name if interrupts.noted else "a signal"
            raise Interrupted(f"{folder}: stopped by {name}; the same command goes on from here") from None
    result = gathered(study, training, rows, results)
    write_report(result, folder)
    return Outcome(result=result, failures=_failures(result))


def claim(folder: Path, name: str) -> None:
    """Make the folder, or find that it is this study's. Raises UsageError if it holds another's results."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot hold a study: {error.strerror} (try another --out)") from error
    if (folder / RESULTS).exists():
        other = read_result(folder).name
        if other != name:
            raise UsageError(f"{folder}: holds the study '{other}' (try another --out)")


def gathered(
    study: Ablation, training: Training, rows: Sequence[TrainedRow], results: Mapping[str, Result]
) -> AblationResult:
    """The study with the results that there are."""
    return AblationResult(
        name=study.name,
        description=study.description,
        source=study.source,
        reference=study.reference,
        columns=study.columns,
        seeds=training.seeds,
        recipe=training.recipe_name,
        data=Path(training.source.name).name,
        rows=tuple(_row(row, results) for row in rows),
    )


def _row(row: TrainedRow, results: Mapping[str, Result]) -> RowOutcome:
    published = row.row.published
    return RowOutcome(
        name=row.row.name,
        note=row.row.note,
        published=published.model_dump(mode="json", exclude_none=True, exclude_defaults=True) if published else {},
        same_as=row.row.same_as,
        over_budget=row.over_budget,
        costs=dict(row.costs),
        cells=tuple(_cell(cell.seed, cell.key, results.get(cell.key)) for cell in row.cells),
    )


def _cell(seed: int, key: str, result: Result | None) -> CellOutcome:
    if result is None:
        return CellOutcome(seed=seed, key=key, status="waiting")
    return CellOutcome(seed=seed, key=key, status=result.status, metrics=dict(result.metrics), reason=result.reason)


def _failures(result: AblationResult) -> tuple[str, ...]:
    return tuple(
        f"{row.name}, seed {cell.seed}: {cell.reason}"
        for row in result.rows
        for cell in row.cells
        if cell.status == "failed"
    )


def refuse_failures(outcome: Outcome, folder: Path) -> None:
    """Raises RunError with what failed, if anything did."""
    if not outcome.failures:
        return
    count = len(outcome.failures)
    lines = "\n".join(f"  {failure}" for failure in outcome.failures)
    raise RunError(
        f"{folder}: {count} cell{'s' * (count > 1)} failed, the table is without "
        f"{'them' if count > 1 else 'it'}; the same command tries again:\n{lines}"
    )


def write_report(result: AblationResult, folder: Path) -> list[Path]:
    """Tables and pictures of a study, and results.json itself; the same result gives the same bytes.

    Raises UsageError where they cannot be written.
    """
    sheet = make_sheet(result)
    files = {
        "table.md": as_markdown(sheet).encode(),
        "table.tex": as_latex(sheet).encode(),
        "table.csv": rows_csv(result).encode(),
        "cells.csv": cells_csv(result).encode(),
        "cost.svg": draw_costs(result),
        "differences.svg": draw_differences(result),
    }
    try:
        result.write(folder)
        for name, data in files.items():
            if data is None:
                (folder / name).unlink(missing_ok=True)  # of an earlier result
            else:
                write_whole(folder / name, data)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from error
    return [folder / RESULTS, *(folder / name for name, data in files.items() if data is not None)]


def report(folder: Path) -> AblationResult:
    """Make the tables and pictures of a study's folder again, from its results alone. Raises UsageError."""
    result = read_result(folder)
    write_report(result, folder)
    return result
