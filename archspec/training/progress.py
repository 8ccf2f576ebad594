"""How far a run is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from archspec.training.metrics import EpochMetrics, EpochTiming


@dataclass(kw_only=True)
class Progress:
    """How far a run is."""

    epoch: int = 1  # that is under way
    step: int = 0  # how many of its steps are done
    loss_sum: float = 0.0  # of these steps
    seconds: float = 0.0  # that they took
    waited: float = 0.0  # seconds of these in which the next images were waited for
    best_epoch: int = 0  # whose weights best.safetensors holds
    history: list[EpochMetrics] = field(default_factory=list)
    timing: list[EpochTiming] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """As numbers, text and collections of them."""
        return asdict(self)

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Progress:
        """What `plain` wrote."""
        history = [EpochMetrics(**row) for row in plain["history"]]
        timing = [EpochTiming(**row) for row in plain["timing"]]
        return cls(**{**plain, "history": history, "timing": timing})

    @property
    def best(self) -> EpochMetrics | None:
        """Of the epoch whose weights best.safetensors holds."""
        return self.history[self.best_epoch - 1] if self.best_epoch else None

    def end_epoch(self, metrics: EpochMetrics, timing: EpochTiming) -> None:
        """The epoch is done; the next one begins."""
        self.history.append(metrics)
        self.timing.append(timing)
        if self.best is None or metrics.best > self.best.best:
            self.best_epoch = metrics.epoch
        self.epoch, self.step, self.loss_sum, self.seconds, self.waited = self.epoch + 1, 0, 0.0, 0.0, 0.0
