"""From a decoded image to what the network takes, by timm's transforms and the recipe's `augment`.

Shapes: C channels, H and W the network's input size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from archspec.errors import UsageError
from archspec.training.data.base import Normalisation
from archspec.training.data.in_memory import moved
from archspec.training.recipe import Augment

View = Callable[[Image.Image], Tensor]  # -> float32 [C, H, W]
Constants = tuple[float, ...] | None
MODES = {1: "L", 3: "RGB"}


def mode_of(channels: int, name: str) -> str:
    """How images are decoded for that many channels. Raises UsageError where they cannot be."""
    if channels not in MODES:
        advice = "try --set input.channels=3"
        raise UsageError(f"the network takes {channels} channels, but {name} is read as 1 or 3 ({advice})")
    return MODES[channels]


def normalisation(augment: Augment, channels: int, own: Normalisation | None = None) -> Normalisation:
    """The recipe's constants, else the data set's own, else those of ImageNet; their mean where C is 1."""
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def chosen(name: str, said: Constants, else_own: Constants, imagenet: tuple[float, ...]) -> tuple[float, ...]:
        if said is not None and len(said) != channels:
            raise UsageError(f"augment.{name}: {len(said)} numbers, but the network takes {channels} channels")
        grey = (sum(imagenet) / len(imagenet),)
        return said or else_own or (imagenet if channels == len(imagenet) else grey * channels)

    return Normalisation(
        mean=chosen("mean", augment.mean, own.mean if own else None, IMAGENET_DEFAULT_MEAN),
        std=chosen("std", augment.std, own.std if own else None, IMAGENET_DEFAULT_STD),
    )


def test_view(augment: Augment, channels: int, size: tuple[int, int], constants: Normalisation) -> View:
    """Resized to size / crop_pct, the centre cropped, normalised."""
    from timm.data import create_transform

    interpolation = "bicubic" if augment.interpolation == "random" else augment.interpolation
    view: View = create_transform(
        (channels, *size),
        interpolation=interpolation,
        crop_pct=augment.crop_pct,
        mean=constants.mean,
        std=constants.std,
    )
    return view


def train_view(augment: Augment, channels: int, size: tuple[int, int], constants: Normalisation) -> View:
    """What the recipe says, drawn from the global random numbers of Python, NumPy and torch.

    Raises UsageError for a policy that timm does not know.
    """
    from torchvision.transforms import Compose

    geometry, colour, final = _parts(augment, channels, size, constants)
    if augment.crop_scale is None:
        resize = test_view(augment, channels, size, constants).transforms[:-2]  # type: ignore[attr-defined]
        geometry = [*resize, *geometry[1:]]  # timm's list begins with the random crop
    if augment.shift:
        final.insert(2, Shift(augment.shift))  # of normalised pixels, before one of them is erased
    view: View = Compose([*geometry, *colour, *final])
    return view


def _parts(
    augment: Augment, channels: int, size: tuple[int, int], constants: Normalisation
) -> tuple[list[Any], list[Any], list[Any]]:
    """Timm's transforms: of the geometry, of the colours, and to a tensor."""
    from timm.data import create_transform

    try:
        parts = create_transform(
            (channels, *size),
            is_training=True,
            scale=augment.crop_scale,
            ratio=augment.crop_ratio,
            hflip=augment.flip,
            vflip=augment.vertical_flip,
            color_jitter=augment.color_jitter or None,
            auto_augment=augment.policy,
            interpolation=augment.interpolation,
            re_prob=augment.random_erasing,
            re_mode=augment.erasing_mode,
            mean=constants.mean,
            std=constants.std,
            separate=True,
        )
    except (AssertionError, ValueError, KeyError, NotImplementedError) as error:
        raise UsageError(
            f"augment.policy: timm does not know {augment.policy!r} (try rand-m9-mstd0.5-inc1): {error}"
        ) from error
    geometry, colour, final = (list(part.transforms) for part in parts)
    for policy in colour:
        _mend(policy)
    return geometry, colour, final


def _mend(policy: Any) -> None:
    """Pillow 13 refuses to keep no bit of a pixel, which timm's strongest posterize asks for: black, as before."""
    groups: Any = getattr(policy, "ops", None) or getattr(policy, "policy", ())
    for operation in (each for group in groups for each in (group if isinstance(group, list) else [group])):
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _Posterize(operation.aug_fn)


class _Posterize:
    """Timm's posterize, of as few bits as none."""

    def __init__(self, posterize: Callable[..., Image.Image]) -> None:
        self.posterize = posterize

    def __call__(self, image: Image.Image, bits: int, **options: Any) -> Image.Image:
        return self.posterize(image, bits, **options) if bits >= 1 else Image.new(image.mode, image.size)


class Shift:
    """Moves an image [C, H, W] by up to a share of its height and width; the border pixels are repeated."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, image: Tensor) -> Tensor:
        """The moved image."""
        reach = [int(side * self.share) for side in image.shape[1:]]
        rows, columns = (torch.randint(-far, far + 1, (1,)) for far in reach)
        return moved(image[None], rows, columns)[0]
