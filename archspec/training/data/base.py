"""What every data set gives to training and to evaluation.

Shapes: B images of a process's share of a batch, C channels, H and W the network's input size in pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from archspec.errors import UsageError
from archspec.training.data.broken import Broken
from archspec.training.data.stream import Shares

Batch = tuple[Tensor, Tensor]  # images float32 [B, C, H, W], normalised; labels int64 [B] below the number of classes


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What is subtracted from, and what divides, pixels that run from 0 to 1; one number a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Data(ABC):
    """A data set as one process of a run sees it."""

    name: str  # as the user wrote it, without folders
    class_names: tuple[str, ...]
    identity: str  # what must be equal for a run to go on: contents and the shape of an image, never where they stand
    train_size: int  # images; 0 where only the test part was opened
    test_size: int
    shares: Shares
    normalisation: Normalisation
    broken: Broken

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.class_names)

    @property
    def batch(self) -> int:
        """Images of a step over all processes: what was asked for, or all where there are fewer."""
        return self.shares.batch

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.shares.steps

    def check_classes(self, classes: int) -> None:
        """Raises UsageError where a network of that many classes cannot be trained on this data."""
        if classes != self.classes:
            advice = f"--set classes={self.classes}"
            raise UsageError(f"the network has {classes} classes, but {self.name} has {self.classes} (try {advice})")

    @abstractmethod
    def train_epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """This process's share of each step of an epoch (from 0), from `start_step` on.

        What comes depends on the seed, the epoch and the position alone: not on the workers, nor on where one starts.
        Leaves the global random numbers as they are. Raises DataError when too many images cannot be read.
        """

    @abstractmethod
    def test_batches(self) -> Iterator[Batch]:
        """This process's share of the held-out images: every readable one once over all processes, in order."""
