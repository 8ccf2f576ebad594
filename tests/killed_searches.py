"""Searches that are killed: a study of small networks on the digits, whom to kill in it, and what must be there after.

process = start(folder, on)             # on: "local", processes of this machine; "ray", a Ray cluster of its own
kill(process, "worker", on)             # or "driver", or "node" (the raylet of Ray)
...
check(folder)                           # raises AssertionError
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from archspec.search.session.reading import read_record

TRIALS, EPOCHS, AT_A_TIME = 8, 6, 2
STUDY = f"""archspec: 1
study: search
name: killed
base: vit_micro
set: {{input.size: 8, stem.kernel: 4, "stages[0].width": 8, "stages[0].depth": 2, "stages[0].mixer.heads": 2}}
space:
  "stages[0].width": {{int: [8, 32], step: 8}}
  "stages[0].depth": {{int: [1, 4]}}
  "stages[0].ffn.ratio": [1, 2, 3, 4]
budgets: {{params: <=40k}}
evaluation: {{train: quick.yaml, data: digits}}
sampler: random
trials: {TRIALS}
retries: 3
"""
RECIPE = f"archspec: 1\nextends: digits\nepochs: {EPOCHS}\nbatch: 64\nschedule: {{warmup_epochs: 0}}\n"
WHO = {  # in the command line of a process
    ("worker", "local"): "archspec.search.jobs.worker",
    ("worker", "ray"): "ray::ImplicitFunc",
    ("node", "ray"): "raylet/raylet",
}
HOW = {
    "local": ["--jobs", str(AT_A_TIME)],
    "ray": ["--ray", "local", "--cpus-per-trial", str(len(os.sched_getaffinity(0)) / AT_A_TIME)],
}


def start(folder: Path, on: str, more: str = "") -> subprocess.Popen[bytes]:
    """Begin the search in `folder`, or go on with it; `more` is written to the study's file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quick.yaml").write_text(RECIPE)
    (folder / "study.yaml").write_text(STUDY + more)
    command = ["search", str(folder / "study.yaml"), "--out", str(folder / "out"), "--workers", "0", *HOW[on]]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "archspec", *command],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def finish(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Its exit code; None, and its end, where it takes longer."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def results(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Of each cell that is done: when its result was written, and the result."""
    return {
        file.parent.name: (file.stat().st_mtime_ns, file.read_bytes())
        for file in (folder / "out" / "cells").glob("*/result.json")
        if json.loads(file.read_text())["status"] == "done"
    }


def begun(folder: Path) -> bool:
    """Whether a training is under way, or was."""
    return any((folder / "out" / "cells").glob("*/run/*"))


def wait_for_begin(process: subprocess.Popen[bytes], folder: Path, seconds: float = 120) -> bool:
    """Until a training is under way; False where the search has ended before."""
    until = time.monotonic() + seconds
    while not begun(folder):
        if process.poll() is not None or time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def kill(process: subprocess.Popen[bytes], who: str, on: str, seconds: float = 120) -> bool:
    """SIGKILL to the driver itself, to the youngest of its workers, or to its node, once there is one.

    False where the search has ended before.
    """
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        victims = [process.pid] if who == "driver" else list(_descendants(process.pid, WHO[who, on]))
        if victims:
            os.kill(victims[-1], signal.SIGKILL)
            return True
        time.sleep(0.1)
    return False


def _descendants(of: int, named: str) -> Iterator[int]:
    """Processes under a process whose command line has a word; oldest first."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has just ended
            continue
    for process in sorted(commands):
        above = process
        while above in parents and above != of:
            above = parents[above]
        if above == of and process != of and named in commands[process]:
            yield process


def check(folder: Path, done_before: dict[str, tuple[int, bytes]] | None = None) -> None:
    """As many trials as asked for, none lost, none twice, none stuck; no plan trained twice, none done again."""
    _, trials = read_record(folder / "out")
    assert [trial.number for trial in trials] == list(range(len(trials)))
    evaluated = [trial for trial in trials if trial.user_attrs["kind"] == "evaluated"]
    assert Counter(trial.state.name for trial in evaluated) == {"COMPLETE": TRIALS}
    assert all(trial.state.is_finished() for trial in trials)
    assert len({trial.user_attrs["plan"] for trial in evaluated}) == TRIALS
    now = results(folder)
    assert len(now) == TRIALS
    for key in now:
        log = (folder / "out" / "cells" / key / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in log] == list(range(1, EPOCHS + 1))
    for key, result in (done_before or {}).items():
        assert now[key] == result


def plans(folder: Path) -> set[str]:
    """Fingerprints of what was evaluated."""
    return {
        trial.user_attrs["plan"] for trial in read_record(folder / "out")[1] if trial.user_attrs["kind"] == "evaluated"
    }
