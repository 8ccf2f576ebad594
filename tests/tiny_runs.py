"""Training runs of a second, on one thread, for the tests of the trainer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from archspec import api
from archspec.plan import Plan
from archspec.training import Data, Recipe, RunResult, load_recipe, run
from archspec.training.data.in_memory import Split, TensorData, digits
from archspec.training.data.stream import Shares

SPEC = ("input.size=8", "stem.kernel=4", "stages[0].width=8", "stages[0].depth=2", "stages[0].mixer.heads=2")
# whatever keeps a state of its own, or draws random numbers: mixing, dropped paths, moving average, accumulation
EVERYTHING = (
    "epochs=3",
    "accumulate=2",
    "clip=5",
    "drop_path=0.2",
    "ema={decay: 0.9, warmup: true}",
    "augment.mixup=0.4",
    "augment.cutmix=1.0",
    "augment.shift=0.125",
    "loss.label_smoothing=0.1",
)
RECIPE = Path(__file__).parent / "data" / "tiny_recipe.yaml"


@cache
def tiny_plan(*sets: str) -> Plan:
    """A transformer of two thousand weights on 8 x 8 pixels."""
    return api.make_plan("vit_micro", sets=[*SPEC, *sets])


def tiny_recipe(sets: Sequence[str] = EVERYTHING) -> Recipe:
    """A plain recipe, unless said with everything in it that a run must remember."""
    return load_recipe(RECIPE, sets)


def few(recipe: Recipe, count: int = 64, seed: int = 0) -> Data:
    """The first digits alone, as many to train on as to test on."""
    whole = digits(1, (8, 8))
    split = Split(
        name="digits",
        classes=10,
        train_images=whole.train_images[:count],
        train_labels=whole.train_labels[:count],
        test_images=whole.test_images[:count],
        test_labels=whole.test_labels[:count],
        normalisation=whole.normalisation,
    )
    return TensorData(split, Shares(images=count, batch=min(recipe.batch, count), seed=seed), recipe.augment)


def quiet() -> Console:
    """Progress that nobody sees."""
    return Console(file=io.StringIO())


def tiny_run(folder: Path, recipe: Recipe | None = None, data: Data | None = None, **options: Any) -> RunResult:
    """A run of some seconds at most."""
    recipe = recipe or tiny_recipe()
    options = {"device": "cpu", "console": quiet(), **options}
    return run(tiny_plan(), recipe, data or few(recipe), folder, **options)


def outcome(folder: Path) -> dict[str, Any]:
    """Whatever a run leaves that must be the same however it came about; its last state, without how long it took."""
    newest = max(
        (folder / "checkpoints").glob("*.pt"), key=lambda file: [int(part) for part in file.stem.split("-")[1:4:2]]
    )
    state = torch.load(newest, weights_only=True)
    for untold in ("timing", "seconds", "waited"):
        state["progress"].pop(untold)
    files = ("metrics.csv", "metrics.jsonl", "last.safetensors", "last_ema.safetensors", "best.safetensors")
    return {"state": state, **{name: (folder / name).read_bytes() for name in files if (folder / name).exists()}}


def same(first: Any, second: Any) -> bool:
    """Equal to the last bit, tensors and all."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)
