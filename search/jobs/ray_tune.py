"""Jobs on a Ray cluster, run by Ray Tune: fractions of CPUs and GPUs, on this machine or on many.

Tune asks a Searcher of ours for trials, which hands it the jobs that a driver has submitted, and tells it how they get
on. What is proposed, what ends early and what has been found is the driver's: Tune keeps nothing that anyone needs
later, and whoever drives may be killed with it and begin again from the record. Every machine of the cluster must see
the store's folder under the same name, and have archspec installed.

Facts of Ray 2.60 that this is built on: a function that trains is stopped from within, so it asks whether it should; a
trial that dies is told before its error is known; fit() returns when every trial has failed; Ray prints to stdout.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import shutil
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from archspec.errors import RunError, UsageError

from .executor import Event
from .job import Job
from .perform import perform
from .pool import GRACE, record_crash
from .store import Result
from .worker import logged

try:
    import ray
    from ray import tune
    from ray.tune.search import Searcher
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as missing:
    raise UsageError("--ray needs the package ray: pip install 'archspec-vision[ray]'") from missing

FOLDER = ".ray"  # in the store: where Tune writes while it runs
POLL = 0.1  # seconds between two looks of a trial at whether its answer is there
DEAD = 10.0  # seconds that Tune gets to end trials after something has gone wrong
PATIENCE = 10.0  # seconds for a cluster to answer
LOOK_EVERY = 5.0  # seconds between two looks at whether this machine's part of Ray is alive
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables would go to stdout
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # who asks for no GPU sees none
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


class TuneExecutor:
    """Runs jobs on a cluster, as many at a time as it has room for.

    address: `auto` for the cluster that this machine belongs to, `local` for one of this machine alone, or HOST:PORT.
    cpus, gpus: of each job; a fraction of a GPU is shared. limit: jobs at a time. Entering raises UsageError where the
    cluster is not there, or has no room for a single job. A connection to Ray that is there already is used, and stays.
    """

    def __init__(self, address: str, *, cpus: float = 1.0, gpus: float = 0.0, limit: int | None = None) -> None:
        if address.startswith("ray://"):  # Tune, and the Searcher with the record, would move to the cluster
            raise UsageError(f"--ray {address}: start the command on a machine of the cluster, with --ray auto")
        self.size = 0
        self._address, self._cpus, self._gpus, self._limit = address, cpus, gpus, limit
        self._jobs: dict[str, Job] = {}
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._hand = _Hand(self._events)
        self._leave = _Leave()
        self._tune: threading.Thread | None = None
        self._board: Any = None
        self._folder = Path()
        self._node = ""
        self._looked = 0.0
        self._failure = "it has ended"
        self._stack = ExitStack()

    @property
    def free(self) -> int:
        """How many more jobs can be taken now."""
        return self.size - len(self._jobs)

    def submit(self, job: Job) -> None:
        """Begin a job; there must be a free place."""
        if job.asks and self._board is None:
            here = NodeAffinitySchedulingStrategy(self._node, soft=False)
            self._board = (
                ray.remote(_Board).options(name=self._hand.board, num_cpus=0, scheduling_strategy=here).remote()
            )
        self._jobs[job.key] = job
        self._hand.waiting.put(job)
        if self._tune is None:
            self._folder = Path(job.store) / FOLDER
            self._tune = threading.Thread(target=self._run, daemon=True)
            self._tune.start()

    def next(self, timeout: float) -> Event | None:
        """The next event; None if there is none within `timeout` seconds. Raises RunError if Ray does not go on."""
        self._look()
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if event is None:
            raise RunError(f"Ray Tune does not go on: {self._failure}")
        if event.kind != "epoch":
            self._jobs.pop(event.job.key, None)
        return event

    def _look(self) -> None:
        """Without its own raylet a driver waits for ever: Tune expects that machines come back."""
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == self._node):
            raise RunError("Ray's process on this machine (the raylet) has died; the same command goes on")

    def answer(self, job: Job, *, stop: bool) -> None:
        """After an epoch of a job that asks: whether it ends there."""
        self._board.put.remote(job.key, stop)

    def stop(self) -> None:
        """End all jobs. Each goes on later from what it has saved, at the end of its last epoch or since."""
        self._leave.now = True
        self._finish(GRACE)

    def __enter__(self) -> Self:
        if self._address not in ("auto", "local"):
            _knock(self._address)
        with ExitStack() as stack:
            stack.enter_context(redirect_stdout(sys.stderr))
            if not ray.is_initialized():
                stack.callback(ray.shutdown)
                _connect(self._address, self._cpus)
            self._node = ray.get_runtime_context().get_node_id()
            self.size = _room(self._address, self._cpus, self._gpus, self._limit)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._stack:
            self._leave.now = self._leave.now or bool(self._jobs)
            self._finish(GRACE if error is None else DEAD)
            self._board = None  # the actor goes with its last handle

    def _finish(self, seconds: float) -> None:
        self._hand.waiting.put(None)
        if self._tune is not None:
            self._tune.join(seconds)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self) -> None:
        """Tune's loop, in a thread of its own."""
        resources = {"cpu": self._cpus, "gpu": self._gpus}
        try:
            tune.Tuner(
                tune.with_resources(train, resources),
                tune_config=tune.TuneConfig(
                    search_alg=self._hand,
                    num_samples=-1,  # until the Searcher says that it has finished
                    reuse_actors=True,
                    trial_dirname_creator=_dirname,
                ),
                run_config=tune.RunConfig(
                    name=self._hand.board,
                    storage_path=str(self._folder),
                    stop=self._leave,
                    verbose=0,
                    callbacks=[_Obituaries(self._hand)],
                ),
            ).fit()
        except Exception as error:  # whatever Ray raises when a cluster falls apart
            self._failure = f"{type(error).__name__}: {str(error).strip().rpartition(chr(10))[2]}"
        finally:
            self._events.put(None)


def _connect(address: str, cpus: float) -> None:
    """Raises UsageError where there is no such cluster."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    variables = {**SETTINGS, "RAY_CHDIR_TO_TRIAL_DIR": "0", "OMP_NUM_THREADS": str(max(1, int(cpus)))}
    main = threading.current_thread() is threading.main_thread()
    noted = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            runtime_env={"env_vars": variables},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        hint = "try auto, or local; a cluster that wants a token needs RAY_AUTH_MODE=token"
        raise UsageError(f"--ray {address}: cannot be reached: {reason} ({hint})") from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, noted)  # Ray puts its own in the place of ours


def _knock(address: str) -> None:
    """Raises UsageError where nobody answers: Ray itself would try for ten minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--ray {address}: is no address (auto, local or HOST:PORT, such as 10.0.0.1:6379)")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--ray {address}: nobody answers there: {error} (try auto, or local)") from error


def _room(address: str, cpus: float, gpus: float, limit: int | None) -> int:
    """How many jobs the cluster can run at a time. Raises UsageError for none."""
    there = ray.cluster_resources()
    room = [there.get("CPU", 0.0) / cpus] + ([there.get("GPU", 0.0) / gpus] if gpus else [])
    size = min([int(one + 1e-9) for one in room] + ([limit] if limit else []))
    if size < 1:
        has = f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}"
        raise UsageError(f"--ray {address}: a job needs {cpus:g} CPUs and {gpus:g} GPUs, the cluster has {has}")
    return size


class _Hand(Searcher):  # type: ignore[misc]  # ray's types are not read
    """Hands Tune the jobs that wait, and the driver's queue what becomes of them."""

    def __init__(self, events: queue.SimpleQueue[Event | None]) -> None:
        super().__init__()
        self.waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()  # None: there are no more
        self.board = f"archspec-{uuid.uuid4().hex}"
        self._events = events
        self._running: dict[str, Job] = {}  # by trial

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of it is in what Tune writes to its folder, which nobody reads."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next job as a trial; None if there is none now."""
        try:
            job = self.waiting.get_nowait()
        except queue.Empty:
            return None
        if job is None:
            return cast("str", Searcher.FINISHED)
        self._running[trial_id] = job
        return {"job": json.dumps(job.plain()), "board": self.board}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A trial has said something."""
        told, job = json.loads(result["told"]), self._running[trial_id]
        if "epoch" in told:
            self._events.put(Event(job=job, kind="epoch", metrics=told["epoch"]))
            return
        del self._running[trial_id]
        if told["result"] is None:
            self._events.put(Event(job=job, kind="busy"))
        else:
            self._events.put(Event(job=job, kind="finished", result=Result(**told["result"])))

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """A trial is over. One that has died is left to `died`; one that has said no result was stopped."""
        if not error and trial_id in self._running:
            self._events.put(Event(job=self._running.pop(trial_id), kind="stopped"))

    def died(self, trial_id: str, reason: str) -> None:
        """The process of a trial is gone, or its machine."""
        job = self._running.pop(trial_id, None)
        if job is not None:
            self._events.put(Event(job=job, kind="finished", result=record_crash(job, reason)))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the driver's record is what there is to know."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Obituaries(tune.Callback):  # type: ignore[misc]
    """Learns why a trial has died, which a Searcher is not told."""

    def __init__(self, hand: _Hand) -> None:
        self._hand = hand

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has died."""
        self._hand.died(trial.trial_id, _reason(trial.error_file))


class _Leave(tune.Stopper):  # type: ignore[misc]
    """Ends all trials at once."""

    def __init__(self) -> None:
        self.now = False

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether everything ends."""
        return self.now


class _Board:
    """Answers to trials that ask whether they end; an actor on the driver's machine."""

    def __init__(self) -> None:
        self._answers: dict[str, bool] = {}

    def put(self, key: str, stop: bool) -> None:
        """Answer a job."""
        self._answers[key] = stop

    def take(self, key: str) -> bool | None:
        """The answer to a job, once; None if there is none yet."""
        return self._answers.pop(key, None)


def train(config: Mapping[str, Any]) -> None:
    """A trial, in a process of the cluster: performs the job in `config` and tells of its epochs and its result."""
    job = Job.read(json.loads(config["job"]))

    def on_epoch(metrics: Mapping[str, Any]) -> bool:
        tune.report({"told": json.dumps({"epoch": metrics})})
        return job.asks and _ends(config["board"], job.key)

    with logged(Path(job.store) / job.key):
        result = perform(job, on_epoch)
    _free_memory()
    tune.report({"told": json.dumps({"result": None if result is None else asdict(result)})})


def _ends(board: str, key: str) -> bool:
    """Wait for the driver's answer."""
    actor = ray.get_actor(board)
    while (answer := ray.get(actor.take.remote(key))) is None:
        time.sleep(POLL)
    return bool(answer)


def _free_memory() -> None:
    """The process stays for the next job; what it keeps of a GPU's memory would be missing to its neighbours."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _reason(error_file: str | None) -> str:
    """What Ray says in the file that Tune writes for a trial that has died: when it did, and then why."""
    try:
        lines = Path(error_file or "").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return lines[1].strip() if len(lines) > 1 else "the process of the trial has died"


def _dirname(trial: Any) -> str:
    return str(trial.trial_id)
