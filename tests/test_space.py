"""Search spaces: what may be drawn, what follows from it, what must hold; and mistakes, with their places."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from itertools import product
from typing import Any

import pytest

from archspec import registry
from archspec.errors import Problem, SpecError
from archspec.loading import find_spec, load_tree
from archspec.tree import Node, with_paths
from archspec.variants import Variants
from archspec.yaml_reader import read_yaml

space = import_module("archspec.search.space.space")
expressions = import_module("archspec.search.space.expressions")
BASE = with_paths(load_tree(find_spec("nommer_micro")))


class Dice:
    """Draws by a seeded generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.asked: list[str] = []

    def choice(self, name: str, labels: Sequence[str]) -> str:
        self.asked.append(name)
        return self.random.choice(labels)

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        self.asked.append(name)
        return self.random.randrange(low, high + 1, step)

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        self.asked.append(name)
        return self.random.uniform(low, high)


def read(text: str) -> tuple[Any, list[Problem]]:
    tree = with_paths(read_yaml(text, "study.yaml"))
    problems: list[Problem] = []
    found = space.read_space(tree.mapping["space"], tree.mapping.get("constraints"), BASE, problems)
    return found, problems


def good(text: str) -> Any:
    found, problems = read(text)
    assert problems == []
    return found


def drawn(found: Any, count: int = 300) -> list[tuple[dict[str, Any], Any]]:
    """Candidates with their patched trees, as plain data."""
    variants, dice = Variants(BASE), Dice(0)
    pairs = [found.draw(dice) for _ in range(count)]
    return [(values, variants.tree(patches).plain()) for values, patches in pairs]


def test_a_choice_is_set_where_the_path_leads():
    for values, tree in drawn(good("space: {'stages[0].width': [16, 32]}"), 20):
        assert (
            tree["stages"][0]["width"] == values["stages[0].width"]
            or str(tree["stages"][0]["width"]) in values.values()
        )


def test_shared_is_one_value_for_all_and_each_is_one_for_each():
    shared = good("space: {'stages[*].depth': {int: [1, 3]}}")
    assert shared.size() == 3
    assert all(len({stage["depth"] for stage in tree["stages"]}) == 1 for _, tree in drawn(shared, 20))
    each = good("space: {'stages[*].depth': {int: [1, 3], each: true}}")
    assert each.size() == 3**4
    seen = {tuple(stage["depth"] for stage in tree["stages"]) for _, tree in drawn(each, 2000)}
    assert seen == set(product((1, 2, 3), repeat=4))


def test_ranges():
    found = good("space: {'stages[1].width': {int: [16, 64], step: 16}, drop_path: {float: [0, 0.3]}}")
    widths = Counter(tree["stages"][1]["width"] for _, tree in drawn(found))
    assert set(widths) == {16, 32, 48, 64}
    assert all(0 <= tree["drop_path"] <= 0.3 for _, tree in drawn(found))
    assert found.size() == float("inf")


def test_options_of_a_mixer_are_there_only_with_it():
    found = good("space: {'stages[2].mixer': [token_mlp, {type: attention, heads: [2, 4], qkv_bias: false}]}")
    assert found.size() == 1 + 2
    for values, tree in drawn(found, 50):
        mixer = tree["stages"][2]["mixer"]
        if mixer == "token_mlp":
            assert list(values) == ["stages[2].mixer"]
        else:
            assert (mixer["type"], mixer["qkv_bias"]) == ("attention", False)
            assert str(mixer["heads"]) == str(values["stages[2].mixer={type: attention, qkv_bias: false}.heads"])


def test_heads_that_follow_from_the_width():
    text = """
    space:
      stages[*].width: {int: [16, 64], step: 16, each: true}
      stages[2:].mixer.heads: {derive: "stages[i].width // 16"}
    """
    found = good(text)
    assert found.size() == 4**4
    for values, tree in drawn(found, 30):
        assert all(stage["mixer"]["heads"] * 16 == stage["width"] for stage in tree["stages"][2:])
        assert len(values) == 4


def test_derived_inside_a_choice():
    found = good(
        "space: {'stages[2].width': [32, 64], "
        "'stages[2].mixer': [{type: attention, heads: {derive: 'stages[i].width // 8'}}]}"
    )
    for _, tree in drawn(found, 10):
        assert tree["stages"][2]["mixer"]["heads"] == int(tree["stages"][2]["width"]) // 8


def test_mixers_by_tag_are_the_registrys():
    found = good("space: {'stages[0].mixer': {tagged: convolution, without: [ems]}}")
    expected = {e.name for e in registry.entries() if e.kind == "mixer" and "convolution" in e.tags} - {"ems"}
    assert {tree["stages"][0]["mixer"] for _, tree in drawn(found)} == expected
    everything = good("space: {'stages[0].mixer': {tagged: any}}")
    assert everything.size() == len(registry.names("mixer"))


def test_constraints_hold_at_every_stage():
    text = """
    space: {"stages[*].width": {int: [16, 64], step: 16, each: true}}
    constraints: ["stages[i].width <= stages[i+1].width", "stages[0].width < 64 and stages[-1].width > 16"]
    """
    found = good(text)
    variants, dice = Variants(BASE), Dice(0)
    for _ in range(300):
        tree = variants.tree(found.draw(dice)[1])
        widths = [stage["width"] for stage in tree.plain()["stages"]]
        assert (found.violated(tree) is None) == (widths == sorted(widths) and widths[0] < 64 and widths[-1] > 16)


def test_a_candidate_read_again_is_the_same():
    found = good(
        "space: {'stages[*].mixer': [token_mlp, {type: attention, heads: [2, 4]}], drop_path: {float: [0, 1]}}"
    )
    for values, tree in drawn(found, 20):
        again, patches = found.draw(space.Replay(values))
        assert (again, Variants(BASE).tree(patches).plain()) == (values, tree)


MISTAKES = {
    "a path of nothing": ("space: {'stages[7].width': [16]}", r"1:9: .*selects nothing"),
    "no values": ("space: {'stages[0].width': {}}", "names no values"),
    "two kinds": ("space: {drop_path: {float: [0, 1], int: [0, 1]}}", "int and float"),
    "backwards": ("space: {drop_path: {float: [1, 0]}}", r"ends before it starts.*\[0, 1\]"),
    "halves as whole": ("space: {'stages[0].depth': {int: [0.5, 2]}}", "two whole numbers"),
    "log of nothing": ("space: {drop_path: {float: [0, 1], log: true}}", "logarithm"),
    "twice": ("space: {'stages[0].width': [16, 16]}", "16 stands twice"),
    "a misspelt word": ("space: {drop_path: {flaot: [0, 1]}}", "flaot"),
    "a tag that nobody has": ("space: {'stages[0].mixer': {tagged: convolutoin}}", "convolution"),
    "tags of a width": ("space: {'stages[0].width': {tagged: any}}", "'width' is none"),
    "no part": ("space: {'stages[0].mixer': {tagged: any, without: [emss]}}", "emss.*ems"),
    "steps of real numbers": ("space: {drop_path: {float: [0, 1], step: 2}}", "'step' belongs to int"),
    "the same twice": ("space: {'stages[*].depth': {int: [1, 2], each: true}, 'stages[0].depth': [1, 2]}", "already"),
    "code": ('space: {drop_path: {derive: \'__import__("os").system("true")\'}}', "no function|no part"),
    "no expression": ("space: {drop_path: [0.1]}\nconstraints: ['stages[0].width <']", r"2:15: .*no expression"),
}


@pytest.mark.parametrize(("text", "rule"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_have_their_place(text, rule):
    _, problems = read(text)
    assert len(problems) == 1
    assert str(problems[0]).startswith("study.yaml:")
    assert re.search(rule, str(problems[0])), problems[0]


def test_what_cannot_be_derived_is_told_with_its_place():
    found = good("space: {'stages[0].mixer.heads': {derive: 'stages[i].size // 2'}}")
    with pytest.raises(SpecError, match=r"study\.yaml:1:.*stages\[i\]\.size"):
        found.draw(Dice(0))
    nowhere = good("space: {drop_path: [0.1]}\nconstraints: ['stages[i].wdith > 1']")
    with pytest.raises(SpecError, match=r"study\.yaml:2:.*wdith"):
        nowhere.violated(BASE)


VALUES = {
    "2 * 3 + 4 % 3": 7,
    "stages[0].width // 4": 4,
    "-stages[1].width + max(1, stages[0].depth, 3)": -29,
    "stages[-1].width / 2": 32.0,
    "stages[2].mixer.type == 'attention'": True,
    "1 if stages[0].width > 99 else 2": 2,
    "not (classes == 10 or 1 / 0)": False,
    "round(2.6)": 3,
    "16 < stages[1].width <= 32": True,
}


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_expressions_by_hand(text, value):
    assert expressions.Expression.parse(text).value(BASE) == value


@pytest.mark.parametrize("text", ["1 / 0", "stages", "name + 1", "name < 3", "min(name)"])
def test_expressions_without_a_value(text):
    with pytest.raises(expressions.NoValue):
        expressions.Expression.parse(text).value(BASE)


@pytest.mark.parametrize("text", ["lambda: 1", "[1]", "a := 1", "2 ** 9", "f(1)", "().__class__", "1j", "", "min()"])
def test_what_is_no_expression(text):
    with pytest.raises(ValueError, match=r".+"):
        expressions.Expression.parse(text)


def test_the_stage_before_the_first_is_none():
    expression = expressions.Expression.parse("stages[i-1].width <= stages[i].width")
    assert [index for index in range(4) if not _is_absent(expression, index)] == [1, 2, 3]


def _is_absent(expression: Any, index: int) -> bool:
    try:
        expression.value(BASE, index)
    except expressions.Absent:
        return True
    return False


def test_a_short_form_has_a_type():
    tree = Node({"mixer": Node("mat", BASE.place)}, BASE.place)
    assert expressions.Expression.parse("mixer.type").value(tree) == "mat"
