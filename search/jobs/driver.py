"""Trains cells: those that are done already are taken from the store, those that fail are tried again, others go on."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from .cells import Cell
from .executor import Event, Executor
from .job import Circumstances
from .store import Result

TICK = 0.2  # seconds between two looks at whether someone asks to stop
LOOK_EVERY = 2.0  # seconds between two looks at cells that another command is training


class Watcher(Protocol):
    """Is told how cells get on."""

    def began(self, cell: Cell, *, elsewhere: bool) -> None:
        """It is being trained, here or by another command."""

    def epoch(self, cell: Cell, metrics: Mapping[str, Any]) -> None:
        """An epoch is done."""

    def ended(self, cell: Cell, result: Result, *, again: bool, found: bool) -> None:
        """It is done or has failed; again: it will be tried again; found: it had been done before."""


class Stopped(Exception):
    """Someone asked to stop; what is done is in the store."""


def train_cells(
    cells: Iterable[Cell],
    circumstances: Circumstances,
    executor: Executor,
    watcher: Watcher,
    *,
    retries: int = 0,
    asked: Callable[[], bool] = lambda: False,
) -> dict[str, Result]:
    """Each cell's result by its key. Equal cells are trained once, those that the store has not at all.

    retries: how often a cell that failed is begun again; not where the user asked for what cannot be. asked: whether
    to stop; then all is saved, and Stopped is raised.
    """
    return _Driver(cells, circumstances, executor, watcher, retries, asked).run()


class _Driver:
    """Each cell is waiting, here (in the executor), elsewhere (another command has it), or has its result."""

    def __init__(
        self,
        cells: Iterable[Cell],
        circumstances: Circumstances,
        executor: Executor,
        watcher: Watcher,
        retries: int,
        asked: Callable[[], bool],
    ) -> None:
        self.circumstances, self.executor, self.watcher = circumstances, executor, watcher
        self.store, self.retries, self.asked = circumstances.store, retries, asked
        self.cells = {cell.key: cell for cell in cells}
        self.waiting = deque(self.cells)
        self.here: set[str] = set()
        self.elsewhere: set[str] = set()
        self.failures: Counter[str] = Counter()
        self.results: dict[str, Result] = {}
        self._looked = 0.0

    def run(self) -> dict[str, Result]:
        for key in list(self.waiting):
            if self.take_from_store(key):
                self.waiting.remove(key)
        while self.waiting or self.here or self.elsewhere:
            self.fill()
            event = self.executor.next(TICK)
            if event:
                self.follow(event)
            self.look_elsewhere()
            if self.asked():
                self.executor.stop()
                raise Stopped
        return self.results

    def take_from_store(self, key: str) -> bool:
        """Whether it was done before, by whatever study."""
        result = self.store.result(key)
        if result is None or not result.done:
            return False
        self.finish(key, result, found=True)
        return True

    def fill(self) -> None:
        while self.waiting and self.executor.free:
            key = self.waiting.popleft()
            if self.store.is_locked(key):
                self.wait_for(key)
            elif not self.take_from_store(key):
                self.here.add(key)
                self.watcher.began(self.cells[key], elsewhere=False)
                self.executor.submit(self.circumstances.job(self.cells[key]))

    def follow(self, event: Event) -> None:
        key = event.job.key
        if event.kind == "epoch":
            self.watcher.epoch(self.cells[key], event.metrics)
            return
        self.here.discard(key)
        if event.kind == "busy":
            self.wait_for(key)
        elif event.result is None:  # its worker was asked to stop by someone else: it goes on from what was saved
            self.waiting.append(key)
        else:
            self.finish(key, event.result, found=False)

    def finish(self, key: str, result: Result, *, found: bool) -> None:
        self.failures[key] += not result.done
        again = not result.done and result.fault != "user" and self.failures[key] <= self.retries
        if again:
            self.waiting.append(key)
        else:
            self.results[key] = result
        self.watcher.ended(self.cells[key], result, again=again, found=found)

    def wait_for(self, key: str) -> None:
        self.elsewhere.add(key)
        self.watcher.began(self.cells[key], elsewhere=True)

    def look_elsewhere(self) -> None:
        """Cells that another command has let go: done, or left to us."""
        if not self.elsewhere or time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        free = {key for key in self.elsewhere if not self.store.is_locked(key)}
        self.elsewhere -= free
        self.waiting.extend(key for key in sorted(free))
