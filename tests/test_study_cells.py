"""Cells, their store, and the driver that trains them; the driver's jobs come out as each test says."""

from __future__ import annotations

import importlib
import io
import json
import multiprocessing
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from archspec import api
from archspec.errors import SpecError, UsageError
from archspec.training.recipe import load_recipe

from .tiny_runs import tiny_plan
from .tiny_studies import HEAD, ROWS, tiny_study

ablation = importlib.import_module("archspec.search.ablation.study")
ablation_cells = importlib.import_module("archspec.search.ablation.cells")
cells_module = importlib.import_module("archspec.search.jobs.cells")
driver = importlib.import_module("archspec.search.jobs.driver")
estimates = importlib.import_module("archspec.search.ablation.estimates")
executor_module = importlib.import_module("archspec.search.jobs.executor")
jobs = importlib.import_module("archspec.search.jobs.job")
live = importlib.import_module("archspec.search.ablation.live")
store_module = importlib.import_module("archspec.search.jobs.store")
studies = importlib.import_module("archspec.cli.studies")
workers = importlib.import_module("archspec.search.jobs.pool")


def cell(plan=None, recipe=None, seed=0):
    return cells_module.Source("digits").cell(plan or tiny_plan(), recipe or load_recipe("digits"), seed)


@pytest.fixture
def store(tmp_path):
    found = store_module.Store(tmp_path / "cells")
    found.create()
    return found


def result(of, status="done", **said):
    metrics = {"top1": 50.0} if status == "done" else {}
    return store_module.Result(key=of.key, identity=of.identity, status=status, metrics=metrics, **said)


# Keys.
def test_a_key_is_of_what_is_trained_and_not_of_names():
    key = cell().key
    assert len(key) == 64
    assert cell(api.make_plan(replace(tiny_plan().spec, name="other", description="x"))).key == key
    assert cell(recipe=load_recipe("digits", ["name=other", "description=x"])).key == key
    others = [
        cell(seed=1),
        cell(tiny_plan("drop_path=0.1")),
        cell(tiny_plan("input.size=12")),
        cell(recipe=load_recipe("digits", ["epochs=31"])),
    ]
    assert len({key, *(other.key for other in others)}) == 5


def test_what_the_recipe_makes_of_a_network_is_the_network():
    """The recipe's stochastic depth takes the place of the spec's, which is then of no consequence."""
    recipe = load_recipe("digits", ["drop_path=0.2"])
    assert cell(tiny_plan("drop_path=0.1"), recipe).key == cell(tiny_plan(), recipe).key


def test_a_job_says_everything_after_json():
    one = cell(tiny_plan("drop_path=0.1"), load_recipe("digits", ["optimizer.lr=1e-3", "ema={decay: 0.9}"]), seed=3)
    circumstances = jobs.Circumstances(store=store_module.Store(Path("x")), device="cpu")
    read = jobs.Job.read(json.loads(json.dumps(circumstances.job(one).plain())))
    assert read == circumstances.job(one)
    recipe = importlib.import_module("archspec.training.recipe").read_recipe(read.recipe)
    plan = api.make_plan(importlib.import_module("archspec.loading").load_text(read.spec))
    assert cell(plan, recipe, read.seed).key == one.key


# The store.
def test_a_result_is_read_as_it_was_written(store):
    one = result(cell(), seconds=1.5)
    assert store.result(one.key) is None
    store.write(one)
    assert store.result(one.key) == one
    assert list(store.results()) == [one]


@pytest.mark.parametrize("text", ["", "{", '{"format": 99}', "[]"])
def test_a_damaged_result_is_none(store, text):
    one = result(cell())
    store.write(one)
    (store.folder_of(one.key) / "result.json").write_text(text)
    assert store.result(one.key) is None
    assert list(store.results()) == []


def _hold(folder, key, held, leave):
    with store_module.Store(folder).locked(key):
        held.set()
        leave.wait(30)


def test_a_dead_owner_lets_the_cell_go(store):
    context = multiprocessing.get_context("fork")
    held, leave = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(store.folder, "k", held, leave))
    process.start()
    assert held.wait(30)
    with store.locked("k") as ours:
        assert not ours
    assert store.is_locked("k")
    process.kill()
    process.join()
    assert not store.is_locked("k")
    with store.locked("k") as ours:
        assert ours


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--store"):
        store_module.Store(tmp_path / "file" / "cells").create()


# The driver.
class Scripted:
    """An executor of two places in which jobs come out as scripted: a list of results, or events, for each key."""

    size = 2

    def __init__(self, store, script):
        self.store, self.script, self.running, self.begun = store, script, deque(), Counter()
        self.stopped = False

    @property
    def free(self):
        return self.size - len(self.running)

    def submit(self, job):
        assert self.free > 0
        self.begun[job.key] += 1
        self.running.append(job)

    def next(self, timeout):
        if not self.running:
            return None
        job = self.running.popleft()
        found = self.script[job.key].pop(0)
        if isinstance(found, str):
            return executor_module.Event(job=job, kind=found)
        self.store.write(found)
        return executor_module.Event(job=job, kind="finished", result=found)

    def stop(self):
        self.stopped = True


class Silent:
    def __init__(self):
        self.told = []

    def began(self, cell, *, elsewhere):
        self.told.append((cell.seed, "elsewhere" if elsewhere else "began"))

    def epoch(self, cell, metrics):
        pass

    def ended(self, cell, result, *, again, found):
        self.told.append((cell.seed, "again" if again else "found" if found else result.status))


def drive(store, cells, script, **options):
    executor, watcher = Scripted(store, {one.key: list(script[one.seed]) for one in cells}), Silent()
    found = driver.train_cells(cells, jobs.Circumstances(store=store), executor, watcher, **options)
    return found, executor, watcher


def test_equal_cells_are_trained_once_and_known_ones_not_at_all(store):
    one, two = cell(seed=0), cell(seed=1)
    store.write(result(two))
    found, executor, watcher = drive(store, [one, two, one, two], {0: [result(one)], 1: []})
    assert executor.begun == {one.key: 1}
    assert set(found) == {one.key, two.key}
    assert watcher.told == [(1, "found"), (0, "began"), (0, "done")]


def test_a_failed_cell_is_tried_again_and_takes_no_other_down(store):
    cells = [cell(seed=seed) for seed in range(3)]
    bad = result(cells[0], "failed", reason="x", fault="run")
    script = {0: [bad, bad, bad], 1: [bad, result(cells[1])], 2: [result(cells[2])]}
    found, executor, _ = drive(store, cells, script, retries=2)
    assert [found[one.key].status for one in cells] == ["failed", "done", "done"]
    assert [executor.begun[one.key] for one in cells] == [3, 2, 1]
    again, executor, _ = drive(store, cells, {0: [result(cells[0])], 1: [], 2: []})
    assert again[cells[0].key].done  # what failed the last time is tried anew
    assert sum(executor.begun.values()) == 1


def test_what_cannot_be_is_not_tried_again(store):
    one = cell()
    found, executor, _ = drive(store, [one], {0: [result(one, "failed", fault="user")]}, retries=5)
    assert (found[one.key].status, executor.begun[one.key]) == ("failed", 1)


def test_a_cell_that_another_command_trains_is_waited_for(store, monkeypatch):
    monkeypatch.setattr(driver, "LOOK_EVERY", 0.0)
    one = cell()
    held = store.locked(one.key)
    held.__enter__()

    def asked():  # the other command comes to its end
        if store.result(one.key) is None:
            store.write(result(one))
            held.__exit__(None, None, None)
        return False

    found, executor, watcher = drive(store, [one], {0: []}, asked=asked)
    assert found[one.key].done
    assert not executor.begun
    assert watcher.told == [(0, "elsewhere"), (0, "found")]


def test_a_cell_that_is_taken_or_stopped_meanwhile_is_tried_again(store, monkeypatch):
    monkeypatch.setattr(driver, "LOOK_EVERY", 0.0)
    one = cell()
    found, executor, _ = drive(store, [one], {0: ["busy", "stopped", result(one)]})
    assert found[one.key].done
    assert executor.begun[one.key] == 3


def test_who_asks_to_stop_is_heard(store):
    cells = [cell(seed=seed) for seed in range(5)]
    executor = Scripted(store, {one.key: [result(one)] for one in cells})
    with pytest.raises(driver.Stopped):
        driver.train_cells(
            cells, jobs.Circumstances(store=store), executor, Silent(), asked=lambda: len(list(store.results())) == 2
        )
    assert executor.stopped
    assert len(list(store.results())) == 2


# The cells of a study, and what they would take.
def planned(path, *, memory=False, **wishes):
    study = ablation.load_ablation(path)
    training = ablation_cells.training_of(study, path, ablation_cells.Wishes(device="cpu", **wishes))
    return training, ablation_cells.rows_of(study, training, memory=memory)


def test_the_cells_of_a_study(tmp_path):
    training, rows = planned(tiny_study(tmp_path))
    assert (training.recipe.epochs, training.recipe.batch, training.seeds) == (2, 128, (0, 1))
    assert [len(row.cells) for row in rows] == [2, 2, 2]
    assert len({one.key for row in rows for one in row.cells}) == 6
    training, rows = planned(tiny_study(tmp_path), recipe_sets=["epochs=3"], seeds=(5,))
    assert (training.recipe.epochs, [row.cells[0].seed for row in rows]) == (3, [5, 5, 5])
    assert training.recipe_name.endswith("with epochs=3")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("recipe: quick.yaml", "recipe: quik.yaml", "study.yaml:6:9: recipe: "),
        ("recipe: quick.yaml", "recipe: ../quick.yaml", "study.yaml:6:9: recipe: '../quick.yaml' leaves the folder"),
        (
            "{name: base}",
            "{name: base, set: {classes: 9}}",
            "study.yaml:11:23: rows[0].set: vit_micro: the network has 9",
        ),
        (
            "{name: base}",
            "{name: base, set: {head: none}}",
            "study.yaml:11:23: rows[0].set: vit_micro: the network has no",
        ),
        ("data: digits", "data: digitz", "'digitz' is neither a folder nor a data set"),
        ("recipe: quick.yaml\n", "", "says no recipe (--recipe"),
        ("data: digits\n", "", "says no data (--data"),
        (
            "rows:",
            "budgets: {params: <=1k}\nrows:",
            "study.yaml:10:19: budgets.params: 'base', which the others are compared with, is over it: params 1.490k",
        ),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_is(tmp_path, old, new, told):
    text = HEAD + ROWS
    assert old in text
    file = tiny_study(tmp_path, head=text.replace(old, new), rows="")
    with pytest.raises((SpecError, UsageError)) as caught:
        planned(file)
    assert told in str(caught.value).replace(str(tmp_path) + "/", "")


def test_rows_over_budget_are_known_before_they_are_trained(tmp_path):
    _, rows = planned(tiny_study(tmp_path, "budgets: {params: <=4k, train_memory: <=1GiB}\n" + ROWS))
    assert [row.over_budget for row in rows] == [(), ("params 5.018k, more than 4k",), ()]


def estimate(seconds, memory, state="to train"):
    return estimates.Estimate(
        row="", seed=0, params=0, macs=0, memory=memory, seconds=seconds, basis="measured", state=state
    )


def test_totals_by_hand():
    """Two places: 5, then 3 beside it; 4 begins at 3 and ends at 7, 2 begins at 5 and ends at 7."""
    cells = [estimate(5, 10), estimate(3, 40), estimate(0, 99, "done"), estimate(4, 30), estimate(2, 20, "again")]
    found = estimates.totals(cells, 2)
    assert (found.cells, found.to_train, found.seconds, found.wall, found.memory) == (5, 4, 14, 7, 70)
    assert estimates.totals(cells, 1).wall == 14
    assert estimates.totals(cells, 1).memory == 40
    assert estimates.totals([], 3).wall == 0


def test_estimates_are_measured_where_there_is_something_to_measure(tmp_path, store, monkeypatch):
    """1437 digits in batches of 128 are 11 steps, 1408 images; 360 are tested. Two epochs at a second an image."""
    monkeypatch.setattr(estimates, "seconds_per_image", lambda *_: 1.0)
    training, rows = planned(tiny_study(tmp_path), memory=True)
    base, wide, deep = rows
    store.write(result(base.cells[0], seconds=100))
    store.write(result(wide.cells[1], "failed"))
    found = estimates.estimates(rows, training, store, threads=1)
    assert [one.state for one in found] == ["done", "to train", "to train", "again", "to train", "to train"]
    assert [one.basis for one in found] == ["", "measured", *["one step"] * 4]
    steps = training.source.open(deep.cells[0].plan, training.recipe).steps_per_epoch
    assert found[1].seconds == 100
    assert found[5].seconds == pytest.approx(2 * (steps * 128 + 360 / 3))
    assert found[0].params == api.count(base.row.plan).params


def test_the_time_of_a_step_is_taken():
    assert 0 < estimates.seconds_per_image(tiny_plan(), 8, "cpu", 1) < 1


@pytest.mark.parametrize(("text", "seeds"), [("", ()), ("0,1,2", (0, 1, 2)), ("3", (3,)), ("0..3, 7", (0, 1, 2, 3, 7))])
def test_seeds_of_the_command_line(text, seeds):
    assert studies.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["a", "1,,2", "2..1", "-1", "1,1", "0..5000", "1.5"])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="--seeds"):
        studies.parse_seeds(text)


# What workers get, and what one sees.
def test_workers_share_threads_and_take_gpus_in_turn(monkeypatch, store):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    assert workers.visible_gpus("auto") == ["4", "6"]
    assert workers.visible_gpus("cpu") == workers.visible_gpus("cuda:1") == []
    seen = []

    class Idle:
        def __init__(self, environment, events):
            seen.append(environment)
            self.job = None

        def say(self, message):
            pass

        def end(self, seconds):
            pass

    monkeypatch.setattr(workers, "_Worker", Idle)
    circumstances = jobs.Circumstances(store=store)
    with workers.Pool(3, gpus=workers.visible_gpus("cuda")) as pool:
        for seed in range(3):
            assert pool.free == 3 - seed
            pool.submit(circumstances.job(cell(seed=seed)))
        assert pool.free == 0
    assert [one["CUDA_VISIBLE_DEVICES"] for one in seen] == ["4", "6", "4"]
    assert {one["OMP_NUM_THREADS"] for one in seen} == {"2"}
    assert all("RANK" not in one for one in seen)


def watched(console):
    cells = [cell(seed=seed) for seed in range(3)]
    view = live.View("mine", {"[b]": cells}, 20, console=console)
    with view:
        view.began(cells[0], elsewhere=False)
        view.ended(cells[0], result(cells[0], seconds=12), again=False, found=False)
        view.began(cells[1], elsewhere=False)
        view.epoch(cells[1], {"epoch": 5})
        view.began(cells[2], elsewhere=True)
        return Console(width=100, file=io.StringIO()), view.table()


def test_the_live_table_says_how_each_cell_stands():
    console, table = watched(Console(file=io.StringIO(), force_terminal=True, width=100))
    console.print(table)
    shown = console.file.getvalue()
    for said in ("[b]", "50.00", "5/20", "elsewhere", "1 of 3 cells", "left"):
        assert said in shown


def test_without_a_terminal_there_is_a_line_a_cell():
    console = Console(file=io.StringIO(), width=100)
    watched(console)
    assert console.file.getvalue().splitlines() == [
        "[b], seed 0: top-1 50.00 %, 12 s  (1 of 3)",
        "[b], seed 2: another command is training it",
    ]
