"""The shipped searches and the page that teaches them: all that is said there is read, and true."""

from __future__ import annotations

import importlib
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from archspec import api, registry
from archspec.cli.app import app
from archspec.errors import SpecError
from archspec.loading import SEARCHES, shipped_folder
from archspec.resolved import Dumper
from archspec.yaml_reader import read_yaml

from .test_specs_readme import Example

search_study = importlib.import_module("archspec.search.study.search")
frames = importlib.import_module("archspec.search.study.frames")
pricing = importlib.import_module("archspec.search.study.pricing")
reach = importlib.import_module("archspec.search.study.reach")
scores = importlib.import_module("archspec.search.scores")
budgets = importlib.import_module("archspec.search.budgets")

SHIPPED = sorted(SEARCHES.shipped())
PAGE = (shipped_folder() / "searches" / "README.md").read_text(encoding="utf-8")
MOST = 1e12  # candidates of a shipped space


@cache
def study(name):
    return search_study.load_search(SEARCHES.find(name))


@cache
def examples_of(name):
    """The first candidate of a study that fits, and the first that does not, of a hundred."""
    found = {}
    for one in reach.drawn(pricing.Pricer(study(name)), 100, 0):
        found.setdefault(one.price.fits, one.price)
        if len(found) == 2:
            break
    return found


# The shipped ones.
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_search_says_what_it_is(name):
    found = study(name)
    assert found.name == name
    assert found.description
    assert 1 < found.space.size() < MOST
    assert found.budgets


@pytest.mark.parametrize("name", SHIPPED)
def test_a_candidate_of_a_shipped_search_builds_within_budget(name):
    """Parameters are counted on what is built; the other costs are those of the plan, which has its own tests."""
    price = examples_of(name)[True]
    params = sum(parameter.numel() for parameter in api.build(price.plan).parameters())
    for budget in study(name).budgets:
        assert budget.check(price.costs[budget.measure])
        if budget.measure == "params":
            assert params <= price.costs["params"] <= float(budget.highest.value)  # fixed ones are counted, too


@pytest.mark.parametrize("name", SHIPPED)
def test_not_all_candidates_of_a_shipped_search_fit(name):
    assert examples_of(name)[False].reason


def test_the_search_among_all_mixers_has_all_of_them():
    """In YAML as it is written: each mixer alone, or in a list with what it needs."""
    tree = yaml.safe_load(SEARCHES.find("mixers_1g").read_text(encoding="utf-8"))
    (choice,) = (said["choice"] for path, said in tree["space"].items() if path == "stages[*].mixer")
    parts = [part for option in choice for part in (option if isinstance(option, list) else [option])]
    named = {part if isinstance(part, str) else part["type"] for part in parts}
    assert named == {entry.name for entry in registry.entries() if entry.kind == "mixer"} - own()


def own():
    """Mixers that other tests have registered."""
    entries = [entry for entry in registry.entries() if entry.kind == "mixer"]
    return {entry.name for entry in entries if not entry.cls.__module__.startswith("archspec.blocks")}


# The page.
def examples():
    """The page's blocks of code, each with the comment in front of it."""
    found = re.finditer(r"(?:<!-- (.*?) -->\n)?```(\w+)\n(.*?)```\n", PAGE, re.DOTALL)
    return [Example(m[2], m[1] or "", m[3], PAGE.count("\n", 0, m.start(3)) + 1) for m in found]


YAML = [example for example in examples() if example.language == "yaml"]


def one(language, mark=""):
    (example,) = (found for found in examples() if found.language == language and found.mark.startswith(mark))
    return example


def whole(example):
    """A fragment in the page's first study."""
    tree = read_yaml(YAML[0].text, "study").plain()
    said = read_yaml(example.text, "fragment").plain()
    if example.mark == "in: space":
        tree |= {"space": said}
        del tree["constraints"]
    elif example.mark == "in: study":
        tree |= said
    return yaml.dump(tree, Dumper=Dumper, sort_keys=False)


def test_the_page_has_what_the_tests_look_for():
    marks = [example.mark for example in YAML]
    assert marks.count("") == 1
    assert marks.count("in: space") + marks.count("in: study") == len(marks) - 2 >= 6


@pytest.mark.parametrize("example", [found for found in YAML if not found.mark.startswith("wrong")], ids=str)
def test_a_study_on_the_page_is_read_and_has_candidates(example, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(whole(example))
    search = search_study.load_search(file)
    pricer = pricing.Pricer(search)
    assert any(candidate.price.plan for candidate in reach.drawn(pricer, 100, 0))
    reach.check_reach(pricer)


def test_the_wrong_study_on_the_page_is_answered_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = one("yaml", "wrong: ")
    file = Path(wrong.mark.removeprefix("wrong: "))
    file.write_text(wrong.text)
    with pytest.raises(SpecError) as caught:
        search_study.load_search(file)
    assert [str(problem) for problem in caught.value.problems] == one("text").text.splitlines()


def test_the_tables_have_every_key_and_name():
    (table,) = re.findall(r"\| key of .*?\n\n", PAGE, re.DOTALL)
    rows = [row.split("|")[1] for row in table.strip().splitlines()[2:]]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(frames.SearchFrame.model_fields)
    options = {name for frame in (frames.SamplerFrame, frames.StoppingFrame) for name in frame.OWNERS}
    types = {*frames.SamplerType.__args__, *frames.StoppingType.__args__} - {"none"}
    for name in (*options, *types, *scores.SCORES, *budgets.MEASURES):
        assert f"`{name}`" in PAGE, name


@pytest.mark.slow
def test_the_commands_on_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [line for example in examples() if example.language == "console" for line in example.text.splitlines()]
    for line in lines:
        program, *arguments = shlex.split(line.removeprefix("$ "), comments=True)
        assert program == "archspec"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}: {result.output} {result.exception}"
    assert len(lines) >= 4
