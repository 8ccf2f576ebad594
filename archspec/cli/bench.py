"""The command that times networks, and predicts their latency from a table of their units."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.options import (
    DeviceOption,
    JsonOption,
    OutsideOption,
    PluginOption,
    SetOption,
    SizeOption,
    load_plugins,
    make_plan,
)
from archspec.errors import UsageError

if TYPE_CHECKING:
    from archspec.latency.report import Row
    from archspec.latency.setting import Setting
    from archspec.latency.table import Table
    from archspec.latency.timing import Effort
    from archspec.plan import Plan

NOTABLE = 0.05  # of a change in the machine's speed


def bench(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="YAML files or shipped networks")],
    batch: Annotated[int | None, typer.Option(min=1, help="images at a time; 1 when left out")] = None,
    sets: SetOption = [],  # noqa: B006  # typer reads the default and never changes it
    size: SizeOption = None,
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="of the CPU; torch's own number if left out")
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="measure each a second time, compiled by torch")] = False,
    train: Annotated[
        bool, typer.Option("--train", help="a training step (forward, backward, AdamW) in place of an evaluation")
    ] = False,
    per_unit: Annotated[
        bool,
        typer.Option("--per-unit", help="measure the units that the latency table does not know yet, and add them"),
    ] = False,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the latency table; one in the user's cache folder if left out")
    ] = None,
    predict: Annotated[bool, typer.Option("--predict", help="predict from the table; run no whole network")] = False,
    repeats: Annotated[int | None, typer.Option(min=1, max=100_000, help="timed runs of each network")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.01, max=3600, help="time for each network in place of a number; 3 if left out")
    ] = None,
    as_json: JsonOption = False,
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
) -> None:
    """Time networks: median and quartiles of whole networks, and what a latency table predicts for them.

    The networks take turns, and each turn begins with a run that is not timed. On a GPU, CUDA events tell the time.

    Latency of a plan is predicted as the sum of its units' times, which --per-unit measures once, each at its place in
    a network. Beside it stands what a straight line through the same units' MACs gives.
    """
    if repeats and seconds:
        raise UsageError("--repeats and --seconds: one of them says how often a network runs")
    if table and not (per_unit or predict):
        raise UsageError(
            f"--table {table}: it goes with --per-unit, which fills a table, or --predict, which reads one"
        )
    if compile_ and predict:
        raise UsageError("--compile: nothing is compiled for --predict; a table's units are not compiled")
    load_plugins(plugin)
    plans = [make_plan(spec, sets, size, allow_outside) for spec in specs]

    from archspec.latency.setting import setting_here
    from archspec.latency.timing import Effort

    setting = setting_here(device=device, threads=threads, mode="train" if train else "eval", batch=batch or 1)
    effort = Effort(seconds=seconds or 3.0, repeats=repeats)
    path = _table_path(setting, table) if per_unit or predict else None
    known: Table | None = None
    if path and not per_unit:
        known = _read(path, threads, train, batch) if table else _read(path, setting.threads, train, setting.batch)
        setting = known.setting
    elif path:
        known = _filled(path, plans, setting, effort)
    rows = _predicted(plans, known) if predict and known else _measured(plans, setting, effort, compile_, known)
    _show(rows, setting, path, as_json)


def _table_path(setting: Setting, given: Path | None) -> Path:
    from archspec.latency.table import default_path

    return given or default_path(setting)


def _read(path: Path, threads: int | None, train: bool, batch: int | None) -> Table:
    """A table to predict from, maybe another machine's; what the arguments say must be what it is of."""
    from archspec.latency.table import read_table, refuse_other

    known = read_table(path)
    wanted = replace(
        known.setting,
        threads=threads or known.setting.threads,
        mode="train" if train else known.setting.mode,
        batch=batch or known.setting.batch,
    )
    refuse_other(path, known.setting, wanted)
    return known


def _filled(path: Path, plans: list[Plan], setting: Setting, effort: Effort) -> Table:
    from archspec.latency.fill import fill, open_table

    known = open_table(path, setting)
    with _progress("units") as progress:
        count = fill(known, plans, effort=effort, path=path, progress=progress)
    typer.echo(f"{path}: {count} units measured, {len(known.units)} known", err=True)
    return known


def _predicted(plans: list[Plan], table: Table) -> list[Row]:
    from archspec.latency.predict import predict, predict_by_macs
    from archspec.latency.report import Row

    return [Row(plan=plan, predicted=predict(plan, table), by_macs=predict_by_macs(plan, table)) for plan in plans]


def _measured(plans: list[Plan], setting: Setting, effort: Effort, compiled: bool, table: Table | None) -> list[Row]:
    from archspec.latency.measure import measure, reference_now
    from archspec.latency.report import Row

    with _progress("networks") as progress:
        done = measure(plans, setting, compile=compiled, effort=effort, progress=progress)
    if table is None:
        return [Row(plan=one.plan, measured=one) for one in done]
    _say_speed(reference_now(setting).median, table)
    predicted = {id(row.plan): row for row in _predicted(plans, table)}
    rows = [(one, predicted[id(one.plan)]) for one in done]
    return [Row(plan=one.plan, measured=one) if one.compiled else replace(row, measured=one) for one, row in rows]


def _say_speed(reference: float, table: Table) -> None:
    """A machine that is slower than it was is no fault of a table's."""
    change = reference / table.reference - 1 if table.reference else 0.0  # of the time for the same work
    if abs(change) > NOTABLE:
        how = "slower" if change > 0 else "faster"
        typer.echo(f"this machine is {100 * abs(change):.0f}% {how} now than when the table was made", err=True)


def _show(rows: list[Row], setting: Setting, path: Path | None, as_json: bool) -> None:
    from archspec.latency.report import as_json as to_object
    from archspec.latency.report import printed
    from archspec.report import console

    if as_json:
        typer.echo(json.dumps(to_object(rows, setting, path), indent=2))
    else:
        screen = console()
        screen.print(str(setting), markup=False)
        screen.print(printed(rows, setting.batch))


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"timing {what}")
        yield lambda done, total: bar.update(task, completed=done, total=total)
