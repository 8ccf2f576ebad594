"""Patched versions of one network: as if each were read from its own file."""

from __future__ import annotations

import random

import pytest

import archspec
from archspec.errors import Place, SpecError
from archspec.loading import find_spec, load_tree
from archspec.paths import Path, parse_assignment
from archspec.tree import Node, from_plain
from archspec.variants import Variants

SPACE = {
    "stages[0].width": [32, 64, 96],
    "stages[1:].depth": [1, 2, 5],
    "stages[2].mixer": ["attention", "s_nommer", {"type": "fcvit", "heads": 4}],
    "stages[*].ffn.ratio": [2, 3],
    "defaults.norm": ["layer", "batch"],
    "stages[3].mixer.heads": [2, 4],
    "drop_path": [0.0, 0.3],
    "head": ["none", {"type": "linear", "pool": "mean"}],
    "input.size": [224, 192],
}


def variants(name: str) -> Variants:
    return Variants(load_tree(find_spec(name)))


def patch(text: str) -> tuple[Path, Node]:
    return parse_assignment(text)


def written(value: object) -> str:
    return str(value).replace("'", "") if isinstance(value, dict) else str(value)


def test_every_variant_is_what_a_fresh_reading_gives():
    draw, versions = random.Random(0), variants("mat_1")
    refused = 0
    for _ in range(60):
        chosen = draw.sample(list(SPACE), 3)
        texts = [f"{path}={written(draw.choice(SPACE[path]))}" for path in chosen]
        try:
            fresh = archspec.make_plan("mat_1", sets=texts)
        except SpecError:
            refused += 1
            with pytest.raises(SpecError):
                versions.plan([patch(text) for text in texts])
            continue
        again = versions.plan([patch(text) for text in texts])
        assert again == fresh
        assert [step.drop_path for step in again.steps()] == [step.drop_path for step in fresh.steps()]
        for _ in range(2):  # when it is worked out, and when it is known
            assert versions.cost([patch(text) for text in texts]) == archspec.count(fresh)
    assert refused < 40


def test_what_a_patch_does_not_reach_is_not_read_again():
    versions = variants("mat_1")
    before, after = versions.spec(), versions.spec([patch("stages[2].depth=3")])
    same = [a is b for a, b in zip(before.stages, after.stages, strict=True)]
    assert same == [index != 2 for index in range(len(same))]
    defaults = versions.spec([patch("defaults.act=relu")])
    assert not any(a is b for a, b in zip(before.stages, defaults.stages, strict=True))


def test_a_problem_is_told_as_often_as_it_is_met():
    versions = variants("mat_1")
    for _ in range(2):
        with pytest.raises(SpecError, match=r"stages\[2\]\.mixer\.heads: 7 does not divide"):
            versions.plan([patch("stages[2].mixer.heads=7")])
    with pytest.raises(SpecError, match="wdith"):
        versions.plan([patch("stages[1].wdith=64")])
    assert versions.plan() == archspec.make_plan("mat_1")


def test_places_are_those_of_the_patch():
    place = Place("study.yaml", 7, 3)
    value = from_plain("atention", place)
    with pytest.raises(SpecError, match=r"study\.yaml:7:3: stages\[0\]\.mixer.*attention"):
        variants("mat_1").plan([(Path.parse("stages[0].mixer"), value)])
