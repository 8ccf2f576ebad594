"""Small data sets that are kept in memory as tensors.

Shapes: N images, C channels, H and W the network's input size in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from archspec.training.data.base import Batch, Data, Normalisation
from archspec.training.data.broken import Broken
from archspec.training.data.images import Parts
from archspec.training.data.stream import Shares, seed_of
from archspec.training.recipe import Augment

HELD_OUT = 0.2  # the share of the images that is never trained on
SPLIT_SEED = 0
DIGIT_LEVELS = 16.0  # a pixel of the digits runs from 0 to this


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and labels, the held-out ones apart. Images are float32 [N, C, H, W], labels int64 [N] below `classes`."""

    name: str
    classes: int
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    normalisation: Normalisation

    @property
    def identity(self) -> str:
        """The data set and the shape of an image, such as `digits 1x32x32`."""
        return f"{self.name} {'x'.join(map(str, self.train_images.shape[1:]))}"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Digits:
    """The scanned digits that come with scikit-learn: 1,797 images of 8x8 pixels, 10 classes.

    The split is the same in every run: 20% (360 images) held out, each class in proportion.
    """

    pixels: Tensor  # float32 [N, 8, 8], 0 to 16
    labels: Tensor  # int64 [N]
    train: Tensor  # numbers of images, int64
    test: Tensor

    @classmethod
    def load(cls) -> _Digits:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        source = load_digits()
        labels = torch.from_numpy(source.target).long()
        train, test = train_test_split(
            torch.arange(len(labels)), test_size=HELD_OUT, random_state=SPLIT_SEED, stratify=labels.numpy()
        )
        return cls(pixels=torch.from_numpy(source.images).float(), labels=labels, train=train, test=test)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the training pixels, on their own scale."""
        deviation, mean = torch.std_mean(self.pixels[self.train])
        return mean, deviation

    def normalisation(self, channels: int) -> Normalisation:
        mean, deviation = (value.item() / DIGIT_LEVELS for value in self.statistics())
        return Normalisation(mean=(mean,) * channels, std=(deviation,) * channels)


def digits(input_channels: int, size: tuple[int, int], interpolation: str = "bilinear") -> Split:
    """scikit-learn's digits, normalised, resized to `size` (H, W in pixels) and repeated over the channels."""
    source = _Digits.load()
    mean, deviation = source.statistics()
    images = (source.pixels[:, None] - mean) / deviation  # [N, 1, 8, 8]
    images = F.interpolate(images, size=size, mode=interpolation, align_corners=False)
    train, test = (images[part].expand(-1, input_channels, -1, -1) for part in (source.train, source.test))  # views
    return Split(
        name="digits",
        classes=10,
        train_images=train,
        train_labels=source.labels[source.train],
        test_images=test,
        test_labels=source.labels[source.test],
        normalisation=source.normalisation(input_channels),
    )


class DigitImages:
    """The digits as images, for recipes that do more to them than tensors in memory can have done."""

    def __init__(self, pixels: Tensor, labels: Tensor, part: str) -> None:
        self.pixels = (pixels * (255 / DIGIT_LEVELS)).round().byte().numpy()
        self.labels, self.part = labels.tolist(), part

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int, mode: str) -> tuple[Image.Image, int]:
        """The image, and its label."""
        return Image.fromarray(self.pixels[index]).convert(mode), self.labels[index]

    def name(self, index: int) -> str:
        """Its number."""
        return f"{self.part}/{index}"


def digit_images(channels: int) -> tuple[Parts, Normalisation]:
    """The same split as `digits`, as images, and what normalises them."""
    source = _Digits.load()
    train, test = (
        DigitImages(source.pixels[chosen], source.labels[chosen], part)
        for chosen, part in ((source.train, "train"), (source.test, "test"))
    )
    names = [str(digit) for digit in range(10)]
    parts = Parts(name="digits", class_names=names, train=train, test=test, contents="as images")
    return parts, source.normalisation(channels)


class TensorData(Data):
    """A split in memory. Images are shifted and flipped a batch at a time: one by one would cost more than a step."""

    def __init__(self, split: Split, shares: Shares, augment: Augment | None) -> None:
        self.name, self.identity, self.normalisation = split.name, split.identity, split.normalisation
        self.class_names = tuple(str(label) for label in range(split.classes))
        self.train_size, self.test_size = len(split.train_labels), len(split.test_labels)
        self.shares, self.broken = shares, Broken(limit=0)
        self._split, self._augment = split, augment

    @staticmethod
    def suffices(augment: Augment) -> bool:
        """Whether tensors in memory can have all done to them that the recipe says."""
        said = (augment.crop_scale, augment.policy, augment.mean, augment.std)
        return said == (None,) * 4 and augment.crop_pct == 1 and not (augment.color_jitter or augment.random_erasing)

    def train_epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """As Data has it."""
        order, draws = self.shares.order(epoch), self._draws(epoch)
        for step in range(start_step, self.shares.steps):
            positions = torch.tensor(self.shares.positions(step))
            chosen = order[positions]
            yield self._view(self._split.train_images[chosen], draws[:, positions]), self._split.train_labels[chosen]

    def test_batches(self) -> Iterator[Batch]:
        """As Data has it."""
        mine = torch.arange(self.test_size)[self.shares.rank :: self.shares.world]
        for chosen in mine.split(self.shares.batch // self.shares.world) if len(mine) else ():
            yield self._split.test_images[chosen], self._split.test_labels[chosen]

    def _draws(self, epoch: int) -> Tensor:
        """Four numbers from 0 up to 1 for every position of an epoch, [4, N]."""
        generator = torch.Generator().manual_seed(seed_of(self.shares.seed, epoch, 0))
        return torch.rand(4, self.shares.images, generator=generator)

    def _view(self, images: Tensor, draws: Tensor) -> Tensor:
        augment = self._augment
        if augment is None:
            return images
        if augment.shift:
            reach = [int(side * augment.shift) for side in images.shape[2:]]
            rows, columns = ((draw * (2 * far + 1)).long() - far for far, draw in zip(reach, draws, strict=False))
            images = moved(images, rows, columns)
        for dimension, chance, draw in ((3, augment.flip, draws[2]), (2, augment.vertical_flip, draws[3])):
            if chance:
                images = torch.where((draw < chance)[:, None, None, None], images.flip(dimension), images)
        return images


def moved(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Every image [N, C, H, W] moved up by its own number of rows [N] and left by columns [N]; border pixels repeat."""
    H, W = images.shape[2:]
    rows = (torch.arange(H) + rows[:, None]).clamp(0, H - 1)  # [N, H]
    columns = (torch.arange(W) + columns[:, None]).clamp(0, W - 1)  # [N, W]
    images = images.gather(2, rows[:, None, :, None].expand_as(images))
    return images.gather(3, columns[:, None, None, :].expand_as(images))
