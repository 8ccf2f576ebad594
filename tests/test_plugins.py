"""A user's own blocks: from a file, from an installed package, and what is said when one is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archspec import api, cli, loading, modules, registry
from archspec.cli.app import app
from archspec.errors import PluginError, SpecError, UserError

SHIFT = Path(__file__).parent / "data" / "shift_mixer.py"
SPEC = """archspec: 1
name: shifted
input: {size: 32}
defaults: {norm: layer, ffn: mlp}
stem: {type: patch, kernel: 8}
stages: [{width: 64, depth: 2, mixer: {type: shift, step: 2}}]
head: linear
"""
IMPORTS = """
from typing import Annotated
from pydantic import Field
from torch import nn
from archspec.registry import register

"""


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    registry.load_providers()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    modules.meta_unit.cache_clear()  # a name stands for one class in a process, but for tests
    monkeypatch.setattr(registry, "_loaded_plugins", set(registry._loaded_plugins))


def plugin(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(IMPORTS + textwrap.dedent(text), encoding="utf-8")
    return path


def mixer(signature: str, name: str = "mine", body: str = "pass") -> str:
    """A plugin with one mixer, whose class stands in line 9 and whose decorator in line 8."""
    return f"""
@register("mixer", "{name}")
class Mine(nn.Module):
    \"\"\"Mine.\"\"\"

    def __init__(self, {signature}) -> None:
        super().__init__()
        {body}

    def forward(self, x):
        return x
"""


def refused(path: Path) -> str:
    """The message, without the folder."""
    with pytest.raises(PluginError) as caught:
        registry.load_plugin(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def spec_with(name: str) -> str:
    return SPEC.replace("{type: shift, step: 2}", name)


class TestAFileOfOnesOwn:
    def test_it_is_built_listed_shown_and_in_the_schema(self, tmp_path: Path) -> None:
        (tmp_path / "s.yaml").write_text(SPEC, encoding="utf-8")
        runs = {
            command: CliRunner().invoke(app, [*command.split(), "--plugin", str(SHIFT)])
            for command in (f"build {tmp_path / 's.yaml'}", "list mixer", "show mixer shift", "schema")
        }
        assert [run.exit_code for run in runs.values()] == [0, 0, 0, 0]
        built, listed, shown, schema = (run.stdout for run in runs.values())
        assert "2 x (shift, mlp)" in built
        assert "shift             Moves channels" in listed or "Moves channels by a few tokens" in listed
        assert "step: integer 1..16, default 1\n      how far, in tokens" in shown
        options = [part for part in json.loads(schema)["$defs"]["mixer"]["anyOf"] if "properties" in part]
        (mine,) = (part for part in options if part["properties"]["type"]["const"] == "shift")
        assert mine["properties"]["step"]["maximum"] == 16

    def test_it_is_counted_and_runs(self) -> None:
        registry.load_plugin(SHIFT)
        plan = api.make_plan(loading.load_text(SPEC))
        without = api.make_plan(loading.load_text(spec_with("none")))
        norm, projection = 2 * 64, 64 * 64 + 64
        assert api.count(plan).params - api.count(without).params == 2 * (norm + projection)
        assert api.count(plan).macs - api.count(without).macs == 2 * 16 * 64 * 64
        assert sum(p.numel() for p in api.build(plan).parameters()) == api.count(plan).params

    def test_its_options_and_dimensions_are_checked_as_archspec_s_own(self) -> None:
        registry.load_plugin(SHIFT)
        for old, new, message in (
            ("step: 2", "stpe: 2", "f:6:53: stages[0].mixer.stpe: 'stpe' is no key of the mixer 'shift'"),
            ("step: 2", "step: 17", "f:6:59: stages[0].mixer.step: 17 is more than 16 (at most 16)"),
            (
                "width: 64",
                "width: 66",
                "stages[0].mixer.type: shift needs a width that 4 divides, which 66 is not (try 64)",
            ),
            ("type: shift", "type: shft", "there is no mixer 'shft' (did you mean 'shift'?)"),
        ):
            with pytest.raises(SpecError) as caught:
                api.make_plan(loading.load_text(SPEC.replace(old, new), file="f"))
            assert message in str(caught.value)

    def test_the_same_file_twice_is_loaded_once(self) -> None:
        registry.load_plugin(SHIFT)
        registry.load_plugin(SHIFT.parent / ".." / SHIFT.parent.name / SHIFT.name)
        assert registry.names("mixer").count("shift") == 1


class TestAFileThatIsWrong:
    def test_missing(self, tmp_path: Path) -> None:
        assert refused(tmp_path / "none.py") == "none.py: there is no such plugin file"
        assert "there is no such plugin file" in refused(tmp_path)

    def test_not_python(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.py"
        path.write_text("x = 1\ny = (\n", encoding="utf-8")
        assert refused(path) == "bad.py:2: SyntaxError: '(' was never closed (bad.py, line 2)"
        path.write_bytes(b"x = 1\ny = '\xff'\n")
        assert refused(path).startswith("bad.py")

    def test_not_a_python_file(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.txt"
        path.write_text("x = 1\n", encoding="utf-8")
        assert refused(path) == "bad.txt: not a Python file"

    def test_an_exception_names_the_line_of_the_file(self, tmp_path: Path) -> None:
        assert (
            refused(plugin(tmp_path, "def f():\n    return 1 / 0\nf()\n"))
            == "mine.py:8: ZeroDivisionError: division by zero"
        )
        assert refused(plugin(tmp_path, "import no_such_module\n")).startswith("mine.py:7: ModuleNotFoundError: ")

    def test_an_exit_does_not_end_archspec(self, tmp_path: Path) -> None:
        assert refused(plugin(tmp_path, "raise SystemExit(0)\n")) == "mine.py:7: SystemExit: 0"

    def test_what_it_registered_before_it_failed_is_gone(self, tmp_path: Path) -> None:
        before = registry.names("mixer")
        refused(plugin(tmp_path, mixer("width: int") + "\n1 / 0\n"))
        assert registry.names("mixer") == before

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                mixer("width: int", name="attention"),
                "mixer 'attention' is registered already, by archspec.blocks.attention.Attention",
            ),
            (mixer("width: int, *args"), "mixer 'mine': *args would hide misspelt options; name every option"),
            (mixer("width: int, **kwargs"), "mixer 'mine': **kwargs would hide misspelt options; name every option"),
            (mixer("width: int, *, step=1"), "mixer 'mine': the option 'step' has no type"),
            (mixer("width: int, *, at: int = 1"), "mixer 'mine': the option name 'at' is archspec's own"),
            (
                mixer("width: int, step: int = 1"),
                "mixer 'mine': 'step' is no dimension of a mixer (there are: width, grid, prefix_tokens, act); "
                "an option stands behind the * in the constructor",
            ),
            (
                mixer("width: int").replace('"mixer"', '"mixr"'),
                "'mixr' is no kind of part (did you mean 'mixer'?)",
            ),
            (mixer("width: int").replace('"mixer"', '"stem"'), "stem 'mine': "),
            (
                mixer("in_channels: int, width: int").replace('"mixer"', '"stem"'),
                "stem 'mine': a stem needs a static method output_grid(grid, options)",
            ),
            (mixer("width: int", name="my mixer"), "mixer 'my mixer': a name is lower-case letters, digits and _"),
            (
                mixer("width: int", name="none"),
                "mixer 'none': a name is lower-case letters, digits and _, and not `none`",
            ),
        ],
    )
    def test_a_class_that_breaks_the_rules_is_refused_with_its_line(
        self, tmp_path: Path, text: str, message: str
    ) -> None:
        told = refused(plugin(tmp_path, text))
        assert told.startswith("mine.py:8: ")
        assert message in told

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("step: 'Nowhere' = 1", "an option's type cannot be validated: name 'Nowhere' is not defined"),
            ("step: object() = 1", "an option's type cannot be validated"),
            ("steps: list[int] = []", "the option 'steps' is a list; a list of YAML is a tuple[..., ...]"),
            ("steps: dict[str, int] | None = None", "the option 'steps' is a dict"),
            (
                "step: Annotated[int, Field(ge=2)] = 1",
                "the default of 'step': input should be greater than or equal to 2",
            ),
            ("step: int = 'one'", "the default of 'step': input should be a valid integer"),
        ],
    )
    def test_an_option_that_cannot_be_validated_is_refused(self, tmp_path: Path, option: str, message: str) -> None:
        registry.load_plugin(plugin(tmp_path, mixer(f"width: int, *, {option}")))
        with pytest.raises(PluginError) as caught:
            loading.load_text(spec_with("mine"))
        assert str(caught.value).startswith(f"mixer 'mine': {message}")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (mixer("width: int", body="1 / 0"), "stages[0].mixer: the mixer 'mine' cannot be built: ZeroDivisionError"),
            (
                mixer("width: int").replace("return x", "return x[:, 1:]"),
                "stages[0]: stages.0.blocks.0 fails on its input",
            ),
            (mixer("width: int").replace("return x", "1 / 0"), "fails on its input, 64 x 4 x 4: division by zero"),
        ],
    )
    def test_a_block_that_fails_is_named_with_its_place(self, tmp_path: Path, text: str, message: str) -> None:
        registry.load_plugin(plugin(tmp_path, text))
        with pytest.raises(UserError) as caught:
            api.count(api.make_plan(loading.load_text(spec_with("mine"), file="f.yaml")))
        assert str(caught.value).startswith("f.yaml:6:")
        assert message in str(caught.value)

    def test_a_stem_that_cannot_tell_its_grid_is_named_with_its_place(self, tmp_path: Path) -> None:
        grid = "\n    @staticmethod\n    def output_grid(grid, options):\n        return grid[0] // 4\n"
        text = mixer("in_channels: int, width: int").replace('"mixer"', '"stem"') + grid
        registry.load_plugin(plugin(tmp_path, text))
        with pytest.raises(PluginError) as caught:
            api.make_plan(
                loading.load_text(spec_with("none").replace("{type: patch, kernel: 8}", "mine"), file="f.yaml")
            )
        assert str(caught.value).startswith(
            "f.yaml:5:7: stem: the stem 'mine' cannot tell its output's grid: TypeError"
        )

    def test_the_command_line_says_so_in_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = plugin(tmp_path, "1 / 0\n")
        monkeypatch.setattr(sys, "argv", ["archspec", "list", "--plugin", str(path)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 2
        assert capsys.readouterr().err == f"{path}:7: ZeroDivisionError: division by zero\n"


class TestAnEntryPoint:
    @pytest.fixture
    def offered(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder on the path whose module `offered_parts` an entry point names."""
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(registry, "_providers_loaded", False)
        point = EntryPoint("parts", "offered_parts", registry.ENTRY_POINT)
        monkeypatch.setattr(
            "importlib.metadata.entry_points", lambda *, group: [point] if group == registry.ENTRY_POINT else []
        )
        monkeypatch.delitem(sys.modules, "offered_parts", raising=False)
        return tmp_path / "offered_parts.py"

    def test_its_parts_are_there_without_asking(self, offered: Path) -> None:
        offered.write_text(SHIFT.read_text(encoding="utf-8"), encoding="utf-8")
        assert api.count(api.make_plan(loading.load_text(SPEC))).macs > 0

    def test_one_that_fails_is_named(self, offered: Path) -> None:
        offered.write_text("1 / 0\n", encoding="utf-8")
        with pytest.raises(
            PluginError, match=r"the entry point 'parts' \(offered_parts\) cannot be loaded: ZeroDivision"
        ):
            registry.names("mixer")

    def test_one_that_takes_a_name_is_named(self, offered: Path) -> None:
        offered.write_text(IMPORTS + mixer("width: int", name="attention"), encoding="utf-8")
        with pytest.raises(PluginError, match=r"entry point 'parts' .* mixer 'attention' is registered already"):
            registry.names("mixer")


PACKAGE = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "archspec-shift"
version = "1.0"

[project.entry-points."archspec.blocks"]
shift = "archspec_shift"

[tool.setuptools]
py-modules = ["archspec_shift"]
"""


@pytest.mark.slow
def test_a_package_that_is_installed_offers_its_parts(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "pyproject.toml").write_text(PACKAGE, encoding="utf-8")
    (source / "archspec_shift.py").write_text(SHIFT.read_text(encoding="utf-8"), encoding="utf-8")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    python("-m", "pip", "install", *options, "--target", str(target), str(source))
    listed = python("-c", "from archspec.cli import main; main()", "list", "mixer", path=target)
    assert "Moves channels by a few tokens" in listed


def python(*arguments: str, path: Path | None = None) -> str:
    more = {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **more})
    assert done.returncode == 0, done.stderr
    return done.stdout
