"""Drives a search on whatever runs its jobs (executor.py): fills it, follows it, and stops when someone asks to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..jobs.driver import LOOK_EVERY, TICK, Stopped
from ..jobs.executor import Event, Executor
from ..jobs.job import Job
from .session import Session


@dataclass
class Shares:
    """Where the time of the executor's places has gone: idle, though there was more to begin, or not."""

    places: int
    began: float = field(default_factory=time.monotonic)
    idle: float = 0.0

    @property
    def overhead(self) -> float:
        """The share of the time in which a place waited for its next evaluation."""
        whole = self.places * (time.monotonic() - self.began)
        return self.idle / whole if whole else 0.0


def drive(
    session: Session,
    executor: Executor,
    *,
    asked: Callable[[], bool] = lambda: False,
    changed: Callable[[], object] = lambda: None,
) -> Shares:
    """Until the session is done. changed: is called whenever an evaluation has begun, got on or ended.

    asked: whether to stop; then what is under way is saved, and Stopped is raised.
    """
    return _Drive(session, executor, asked, changed).run()


class _Drive:
    def __init__(
        self, session: Session, executor: Executor, asked: Callable[[], bool], changed: Callable[[], object]
    ) -> None:
        self.session, self.executor, self.asked, self.changed = session, executor, asked, changed
        self.shares = Shares(executor.size)
        self._looked = self.shares.began
        self._later: list[tuple[float, Job]] = []  # another process has them: when to look again
        self._under_way = 0

    def run(self) -> Shares:
        while not self.session.done:
            self._fill()
            if self.asked():
                self.executor.stop()
                raise Stopped
            if self._under_way or self._later:
                event = self.executor.next(TICK)
                self._look(self._under_way)
                if event:
                    self._follow(event)
        return self.shares

    def _look(self, under_way: int) -> None:
        """Since the last look, so many places were at work; the others were idle if there was anything to begin."""
        now = time.monotonic()
        if self.session.wants_more:
            self.shares.idle += (now - self._looked) * max(0, self.shares.places - under_way)
        self._looked = now

    def _fill(self) -> None:
        for due, waiting in list(self._later):
            if due <= time.monotonic():
                self._later.remove((due, waiting))
                self.session.again(waiting)
        while self.executor.free and not self.asked():
            job = self.session.next()
            if job is None:
                break
            self._look(self._under_way)
            self.executor.submit(job)
            self._under_way += 1
            self.changed()

    def _follow(self, event: Event) -> None:
        if event.kind == "epoch":
            stop = self.session.report(event.job, event.metrics)
            if event.job.asks:
                self.executor.answer(event.job, stop=stop)
        else:
            self._under_way -= 1
            if event.kind == "busy":
                self._later.append((time.monotonic() + LOOK_EVERY, event.job))
            elif event.result is None:
                self.session.again(event.job)
            else:
                self.session.finish(event.job, event.result)
            self._look(self._under_way)
        self.changed()
