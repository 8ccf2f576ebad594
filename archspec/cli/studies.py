"""Commands about studies. They load `search`, which the core does not know, by name."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from archspec.cli.options import OutsideOption, PluginOption, load_plugins


def ablate(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="a YAML file, or a shipped study such as fcvit_table2")],
    count_only: Annotated[
        bool, typer.Option("--count-only", help="the cost columns alone, nothing is trained")
    ] = False,
    plugin: PluginOption = [],  # noqa: B006  # typer reads the default and never changes it
    allow_outside: OutsideOption = False,
) -> None:
    """Compare the rows of an ablation: what each costs, beside what the publication prints."""
    from archspec.errors import UsageError
    from archspec.loading import find_study
    from archspec.report import console

    if not count_only:
        raise UsageError("rows are not trained yet: --count-only fills the cost columns")
    load_plugins(plugin)
    ablation = importlib.import_module("archspec.search.ablation")
    loaded = ablation.load_ablation(find_study(study), allow_outside=allow_outside)
    screen = console()
    screen.print(ablation.count_table(loaded))
    if loaded.source:
        screen.print(loaded.source, markup=False)
