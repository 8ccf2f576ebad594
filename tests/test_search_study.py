"""A search's file: what is read from it, what is wrong with it, and what is written to be read again."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archspec.errors import SpecError, UsageError
from archspec.loading import SEARCHES

from .search_runs import read, search_folder, text

search_study = import_module("archspec.search.study.search")
search_text = import_module("archspec.search.study.text")
pricing = import_module("archspec.search.study.pricing")
reach = import_module("archspec.search.study.reach")

TRAINED = {"objectives": "accuracy", "evaluation": "{train: digits, data: digits, epochs: 1}"}
MAXIMAL = {
    **TRAINED,
    "set": "{'stages[0].depth': 2}",
    "space": """
  stages[*].width: {int: [16, 64], step: 16}
  stages[0].mixer: {choice: [{type: attention, heads: [2, 4]}, coordinate_conv], each: true}
  drop_path: {float: [0.001, 0.1], log: true}
  stages[0].depth: {derive: "stages[0].width // 16"}""",
    "constraints": "['stages[0].width >= 32']",
    "budgets": "{macs: <=20M, params: 10k..1M, train_memory: <=1GiB}",
    "objectives": "[accuracy, macs]",
    "sampler": "{type: nsga2, population: 8}",
    "stopping": "{type: asha, keep: 4, first: 2}",
    "prescreen": "{score: naswot, of: 3}",
    "memory": "{batch: 8, precision: bf16}",
    "start": "[vit_micro]",
    "retries": "1",
    "seed": "3",
}


def test_what_is_written_is_read_as_the_same(tmp_path: Path):
    search = read(tmp_path, **MAXIMAL)
    folder = search_folder.SearchFolder(tmp_path / "out")
    folder.claim(search)
    again = folder.load()
    assert search_text.study_plain(again) == search_text.study_plain(search)
    assert search_text.identity(again) == search_text.identity(search)
    assert again.base.plain() == search.base.plain()
    assert again.space == search.space
    assert [tree.plain() for _, tree in again.start] == [tree.plain() for _, tree in search.start]
    moved = (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert search_text.identity(search_folder.SearchFolder(moved).load()) == search_text.identity(search)


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"objectives": "acuracy"}, "11:", "did you mean 'accuracy'?"),
        ({"objectives": "[accuracy]"}, "11:", "the evaluation does not find it"),
        ({"objectives": "{macs: upwards}"}, "11:", "maximize or minimize"),
        ({**TRAINED, "objectives": "[macs, accuracy]"}, "11:", "put accuracy first"),
        ({**TRAINED, "objectives": "[accuracy, accuracy]"}, "11:", "twice"),
        ({**TRAINED, "objectives": "{accuracy: minimize}"}, "11:", "what to maximize"),
        ({"objectives": None}, "1:", "objectives say which costs count"),
        ({"evaluation": "guess"}, "", "is no evaluation"),
        ({"evaluation": "{train: digitz, data: digits}", "objectives": "accuracy"}, "", "digitz"),
        ({"sampler": "{type: tpe, population: 3}"}, "", "is an option of nsga2, evolution"),
        ({"sampler": "annealing"}, "", "annealing"),
        ({"stopping": "{type: median, keep: 3}"}, "", "is an option of halving, asha"),
        ({"budgets": "{latency: <=5ms}"}, "", "latency_table"),
        ({"trails": "7"}, "", "trials"),
        ({"base": "vit_mico"}, "", "did you mean 'vit_micro'?"),
        ({"start": "[nothing_such]"}, "", "nothing_such"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, changes: dict[str, str], place: str, words: str):
    with pytest.raises(SpecError) as caught:
        read(tmp_path, **changes)
    assert words in str(caught.value)
    first = str(caught.value.problems[0])
    assert f"study_of_the_test.yaml:{place}" in first, first


def test_all_mistakes_are_told_at_once(tmp_path: Path):
    with pytest.raises(SpecError) as caught:
        read(tmp_path, trials="0", sampler="annealing", budgets="{macs: 1X}", space="{'stages[9].width': [8]}")
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize("name", sorted(SEARCHES.shipped()))
def test_a_shipped_search_has_candidates_that_fit(name: str):
    search = search_study.load_search(SEARCHES.find(name))
    reach.check_reach(pricing.Pricer(search))


def command(*arguments: str) -> tuple[int, str]:
    """Exit code and stdout of `archspec search`."""
    done = CliRunner().invoke(import_module("archspec.cli.app").app, ["search", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


@pytest.mark.slow
def test_the_command_describes_and_goes_on_from_the_folder_alone(tmp_path: Path):
    (tmp_path / "study.yaml").write_text(text(trials="3"), encoding="utf-8")
    code, said = command(str(tmp_path / "study.yaml"), "--describe", "--json")
    assert code == 0
    assert json.loads(said)["size"] == 16 * 12 * 3 * 4
    out = str(tmp_path / "out")
    assert json.loads(command(str(tmp_path / "study.yaml"), "--out", out, "--json")[1])["proposals"]["done"] == 3
    again = json.loads(command("--resume", out, "--trials", "5", "--sampler", "grid", "--json")[1])
    assert again["proposals"]["done"] == 5
    with pytest.raises(UsageError, match="which"):
        command("toy", "--resume", out)
    with pytest.raises(UsageError, match=r"micro_digits"):
        command("micro_digit")
