"""Budgets: limits and windows as people write them, and what is wrong with others, with its place."""

from __future__ import annotations

import importlib
from decimal import Decimal

import pytest

from archspec.yaml_reader import read_yaml

budgets = importlib.import_module("archspec.search.budgets")


def read(text):
    problems = []
    tree = read_yaml(f"budgets: {text}", "f")
    return budgets.read_budgets(tree.mapping["budgets"], problems), [str(problem) for problem in problems]


def one(text):
    (budget,), problems = read(f"{{{text}}}")
    assert problems == []
    return budget


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("macs: <=1G", [0, 10**9], [10**9 + 1]),
        ('macs: ">=1G"', [10**9, 10**12], [10**9 - 1, 0]),
        ("params: 5M..12M", [5_000_000, 12_000_000], [4_999_999, 12_000_001]),
        ("params: 5M .. 5M", [5_000_000], [4_999_999, 5_000_001]),
        ("params: 0..12M", [0, 12_000_000], [12_000_001]),
        ("params: <= 4.6Mi", [4_823_449], [4_823_450]),  # 4.6 * 2^20 is 4,823,449.6
        ("activations: <=640k", [640_000], [640_001]),
        ("train_memory: <=16GiB", [2**34], [2**34 + 1]),
        ("train_memory: 8GB..16GiB", [8 * 10**9], [8 * 10**9 - 1]),
        ("latency: <=20ms", [0.0199, 0.02 - 1e-9], [0.0201]),
        ("latency: 1us..2min", [1.1e-6, 119.9], [0.9e-6, 120.1]),
    ],
)
def test_both_ends_are_within(text, inside, outside):
    budget = one(text)
    assert [budget.check(value) for value in inside] == [True] * len(inside)
    assert [budget.check(value) for value in outside] == [False] * len(outside)


def test_limits_are_decimal():
    assert one("macs: <=0.1G").highest.value == Decimal(100_000_000)
    assert one("macs: <=0.1G").check(100_000_000)


@pytest.mark.parametrize("text", ["macs: <=1G", "params: 5M..12M", "train_memory: <=16GiB", "activations: >=640k"])
def test_a_budget_prints_as_it_is_written(text):
    key, said = text.split(": ")
    assert str(one(f'{key}: "{said}"')) == text


def test_a_broken_budget_says_which_way():
    assert one("macs: <=1G").explain(1_234_000_000) == "macs 1.234G, more than 1G"
    assert one("params: 5M..12M").explain(4_900_000) == "params 4.900M, less than 5M"
    assert one("latency: <=20ms").explain(0.0255) == "latency 25.5ms, more than 20ms"


def test_budgets_keep_the_order_and_the_places_of_the_file():
    found, problems = read("{params: <=5M, latency: <=20ms, macs: <=1G}")
    assert problems == []
    assert [(budget.measure, budget.place.column) for budget in found] == [
        ("params", 19),
        ("latency", 34),
        ("macs", 48),
    ]


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("{macs: 1G}", 17, "a limit or a window is expected, such as <=1G"),
        ("{macs: <1G}", 17, "a limit or a window is expected"),
        ("{macs: 1000000}", 17, "1000000 is no budget"),
        ("{macs: [<=1G]}", 17, "a list is no budget"),
        ("{macs: }", 17, "nothing is no budget"),
        ("{macs: true}", 17, "true is no budget"),
        ("{mac: <=1G}", 11, "did you mean 'macs'?"),
        ("{macs: <=1GiB}", 17, "unknown unit 'GiB'"),
        ("{macs: <=-1G}", 17, "negative"),
        ("{macs: <=}", 17, "is not a number"),
        ("{macs: <=1G..2G}", 17, "unknown unit"),
        ("{latency: <=20}", 20, "has no unit"),
        ("{train_memory: <=16G}", 25, "did you mean '16GB'?"),
        ("{params: 12M..5M}", 19, "ends before it starts; write 5M..12M"),
        ("{params: 5..12M}", 19, "5 without a unit; write 5M..12M"),
        ("{params: ..12M}", 19, "is not a number"),
        ("<=1G", 10, "'<=1G' where the keys of budgets are expected"),
    ],
)
def test_what_is_no_budget_is_refused_at_its_place(text, column, words):
    found, (line,) = read(text)
    assert found == ()
    assert line.startswith(f"f:1:{column}: budgets")
    assert words in line


def test_all_that_is_wrong_is_told_at_once():
    _, problems = read("{macs: 1G, params: 3, latency: <=20ms}")
    assert len(problems) == 2
