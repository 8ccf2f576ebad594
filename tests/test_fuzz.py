"""Damaged specs: each loads, lays out and counts, or is refused with a place and a path, fast and in little memory."""

from __future__ import annotations

import copy
import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import yaml

from archspec import api
from archspec.errors import Problem, SpecError, UserError
from archspec.loading import load_text, load_tree, shipped
from archspec.yaml_reader import read_yaml

MAX_SECONDS = 2.0  # of processor time for one spec
MAX_GROWTH = 2**20  # kB of peak memory, for all of them together
EXTREMES = [
    *(0, -1, 1, 2, 3, 7, 13, 224, 10**9, 10**12, 10**18, -(10**15), 65_536, 65_537, 16_384, 1000, 0.0, -0.5, 1e-300),
    *(
        1e300,
        0.3333333,
        2.5,
        True,
        False,
        None,
        "",
        " ",
        "none",
        "no",
        "8",
        "1.5",
        "1e3",
        "nan",
        "type",
        "0:",
        ":",
        "*",
    ),
    *("mlp", "attention", "patch", "learned", "layer", "ffn.middle", "mixer.front", "é", "x" * 3000, "\u2028", "a: b"),
    *([], {}, [[]], [1, 2], [224, 224], [0, 10**9], {"type": None}, {"type": "none"}, {"type": "mlp", "ratio": 64}),
]
KEYS = [
    "type",
    "at",
    "extends",
    "set",
    "blocks",
    "1:",
    "-1",
    "999999",
    "::",
    "modifiers",
    "position",
    "x" * 99,
    "",
    "é",
]
Slot = tuple[Any, Any]  # a mapping or list, and the key or index of one of its values
Mutation = Callable[[random.Random, Any, list[Slot]], None]


def slots(value: Any) -> list[Slot]:
    """Every place in plain data that holds a value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [slot for key in keys for slot in [(value, key), *slots(value[key])]]


def misspelt(rng: random.Random, key: str) -> str:
    at = rng.randrange(len(key) + 1)
    return rng.choice([key[:at] + key[at + 1 :], key[:at] + "e" + key[at:], key.upper(), key.replace("_", "-")])


def drop(rng: random.Random, root: Any, found: list[Slot]) -> None:
    inside, key = rng.choice(found)
    del inside[key]


def rename(rng: random.Random, root: Any, found: list[Slot]) -> None:
    named = [slot for slot in found if isinstance(slot[0], dict)]
    if named:
        inside, key = rng.choice(named)
        inside[rng.choice([misspelt(rng, key), rng.choice(KEYS)])] = inside.pop(key)


def retype(rng: random.Random, root: Any, found: list[Slot]) -> None:
    inside, key = rng.choice(found)
    value = inside[key]
    inside[key] = rng.choice([str(value), [value], {"type": value}, {str(key): value}, [value] * 9, f"{value} "])


def extreme(rng: random.Random, root: Any, found: list[Slot]) -> None:
    inside, key = rng.choice(found)
    inside[key] = copy.deepcopy(rng.choice(EXTREMES))


def scale(rng: random.Random, root: Any, found: list[Slot]) -> None:
    """Numbers that stay numbers: these mostly load, and go on to the plan and the counts."""
    numbers = [(inside, key) for inside, key in found if type(inside[key]) in (int, float)]
    if numbers:
        inside, key = rng.choice(numbers)
        inside[key] = rng.choice([inside[key] * 2, inside[key] * 7, inside[key] // 2, inside[key] + 1, 1, 64])


def misspell(rng: random.Random, root: Any, found: list[Slot]) -> None:
    texts = [(inside, key) for inside, key in found if isinstance(inside[key], str)]
    if texts:
        inside, key = rng.choice(texts)
        inside[key] = misspelt(rng, inside[key])


def double(rng: random.Random, root: Any, found: list[Slot]) -> None:
    inside, key = rng.choice(found)
    value = copy.deepcopy(inside[key])
    if isinstance(inside, list):
        inside[key:key] = [value] * rng.choice([1, 2, 70])
    else:
        inside[rng.choice([misspelt(rng, key), rng.choice(KEYS)])] = value


def swap(rng: random.Random, root: Any, found: list[Slot]) -> None:
    """Exchange two subtrees; one that lies in the other is copied into it."""
    (a, i), (b, j) = rng.choice(found), rng.choice(found)
    a[i], b[j] = copy.deepcopy(b[j]), copy.deepcopy(a[i])


def graft(rng: random.Random, root: Any, found: list[Slot]) -> None:
    """A key with a subtree from elsewhere, at any level."""
    mappings = [root, *(inside[key] for inside, key in found if isinstance(inside[key], dict))]
    inside, key = rng.choice(found)
    rng.choice(mappings)[key if isinstance(key, str) else rng.choice(KEYS)] = copy.deepcopy(inside[key])


MUTATIONS: list[Mutation] = [drop, rename, retype, extreme, *[scale] * 5, misspell, double, swap, graft]


def damaged(rng: random.Random, text: str) -> str:
    """Text with a few characters or lines gone, doubled or put in."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        lines = text.split("\n")
        at, row = rng.randrange(len(text) + 1), rng.randrange(len(lines))
        junk = rng.choice([*"{}[]:,&*!|>'\"%@`#?-\t \n\0\x85é0", "<<: *a", "!!python/name:os.system ", "&a ", "*a"])
        text = rng.choice(
            [
                text[:at] + text[at + 1 :],
                text[:at] + junk + text[at:],
                text[: at + 1] + text[at:],
                "\n".join(lines[:row] + lines[row + 1 :]),
                "\n".join([*lines[:row], "  " + lines[row], *lines[row + 1 :]]),
                "\n".join([*lines[: row + 1], *lines[row:]]),
                text[:at],
            ]
        )
    return text


def mutated(rng: random.Random) -> str:
    """The text of a shipped spec, as it stands or with what it extends written out, in some ways wrong."""
    path = rng.choice(list(shipped().values()))
    text = path.read_text(encoding="utf-8")
    if rng.random() < 0.2:
        return damaged(rng, text)
    root: Any = load_tree(path).plain() if rng.random() < 0.7 else read_yaml(text, path.name).plain()
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        rng.choice(MUTATIONS)(rng, root, slots(root) or [({"x": 1}, "x")])
    dumped = yaml.safe_dump(root, sort_keys=False, allow_unicode=True, width=rng.choice([40, 1000]))
    return damaged(rng, dumped) if rng.random() < 0.1 else dumped


def outcome(text: str) -> str:
    """`counted` or `refused`, or what is wrong with how it was told. Any exception but a UserError goes on."""
    try:
        cost = api.count(api.make_plan(load_text(text, file="f.yaml")))
    except SpecError as error:
        faults = [str(problem) for problem in error.problems if not is_told_well(problem, text)]
        return f"badly told: {faults}" if faults or not error.problems else "refused"
    except UserError as error:
        return "refused" if str(error).startswith("f.yaml:") else f"badly told: {error}"
    return "counted" if min(cost.params, cost.macs) >= 0 else f"counted wrongly: {cost}"


def is_told_well(problem: Problem, text: str) -> bool:
    """With a place and a path, and no longer than a person reads. What is wrong with the text itself has no path."""
    if problem.place is None or len(problem.rule) > 1000:
        return False
    return bool(problem.path) or problem.rule in rules_of_the_reader(text)


def rules_of_the_reader(text: str) -> list[str]:
    try:
        read_yaml(text, "f.yaml")
    except SpecError as error:
        return [problem.rule for problem in error.problems]
    return []


@cache
def warm_up() -> None:
    """What torch loads once, when an operation is first met, is not charged to a mutation."""
    for name in shipped():
        api.count(name)


def run(seed: int, times: int) -> Counter[str]:
    """How often each outcome was met; a failure's message holds the text."""
    warm_up()
    rng, before, found = random.Random(seed), peak(), Counter[str]()
    for number in range(times):
        text = mutated(rng)
        started = time.process_time()
        try:
            met = outcome(text)
        except Exception as error:
            met = f"{type(error).__name__}: {error}"
        seconds = time.process_time() - started
        assert met in ("counted", "refused"), f"mutation {number} of seed {seed}: {met}\n{text}"
        assert seconds < MAX_SECONDS, f"mutation {number} of seed {seed}: {seconds:.1f} s\n{text}"
        found[met] += 1
    assert peak() - before < MAX_GROWTH
    return found


def peak() -> int:
    """The most memory that the process has held, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_damaged_specs_count_or_are_refused() -> None:
    found = run(seed=0, times=200)
    assert min(found["counted"], found["refused"]) > 20  # both ways are tried


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_damaged_specs_count_or_are_refused(seed: int) -> None:
    run(seed, times=480)


HEADER = """
archspec: 1
name: extreme
input: {size: SIZE}
defaults: {norm: layer, ffn: {type: mlp, ratio: 64}, downsample: patch}
stem: {type: patch, kernel: 1}
head: linear
stages:
"""
SMALL = HEADER.replace("SIZE", "8")
MANY = "  - {width: 64, depth: 9, mixer: none}\njunk: [" + "{}, " * 5000 + "]\nset:\n"


@pytest.mark.parametrize("mixer", ["{type: attention, heads: 1024}", "{type: window, heads: 1024, window: 63}"])
def test_the_largest_that_the_language_can_say_takes_neither_time_nor_memory(mixer: str) -> None:
    text = HEADER.replace("SIZE", "16384") + f"  - {{width: 65536, depth: 1000, mixer: {mixer}}}\n"
    assert bounded(text) in ("counted", "refused")


def test_many_overrides_of_many_blocks() -> None:
    stage = "  - {width: 64, depth: 62, downsample: none, mixer: attention}\n"
    blocks = "".join(f"  '{index}:': {{layer_scale: 0.{index + 1}}}\n" for index in range(256))
    assert bounded(SMALL + stage * 64 + "blocks:\n" + blocks) == "counted"


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ("  - {width: 64, depth: 1000000000, mixer: none}", "1000000000 is more than 1000"),
        ("  - {width: 1000000000000, depth: 1, mixer: none}", "1000000000000 is more than 65536"),
        ("  - {width: 64, depth: 1000, downsample: none, mixer: none}\n" * 5, "5000 blocks in all stages together"),
        (f"  - {{width: 64, depth: 9, mixer: none, modifiers: [{'context_broadcast, ' * 17}]}}", "17 modifiers"),
        (f"  - {{width: 64, depth: 9, mixer: none, blocks: {{{', '.join(map(str, range(257)))}}}}}", "257 indices"),
        (MANY + "".join(f"  junk[*].k{number}: 1\n" for number in range(4000)), "the patches set more than 20000"),
    ],
)
def test_what_is_too_much_is_refused_and_not_tried(lines: str, rule: str) -> None:
    assert bounded(SMALL + lines) == "refused"
    with pytest.raises(SpecError, match=rule):
        load_text(SMALL + lines, file="f.yaml")


def bounded(text: str) -> str:
    """The outcome, within the limits of time and memory."""
    warm_up()
    before, started = peak(), time.process_time()
    met = outcome(text)
    assert time.process_time() - started < MAX_SECONDS
    assert peak() - before < MAX_GROWTH / 10
    return met
