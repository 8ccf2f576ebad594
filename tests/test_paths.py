"""The path language: its text, what it selects, and what a patch does to a tree."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archspec.errors import Place, SpecError
from archspec.paths import Every, Path, Span, apply_patch, match_paths, parse_assignment
from archspec.yaml_reader import parse_value, read_yaml

SPEC = """
name: net
input: {size: 224}
stages:
  - {width: 64, mixer: attention, blocks: {"1:": {mixer: pool}}}
  - {width: 128, mixer: {type: mat, heads: 4}}
  - {width: 256, mixer: [mat, pool]}
  - {width: 512}
"""


def patched(path, value, spec=SPEC):
    return apply_patch(read_yaml(spec, "f.yaml"), Path.parse(path), parse_value(value, "--set")).plain()


def refused(path, value, spec=SPEC):
    with pytest.raises(SpecError) as caught:
        patched(path, value, spec)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("input.size", ("input", "size")),
        ("stages[2].mixer", ("stages", 2, "mixer")),
        ("stages[-1]", ("stages", -1)),
        ("stages[2:]", ("stages", Span(2, None))),
        ("stages[:-1]", ("stages", Span(None, -1))),
        ("stages[1:3]", ("stages", Span(1, 3))),
        ("stages[:]", ("stages", Span())),
        ("stages[*].mixer", ("stages", Every(), "mixer")),
        ('stages[0].blocks["1:"].mixer', ("stages", 0, "blocks", "1:", "mixer")),
        ('["1:"].x', ("1:", "x")),
        (r'a["x\"]\\.="]', ("a", r'x"]\.=')),
        ("drop-path_2", ("drop-path_2",)),
    ],
)
def test_a_text_is_its_steps_and_back(text, steps):
    assert Path.parse(text).steps == steps
    assert str(Path(steps)) == text


def test_other_spellings_have_one_canonical_text():
    assert str(Path.parse("a['1:']['b'][007]")) == 'a["1:"].b[7]'


STEPS = st.one_of(
    st.text(max_size=6),
    st.integers(-99, 99),
    st.builds(Span, st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9)),
    st.just(Every()),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(STEPS, min_size=1, max_size=5))
def test_any_path_survives_its_text(steps):
    path = Path(tuple(steps))
    assert Path.parse(str(path)) == path
    assert parse_assignment(f"{path}=8")[0] == path


@pytest.mark.parametrize(
    ("text", "column", "rule"),
    [
        ("", 5, "expected a name"),
        ("a..b", 7, "'.' cannot stand in a name"),
        ("a.", 7, "expected a name"),
        ("a b", 6, "expected '.' or '[' before ' '"),
        ("a[1]b", 9, "expected '.' or '[' before 'b'"),
        ("a.2", 7, "a name cannot start with a digit"),
        ("a[", 6, "expected an index, a slice, * or a quoted key"),
        ("a[x]", 6, "expected an index"),
        ("a[::2]", 6, "expected an index"),
        ("a[" + "9" * 5000 + "]", 6, "expected an index"),
        ("a" + ".a" * 5000, 5 + 127, "more than 64 steps"),
    ],
)
def test_a_bad_text_says_where_and_why(text, column, rule):
    with pytest.raises(SpecError) as caught:
        Path.parse(text, Place("f.yaml", 3, 5))
    (problem,) = caught.value.problems
    assert problem.place == Place("f.yaml", 3, column)
    assert problem.rule.startswith(rule)
    assert problem.rule.endswith(f"at character {column - 4} of the path")
    with pytest.raises(SpecError):
        Path.parse(text)


@pytest.mark.parametrize(
    ("path", "selected"),
    [
        ("stages[*].mixer", ["stages[0].mixer", "stages[1].mixer", "stages[2].mixer"]),
        ("stages[1:3].width", ["stages[1].width", "stages[2].width"]),
        ("stages[:-1]", ["stages[0]", "stages[1]", "stages[2]"]),
        ("stages[-1].width", ["stages[3].width"]),
        ("stages[-5]", []),
        ("stages[2].mixer[*]", ["stages[2].mixer[0]", "stages[2].mixer[1]"]),
        ("stages[0].blocks[*]", ['stages[0].blocks["1:"]']),
        ("stages.width", []),
        ("input[0]", []),
        ("nothing", []),
    ],
)
def test_the_concrete_paths_that_a_path_selects(path, selected):
    assert match_paths(read_yaml(SPEC, "f.yaml"), Path.parse(path)) == selected


def test_a_patch_sets_values_by_name_index_slice_and_star():
    assert patched("input.size", "192")["input"] == {"size": 192}
    assert [stage["width"] for stage in patched("stages[-1].width", "7")["stages"]] == [64, 128, 256, 7]
    assert [stage["width"] for stage in patched("stages[1:-1].width", "7")["stages"]] == [64, 7, 7, 512]
    assert [stage["width"] for stage in patched("stages[*].width", "7")["stages"]] == [7, 7, 7, 7]
    assert patched('stages[0].blocks["1:"].mixer', "mat")["stages"][0]["blocks"] == {"1:": {"mixer": "mat"}}
    assert patched("stages[0].blocks[*]", "{}")["stages"][0]["blocks"] == {"1:": {}}
    assert patched("stages[2].mixer[0]", "x")["stages"][2]["mixer"] == ["x", "pool"]
    assert patched("stages[1].mixer", "mat")["stages"][1]["mixer"] == "mat"


def test_missing_mappings_are_created():
    assert patched("defaults.ffn.ratio", "4")["defaults"] == {"ffn": {"ratio": 4}}
    assert patched("a.b", "1", "a:\n") == {"a": {"b": 1}}


def test_a_short_form_becomes_the_long_one():
    stage = patched("stages[0].mixer.heads", "8")["stages"][0]
    assert stage["mixer"] == {"type": "attention", "heads": 8}
    assert patched("stages[0].mixer.type", "mat")["stages"][0]["mixer"] == {"type": "mat"}
    assert patched("stages[2].mixer[*].heads", "8")["stages"][2]["mixer"] == [
        {"type": "mat", "heads": 8},
        {"type": "pool", "heads": 8},
    ]


def test_null_removes_a_key():
    assert patched("stages[1].mixer.heads", "null")["stages"][1]["mixer"] == {"type": "mat"}
    assert patched("stages[0].blocks[*]", "~")["stages"][0]["blocks"] == {}


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("stages[7].width", "8", "stages has 4 items, so [7] selects none"),
        ("stages[-5].width", "8", "stages has 4 items, so [-5] selects none"),
        ("stages[4:]", "8", "stages has 4 items, so [4:] selects none"),
        ("stages[3].mixer[0]", "8", "there is no 'mixer' in stages[3]"),
        ("stage[0].width", "8", "there is no 'stage' in the top level (did you mean 'stages'?)"),
        ("stages[2].mixer.heads", "8", "stages[2].mixer is a list, which has no 'heads' (write stages[2].mixer[*])"),
        ("stages[0].mixer[0]", "8", "stages[0].mixer is 'attention', so [0] selects none"),
        ("stages[0].width[*]", "8", "stages[0].width is 64, so [*] selects none"),
        ("input[0]", "8", "input is a mapping, so [0] selects none (its entries: size)"),
        ("stages[0].width.x", "8", "stages[0].width is 64, which has no 'x'"),
        ("stages[1].mixer.head", "null", "there is no 'head' in stages[1].mixer (did you mean 'heads'?)"),
        ("stages[0].mixer.heads", "null", "there is no 'heads' in stages[0].mixer"),
        ("nowhere.x", "null", "there is no 'nowhere' in the top level"),
    ],
)
def test_a_patch_that_does_not_fit_says_why(path, value, problem):
    assert refused(path, value) == [f"--set:1:1: {path}: {problem}"]


def test_star_needs_something_to_select():
    assert "s has 0 items, so [*] selects none" in refused("s[*].x", "1", "s: []")[0]
    assert "s has no entries, so [*] selects none" in refused("s[*].x", "1", "s: {}")[0]


def test_the_problems_of_all_branches_come_at_once():
    assert len(refused("stages[*].width.x", "8")) == 4


def test_a_patch_cannot_multiply_without_bounds():
    spec = "a: [" + "1, " * 5000 + "]"
    assert refused("a[*]", "[1, 2, 3, 4]", spec) == ["--set:1:1: a[*]: the patches set more than 20000 values"]


def test_a_patch_leaves_the_base_and_shares_what_it_does_not_touch():
    root = read_yaml(SPEC, "f.yaml")
    before = root.plain()
    new = apply_patch(root, Path.parse("stages[0].mixer.heads"), parse_value("8", "--set"))
    assert root.plain() == before
    assert new.mapping["input"] is root.mapping["input"]
    assert new.mapping["stages"].items[1] is root.mapping["stages"].items[1]


def test_places_and_paths_after_a_patch():
    root = read_yaml(SPEC, "f.yaml")
    path, value = parse_assignment("stages[-4].mixer.ffn={ratio: 4}")
    mixer = apply_patch(root, path, value).mapping["stages"].items[0].mapping["mixer"]
    base = root.mapping["stages"].items[0].mapping["mixer"]
    assert (mixer.place, mixer.key_place) == (base.place, base.key_place)
    assert mixer.mapping["type"].place == base.place
    file = "--set stages[-4].mixer.ffn={ratio: 4}"
    ffn = mixer.mapping["ffn"]
    assert (ffn.place, ffn.key_place) == (Place(file, 1, 22), Place(file, 1, 1))
    assert ffn.mapping["ratio"].path == "stages[0].mixer.ffn.ratio"
    made = apply_patch(root, *parse_assignment("defaults.norm=batch")).mapping["defaults"]
    assert made.place == made.key_place == Place("--set defaults.norm=batch")
    assert made.path == "defaults"


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("stages[0].mixer.heads=8", "stages[0].mixer.heads", 8),
        ("source=a=b", "source", "a=b"),
        ('a["x=y"].z=1', 'a["x=y"].z', 1),
        ("a['x=]'].z=[1, 2]", 'a["x=]"].z', [1, 2]),
        ("mixer={type: mat, heads: 8}", "mixer", {"type": "mat", "heads": 8}),
        ("mixer=null", "mixer", None),
    ],
)
def test_an_assignment_splits_at_its_first_equals_sign(text, path, value):
    parsed, node = parse_assignment(text)
    assert (str(parsed), node.plain()) == (path, value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("stages", "--set stages:1:1: stages: expected PATH=VALUE, found no '='"),
        ("a= ", "--set a= :1:3: a: there is no value after the '='"),
        ("=8", "--set =8:1:1: expected a name"),
        ("a[x]=8", "--set a[x]=8:1:2: a[x]: expected an index"),
        ("a[0=8", "--set a[0=8:1:2: a[0=8: expected an index"),
        ("a=[1", "--set a=[1:1:5: expected ',' or ']'"),
        ("a=!t 8", "--set a=!t 8:1:3: the tag '!t' is not allowed"),
    ],
)
def test_a_bad_assignment_says_where(text, problem):
    with pytest.raises(SpecError) as caught:
        parse_assignment(text)
    assert str(caught.value).startswith(problem)
