"""The papers' ablation tables as studies: every row plans, and costs what the references say."""

from __future__ import annotations

import importlib

import pytest
from typer.testing import CliRunner

from archspec import api
from archspec.cli.app import app
from archspec.errors import SpecError
from archspec.loading import find_study, shipped_folder

ablation = importlib.import_module("archspec.search.ablation")

STUDIES = sorted(path.stem for path in (shipped_folder() / "ablations").glob("*.yaml"))
MI, GI = 2**20, 2**30

# Parameters and ops by row; FCViT in binary units, as its paper prints them, to the digits of the reference.
REFERENCE = {
    "fcvit_table2": [
        (4.233 * MI, 0.81 * GI),
        (4.402 * MI, 0.81 * GI),
        (4.403 * MI, 0.81 * GI),
        (4.486 * MI, 0.81 * GI),
    ],
    "fcvit_table9": [(4.563 * MI, 0.846 * GI), (4.815 * MI, 0.88 * GI), (4.815 * MI, 0.94 * GI), None],
    "cb_table1": [
        (22.0507e6, None),
        (21.16e6, None),
        (22.05e6, None),
        (28.82e6, None),
        (22.0507e6, None),
        (22.0553e6, None),
    ],
    "sgformer_table7": [(22_545_981, 4.818e9)] * 4,
    "nommer_table4": [None, None, None, None, (22.898e6, 5.486e9)],
}


@pytest.mark.parametrize("name", STUDIES)
def test_every_row_of_a_shipped_study_plans(name):
    study = ablation.load_ablation(find_study(name))
    assert study.source
    assert all(api.count(row.plan).macs for row in study.rows)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_rows_cost_what_the_reference_says(name):
    rows = ablation.load_ablation(find_study(name)).rows
    for row, expected in zip(rows, REFERENCE[name], strict=True):
        if expected:
            params, ops = expected
            cost = api.count(row.plan)
            assert cost.params == pytest.approx(params, rel=6e-4), row.name
            assert ops is None or cost.ops == pytest.approx(ops, rel=7e-3), row.name


def write(tmp_path, text):
    file = tmp_path / "study.yaml"
    file.write_text(f"archspec: 1\nstudy: ablation\nname: mine\nbase: vit_tiny\n{text}")
    return file


def test_a_patch_at_fault_is_reported_at_its_place_with_all_others(tmp_path):
    file = write(
        tmp_path,
        'rows:\n  - {name: a, set: {"stages[0].mixer.heads": 7}}\n  - {name: b, set: {"stages[4].depth": 7}}\n'
        "  - {name: c, sett: {}}\n",
    )
    with pytest.raises(SpecError) as caught:
        ablation.load_ablation(file)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["6", "7", "8"]
    assert "7 does not divide the width 192 (try 6)" in lines[0]
    assert "did you mean 'set'?" in lines[2]


def test_a_base_outside_the_studys_folder_is_refused(tmp_path):
    (tmp_path / "base.yaml").write_text("archspec: 1\nextends: vit_tiny\n")
    inside = tmp_path / "studies"
    inside.mkdir()
    file = inside / "study.yaml"
    file.write_text("archspec: 1\nstudy: ablation\nname: mine\nbase: ../base.yaml\nrows: [{name: base}]\n")
    with pytest.raises(SpecError, match="leaves the folder"):
        ablation.load_ablation(file)
    assert ablation.load_ablation(file, allow_outside=True).rows[0].name == "base"


def test_the_table_shows_costs_differences_and_the_publication():
    printed = CliRunner().invoke(app, ["ablate", "cb_table1", "--count-only"]).stdout
    assert "-887.040k" in printed  # 12 blocks that lose 384 * 192 + 192 weights each
    assert "22.051M" in printed
    assert "agrees" in printed
