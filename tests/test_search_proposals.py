"""What is proposed, evaluated and told: samplers on a toy with a known optimum, budgets, duplicates, failures."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from archspec import api
from archspec.errors import RunError, UnknownName
from archspec.loading import load_spec

from .search_runs import check_whole, of_kind, opened, plans, read, run

pricing = import_module("archspec.search.study.pricing")
suggest = import_module("archspec.search.space.suggest")
store = import_module("archspec.search.jobs.store")
candidates = import_module("archspec.search.samplers.candidates")
sampling = import_module("archspec.search.samplers.sampling")
search_frames = import_module("archspec.search.study.frames")

TRAINED = {"objectives": "accuracy", "evaluation": "{train: digits, data: digits, epochs: 3}"}
TIGHT = "{macs: <=6M}"


def result(job: Any, accuracy: float, **changes: Any) -> Any:
    metrics = {"top1": 100 * accuracy, "loss": 1 - accuracy, "stopped": 0.0}
    return replace(store.Result(key=job.key, identity=job.identity, status="done", metrics=metrics), **changes)


def by_width(job: Any) -> Any:
    """An accuracy that a spec has without any training: wider is better, deeper a little."""
    spec = api.make_plan(import_module("archspec.loading").load_text(job.spec)).spec
    return result(job, spec.stages[0].width / 1000 + len(spec.stages[0].blocks) / 1e5)


@cache
def optimum(budget: str) -> float:
    """The most parameters that the toy has within a budget, by looking at all of them."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        search = read(Path(folder), budgets=budget)
    pricer = pricing.Pricer(search)
    prices = (pricer.of(values) for values in suggest.grid(search.space))
    return max(price.costs["params"] for price in prices if price.fits)


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "evolution"])
def test_a_sampler_finds_nearly_the_best_within_the_budget(tmp_path: Path, sampler: str):
    trials = run(read(tmp_path, sampler=sampler, budgets=TIGHT, trials="60"), tmp_path / "out")
    check_whole(trials, 60)
    found = [trial.value for trial in of_kind(trials, "evaluated")]
    assert 0.85 * optimum(TIGHT) < max(found) <= optimum(TIGHT)


def test_samplers_that_learn_keep_to_the_budget_more_often_than_chance(tmp_path: Path):
    def fitting(sampler: str) -> float:
        folder = tmp_path / sampler
        folder.mkdir()
        trials = run(read(folder, sampler=sampler, budgets=TIGHT, trials="70"), folder / "out")
        later = trials[len(trials) // 2 :]
        return 1 - len(of_kind(later, "refused")) / len(later)

    chance = fitting("random")
    assert fitting("tpe") > chance + 0.2
    assert fitting("nsga2") > chance + 0.1


def test_gp_is_told_a_value_for_what_does_not_fit(tmp_path: Path):
    sampler = "{type: gp, startup: 4}"
    search = read(tmp_path, sampler=sampler, trials="7", space="{'stages[0].width': {int: [16, 256], step: 16}}")
    trials = run(search, tmp_path / "out")
    check_whole(trials, 7)
    assert {trial.state.name for trial in of_kind(trials, "refused")} <= {"COMPLETE"}
    assert all(any(value > 0 for value in trial.constraints.values()) for trial in of_kind(trials, "refused"))


def test_evaluated_candidates_keep_the_budgets_when_they_are_built(tmp_path: Path):
    search = read(tmp_path, **TRAINED, sampler="tpe", budgets="{macs: <=5M, params: 50k..300k}", trials="12")
    trials = run(search, tmp_path / "out", by_width)
    for trial in of_kind(trials, "evaluated"):
        spec = load_spec(tmp_path / "out" / "trials" / f"{trial.number:05d}" / "spec.yaml")
        network = api.build(spec)
        params = sum(parameter.numel() for parameter in network.parameters())
        assert params == trial.user_attrs.get("costs")["params"]
        assert 50_000 <= params <= 300_000
        assert api.count(spec).macs <= 5_000_000
    assert of_kind(trials, "refused")


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "evolution"])
def test_the_same_seed_gives_the_same_plans_and_another_one_others(tmp_path: Path, sampler: str):
    found = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        search = read(tmp_path / name, **TRAINED, sampler=sampler, trials="12", seed=seed)
        found.append(plans(run(search, tmp_path / name / "out", by_width)))
    assert found[0] == found[1] != found[2]


def test_a_small_space_is_evaluated_whole_and_no_plan_twice(tmp_path: Path):
    space = "{'stages[0].width': [16, 32, 64], 'stages[0].depth': [1, 2], 'stages[0].mixer.heads': [2, 3]}"
    said: list[str] = []
    for sampler in ("tpe", "random", "grid"):
        (tmp_path / sampler).mkdir()
        search = read(tmp_path / sampler, space=space, sampler=sampler, trials="50")
        trials = run(search, tmp_path / sampler / "out", say=said.append)
        check_whole(trials, 6)  # three heads divide no width
    assert sum("6 are evaluated" in line for line in said) == 3


def test_where_hardly_anything_fits_candidates_are_drawn_among_what_does(tmp_path: Path):
    said: list[str] = []
    search = read(tmp_path, budgets="{params: 100k..110k}", trials="6", feasible_share="0.2")
    trials = run(search, tmp_path / "out", say=said.append)
    check_whole(trials, 6)
    assert len(trials) <= 6 * 6  # at most five in a row in vain
    assert any("fit the budgets" in line for line in said)


def test_a_plan_that_failed_is_not_proposed_again(tmp_path: Path):
    tried: list[str] = []

    def crash(job: Any) -> Any:
        tried.append(job.key)
        failed = by_width(job)
        return replace(failed, status="failed", fault="memory", reason="no memory") if len(tried) % 2 else failed

    space = "{'stages[0].width': [16, 32, 64, 128], 'stages[0].depth': [1, 2]}"
    trials = run(read(tmp_path, **TRAINED, space=space, trials="8"), tmp_path / "out", crash)
    check_whole(trials, 8)
    assert len(set(tried)) == len(tried) == 8
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    assert [trial.user_attrs["outcome"]["reason"] for trial in failed] == ["no memory"] * 4
    assert any("failed before" in trial.user_attrs.get("reason", "") for trial in of_kind(trials, "refused"))


def test_a_failure_is_retried_as_often_as_is_said_but_never_a_users(tmp_path: Path):
    tried: list[str] = []

    def crash(job: Any) -> Any:
        tried.append(job.key)
        fault = "user" if tried[0] == job.key else "crash"
        return replace(by_width(job), status="failed", fault=fault, reason="gone")

    run(read(tmp_path, **TRAINED, trials="2", retries="2"), tmp_path / "out", crash)
    assert [tried.count(key) for key in dict.fromkeys(tried)] == [1, 3]


def test_trainings_that_end_early_are_told_as_pruned_and_the_others_are_better(tmp_path: Path):
    search = read(
        tmp_path, **{**TRAINED, "objectives": "[accuracy, macs]"}, stopping="{type: asha, keep: 2}", trials="16"
    )
    with opened(search, tmp_path / "out") as session:
        while not session.done:
            job = session.next()
            whole = by_width(job)
            assert job.asks
            for epoch in range(1, 4):
                top = whole.metrics["top1"] / 100
                metrics = {"epoch": epoch, "accuracy": top * epoch / 3, "test_loss": 1.0, "ema_accuracy": None}
                if session.report(job, metrics):
                    whole = replace(whole, metrics={**whole.metrics, "stopped": 1.0})
                    break
            session.finish(job, whole)
        trials = list(session.ledger.record.trials)
    check_whole(trials, 16)
    states = [trial.state.name for trial in of_kind(trials, "evaluated")]
    assert states.count("PRUNED") >= 6
    tops = {
        state: [
            trial.user_attrs["outcome"]["metrics"]["top1"]
            for trial in trials
            if trial.state.name == state and "outcome" in trial.user_attrs
        ]
        for state in ("COMPLETE", "PRUNED")
    }
    assert max(tops["COMPLETE"]) > max(tops["PRUNED"])


def test_of_each_group_the_prescreen_trains_the_best(tmp_path: Path):
    scored: dict[str, float] = {}

    def evaluate(job: Any) -> Any:
        if job.score:
            scored[job.identity["spec"]] = by_width(job).metrics["top1"]
            return replace(by_width(job), metrics={"score": scored[job.identity["spec"]]})
        return by_width(job)

    search = read(tmp_path, **TRAINED, prescreen="{score: naswot, of: 4}", trials="5")
    trials = run(search, tmp_path / "out", evaluate)
    check_whole(trials, 5)
    assert len(of_kind(trials, "screened")) == 15
    group = [trial for trial in trials if trial.user_attrs["kind"] in ("screened", "evaluated")]
    for first in range(0, 20, 4):
        four = group[first : first + 4]
        best = max(four, key=lambda trial: scored[trial.user_attrs["plan"]])
        assert [trial.user_attrs["kind"] == "evaluated" for trial in four] == [trial is best for trial in four]


def test_an_unknown_score_is_told_before_anything_begins(tmp_path: Path):
    search = read(tmp_path, evaluation="{score: synflo, data: digits}", objectives="score")
    with pytest.raises(UnknownName, match="synflow"), opened(search, tmp_path / "out"):
        pass


def test_networks_to_start_from_come_first(tmp_path: Path):
    search = read(
        tmp_path, start="[vit_micro]", sampler="{type: evolution, redraw: 1}", trials="20", budgets="{macs: <=1G}"
    )
    trials = run(search, tmp_path / "out")
    first = trials[0].params
    assert first == {
        "stages[0].width": 64,
        "stages[0].depth": 4,
        "stages[0].mixer.heads": "4",
        "stages[0].ffn.ratio": first["stages[0].ffn.ratio"],
    }
    second = trials[1].params
    assert sum(first[name] != second[name] for name in first) == 1  # a child of it, with one value anew


def test_a_child_differs_from_its_parent_in_what_was_drawn_anew():
    search = import_module("archspec.search.study.search").load_search(
        import_module("archspec.loading").SEARCHES.find("micro_digits")
    )
    chance = suggest.Dice(suggest.dice(0))
    for _ in range(30):
        parent, _ = search.space.draw(chance)
        name = chance.random.choice(list(parent))
        child, _ = search.space.draw(suggest.Changed(parent, chance, [name]))
        assert child[name] != parent[name]
        assert all(child[other] == value for other, value in parent.items() if other != name and other in child)


def test_the_pareto_front_is_what_comparing_all_pairs_gives(tmp_path: Path):
    search = read(tmp_path, objectives="{params: maximize, macs: minimize}", trials="40", sampler="random")
    trials = of_kind(run(search, tmp_path / "out"), "evaluated")
    points = {trial.number: trial.values for trial in trials}

    def beaten(own: list[float]) -> bool:
        return any(p >= own[0] and m <= own[1] and [p, m] != own for p, m in points.values())

    front = {number for number, values in points.items() if not beaten(values)}
    assert set(import_module("archspec.search.session.reading").pareto(search, trials)) == front


def test_what_a_sampler_sees_is_the_same_whether_it_looked_on_or_came_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sampling, "OTHER_BLOCK", 8)
    monkeypatch.setattr(sampling, "EVALUATED_BLOCK", 8)
    search = read(tmp_path, sampler="tpe", budgets=TIGHT, trials="40")
    whole = plans(run(search, tmp_path / "whole"))
    for trials in (7, 16, 23, 40):
        parts = plans(run(replace(search, trials=trials), tmp_path / "parts"))
    assert parts == whole


def test_a_search_whose_every_evaluation_fails_does_not_go_on_for_the_night(tmp_path: Path):
    def crash(job: Any) -> Any:
        return replace(by_width(job), status="failed", fault="run", reason="no such kernel")

    with pytest.raises(RunError, match="all 10 evaluations have failed; the last: no such kernel"):
        run(read(tmp_path, **TRAINED, trials="200"), tmp_path / "out", crash)


def test_a_prescreen_may_be_left_out_later(tmp_path: Path):
    search = read(tmp_path, **TRAINED, prescreen="{score: naswot, of: 4}", trials="3")
    with opened(search, tmp_path / "out") as session:
        assert session.next().score
    check_whole(run(replace(search, prescreen=None), tmp_path / "out", by_width), 3)
