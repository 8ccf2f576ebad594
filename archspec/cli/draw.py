"""The command that draws: a plan, or networks among one another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from archspec.cli.options import (
    NoCacheOption,
    OutsideOption,
    PluginOption,
    SetOption,
    SizeOption,
    load_plugins,
    make_plan,
)
from archspec.errors import ArchspecError, UsageError

if TYPE_CHECKING:
    from archspec.plan import Plan

SCATTER_NAME = "scatter"


def draw(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="YAML files or shipped networks")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE.svg", help=f"the file to write; NAME.svg or {SCATTER_NAME}.svg if left out"
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="above the picture, in place of its own")] = None,
    scale: Annotated[
        Literal["log", "linear"] | None, typer.Option(help="of the MACs of several networks; log unless said")
    ] = None,
    sets: SetOption = [],  # noqa: B006  # typer reads the default and never changes it
    size: SizeOption = None,
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
    no_cache: NoCacheOption = False,
) -> None:
    """Draw a network as an SVG picture: its stages, mixers and shapes, and where its cost goes.

    Several networks become one picture of MACs, parameters and published top-1 accuracy.
    """
    from archspec.drawing.style import check_svg, write_svg

    if scale and len(specs) == 1:
        raise UsageError("--scale is for several networks; a single one is drawn as a plan")
    if title is not None and not title.isprintable():
        raise UsageError("--title: has characters that cannot be printed")
    if out:
        check_svg(out)
    load_plugins(plugin)
    plans = _plans(specs, sets, size, allow_outside)
    if len(specs) == 1:
        from archspec.drawing.plan_picture import draw_plan

        target, picture = out or Path(f"{plans[0].name}.svg"), draw_plan(plans[0], title=title)
    else:
        target, picture = out or Path(f"{SCATTER_NAME}.svg"), _scatter(plans, title, scale, bool(sets or size))
    write_svg(target, picture)
    typer.echo(f"wrote {target}", err=True)


def _plans(specs: list[str], sets: list[str], size: str | None, allow_outside: bool) -> list[Plan]:
    """All plans; what is wrong is told of every spec before the command gives up."""
    plans, failures = [], []
    for spec in specs:
        try:
            plans.append(make_plan(spec, sets, size, allow_outside))
        except ArchspecError as error:
            failures.append(error)
    for failure in failures[:-1]:
        typer.echo(str(failure), err=True)
    if failures:
        raise failures[-1]
    return plans


def _scatter(plans: list[Plan], title: str | None, scale: str | None, changed: bool) -> bytes:
    from archspec.drawing.scatter import draw_scatter

    scatter = draw_scatter(plans, title=title, log=scale != "linear", changed=changed)
    if scatter.not_drawn:
        typer.echo(f"not drawn, for want of a published top-1: {', '.join(scatter.not_drawn)}", err=True)
    if scatter.not_named:
        typer.echo(f"drawn without their names, for want of room: {', '.join(scatter.not_named)}", err=True)
    if changed:
        typer.echo("the top-1 accuracies were published for the networks without --set and --size", err=True)
    return scatter.svg
