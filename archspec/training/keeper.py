"""What a run leaves in its folder, and what it does when that cannot be written: it warns, goes on, and tries again."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

from archspec.checkpoints import save_weights
from archspec.errors import TrainingError, UsageError
from archspec.network import Network
from archspec.training.folder import CHECKPOINTS, FORMAT
from archspec.training.metrics import Log
from archspec.training.progress import Progress
from archspec.training.snapshots import Position, Snapshots
from archspec.training.trainer import Trainer

LAST, LAST_EMA, BEST = "last.safetensors", "last_ema.safetensors", "best.safetensors"


class Keeper:
    """Writes a run's files. The state comes first: all others follow from it, and are written anew where they lag."""

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self.folder, self.trainer = folder, trainer
        self.snapshots = Snapshots(folder / CHECKPOINTS)
        self.saved: Position | None = None
        self.log = Log(folder)
        self._failed: set[str] = set()
        self._owed: Network | None = None  # with the best weights, as long as they could not be written

    def restore(self, *, tidy: bool) -> Progress:
        """Load the newest whole state; `tidy`: remove what a kill has left half written. Raises UsageError."""
        if tidy:
            self.snapshots.tidy()
        state = self.snapshots.load()
        if state is None:
            return Progress()
        try:
            if state["format"] != FORMAT:
                raise ValueError("another version of archspec wrote it")
            self.trainer.load(state)
            at = Progress.read(state["progress"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UsageError(f"{self.folder}: holds the state of another run: {error} (try another folder)") from error
        self.saved = (at.epoch, at.step)
        return at

    def catch_up(self, at: Progress) -> None:
        """After a kill between the state and the other files: write those."""
        if at.history and not self.log.agrees(at.history):
            self.settle(at)

    def save(self, at: Progress) -> None:
        """The state, as of now."""
        position = (at.epoch, at.step)
        state = {"format": FORMAT, "progress": at.plain(), **self.trainer.state()}
        if self._try(CHECKPOINTS, lambda: self.snapshots.save(*position, state)):
            self.saved = position

    def settle(self, at: Progress) -> None:
        """What follows from the state at the end of an epoch: weights, and last the metrics."""
        if at.step == 0:
            network, ema = self.trainer.network, self.trainer.ema
            self._weights(network, LAST)
            if ema:
                self._weights(ema.module, LAST_EMA)
            self._best(at)
        self._try("metrics.csv", lambda: self.log.write(at.history, at.timing))

    def finish(self, at: Progress) -> None:
        """Raises TrainingError where the last state or the last metrics still cannot be written."""
        if not self._failed:
            return
        self._failed.clear()
        self.save(at)
        self.settle(at)
        if self._failed:
            raise TrainingError(
                f"{self.folder}: the run is at its end, but its files cannot be written: "
                f"{', '.join(sorted(self._failed))} (make room, and resume it)"
            )

    def _best(self, at: Progress) -> None:
        last, ema = at.history[-1], self.trainer.ema
        if at.best_epoch == last.epoch:
            self._owed = ema.module if ema and last.best > last.accuracy else self.trainer.network
        if self._owed is not None:
            written = self._weights(self._owed, BEST)
            self._owed = None if written else copy.deepcopy(self._owed)

    def _weights(self, network: Network, name: str) -> bool:
        return self._try(name, lambda: save_weights(network, self.folder / name))

    def _try(self, what: str, write: Callable[[], object]) -> bool:
        """Whether it could be written. What stood there before then still does."""
        try:
            write()
        except (OSError, RuntimeError, UsageError) as error:
            self._failed.add(what)
            message = f"{self.folder}: {what} cannot be written: {error}; the run goes on, what was saved before stays"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
            return False
        self._failed.discard(what)
        return True
