"""How a training run shows itself on stderr: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from archspec.training.metrics import EpochMetrics, EpochTiming


class Display:
    """A context in which a run of `epochs` times `steps` steps of `batch` images shows how it gets on.

    done: steps that were done before. console: stderr unless said. shown: only one process of a run shows anything.
    """

    def __init__(
        self, console: Console | None, *, epochs: int, steps: int, batch: int, done: int, shown: bool = True
    ) -> None:
        self._console = console or Console(stderr=True)
        self._epochs, self._batch = epochs, batch
        self._lively = shown and self._console.is_terminal
        self._lines = shown and not self._console.is_terminal
        text = TextColumn("{task.description}", markup=False)
        self._bar = Progress(
            text, BarColumn(), TimeRemainingColumn(), console=self._console, disable=not self._lively, transient=False
        )
        self._task = self._bar.add_task("", total=epochs * steps, completed=done)
        self._accuracy = "-"
        self._started, self._seen = time.perf_counter(), 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def begin(self) -> None:
        """An epoch begins, or goes on: its images a second count from here."""
        self._started, self._seen = time.perf_counter(), 0

    def steps(self, epoch: int, losses: list[float]) -> None:
        """Steps of that epoch (from 1) are done, with these losses."""
        if not self._lively or not losses:
            return
        self._seen += len(losses) * self._batch
        rate = self._seen / (time.perf_counter() - self._started)
        self._bar.update(self._task, advance=len(losses), description=self._line(epoch, losses[-1], rate))

    def end(self, metrics: EpochMetrics, timing: EpochTiming) -> None:
        """An epoch is done, evaluated and saved."""
        self._accuracy = f"{metrics.best:.1%}"
        line = self._line(metrics.epoch, metrics.loss, timing.images_per_second)
        self._bar.update(self._task, description=line)
        if self._lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _line(self, epoch: int, loss: float, rate: float) -> str:
        where = f"epoch {epoch}/{self._epochs}"
        return f"{where}  loss {loss:.3f}  accuracy {self._accuracy}  {rate:,.0f} images/s"
