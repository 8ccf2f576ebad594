"""What drivers ask of whatever runs their jobs: processes on this machine (pool.py), a cluster (ray_tune.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias

from .job import Job
from .store import Result

# finished: with a result, good or bad. busy: another process has the cell. stopped: it was asked to, and goes on later.
Kind: TypeAlias = Literal["epoch", "finished", "busy", "stopped"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What has become of a job. metrics: of an epoch."""

    job: Job
    kind: Kind
    metrics: Mapping[str, Any] = field(default_factory=dict)
    result: Result | None = None


class Executor(Protocol):
    """A context; at its end nothing of it is left running."""

    @property
    def size(self) -> int:
        """How many jobs run at a time."""

    @property
    def free(self) -> int:
        """How many more jobs can be taken now."""

    def submit(self, job: Job) -> None:
        """Begin a job; there must be a free place."""

    def next(self, timeout: float) -> Event | None:
        """The next event; None if there is none within `timeout` seconds."""

    def answer(self, job: Job, *, stop: bool) -> None:
        """After an epoch of a job that asks: whether it ends there."""

    def stop(self) -> None:
        """Ask all jobs to save and leave, and wait until they have."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
