"""Jobs in processes on this machine: a pool of workers, each with its share of the threads, and of the GPUs.

A worker is a process of its own (worker.py). One that dies takes no other job with it: the job that it was at has
failed, with how the process ended as the reason, and another worker takes its place.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from .executor import Event
from .job import Job
from .perform import failed
from .store import LOG, Result, Store

GRACE = 60.0  # seconds in which a worker may finish its step and save
OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def cores() -> int:
    """Threads that this command may use: those that OMP_NUM_THREADS says, else the cores that it may run on."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdecimal() and int(said):
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus(device: str) -> list[str]:
    """The GPUs among which jobs are dealt out, as CUDA_VISIBLE_DEVICES names them; none where `device` says which."""
    if device not in ("auto", "cuda"):
        return []
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [name.strip() for name in said.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


class Pool:
    """Up to `size` workers, started when they are first needed.

    threads: of each worker; an equal share unless said. gpus: dealt out to the workers in turn.
    """

    def __init__(
        self, size: int, *, threads: int | None = None, gpus: Sequence[str] = (), grace: float = GRACE
    ) -> None:
        self.size, self.grace = size, grace
        self.threads = threads or max(1, cores() // size)
        self._gpus = list(gpus)
        self._events: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._places: list[_Worker | None] = [None] * size
        self._leaving: list[_Worker] = []

    @property
    def free(self) -> int:
        """How many more jobs can be taken now."""
        return sum(worker is None or worker.job is None for worker in self._places)

    def warm(self) -> None:
        """Start all workers now, while there is something else to do."""
        while None in self._places:
            self._start()

    def submit(self, job: Job) -> None:
        """Begin a job; there must be a free place."""
        idle = [worker for worker in self._places if worker and worker.job is None]
        worker = idle[0] if idle else self._start()
        worker.job = job
        worker.say({"job": job.plain()})

    def next(self, timeout: float) -> Event | None:
        """The next event; None if there is none within `timeout` seconds."""
        until = time.monotonic() + timeout
        while True:
            try:
                worker, message = self._events.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return None
            event = self._ended(worker) if message is None else self._told(worker, message)
            if event:
                return event

    def answer(self, job: Job, *, stop: bool) -> None:
        """After an epoch of a job that asks: whether it ends there."""
        for worker in self._places:
            if worker and worker.job is job:
                worker.say({"stop": stop})

    def stop(self) -> None:
        """Ask all jobs to save and leave, and wait until they have; those that do not are ended."""
        workers = [worker for worker in (*self._places, *self._leaving) if worker]
        for worker in workers:
            worker.dismiss()
        until = time.monotonic() + self.grace
        for worker in workers:
            worker.end(until - time.monotonic())
        self._places, self._leaving = [None] * self.size, []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in (*self._places, *self._leaving):
            if worker:
                worker.end(0.0 if worker.job else 5.0)

    def _start(self) -> _Worker:
        place = self._places.index(None)
        environment = {name: value for name, value in os.environ.items() if name not in OF_TORCHRUN}
        environment["OMP_NUM_THREADS"] = str(self.threads)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[place % len(self._gpus)]
        worker = self._places[place] = _Worker(environment, self._events)
        return worker

    def _told(self, worker: _Worker, message: dict[str, Any]) -> Event | None:
        job = worker.job
        if job is None or "ready" in message:
            return None
        if "epoch" in message:
            return Event(job=job, kind="epoch", metrics=message["epoch"])
        worker.job = None
        if "result" not in message:
            return Event(job=job, kind="busy" if "busy" in message else "stopped")
        result = Result(**message["result"])
        if result.fault == "memory" and worker in self._places:
            self._replace(worker)  # what the process still holds would be missing to the next job
        return Event(job=job, kind="finished", result=result)

    def _replace(self, worker: _Worker) -> None:
        worker.dismiss()
        self._places[self._places.index(worker)] = None
        self._leaving.append(worker)

    def _ended(self, worker: _Worker) -> Event | None:
        """A worker's process is gone; the job that it was at, if any, has failed."""
        if worker in self._leaving:
            self._leaving.remove(worker)
        elif worker in self._places:
            self._places[self._places.index(worker)] = None
        else:  # it was asked to leave, and has been seen off
            return None
        how, job = worker.obituary(), worker.job
        return Event(job=job, kind="finished", result=record_crash(job, how)) if job else None


def record_crash(job: Job, reason: str) -> Result:
    """Write down that the process that was at a job has died; another that is at it by now is left alone."""
    store = Store(Path(job.store))
    before = store.result(job.key)
    if before and before.done:
        return before
    last = _last_line(store.folder_of(job.key) / LOG)
    told = f"{reason}; its log ends: {last}" if last else reason
    result = failed(job, "crash", told, attempts=before.attempts + 1 if before else 1)
    with store.locked(job.key) as ours:
        if ours:
            store.write(result)
    return result


def _last_line(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace")[-4000:].split("\n")
    except OSError:
        return ""
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


class _Worker:
    """A worker's process, seen from the command that started it. job: what it is at."""

    def __init__(
        self, environment: dict[str, str], events: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]
    ) -> None:
        self.job: Job | None = None
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "archspec.search.jobs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            encoding="utf-8",
            start_new_session=True,  # what the terminal sends is for the command, which tells its workers
        )
        self._listener = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._listener.start()

    def _listen(self, events: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        for line in self._process.stdout or ():
            with suppress(ValueError):  # a process that dies while it speaks
                events.put((self, json.loads(line)))
        events.put((self, None))

    def say(self, message: dict[str, Any]) -> None:
        """A message; one that nobody reads any more is lost, and its end is told by `_listen`."""
        if self._process.stdin:
            with suppress(OSError, ValueError):
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()

    def dismiss(self) -> None:
        """It saves what it is at, and leaves."""
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()

    def end(self, seconds: float) -> None:
        """Wait that long until it has left; then it is made to."""
        self.dismiss()
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def obituary(self) -> str:
        """How the process ended, in words."""
        self.dismiss()
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().split("\n") if line.strip()]
        self._close()
        said = f": {lines[-1][:200]}" if lines else ""
        if code >= 0:
            return f"the process ended with exit code {code}{said}"
        name = signal.Signals(-code).name
        why = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{why}{said}"

    def _close(self) -> None:
        """Let its files go; a process of its own that outlives it may keep stdout open a little longer."""
        self._listener.join(1.0)
        self._errors.close()
        if self._process.stdout and not self._listener.is_alive():
            self._process.stdout.close()
