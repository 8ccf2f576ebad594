"""The JSON Schema that editors use: valid itself, up to date, and of one mind with the loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from archspec.loading import load_spec, shipped, shipped_folder
from archspec.resolved import to_plain
from archspec.schema import json_schema
from archspec.yaml_reader import read_file, read_yaml

FILE = shipped_folder() / "archspec.schema.json"
STARTER = shipped_folder() / "starter" / "starter.yaml"
GOOD = """
archspec: 1
stem: {type: patch, kernel: 4}
stages: [{width: 16, depth: 2, mixer: attention, ffn: mlp, blocks: {"1:": {norm: none}}}]
head: linear
"""


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


def faults(validator: Draft202012Validator, plain: Any) -> list[str]:
    return [error.json_path for error in validator.iter_errors(plain)]


def test_the_file_is_up_to_date() -> None:
    written = json.loads(FILE.read_text(encoding="utf-8"))
    assert written == json_schema(), "archspec schema > specs/archspec.schema.json writes it anew"


def test_it_is_a_valid_schema_of_its_dialect(validator: Draft202012Validator) -> None:
    Draft202012Validator.check_schema(validator.schema)
    assert validator.schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize("path", [*shipped().values(), STARTER], ids=lambda path: path.stem)
def test_what_is_shipped_fits_and_names_the_schema(validator: Draft202012Validator, path: Path) -> None:
    assert faults(validator, read_file(path).plain()) == []
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert named == "archspec.schema.json" if path == STARTER else (path.parent / named).resolve() == FILE.resolve()


@pytest.mark.parametrize("name", ["pit_base_cb", "nommer_t", "mixer_s16"])
def test_a_network_written_out_fits(validator: Draft202012Validator, name: str) -> None:
    assert faults(validator, to_plain(load_spec(name))) == []


def test_a_small_one_fits(validator: Draft202012Validator) -> None:
    assert faults(validator, read_yaml(GOOD, "f").plain()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("head: linear", "head: linear\nclases: 10"),
        ("head: linear", "head: linaer"),
        ("head: linear", ""),
        ("archspec: 1", "archspec: 2"),
        ("kernel: 4", "kernl: 4"),
        ("kernel: 4", "kernel: '4'"),
        ("kernel: 4", "kernel: 0"),
        ("width: 16", "widht: 16"),
        ("width: 16", "width: 16.5"),
        ("depth: 2, ", ""),
        ("mixer: attention", "mixer: {type: attention, haeds: 2}"),
        ("mixer: attention", "mixer: [attention, windw]"),
        ("mixer: attention", "mixer: {type: attention, at: ffn.end}"),
        ("mixer: attention", "mixer: attention, modifiers: [{type: context_broadcast, at: ffn.ende}]"),
        ('"1:"', "first"),
        ("norm: none", "width: 5"),
        ("head: linear", "head: linear\ninput: {size: [1, 2, 3]}"),
        ("head: linear", "head: linear\npublished: {truncated: [parms]}"),
        ("head: linear", "head: linear\nname: a b"),
    ],
)
def test_what_is_wrong_does_not_fit(validator: Draft202012Validator, old: str, new: str) -> None:
    assert old in GOOD
    assert faults(validator, read_yaml(GOOD.replace(old, new), "f").plain())


def test_every_key_has_a_description_for_the_editor_s_hover(validator: Draft202012Validator) -> None:
    schema = validator.schema
    options = [
        (part["properties"]["type"]["const"], name, option)
        for kind in schema["$defs"].values()
        for part in kind.get("anyOf", [])
        for name, option in part.get("properties", {}).items()
        if "const" in part["properties"].get("type", {}) and name != "type"
    ]
    assert len(options) > 30
    assert [(part, name) for part, name, option in options if not option.get("description")] == []
