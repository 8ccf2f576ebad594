"""Commands about studies. They load `search`, which the core does not know, by name."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from archspec.cli.options import (
    CellCpusOption,
    CellGpusOption,
    DataRootOption,
    DeviceOption,
    EpochsOption,
    JobsOption,
    JsonOption,
    OutsideOption,
    PluginOption,
    RayOption,
    RecipeSetOption,
    RetriesOption,
    StoreOption,
    WorkersOption,
    load_plugins,
)
from archspec.errors import UsageError

RUNS = Path("runs")
STORE = RUNS / "cells"
MAX_SEEDS = 1_000


def ablate(
    studies: Annotated[
        list[str], typer.Argument(metavar="STUDY...", help="YAML files, or shipped studies such as fcvit_table2")
    ],
    count_only: Annotated[
        bool, typer.Option("--count-only", help="the cost columns alone, nothing is trained")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="every cell with its cost, memory and time; nothing is trained")
    ] = False,
    recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="in place of the study's; a file, or a shipped one")
    ] = "",
    recipe_sets: RecipeSetOption = [],  # noqa: B006
    epochs: EpochsOption = None,
    data: Annotated[str, typer.Option(help="in place of the study's; as `archspec train` takes it")] = "",
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="in place of the study's; 0..4 is five")] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="for tables and pictures; runs/NAME when left out")
    ] = None,
    store: StoreOption = STORE,
    jobs: JobsOption = None,
    ray: RayOption = "",
    cpus_per_cell: CellCpusOption = 1.0,
    gpus_per_cell: CellGpusOption = 0.0,
    retries: RetriesOption = 1,
    device: DeviceOption = "auto",
    workers: WorkersOption = 4,
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
    plugin: PluginOption = [],  # noqa: B006  # typer reads the default and never changes it
    allow_outside: OutsideOption = False,
) -> None:
    """Compare the rows of ablations: train each over seeds, or count what each costs.

    A study that was stopped goes on when the command is given again; cells are never trained twice.
    """
    from archspec.loading import find_study

    if count_only and dry_run:
        raise UsageError("--count-only and --dry-run: one of them")
    if len(studies) > 1 and (out or as_json):
        raise UsageError(f"{'--out' if out else '--json'} is for one study; {len(studies)} are given")
    load_plugins(plugin)
    ablation = importlib.import_module("archspec.search.ablation.study")
    paths = [find_study(name) for name in studies]
    loaded = [ablation.load_ablation(path, allow_outside=allow_outside) for path in paths]
    if count_only:
        _count(loaded)
        return
    short = [f"epochs={epochs}"] if epochs is not None else []
    cells = importlib.import_module("archspec.search.ablation.cells")
    wishes = cells.Wishes(
        recipe=recipe,
        recipe_sets=[*recipe_sets, *short],
        data=data,
        data_options={"workers": workers, "root": data_root.resolve() if data_root else None},
        seeds=parse_seeds(seeds),
        device=device,
        allow_outside=allow_outside,
    )
    machine = Machine(
        store=store, jobs=jobs, ray=ray, cpus=cpus_per_cell, gpus=gpus_per_cell, retries=retries, plugins=plugin
    )
    for path, study in zip(paths, loaded, strict=True):
        training = cells.training_of(study, path, wishes)
        rows = cells.rows_of(study, training, memory=dry_run)
        if dry_run:
            machine.price(study, training, rows, as_json)
        else:
            machine.train(study, training, rows, out or RUNS / study.name, as_json)


def _count(studies: list[Any]) -> None:
    from archspec.report import console

    tables = importlib.import_module("archspec.search.ablation.cost_table")
    screen = console()
    for study in studies:
        screen.print(tables.count_table(study))
        if study.source:
            screen.print(study.source, markup=False)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """On what cells are trained, and where they are kept."""

    store: Path
    jobs: int | None
    ray: str
    cpus: float
    gpus: float
    retries: int
    plugins: list[Path]

    def price(self, study: Any, training: Any, rows: Any, as_json: bool) -> None:
        """Print every cell with what it would take, and the totals."""
        from archspec.report import console

        estimates = importlib.import_module("archspec.search.ablation.estimates")
        table = importlib.import_module("archspec.search.ablation.estimate_table")
        workers = importlib.import_module("archspec.search.jobs.pool")
        store = importlib.import_module("archspec.search.jobs.store").Store(self.store)
        jobs = self.jobs or 1
        found = estimates.estimates(rows, training, store, max(1, workers.cores() // jobs))
        totals = estimates.totals(found, jobs)
        if as_json:
            typer.echo(json.dumps({"cells": [asdict(cell) for cell in found], "totals": asdict(totals)}, indent=2))
        else:
            console().print(table.estimate_table(study.name, found, totals, jobs))

    def train(self, study: Any, training: Any, rows: Any, folder: Path, as_json: bool) -> None:
        """Train what is not trained yet, write tables and pictures, and print the table."""
        from archspec.report import console

        ablate = importlib.import_module("archspec.search.ablation.run")
        jobs = importlib.import_module("archspec.search.jobs.job")
        store = importlib.import_module("archspec.search.jobs.store").Store(self.store)
        circumstances = jobs.Circumstances(
            store=store,
            data_options={name: value for name, value in training.source.options.items() if value is not None},
            device=training.device,
            plugins=self.plugins,
        )
        outcome = ablate.train_study(
            study, training, rows, circumstances, self.executor(training), folder, retries=self.retries
        )
        if as_json:
            typer.echo(outcome.result.model_dump_json(indent=2))
        else:
            console().print(_table(outcome.result))
        typer.echo(f"wrote {folder}: tables as .md, .tex and .csv, pictures as .svg", err=True)
        ablate.refuse_failures(outcome, folder)

    def executor(self, training: Any) -> Any:
        """Processes here, or Ray's."""
        if self.ray:
            module = importlib.import_module("archspec.search.jobs.ray_tune")
            return module.TuneExecutor(self.ray, cpus=self.cpus, gpus=self.gpus, limit=self.jobs)
        workers = importlib.import_module("archspec.search.jobs.pool")
        return workers.Pool(self.jobs or 1, gpus=workers.visible_gpus(training.device))


def _table(result: Any) -> Any:
    formats = importlib.import_module("archspec.search.formats")
    return formats.as_table(importlib.import_module("archspec.search.ablation.sheet").make_sheet(result))


def parse_seeds(text: str, option: str = "--seeds") -> tuple[int, ...]:
    """`0,1,2` or `0..4`, or both; none for empty text. Raises UsageError."""
    found: list[int] = []
    for part in text.split(",") if text else []:
        match = re.fullmatch(r"\s*(\d{1,9})(?:\.\.(\d{1,9}))?\s*", part)
        if match is None:
            raise UsageError(f"{option} {text}: {part!r} is no number, nor a range such as 0..4")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 <= last - first < MAX_SEEDS:
            raise UsageError(f"{option} {text}: {part.strip()} is not a range of 1 to {MAX_SEEDS:,} numbers")
        found += range(first, last + 1)
    if len(set(found)) < len(found):
        raise UsageError(f"{option} {text}: names a number more than once")
    return tuple(found)
