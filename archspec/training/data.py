"""The images to train on, as tensors in memory.

Shapes: N images, C channels, H and W the network's input size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from archspec.errors import UsageError, nearest

HELD_OUT = 0.2  # the share of the images that is never trained on
SPLIT_SEED = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and labels, the held-out ones apart. Images are float32 [N, C, H, W], labels int64 [N] below `classes`."""

    name: str
    classes: int
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def identity(self) -> str:
        """The data set and the shape of an image, such as `digits 1x32x32`."""
        return f"{self.name} {'x'.join(map(str, self.train_images.shape[1:]))}"

    def check_classes(self, classes: int) -> None:
        """Raises UsageError where a network of that many classes cannot be trained on this data."""
        if classes != self.classes:
            advice = f"--set classes={self.classes}"
            raise UsageError(f"the network has {classes} classes, but {self.name} has {self.classes} (try {advice})")


def digits(input_channels: int, size: tuple[int, int]) -> Split:
    """The scanned digits that come with scikit-learn: 1,797 images of 8x8 pixels, 10 classes.

    Normalised by the mean and deviation of the training pixels, resized bilinearly to `size` (H, W in pixels) and
    repeated over the channels. The split is the same in every run: 20% (360 images) held out, each class in proportion.
    """
    source = load_digits()
    images = torch.from_numpy(source.images).float().unsqueeze(1)  # [N, 1, 8, 8]
    labels = torch.from_numpy(source.target).long()  # [N]
    train, test = train_test_split(
        torch.arange(len(labels)), test_size=HELD_OUT, random_state=SPLIT_SEED, stratify=labels.numpy()
    )
    deviation, mean = torch.std_mean(images[train])
    images = F.interpolate((images - mean) / deviation, size=size, mode="bilinear", align_corners=False)
    images = images.expand(-1, input_channels, -1, -1)  # [N, C, H, W]; a view: 224x224 would take a gigabyte
    return Split(
        name="digits",
        classes=10,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
    )


DATASETS: dict[str, Callable[[int, tuple[int, int]], Split]] = {"digits": digits}


def load(name: str, input_channels: int, size: tuple[int, int]) -> Split:
    """The data set of that name for networks that take [N, input_channels, *size]. Raises UsageError if unknown."""
    if name not in DATASETS:
        remedy = nearest(name, DATASETS) or f"known: {', '.join(sorted(DATASETS))}"
        raise UsageError(f"{name!r} is not a data set ({remedy})")
    return DATASETS[name](input_channels, size)


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move every image [N, C, H, W] by up to H/8 and W/8 pixels, drawn one by one; the border pixels are repeated."""
    N, _, H, W = images.shape
    rows = torch.arange(H) + torch.randint(-(H // 8), H // 8 + 1, (N, 1), generator=generator)  # [N, H]
    columns = torch.arange(W) + torch.randint(-(W // 8), W // 8 + 1, (N, 1), generator=generator)  # [N, W]
    images = images.gather(2, rows.clamp(0, H - 1)[:, None, :, None].expand_as(images))
    return images.gather(3, columns.clamp(0, W - 1)[:, None, None, :].expand_as(images))
