"""The command that turns released weights into archspec's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.options import (
    OutsideOption,
    PluginOption,
    SetOption,
    SizeOption,
    SpecArgument,
    load_plugins,
    make_plan,
)


def convert(
    spec: SpecArgument,
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="a .pth, .pt or .safetensors file")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="the .safetensors file to write")],
    source: Annotated[
        str,
        typer.Option("--from", metavar="SOURCE", help="whose names the checkpoint has: archspec, nommer, timm, ..."),
    ] = "archspec",
    classes: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="classes of the new network; a classifier that does not fit starts anew"),
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of a classifier that starts anew")] = 0,
    sets: SetOption = [],  # noqa: B006  # typer reads the default and never changes it
    size: SizeOption = None,
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
) -> None:
    """Convert released weights to archspec's names, and report on every tensor that was not simply taken.

    Everything that the network needs must be there and fit, or nothing is written and the exit code is 2.
    """
    load_plugins(plugin)
    plan = make_plan(spec, sets if classes is None else [*sets, f"classes={classes}"], size, allow_outside)

    import torch

    from archspec import api
    from archspec.checkpoints import check_target, save_weights
    from archspec.weights import load_pretrained

    check_target(out)
    network = api.build(plan, seed=seed)
    torch.manual_seed(seed)
    report = load_pretrained(network, checkpoint, source=source, classes=classes)
    save_weights(network, out)
    typer.echo(report)
    typer.echo(f"wrote {out}", err=True)
