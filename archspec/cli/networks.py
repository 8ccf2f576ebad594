"""Commands about networks: build, validate, diff."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.options import (
    JsonOption,
    NoCacheOption,
    OutsideOption,
    PluginOption,
    SetOption,
    SizeOption,
    SpecArgument,
    load_plugins,
    make_plan,
)
from archspec.errors import ArchspecError, UsageError

if TYPE_CHECKING:
    from archspec.plan import Plan


def build(
    spec: SpecArgument,
    sets: SetOption = [],  # noqa: B006  # typer reads the default and never changes it
    size: SizeOption = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="the table alone: no weights, no forward pass")
    ] = False,
    ops: Annotated[
        bool, typer.Option("--ops", help="add a column that counts norms, pooling and sampling too")
    ] = False,
    as_json: JsonOption = False,
    seed: Annotated[int, typer.Option(help="seed of the initial weights")] = 0,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="load weights that archspec saved, before the forward pass")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="save the weights as .safetensors")] = None,
    export: Annotated[
        tuple[str, Path] | None,
        typer.Option(
            metavar="pt2|onnx FILE", help="write the network for other tools, once its logits have been compared"
        ),
    ] = None,
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
    no_cache: NoCacheOption = False,
) -> None:
    """Build a network: its cost table beside the published figures, then the network, then one forward pass."""
    if plan_only and (weights or save or export):
        raise UsageError("--plan-only builds no weights: it goes with none of --weights, --save and --export")
    load_plugins(plugin)
    plan = make_plan(spec, sets, size, allow_outside)
    if as_json:
        from archspec.report import as_json as to_object

        typer.echo(json.dumps(to_object(plan), indent=2))
    else:
        _print_table(plan, ops, patched=bool(sets or size))
    if not plan_only:
        _run_once(plan, seed, weights, save, export)


def _print_table(plan: Plan, ops: bool, *, patched: bool) -> None:
    from archspec.report import console, cost_table, published_lines

    screen = console()
    screen.print(cost_table(plan, ops=ops))
    lines = published_lines(plan)
    if lines and patched:
        lines.append("  (of the network as published; this one is patched)")
    for line in lines:
        screen.print(line, markup=False)


def _run_once(plan: Plan, seed: int, weights: Path | None, save: Path | None, export: tuple[str, Path] | None) -> None:
    """Build the network and pass one random image through it; progress goes to stderr."""
    import torch

    from archspec import api
    from archspec.checkpoints import check_target, save_weights
    from archspec.export import export as write
    from archspec.export import find_format
    from archspec.weights import load_pretrained

    if save:
        check_target(save)
    form = find_format(export[0]) if export else None
    started = time.perf_counter()
    network = api.build(plan, seed=seed)
    if weights:
        typer.echo(load_pretrained(network, weights), err=True)
    built = time.perf_counter()
    image = torch.randn(1, plan.source.width, *plan.source.grid, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        output = network(image)
    passed = time.perf_counter()
    typer.echo(
        f"built in {built - started:.2f} s (seed {seed}); one image {tuple(image.shape)} -> {tuple(output.shape)} "
        f"in {passed - built:.2f} s",
        err=True,
    )
    if save:
        save_weights(network, save)
        typer.echo(f"wrote {save}", err=True)
    if export and form:
        difference = write(network, image, form, export[1])
        typer.echo(f"wrote {export[1]}; its logits differ by {difference:.2g} at most", err=True)


def validate(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="YAML files or shipped networks")],
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
    no_cache: NoCacheOption = False,
) -> None:
    """Check specs without building them: every problem of every file, exit code 2 if there is one."""
    load_plugins(plugin)
    failed = 0
    for spec in specs:
        try:
            make_plan(spec, [], None, allow_outside)
        except ArchspecError as error:
            failed += 1
            typer.echo(str(error), err=True)
    typer.echo(f"{len(specs) - failed} of {len(specs)} specs are valid", err=True)
    if failed:
        raise typer.Exit(2)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="a YAML file or a shipped network")],
    b: Annotated[str, typer.Argument(metavar="B", help="another")],
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
    no_cache: NoCacheOption = False,
) -> None:
    """What differs between two specs, path by path with every default written out, and what it costs."""
    from archspec.report import difference

    load_plugins(plugin)
    for line in difference(*(make_plan(spec, [], None, allow_outside) for spec in (a, b))):
        typer.echo(line)
