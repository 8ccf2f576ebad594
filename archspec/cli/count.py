"""The command that counts: many networks in one table, other tools' counters beside ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from archspec.cli.options import (
    JsonOption,
    NoCacheOption,
    OutsideOption,
    PluginOption,
    SetOption,
    load_plugins,
    make_plan,
)
from archspec.errors import ArchspecError, UsageError

if TYPE_CHECKING:
    from archspec.count_table import Group, Settings, Subject
    from archspec.counters import Seen
    from archspec.plan import Plan

TOOLS: tuple[Literal["fvcore", "torch"], ...] = ("fvcore", "torch")


def count(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="YAML files or shipped networks")],
    sizes: Annotated[
        list[str], typer.Option("--size", metavar="N|HxW", help="another input size in pixels; repeatable")
    ] = [],  # noqa: B006  # typer reads the default and never changes it
    batches: Annotated[
        list[int], typer.Option("--batch", min=1, metavar="N", help="images at a time, for memory; repeatable")
    ] = [1],  # noqa: B006
    sets: SetOption = [],  # noqa: B006
    per: Annotated[Literal["stage", "unit"] | None, typer.Option(help="a row a stage or a unit, with shares")] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="smallest first; -COLUMN, such as -macs, is largest first")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="which columns, in which order; they are listed below")
    ] = None,
    form: Annotated[
        Literal["text", "json", "csv", "markdown"],
        typer.Option("--format", help="json and csv are exact, text and markdown rounded"),
    ] = "text",
    as_json: JsonOption = False,
    counters: Annotated[
        list[str],
        typer.Option("--counter", metavar="fvcore|torch", help="what another tool counts, beside ours; repeatable"),
    ] = [],  # noqa: B006
    unfused: Annotated[
        bool, typer.Option("--unfused", help="write attention out as two products for the other tools")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="say why totals differ: other tools' and the publication's")
    ] = False,
    optimizer: Annotated[Literal["adamw", "sgd"], typer.Option(help="of training memory")] = "adamw",
    precision: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="of memory; bf16 is autocast, weights stay fp32")
    ] = "fp32",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="training memory with gradient checkpointing")
    ] = False,
    ema: Annotated[bool, typer.Option("--ema", help="training memory with a moving average of the weights")] = False,
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
    no_cache: NoCacheOption = False,
) -> None:
    """Count networks: parameters, MACs, activations and memory of many specs, sizes and batches in one table.

    Columns: name, size, batch, unit, parts, shape, params, params_trainable, params_share, macs, macs_share, flops
    (2 x macs), ops (macs, norms, pooling and sampling), activations, train_memory, inference_memory, fvcore, torch.
    macs, flops and ops are of one image; activations and bytes of memory are of the batch, and so are the figures of
    fvcore and torch, which run the built network on the CPU, as their users would.

    A spec that is wrong is told on stderr, and the table has the others; the exit code is 2 then.
    """
    from archspec.count_table import Settings, default_columns, find_column, ordered

    load_plugins(plugin)
    _check(form, as_json, counters, unfused)
    chosen = [find_column(name.strip()) for name in columns.split(",")] if columns else default_columns(per)
    shown = list(dict.fromkeys([*chosen, *counters]))
    needed = [*shown, *([find_column(sort.removeprefix("-"))] if sort else [])]
    settings = Settings(precision=precision, optimizer=optimizer, checkpointing=checkpointing, ema=ema)
    asked = _Asked(
        columns=shown,
        needed=needed,
        per=per,
        batches=batches,
        tools=[tool for tool in TOOLS if tool in (*counters, *needed)],
        unfused=unfused,
        settings=settings,
    )
    failures: list[ArchspecError] = []
    groups = [
        group
        for plan in _plans(specs, sets, sizes, allow_outside, failures)
        for group in _groups(plan, asked, failures)
    ]
    if groups:
        groups = ordered(groups, sort)
        explained = _explained([group.total for group in groups], patched=bool(sets or sizes)) if explain else []
        _print("json" if as_json else form, groups, asked, explained)
    _fail(failures)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the options ask for. needed: the columns to work out, those shown and that which sorts."""

    columns: list[str]
    needed: list[str]
    per: Literal["stage", "unit"] | None
    batches: list[int]
    tools: list[Literal["fvcore", "torch"]]
    unfused: bool
    settings: Settings


def _check(form: str, as_json: bool, counters: list[str], unfused: bool) -> None:
    """Raises UsageError for options that contradict each other."""
    for tool in counters:
        if tool not in TOOLS:
            raise UsageError(f"--counter {tool}: there are {' and '.join(TOOLS)}")
    if unfused and not counters:
        raise UsageError("--unfused is for other tools: add --counter fvcore or --counter torch")
    if as_json and form not in ("text", "json"):
        raise UsageError(f"--json and --format {form} contradict each other")


def _plans(
    specs: list[str], sets: list[str], sizes: list[str], allow_outside: bool, failures: list[ArchspecError]
) -> Iterator[Plan]:
    """Every spec at every size; what is wrong with one is put down, and the others go on."""
    every_size: list[str | None] = [*sizes] or [None]
    for spec, size in product(specs, every_size):
        try:
            yield make_plan(spec, sets, size, allow_outside)
        except ArchspecError as error:
            failures.append(error)


def _groups(plan: Plan, asked: _Asked, failures: list[ArchspecError]) -> Iterator[Group]:
    """The rows of a plan at every batch."""
    from archspec.count_table import make_group

    try:
        seen = _seen(plan, asked)
        for batch in asked.batches:
            yield make_group(plan, batch, asked.settings, asked.needed, per=asked.per, seen=seen[batch])
    except ArchspecError as error:
        failures.append(error)


def _seen(plan: Plan, asked: _Asked) -> dict[int, list[Seen]]:
    """What other tools say, by batch."""
    if not asked.tools:
        return {batch: [] for batch in asked.batches}
    from archspec import api
    from archspec.counters import ask

    network = api.build(plan)
    height, width = plan.source.grid
    typer.echo(f"counting {plan.name} at {height}x{width} with {' and '.join(asked.tools)}", err=True)
    seen = {
        batch: [ask(tool, network, batch, unfused=asked.unfused) for tool in asked.tools] for batch in asked.batches
    }
    for answer in (answer for answers in seen.values() for answer in answers if answer.failure):
        typer.echo(f"{answer.tool} fails on {plan.name}: {answer.failure}", err=True)
    return seen


def _explained(totals: list[Subject], *, patched: bool) -> list[dict[str, Any]]:
    """Why totals differ: an object a network, all its batches in it, with the same in sentences under `lines`.

    patched: it is no longer the network that was published.
    """
    from archspec.cost import plan_cost
    from archspec.count_reasons import explain, explain_published, remarks

    plans = dict.fromkeys(row.plan for row in totals)
    found = {
        plan: [explain(plan, seen, row.batch) for row in totals if row.plan == plan for seen in row.seen.values()]
        for plan in plans
    }
    return [
        {
            "name": plan.name,
            "size": list(plan.source.grid),
            "macs": plan_cost(plan).macs,
            "counters": [explanation.as_json() for explanation in explanations],
            "remarks": [*remarks(plan), *(() if patched else explain_published(plan))],
            "lines": [line for explanation in explanations for line in explanation.lines()],
        }
        for plan, explanations in found.items()
    ]


def _lines(explained: Iterable[dict[str, Any]]) -> Iterator[str]:
    for of in explained:
        height, width = of["size"]
        yield f"{of['name']} at {height}x{width}: archspec counts {of['macs']:,} MACs for one image"
        yield from (f"  {line}" for line in (*of["lines"], *of["remarks"]))


def _print(form: str, groups: list[Group], asked: _Asked, explained: list[dict[str, Any]]) -> None:
    from archspec.count_table import csv_text, markdown_text, text_table

    if form == "json":
        typer.echo(json.dumps(_as_json(groups, asked, explained), indent=2))
    elif form == "csv":
        typer.echo(csv_text(groups, asked.columns), nl=False)
        for line in _lines(explained):
            typer.echo(line, err=True)
    elif form == "markdown":
        typer.echo(markdown_text(groups, asked.columns, asked.settings), nl=False)
        if explained:
            typer.echo("\n".join(["", "```text", *_lines(explained), "```"]))
    else:
        from rich.console import Console

        screen = Console(width=None if sys.stdout.isatty() else 1000, highlight=False)  # a pipe is as wide as it takes
        screen.print(text_table(groups, asked.columns, asked.settings))
        for line in _lines(explained):
            typer.echo(line)


def _as_json(groups: list[Group], asked: _Asked, explained: list[dict[str, Any]]) -> dict[str, Any]:
    from archspec.count_table import all_rows

    rows = [{name: row[name] for name in asked.columns} for row in all_rows(groups)]
    result: dict[str, Any] = {"memory": asdict(asked.settings), "rows": rows}
    if explained:
        result["explanations"] = [{key: value for key, value in of.items() if key != "lines"} for of in explained]
    return result


def _fail(failures: list[ArchspecError]) -> None:
    """Tell of every failure, and leave with the code of a user's mistake if one of them is."""
    for message in dict.fromkeys(str(failure) for failure in failures):
        typer.echo(message, err=True)
    if failures:
        raise typer.Exit(max(failure.exit_code for failure in failures))
