"""The command line as a user meets it: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from archspec.cli.app import app
from archspec.errors import ArchspecError


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "archspec", *arguments]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def invoke(*arguments: str):
    """In this process, which is quicker; errors come as exceptions."""
    return CliRunner().invoke(app, list(arguments))


def test_help_answers_at_once_and_without_torch():
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = run("--help")
        times.append(time.perf_counter() - started)
        assert done.returncode == 0
    assert "build" in done.stdout
    assert min(times) < 0.5
    script = (
        "import sys, archspec, archspec.cli.app\n"
        "print([m for m in ('torch', 'timm', 'optuna', 'ray', 'sklearn', 'fvcore', 'matplotlib') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_build_prints_the_table_and_runs_the_network():
    done = run("build", "nommer_micro", "--seed", "3")
    assert done.returncode == 0
    assert "115.588k" in done.stdout
    assert "(1, 1, 32, 32) -> (1, 10)" in done.stderr


def test_json_is_the_only_thing_on_stdout():
    done = invoke("build", "nommer_t", "--json", "--plan-only")
    object_ = json.loads(done.stdout)
    assert (object_["params"], object_["params_trainable"]) == (22_898_172, 22_455_804)
    assert object_["macs"] == 5_464_695_936
    assert object_["input"] == [3, 224, 224]
    assert [stage["depth"] for stage in object_["stages"]] == [2, 2, 8, 2]
    assert sum(stage["macs"] for stage in object_["stages"]) < object_["macs"]
    assert object_["published"]["params_trainable"] == "22M"


def test_set_and_size_change_the_network():
    plain = json.loads(invoke("build", "vit_tiny", "--json", "--plan-only").stdout)
    options = ("--set", "stages[0].depth=6", "--size", "32x48")
    changed = json.loads(invoke("build", "vit_tiny", "--json", "--plan-only", *options).stdout)
    assert changed["input"] == [3, 32, 48]
    block = 12 * 192 * 192 + 13 * 192  # qkv, proj, fc1, fc2 with their biases, and two norms
    embedding = (196 - 2 * 3) * 192
    assert plain["params"] - changed["params"] == 6 * block + embedding


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "vit_tyni"), "did you mean 'vit_tiny'?"),
        (("build", "nowhere.yaml"), "nowhere.yaml: there is no such file"),
        (("build", "vit_tiny", "--set", "stages[0].mixer.heads=7"), "7 does not divide the width 192 (try 6)"),
        (("build", "vit_tiny", "--set", "stages[3].depth=7"), "stages[3]"),
        (("build", "vit_tiny", "--set", "depth"), "--set depth:1:"),
        (("build", "vit_tiny", "--size", "big"), "--size big"),
        (("build", "vit_tiny", "--size", "8"), "kernel"),
        (("build", "vit_tiny", "--plugin", "nowhere.py"), "nowhere.py"),
        (("build", "vit_tiny", "--plan-only", "--save", "x.safetensors"), "--plan-only"),
        (("show", "mixer", "atention"), "did you mean 'attention'?"),
        (("show", "mixr", "attention"), "did you mean 'mixer'?"),
        (("list", "mixxer"), "did you mean 'mixer'?"),
        (("train", "vit_tiny"), "classes"),
        (("train", "nommer_micro", "--data", "digit"), "did you mean 'digits'?"),
        (("train", "nommer_micro", "--epochs", "0"), "epochs"),
        (("new", "spec.txt"), ".yaml"),
        (("build",), "Missing argument"),
        (("biuld", "vit_tiny"), "No such command"),
    ],
)
def test_a_users_mistake_is_said_in_a_line_and_gives_exit_code_2(arguments, message):
    done = invoke(*arguments)
    if isinstance(done.exception, ArchspecError):
        assert done.exception.exit_code == 2
        assert message in str(done.exception)
    else:
        assert done.exit_code == 2
        assert message in done.output


def test_errors_go_to_stderr_without_a_traceback():
    done = run("build", "vit_tyni")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_a_bug_is_one_line_unless_the_trace_is_asked_for(tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from torch import nn\nfrom archspec.registry import register\n\n\n"
        '@register("mixer", "broken")\nclass Broken(nn.Module):\n    """Breaks."""\n\n'
        "    def __init__(self, width: int):\n        raise KeyError('inside')\n"
    )
    arguments = ("build", "nommer_micro", "--plugin", str(plugin), "--set", "stages[0].mixer=broken")
    done = run(*arguments)
    assert done.returncode == 2
    assert "broken" in done.stderr
    assert "Traceback" not in done.stderr


def test_validate_reports_every_file(tmp_path):
    for name, text in {
        "good": "archspec: 1\nextends: vit_tiny\n",
        "bad": "archspec: 1\nextends: vit_tiny\nclases: 3\n",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    done = run("validate", str(tmp_path / "good.yaml"), str(tmp_path / "bad.yaml"), "nommer_t")
    assert done.returncode == 2
    assert f"{tmp_path}/bad.yaml:3:1: clases: 'clases' is no key of a spec (did you mean 'classes'?)" in done.stderr
    assert "2 of 3 specs are valid" in done.stderr
    assert run("validate", str(tmp_path / "good.yaml")).returncode == 0


def test_what_show_prints_is_a_spec_of_the_same_network(tmp_path):
    file = tmp_path / "shown.yaml"
    file.write_text(invoke("show", "pit_base_cbs", "--set", "stages[1].mixer.heads=4").stdout)
    changed = invoke("diff", "pit_base_cbs", str(file)).stdout
    assert "stages[1].mixer.heads: 8 -> 4" in changed
    assert invoke("diff", str(file), str(file)).stdout.startswith("the two are the same network")


def test_show_explains_a_part_and_list_finds_it():
    shown = invoke("show", "mixer", "s_nommer").stdout
    assert "nominator" in shown
    assert "arxiv.org" in shown
    assert "s_nommer" in invoke("list", "mixer").stdout
    assert "nommer_t" in invoke("list", "specs").stdout


def test_new_writes_a_spec_that_builds_and_overwrites_nothing(tmp_path):
    file = tmp_path / "mine.yaml"
    assert invoke("new", str(file)).exit_code == 0
    assert json.loads(invoke("build", str(file), "--plan-only", "--json").stdout)["name"] == "mine"
    text = file.read_text()
    assert isinstance(invoke("new", str(file)).exception, ArchspecError)
    assert file.read_text() == text


@pytest.mark.slow
def test_training_goes_on_where_it_stopped(tmp_path):
    arguments = ("train", "nommer_micro", "--epochs", "1", "--out", str(tmp_path / "run"), "--device", "cpu")
    assert "accuracy" in run(*arguments).stdout
    started = time.perf_counter()
    again = run(*arguments)
    assert again.returncode == 0
    assert "accuracy" in again.stdout
    assert "epoch 1/1" not in again.stderr, f"trained again in {time.perf_counter() - started:.0f} s"
    other = run(*arguments, "--recipe-set", "optimizer.lr=0.1")
    assert other.returncode == 2
    assert "lr" in other.stderr


def test_what_a_constructor_refuses_is_told_with_what_is_misspelt(tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text(
        "archspec: 1\nstem: patch\ndefaults: {ffn: mlp, downsample: patch}\nclases: 10\nstages:\n"
        "  - {width: 64, depth: 2, mixer: {type: attention, heads: 7}}\n"
        "  - {widht: 128, depth: 2, mixer: attention}\nhead: linear\n"
    )
    done = invoke("build", str(file))
    assert str(done.exception).splitlines() == [
        f"{file}:4:1: clases: 'clases' is no key of a spec (did you mean 'classes'?)",
        f"{file}:6:59: stages[0].mixer.heads: 7 does not divide the width 64 (try 8)",
        f"{file}:7:6: stages[1].widht: 'widht' is no key of a stage (did you mean 'width'?)",
    ]
