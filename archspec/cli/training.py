"""The command that trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archspec.cli.options import (
    DataRootOption,
    DeviceOption,
    EpochsOption,
    JsonOption,
    OutsideOption,
    PluginOption,
    SetOption,
    SizeOption,
    load_plugins,
    make_plan,
)
from archspec.errors import UsageError, nearest

if TYPE_CHECKING:
    from archspec.training.runs import RunResult

BUNDLED = "digits"  # the data set that comes with archspec, and the recipe for it
OF_A_NEW_RUN = "SPEC, --recipe, --out, --epochs, --batch, --seed, --set, --recipe-set and --size"


def train(
    spec: Annotated[
        str, typer.Argument(metavar="[SPEC]", help="a YAML file, or a shipped network; left out with --resume")
    ] = "",
    recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="a YAML file, or one of `archspec list recipes`; digits for digits")
    ] = "",
    data: Annotated[
        str, typer.Option(help="digits, a folder with train/ and val/, torch/cifar10, hfds/OWNER/NAME, wds/FOLDER")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="the run's folder; runs/NAME-DATA-SEED when left out")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="go on with the run in this folder, from it alone")
    ] = None,
    epochs: EpochsOption = None,
    batch: Annotated[int | None, typer.Option(help="short for --recipe-set batch=N: images a step")] = None,
    seed: Annotated[int | None, typer.Option(help="of the weights, the order and the augmentation; 0 unless said")] = (
        None
    ),
    sets: SetOption = [],  # noqa: B006  # typer reads the default and never changes it
    recipe_sets: Annotated[
        list[str],
        typer.Option(
            "--recipe-set", metavar="PATH=VALUE", help="patch the recipe, such as optimizer.lr=1e-3; repeatable"
        ),
    ] = [],  # noqa: B006
    size: SizeOption = None,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(help="processes that read and augment images")] = 4,
    data_root: DataRootOption = None,
    download: Annotated[bool, typer.Option("--download", help="fetch the data set where it is not there")] = False,
    max_broken: Annotated[int, typer.Option(help="images that may be unreadable before the run gives up")] = 100,
    save_every: Annotated[
        float, typer.Option(metavar="MINUTES", help="save the state within epochs, too, that often")
    ] = 10.0,
    as_json: JsonOption = False,
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
) -> None:
    """Train a network by a recipe; a run that was stopped goes on with --resume, or when the command is given again.

    Several GPUs: torchrun --nproc-per-node 8 -m archspec train ...
    """
    load_plugins(plugin)
    new = [spec, recipe, out, epochs, batch, seed, sets, recipe_sets, size]
    if resume and any(given not in ("", None, []) for given in new):
        raise UsageError(f"--resume {resume}: the folder says what is trained and how; leave out {OF_A_NEW_RUN}")
    if not resume and not spec:
        raise UsageError("SPEC is missing: which network? (or --resume FOLDER, to go on with a run)")

    from archspec.training.distributed import leads
    from archspec.training.recipe import load_recipe
    from archspec.training.runs import resume as go_on
    from archspec.training.runs import run
    from archspec.training.session import SaveEvery

    options: dict[str, Any] = {
        "device": device,
        "save_every": SaveEvery(minutes=save_every),
        "data_options": {"workers": workers, "root": data_root, "download": download, "max_broken": max_broken},
    }
    if resume:
        result = go_on(resume, data=data or None, **options)
    else:
        data, seed = data or BUNDLED, seed or 0
        if not recipe and data != BUNDLED:
            hint = nearest(data, [BUNDLED]) or "`archspec list recipes` shows what is shipped"
            raise UsageError(f"--data {data}: by which --recipe? ({hint})")
        short = [f"{key}={value}" for key, value in (("epochs", epochs), ("batch", batch)) if value is not None]
        chosen = load_recipe(
            recipe or BUNDLED, [*recipe_sets, *short], allow_outside=allow_outside, option="--recipe-set"
        )
        plan = make_plan(spec, sets, size, allow_outside)
        folder = out or Path("runs") / f"{plan.name}-{Path(data).name}-{seed}"
        result = run(plan, chosen, data, folder, seed=seed, **options)
    if leads():
        typer.echo(json.dumps(_as_object(result), indent=2) if as_json else _as_text(result))


def _as_object(result: RunResult) -> dict[str, Any]:
    return {
        "folder": str(result.folder),
        "epochs": len(result.history),
        "loss": result.last.loss,
        "accuracy": result.last.accuracy,
        "best_epoch": result.best.epoch,
        "best_accuracy": result.best.best,
        "weights": str(result.weights),
        "best_weights": str(result.best_weights),
        "broken_images": list(result.broken),
    }


def _as_text(result: RunResult) -> str:
    best = f"best {100 * result.best.best:.2f} % after epoch {result.best.epoch}: {result.best_weights}"
    broken = f"\n{len(result.broken)} images could not be read, such as {result.broken[0]}" if result.broken else ""
    return f"accuracy {100 * result.last.accuracy:.2f} % on the held-out images: {result.weights}\n{best}{broken}"
