"""Networks as files for other tools: kept only when their logits agree."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from archspec import api
from archspec.errors import RunError, UsageError
from archspec.export import export, find_format

from .makes import smallest_of_each_make

IMAGE = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    return api.build("nommer_micro", seed=0)


def test_pt2_is_read_back_by_torch(network, tmp_path):
    file = tmp_path / "network.pt2"
    assert export(network, IMAGE, "pt2", file) < 1e-5
    with torch.inference_mode():
        torch.testing.assert_close(torch.export.load(file).module()(IMAGE), network(IMAGE))


@pytest.mark.slow
def test_onnx_runs_in_onnxruntime(network, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "network.onnx"
    assert export(network, IMAGE, "onnx", file) < 1e-5
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: IMAGE.numpy()})
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(logits), network(IMAGE), rtol=1e-4, atol=1e-5)


class Spectrum(nn.Module):
    """Has no ONNX counterpart for complex eigenvalues."""

    def forward(self, x):
        return torch.linalg.eigvals(x[:, 0, :4, :4]).real


class Fickle(nn.Module):
    """Another network once it is exported."""

    def forward(self, x):
        return x.flatten(1) + (0.01 if torch.compiler.is_exporting() else 0)


@pytest.mark.slow
def test_what_onnx_cannot_express_is_named_in_one_line(tmp_path):
    pytest.importorskip("onnxruntime")
    file = tmp_path / "network.onnx"
    with pytest.raises(RunError, match="linalg_eig") as caught:
        export(Spectrum(), IMAGE, "onnx", file)
    assert "\n" not in str(caught.value)
    assert not file.exists()


def test_logits_that_differ_are_not_kept(tmp_path):
    file = tmp_path / "network.pt2"
    file.write_text("the file from before")
    with pytest.raises(RunError, match="differ"):
        export(Fickle(), IMAGE, "pt2", file)
    assert file.read_text() == "the file from before"
    assert [path.name for path in tmp_path.iterdir()] == ["network.pt2"]


def test_another_format_is_refused():
    with pytest.raises(UsageError, match="pt2, onnx"):
        find_format("tflite")


def test_the_command_writes_the_file(tmp_path):
    file = tmp_path / "network.pt2"
    command = [sys.executable, "-m", "archspec", "build", "nommer_micro", "--export", "pt2", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"wrote {file}" in done.stderr
    assert file.stat().st_size > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx"])
@pytest.mark.parametrize("name", smallest_of_each_make())
def test_every_make_of_shipped_network_can_be_exported(name, form, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    plan = api.make_plan(name)
    image = torch.randn(1, plan.source.width, *plan.source.grid, generator=torch.Generator().manual_seed(0))
    export(api.build(plan), image, form, tmp_path / f"network.{form}")
