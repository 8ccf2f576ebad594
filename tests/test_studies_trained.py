"""Studies trained for real, by the command: killed, stopped, shared, with cells that fail, here and by Ray."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from archspec.cli.app import app
from archspec.errors import UsageError

from .tiny_studies import HEAD, ROWS, tiny_study

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs signals and locks")]
ABLATE = (sys.executable, "-m", "archspec", "ablate")
TABLES = ("results.json", "table.md", "table.tex", "table.csv", "cells.csv", "cost.svg", "differences.svg")
KILLS = 5

# Mixers that train in their own ways; counting and evaluating them is harmless.
FAULTS = """
import os, signal, sys
import torch
from torch import nn
from archspec.registry import register

class Fault(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        if self.training and x.device.type != "meta":
            self.fail()
        return self.proj(x)

@register("mixer", "raises")
class Raises(Fault):
    '''Raises an error of its own.'''
    def fail(self):
        raise ArithmeticError("so it goes")

@register("mixer", "dies")
class Dies(Fault):
    '''Is killed, as by the system.'''
    def fail(self):
        print("the last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

@register("mixer", "starves")
class Starves(Fault):
    '''Asks for more memory than any machine has.'''
    def fail(self):
        torch.empty(2**60)
"""
FAULTY_ROWS = """rows:
  - {name: base}
  - {name: raises, set: {"stages[0].mixer": raises}}
  - {name: dies, set: {"stages[0].mixer": dies}}
  - {name: starves, set: {"stages[0].mixer": starves}}
  - {name: wide, set: {"stages[0].width": 16}}
"""


def command(study: Path, out: Path, *options: str | Path) -> list[str]:
    said = ("--device", "cpu", "--out", out, "--store", out.parent / "cells", *options)
    return [*ABLATE, str(study), *map(str, said)]


def run(*words: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode != 0) == fails, done.stderr
    return done


def invoked(*words: str) -> Result:
    """The same in this process, which has loaded torch already."""
    return CliRunner().invoke(app, list(words[3:]))


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def gone(pids: list[int]) -> bool:
    until = time.monotonic() + 60
    while any(_alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def finished(store: Path) -> dict[str, bytes]:
    """The results that there are, by key."""
    return {file.parent.name: file.read_bytes() for file in store.glob("*/result.json")}


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def test_killed_at_five_random_moments_it_comes_to_the_same(tmp_path: Path):
    study = tiny_study(tmp_path)
    options = ("--epochs", "4", "--recipe-set", "batch=32", "--jobs", "2")
    whole = tmp_path / "whole" / "out"
    begun = time.monotonic()
    run(*command(study, whole, *options))
    seconds = time.monotonic() - begun
    moments = random.Random(7)
    out = tmp_path / "killed" / "out"
    seen: dict[str, bytes] = {}
    for kill in range(KILLS):
        process = subprocess.Popen(command(study, out, *options), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(seconds * moments.uniform(0.4, 0.75))
        workers = children(process.pid)
        process.kill()
        if kill % 2:  # the workers, too; else they notice that they are alone, save, and leave
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
        process.wait()
        now = finished(out.parent / "cells")
        assert seen.items() <= now.items()  # nothing that was done is done again
        seen = now
    assert gone(workers)
    run(*command(study, out, *options))
    now = finished(out.parent / "cells")
    assert seen.items() <= now.items()
    assert set(now) == set(finished(whole.parent / "cells"))
    assert len(now) == 6
    assert all(json.loads(text)["attempts"] == 1 for text in now.values())
    assert tables(out) == tables(whole)
    for key in now:  # each epoch of each cell is there once
        lines = (out.parent / "cells" / key / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly_and_the_same_command_goes_on(tmp_path: Path, number: int):
    study, out = tiny_study(tmp_path), tmp_path / "out"
    long = ("--epochs", "400", "--seeds", "0")
    process = subprocess.Popen(command(study, out, *long), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    runs = tmp_path / "cells"
    while process.poll() is None and not list(runs.glob("*/run/metrics.jsonl")):
        time.sleep(0.02)
    workers = children(process.pid)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the same command goes on" in messages
    assert "Traceback" not in messages
    assert gone(workers)
    assert json.loads((out / "results.json").read_text())["rows"][0]["cells"][0]["status"] == "waiting"


def test_studies_share_cells(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    invoked(*command(tiny_study(tmp_path), first))
    before = finished(tmp_path / "cells")
    rows = "rows:\n  - {name: plain}\n  - {name: broad, set: {'stages[0].width': 16}}\n"
    other = tiny_study(tmp_path, rows, HEAD.replace("name: tiny", "name: other"), "other.yaml")
    done = invoked(*command(other, second))
    assert finished(tmp_path / "cells") == before
    assert done.stderr.count("trained before") == 4
    means = [
        {row["name"]: [cell["metrics"]["top1"] for cell in row["cells"]] for row in json.loads(text)["rows"]}
        for text in ((folder / "results.json").read_text() for folder in (first, second))
    ]
    assert means[1] == {"plain": means[0]["base"], "broad": means[0]["wide"]}


def test_two_studies_at_once_train_no_cell_twice(tmp_path: Path):
    study = tiny_study(tmp_path)
    options = ("--epochs", "6")
    both = [
        subprocess.Popen(command(study, tmp_path / name, *options), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for name in ("one", "two")
    ]
    assert [process.wait(240) for process in both] == [0, 0]
    for process in both:
        process.communicate()
    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    starts = [json.loads(file.read_text()) for file in (tmp_path / "cells").glob("*/run/environment.json")]
    assert [len(start) for start in starts] == [1] * 6


def test_failed_cells_take_no_other_down(tmp_path: Path):
    plugin = tmp_path / "faults.py"
    plugin.write_text(FAULTS)
    study, out = tiny_study(tmp_path, FAULTY_ROWS), tmp_path / "out"
    done = run(*command(study, out, "--plugin", plugin, "--seeds", "0", "--jobs", "2"), fails=True)
    assert done.returncode == 1
    assert "3 cells failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("once more") == 3
    cells = {row["name"]: row["cells"][0] for row in json.loads((out / "results.json").read_text())["rows"]}
    assert {name: cell["status"] for name, cell in cells.items()} == {
        **dict.fromkeys(("base", "wide"), "done"),
        **dict.fromkeys(("raises", "dies", "starves"), "failed"),
    }
    assert "ArithmeticError: so it goes" in cells["raises"]["reason"]
    assert "SIGKILL" in cells["dies"]["reason"]
    assert "the last words" in cells["dies"]["reason"]
    assert "out of memory" in cells["starves"]["reason"]
    results = {
        name: json.loads((tmp_path / "cells" / cell["key"] / "result.json").read_text()) for name, cell in cells.items()
    }
    assert {name: result["fault"] for name, result in results.items() if result["fault"]} == {
        "raises": "run",
        "dies": "crash",
        "starves": "memory",
    }
    assert [results[name]["attempts"] for name in ("base", "raises", "dies", "starves")] == [1, 2, 2, 2]


def test_a_row_over_budget_is_marked_and_not_trained(tmp_path: Path):
    out = tmp_path / "out"
    done = invoked(*command(tiny_study(tmp_path, "budgets: {params: <=4k}\n" + ROWS), out, "--seeds", "0"))
    assert done.exit_code == 0, done.exception
    assert "over budget" in done.stdout
    assert len(finished(tmp_path / "cells")) == 2


def test_a_dry_run_trains_nothing_and_adds_up(tmp_path: Path):
    out = tmp_path / "out"
    found = json.loads(invoked(*command(tiny_study(tmp_path), out, "--dry-run", "--json")).stdout)
    assert not out.exists()
    assert not finished(tmp_path / "cells")
    assert (found["totals"]["cells"], found["totals"]["to_train"]) == (6, 6)
    assert found["totals"]["seconds"] == pytest.approx(sum(cell["seconds"] for cell in found["cells"]))
    assert found["totals"]["memory"] == max(cell["memory"] for cell in found["cells"])
    assert "6 cells, 6 to train" in invoked(*command(tiny_study(tmp_path), out, "--dry-run")).stdout


def test_another_study_s_folder_is_refused(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    other = {"name": "other", "reference": "a", "columns": [], "seeds": [0], "recipe": "", "data": "", "rows": []}
    (out / "results.json").write_text(json.dumps(other))
    exception = invoked(*command(tiny_study(tmp_path), out)).exception
    assert isinstance(exception, UsageError)
    assert "holds the study 'other'" in str(exception)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_comes_to_the_same(tmp_path: Path):
    study = tiny_study(tmp_path)
    here, there = tmp_path / "here" / "out", tmp_path / "there" / "out"
    run(*command(study, here))
    run(*command(study, there, "--ray", "local", "--jobs", "2"))
    assert tables(here) == tables(there)
