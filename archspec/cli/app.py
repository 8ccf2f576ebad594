"""The commands, gathered. Each imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

import archspec
from archspec.cli import (
    bench,
    catalogue,
    count,
    draw,
    evaluation,
    networks,
    results,
    search,
    studies,
    training,
    weights,
)

app = typer.Typer(
    name="archspec",
    help="A language for vision backbones: YAML in, PyTorch networks and exact costs out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"archspec {archspec.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Options of archspec itself."""


for command in (
    networks.build,
    networks.validate,
    catalogue.show,
    networks.diff,
    count.count,
    bench.bench,
    draw.draw,
    catalogue.list_,
    catalogue.schema,
    catalogue.new,
    weights.convert,
    training.train,
    evaluation.eval_,
    studies.ablate,
    search.search,
    results.retrain,
    results.report,
):
    app.command(command.__name__.rstrip("_"))(command)
