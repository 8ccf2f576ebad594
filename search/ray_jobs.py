"""Jobs on a Ray cluster: a remote task a cell. The only file that imports ray.

The store must be a folder that every machine of the cluster sees under the same name, and archspec must be installed on
each. Tasks tell nothing of their epochs; the run's own files do.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from archspec.errors import UsageError

from .executor import Event
from .jobs import Job, perform
from .store import Result
from .workers import GRACE, record_crash


def import_ray() -> Any:
    """Ray, or a UsageError that says how to install it."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError("--ray needs the package ray: pip install 'archspec-vision[ray]'") from error


def _perform(plain: Mapping[str, Any]) -> dict[str, Any] | None:
    result = perform(Job.read(plain))
    return None if result is None else asdict(result)


class RayExecutor:
    """Runs jobs on a cluster, as many at a time as it has room for.

    address: `auto` for the cluster that this machine belongs to, `local` for one of this machine alone, else
    ray://HOST:PORT. cpus, gpus: of each job; a fraction of a GPU is shared. limit: jobs at a time. Raises UsageError
    where the cluster is not there or has no room for a single job.
    """

    def __init__(self, address: str, *, cpus: float = 1.0, gpus: float = 0.0, limit: int | None = None) -> None:
        self._ray = ray = import_ray()
        try:
            ray.init(address=address, log_to_driver=False, logging_level="warning", include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(f"--ray {address}: cannot be reached: {reason} (try auto, or local)") from error
        there = ray.cluster_resources()
        room = [there.get("CPU", 0.0) / cpus] + ([there.get("GPU", 0.0) / gpus] if gpus else [])
        self.size = min([int(one + 1e-9) for one in room] + ([limit] if limit else []))
        if self.size < 1:
            ray.shutdown()
            wanted = f"{cpus:g} CPUs and {gpus:g} GPUs"
            has = f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}"
            raise UsageError(f"--ray {address}: a cell needs {wanted}, the cluster has {has}")
        threads = {"env_vars": {"OMP_NUM_THREADS": str(max(1, int(cpus)))}}
        # A task that died is tried again by the driver, which counts how often.
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, runtime_env=threads)(_perform)
        self._running: dict[Any, Job] = {}

    @property
    def free(self) -> int:
        """How many more jobs can be taken now."""
        return self.size - len(self._running)

    def submit(self, job: Job) -> None:
        """Begin a job; there must be a free place."""
        self._running[self._task.remote(job.plain())] = job

    def next(self, timeout: float) -> Event | None:
        """The next job that has ended; None if there is none within `timeout` seconds."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout) if self._running else ([], [])
        if not ready:
            return None
        job = self._running.pop(ready[0])
        try:
            plain = self._ray.get(ready[0])
        except self._ray.exceptions.TaskCancelledError:
            return Event(job=job, kind="stopped")
        except self._ray.exceptions.RayError as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            return Event(job=job, kind="finished", result=record_crash(job, reason))
        if plain is None:
            return Event(job=job, kind="busy")
        return Event(job=job, kind="finished", result=Result(**plain))

    def answer(self, job: Job, *, stop: bool) -> None:
        """Tasks do not ask."""

    def stop(self) -> None:
        """Ask all tasks to save and leave, and wait until they have."""
        for task in self._running:
            self._ray.cancel(task)  # as SIGINT does, which training notes
        if self._running:
            with suppress(self._ray.exceptions.RayError):
                self._ray.wait(list(self._running), num_returns=len(self._running), timeout=GRACE)
        self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._ray.shutdown()
