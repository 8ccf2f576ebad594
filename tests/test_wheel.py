"""The wheel, installed away from the tree, holds everything that archspec needs."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import archspec

HOUSE = Path(archspec.__file__).parent.parent


def call(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_lists_validates_and_builds_away_from_the_tree(tmp_path):
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, HOUSE, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    call(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # The dependencies are taken from this environment: a path file shows its packages, but not its editable archspec.
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    where = call(python, "-c", "import archspec.blocks, archspec.specs; print(archspec.blocks.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(packages)
    command = tmp_path / "env" / "bin" / "archspec"
    listed = call(command, "list", "specs", cwd=tmp_path).splitlines()[1:]
    names = [line.split()[0] for line in listed]
    assert "nommer_t" in names
    call(command, "validate", *names, cwd=tmp_path)
    assert "22.898M" in call(command, "build", "nommer_t", cwd=tmp_path)
    call(command, "new", "mine.yaml", cwd=tmp_path)
    call(command, "build", "mine.yaml", cwd=tmp_path)
