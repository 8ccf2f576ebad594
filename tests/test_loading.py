"""From files to one tree: `extends`, `set`, `--set`, and what defaults, stages and blocks say over one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from archspec import api
from archspec.errors import SpecError, UsageError
from archspec.loading import find_spec, load_spec, load_text, load_tree, shipped
from archspec.plan import lay_out
from archspec.spec import Block, Spec

BASE = """archspec: 1
name: base
description: the base
input: {size: 32}
classes: 10
defaults: {norm: layer, ffn: {type: mlp, ratio: 2}, downsample: patch}
stem: {type: patch, kernel: 4}
stages:
  - {width: 16, depth: 2, mixer: {type: attention, heads: 2}}
  - {width: 32, depth: 4, mixer: {type: attention, heads: 4}}
head: linear
published: {params: 5M, top1: 80}
"""


def write(folder: Path, **files: str) -> Path:
    """Files `name.yaml`, the base among them; returns the folder. `__` in a name is a folder."""
    for name, text in {"base": BASE, **files}.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def refused(folder: Path, name: str = "net", **options: object) -> list[str]:
    """The problems of a file, with the folder's own name left out."""
    with pytest.raises(SpecError) as caught:
        api.make_plan(load_spec(folder / f"{name}.yaml", **options))  # type: ignore[arg-type]
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def network(text: str = "", *changes: tuple[str, str]) -> Spec:
    """The base with changes, and lines at its end."""
    base = BASE
    for old, new in changes:
        assert base.count(old) == 1
        base = base.replace(old, new)
    return load_text(base + text)


def mixers(spec: Spec) -> list[str]:
    return [block.mixer.type if block.mixer else "none" for block in blocks(spec)]


def blocks(spec: Spec) -> list[Block]:
    return [block for stage in spec.stages for block in stage.blocks]


class TestExtends:
    def test_a_file_beside(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\nclasses: 7\n")
        spec = load_spec(tmp_path / "net.yaml")
        assert (spec.classes, spec.size, len(blocks(spec))) == (7, (32, 32), 6)

    def test_a_file_in_a_folder_below(self, tmp_path: Path) -> None:
        write(tmp_path, sub__base=BASE, net="extends: sub/base.yaml\n")
        assert load_spec(tmp_path / "net.yaml").classes == 10

    def test_a_shipped_network(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: vit_tiny\nclasses: 7\n")
        spec = load_spec(tmp_path / "net.yaml")
        assert (spec.name, spec.classes, spec.stages[0].width) == ("net", 7, 192)

    def test_a_chain_in_which_each_says_more(self, tmp_path: Path) -> None:
        middle = "extends: base.yaml\nclasses: 20\ndrop_path: 0.1\nset: {'stages[1].width': 64}\n"
        write(tmp_path, middle=middle, net="extends: middle.yaml\nclasses: 30\nset: {'stages[*].depth': 1}\n")
        spec = load_spec(tmp_path / "net.yaml")
        assert (spec.classes, spec.drop_path) == (30, 0.1)
        assert [(stage.width, len(stage.blocks)) for stage in spec.stages] == [(16, 1), (64, 1)]

    def test_mappings_merge_and_lists_replace(self, tmp_path: Path) -> None:
        stages = "stages: [{width: 8, depth: 1, mixer: none}]\n"
        write(tmp_path, net="extends: base.yaml\ninput: {channels: 1}\n" + stages)
        spec = load_spec(tmp_path / "net.yaml")
        assert (spec.channels, spec.size) == (1, (32, 32))
        assert [stage.width for stage in spec.stages] == [8]

    def test_a_part_with_a_type_replaces_and_one_without_amends(self, tmp_path: Path) -> None:
        write(tmp_path, amends="extends: base.yaml\nstem: {stride: 2}\n")
        write(tmp_path, replaces="extends: base.yaml\nstem: {type: patch, stride: 2}\n")
        amended, replaced = (load_spec(tmp_path / f"{name}.yaml").stem for name in ("amends", "replaces"))
        assert amended
        assert replaced
        assert [dict(part.options)["kernel"] for part in (amended, replaced)] == [4, 16]
        assert [dict(part.options)["stride"] for part in (amended, replaced)] == [2, 2]

    def test_what_speaks_of_the_base_alone_is_not_inherited(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\n")
        base, net = (load_spec(tmp_path / f"{name}.yaml") for name in ("base", "net"))
        assert (base.name, base.description, base.published is None) == ("base", "the base", False)
        assert (net.name, net.description, net.published) == ("net", "", None)

    def test_patches_of_the_base_are_applied_before_the_file_is_laid_over_it(self, tmp_path: Path) -> None:
        write(tmp_path, middle="extends: base.yaml\nset: {classes: 20}\n", net="extends: middle.yaml\nclasses: 30\n")
        assert load_spec(tmp_path / "net.yaml").classes == 30

    def test_a_circle_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: other.yaml\n", other="extends: third.yaml\n", third="extends: net.yaml\n")
        assert refused(tmp_path) == [
            "third.yaml:1:10: extends: extends goes in a circle: net.yaml -> other.yaml -> third.yaml -> net.yaml"
        ]

    def test_a_chain_without_end_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, **{f"net{number}": f"extends: net{number + 1}.yaml\n" for number in range(40)})
        assert refused(tmp_path, "net0") == [
            "net31.yaml:1:10: extends: extends leads through more than 32 files",
        ]

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("bsae.yaml", "there is no file 'bsae.yaml' (did you mean 'base.yaml'?)"),
            ("vit_tiny.yaml", "there is no file 'vit_tiny.yaml' (without the suffix, 'vit_tiny' is a shipped network)"),
            ("vit_tny", "there is no shipped network 'vit_tny' (did you mean 'vit_tiny'?)"),
            ("xyz", "there is no shipped network 'xyz' (a file's name ends in .yaml)"),
            ("[base.yaml]", "a list where a file or a shipped network is expected"),
            ("5", "5 where a file or a shipped network is expected"),
        ],
    )
    def test_what_is_not_there_is_answered_with_the_nearest(self, tmp_path: Path, name: str, problem: str) -> None:
        assert refused(write(tmp_path, net=f"extends: {name}\n")) == [f"net.yaml:1:10: extends: {problem}"]

    def test_a_name_longer_than_any_file_system_allows(self, tmp_path: Path) -> None:
        (line,) = refused(write(tmp_path, net=f"extends: {'x' * 5000}.yaml\n"))
        assert line.startswith("net.yaml:1:10: extends: there is no file 'xxx")
        assert len(line) < 200

    def test_all_problems_of_the_base_stand_at_the_base(self, tmp_path: Path) -> None:
        write(tmp_path, bad="a: 1\na: 2\n b: 3\n", net="extends: bad.yaml\n")
        assert refused(tmp_path)[0].startswith("bad.yaml:")

    def test_a_text_without_a_file_extends_shipped_networks_only(self) -> None:
        assert load_text("extends: vit_tiny\nname: mine\n").stages[0].width == 192
        with pytest.raises(SpecError, match="this text, in none itself, can extend shipped networks only"):
            load_text("extends: vit_tiny.yaml\nname: mine\n")


class TestTheFolderIsNotLeft:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write(tmp_path)
        return write(tmp_path / "mine")

    def test_by_dots(self, folder: Path) -> None:
        write(folder, net="extends: ../base.yaml\n")
        (line,) = refused(folder)
        assert line.startswith("net.yaml:1:10: extends: '../base.yaml' leaves the folder ")
        assert line.endswith("(--allow-outside permits it)")
        assert load_spec(folder / "net.yaml", allow_outside=True).classes == 10

    def test_by_an_absolute_path(self, folder: Path) -> None:
        write(folder, net=f"extends: {folder.parent / 'base.yaml'}\n")
        assert "leaves the folder" in refused(folder)[0]
        assert load_spec(folder / "net.yaml", allow_outside=True).classes == 10

    def test_by_a_link(self, folder: Path) -> None:
        (folder / "link.yaml").symlink_to(folder.parent / "base.yaml")
        write(folder, net="extends: link.yaml\n")
        assert "leaves the folder" in refused(folder)[0]
        assert load_spec(folder / "net.yaml", allow_outside=True).classes == 10

    def test_by_a_linked_folder(self, folder: Path) -> None:
        (folder / "link").symlink_to(folder.parent, target_is_directory=True)
        write(folder, net="extends: link/base.yaml\n")
        assert "leaves the folder" in refused(folder)[0]

    def test_by_what_a_file_below_extends(self, folder: Path) -> None:
        write(folder, sub__net="extends: ../../base.yaml\n", net="extends: sub/net.yaml\n")
        assert refused(folder)[0].startswith("sub/net.yaml:1:10: extends: '../../base.yaml' leaves the folder")

    def test_dots_that_stay_inside_are_welcome(self, folder: Path) -> None:
        write(folder, sub__net="extends: ../base.yaml\n", net="extends: sub/net.yaml\n")
        assert load_spec(folder / "net.yaml").classes == 10

    def test_links_in_a_circle_are_no_file(self, folder: Path) -> None:
        (folder / "a.yaml").symlink_to(folder / "b.yaml")
        (folder / "b.yaml").symlink_to(folder / "a.yaml")
        write(folder, net="extends: a.yaml\n")
        assert "there is no file 'a.yaml'" in refused(folder)[0]


class TestPlacesThroughExtendsAndPatches:
    def test_an_inherited_value_stands_at_the_base(self, tmp_path: Path) -> None:
        write(tmp_path, base=BASE.replace("heads: 4", "heads: 7"), net="extends: base.yaml\nclasses: 7\n")
        assert refused(tmp_path) == ["base.yaml:10:59: stages[1].mixer.heads: 7 does not divide the width 32 (try 8)"]

    def test_a_patched_value_stands_at_the_patch(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\nset:\n  classes: 7\n  stages[1].mixer.heads: 7\n")
        assert refused(tmp_path) == ["net.yaml:4:26: stages[1].mixer.heads: 7 does not divide the width 32 (try 8)"]

    def test_an_inherited_value_that_a_patch_of_another_breaks_stands_where_it_is_written(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\nset: {'stages[1].width': 42}\n")
        assert refused(tmp_path) == ["base.yaml:10:59: stages[1].mixer.heads: 4 does not divide the width 42 (try 3)"]

    def test_a_misspelt_patch_stands_at_its_key(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\nset:\n  stages[1].mixer.haeds: 8\n  inptu.size: 64\n")
        assert refused(tmp_path) == [
            "net.yaml:3:3: stages[1].mixer.haeds: 'haeds' is no key of the mixer 'attention' (did you mean 'heads'?)",
            "net.yaml:4:3: inptu: 'inptu' is no key of a spec (did you mean 'input'?)",
        ]

    def test_all_patches_at_fault_are_told(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\nset:\n  stages[7].depth: 8\n  'stages[': 3\n  name.x[2]: 1\n  '': 1\n")
        assert [line.split(": ")[:2] for line in refused(tmp_path)] == [
            ["net.yaml:3:3", "stages[7].depth"],
            ["net.yaml:4:9", "stages["],
            ["net.yaml:5:3", "name.x[2]"],
            ["net.yaml:6:3", "set"],
        ]

    def test_set_on_the_command_line_counts_columns_of_the_option(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\n")
        assert refused(tmp_path, sets=["stages[1].mixer.heads=7"]) == [
            "--set stages[1].mixer.heads=7:1:23: stages[1].mixer.heads: 7 does not divide the width 32 (try 8)"
        ]
        assert refused(tmp_path, sets=["stages[1].mixer.haeds=8"]) == [
            "--set stages[1].mixer.haeds=8:1:1: stages[1].mixer.haeds: 'haeds' is no key of the mixer 'attention' "
            "(did you mean 'heads'?)"
        ]

    def test_size_on_the_command_line(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\n")
        assert load_spec(tmp_path / "net.yaml", size=(64, 48)).size == (64, 48)
        assert refused(tmp_path, size=99999) == [
            "--size 99999:1:1: input.size: 99999 is more than 16384 (at most 16384)"
        ]


class TestPatches:
    def test_later_ones_win_and_the_command_line_comes_last(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\nset: {'stages[*].depth': 3, 'stages[0].depth': 5}\n")
        depths = [
            [len(stage.blocks) for stage in load_spec(tmp_path / "net.yaml", sets=sets).stages]
            for sets in ([], ["stages[1].depth=7"], ["stages[1].depth=7", "stages[*].depth=1"])
        ]
        assert depths == [[5, 3], [5, 7], [1, 1]]

    def test_set_comes_after_what_the_file_itself_says(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\nset: {classes: 5}\nclasses: 7\n")
        assert load_spec(tmp_path / "net.yaml").classes == 5

    def test_set_needs_no_extends(self) -> None:
        assert network("set: {classes: 5}\n").classes == 5

    def test_null_removes(self) -> None:
        assert (
            network("set: {'defaults.ffn.ratio': null}\n").stages[0].blocks[0].ffn
            == network("", ("ratio: 2", "ratio: 4")).stages[0].blocks[0].ffn
        )
        assert network("set: {published: null}\n").published is None

    @pytest.mark.parametrize("key", ["extends", "set"])
    def test_what_is_followed_before_cannot_be_patched(self, tmp_path: Path, key: str) -> None:
        write(tmp_path, net=f"extends: base.yaml\nset: {{{key}: vit_tiny}}\n")
        rule = f"'{key}' is followed before patches are applied, so none can change it (write it in a file)"
        assert refused(tmp_path) == [f"net.yaml:2:7: {key}: {rule}"]
        assert refused(tmp_path, "base", sets=[f"{key}=x"]) == [f"--set {key}=x:1:1: {key}: {rule}"]

    def test_set_must_be_a_mapping(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\nset: [a]\n")
        assert refused(tmp_path) == ["net.yaml:2:6: set: a list where a mapping of path: value is expected"]


class TestLayers:
    """What defaults, the stage, and its blocks say."""

    def test_a_stage_amends_a_default_without_a_type_and_replaces_it_with_one(self) -> None:
        wide = ("heads: 2}}", "heads: 2}, ffn: {bias: false}}")
        new = ("heads: 4}}", "heads: 4}, ffn: {type: mlp, bias: false}}")
        first, second = (
            dict(stage.blocks[0].ffn.options) for stage in network("", wide, new).stages if stage.blocks[0].ffn
        )
        assert first == {"ratio": 2.0, "bias": False}
        assert second == {"ratio": 4.0, "bias": False}

    def test_options_amend_a_short_form(self) -> None:
        spec = network(
            "", ("norm: layer", "norm: layer, mixer: attention"), ("{type: attention, heads: 4}", "{heads: 4}")
        )
        mixer = spec.stages[1].blocks[0].mixer
        assert mixer
        assert (mixer.type, dict(mixer.options)["heads"]) == ("attention", 4)

    def test_none_leaves_a_default_out(self) -> None:
        spec = network("", ("heads: 2}}", "heads: 2}, ffn: none, norm: none}"))
        assert [stage.blocks[0].ffn is None for stage in spec.stages] == [True, False]
        assert [stage.blocks[0].norm is None for stage in spec.stages] == [True, False]

    def test_mixers_are_cycled_over_the_depth_and_start_anew_in_each_stage(self) -> None:
        spec = network(
            "",
            ("{type: attention, heads: 2}", "[attention, window, none]"),
            ("{type: attention, heads: 4}", "[attention, window, none]"),
        )
        assert mixers(spec) == ["attention", "window", *("attention", "window", "none", "attention")]

    def test_a_mapping_over_a_list_of_mixers_amends_each(self) -> None:
        spec = network(
            "",
            ("norm: layer", "norm: layer, mixer: [attention, window]"),
            ("{type: attention, heads: 4}", "{heads: 4}"),
        )
        assert [dict(block.mixer.options)["heads"] for block in spec.stages[1].blocks if block.mixer] == [4, 4, 4, 4]
        assert mixers(spec)[2:] == ["attention", "window"] * 2

    @pytest.mark.parametrize(
        ("key", "chosen"),
        [
            *[
                ("0", [0]),
                ("3", [3]),
                ("-1", [3]),
                ("-4", [0]),
                ('"1:"', [1, 2, 3]),
                ('":2"', [0, 1]),
                ('"1:3"', [1, 2]),
            ],
            *[('"-2:"', [2, 3]), ('":-1"', [0, 1, 2]), ('":"', [0, 1, 2, 3]), ('"2:99"', [2, 3])],
        ],
    )
    def test_blocks_are_chosen_by_index_and_slice_as_in_python(self, key: str, chosen: list[int]) -> None:
        spec = network("", ("depth: 4", f"depth: 4, blocks: {{{key}: {{mixer: none}}}}"))
        assert [index for index, name in enumerate(mixers(spec)[2:]) if name == "none"] == chosen
        assert mixers(spec)[:2] == ["attention", "attention"]

    def test_later_choices_win_and_amend(self) -> None:
        spec = network(
            "", ("depth: 4", 'depth: 4, blocks: {":": {ffn: {ratio: 3}}, "2:": {ffn: {bias: false}}, -1: {ffn: none}}')
        )
        options = [block.ffn and dict(block.ffn.options) for block in spec.stages[1].blocks]
        assert options == [{"ratio": 3.0, "bias": True}] * 2 + [{"ratio": 3.0, "bias": False}, None]

    def test_blocks_of_the_network_are_counted_through_the_stages(self) -> None:
        assert mixers(network('blocks: {"1:3": {mixer: none}, -1: {mixer: window}}\n')) == [
            *("attention", "none"),
            *("none", "attention", "attention", "window"),
        ]

    def test_a_stage_has_the_last_word_over_blocks_of_the_network(self) -> None:
        spec = network('blocks: {"0:": {mixer: none}}\n', ("depth: 4", "depth: 4, blocks: {0: {mixer: window}}"))
        assert mixers(spec) == ["none", "none", "window", "none", "none", "none"]

    def test_the_upper_half_of_pit(self) -> None:
        spec = load_spec("pit_base_cb")
        assert [bool(block.modifiers) for block in blocks(spec)] == [False] * 6 + [True] * 7

    def test_a_default_position_is_said_for_every_stage(self) -> None:
        spec = network(
            "", ("norm: layer", "norm: layer, position: learned"), ("heads: 4}}", "heads: 4}, position: none}")
        )
        assert [stage.position is not None for stage in spec.stages] == [True, False]


class TestFindSpec:
    def test_a_file_and_a_shipped_name(self, tmp_path: Path) -> None:
        folder = write(tmp_path)
        assert find_spec(str(folder / "base.yaml")) == folder / "base.yaml"
        assert find_spec("vit_tiny") == shipped()["vit_tiny"]

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("vit_tny", "vit_tny: neither a file nor a shipped network (did you mean 'vit_tiny'?)"),
            ("vit_tiny.yaml", "there is no such file (without the suffix, 'vit_tiny' is a shipped network)"),
            ("bsae.yaml", "there is no such file (did you mean 'base.yaml'?)"),
            ("x" * 5000, "neither a file nor a shipped network"),
            ("x" * 5000 + ".yaml", "there is no such file"),
            ("a\0b", "neither a file nor a shipped network"),
            ("", "neither a file nor a shipped network"),
        ],
    )
    def test_what_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str) -> None:
        monkeypatch.chdir(write(tmp_path))
        with pytest.raises(UsageError) as caught:
            find_spec(name)
        assert hint in str(caught.value)
        assert len(str(caught.value)) < 200

    def test_a_file_without_a_name_has_the_file_s(self, tmp_path: Path) -> None:
        write(tmp_path, mine=BASE.replace("name: base\n", ""))
        assert load_spec(tmp_path / "mine.yaml").name == "mine"

    def test_the_tree_of_a_file_has_neither_extends_nor_set(self, tmp_path: Path) -> None:
        write(tmp_path, net="extends: base.yaml\nset: {classes: 5}\n")
        tree = load_tree(tmp_path / "net.yaml").plain()
        assert tree["classes"] == 5
        assert not {"extends", "set"} & set(tree)


def test_every_shipped_network_lays_out_and_is_named_as_its_file() -> None:
    for name in shipped():
        assert lay_out(load_spec(name)).name == name
