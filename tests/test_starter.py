"""The spec that `archspec new` writes: it builds as it is, and nothing is overwritten or put where nobody asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from archspec import api
from archspec.cli.app import app
from archspec.errors import UsageError
from archspec.loading import load_spec, shipped, shipped_folder
from archspec.training.data import open_data

STARTER = shipped_folder() / "starter" / "starter.yaml"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(name: str) -> str:
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(app, ["new", name], catch_exceptions=False)
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "name"),
    [("mine.yaml", "mine"), ("mine.yml", "mine"), ("2 x.yaml", "2_x"), ("é.yaml", "network"), ("a.b-c.yaml", "a.b-c")],
)
def test_it_writes_a_spec_named_as_the_file_that_builds_as_it_is(file: str, name: str) -> None:
    result = CliRunner().invoke(app, ["new", file])
    assert result.exit_code == 0
    spec = load_spec(file)
    assert spec.name == name
    assert api.count(api.make_plan(spec)).params < 1_000_000
    assert Path(file).read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=archspec.schema.json\n")


def test_what_is_there_is_left_as_it_is(folder: Path) -> None:
    (folder / "mine.yaml").write_text("keep", encoding="utf-8")
    assert refused("mine.yaml") == "mine.yaml: exists already; it is left as it is"
    assert (folder / "mine.yaml").read_text(encoding="utf-8") == "keep"


def test_a_folder_is_not_made_from_a_slip(folder: Path) -> None:
    assert refused("netwroks/mine.yaml") == "netwroks/mine.yaml: there is no folder netwroks"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["mine", "mine.txt", ".yaml", "."])
def test_a_name_that_no_command_would_find_is_refused(name: str) -> None:
    assert refused(name) == f"{name}: a spec's name ends in .yaml, such as my_network.yaml"


def test_it_fits_the_bundled_digits_and_is_not_among_the_networks() -> None:
    spec = load_spec(STARTER)
    open_data("digits", channels=spec.channels, size=spec.size, batch=1).check_classes(spec.classes)
    assert "starter" not in shipped()


def test_its_comment_on_the_grid_is_true() -> None:
    plan = api.make_plan(STARTER)
    assert (plan.source.grid, plan.stem.unit.target.grid) == ((32, 32), (8, 8))
    assert [stage.target.grid for stage in plan.stages] == [(8, 8), (4, 4)]
