"""Wrong specs: every problem with its place, path, rule and remedy, word for word as in data/spec_errors.txt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from archspec import api
from archspec.errors import SpecError
from archspec.loading import load_text

BASE = """archspec: 1
name: net
input: {size: 32}
classes: 10
defaults: {norm: layer, ffn: {type: mlp, ratio: 2}, downsample: patch}
stem: {type: patch, kernel: 4}
stages:
  - {width: 16, depth: 2, mixer: {type: attention, heads: 2}}
  - width: 32
    depth: 4
    mixer: {type: attention, heads: 4}
head: linear
"""
STAGES = BASE[BASE.index("stages:") : BASE.index("head:")]


@dataclass(frozen=True)
class Case:
    what: str
    text: str
    expected: tuple[str, ...]


def read_cases() -> list[Case]:
    text = (Path(__file__).parent / "data" / "spec_errors.txt").read_text(encoding="utf-8")
    return [read_case(part) for part in text.split("\n## ")[1:]]


def read_case(part: str) -> Case:
    what, *lines = part.rstrip().split("\n")
    text = BASE
    for change in lines:
        if not change.startswith("! "):
            text = changed(text, change.replace(r"\n", "\n").replace(r"\t", "\t"))
    return Case(what, text, tuple(line[2:] for line in lines if line.startswith("! ")))


def changed(text: str, change: str) -> str:
    if change.startswith("stage + "):
        return text.replace("    depth: 4\n", f"    depth: 4\n    {change.removeprefix('stage + ')}\n")
    if change.startswith("spec + "):
        return text + change.removeprefix("spec + ") + "\n"
    old, new = change.split(" -> ")
    old, new = STAGES if old == "STAGES" else old, "" if new == "(nothing)" else new
    assert text.count(old) == 1, f"{old!r} is not once in the spec"
    return text.replace(old, new)


def told(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        api.make_plan(load_text(text, file="f"))
    return [re.sub(r"(these have|there are): [^()]*\)", r"\1: ...)", str(problem)) for problem in caught.value.problems]


def test_the_base_is_right() -> None:
    assert api.count(api.make_plan(load_text(BASE))).params > 0


@pytest.mark.parametrize("case", read_cases(), ids=lambda case: case.what)
def test_what_is_wrong_is_told_word_for_word(case: Case) -> None:
    assert told(case.text) == list(case.expected)


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = changed(BASE, "size: 32 -> size: 0")
    text = changed(text, "heads: 2 -> heads: two")
    text = changed(text, "head: linear -> head: {type: linear, bias: 1}\nclases: 3")
    assert told(text) == [
        "f:3:15: input.size: 0 is less than 1 (at least 1)",
        "f:8:59: stages[0].mixer.heads: 'two' is not a whole number",
        "f:12:28: head.bias: 1 is not true or false",
        "f:13:1: clases: 'clases' is no key of a spec (did you mean 'classes'?)",
    ]


def test_a_long_text_is_not_repeated_in_full() -> None:
    (line,) = told(changed(BASE, f"linear -> {'x' * 5000}"))
    assert line == f"f:12:7: head: there is no head '{'x' * 40}... (5000 characters)' (there are: ...)"


def test_octal_looking_numbers_and_words_that_yaml_1_1_makes_booleans_or_times_are_what_they_look_like() -> None:
    text = changed(BASE, "name: net -> name: no\ndescription: 12:30")
    spec = load_text(changed(text, "classes: 10 -> classes: 010"))
    assert (spec.name, spec.description, spec.classes) == ("no", "12:30", 10)
