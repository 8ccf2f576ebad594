"""How a training run shows itself on stderr: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from archspec.training.checkpoint import Epoch


class Report:
    """A context in which a run of `epochs` times `steps` steps of `batch` images reports how it gets on."""

    def __init__(self, console: Console | None, *, epochs: int, steps: int, batch: int, done: int) -> None:
        self._console = console or Console(stderr=True)
        self._epochs, self._batch = epochs, batch
        text = TextColumn("{task.description}", markup=False)
        self._bar = Progress(
            text, BarColumn(), TimeRemainingColumn(), console=self._console, disable=not self._console.is_terminal
        )
        self._task = self._bar.add_task("", total=epochs * steps, completed=done * steps)
        self._accuracy, self._rate = "-", 0.0
        self._started, self._seen = time.perf_counter(), 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def begin(self) -> None:
        """An epoch begins: its images a second count from here."""
        self._started, self._seen = time.perf_counter(), 0

    def step(self, epoch: int, loss: float) -> None:
        """A step of that epoch (from 1) is done; `loss` is its batch's."""
        self._seen += self._batch
        self._rate = self._seen / (time.perf_counter() - self._started)
        self._bar.update(self._task, advance=1, description=self._line(epoch, loss))

    def end(self, epoch: Epoch) -> None:
        """An epoch is done, evaluated and saved."""
        self._accuracy = f"{epoch.accuracy:.1%}"
        line = self._line(epoch.epoch, epoch.loss)
        self._bar.update(self._task, description=line)
        if not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _line(self, epoch: int, loss: float) -> str:
        where = f"epoch {epoch}/{self._epochs}"
        return f"{where}  loss {loss:.3f}  accuracy {self._accuracy}  {self._rate:,.0f} images/s"
