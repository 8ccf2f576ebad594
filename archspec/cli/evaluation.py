"""The command that evaluates trained networks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from archspec.cli.options import (
    DeviceOption,
    JsonOption,
    OutsideOption,
    PluginOption,
    SetOption,
    SizeOption,
    load_plugins,
    parse_size,
)
from archspec.errors import EvaluationError, UsageError

if TYPE_CHECKING:
    from archspec.evaluation.report import Report
    from archspec.evaluation.subject import Subject
    from archspec.training.data import Batch, Data


def eval_(
    target: Annotated[Path, typer.Argument(metavar="RUN|WEIGHTS", help="a run's folder, or a file of weights")],
    data: Annotated[
        str | None,
        typer.Option(help="digits, a folder with val/, torch/cifar10, hfds/OWNER/NAME, wds/FOLDER; else the run's own"),
    ] = None,
    which: Annotated[
        Literal["ema", "last", "best"] | None,
        typer.Option(help="a run's weights; unless said, ema where the run kept one, else last"),
    ] = None,
    spec: Annotated[str | None, typer.Option(metavar="SPEC", help="the network that bare weights are of")] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="its augment says how images are cropped, for bare weights")
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="the accuracy of each class")] = False,
    confusion: Annotated[bool, typer.Option("--confusion", help="which classes are taken for which")] = False,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="with occlusion, FGSM, Gaussian noise and blur; some 20 times the work")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="images at a time")] = 64,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(min=0, metavar="N", help="processes that read images")] = 4,
    data_root: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="where data sets with a name stand; data unless said")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="fetch a data set that is not there")] = False,
    max_broken: Annotated[int, typer.Option(min=0, metavar="N", help="images that may be unreadable")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="of the noise")] = 0,
    as_json: JsonOption = False,
    sets: SetOption = [],  # noqa: B006  # typer reads the default and never changes it
    size: SizeOption = None,
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
) -> None:
    """Evaluate a trained network on held-out images: top-1, top-5, each class, confusion, speed, robustness."""
    load_plugins(plugin)

    from archspec.evaluation.subject import find_subject
    from archspec.training.data import open_data

    subject = find_subject(
        target,
        which=which,
        spec=spec,
        recipe=recipe,
        sets=sets,
        size=parse_size(size),
        allow_outside=allow_outside,
    )
    chosen = data or subject.data
    if chosen is None:
        raise UsageError("weights alone do not say what to evaluate them on (try --data digits, or a folder)")
    opened = open_data(
        chosen,
        channels=subject.plan.source.width,
        size=subject.plan.source.grid,
        recipe=subject.recipe,
        batch=batch,
        workers=workers,
        root=data_root or (None if data else subject.root),
        download=download,
        max_broken=max_broken,
        train=False,
    )
    report = _evaluate(subject, opened, device, seed, per_class, confusion, robustness)
    _show(report, as_json)


def _evaluate(
    subject: Subject, data: Data, device: str, seed: int, per_class: bool, confusion: bool, robustness: bool
) -> Report:
    import torch

    from archspec.evaluation import conditions, evaluate, withstand
    from archspec.evaluation.report import Report
    from archspec.training.distributed import find_device

    if subject.plan.spec.head is None:
        raise UsageError("the network has no head that answers")
    answers = subject.plan.spec.classes
    if answers != data.classes:
        raise UsageError(f"the network answers with {answers} classes, but {data.name} has {data.classes}")
    place = find_device(device)
    network = subject.network().to(place)
    try:
        found = evaluate(network, _watched(data, "evaluating"), classes=data.classes, device=place)
        chosen = conditions(data.normalisation, place, seed=seed) if robustness else []
        batches = _watched(data, "disturbing") if chosen else iter(())
        withstood = withstand(network, batches, chosen, classes=data.classes, device=place)
    except torch.OutOfMemoryError as error:
        advice = f"try --batch {max(1, data.batch // 2)}"
        raise EvaluationError(f"{place}: memory does not suffice for {data.batch} images ({advice})") from error
    return Report(
        subject=subject, data=data, evaluation=found, withstood=withstood, per_class=per_class, confusion=confusion
    )


def _watched(data: Data, what: str) -> Iterator[Batch]:
    """The held-out images, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(what, total=data.test_size)
        for images, labels in data.test_batches():
            yield images, labels
            progress.advance(task, len(labels))


def _show(report: Report, as_json: bool) -> None:
    broken = report.data.broken
    if broken.count:
        typer.echo(f"{broken.count} images cannot be read and are left out: {broken.describe()}", err=True)
    if as_json:
        typer.echo(json.dumps(report.plain(), indent=2))
        return

    from archspec.report import console

    screen = console()
    for part in report.parts():
        if isinstance(part, str):
            screen.print(part, markup=False, soft_wrap=True)
        else:
            screen.print(part)
