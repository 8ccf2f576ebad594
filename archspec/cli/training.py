"""The command that trains."""

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


def train(
    spec: SpecArgument,
    data: Annotated[
        str, typer.Option(help="the data set: digits, scikit-learn's scanned digits, are bundled")
    ] = "digits",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="the run's folder; runs/NAME-DATA-SEED when left out")
    ] = None,
    epochs: Annotated[int, typer.Option(help="passes over the training images")] = 20,
    batch_size: Annotated[int, typer.Option(help="images a step")] = 64,
    lr: Annotated[float, typer.Option(help="peak of the learning rate")] = 2e-3,
    weight_decay: Annotated[float, typer.Option(help="decoupled, as AdamW has it")] = 0.05,
    warmup_epochs: Annotated[int, typer.Option(help="epochs of linear warm-up")] = 2,
    seed: Annotated[int, typer.Option(help="of the weights, the order and the augmentation")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    sets: SetOption = [],  # noqa: B006  # typer reads the default and never changes it
    size: SizeOption = None,
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
) -> None:
    """Train a network on images; a run that was interrupted goes on when the same command is given again."""
    load_plugins(plugin)
    plan = make_plan(spec, sets, size, allow_outside)

    from archspec import api
    from archspec.resolved import fingerprint
    from archspec.training import TrainSettings
    from archspec.training import train as run
    from archspec.training.data import load

    settings = TrainSettings(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        warmup_epochs=min(warmup_epochs, epochs),
        seed=seed,
        device=device,
    )
    split = load(data, plan.source.width, plan.source.grid)
    split.check_classes(plan.spec.classes)
    folder = out or Path("runs") / f"{plan.name}-{data}-{seed}"
    result = run(api.build(plan, seed=seed), split, settings, folder, fingerprint=fingerprint(plan.spec))
    typer.echo(
        f"accuracy {100 * result.accuracy:.2f} % on {len(split.test_labels)} held-out images; weights: {result.weights}"
    )
