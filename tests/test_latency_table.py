"""The table of units' times: what fills it, its file, and what is predicted from it. By a clock that is fake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archspec import api
from archspec.errors import UsageError
from archspec.latency.fill import fill, open_table
from archspec.latency.predict import MacsFit, missing, predict, predict_by_macs
from archspec.latency.setting import Setting, setting_here
from archspec.latency.table import Entry, Table, default_path, read_table, unit_key, write_table
from archspec.latency.timing import Interval
from archspec.plan import Plan

from .fake_clock import TWICE, Fake


@pytest.fixture
def setting() -> Setting:
    return setting_here(device="cpu", threads=1)


@pytest.fixture
def vit() -> Plan:
    """Stem, class token, position, four equal blocks, norm, head: nine steps, six units."""
    return api.make_plan("vit_micro")


@pytest.fixture(scope="module")
def once_filled() -> Table:
    table = Table(setting=setting_here(device="cpu", threads=1))
    fill(table, [api.make_plan("vit_micro")], effort=TWICE, clock=Fake())
    return table


@pytest.fixture
def filled(once_filled: Table) -> Table:
    """Of vit_micro, by the fake clock."""
    return replace(once_filled, units=dict(once_filled.units))


def by_hand(setting: Setting, plan: Plan, seconds: dict[str, Interval]) -> Table:
    """A table of the plan's units, with the seconds of each role."""
    entries = {
        unit_key(step, setting.mode): Entry(unit="", source="", macs=1, runs=1, seconds=seconds[step.unit.role])
        for step in plan.steps()
    }
    return Table(setting=setting, reference=1.0, units=entries)


# ---- what fills it


def test_a_table_is_filled_with_the_time_of_each_unit_at_all_its_places(filled: Table, vit: Plan):
    times = {entry.unit: entry.seconds for entry in filled.units.values()}
    assert len(times) == 6
    assert times["stem patch"].median == pytest.approx(0.001)
    assert times["head linear"].median == pytest.approx(0.009)
    # The block is steps 4 to 7, each seen twice: quartiles of 4 4 5 5 6 6 7 7.
    blocks = times["block attention, mlp"]
    assert [blocks.low, blocks.median, blocks.high] == pytest.approx([0.00475, 0.0055, 0.00625])
    assert {entry.runs for entry in filled.units.values()} == {2, 8}


def test_units_that_are_known_are_not_measured_again(filled: Table, vit: Plan):
    before, clock = dict(filled.units), Fake(slowness=3.0)
    assert fill(filled, [vit, vit], effort=TWICE, clock=clock) == 0
    assert clock.starts == 0
    other = api.make_plan("vit_micro", sets=["stages[0].ffn.ratio=3"])
    assert [step.unit.role for step in missing(other, filled)] == ["block"]
    assert fill(filled, [other], effort=TWICE, clock=clock) == 1
    assert {key: filled.units[key] for key in before} == before


def test_what_is_measured_on_a_slower_day_is_put_on_the_tables_scale(filled: Table):
    other = api.make_plan("vit_micro", sets=["stages[0].ffn.ratio=3"])
    fill(filled, [other], effort=TWICE, clock=Fake(slowness=3.0))  # the reference is as much slower as the units
    assert predict(other, filled).median == pytest.approx(0.045)


def test_a_unit_is_one_wherever_it_stands(vit: Plan):
    keys = [unit_key(step, "eval") for step in vit.steps()]
    assert len(set(keys)) == 6
    shallower = api.make_plan("vit_micro", sets=["stages[0].depth=2", "name=other"])
    assert {unit_key(step, "eval") for step in shallower.steps()} == set(keys)


@pytest.mark.parametrize("change", ["stages[0].mixer.heads=2", "stages[0].width=128", "input.size=64"])
def test_a_unit_is_another_where_its_work_is(change: str, vit: Plan):
    (block,) = {unit_key(step, "eval") for step in vit.stages[0].blocks}
    other = api.make_plan("vit_micro", sets=[change])
    assert block not in {unit_key(step, "eval") for step in other.steps()}


def test_a_units_input_is_its_work_too():
    narrow, wide = api.make_plan("nommer_micro"), api.make_plan("nommer_micro", sets=["stages[0].width=32"])
    first, second = (plan.stages[1].steps[0] for plan in (narrow, wide))  # downsamplers with the same output
    assert first.unit.target == second.unit.target
    assert unit_key(first, "eval") != unit_key(second, "eval")


def test_dropped_branches_are_work_in_training_alone(vit: Plan):
    dropping = api.make_plan("vit_micro", sets=["drop_path=0.1"])
    last, plain = dropping.stages[0].blocks[-1], vit.stages[0].blocks[-1]
    assert unit_key(last, "eval") == unit_key(plain, "eval")
    assert unit_key(last, "train") != unit_key(plain, "train")


KEYS = """
import sys
from pathlib import Path
from archspec import api
from archspec.latency.table import unit_key
from archspec.loading import load_text
from archspec.registry import load_plugin
load_plugin(Path(sys.argv[1]))
text = "{archspec: 1, name: a, input: {size: 32}, defaults: {norm: layer, ffn: mlp}, stem: {type: patch, kernel: 8}, "
text += "stages: [{width: 64, depth: 1, mixer: %s}], head: linear}"
for mixer in ("attention", "shift"):
    print(unit_key(api.make_plan(load_text(text % mixer)).stages[0].blocks[0], "eval"))
"""


@pytest.mark.slow
def test_keys_are_the_same_in_every_process_until_a_plugin_is_edited(tmp_path: Path):
    source = (Path(__file__).parent / "data" / "shift_mixer.py").read_text(encoding="utf-8")
    (tmp_path / "shift.py").write_text(source, encoding="utf-8")
    (tmp_path / "edited.py").write_text(source + "\nEDITED = True\n", encoding="utf-8")
    first, second, edited = (
        subprocess.run(
            [sys.executable, "-c", KEYS, str(tmp_path / file)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for file, seed in (("shift.py", "1"), ("shift.py", "2"), ("edited.py", "1"))
    )
    assert first == second
    assert edited[0] == first[0]
    assert edited[1] != first[1]


def test_a_table_is_written_and_read_to_the_same(filled: Table, tmp_path: Path):
    write_table(tmp_path / "deep" / "t.json", filled)
    assert read_table(tmp_path / "deep" / "t.json") == filled
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["t.json"]


def test_what_another_process_added_meanwhile_stays(filled: Table, vit: Plan, tmp_path: Path):
    path = tmp_path / "t.json"
    theirs, other = Table(setting=filled.setting), api.make_plan("fcvit_micro")
    fill(theirs, [other], effort=TWICE, clock=Fake(slowness=2.0), path=path)
    write_table(path, filled)
    both = read_table(path)
    assert predict(vit, both) == predict(vit, filled)
    steps = len(list(other.steps()))
    assert predict(other, both).median == pytest.approx(steps * (steps + 1) / 2000)  # on our scale, not on theirs


def test_a_table_of_another_setting_is_left_alone(filled: Table, tmp_path: Path):
    path = tmp_path / "t.json"
    write_table(path, filled)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"t\.json.*batch: 1, not 8"):
        open_table(path, replace(filled.setting, batch=8))
    with pytest.raises(UsageError, match="threads"):
        write_table(path, replace(filled, setting=replace(filled.setting, threads=7)))
    assert path.read_bytes() == before


def test_equal_gpus_share_a_table(setting: Setting):
    first = replace(setting, device="cuda:0", device_name="A")
    assert first.differences(replace(first, device="cuda:3")) == []
    assert first.differences(replace(first, device_name="B")) != []
    assert first.differences(replace(first, device="cpu")) != []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plain: plain.pop("reference"), "reference"),
        (lambda plain: plain.update(latency_table=2), "latency_table: 2"),
        (lambda plain: plain["setting"].update(threads=0), "setting.threads"),
        (lambda plain: plain["units"]["k"].update(median=-1.0), "units.k.median"),
        (lambda plain: plain["units"]["k"].update(median=9.0), "units.k.*order"),
        (lambda plain: plain["units"]["k"].update(colour="red"), "units.k.colour"),
        (lambda plain: plain["units"].update(j=3), "units.j"),
    ],
)
def test_a_damaged_table_is_refused_with_the_place(change: Any, said: str, filled: Table, tmp_path: Path):
    path = tmp_path / "t.json"
    filled.units = {"k": next(iter(filled.units.values()))}
    write_table(path, filled)
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(UsageError, match=rf"t\.json.*{said}"):
        read_table(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"latency_table": 1,\n "setting": }', r"t\.json:2:13"),
        (b"", r"t\.json:1:1"),
        (b'{"name": "package"}', "another program"),
        (b"[1, 2]", "another program"),
        (b"\xff\xfe\x00", "latency table"),
        (b"[" * 100_000, "latency table"),
    ],
)
def test_a_foreign_file_is_refused(content: bytes, said: str, tmp_path: Path, setting: Setting, filled: Table):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        open_table(path, setting)
    with pytest.raises(UsageError, match=said):
        write_table(path, filled)
    assert path.read_bytes() == content


def test_a_table_that_cannot_be_read_or_written(tmp_path: Path, filled: Table):
    with pytest.raises(UsageError, match=r"t\.json.*--per-unit"):
        read_table(tmp_path / "t.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_table(tmp_path / "file" / "t.json", filled)


def test_each_setting_has_its_own_place(setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ARCHSPEC_CACHE", str(tmp_path))
    others = [replace(setting, threads=5), replace(setting, batch=5), replace(setting, mode="train")]
    paths = {default_path(each) for each in (setting, *others, replace(setting, torch="0"))}
    assert len(paths) == 5
    assert all(path.is_relative_to(tmp_path) for path in paths)


# ---- predictions


def test_a_prediction_is_the_sum_over_units(setting: Setting, vit: Plan):
    roles = ("stem", "class_token", "position", "block", "norm", "head")
    seconds = {role: Interval(0.9 * 10**i, 10**i, 1.2 * 10**i) for i, role in enumerate(roles)}
    found = predict(vit, by_hand(setting, vit, seconds))
    assert found.median == pytest.approx(1 + 10 + 100 + 4 * 1000 + 10_000 + 100_000)
    assert found.low == pytest.approx(0.9 * found.median)
    assert found.high == pytest.approx(1.2 * found.median)


def test_a_unit_that_the_table_does_not_know_is_named(filled: Table):
    other = api.make_plan("vit_micro", sets=["stages[0].blocks={1: {mixer: token_mlp}}"])
    with pytest.raises(UsageError, match=r"vit_micro: .*stages\.0\.blocks\.1 \(block token_mlp.*64 x 4 x 4") as refused:
        predict(other, filled)
    assert "blocks.0" not in str(refused.value)


def test_a_line_through_points_on_a_line():
    fit = MacsFit.of([(0, 3.0), (1, 5.0), (4, 11.0)])
    assert (fit.intercept, fit.slope) == pytest.approx((3.0, 2.0))
    fit = MacsFit.of([(0, 0.0), (0, 2.0), (2, 4.0), (2, 6.0)])  # least squares: through (0, 1) and (2, 5)
    assert (fit.intercept, fit.slope) == pytest.approx((1.0, 2.0))
    assert MacsFit.of([(7, 1.0), (7, 3.0)]) == MacsFit(2.0, 0.0)
    assert MacsFit(3.0, 2.0).seconds(10, count=4) == 32.0


def test_by_macs_a_plan_is_so_many_units_and_so_many_macs(setting: Setting, vit: Plan):
    table = Table(setting=setting, reference=1.0)
    for key, macs, seconds in (("a", 0, 1.0), ("b", 1000, 2.0)):
        taken = Interval(seconds, seconds, seconds)
        table.units[key] = Entry(unit="", source="", macs=macs, runs=1, seconds=taken)
    assert predict_by_macs(vit, table) == pytest.approx(9 * 1.0 + api.count(vit).macs / 1000)
    with pytest.raises(UsageError, match="empty"):
        predict_by_macs(vit, Table(setting=setting))
