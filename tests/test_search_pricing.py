"""What candidates cost, by how much they miss the budgets, and what a space can reach."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from archspec import api
from archspec.errors import SpecError
from archspec.loading import SEARCHES, load_text
from archspec.memory import training_memory
from archspec.resolved import to_yaml

from .search_runs import read

search_study = import_module("archspec.search.study.search")
pricing = import_module("archspec.search.study.pricing")
reach = import_module("archspec.search.study.reach")
suggest = import_module("archspec.search.space.suggest")
budgets = import_module("archspec.search.budgets")
describe = import_module("archspec.search.study.describe")


def test_a_price_is_what_counting_the_written_spec_says(tmp_path: Path):
    search = read(
        tmp_path,
        budgets="{macs: <=20M, params: <=1G, activations: <=1G, train_memory: <=1TB}".replace("TB", "GiB"),
        memory="{batch: 2, optimizer: sgd}",
    )
    pricer = pricing.Pricer(search)
    for one in reach.drawn(pricer, 12):
        plan = api.make_plan(load_text(to_yaml(one.price.plan.spec)))
        cost = api.count(plan)
        assert one.price.costs["macs"] == cost.macs
        assert one.price.costs["params"] == cost.params
        assert one.price.costs["activations"] == cost.activations
        assert one.price.fits == (cost.macs <= 20_000_000)
        assert ("train_memory" in one.price.costs) == one.price.fits  # it takes longer, and is asked for last
        if one.price.fits:
            assert one.price.costs["train_memory"] == training_memory(plan, batch=2, optimizer="sgd").total


def test_a_candidate_is_priced_by_its_values_as_when_it_was_drawn():
    pricer = pricing.Pricer(search_study.load_search(SEARCHES.find("micro_digits")))
    for one in reach.drawn(pricer, 40, "again"):
        again = pricer.of(one.values)
        assert (again.costs, again.reason, again.plan) == (one.price.costs, one.price.reason, one.price.plan)


@pytest.mark.parametrize(
    ("text", "value", "by"),
    [
        ("<=1000", 1500, 0.5),
        ("<=1000", 1000, 0),
        (">=1000", 500, 0.5),
        ("1000..2000", 3000, 0.5),
        ("1k..2k", 1500, -0.25),
    ],
)
def test_excess_is_a_share_of_the_limit(text: str, value: float, by: float):
    assert pricing.excess(budgets.parse_budget("macs", text), value) == pytest.approx(by)


def test_what_is_no_network_is_refused_and_the_reason_is_told(tmp_path: Path):
    search = read(tmp_path, space="{'stages[0].mixer.heads': [3]}")
    price = pricing.Pricer(search).of({"stages[0].mixer.heads": "3"})
    assert not price.fits
    assert "divide" in price.reason
    assert price.plan is None
    assert price.violation == 1


def test_an_impossible_budget_is_told_with_the_nearest_figure(tmp_path: Path):
    search = read(tmp_path, budgets="{macs: <=10k}")
    pricer = pricing.Pricer(search)
    with pytest.raises(SpecError) as caught:
        reach.check_reach(pricer)
    least = min(pricer.of(values).costs["macs"] for values in suggest.grid(search.space))  # all 2,304 of them
    assert f"{least / 1e3:.3f}k" in str(caught.value)
    assert caught.value.problems[0].path == "budgets.macs"
    assert caught.value.problems[0].place.line == 10


def test_what_is_no_network_is_not_the_nearest(tmp_path: Path):
    space = '{"stages[0].width": {int: [16, 64]}, "stages[0].mixer.heads": [8]}'  # one in eight is a network
    search = read(tmp_path, space=space, budgets="{macs: <=1k}")  # hundreds of times the limit
    with pytest.raises(SpecError) as caught:
        reach.check_reach(pricing.Pricer(search))
    assert caught.value.problems[0].path == "budgets.macs"
    assert "stages[0].width: 16" in caught.value.problems[0].suggestion


def test_budgets_that_can_only_be_kept_one_at_a_time_are_told(tmp_path: Path):
    search = read(tmp_path, budgets='{macs: <=1M, params: ">=1M"}')
    with pytest.raises(SpecError, match="the nearest that was found"):
        reach.check_reach(pricing.Pricer(search))


def test_a_needle_is_found(tmp_path: Path):
    search = read(tmp_path, budgets="{params: 14600..14700}")  # few of 2,304, and one cannot walk there downhill
    pricer = pricing.Pricer(search)
    assert not any(one.price.fits for one in reach.drawn(pricer, 100, search.seed))
    reach.check_reach(pricer)


def test_the_cheapest_and_the_dearest_are_those_of_the_whole_grid(tmp_path: Path):
    search = read(tmp_path)
    pricer = pricing.Pricer(search)
    prices = [pricer.of(values).costs["macs"] for values in suggest.grid(search.space)]
    found = describe.describe(search, samples=60)
    assert found.size == len(prices) == 16 * 12 * 3 * 4
    assert found.cheapest.price.costs["macs"] == min(prices)
    assert found.dearest.price.costs["macs"] == max(prices)
    share = sum(price <= 20e6 for price in prices) / len(prices)
    assert found.fitting == pytest.approx(share, abs=0.2)


def test_a_grid_has_every_candidate_once(tmp_path: Path):
    space = """
  stages[0].mixer: {choice: [{type: attention, heads: [1, 2]}, coordinate_conv], each: true}
  stages[0].width: {int: [16, 50], step: 16}
  drop_path: {float: [0, 0.3]}"""
    search = read(tmp_path, space=space)
    found = list(suggest.grid(search.space, points=4))
    assert len({tuple(sorted(values.items())) for values in found}) == len(found) == 3 * 3 * 4
    assert sorted({values["drop_path"] for values in found}) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert {values["stages[0].width"] for values in found} == {16, 32, 48}


def test_latency_is_what_the_table_says_and_what_it_lacks_is_measured(tmp_path: Path):
    table = import_module("archspec.latency.table")
    setting = import_module("archspec.latency.setting").setting_here(device="cpu", threads=1, mode="eval", batch=1)
    effort = import_module("archspec.latency.timing").Effort(repeats=2)
    fill = import_module("archspec.latency.fill").fill
    fill(table.Table(setting=setting), [api.make_plan("mixer_micro")], effort=effort, path=tmp_path / "table.json")
    search = read(tmp_path, budgets="{latency: <=1s}", latency_table="table.json", space="{'stages[0].depth': [1, 2]}")
    candidate = {"stages[0].depth": "2"}
    assert "latency" not in pricing.Pricer(search, measures=False).of(candidate).costs
    price = pricing.Pricer(search).of(candidate)
    known = table.read_table(tmp_path / "table.json")
    expected = sum(known.entry(step).seconds.median for step in price.plan.steps())
    assert price.costs["latency"] == pytest.approx(expected)
    assert pricing.Pricer(search, measures=False).of(candidate).costs["latency"] == price.costs["latency"]
