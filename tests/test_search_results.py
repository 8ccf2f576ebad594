"""What a search has found, from records that are written by hand: specs, tables, pictures, the page, retraining."""

from __future__ import annotations

import csv
import importlib
import itertools
import json
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from archspec import api
from archspec.cli.app import app
from archspec.errors import UsageError
from archspec.loading import load_spec
from archspec.resolved import fingerprint

from .tiny_searches import HandMade

reports = importlib.import_module("archspec.search.results.report")
pictures = importlib.import_module("archspec.search.results.pictures")
importance = importlib.import_module("archspec.search.results.importance")
retraining = importlib.import_module("archspec.search.results.retraining")
cells = importlib.import_module("archspec.search.ablation.cells")
ablation_result = importlib.import_module("archspec.search.ablation.result")

MAT = "{type: mat, window: 4}"
WINDOW = "{type: window, heads: 2, window: 4}"
LIMIT = 10_000_000
TOLD = {"reason": "", "seconds": 2.0, "metrics": {}}


def values(width=16, mixer="coordinate_conv", drop=0.25, heads="2"):
    nested = {f"stages[1].mixer={MAT}.heads": heads} if mixer == MAT else {}
    return {"stages[0].width": width, "stages[1].mixer": mixer, **nested, "drop_path": drop}


def some(chance):
    mixer = chance.choice([MAT, WINDOW, "coordinate_conv"])
    return values(chance.choice([16, 32]), mixer, chance.random() / 2, chance.choice("24"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One objective; good where mat is, better with four heads; and trials that came to nothing."""
    search = HandMade(tmp_path_factory.mktemp("one"))
    chance = random.Random(0)
    search.tell(values(48), None, kind="refused", state=TrialState.PRUNED, reason="macs 13.5M, more than 10M")
    for _ in range(25):
        drawn = some(chance)
        good = 0.6 + 0.1 * (drawn["stages[1].mixer"] == MAT) + 0.1 * (drawn.get(f"stages[1].mixer={MAT}.heads") == "4")
        search.tell(drawn, [good + 0.01 * chance.random()], outcome=TOLD)
    search.tell(values(48), [0.99], kind="refused", reason="as the sampler gp is told of what is refused")
    search.tell(values(drop=0.1), [0.98], kind="duplicate", same_as=1)
    search.tell(values(drop=0.2), None, state=TrialState.PRUNED, outcome={**TOLD, "metrics": {"top1": 99.0}})
    search.tell(values(drop=0.3), None, state=TrialState.FAIL, outcome={**TOLD, "reason": "/x/y/z.py: <i> & so on"})
    search.tell(values(drop=0.4), None, state=TrialState.RUNNING)
    return search


@pytest.fixture(scope="module")
def reported(made):
    return reports.report_search(made.path)


def written(folder):
    """Every file that a report writes, with its bytes."""
    suffixes = (".yaml", ".svg", ".html", ".csv", ".md", ".tex")
    files = sorted(file for file in folder.rglob("*") if file.suffix in suffixes)
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


# The best.
def test_the_best_by_hand(made, reported):
    """Only what was evaluated to its end; of what the sampler was merely told, nothing."""
    known = sorted(((trial.values[0], trial.number) for trial in made.study.trials[1:26]), reverse=True)
    assert [(one.objectives[0], one.number) for one in reported.best] == known[:5]


def test_of_equal_ones_the_first_comes_first(tmp_path):
    search = HandMade(tmp_path, "loss")
    for loss in (2.0, 1.0, 3.0, 1.0):
        search.tell(values(drop=loss / 10), [loss])
    assert [one.number for one in reports.report_search(search.path, top=3).best] == [1, 3, 0]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_front_is_that_of_a_plain_loop(tmp_path, seed):
    search = HandMade(tmp_path, "[accuracy, loss]")
    chance = random.Random(seed)
    told = {}
    for _ in range(40):
        point = (chance.randrange(8) / 8, chance.randrange(8) / 4)  # coarse, so that some are equal
        told[search.tell(values(), point)] = point

    def betters(one, other):
        return one[0] >= other[0] and one[1] <= other[1] and one != other

    front = {number for number, own in told.items() if not any(betters(other, own) for other in told.values())}
    front = {min(one for one in front if told[one] == told[number]) for number in front}  # of equal ones the first
    best = reports.report_search(search.path).best
    assert {one.number for one in best} == front
    assert [one.objectives[0] for one in best] == sorted((told[number][0] for number in front), reverse=True)


def test_the_best_specs_are_built_as_they_are_and_keep_the_budget(made, reported):
    files = sorted((made.path / "best").glob("*.yaml"))
    assert len(files) == 5
    for file, one in zip(files, reported.best, strict=True):
        spec = load_spec(file)
        assert fingerprint(spec) == fingerprint(made.plan(one.values).spec)
        network = api.build(str(file)).eval()
        with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
            network(torch.zeros(1, 1, 32, 32))
        assert counter.get_total_flops() / 2 == one.costs["macs"] <= LIMIT


def test_the_best_specs_say_where_they_come_from(made, reported):
    best = reported.best[0]
    text = next((made.path / "best").glob("01_*.yaml")).read_text()
    head = text.partition("archspec: 1")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    for said in (f"trial {best.number}", "by_hand", "random", "seed 0", "nommer_micro", "macs <=10M", "epochs"):
        assert said in head
    for name, value in best.values.items():
        assert f"{name}: {value}" in head
    assert f"Trial {best.number}" in load_spec(next((made.path / "best").glob("01_*.yaml"))).description


def test_what_another_search_has_found_is_among_the_best(tmp_path):
    search = HandMade(tmp_path, "[accuracy, loss]")
    search.tell(values(drop=0.1), [0.9, 1.0], kind="taken")
    search.tell(values(drop=0.2), [0.8, 2.0])
    (best,) = reports.report_search(search.path).best
    assert (best.number, best.taken) == (0, True)
    assert "another search" in (search.path / "best" / "01_trial0.yaml").read_text()


def test_a_parent_is_named(tmp_path):
    search = HandMade(tmp_path)
    search.tell(values(drop=0.1), [0.5])
    search.tell(values(drop=0.2), [0.6], parent=0)
    reports.report_search(search.path)
    assert "made from trial 0" in (search.path / "best" / "01_trial1.yaml").read_text()


def test_specs_of_an_earlier_report_go_and_the_users_own_stay(made):
    reports.report_search(made.path)
    own, old = made.path / "best" / "mine.yaml", made.path / "best" / "77_trial99.yaml"
    own.write_text("mine")
    old.write_text("old")
    reports.report_search(made.path)
    assert own.exists()
    assert not old.exists()
    own.unlink()


# Importance.
def test_importance_is_on_the_one_parameter_that_matters(tmp_path):
    search = HandMade(tmp_path)
    chance = random.Random(3)
    for _ in range(60):
        drawn = some(chance)
        search.tell(drawn, [drawn["stages[0].width"] / 64])
    found = reports.report_search(search.path).importances["accuracy"]
    assert next(iter(found)) == "stages[0].width"
    assert found["stages[0].width"] > 0.5
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == {*values(), *values(mixer=MAT)}  # the conditional one, too


def test_it_is_the_good_ones_that_importance_is_about(tmp_path):
    """Who is good has mat, at whatever width; the width tells the bad from the worst."""
    search = HandMade(tmp_path)
    for mixer, width in list(itertools.product([MAT, WINDOW, "coordinate_conv"], [16, 32])) * 5:
        search.tell(values(width, mixer), [0.9 if mixer == MAT else width / 100])
    found = reports.report_search(search.path).importances["accuracy"]
    assert found["stages[1].mixer"] > 5 * found["stages[0].width"]


def test_a_conditional_parameter_counts_where_it_is_there():
    """Of all combinations alike: good is x, better x with b 2; c does nothing. Of 48 the best are the 12 of x with 2:
    the share of x rises from 1/2 to 1 among them, and so does that of 2 among those with x."""
    trials, losses = [], {}
    for number, (a, b, c) in enumerate(list(itertools.product("xy", "12", "12")) * 6):
        drawn = {"a": a, "c": c} | ({"a=x.b": b} if a == "x" else {})
        choices = {name: CategoricalDistribution(["x", "y"] if name == "a" else ["1", "2"]) for name in drawn}
        trials.append(create_trial(params=drawn, distributions=choices, value=0.0))
        trials[-1].number = number
        losses[number] = -(a == "x") - (drawn.get("a=x.b") == "2")
    found = importance.importances(trials, losses)
    assert set(found) == {"a", "a=x.b", "c"}
    assert found["c"] == pytest.approx(0, abs=1e-6)
    assert min(found["a"], found["a=x.b"]) > 0.2


def test_of_little_nothing_is_said(made):
    trials = made.study.trials[1:26]
    assert importance.importances(trials, {trial.number: 1.0 for trial in trials}) == {}  # all are equally good
    assert importance.importances(trials, {trial.number: trial.values[0] for trial in trials[:9]}) == {}


# Files.
def test_the_same_record_gives_the_same_bytes_wherever_it_stands(made, reported, tmp_path):
    before = written(made.path)
    moved = tmp_path / "elsewhere"
    shutil.copytree(made.path, moved)
    for name in before:
        if name not in ("study.yaml", "base.yaml", "recipe.yaml"):
            (moved / name).unlink()
    reports.report_search(moved)
    assert written(moved) == before
    assert {"report.html", "table.md", "trials.csv", "front_macs.svg", "history.svg", "parallel.svg"} <= set(before)


def test_pictures_are_svg_and_tell_of_the_best(made, reported):
    files = list(made.path.glob("*.svg"))
    assert len(files) == 5
    for file in files:
        root = ElementTree.fromstring(file.read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
    front = (made.path / "front_macs.svg").read_text()
    for one in reported.best:
        assert f"trial {one.number}: accuracy {100 * one.objectives[0]:.2f} %" in front


def test_the_line_of_the_history_never_gets_worse():
    assert list(pictures.best_so_far([3, 1, 4, 1, 5], 1)) == [3, 3, 4, 4, 5]
    assert list(pictures.best_so_far([3, 1, 4, 1, 0], -1)) == [3, 1, 1, 1, 0]


def test_many_candidates_are_thinned_out_and_the_best_stay(reported):
    kept = pictures.thinned(reported, 10)
    assert len(kept) == 10
    assert {one.number for one in reported.best} <= {one.number for one in kept}


def test_there_is_a_line_for_every_proposal(made, reported):
    lines = list(csv.DictReader((made.path / "trials.csv").read_text().splitlines()))
    assert [int(line["trial"]) for line in lines] == list(range(made.count))
    assert {line["kind"] for line in lines} == {"evaluated", "refused", "duplicate"}
    assert [line["accuracy"] for line in lines if line["kind"] != "evaluated"] == [""] * 3
    for line, trial in zip(lines[1:26], made.study.trials[1:26], strict=True):
        assert float(line["accuracy"]) == trial.values[0]
        assert float(line["drop_path"]) == trial.params["drop_path"]


class Strict(HTMLParser):
    """Notes what a page refers to, and that its tags fit."""

    VOID = ("meta",)

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.references = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag, attrs):
        self._note(attrs)

    def _note(self, attrs):
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            if key in ("href", "src", "xlink:href"):
                self.references.append(value)
            self.references += re.findall(r"url\((.*?)\)", value or "")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone(made, reported):
    text = (made.path / "report.html").read_text()
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    page = Strict()
    page.feed(text)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids) > 20
    assert set(page.references) <= {f"#{name}" for name in page.ids}
    assert "<script" not in text
    assert str(made.path.parent) not in text
    assert str(Path.home()) not in text


def test_the_page_tells_what_there_is(made, reported):
    text = (made.path / "report.html").read_text()
    for said in (
        "a record that was written by hand",
        "25 evaluated",
        "1 failed",
        "2 refused",
        "macs &lt;=10M",
        "2.15.0",
    ):
        assert said in text
    assert "z.py: &lt;i&gt; &amp; so on" in text
    assert "/x/y" not in text
    assert text.count("<svg") == 5
    commands = re.findall(r"^(?:<pre><code>)?archspec (\w+) (\S+)", text, re.MULTILINE)
    assert {"search", "build", "retrain", "report"} <= {command for command, _ in commands}
    for command, argument in commands:
        assert argument == "." or argument == "--resume" or (made.path / argument).is_file(), command


def test_a_search_that_has_found_nothing_yet_is_reported(tmp_path):
    search = HandMade(tmp_path)
    assert reports.report_search(search.path).best == ()
    search.tell(values(48), None, kind="refused", state=TrialState.PRUNED, reason="macs")
    reports.report_search(search.path)
    ElementTree.fromstring((search.path / "report.html").read_text().removeprefix("<!DOCTYPE html>\n"))


# The command.
def test_report_prints_the_best(made, reported):
    said = CliRunner().invoke(app, ["report", str(made.path), "--json"])
    found = json.loads(said.stdout)
    assert [one["trial"] for one in found["best"]] == [one.number for one in reported.best]
    assert all((made.path / one["spec"]).is_file() for one in found["best"])
    assert found["proposals"]["done"] == 25
    table = CliRunner().invoke(app, ["report", str(made.path), "--format", "csv", "--top", "2"]).stdout
    assert [int(line["trial"]) for line in csv.DictReader(table.splitlines())] == [one.number for one in reported.best][
        :2
    ]
    reports.report_search(made.path)


def test_a_folder_without_a_study_is_the_users_mistake(tmp_path):
    with pytest.raises(UsageError, match="holds no study"):
        CliRunner().invoke(app, ["report", str(tmp_path)], catch_exceptions=False)


EVOLUTION = """archspec: 1
study: search
name: evolved
base: vit_micro
space:
  stages[0].width: {int: [16, 128], step: 16}
  stages[0].depth: {int: [1, 8]}
  stages[0].mixer.heads: [1, 2, 4]
budgets: {macs: <=30M}
objectives: {params: maximize}
evaluation: cost
sampler: {type: evolution, population: 4, sample: 2}
trials: 20
"""


def test_a_search_ends_with_its_results_and_children_know_their_parents(tmp_path, monkeypatch):
    """A child differs from its parent in one value, the parent is older, and was evaluated."""
    monkeypatch.chdir(tmp_path)
    Path("evolved.yaml").write_text(EVOLUTION)
    said = CliRunner().invoke(app, ["search", "evolved.yaml"], catch_exceptions=False)
    assert said.exit_code == 0
    folder = Path("runs/evolved")
    results = importlib.import_module("archspec.search.results.results").read_results(folder)
    by_number = {trial.number: trial for trial in results.trials}
    children = [trial for trial in results.trials if "parent" in trial.user_attrs]
    assert len(children) >= 5
    for child in children:
        parent = by_number[child.user_attrs["parent"]]
        assert parent.number < child.number
        assert parent.user_attrs["kind"] == "evaluated"
        assert sum(parent.params[name] != value for name, value in child.params.items()) <= 1
    texts = [file.read_text() for file in sorted((folder / "best").glob("*.yaml"))]
    assert len(texts) == 5
    assert any("made from trial" in text for text in texts)
    counts = [api.count(api.make_plan(str(file))).params for file in sorted((folder / "best").glob("*.yaml"))]
    assert counts == sorted(counts, reverse=True)
    assert (folder / "report.html").is_file()


# Retraining.
def test_what_is_retrained(made, reported):
    study, training = retraining.retraining(reported, cells.Wishes(), top=2, beside=["mat_micro"])
    best = [one.number for one in reported.best]
    assert [row.name for row in study.rows] == ["nommer_micro", "mat_micro", f"trial {best[0]}", f"trial {best[1]}"]
    assert study.reference == "nommer_micro"
    assert training.seeds == (0, 1, 2)
    assert training.recipe.epochs == 20  # the shipped recipe's, of which the search has trained 4
    assert fingerprint(study.rows[2].plan.spec) == fingerprint(made.plan(reported.best[0].values).spec)


def test_trials_are_chosen_by_number_or_along_the_front(tmp_path, reported):
    asked = retraining.chosen(reported, 3, [5, 3, 5])
    assert [one.number for one in asked] == [5, 3]
    with pytest.raises(UsageError, match="--trials 30"):
        retraining.chosen(reported, 3, [30])  # it is still under way
    search = HandMade(tmp_path, "[accuracy, loss]")
    for step in range(9):
        search.tell(values(drop=step / 20), [step / 10, step / 10])
    front = reports.report_search(search.path)
    assert [one.number for one in retraining.chosen(front, 3, [])] == [8, 4, 0]


def test_a_recipe_of_ones_own_has_no_full_length(tmp_path):
    recipe = Path(tmp_path, "mine.yaml")
    recipe.write_text("archspec: 1\nepochs: 7\nbatch: 8\noptimizer: {type: adamw, lr: 1e-3}\n")
    study = importlib.import_module("tests.tiny_searches").STUDY.replace("train: digits", "train: mine.yaml")
    search = HandMade(tmp_path, study=study)
    search.tell(values(), [0.5])
    results = reports.report_search(search.path)
    with pytest.raises(UsageError, match="--recipe"):
        retraining.retraining(results, cells.Wishes())
    _, training = retraining.retraining(results, cells.Wishes(recipe=str(search.path / "recipe.yaml")))
    assert training.recipe.epochs == 4


@pytest.mark.slow
def test_the_best_are_retrained_once(tmp_path):
    search = HandMade(tmp_path)
    search.tell(values(), [0.5])
    search.tell(values(width=32), [0.6])
    arguments = [
        "retrain",
        str(search.path),
        "--store",
        str(tmp_path / "cells"),
        "--epochs",
        "1",
        "--seeds",
        "0",
        "--top",
        "1",
    ]
    first = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert first.exit_code == 0
    result = ablation_result.read_result(search.path / "retrained")
    assert [row.name for row in result.rows] == ["nommer_micro", "trial 1"]
    assert all(row.values("top1") for row in result.rows)
    assert "Trained once more" in (search.path / "report.html").read_text()
    again = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert again.stderr.count("trained before") == 2
    assert ablation_result.read_result(search.path / "retrained") == result
