"""Small data for tests: trees of images of one colour a class, and the digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from archspec.training.data import Data, open_data
from archspec.training.recipe import Recipe

PLAIN = {"crop_scale": "none", "flip": 0.0, "crop_pct": 1.0, "interpolation": "bilinear"}
HEAVY = {"policy": "rand-m9-mstd0.5-inc1", "random_erasing": 0.5, "color_jitter": 0.3, "vertical_flip": 0.3}
COLOURS = {"cat": (200, 30, 30), "dog": (30, 200, 30), "10": (30, 30, 200)}


def recipe(**augment: object) -> Recipe:
    return Recipe.model_validate(
        {"archspec": 1, "name": "r", "epochs": 2, "batch": 4, "optimizer": {"lr": 0.1}, "augment": augment}
    )


def listed(data: Data, epoch: int = 0, start: int = 0) -> list[tuple[Tensor, Tensor]]:
    return list(data.train_epoch(epoch, start))


def same(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


def picture(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(-20, 20, (*size, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


def plant(root: Path, train: int = 4, test: int = 3) -> Path:
    """A tree of three classes; each image is of its class's colour."""
    for part, count in (("train", train), ("val", test)):
        for name, colour in COLOURS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture(colour, number).save(folder / f"{number}.png")
    return root


def folder(root: Path, augment: dict[str, object] | None = None, **options: object) -> Data:
    chosen = {"channels": 3, "size": (8, 8), "batch": 4, "seed": 5, "recipe": recipe(**(augment or HEAVY)), **options}
    return open_data(root, **chosen)


def scanned(**options: object) -> Data:
    return open_data("digits", **{"channels": 1, "size": (8, 8), "batch": 64, "seed": 5, **options})
