"""The language of ablation files: rows, cumulative or not, factors and designs, equal rows, errors at their places."""

from __future__ import annotations

import importlib
import itertools
import re

import pytest
from typer.testing import CliRunner

from archspec import api
from archspec.cli.app import app
from archspec.errors import SpecError
from archspec.loading import load_text

ablation = importlib.import_module("archspec.search.ablation.study")

NETWORK = """archspec: 1
name: net
description: a base
input: {size: 32}
classes: 10
defaults: {norm: layer, ffn: {type: mlp, ratio: 2}, downsample: patch}
stem: {type: patch, kernel: 4}
stages:
  - {width: 16, depth: 2, mixer: {type: attention, heads: 2}}
  - {width: 32, depth: 2, mixer: {type: attention, heads: 4}}
head: linear
published: {params: 1M}
"""
HEAD = "archspec: 1\nstudy: ablation\nname: mine\nbase: net.yaml\n"


@pytest.fixture
def load(tmp_path):
    """Reads a study on the network above; its first own line is line 5 of the file."""
    (tmp_path / "net.yaml").write_text(NETWORK)

    def read(text, head=HEAD):
        file = tmp_path / "study.yaml"
        file.write_text(head + text)
        return ablation.load_ablation(file)

    return read


@pytest.fixture
def told(load):
    """What is wrong with a study, without the folder."""

    def tell(text, head=HEAD):
        with pytest.raises(SpecError) as caught:
            load(text, head)
        return [re.sub(r"^.*/", "", str(problem)) for problem in caught.value.problems]

    return tell


def same_network(row, *sets):
    """Whether a row is the network with these patches, by its units and not by what it is called."""
    plan = api.make_plan(load_text(NETWORK + "set: {" + ", ".join(sets) + "}\n"))
    return list(row.plan.steps()) == list(plan.steps())


# Rows.
ROWS = """rows:
  - {name: base}
  - {name: wide, set: {"stages[0].width": 32}}
  - {name: deep, set: {"stages[1].depth": 3}}
"""


def test_each_row_is_the_base_with_its_patches(load):
    base, wide, deep = load(ROWS).rows
    assert same_network(base)
    assert same_network(wide, '"stages[0].width": 32')
    assert same_network(deep, '"stages[1].depth": 3')


def test_cumulative_rows_stand_on_one_another(load):
    base, wide, deep = load("cumulative: true\n" + ROWS).rows
    assert same_network(base)
    assert same_network(wide, '"stages[0].width": 32')
    assert same_network(deep, '"stages[0].width": 32', '"stages[1].depth": 3')


def test_the_study_s_own_patches_come_first(load):
    rows = 'set: {"stages[0].width": 64, classes: 5}\n' + ROWS
    base, wide, _ = load(rows).rows
    assert same_network(base, '"stages[0].width": 64', "classes: 5")
    assert same_network(wide, '"stages[0].width": 32', "classes: 5")


def test_a_row_may_start_from_another_network(load, tmp_path):
    (tmp_path / "other.yaml").write_text(NETWORK.replace("depth: 2", "depth: 1"))
    rows = 'set: {classes: 5}\nrows: [{name: base}, {name: other, base: other.yaml, set: {"stages[0].width": 32}}]\n'
    assert same_network(load(rows).rows[1], '"stages[*].depth": 1', '"stages[0].width": 32', "classes: 5")


def test_what_the_base_says_of_itself_is_not_said_of_the_rows(load):
    row = load(ROWS).rows[0]
    assert (row.plan.spec.published, row.plan.spec.description) == (None, "")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        (ROWS, "base"),
        ("rows: [{name: a, set: {classes: 5}}, {name: b}]\n", "b"),
        ("rows: [{name: a, set: {classes: 5}}, {name: b, set: {classes: 6}}]\n", "a"),
        ("reference: b\nrows: [{name: a}, {name: b, set: {classes: 6}}]\n", "b"),
        ("cumulative: true\nrows: [{name: a, set: {classes: 5}}, {name: b, set: {classes: 10}}]\n", "b"),
    ],
)
def test_the_reference_is_what_is_said_or_the_base_or_the_first(load, text, reference):
    assert load(text).reference == reference


# Factors.
FACTORS = """factors:
  width: {"stages[0].width": [16, 32, 64]}
  ffn: {narrow: {}, wide: {defaults.ffn.ratio: 4}}
  depth: {"stages[1].depth": [2, 1]}
"""
PATCHES = {
    "width": {"16": ['"stages[0].width": 16'], "32": ['"stages[0].width": 32'], "64": ['"stages[0].width": 64']},
    "ffn": {"narrow": [], "wide": ["defaults.ffn.ratio: 4"]},
    "depth": {"2": ['"stages[1].depth": 2'], "1": ['"stages[1].depth": 1']},
}


def check(row, levels):
    assert row.levels == tuple(zip(PATCHES, levels, strict=True))
    patches = [patch for factor, level in row.levels for patch in PATCHES[factor][level]]
    assert same_network(row, *patches)


@pytest.mark.parametrize("design", ["", "design: grid\n"])
def test_a_grid_is_the_product_of_the_levels(load, design):
    rows = load(design + FACTORS).rows
    product = list(itertools.product(("16", "32", "64"), ("narrow", "wide"), ("2", "1")))
    assert len(rows) == len(product) == 12
    for row, levels in zip(rows, product, strict=True):
        check(row, levels)
        assert row.name == "width {}, ffn {}, depth {}".format(*levels)


def test_one_at_a_time_leaves_the_other_factors_at_their_first_levels(load):
    rows = load("design: one_at_a_time\n" + FACTORS).rows
    expected = {
        "width 16, ffn narrow, depth 2": ("16", "narrow", "2"),
        "width 32": ("32", "narrow", "2"),
        "width 64": ("64", "narrow", "2"),
        "ffn wide": ("16", "wide", "2"),
        "depth 1": ("16", "narrow", "1"),
    }
    assert [row.name for row in rows] == list(expected)
    for row in rows:
        check(row, expected[row.name])


def test_a_named_subset(load):
    design = """design:
  - {name: both, levels: {depth: 1, width: 64}, published: {params: 2M, top1: 50}, note: large}
  - {levels: {ffn: wide}}
"""
    both, wide = load(design + FACTORS).rows
    check(both, ("64", "narrow", "1"))
    assert (both.name, both.note, both.published.params, both.published.top1) == ("both", "large", "2M", 50)
    check(wide, ("16", "wide", "2"))
    assert wide.name == "width 16, ffn wide, depth 2"


def test_values_that_are_no_scalars_name_levels_too(load):
    factors = """factors:
  mixer: {defaults.modifiers: [[], [context_broadcast], [{type: context_broadcast, scaled: true}]], }
  bias: {head.bias: [true, false]}
"""
    rows = load("design: one_at_a_time\n" + factors).rows
    assert [row.name for row in rows] == [
        "mixer [], bias true",
        "mixer [context_broadcast]",
        "mixer [{type: context_broadcast, scaled: true}]",
        "bias false",
    ]


def test_training_and_columns_are_read(load):
    said = "recipe: digits\ndata: digits\nseeds: [3, 1]\ncolumns: [top1, macs]\nbudgets: {macs: <=1G}\n"
    study = load(said + ROWS)
    assert (study.recipe, study.data, study.seeds, study.columns) == ("digits", "digits", (3, 1), ("top1", "macs"))
    assert [str(budget) for budget in study.budgets] == ["macs: <=1G"]
    study = load(ROWS)
    assert (study.recipe, study.data, study.seeds, study.budgets) == (None, None, (0,), ())


# Equal rows.
def test_rows_that_are_one_network_are_refused_at_the_second(told):
    text = """rows:
  - {name: a, set: {"stages[0].width": 32}}
  - {name: b, set: {"stages[1].depth": 3}}
  - {name: c, set: {"stages[0].width": 64, "stages[:1].width": 32}}
"""
    (line,) = told(text)
    assert line.startswith("study.yaml:8:20: rows[2].set: 'c' is the same network as 'a' in line 6")
    assert "same: allowed" in line


@pytest.mark.parametrize("cumulative", ["", "cumulative: true\n"])
def test_patches_that_change_nothing_are_refused(told, cumulative):
    (line,) = told('rows: [{name: a, set: {"stages[0].depth": 2}}]\n' + cumulative)
    assert line.startswith("study.yaml:5:23: rows[0].set: the patches of 'a' change nothing")


def test_a_cumulative_row_that_is_the_row_before_is_refused(told):
    (line,) = told("cumulative: true\nrows: [{name: a, set: {classes: 5}}, {name: b, set: {classes: 5}}]\n")
    assert line.startswith("study.yaml:6:53: rows[1].set: the patches of 'b' change nothing")


def test_equal_rows_can_be_allowed_and_are_marked(load):
    rows = "rows: [{name: a}, {name: b, set: {classes: 5}}, {name: c, same: allowed}, {name: d, same: allowed}]\n"
    assert [row.same_as for row in load(rows).rows] == ["", "", "a", "a"]
    rows = "same: allowed\nrows: [{name: a}, {name: b}]\n"
    assert [row.same_as for row in load(rows).rows] == ["", "a"]


def test_a_level_that_is_another_in_disguise_is_refused_once(told):
    (line,) = told("""factors:
  width:
    narrow: {}
    wide: {"stages[0].width": 32}
    wider: {"stages[:1].width": 32}
  depth: {"stages[1].depth": [2, 1, 3]}
""")
    assert line.startswith("study.yaml:9:12: factors.width.wider: ")
    assert "is the same network as 'width wide, depth 2'" in line


# What is wrong, and where.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "study.yaml:1:1: missing; an ablation needs rows, or factors"),
        ("rows: []", "study.yaml:5:7: rows: a list of 0 where a list of 1 to"),
        ("rows: {a: 1}", "study.yaml:5:7: rows: a mapping where a list"),
        ("rows: [a]", "study.yaml:5:8: rows[0]: 'a' where the keys of a row"),
        ("rows: [{set: {classes: 5}}]", "study.yaml:5:8: rows[0].name: missing"),
        (
            "rows: [{name: a}, {name: a, set: {classes: 5}}]",
            "study.yaml:5:34: rows[1].set: a row is called 'a' already",
        ),
        (
            "rows: [{name: a, sett: {}}]",
            "study.yaml:5:18: rows[0].sett: 'sett' is no key of a row (did you mean 'set'?)",
        ),
        ("rows: [{name: a, set: 5}]", "study.yaml:5:23: set: 5 where a mapping of path: value is expected"),
        ('rows: [{name: a, set: {"stages[4].depth": 7}}]', "study.yaml:5:24: stages[4].depth: stages has 2 items"),
        ('rows: [{name: a, set: {"stages[": 7}}]', "study.yaml:5:30: stages[: expected an index"),
        ('rows: [{name: a, set: {"stages[0].mixer.heads": 3}}]', "study.yaml:5:49: stages[0].mixer.heads: 3 does not"),
        ("rows: [{name: a, base: vit_tony}]", "study.yaml:5:24: rows[0].base: there is no shipped network 'vit_tony'"),
        ("rows: [{name: a, published: {params: x}}]", "study.yaml:5:38: rows[0].published.params: 'x' is not a number"),
        ("rows: [{name: a, same: true}]", "study.yaml:5:24: rows[0].same: true is not 'allowed'"),
        ("reference: b\nrows: [{name: base}]", "study.yaml:5:12: reference: there is no row 'b' (there are: base)"),
        ("cumulative: 1\nrows: [{name: a}]", "study.yaml:5:13: cumulative: 1 is not true or false"),
        ("seeds: []\nrows: [{name: a}]", "study.yaml:5:8: seeds: a list of 0 (at least 1)"),
        ("seeds: 3\nrows: [{name: a}]", "study.yaml:5:8: seeds: 3 is not a list (write [3])"),
        ("seeds: [0, -1]\nrows: [{name: a}]", "study.yaml:5:12: seeds[1]: -1 is less than 0"),
        ("seeds: [0, 0]\nrows: [{name: a}]", "study.yaml:5:8: seeds: a list names 0 more than once"),
        ("columns: [parms]\nrows: [{name: a}]", "study.yaml:5:11: columns[0]: 'parms' is not"),
        ("recipe: 5\nrows: [{name: a}]", "study.yaml:5:9: recipe: 5 is not text"),
        ("budgets: {macs: 1G}\nrows: [{name: a}]", "study.yaml:5:17: budgets.macs: '1G': a limit or a window"),
        ("design: grid\nrows: [{name: a}]", "study.yaml:5:1: design: 'design' does not go with 'rows'"),
        ("set: [1]\nrows: [{name: a}]", "study.yaml:5:6: set: a list where a mapping of path: value"),
        ("factors: []", "study.yaml:5:10: factors: a list where a mapping of factor: levels"),
        ("factors: {a: [1, 2]}", "study.yaml:5:14: factors.a: a list where the levels of a factor are expected"),
        ("factors: {a: {classes: []}}", "study.yaml:5:24: factors.a.classes: an empty list"),
        ("factors: {a: {classes: [3]}}", "study.yaml:5:14: factors.a: 'a' has one level, which compares nothing"),
        ("factors: {a: {b: {}}}", "study.yaml:5:14: factors.a: 'a' has one level"),
        ("factors: {a: {b: {}, c: 3}}", "study.yaml:5:25: factors.a.c: 3 where the patches of the level 'c'"),
        ("factors: {a: {classes: [3, 4], c: {}}}", "study.yaml:5:24: factors.a.classes: a list where the patches"),
        ("factors: {a: {classes: [3, 3, 4]}}", "study.yaml:5:28: factors.a.classes[1]: 3 is there more than once"),
        ("factors: {a: {classes: [3, x]}}", "study.yaml:5:28: classes: 'x' is not a whole number"),
        ("factors: {a: {classes: [3, 4]}}\ncumulative: true", "study.yaml:6:1: cumulative: 'cumulative' does not go"),
        ("factors: {a: {classes: [3, 4]}}\nrows: [{name: b}]", "study.yaml:6:1: rows: 'rows' does not go with"),
        ("factors: {a: {classes: [3, 4]}}\ndesign: gird", "study.yaml:6:9: design: 'gird' is no design"),
        (
            "factors: {a: {classes: [3, 4]}}\ndesign: [{levels: {a: 5}}]",
            "study.yaml:6:23: design[0].levels.a: there is no",
        ),
        (
            "factors: {a: {classes: [3, 4]}}\ndesign: [{levels: {b: 3}}]",
            "study.yaml:6:20: design[0].levels.b: there is no",
        ),
        (
            "factors: {a: {classes: [3, 4]}}\ndesign: [{levels: 3}]",
            "study.yaml:6:19: design[0].levels: 3 where a mapping",
        ),
        (
            "factors: {a: {classes: [3, 4]}}\ndesign: [{}]",
            "study.yaml:6:10: design[0].levels: missing; a cell needs it",
        ),
    ],
)
def test_what_is_wrong_is_told_at_its_place(told, text, expected):
    lines = told(text + "\n")
    assert len(lines) == 1, lines
    assert lines[0].startswith(expected)


def test_a_grid_has_its_limit(told):
    factors = "".join(f'  f{i}: {{"stages[0].depth": [{", ".join(map(str, range(1, 12)))}]}}\n' for i in range(3))
    (line,) = told(f"factors:\n{factors}")
    assert "a grid of 1,331 rows, more than 1,000" in line


def test_all_that_is_wrong_is_told_at_once_in_order(told):
    text = """sede: [1]
rows:
  - {name: a, set: {"stages[0].mixer.heads": 3}}
  - {name: b, set: {"stages[4].depth": 7}, published: {parms: 1M}}
  - {name: c, set: {"stages[0].depth": 2}}
budgets: {macs: x}
"""
    lines = told(text)
    assert [line.split(":")[1] for line in lines] == ["5", "7", "8", "8", "9", "10"]


def test_after_a_cumulative_row_at_fault_no_more_is_told_of_what_stands_on_it(told):
    text = """cumulative: true
rows:
  - {name: a, set: {"stages[0].mixer.heads": 3}}
  - {name: b, set: {classes: 5}}
"""
    assert [line.split(":")[1] for line in told(text)] == ["7"]


def test_a_base_at_fault_is_told_once_with_its_own_place(told, tmp_path):
    (tmp_path / "broken.yaml").write_text(NETWORK.replace("heads: 2", "heads: 3"))
    rows = "rows: [{name: base}, {name: five, set: {classes: 5}}]\n"
    (line,) = told(rows, HEAD.replace("net.yaml", "broken.yaml"))
    assert line.startswith("broken.yaml:9:")


def test_a_base_that_is_not_there_is_told_at_its_key(told):
    (line,) = told(ROWS, HEAD.replace("net.yaml", "nett.yaml"))
    assert line.startswith("study.yaml:4:7: base: there is no file 'nett.yaml' (did you mean 'net.yaml'?)")


def test_a_base_outside_the_study_s_folder_is_refused(tmp_path):
    (tmp_path / "base.yaml").write_text("archspec: 1\nextends: vit_tiny\n")
    inside = tmp_path / "studies"
    inside.mkdir()
    file = inside / "study.yaml"
    file.write_text("archspec: 1\nstudy: ablation\nname: mine\nbase: ../base.yaml\nrows: [{name: base}]\n")
    with pytest.raises(SpecError, match="leaves the folder"):
        ablation.load_ablation(file)
    assert ablation.load_ablation(file, allow_outside=True).rows[0].name == "base"


# The command.
def run(tmp_path, text):
    (tmp_path / "net.yaml").write_text(NETWORK)
    file = tmp_path / "study.yaml"
    file.write_text(HEAD + text)
    return CliRunner().invoke(app, ["ablate", str(file), "--count-only"])


def test_the_table_marks_what_is_over_budget_or_the_same(tmp_path):
    rows = 'budgets: {params: <=30k}\nrows: [{name: "[b]"}, {name: wide, set: {"stages[1].width": 64}}, '
    result = run(tmp_path, rows + "{name: again, same: allowed}]\n")
    lines = re.sub(r"[^\w<=.,'\[\] ]|\s+", " ", result.stdout)
    assert result.exit_code == 0
    assert lines.count("[b]") == 2  # its name and what equals it; neither is taken for a style
    assert lines.count("over budget") == 1
    assert "the same network as '[b]'" in lines


def test_the_columns_are_those_of_the_study(tmp_path):
    result = run(tmp_path, "columns: [flops, activations, top1]\nrows: [{name: base}]\n")
    assert "FLOPs" in result.stdout
    assert "activations" in result.stdout
    assert "params" not in result.stdout


def test_a_mistake_has_exit_code_2(tmp_path):
    exception = run(tmp_path, "rows: [{name: a, sett: 1}]\n").exception
    assert isinstance(exception, SpecError)
    assert exception.exit_code == 2
