"""The language's page: every example on it builds, and every message on it is what archspec says."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from archspec import api, registry
from archspec.cli.app import app
from archspec.errors import SpecError
from archspec.frames import SpecFrame, StageFrame
from archspec.loading import load_spec, load_text, shipped_folder
from archspec.spec import POSITIONS
from archspec.yaml_reader import read_yaml

PAGE = (shipped_folder() / "README.md").read_text(encoding="utf-8")
DATA = Path(__file__).parent / "data"
BASE = """
archspec: 1
name: page
input: {size: 64}
defaults: {norm: layer, ffn: {type: mlp, ratio: 2}, downsample: patch}
stem: {type: patch, kernel: 4}
stages:
  - {width: 32, depth: 2, mixer: {type: attention, heads: 2}}
  - {width: 64, depth: 3, mixer: {type: attention, heads: 4}}
  - {width: 128, depth: 2, mixer: {type: attention, heads: 8}}
head: linear
"""


@dataclass(frozen=True)
class Example:
    language: str
    mark: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"line {self.line}"


def examples() -> list[Example]:
    """The page's blocks of code, each with the comment in front of it."""
    found = re.finditer(r"(?:<!-- (.*?) -->\n)?```(\w+)\n(.*?)```\n", PAGE, re.DOTALL)
    return [Example(m[2], m[1] or "", m[3], PAGE.count("\n", 0, m.start(3)) + 1) for m in found]


YAML = [example for example in examples() if example.language == "yaml"]
WHOLE = [example for example in YAML if not example.mark]
FRAGMENTS = [example for example in YAML if example.mark.startswith("in: ")]


def one(language: str, mark: str = "") -> Example:
    (example,) = (found for found in examples() if found.language == language and found.mark.startswith(mark))
    return example


def inserted(example: Example) -> str:
    """A small spec with the fragment in it."""
    spec: dict[str, Any] = read_yaml(BASE, "base").plain()
    said = read_yaml(example.text, "fragment").plain()
    level = {"in: spec": spec, "in: stage": spec["stages"][1], "in: last stage": spec["stages"][2]}[example.mark]
    level.update(said)
    return yaml.safe_dump(spec, sort_keys=False)


def test_the_page_has_what_the_tests_look_for() -> None:
    assert len(WHOLE) >= 2
    assert len(FRAGMENTS) >= 8
    assert len(WHOLE) + len(FRAGMENTS) == len(YAML) - 2  # one is wrong, one goes with the plugin


@pytest.mark.parametrize("example", WHOLE, ids=str)
def test_a_spec_on_the_page_builds(example: Example) -> None:
    assert api.count(api.make_plan(load_text(example.text))).macs > 0


@pytest.mark.parametrize("example", FRAGMENTS, ids=str)
def test_a_fragment_on_the_page_builds_and_changes_the_network(example: Example) -> None:
    changed, base = (load_text(text) for text in (inserted(example), BASE))
    assert api.count(api.make_plan(changed)).macs > 0
    assert changed != base


def test_what_the_page_says_of_layers_is_so() -> None:
    spec = load_text(inserted(next(example for example in FRAGMENTS if "# amends: attention" in example.text)))
    mixers = [stage.blocks[0].mixer for stage in spec.stages]
    assert [(part.type, dict(part.options)["heads"]) for part in mixers if part] == [
        ("attention", 4),
        ("attention", 8),
        ("window", 8),
    ]
    assert [stage.blocks[0].ffn is None for stage in spec.stages] == [False, False, True]


def test_the_wrong_spec_on_the_page_is_answered_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = one("yaml", "wrong: ")
    name = wrong.mark.removeprefix("wrong: ")
    (tmp_path / name).write_text(wrong.text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(name)
    assert [str(problem) for problem in caught.value.problems] == one("text").text.splitlines()


@pytest.mark.parametrize("file", ["shift_mixer.py", "global_filter.py"])
def test_a_plugin_on_the_page_is_the_file_that_is_tested(file: str) -> None:
    assert one("python", f"plugin: {file}").text == (DATA / file).read_text(encoding="utf-8")


def test_the_tables_have_every_key() -> None:
    file, stage = re.findall(r"\| key of .*?\n\n", PAGE, re.DOTALL)
    assert keys(file) == {*SpecFrame.model_fields, "extends", "set"}
    assert keys(stage) == set(StageFrame.model_fields)


def keys(table: str) -> set[str]:
    """The names in the first column."""
    rows = [row.split("|")[1] for row in table.splitlines()[2:] if row.startswith("|")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_position_of_a_modifier_and_every_kind_is_named() -> None:
    assert [at for at in POSITIONS if f"`{at}`" not in PAGE] == []
    assert [kind for kind in registry.KINDS if kind not in PAGE.lower()] == []


@pytest.mark.slow
def test_the_commands_on_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(WHOLE[0].text, encoding="utf-8")
    lines = [line for example in examples() if example.language == "console" for line in example.text.splitlines()]
    for line in lines:
        program, *arguments = shlex.split(line.removeprefix("$ "), comments=True)
        assert program == "archspec"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}: {result.output} {result.exception}"
    assert len(lines) > 5
