"""Jobs on Ray, and searches that are killed: on Ray, and on this machine alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archspec.errors import UsageError
from archspec.search.jobs.cells import Source
from archspec.search.jobs.job import Circumstances, Job
from archspec.search.jobs.store import Store
from archspec.training.recipe import load_recipe

from .killed_searches import AT_A_TIME, check, finish, kill, plans, results, start, wait_for_begin
from .tiny_runs import tiny_plan

pytestmark = pytest.mark.slow
with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed")
SECONDS = 300  # for anything: other tests may run at the same time


def come_to_end(folder: Path, on: str) -> None:
    """The search goes on, to a good end."""
    assert finish(start(folder, on), SECONDS) == 0, (folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def on_this_machine(tmp_path_factory) -> Path:
    """A search whose worker was killed, and then the search itself, which then was begun again."""
    folder = tmp_path_factory.mktemp("local")
    process = start(folder, "local")
    assert wait_for_begin(process, folder, SECONDS), (folder / "log.txt").read_text()
    assert kill(process, "worker", "local")
    time.sleep(1)
    before = results(folder)
    assert kill(process, "driver", "local")
    finish(process, SECONDS)
    come_to_end(folder, "local")
    check(folder, before)
    return folder


def test_a_search_whose_worker_and_driver_were_killed_is_whole(on_this_machine):
    assert len(plans(on_this_machine)) == 8


@with_ray
def test_two_workers_of_ray_evaluate_the_plans_that_this_machine_does(tmp_path, on_this_machine):
    come_to_end(tmp_path, "ray")
    check(tmp_path)
    assert AT_A_TIME == 2
    assert plans(tmp_path) == plans(on_this_machine)


@with_ray
def test_a_search_on_ray_whose_worker_driver_and_node_were_killed_is_whole(tmp_path, on_this_machine):
    process = start(tmp_path, "ray")
    assert wait_for_begin(process, tmp_path, SECONDS), (tmp_path / "log.txt").read_text()
    assert kill(process, "worker", "ray")
    time.sleep(2)
    assert kill(process, "driver", "ray")
    finish(process, SECONDS)
    before = results(tmp_path)
    process = start(tmp_path, "ray")
    assert kill(process, "node", "ray", SECONDS)
    if finish(process, SECONDS) != 0:  # trials that were begun may go on without their node
        come_to_end(tmp_path, "ray")
    check(tmp_path, before)
    assert plans(tmp_path) == plans(on_this_machine)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """The module of the executor, with Ray on this machine."""
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    driver = importlib.import_module("archspec.search.jobs.ray_tune")
    with driver.TuneExecutor("local", cpus=0.5):
        yield driver
    assert not ray.is_initialized()


def job(folder: Path, *, asks: bool = False, epochs: int = 2, plugin: str = "") -> Job:
    """A training of a fraction of a second."""
    file = folder / "plugin.py"
    file.write_text(plugin)
    store = Store(folder / "cells")
    store.create()
    recipe = load_recipe("digits", [f"epochs={epochs}", "batch=128", "schedule.warmup_epochs=0"])
    cell = Source("digits").cell(tiny_plan(), recipe, 0)
    return Circumstances(store=store, device="cpu", plugins=[file] if plugin else []).job(cell, asks=asks)


def events(executor: Any, job: Job, *, stop: bool = False) -> list[Any]:
    """What is heard of a job, the end included."""
    executor.submit(job)
    heard = []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        event = executor.next(1.0)
        if event:
            heard.append(event)
            if event.kind != "epoch":
                return heard
            if job.asks:
                executor.answer(job, stop=stop)
    raise AssertionError(f"no end after {heard}")


def test_epochs_are_told_one_by_one_and_then_the_result(cluster, tmp_path):
    one = job(tmp_path)
    with cluster.TuneExecutor("local", cpus=0.5, limit=1) as executor:
        *epochs, end = events(executor, one)
        assert executor.free == 1
    assert [event.metrics["epoch"] for event in epochs] == [1, 2]
    assert end.kind == "finished"
    assert end.result == Store(tmp_path / "cells").result(one.key)
    assert end.result.metrics["epochs"] == 2
    assert not (tmp_path / "cells" / ".ray").exists()


def test_a_training_ends_where_the_driver_says_so(cluster, tmp_path):
    with cluster.TuneExecutor("local", cpus=0.5, limit=1) as executor:
        first, end = events(executor, job(tmp_path, asks=True, epochs=50), stop=True)
    assert first.metrics["epoch"] == 1
    assert end.result.metrics["epochs"] == 1
    assert end.result.metrics["stopped"]


def test_a_process_that_dies_fails_its_job_and_no_other(cluster, tmp_path):
    deadly = "import os, sys\nprint('good bye', file=sys.stderr, flush=True)\nos._exit(3)\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with cluster.TuneExecutor("local", cpus=0.5, limit=1) as executor:
        (end,) = events(executor, job(tmp_path / "a", plugin=deadly))
        assert events(executor, job(tmp_path / "b"))[-1].result.done
    assert end.result.fault == "crash"
    assert "actor died" in end.result.reason
    assert "good bye" in end.result.reason


def test_what_is_stopped_goes_on_later(cluster, tmp_path):
    long = job(tmp_path, epochs=60)
    with cluster.TuneExecutor("local", cpus=0.5, limit=1) as executor:
        executor.submit(long)
        while (event := executor.next(1.0)) is None:
            pass
        assert event.kind == "epoch"
        executor.stop()
    store = Store(tmp_path / "cells")
    until = time.monotonic() + SECONDS
    while store.is_locked(long.key) and time.monotonic() < until:  # its process is being ended
        time.sleep(0.1)
    assert store.result(long.key) is None
    with cluster.TuneExecutor("local", cpus=0.5, limit=1) as executor:
        *epochs, end = events(executor, long)
    assert end.result.metrics["epochs"] == 60
    assert len(epochs) < 60


def test_what_the_cluster_has_no_room_for_is_refused(cluster):
    with pytest.raises(UsageError, match="1000 CPUs"), cluster.TuneExecutor("local", cpus=1000):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "no_such_host.invalid:6379", "auot"])
def test_where_nobody_answers_it_is_said_at_once(cluster, address):
    began = time.monotonic()
    with pytest.raises(UsageError, match=f"--ray {address}"), cluster.TuneExecutor(address):
        pass
    assert time.monotonic() - began < 30


def test_a_client_of_a_cluster_is_refused(cluster):
    with pytest.raises(UsageError, match=r"ray://head:10001: .*--ray auto"):
        cluster.TuneExecutor("ray://head:10001")


def test_without_ray_it_is_said_how_to_install_it():
    code = "import sys; sys.modules['ray'] = None; import archspec.search.jobs.ray_tune"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode
    assert "archspec.errors.UsageError: --ray needs the package ray: pip install" in ended.stderr
