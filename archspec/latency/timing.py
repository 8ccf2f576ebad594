"""Clocks, and runs taken in turns.

A clock is started, told of the end of each part of a run, and then says how long each part took. Subjects (whole
networks, chains of units, the reference) take turns, so that a machine that slows down for a while slows all of them.
Each turn begins with a run that is not timed: the caches are then as the subject itself leaves them.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch

from archspec.latency.setting import Setting

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ROUNDS = 5
MIN_RUNS = 10
MAX_RUNS = 1000
TOGETHER = 8  # networks that are in memory, and take turns, at a time


class Span(NamedTuple):
    """How long a part of a run took, in seconds, and how often other processes were let in front meanwhile."""

    seconds: float
    interruptions: int = 0


Run = Sequence[Span]  # the parts of one run


@dataclass(frozen=True, slots=True)
class Interval:
    """Seconds: the median of the runs, and their lower and upper quartiles."""

    low: float
    median: float
    high: float

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.median + other.median, self.high + other.high)

    def scaled(self, factor: float) -> Interval:
        """All three times a factor."""
        return Interval(self.low * factor, self.median * factor, self.high * factor)


class Clock(Protocol):
    """`start`, then `lap` at the end of each part; `spans` gives their times."""

    def start(self) -> None:
        """Wait until the device is idle, and begin."""

    def lap(self) -> None:
        """A part ends here, and the next begins."""

    def spans(self) -> list[Span]:
        """The times of the parts, once all of them are done."""


class CpuClock:
    """The wall clock; the system says how often a thread of this process had to wait for another process."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def start(self) -> None:
        """Begin."""
        self._marks = [(time.perf_counter(), _interruptions())]

    def lap(self) -> None:
        """A part ends here."""
        self._marks.append((time.perf_counter(), _interruptions()))

    def spans(self) -> list[Span]:
        """The times of the parts."""
        return [Span(end[0] - begin[0], end[1] - begin[1]) for begin, end in pairwise(self._marks)]


class CudaClock:
    """CUDA events in the stream of the current GPU: the GPU itself says when it came by."""

    def __init__(self) -> None:
        self._events: list[torch.cuda.Event] = []

    def start(self) -> None:
        """Wait until the GPU is idle, and begin."""
        torch.cuda.synchronize()
        self._events = []
        self.lap()

    def lap(self) -> None:
        """A part ends here, once the GPU has come so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def spans(self) -> list[Span]:
        """The times of the parts; waits for the last."""
        self._events[-1].synchronize()
        return [Span(begin.elapsed_time(end) / 1000) for begin, end in pairwise(self._events)]


def clock_of(setting: Setting) -> Clock:
    """The clock of a setting's device."""
    return CudaClock() if setting.is_cuda else CpuClock()


class Subject(Protocol):
    """What can be run again and again."""

    def run(self, clock: Clock) -> Run:
        """Run once, and say how long each part took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How often a subject is timed: `repeats` times, or as often as fits into `seconds`, but 10 times at least."""

    seconds: float = 3.0
    repeats: int | None = None

    def runs(self, once: float) -> int:
        """The number of runs for a subject that takes `once` seconds."""
        if self.repeats is not None:
            return self.repeats
        return min(max(MIN_RUNS, math.ceil(self.seconds / max(once, 1e-6))), MAX_RUNS)


def take_turns(
    subjects: Sequence[tuple[Subject, Effort]],
    clock: Clock,
    progress: Callable[[int, int], None] | None = None,
    *,
    rounds: int = ROUNDS,
) -> list[list[Run]]:
    """The timed runs of each subject, in `rounds` turns each. Before the first, each runs twice without being timed.

    progress: told after each turn how many of how many are done.
    """
    counts = [effort.runs(_warmed_up(subject, clock)) for subject, effort in subjects]
    runs: list[list[Run]] = [[] for _ in subjects]
    turns = [(turn, index) for turn in range(rounds) for index in range(len(subjects))]
    with _no_garbage_collection():
        for done, (turn, index) in enumerate(turns, start=1):
            begin, end = (counts[index] * t // rounds for t in (turn, turn + 1))
            if end > begin:
                subject, _ = subjects[index]
                subject.run(clock)
                runs[index] += [subject.run(clock) for _ in range(end - begin)]
            if progress:
                progress(done, len(turns))
    return runs


def summary(spans: Sequence[Span]) -> Interval:
    """Median and quartiles of the calm runs: at least a quarter of all, those that were interrupted least.

    On a quiet machine no run is interrupted, and all count. On a busy one the calm runs say more of the network, and
    the others more of its neighbours. What is left out is chosen by interruptions, never by the time itself.
    """
    limit = sorted(span.interruptions for span in spans)[(len(spans) - 1) // 4]
    seconds = [span.seconds for span in spans if span.interruptions <= limit]
    if len(seconds) == 1:
        return Interval(*seconds * 3)
    return Interval(*statistics.quantiles(seconds, n=4, method="inclusive"))


def _warmed_up(subject: Subject, clock: Clock) -> float:
    """Seconds of the second run; the first allocates, chooses algorithms and may compile."""
    subject.run(clock)
    return sum(span.seconds for span in subject.run(clock))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _interruptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0
