"""A clock for tests of latency: it says what it is told to, however long things take."""

from __future__ import annotations

from archspec.latency.timing import Effort, Span

TWICE = Effort(repeats=2)


class Fake:
    """The first part of each run takes 1 ms, the second 2 ms, and so on; on a slower machine, more."""

    def __init__(self, slowness: float = 1.0) -> None:
        self.slowness, self.laps, self.starts = slowness, 0, 0

    def start(self) -> None:
        self.laps, self.starts = 0, self.starts + 1

    def lap(self) -> None:
        self.laps += 1

    def spans(self) -> list[Span]:
        return [Span(self.slowness * (lap + 1) / 1000) for lap in range(self.laps)]
