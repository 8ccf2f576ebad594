"""The record: what goes on where it was stopped or killed, what is refused, and how fast a long one is taken up."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from archspec.errors import SpecError, UsageError

from .search_runs import check_whole, of_kind, opened, performing, plans, read, reading, run, search_folder, store, text

workers = import_module("archspec.search.jobs.pool")
TRAINED = {"objectives": "accuracy", "evaluation": "{train: digits, data: digits, epochs: 1}"}
SCORED = {"objectives": "score", "evaluation": "{score: params, data: digits, batch: 2}"}


def test_more_trials_extend_a_search_and_fewer_change_nothing(tmp_path: Path):
    search = read(tmp_path, sampler="tpe", trials="8")
    first = plans(run(search, tmp_path / "out"))
    assert len(first) == 8
    assert plans(run(replace(search, trials=3), tmp_path / "out")) == first
    more = run(replace(search, trials=20), tmp_path / "out")
    check_whole(more, 20)
    assert plans(more)[:8] == first
    assert plans(more) == plans(run(replace(search, trials=20), tmp_path / "at_once"))


def test_what_runs_when_a_process_is_gone_is_run_again(tmp_path: Path):
    search = read(tmp_path, **SCORED, trials="5")
    with opened(search, tmp_path / "out") as session:
        begun = [session.next() for _ in range(3)]
        session.finish(begun[1], performing.perform(begun[1]))
    trials = run(search, tmp_path / "out")
    check_whole(trials, 5)
    assert {job.key for job in begun} <= {path.name for path in (tmp_path / "out" / "cells").iterdir()}


def test_a_line_that_a_kill_tore_and_a_lock_it_left_are_no_hindrance(tmp_path: Path):
    search = read(tmp_path, trials="4")
    run(search, tmp_path / "out")
    journal = tmp_path / "out" / "journal.log"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"a","study_id":0,"dateti')
    Path(f"{journal}.lock").symlink_to(journal)
    began = time.monotonic()
    check_whole(run(replace(search, trials=9), tmp_path / "out"), 9)
    assert time.monotonic() - began < 20  # Optuna alone would wait for the lock for half a minute


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budgets": "{macs: <=21M}"}, "budgets.macs is <=20M there, <=21M here"),
        ({"base": "mixer_micro", "space": "{'stages[0].width': [64]}"}, "base.stages"),
        ({"set": "{'stages[0].depth': 3}"}, "depth is 4 there, 3 here"),
        ({"objectives": "{macs: maximize}"}, "objectives"),
        ({"evaluation": "{score: zen, data: digits}", "objectives": "score"}, "evaluation"),
        ({"space": "{'stages[0].width': {int: [16, 512], step: 16}}"}, "space.stages"),
        ({"constraints": "['stages[0].depth < 9']"}, "constraints"),
    ],
)
def test_another_search_is_refused_with_the_difference(tmp_path: Path, changes: dict[str, str], words: str):
    run(read(tmp_path, trials="2"), tmp_path / "out")
    with pytest.raises(UsageError, match="--start-from") as caught:
        run(read(tmp_path, trials="2", **changes), tmp_path / "out")
    assert words in str(caught.value)


def test_the_sampler_the_seed_and_names_may_change(tmp_path: Path):
    run(read(tmp_path, trials="3"), tmp_path / "out")
    changed = read(tmp_path, trials="6", sampler="nsga2", seed="9", retries="1", description="words", stopping="median")
    check_whole(run(changed, tmp_path / "out"), 6)
    assert search_folder.SearchFolder(tmp_path / "out").load().sampler.type == "nsga2"


def test_a_changed_recipe_is_refused_and_a_renamed_one_is_not(tmp_path: Path):
    for name, keys in (
        ("a", "extends: digits\nname: a"),
        ("b", "extends: digits\nname: b"),
        ("c", "extends: digits\nbatch: 33"),
    ):
        (tmp_path / f"{name}.yaml").write_text(f"archspec: 1\n{keys}\n", encoding="utf-8")
    folder = search_folder.SearchFolder(tmp_path / "out")
    made = {
        name: read(tmp_path, **{**TRAINED, "evaluation": f"{{train: {name}.yaml, data: digits}}"}) for name in "abc"
    }
    with opened(made["a"], folder.path) as session:
        assert session.next()
    folder.claim(made["b"])
    with pytest.raises(UsageError, match="batch is 32 there, 33 here"):
        folder.claim(made["c"])


def test_a_study_that_was_mended_before_anything_began_takes_its_folder(tmp_path: Path):
    wrong = {**TRAINED, "evaluation": "{train: digits, data: nowhere}"}
    with pytest.raises(UsageError, match="'nowhere' is neither a folder nor a data set"):
        run(read(tmp_path, **wrong), tmp_path / "out")
    check_whole(run(read(tmp_path, trials="2"), tmp_path / "out"), 2)


def test_a_search_that_has_ended_needs_its_data_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    search = read(tmp_path, trials="2")
    run(search, tmp_path / "out")
    evaluator = import_module("archspec.search.session.evaluation").Evaluator
    monkeypatch.setattr(evaluator, "prepare", lambda *_: pytest.fail("the data are opened"))
    check_whole(run(search, tmp_path / "out"), 2)


def test_a_base_that_is_no_network_is_told_before_anything_begins(tmp_path: Path):
    study = read(tmp_path, set="{'stages[0].mixer.heads': 7}", trials="2")
    with pytest.raises(SpecError, match="7 does not divide the width"):
        run(study, tmp_path / "out")


def test_a_folder_with_other_files_and_one_in_use_are_refused(tmp_path: Path):
    search = read(tmp_path, trials="2")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        run(search, tmp_path / "other")
    with opened(search, tmp_path / "out"), pytest.raises(UsageError, match="another process"):
        run(search, tmp_path / "out")


def test_results_of_another_search_are_taken_over_where_it_evaluated_alike(tmp_path: Path):
    small = read(tmp_path, trials="12", budgets="{macs: <=10M}")
    before = run(small, tmp_path / "small")
    said: list[str] = []
    large = read(tmp_path, trials="10", budgets="{macs: <=20M}")
    trials = run(large, tmp_path / "large", start_from=tmp_path / "small", say=said.append)
    assert len(of_kind(trials, "taken")) == 12
    check_whole(trials, 10)
    assert not set(plans(trials)) & set(plans(before))
    again = run(replace(large, trials=15), tmp_path / "large", start_from=tmp_path / "small")
    assert len(of_kind(again, "taken")) == 12
    check_whole(again, 15)


def test_where_it_evaluated_otherwise_its_best_are_proposed_first(tmp_path: Path):
    before = of_kind(run(read(tmp_path, trials="15"), tmp_path / "costs"), "evaluated")
    trials = run(read(tmp_path, **SCORED, trials="3"), tmp_path / "scores", start_from=tmp_path / "costs")
    best = sorted(before, key=lambda trial: trial.value, reverse=True)[:3]
    assert [trial.params for trial in trials] == [trial.params for trial in best]


def test_any_storage_of_optunas_keeps_the_record(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/trials.db"
    search = read(tmp_path, sampler="tpe", trials="4")
    first = plans(run(search, tmp_path / "out", storage=url))
    trials = run(replace(search, trials=7), tmp_path / "out", storage=url)
    check_whole(trials, 7)
    assert plans(trials)[:4] == first
    with pytest.raises(UsageError, match="maximize"):
        run(read(tmp_path, objectives="{params: minimize}"), tmp_path / "elsewhere", storage=url)


def test_optuna_reads_the_journal_and_knows_the_best(tmp_path: Path):
    trials = run(read(tmp_path, trials="12"), tmp_path / "out")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "out" / "journal.log"))
    study = optuna.load_study(study_name="toy", storage=optuna.storages.JournalStorage(backend))
    assert study.best_trial.value == max(trial.value for trial in of_kind(trials, "evaluated"))


def test_ten_thousand_trials_are_taken_up_in_five_seconds(tmp_path: Path):
    search = read(tmp_path, sampler="tpe", trials="10001")
    with opened(search, tmp_path / "out"):
        pass
    _fill(tmp_path / "out" / "journal.log", 10_000)
    began = time.process_time()
    with opened(search, tmp_path / "out") as session:
        assert session.ledger.tally.done == 10_000
        seconds = time.process_time() - began
        assert session.next() is None
    assert session.done
    assert seconds < 5


def _fill(journal: Path, count: int) -> None:
    """Trials as the record writes them, without waiting for the disk."""
    draw = random.Random(0)
    heads = CategoricalDistribution(["1", "2", "4"])
    ranges = {
        "width": IntDistribution(16, 256, step=16),
        "depth": IntDistribution(1, 12),
        "ffn.ratio": IntDistribution(1, 4),
    }
    distributions = {f"stages[0].{name}": one for name, one in ranges.items()} | {"stages[0].mixer.heads": heads}
    written = {name: optuna.distributions.distribution_to_json(one) for name, one in distributions.items()}
    with journal.open("a") as file:
        for number in range(count):
            params = {
                "stages[0].width": 16 * draw.randint(1, 16),
                "stages[0].depth": draw.randint(1, 12),
                "stages[0].ffn.ratio": draw.randint(1, 4),
                "stages[0].mixer.heads": draw.randrange(3),
            }
            start = "2026-01-01T00:00:00.000000+00:00"
            create = {
                "op_code": 4,
                "worker_id": "w",
                "study_id": 0,
                "datetime_start": start,
                "state": 0,
                "value": None,
                "values": None,
                "distributions": written,
                "params": params,
                "user_attrs": {
                    "kind": "evaluated",
                    "plan": f"{number:016x}",
                    "costs": {"macs": 1234567, "params": 7654321},
                },
                "system_attrs": {"constraints:valid": 0.0, "constraints:macs": -0.5},
                "intermediate_values": {},
            }
            outcome = {
                "status": "done",
                "metrics": {"top1": 91.2, "loss": 0.3},
                "seconds": 12.3,
                "attempts": 1,
                "fault": "",
                "reason": "",
            }
            note = {"op_code": 8, "worker_id": "w", "trial_id": number, "user_attr": {"outcome": outcome}}
            end = {
                "op_code": 6,
                "worker_id": "w",
                "trial_id": number,
                "state": 1,
                "values": [draw.random()],
                "datetime_complete": start,
            }
            file.write("".join(json.dumps(line) + "\n" for line in (create, note, end)))


def killed(run_it: Callable[[], object], seconds: float) -> bool:
    """Whether a process of its own that does this was killed after so many seconds; False where it was done before."""
    child = os.fork()
    if child == 0:
        try:
            run_it()
        finally:
            os._exit(0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("cost", 60), ("score", 25)])
def test_the_driver_may_be_killed_at_any_moment(tmp_path: Path, kind: str, count: int):
    changes = {**(SCORED if kind == "score" else {}), "sampler": "tpe", "trials": str(count)}
    search = read(tmp_path, **changes)
    run(search, tmp_path / "warm")  # what is loaded and counted once is nothing to those that are killed
    began = time.monotonic()
    whole = plans(run(search, tmp_path / "at_once"))
    moments, seconds = random.Random(kind), time.monotonic() - began
    kills = 0
    for _ in range(10):
        kills += killed(lambda: run(search, tmp_path / "out"), moments.uniform(0.02, 0.15) * seconds)
    assert kills >= 5
    trials = run(search, tmp_path / "out")
    check_whole(trials, count)
    assert plans(trials) == whole
    assert len(list((tmp_path / "out" / "cells").glob("*/result.json"))) == (count if kind == "score" else 0)


@pytest.mark.slow
def test_workers_may_be_killed_at_any_moment(tmp_path: Path):
    search = read(tmp_path, **TRAINED, trials="14", retries="10", space="{'stages[0].width': {int: [4, 64], step: 4}}")
    search_driver = import_module("archspec.search.session.driver")
    moments, kills = random.Random(0), []
    cells = store.Store(tmp_path / "out" / "cells")

    class Shot(workers.Pool):
        """A pool at whose workers someone shoots while they train, once a training, while there are bullets."""

        due: dict[str, float] = {}  # when, by job  # noqa: RUF012
        span = 0.1  # seconds that a training takes, as far as is known

        def next(self, timeout: float) -> Any:
            now = time.monotonic()
            busy = {worker.job.key: worker for worker in self._places if worker and worker.job}
            for key in busy:
                if key not in self.due and cells.is_locked(key):  # it has begun
                    self.due[key] = now + moments.uniform(0.0, 0.8) * self.span
            for key in [key for key in busy if len(kills) < 10 and self.due.get(key, now) < now]:
                kills.append(busy[key]._process.pid)
                os.kill(kills[-1], signal.SIGKILL)
                del self.due[key], busy[key]
            event = super().next(min(timeout, 0.02))
            if event and event.kind == "finished":
                self.due.pop(event.job.key, None)
                self.span = event.result.seconds or self.span
            return event

    with opened(search, tmp_path / "out") as session, Shot(2, threads=1) as pool:
        search_driver.drive(session, pool)
        trials = list(session.ledger.record.trials)
    assert len(kills) == 10
    check_whole(trials, 14)
    assert {trial.state.name for trial in of_kind(trials, "evaluated")} == {"COMPLETE"}


@pytest.mark.slow
def test_a_signal_stops_the_command_and_the_folder_goes_on(tmp_path: Path):
    file = tmp_path / "study.yaml"
    space = "{'stages[0].width': {int: [4, 64], step: 4}}"
    file.write_text(text(**TRAINED, trials="3", space=space), encoding="utf-8")
    command = [sys.executable, "-m", "archspec", "search"]
    process = subprocess.Popen([*command, str(file), "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "out" / "journal.log"
    while not (journal.exists() and '"step":1' in journal.read_text()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 1
    assert "--resume" in said
    done = subprocess.run(
        [*command, "--resume", str(tmp_path / "out"), "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["proposals"]["done"] == 3
    _, trials = reading.read_record(tmp_path / "out")
    check_whole(trials, 3)


def test_where_the_trials_are_must_be_said_again(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/trials.db"
    search = read(tmp_path, trials="2")
    run(search, tmp_path / "out", storage=url)
    with pytest.raises(UsageError, match=r"trials\.db"):
        run(search, tmp_path / "out")
    run(search, tmp_path / "journal")
    with pytest.raises(UsageError, match="leave out --storage"):
        run(search, tmp_path / "journal", storage=url)


def test_looking_at_a_record_changes_nothing(tmp_path: Path):
    run(read(tmp_path, trials="3"), tmp_path / "out")
    before = (tmp_path / "out" / "journal.log").read_bytes()
    assert len(reading.read_record(tmp_path / "out")[1]) >= 3
    assert (tmp_path / "out" / "journal.log").read_bytes() == before


def test_other_networks_may_be_started_from_later(tmp_path: Path):
    run(read(tmp_path, trials="3"), tmp_path / "out")
    run(read(tmp_path, trials="5", start="[vit_micro]"), tmp_path / "out")
    again = search_folder.SearchFolder(tmp_path / "out").load()
    assert len(again.start) == 1
    check_whole(run(again, tmp_path / "out"), 5)
