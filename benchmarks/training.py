"""How much of a bare loop's speed the trainer keeps, and how long it waits for images.

    python benchmarks/training.py [--rounds 5] [--device cpu] [--workers 4] [CASE ...]

CASE: small (nommer_micro, 32 x 32, noise in memory), large (vit_tiny, 224 x 224, noise in memory), digits (nommer_micro
on the digits, shifted), files (vit_tiny on JPEG files of 500 x 375 pixels, decoded, cropped to 224 x 224, flipped and
jittered). A bare loop is forward, backward and the same optimizer's step on batches that are on the device. Both train
the same network; each round times an epoch of the trainer, then one of the bare loop, so that a machine that slows down
for a while slows both. The median of the rounds' ratios is printed with its range; the first round warms up
and does not count.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn

from archspec import api
from archspec.plan import Plan
from archspec.training import Data, EpochMetrics, Recipe, RunResult, load_recipe, open_data, run
from archspec.training.data.base import Normalisation
from archspec.training.data.in_memory import Split, TensorData
from archspec.training.data.stream import Shares
from archspec.training.distributed import find_device
from archspec.training.optim import make_optimizer
from archspec.training.precision import Precision

PLAIN = ("clip=none", "loss.label_smoothing=0", "schedule=constant")
CASES = ("small", "large", "digits", "files")


def bare_loop(plan: Plan, recipe: Recipe, data: Data, device: torch.device) -> Callable[[], float]:
    """Images a second of an epoch whose batches are on the device."""
    network = api.build(plan, seed=0)
    precision = Precision(device=device, name=recipe.precision, channels_last=recipe.channels_last)
    precision.place_network(network.train())
    optimizer = make_optimizer(network, recipe)
    batches = [(precision.place(images), labels.to(device)) for images, labels in data.train_epoch(1)]

    def epoch() -> float:
        started = time.perf_counter()
        for images, labels in batches:
            optimizer.zero_grad()
            with precision.autocast():
                loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return sum(len(labels) for _, labels in batches) / (time.perf_counter() - started)

    return epoch


def compared(plan: Plan, recipe: Recipe, data: Data, device: str) -> tuple[RunResult, list[float]]:
    """The trainer's run, and the bare loop's images a second after each of its epochs."""
    bare: list[float] = []
    loop = bare_loop(plan, recipe, data, find_device(device))

    def after(metrics: EpochMetrics) -> None:
        bare.append(loop())

    with tempfile.TemporaryDirectory() as folder:
        quiet = Console(quiet=True)
        return run(plan, recipe, data, Path(folder) / "run", device=device, on_epoch=after, console=quiet), bare


def synthetic(plan: Plan, recipe: Recipe, steps: int) -> Data:
    """Noise in memory."""
    count, channels = steps * recipe.batch, plan.source.width
    images = torch.randn(recipe.batch, channels, *plan.source.grid).repeat(steps, 1, 1, 1)
    labels = torch.arange(count) % plan.spec.classes
    same = Normalisation(mean=(0.0,) * channels, std=(1.0,) * channels)
    split = Split(
        name="synthetic",
        classes=plan.spec.classes,
        train_images=images,
        train_labels=labels,
        test_images=images[:1],
        test_labels=labels[:1],
        normalisation=same,
    )
    return TensorData(split, Shares(images=count, batch=recipe.batch, seed=0), recipe.augment)


def planted(folder: Path, count: int) -> Path:
    """As many JPEG files as photographs are large, in two classes."""
    noise = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(noise.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        for part in ("train", "val") if number < 2 else ("train",):
            file = folder / part / str(number % 2) / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            coarse.resize((500, 375)).save(file, quality=90)
    return folder


def case(name: str, options: argparse.Namespace, folder: Path) -> tuple[Plan, Recipe, Data]:
    """What is trained, how, and on what."""
    epochs, cuda = f"epochs={options.rounds + 1}", options.device != "cpu"
    if name in ("small", "digits"):
        plan, recipe = api.make_plan("nommer_micro"), load_recipe("digits", [*PLAIN, epochs])
        if name == "small":
            recipe = load_recipe("digits", [*PLAIN, epochs, "augment.shift=0"])
            return plan, recipe, synthetic(plan, recipe, 22)
        return plan, recipe, open_data("digits", channels=1, size=plan.source.grid, recipe=recipe, batch=recipe.batch)
    plan = api.make_plan("vit_tiny", sets=["classes=2"])
    sets = [*PLAIN, epochs, f"batch={256 if cuda else 8}", "augment.shift=0", *(["precision=bf16"] if cuda else [])]
    steps = 40 if cuda else 6
    if name == "large":
        recipe = load_recipe("digits", sets)
        return plan, recipe, synthetic(plan, recipe, steps)
    recipe = load_recipe("digits", [*sets, "augment={flip: 0.5, color_jitter: 0.4}"])
    data = open_data(
        planted(folder, steps * recipe.batch),
        channels=3,
        size=plan.source.grid,
        recipe=recipe,
        batch=recipe.batch,
        workers=options.workers,
    )
    return plan, recipe, data


def spread(values: Sequence[float], form: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} .. {high:{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    table = Table("case", "trainer images/s", "bare loop images/s", "ratio", "waiting for images")
    for name in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            plan, recipe, data = case(name, options, Path(folder))
            result, bare = compared(plan, recipe, data, options.device)
        speeds = [timing.images_per_second for timing in result.timing[1:]]
        ratios = [ours / theirs for ours, theirs in zip(speeds, bare[1:], strict=True)]
        waiting = [timing.waiting for timing in result.timing[1:]]
        table.add_row(
            name, spread(speeds, ",.0f"), spread(bare[1:], ",.0f"), spread(ratios, ".3f"), spread(waiting, ".2%")
        )
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
