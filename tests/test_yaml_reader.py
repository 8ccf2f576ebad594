"""The YAML reader: what it reads, where it says things stand, and every trap that it closes."""

import time
import tracemalloc
from pathlib import Path

import pytest
import yaml

from archspec import yaml_reader
from archspec.errors import Place, SpecError, UsageError
from archspec.yaml_reader import parse_value, read_file, read_yaml


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def parser(request, monkeypatch):
    """Everything holds with libyaml and with PyYAML's own parser, which stands in where libyaml is missing."""
    if request.param == "python":
        monkeypatch.setattr(yaml_reader, "_LOADER", yaml.SafeLoader)


def problems(text):
    with pytest.raises(SpecError) as caught:
        read_yaml(text, "f.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("~", None),
        ("null", None),
        ("8", 8),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),
        ("1000000000000000000", 10**18),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-2.50", -2.5),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("off", "off"),
        ("tRUE", "tRUE"),
        ("2024-01-31", "2024-01-31"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("１", "１"),  # a digit, but not one of ASCII
        (".", "."),
        ("1.5G", "1.5G"),
        ("'8'", "8"),
        ('"true"', "true"),
        ("''", ""),
        ("{type: mat, heads: 8}", {"type": "mat", "heads": 8}),
        ("[a, [1, 2.5]]", ["a", [1, 2.5]]),
        ("|\n  8\n", "8\n"),
    ],
)
def test_scalars_of_the_core_schema(text, value):
    plain = parse_value(text, "--set x").plain()
    assert plain == value
    assert type(plain) is type(value)


def test_every_value_has_its_place_key_place_and_path():
    root = read_yaml("name: mat\nstages:\n  - {width: 64,\n     mixer: [a, b]}\n", "f.yaml")
    assert (root.place, root.key_place) == (Place("f.yaml", 1, 1), None)
    stage = root.mapping["stages"].items[0]
    assert stage.place == Place("f.yaml", 3, 5)
    mixer = stage.mapping["mixer"]
    assert mixer.key_place == Place("f.yaml", 4, 6)
    assert mixer.place == Place("f.yaml", 4, 13)
    assert mixer.items[1].place == Place("f.yaml", 4, 17)
    assert mixer.items[1].path == "stages[0].mixer[1]"


def test_an_alias_is_its_anchors_value_under_its_own_key():
    root = read_yaml("a: &m {heads: 8}\nb: *m\n", "f.yaml")
    assert root.plain() == {"a": {"heads": 8}, "b": {"heads": 8}}
    b = root.mapping["b"]
    assert (b.place.line, b.key_place.line) == (1, 2)
    assert b.mapping["heads"].path == "b.heads"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1: duplicate key 'a', first in line 1"),
        ("s: [{a: 1, 'a': 2}]", "f.yaml:1:12: s[0]: duplicate key 'a', first in line 1"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "f.yaml:1:4: a: the tag '!!python/object/apply:os.system' is not allowed",
        ),
        ("a: !!str 8", "f.yaml:1:4: a: the tag '!!str' is not allowed"),
        ("a: !foo 8", "f.yaml:1:4: a: the tag '!foo' is not allowed"),
        ("a: ! 8", "f.yaml:1:4: a: the tag '!' is not allowed"),
        ("!!str a: 8", "f.yaml:1:1: the tag '!!str' is not allowed"),
        ("!!map {a: 8}", "f.yaml:1:1: the tag '!!map' is not allowed"),
        ("a: &x {b: 1}\nc: {<<: *x}", "f.yaml:2:5: c: merge keys '<<' are not part of the language (use extends)"),
        ("? [1, 2]\n: 3", "f.yaml:1:3: a key must be a plain text"),
        ("a: &x k\n*x : 3", "f.yaml:2:1: a key must be a plain text"),
        ("&x a: 3", "f.yaml:1:1: the key 'a' cannot carry an anchor"),
        ("k" * 101 + ": 3", "f.yaml:1:1: the key 'kkkk"),
        ("a: &x [1, *x]", "f.yaml:1:11: a[1]: the alias '*x' stands inside of what it names"),
        ("a: &mixer 1\nb: *mixr", "f.yaml:2:4: b: the alias '*mixr' has no anchor before it (did you mean 'mixer'?)"),
        ("a: &x 1\nb: &x 2", "f.yaml:2:4: b: the anchor '&x' is defined twice, first in line 1"),
        ("a: .inf", "f.yaml:1:4: a: .inf is not a finite number"),
        ("a: -.INF", "f.yaml:1:4: a: -.INF is not a finite number"),
        ("a: .nan", "f.yaml:1:4: a: .nan is not a finite number"),
        ("a: 1e999", "f.yaml:1:4: a: the number 1e999 is too large"),
        ("a: 1000000000000000001", "f.yaml:1:4: a: the number 1000000000000000001 is too large"),
        ("a: -" + "9" * 5000, "f.yaml:1:4: a: the number -9999"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: a second document starts here"),
        ("", "f.yaml:1:1: empty"),
        ("# only a comment\n", "f.yaml:1:1: empty"),
        ("---\n", "f.yaml:1:1: empty"),
        ("- 1\n- 2", "f.yaml:1:1: the file must hold a mapping of keys to values, not a list"),
        ("mat", "f.yaml:1:1: the file must hold a mapping of keys to values, not 'mat'"),
        ("a: 1\nb: x\0y", "f.yaml:2:5: the control character U+0000 is not allowed"),
        ("a: \x1b[0m", "f.yaml:1:4: the control character U+001B is not allowed"),
        ("a: \ud800", "f.yaml:1:4: the control character U+D800 is not allowed"),
        ('a: "x\\0y"', "f.yaml:1:4: a: the text holds the control character U+0000"),
        ("a:\n\tb: 1", "f.yaml:2:1: a tab cannot indent (indent with spaces)"),
        ("a: @x", "f.yaml:1:4: a value cannot start with '@' (quote it)"),
        ("a: b: c", "f.yaml:1:5: a ':' stands where no key can"),
        ("a: 1\nb: [1, 2\nc: 3", "f.yaml:3:2: expected ',' or ']' for the list that starts in line 2"),
        ("a: {x: 1]", "f.yaml:1:9: expected ',' or '}' for the mapping that starts in line 1"),
        ("a: 1\nb: 'x\nc: 3", "f.yaml:3:5: the quoted text that starts in line 2 has no end"),
        ("a: 'b' c", "f.yaml:1:8: not a key of the mapping that starts in line 1"),
        ("- a\nb: 1", "f.yaml:2:1: not an item of the list that starts in line 1"),
    ],
)
def test_a_trap_is_a_problem_with_its_place(text, problem):
    found = problems(text)
    assert found[0].startswith(problem)


def test_an_empty_key_is_a_problem():
    assert problems("{? : 3}")[0].endswith("a key is missing before the ':'")  # the parsers differ in the column


def test_a_bad_escape_is_a_problem():
    assert "f.yaml:1:" in problems('a: "\\UFFFFFFFF"')[0]


def test_all_problems_of_a_file_come_at_once_in_order():
    found = problems("a: !t {x: .nan}\nb: 1\nb: [*gone, .inf]\nc: 1\nc: 2\nd: [")
    assert [problem.split(": ")[0] for problem in found] == [
        "f.yaml:1:4",
        "f.yaml:1:11",
        "f.yaml:3:1",
        "f.yaml:3:5",
        "f.yaml:3:12",
        "f.yaml:5:1",
        "f.yaml:6:5",
    ]
    assert found[-1] == "f.yaml:6:5: expected a value, found the end"
    assert [problem.split(": ")[0] for problem in problems("- !t 8")] == ["f.yaml:1:1", "f.yaml:1:3"]


@pytest.mark.parametrize("text", ["a: " + "[" * 10**6, "a: " + "{x: " * 10**5, "? " * 10**5, "- " * 10**5])
def test_deep_nesting_is_refused_at_once(text):
    started = time.perf_counter()
    assert problems(text[: yaml_reader.MAX_BYTES])[-1].endswith("nested deeper than 64")
    assert time.perf_counter() - started < 1


def test_the_depth_limit_is_64_with_aliases_expanded():
    deepest = "a: " + "[" * 63 + "]" * 63
    assert read_yaml(deepest, "f.yaml")
    assert problems("a: " + "[" * 64 + "]" * 64)[0].endswith("nested deeper than 64")
    half = "[" * 40
    assert problems(f"a: &x {half}{']' * 40}\nb: {half}*x{']' * 40}")[0].endswith("nested deeper than 64")


def test_an_alias_bomb_costs_neither_time_nor_memory():
    lines = ["a0: &a0 [" + ", ".join(["lol"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 15)]
    bomb = "\n".join(lines)
    assert len(bomb) < 1024
    tracemalloc.start()
    started = time.perf_counter()
    found = problems(bomb)
    seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "more than 20000 values, counting what aliases repeat" in found[0]
    assert seconds < 1
    assert peak < 100e6


def test_the_node_limit_counts_the_expanded_tree():
    items = ", ".join(["1"] * 9_998)
    # the root, twice the list with its items, and one more: 20,000
    assert read_yaml(f"a: &a [{items}]\nb: *a\nc: 1", "f.yaml")
    assert "more than 20000 values" in problems(f"a: &a [{items}]\nb: *a\nc: 1\nd: 1")[0]


def test_a_value_stands_where_the_command_line_has_it():
    heads = parse_value("{type: mat, heads: 8}", "--set x=...", column=3).mapping["heads"]
    assert heads.place == Place("--set x=...", 1, 22)
    with pytest.raises(SpecError, match=r"^--set x=\[:1:4: expected a value, found the end"):
        parse_value("[", "--set x=[", column=3)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"a: 1\nb: caf\xe9\n", "f.yaml:2:7: byte 0xe9 at offset 11 is not UTF-8"),
        ("a: 1\n".encode("utf-16"), "f.yaml:1:1: the file is UTF-16 or UTF-32 (save it as UTF-8)"),
        ("a: 1\n".encode("utf-16-le"), "f.yaml:1:2: the control character U+0000 is not allowed"),
        (b"a: 1\r\nb: \x00", "f.yaml:2:4: the control character U+0000 is not allowed"),
        (b"# " + b"x" * 2**20, "f.yaml:1:1: the file is larger than 1 MiB"),
    ],
)
def test_bytes_that_are_no_text(tmp_path, data, problem):
    path = tmp_path / "bad.yaml"
    path.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        read_file(path, "f.yaml")
    assert str(caught.value).startswith(problem)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9 # caf\xc3\xa9\n")
    root = read_file(path)
    assert root.plain() == {"a": "é"}
    assert root.mapping["a"].place == Place(str(path), 1, 4)


def test_an_endless_file_is_not_read_to_its_end():
    with pytest.raises(SpecError, match="larger than 1 MiB"):
        read_file(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be read"):
        read_file(tmp_path / name)


def test_what_pyyaml_writes_is_read_to_the_same():
    data = {"a": [1, -2.5, None, True, "no", "1_000", "8", ""], "b": {"1:": {"x y": "é\n"}}, "c": {}, "d": []}
    assert read_yaml(yaml.safe_dump(data), "f.yaml").plain() == data
