"""What a run writes down after every epoch: CSV and JSON lines, and TensorBoard events where that package is installed.

The files are made from the run's state as a whole, so that no kill loses or doubles a line. How long things took stands
in a file of its own: the others are the same for the same run.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from archspec.files import write_whole


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """What an epoch came to. Accuracies are shares of the held-out images, 0 to 1; losses are in nats."""

    epoch: int  # from 1
    step: int  # optimizer steps of the run so far
    lr: float  # of the epoch's last step
    loss: float  # mean over the training images, as the recipe has it
    test_loss: float  # cross entropy, mean over the held-out images
    accuracy: float
    top5: float
    ema_test_loss: float | None = None  # the same three of the moving average of the weights
    ema_accuracy: float | None = None
    ema_top5: float | None = None

    @property
    def best(self) -> float:
        """The accuracy of the weights or of their moving average, whichever is higher."""
        return max(self.accuracy, self.ema_accuracy or 0.0)


@dataclass(frozen=True, kw_only=True)
class EpochTiming:
    """How long an epoch took, stops left out."""

    epoch: int
    seconds: float  # of training
    images_per_second: float  # of all processes
    waiting: float  # share of the seconds in which the next images were waited for
    test_seconds: float


Row = EpochMetrics | EpochTiming


def as_csv(rows: Sequence[Row], kind: type[Row]) -> str:
    """A header, and a line a row; what there is none of stays empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return out.getvalue()


def as_lines(rows: Sequence[Row]) -> str:
    """A JSON object a row."""
    return "".join(json.dumps(asdict(row)) + "\n" for row in rows)


class Log:
    """The files of a folder that hold the metrics."""

    def __init__(self, folder: Path) -> None:
        self._lines, self._folder = folder / "metrics.jsonl", folder
        self._events: Any = None

    def agrees(self, history: Sequence[EpochMetrics]) -> bool:
        """Whether the files hold just that; the file that is looked at is the last to be written."""
        try:
            return self._lines.read_text(encoding="utf-8") == as_lines(history)
        except (OSError, ValueError):
            return False

    def write(self, history: Sequence[EpochMetrics], timing: Sequence[EpochTiming]) -> None:
        """All of it. Raises OSError."""
        write_whole(self._folder / "timing.csv", as_csv(timing, EpochTiming).encode())
        write_whole(self._folder / "metrics.csv", as_csv(history, EpochMetrics).encode())
        write_whole(self._lines, as_lines(history).encode())

    def show(self, metrics: EpochMetrics, timing: EpochTiming) -> None:
        """To TensorBoard; events after a resumed state take the place of those that are there."""
        if self._events is None:
            self._events = _event_writer(self._folder / "tensorboard", metrics.step)
        if self._events:
            for name, value in (asdict(metrics) | asdict(timing)).items():
                if value is not None and name not in ("epoch", "step"):
                    self._events.add_scalar(name, value, metrics.step)
            self._events.flush()

    def close(self) -> None:
        """Let the events go."""
        if self._events:
            self._events.close()


def _event_writer(folder: Path, step: int) -> Any:
    """TensorBoard's, or False without the package: the other files hold the same."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return False
    return SummaryWriter(str(folder), purge_step=step)
