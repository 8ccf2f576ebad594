"""What a training run is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass

from archspec.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train; the defaults suit small networks on the digits. Raises UsageError for a value out of range."""

    epochs: int = 30  # passes over the training images, 1 or more
    batch_size: int = 32  # images a step, 1 or more
    lr: float = 1e-3  # the peak of the learning rate, reached at the end of the warm-up
    weight_decay: float = 0.05  # decoupled (AdamW), 0 or more
    warmup_epochs: int = 5  # epochs of linear warm-up, 0 or more; all are when there are no more than these
    label_smoothing: float = 0.1  # probability spread over all classes, 0 up to but not including 1
    seed: int = 0  # of the order, the augmentation and the network's dropout; 0 or more
    augment: bool = False  # shift training images by up to an eighth of their height and width; learns more slowly
    device: str = "auto"  # a torch device, or auto: a CUDA device where there is one, else the CPU

    def __post_init__(self) -> None:
        self._require("epochs", self.epochs >= 1, "must be 1 or more")
        self._require("batch_size", self.batch_size >= 1, "must be 1 or more")
        self._require("lr", 0 < self.lr < math.inf, "must be above 0")
        self._require("weight_decay", 0 <= self.weight_decay < math.inf, "must be 0 or more")
        self._require("warmup_epochs", self.warmup_epochs >= 0, "must be 0 or more")
        self._require("label_smoothing", 0 <= self.label_smoothing < 1, "must be 0 or more, and below 1")
        self._require("seed", self.seed >= 0, "must be 0 or more")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise UsageError(f"{name}: {getattr(self, name)} {rule}")
