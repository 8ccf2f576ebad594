"""Training as it is started: one process by its command, two by torchrun, stopped from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .tiny_runs import EVERYTHING, RECIPE, SPEC, outcome, same

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs signals")]
ONE = (sys.executable, "-m", "archspec", "train")
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", *ONE[2:])
NETWORK = ("vit_micro", *(word for patch in SPEC for word in ("--set", patch)))


def options(*recipe_sets: str) -> tuple[str, ...]:
    return (
        "--device",
        "cpu",
        "--recipe",
        str(RECIPE),
        *(word for patch in recipe_sets for word in ("--recipe-set", patch)),
    )


def finished(*command: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done


def stopped(command: tuple[str | Path, ...], folder: Path, epochs: int, number: int) -> tuple[int, str]:
    """Start it, and send the signal once that many epochs are in its metrics: its exit code, and what it said."""
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    lines = folder / "metrics.jsonl"
    while process.poll() is None and not (lines.exists() and len(lines.read_text().splitlines()) >= epochs):
        time.sleep(0.01)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    return process.returncode, messages


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows for name in ("loss", "test_loss")]


def test_two_processes_train_as_one_does(tmp_path: Path):
    recipe = options("epochs=3", "batch=64", "accumulate=2", "ema={decay: 0.9}")
    finished(*TWO, *NETWORK, *recipe, "--out", tmp_path / "two")
    finished(*ONE, *NETWORK, *recipe, "--out", tmp_path / "one")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert len(losses(tmp_path / "two")) == 6


def test_two_processes_are_stopped_and_go_on(tmp_path: Path):
    recipe = options(*EVERYTHING, "batch=256", "epochs=15")
    finished(*TWO, *NETWORK, *recipe, "--out", tmp_path / "whole")
    command = (*TWO, *NETWORK, *recipe, "--out", tmp_path / "stopped")
    code, messages = stopped(command, tmp_path / "stopped", 2, signal.SIGTERM)
    assert code != 0
    assert "stopped by SIGTERM in epoch" in messages
    assert len(losses(tmp_path / "stopped")) < 30
    finished(*TWO, "--resume", tmp_path / "stopped", "--device", "cpu")
    assert same(outcome(tmp_path / "stopped"), outcome(tmp_path / "whole"))


def test_the_command_is_stopped_and_says_how_it_goes_on(tmp_path: Path):
    folder = tmp_path / "run"
    command = (*ONE, *NETWORK, *options(*EVERYTHING, "batch=256", "epochs=30"), "--out", folder)
    code, messages = stopped(command, folder, 1, signal.SIGINT)
    assert code == 1
    assert "stopped by SIGINT in epoch" in messages
    assert f"archspec train --resume {folder}" in messages
    assert "Traceback" not in messages
    found = json.loads(finished(*ONE, "--resume", folder, "--device", "cpu", "--json").stdout)
    assert (found["epochs"], found["folder"]) == (30, str(folder))
