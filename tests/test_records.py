"""Records of costs: found again by any process, by no code but that which made them, whatever happens to the file."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from archspec.records import Records

COUNT = """
import sys, warnings
warnings.simplefilter("error")
import archspec
from archspec import cost, registry
from pathlib import Path
for plugin in sys.argv[2:]:
    registry.load_plugin(Path(plugin))
traced = []
real = cost.module_cost
cost.module_cost = lambda *args: traced.append(1) or real(*args)
print(archspec.count(sys.argv[1]).params, len(traced))
"""
MIXER = """
from torch import nn
from archspec.registry import register
from wide import WIDTH

@register("mixer", "mine")
class Mine(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, WIDTH), nn.Linear(WIDTH, width)

    def forward(self, x):
        return self.up(self.down(x))
"""
SPEC = """
archspec: 1
name: mine
input: {channels: 1, size: 16}
classes: 2
stem: {type: patch, kernel: 4}
stages: [{width: 8, depth: 1, mixer: mine, ffn: none}]
head: {type: linear, pool: mean}
"""


def count(folder: Path, *arguments: str) -> list[str]:
    """What a fresh process with its records in `folder` prints: the parameters, and how many units it traced."""
    environment = {name: value for name, value in os.environ.items() if name != "ARCHSPEC_NO_CACHE"}
    environment |= {"ARCHSPEC_CACHE": str(folder / "cache"), "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", COUNT, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.slow
def test_a_later_process_traces_nothing(tmp_path):
    params, traced = count(tmp_path, "vit_micro")
    assert int(traced) > 3
    assert count(tmp_path, "vit_micro") == [params, "0"]


@pytest.mark.slow
def test_a_block_that_was_edited_is_counted_anew_and_so_is_what_it_imports(tmp_path):
    plugin, helper, spec = tmp_path / "mine.py", tmp_path / "wide.py", tmp_path / "mine.yaml"
    plugin.write_text(MIXER)
    helper.write_text("WIDTH = 4\n")
    spec.write_text(SPEC)
    first = count(tmp_path, str(spec), str(plugin))
    assert count(tmp_path, str(spec), str(plugin)) == [first[0], "0"]
    helper.write_text("WIDTH = 5\n")
    second = count(tmp_path, str(spec), str(plugin))
    assert int(second[0]) - int(first[0]) == 8 + 1 + 8
    plugin.write_text(MIXER.replace("nn.Linear(width, WIDTH)", "nn.Linear(width, WIDTH, bias=False)"))
    assert int(count(tmp_path, str(spec), str(plugin))[0]) == int(second[0]) - 5


@pytest.mark.slow
def test_a_library_is_known_by_its_version_wherever_it_is_installed(tmp_path):
    """Otherwise all of torch would be read where it is another Python's, below a virtual environment: minutes."""
    library = tmp_path / "below" / "site-packages" / "wide.py"
    library.parent.mkdir(parents=True)
    library.write_text("WIDTH, __version__ = 4, '1'\n")
    plugin, spec = tmp_path / "mine.py", tmp_path / "mine.yaml"
    plugin.write_text(f"import sys\nsys.path.append({str(library.parent)!r})\n{MIXER}")
    spec.write_text(SPEC)
    first = count(tmp_path, str(spec), str(plugin))
    library.write_text("WIDTH, __version__ = 4, '1'  # another source, the same version\n")
    assert count(tmp_path, str(spec), str(plugin)) == [first[0], "0"]
    library.write_text("WIDTH, __version__ = 5, '2'\n")
    assert int(count(tmp_path, str(spec), str(plugin))[0]) == int(first[0]) + 8 + 1 + 8


def records(path: Path) -> Records:
    return Records(path / "costs.sqlite")


def test_what_was_put_is_found_by_others(tmp_path):
    ours, theirs = records(tmp_path), records(tmp_path)
    ours.put("a", "[1]")
    assert ours.get("a") == "[1]"
    assert theirs.get("a") is None
    ours.flush()
    assert theirs.get("a") == "[1]"
    assert theirs.get("b") is None


WRITER = """
import sys
from pathlib import Path
from archspec.records import Records
records = Records(Path(sys.argv[1]))
for i in range(300):
    records.put(f"{sys.argv[2]} {i}", str(i))
    if i % 10 == 0:
        records.flush()
"""


@pytest.mark.slow
def test_many_processes_write_at_once_and_nothing_is_lost(tmp_path):
    file = tmp_path / "costs.sqlite"
    command = [sys.executable, "-W", "error", "-c", WRITER, str(file)]
    writers = [subprocess.Popen([*command, str(number)]) for number in range(6)]
    assert [writer.wait() for writer in writers] == [0] * 6
    found = Records(file)
    assert all(found.get(f"{number} {i}") == str(i) for number in range(6) for i in range(300))


def filled(path: Path) -> Path:
    begun = records(path)
    for i in range(500):
        begun.put(str(i), "x" * 50)
    begun.flush()
    return begun.path


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"\0" * len(b), lambda b: b"not a database" * 100])
def test_a_damaged_file_is_begun_anew_with_a_warning(tmp_path, damage):
    file = filled(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    again = records(tmp_path)
    with pytest.warns(UserWarning, match=re.escape(str(file))):
        assert again.get("1") is None
    again.put("1", "new")
    again.flush()
    assert records(tmp_path).get("1") == "new"


def test_damage_in_the_middle_never_gives_a_wrong_record(tmp_path, recwarn):
    file = filled(tmp_path)
    whole = file.read_bytes()
    for at in range(4096, len(whole), 997):
        file.write_bytes(whole[:at] + bytes(255 - byte for byte in whole[at : at + 64]) + whole[at + 64 :])
        again = records(tmp_path)
        assert {again.get(str(i)) for i in range(0, 500, 7)} <= {"x" * 50, None}


def test_another_programs_file_is_left_whole(tmp_path):
    file = tmp_path / "costs.sqlite"
    with sqlite3.connect(file) as theirs:
        theirs.execute("CREATE TABLE precious (value)")
        theirs.execute("INSERT INTO precious VALUES (42)")
    theirs.close()
    with pytest.warns(UserWarning, match="another program"):
        assert records(tmp_path).get("a") is None
    with sqlite3.connect(tmp_path / "costs.sqlite.damaged") as kept:
        assert kept.execute("SELECT value FROM precious").fetchone() == (42,)
    kept.close()


def test_where_nothing_can_be_written_it_goes_without(tmp_path):
    (tmp_path / "file").write_text("no folder")
    without = Records(tmp_path / "file" / "costs.sqlite")
    with pytest.warns(UserWarning, match="not kept"):
        assert without.get("a") is None
    without.put("a", "1")
    without.flush()
    assert without.get("a") is None


@pytest.mark.slow
def test_no_cache_leaves_no_file(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "ARCHSPEC_NO_CACHE"}
    environment["ARCHSPEC_CACHE"] = str(tmp_path)
    command = [sys.executable, "-m", "archspec", "build", "vit_micro", "--plan-only"]
    subprocess.run([*command, "--no-cache"], env=environment, check=True, capture_output=True)
    assert not list(tmp_path.iterdir())
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert list(tmp_path.iterdir())
