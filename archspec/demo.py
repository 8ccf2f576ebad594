"""`make demo`: a published network on a photograph, then a micro network that learns to read digits, and how it looks.

Everything is bundled: the photograph and the digits come with scikit-learn.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.text import Text
from torch import Tensor, nn

from archspec import api
from archspec.report import console, cost_table, published_lines
from archspec.training import TrainSettings, train
from archspec.training.data import Split, digits

CONTEXTS = (("c", "convolution", "red"), ("l", "local window", "green"), ("g", "global", "blue"))
SHADES = " .:-=+*#%@"


def main() -> None:
    """Run the demo."""
    screen = console()
    show_published(screen, "nommer_t")
    learn_digits(screen, "nommer_micro")
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
    """Train a micro S-NomMer network on scanned digits and show what it nominates on one of them."""
    plan = api.make_plan(name)
    data = digits(plan.source.width, plan.source.grid)
    network = api.build(plan, seed=0)
    screen.print(f"\n{name} ({api.count(plan).params:,} parameters) learns to read {len(data.train_labels)} digits:")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = train(network, data, TrainSettings(epochs=12), Path(folder))
    seconds = time.perf_counter() - started
    screen.print(
        f"{100 * result.accuracy:.1f} % of {len(data.test_labels)} held-out digits right after {seconds:.0f} s."
    )
    show_nomination(screen, network.cpu(), data)


def show_nomination(screen: Console, network: nn.Module, data: Split) -> None:
    """A held-out digit beside the contexts that its positions nominate, block by block."""
    image, label = data.test_images[:1], int(data.test_labels[0])
    maps, answer = nominated(network.eval(), image)
    screen.print(
        f"\nA held-out {label}, read as {answer}, and the context that each position nominates, block by block:\n"
    )
    size = maps[0].shape
    grey = F.interpolate(image, size=size)[0].mean(0)
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    enlarged = [F.interpolate(one[None, None].float(), size=size)[0, 0].long() for one in maps]
    for y in range(size[0]):
        line = Text("  " + "".join(SHADES[int(value * 9.99)] * 2 for value in grey[y].tolist()))
        for one in enlarged:
            line.append("    ")
            for pick in one[y].tolist():
                letter, _, colour = CONTEXTS[pick]
                line.append(letter * 2, style=colour)
        screen.print(line)
    screen.print("\n  " + ", ".join(f"{letter}: {context}" for letter, context, _ in CONTEXTS))


def nominated(network: nn.Module, image: Tensor) -> tuple[list[Tensor], int]:
    """Each block's nomination map (H, W), as indices of the contexts, and the class that the network answers."""
    maps: list[Tensor] = []
    choices = [module for name, module in network.named_modules() if name.endswith("nominator.choice")]
    hooks = [
        choice.register_forward_hook(lambda module, inputs, output: maps.append(output[0].argmax(-1)))
        for choice in choices
    ]
    with torch.inference_mode():
        answer = int(network(image).argmax())
    for hook in hooks:
        hook.remove()
    return maps, answer


if __name__ == "__main__":
    main()
