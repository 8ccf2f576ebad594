"""Which images a process takes at each step: a function of the seed, the epoch and the position alone.

A position numbers the images of an epoch in the order in which one process would take them: step s of a global batch B
takes the positions s*B up to (s+1)*B. With several processes, the process of a rank takes every world-th of those, so
that the shares of all ranks together are what one process takes, and an epoch can be taken up at any step.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from archspec.errors import UsageError


class Key(NamedTuple):
    """One image of an epoch: the epoch and the position seed its augmentation."""

    epoch: int
    position: int
    image: int  # its number in the training set


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How an epoch is dealt out. Raises UsageError where a batch cannot be shared equally."""

    images: int  # in the training set
    batch: int  # images of all processes at a step; no more than there are images
    seed: int
    rank: int = 0
    world: int = 1  # processes
    repeats: int = 1  # how often an epoch shows an image, differently augmented; it shows `images` in all

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise UsageError(f"rank {self.rank} of {self.world} processes is none of 0 to {self.world - 1}")
        if self.batch < 1 or self.batch % self.world:
            near = max(1, round(self.batch / self.world)) * self.world
            raise UsageError(f"batch: {self.batch} images cannot be shared by {self.world} processes (try {near})")

    @property
    def steps(self) -> int:
        """Steps of an epoch; images that do not fill a batch wait for another epoch's order."""
        return self.images // self.batch

    def order(self, epoch: int) -> Tensor:
        """The image at each position, int64 [images]; with repeats, one image after the other as often as that."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
        order = torch.randperm(self.images, generator=generator)
        return order.repeat_interleave(self.repeats)[: self.images]

    def positions(self, step: int) -> range:
        """This process's positions of a step."""
        return range(step * self.batch + self.rank, (step + 1) * self.batch, self.world)

    def keys(self, epoch: int, start_step: int) -> Iterator[list[Key]]:
        """This process's images, a list a step."""
        order = self.order(epoch)
        for step in range(start_step, self.steps):
            positions = self.positions(step)
            images = order[torch.tensor(positions)].tolist()
            yield [Key(epoch, position, image) for position, image in zip(positions, images, strict=True)]


def seed_of(*parts: int) -> int:
    """A seed of 63 bits from numbers such as seed, epoch and position; the same in every process and release."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global random numbers of Python, NumPy and torch (CPU) start from `seed` inside, and go on as before after.

    Augmentations draw from all three. Not by `torch.manual_seed`, which would seed the GPUs as well.
    """
    import numpy as np

    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(tensors)
