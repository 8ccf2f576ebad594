"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.errors import UsageError

if TYPE_CHECKING:
    from archspec.plan import Plan

SpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help="a YAML file, or a shipped network such as nommer_t")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="PATH=VALUE", help="patch the spec, such as 'stages[2:].mixer.heads=8'; repeatable"),
]
SizeOption = Annotated[str | None, typer.Option("--size", metavar="N|HxW", help="another input size in pixels")]
PluginOption = Annotated[
    list[Path], typer.Option("--plugin", metavar="FILE", help="a Python file that registers blocks; repeatable")
]
OutsideOption = Annotated[
    bool, typer.Option("--allow-outside", help="let `extends` read files outside the spec's own folder")
]


def _without_cache(asked: bool) -> None:
    if asked:
        from archspec.records import disable

        disable()


NoCacheOption = Annotated[
    bool,
    typer.Option("--no-cache", callback=_without_cache, expose_value=False, help="count anew, and keep no records"),
]
RecipeSetOption = Annotated[
    list[str],
    typer.Option("--recipe-set", metavar="PATH=VALUE", help="patch the recipe, such as batch=64; repeatable"),
]
EpochsOption = Annotated[int | None, typer.Option("--epochs", help="short for --recipe-set epochs=N")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="processes that read and augment images, for each training")
]
DataRootOption = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="FOLDER", help="where data sets with a name stand; data when left out"),
]
# Of studies: what trains their cells.
StoreOption = Annotated[Path, typer.Option("--store", metavar="FOLDER", help="for trained cells, which studies share")]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, max=1024, help="cells at a time, each in a process of its own; 1 if left out"),
]
RayOption = Annotated[str, typer.Option("--ray", metavar="ADDRESS", help="on a Ray cluster: auto, local or HOST:PORT")]
CellCpusOption = Annotated[float, typer.Option("--cpus-per-cell", min=0.01, help="with --ray")]
CellGpusOption = Annotated[
    float, typer.Option("--gpus-per-cell", min=0.0, help="with --ray; 0.25 lets four cells share a GPU")
]
RetriesOption = Annotated[
    int, typer.Option("--retries", min=0, max=100, help="how often a cell that failed is begun again")
]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object on stdout instead of the table")]


def load_plugins(files: list[Path]) -> None:
    """Register the blocks of the user's own files."""
    if files:
        from archspec.registry import load_plugin

        for file in files:
            load_plugin(file)


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """`224` or `256x320` (height x width)."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text)
    if match is None:
        raise UsageError(f"--size {text}: neither a number of pixels nor HEIGHTxWIDTH, such as 256x320")
    return (int(match[1]), int(match[2])) if match[2] else int(match[1])


def make_plan(spec: str, sets: list[str], size: str | None, allow_outside: bool) -> Plan:
    """The checked plan that a command's arguments describe."""
    from archspec import api

    return api.make_plan(spec, sets=sets, size=parse_size(size), allow_outside=allow_outside)
