"""`make demo`: a published network on a photograph, a micro network that learns to read digits, a search for others.

Everything is bundled: the photograph and the digits come with scikit-learn.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from archspec import api
from archspec.errors import ArchspecError
from archspec.report import console, cost_table, published_lines
from archspec.training import load_recipe, open_data, run
from archspec.training.data import Data

CONTEXTS = ("convolution", "local window", "global frequencies")
SHADES = " .:-=+*#%@"
TRIALS = 4  # of the search; the study's own number takes minutes


def main() -> None:
    """Run the demo."""
    screen = console()
    show_published(screen, "nommer_t")
    learn_digits(screen, "nommer_micro")
    search_digits(screen, "micro_digits")
    screen.print(
        "\nNext: archspec list specs; archspec build pit_base_cb; archspec new my_network.yaml", highlight=False
    )


def show_published(screen: Console, name: str) -> None:
    """A shipped network's cost beside the published figures, and one pass of a real photograph through it."""
    plan = api.make_plan(name)
    screen.print(cost_table(plan, ops=True))
    screen.print("\n".join(published_lines(plan)), markup=False)
    network = api.build(plan, seed=0)
    image = photograph(plan.source.grid)
    started = time.perf_counter()
    with torch.inference_mode():
        logits = network(image)
    shape = " x ".join(map(str, logits.shape))
    screen.print(f"\nA photograph went through {name} in {time.perf_counter() - started:.2f} s, logits {shape}.")


def photograph(size: tuple[int, int]) -> Tensor:
    """scikit-learn's photograph of a temple, (1, 3, height, width), standardised."""
    from sklearn.datasets import load_sample_image

    pixels = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1)[None].float() / 255
    resized = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return (resized - resized.mean()) / resized.std()


def learn_digits(screen: Console, name: str) -> None:
    """Train a micro S-NomMer network on scanned digits and show how it reads some that it has not seen."""
    plan, recipe = api.make_plan(name), load_recipe("digits", ["epochs=12"])
    data = open_data(
        "digits", channels=plan.source.width, size=plan.source.grid, recipe=recipe, batch=recipe.batch, seed=0
    )
    screen.print(f"\n{name} ({api.count(plan).params:,} parameters) learns to read {data.train_size} digits:")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = run(plan, recipe, data, Path(folder))
    seconds = time.perf_counter() - started
    screen.print(f"{100 * result.last.accuracy:.1f} % of {data.test_size} held-out digits right after {seconds:.0f} s.")
    show_digits(screen, result.network.cpu(), data)


def show_digits(screen: Console, network: nn.Module, data: Data, count: int = 3) -> None:
    """Held-out digits side by side, what the network reads, and which contexts their positions nominate."""
    batch = next(iter(data.test_batches()))
    images, labels = batch[0][:count], batch[1][:count].tolist()
    maps, answers = nominated(network.eval(), images)
    grey = F.interpolate(images.mean(1, keepdim=True), size=(16, 16))[:, 0]
    grey = (grey - grey.amin((1, 2), keepdim=True)) / (
        grey.amax((1, 2), keepdim=True) - grey.amin((1, 2), keepdim=True)
    )
    screen.print()
    for rows in zip(*grey.tolist(), strict=True):
        line = ("".join(SHADES[int(value * 9.99)] * 2 for value in row) for row in rows)
        screen.print(" ".join(line), markup=False)
    read = (f"a {label}, read as {answer}" for label, answer in zip(labels, answers, strict=True))
    screen.print(" ".join(f"{text:^32}" for text in read).rstrip() + "\n")
    for block, chosen in enumerate(maps, start=1):
        shares = (f"{100 * (chosen == i).float().mean():.0f} % {context}" for i, context in enumerate(CONTEXTS))
        screen.print(f"S-NomMer block {block} nominates, over these images: {', '.join(shares)}")


def search_digits(screen: Console, study: str) -> None:
    """The first candidates of a shipped search, in runs/, where `archspec search` goes on with them."""
    from archspec.cli.app import app

    screen.print(f"\n{study}: which mixers, widths and depths read digits best? The first {TRIALS} candidates:")
    app(["search", study, "--trials", str(TRIALS), "--jobs", "2"], standalone_mode=False)
    screen.print(
        f"\narchspec search {study} --jobs 2 goes on, for some minutes; all of it is on runs/{study}/report.html",
        highlight=False,
    )


def nominated(network: nn.Module, images: Tensor) -> tuple[list[Tensor], list[int]]:
    """Each block's nomination maps (B, H, W), as indices of the contexts, and the classes that the network answers."""
    maps: list[Tensor] = []
    choices = [module for name, module in network.named_modules() if name.endswith("nominator.choice")]
    hooks = [
        choice.register_forward_hook(lambda module, inputs, output: maps.append(output.argmax(-1)))
        for choice in choices
    ]
    with torch.inference_mode():
        answers = network(images).argmax(-1).tolist()
    for hook in hooks:
        hook.remove()
    return maps, answers


if __name__ == "__main__":
    try:
        main()
    except ArchspecError as error:  # such as another study of that name in runs/
        sys.exit(str(error))
