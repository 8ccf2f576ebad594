"""Commands about what studies have found. They load `search`, which the core does not know, by name."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

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
from archspec.cli.studies import STORE, Machine, parse_seeds

StorageOption = Annotated[
    str, typer.Option(metavar="URL", help="where a search keeps its trials, if not in the folder's journal")
]
Form = Literal["table", "md", "latex", "csv"]
WROTE = "best/*.yaml, report.html, tables as .md, .tex and .csv, pictures as .svg"  # of a search


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="of a study, such as runs/micro_nommer_table4 or runs/micro_digits")
    ],
    form: Annotated[Form, typer.Option("--format", help="what is printed; all are written")] = "table",
    top: Annotated[int, typer.Option(min=1, help="of a search with one objective: specs in best/")] = 5,
    storage: StorageOption = "",
    as_json: JsonOption = False,
    plugin: PluginOption = [],  # noqa: B006  # typer reads the default and never changes it
) -> None:
    """Make a study's tables and pictures again, of a search also best/*.yaml and a page; nothing is run."""
    load_plugins(plugin)
    folders = importlib.import_module("archspec.search.session.folder")
    if (folder / folders.STUDY).exists():
        _report_search(folder, form, top, storage, as_json)
    else:
        _report_ablation(folder, form, as_json)


def _report_ablation(folder: Path, form: Form, as_json: bool) -> None:
    result = importlib.import_module("archspec.search.ablation.run").report(folder)
    sheet = importlib.import_module("archspec.search.ablation.sheet").make_sheet(result)
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    elif form == "csv":
        typer.echo(importlib.import_module("archspec.search.ablation.csv_tables").rows_csv(result), nl=False)
    else:
        show(sheet, form)
    typer.echo(f"wrote {folder}: tables as .md, .tex and .csv, pictures as .svg", err=True)


def _report_search(folder: Path, form: Form, top: int, storage: str, as_json: bool) -> None:
    module = importlib.import_module("archspec.search.results.report")
    results = module.report_search(folder, storage=storage, top=top)
    tables = importlib.import_module("archspec.search.results.table")
    if as_json:
        typer.echo(json.dumps(module.as_object(results), indent=2))
    elif form == "csv":
        typer.echo(tables.best_csv(results), nl=False)
    else:
        show(tables.best_sheet(results), form)
    typer.echo(f"wrote {folder}: {WROTE}", err=True)


def show(sheet: Any, form: Form = "table") -> None:
    """Print a table."""
    from archspec.report import console

    formats = importlib.import_module("archspec.search.formats")
    if form == "table":
        console().print(formats.as_table(sheet))
    else:
        typer.echo(formats.as_latex(sheet) if form == "latex" else formats.as_markdown(sheet), nl=False)


def retrain(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="of a search, such as runs/micro_digits")],
    top: Annotated[int, typer.Option(min=1, max=1_000, help="how many of the best; of a front, from all along it")] = 3,
    trials: Annotated[str, typer.Option(metavar="7,12", help="these, by their numbers, in place of the best")] = "",
    beside: Annotated[
        list[str], typer.Option(metavar="SPEC", help="one more network to compare with; repeatable")
    ] = [],  # noqa: B006
    recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="a file, or a shipped one; the search's at full length if left out")
    ] = "",
    recipe_sets: RecipeSetOption = [],  # noqa: B006
    epochs: EpochsOption = None,
    data: Annotated[str, typer.Option(help="in place of the search's; as `archspec train` takes it")] = "",
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="0, 1 and 2 if left out; 0..4 is five")] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="for tables and pictures; FOLDER/retrained when left out")
    ] = None,
    store: StoreOption = STORE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="every cell with its cost, memory and time; nothing is trained")
    ] = False,
    jobs: JobsOption = None,
    ray: RayOption = "",
    cpus_per_cell: CellCpusOption = 1.0,
    gpus_per_cell: CellGpusOption = 0.0,
    retries: RetriesOption = 1,
    device: DeviceOption = "auto",
    workers: WorkersOption = 4,
    data_root: DataRootOption = None,
    storage: StorageOption = "",
    as_json: JsonOption = False,
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
) -> None:
    """Train the best of a search again, at full length and over seeds, beside the network that it began with.

    A retraining that was stopped goes on when the command is given again; cells are never trained twice.
    """
    load_plugins(plugin)
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
    module = importlib.import_module("archspec.search.results.report")
    results = importlib.import_module("archspec.search.results.results").read_results(folder, storage=storage, top=top)
    made = importlib.import_module("archspec.search.results.retraining").retraining(
        results, wishes, top=top, trials=parse_seeds(trials, "--trials"), beside=beside
    )
    study, training = made
    rows = cells.rows_of(study, training, memory=dry_run)
    machine = Machine(
        store=store, jobs=jobs, ray=ray, cpus=cpus_per_cell, gpus=gpus_per_cell, retries=retries, plugins=plugin
    )
    if dry_run:
        machine.price(study, training, rows, as_json)
        return
    try:
        machine.train(study, training, rows, out or folder / module.RETRAINED, as_json)
    finally:
        module.report_search(folder, storage=storage)  # whose page shows it
