"""The command that searches. It loads `search`, which the core does not know, by name."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from archspec.cli.options import (
    DataRootOption,
    DeviceOption,
    JsonOption,
    OutsideOption,
    PluginOption,
    RayOption,
    WorkersOption,
    load_plugins,
)
from archspec.cli.results import WROTE, show
from archspec.errors import UsageError, nearest

RUNS = Path("runs")
SAMPLERS = ("random", "tpe", "nsga2", "gp", "grid", "evolution")


def search(
    study: Annotated[
        str, typer.Argument(metavar="[STUDY]", help="a YAML file, or a shipped search; left out with --resume")
    ] = "",
    describe: Annotated[
        bool, typer.Option("--describe", help="the space, what of it fits and what it costs; nothing is evaluated")
    ] = False,
    trials: Annotated[
        int | None, typer.Option(min=1, help="candidates to evaluate in all; a larger number goes on")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, help="evaluations at a time, each in its own process; 1, or what --ray has room for"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="runs/NAME when left out")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="go on with the search in this folder, from it alone")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="begin with what another search has found")
    ] = None,
    storage: Annotated[
        str, typer.Option(metavar="URL", help="an Optuna storage for the trials, in place of the folder's journal")
    ] = "",
    take_over: Annotated[
        bool, typer.Option("--take-over", help="with --storage: whoever was at work elsewhere is gone")
    ] = False,
    sampler: Annotated[str, typer.Option(help="in place of the study's: " + ", ".join(SAMPLERS))] = "",
    seed: Annotated[int | None, typer.Option(min=0, help="of the proposals, in place of the study's")] = None,
    ray: RayOption = "",
    cpus_per_trial: Annotated[float, typer.Option(min=0.01, help="with --ray")] = 1.0,
    gpus_per_trial: Annotated[float, typer.Option(min=0.0, help="with --ray; 0.25 lets four trials share one")] = 0.0,
    device: DeviceOption = "auto",
    workers: WorkersOption = 4,
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
    plugin: PluginOption = [],  # noqa: B006  # typer reads the default and never changes it
    allow_outside: OutsideOption = False,
) -> None:
    """Search a space of networks under a budget; a search that was stopped goes on when the command is given again."""
    load_plugins(plugin)
    if bool(study) == bool(resume):
        raise UsageError("a STUDY to search, or --resume FOLDER to go on with one: which?")
    loaded = _overridden(_load(study, resume, allow_outside), trials, sampler, seed)
    if describe:
        _describe(loaded, as_json)
        return
    jobs_module = importlib.import_module("archspec.search.jobs.job")
    folder = importlib.import_module("archspec.search.session.folder").SearchFolder(resume or out or RUNS / loaded.name)
    circumstances = jobs_module.Circumstances(
        store=importlib.import_module("archspec.search.jobs.store").Store(folder.cells),
        data_options={"workers": workers, "root": data_root.resolve() if data_root else None},
        device=device,
        plugins=plugin,
    )
    executor = _executor(jobs, device, ray, cpus_per_trial, gpus_per_trial, warm=bool(loaded.evaluation.finds))
    running = importlib.import_module("archspec.search.session.run")
    outcome = running.run_search(
        loaded, folder, circumstances, executor, storage=storage, take_over=take_over, start_from=start_from
    )
    results = importlib.import_module("archspec.search.results.report").report_search(folder.path, storage=storage)
    if as_json:
        typer.echo(json.dumps(_as_object(loaded, outcome), indent=2))
    else:
        show(importlib.import_module("archspec.search.results.table").best_sheet(results))
        typer.echo(_as_text(loaded, outcome))
    typer.echo(f"wrote {folder.path}: {WROTE}", err=True)


def _load(study: str, resume: Path | None, allow_outside: bool) -> Any:
    if resume:
        return importlib.import_module("archspec.search.session.folder").SearchFolder(resume).load()
    from archspec.loading import SEARCHES

    module = importlib.import_module("archspec.search.study.search")
    return module.load_search(SEARCHES.find(study), allow_outside=allow_outside)


def _overridden(loaded: Any, trials: int | None, sampler: str, seed: int | None) -> Any:
    """The search with what the command line says in place of its file."""
    if sampler and sampler not in SAMPLERS:
        hint = nearest(sampler, SAMPLERS) or f"there are: {', '.join(SAMPLERS)}"
        raise UsageError(f"--sampler {sampler}: is no sampler ({hint})")
    if sampler and sampler != loaded.sampler.type:
        loaded = replace(loaded, sampler=type(loaded.sampler)(type=sampler))
    said = {key: value for key, value in (("trials", trials), ("seed", seed)) if value is not None}
    return replace(loaded, **said)


def _describe(loaded: Any, as_json: bool) -> None:
    from archspec.report import console

    module = importlib.import_module("archspec.search.study.describe")
    found = module.describe(loaded)
    if as_json:
        typer.echo(json.dumps(module.as_object(found), indent=2))
        return
    screen = console()
    for line in module.described(found):
        screen.print(line, markup=False, highlight=False, soft_wrap=isinstance(line, str))


def _executor(jobs: int | None, device: str, ray: str, cpus: float, gpus: float, *, warm: bool) -> Any:
    if ray:
        driver = importlib.import_module("archspec.search.jobs.ray_tune")
        return driver.TuneExecutor(ray, cpus=cpus, gpus=gpus, limit=jobs)
    workers = importlib.import_module("archspec.search.jobs.pool")
    pool = workers.Pool(jobs or 1, gpus=workers.visible_gpus(device))
    if warm:  # they load torch while the search is opened
        pool.warm()
    return pool


def _as_object(loaded: Any, outcome: Any) -> dict[str, Any]:
    best = {"trial": outcome.best[0], loaded.primary.name: outcome.best[1]} if outcome.best else None
    return {
        "folder": str(outcome.folder),
        "proposals": asdict(outcome.tally),
        "best": best,
        "pareto": list(outcome.pareto),
        "exhausted": outcome.exhausted,
        "overhead": outcome.overhead,
        "failures": list(outcome.failures),
    }


def _as_text(loaded: Any, outcome: Any) -> str:
    tally = outcome.tally
    named = {"ended early": tally.stopped, "failed": tally.failed}
    more = "".join(f", {count} {name}" for name, count in named.items() if count)
    besides = f"{tally.refused} refused unbuilt, {tally.duplicates} proposed again"
    lines = [f"{tally.done} evaluated{more}; {besides}: {outcome.folder}"]
    if outcome.best:
        number, value = outcome.best
        lines.append(f"best {loaded.primary.name} {value:.6g}: trial {number}")
    if len(loaded.objectives) > 1:
        lines.append(f"Pareto front: trials {', '.join(map(str, outcome.pareto))}")
    return "\n".join(lines)
