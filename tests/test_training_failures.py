"""Runs that are refused before they begin, with the remedy, and runs that fail, with what to try."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from archspec import api
from archspec.errors import TrainingError, UsageError
from archspec.training import load_recipe, run
from archspec.training.distributed import find_device, joined
from archspec.training.trainer import Trainer

from .tiny_runs import EVERYTHING, few, quiet, tiny_plan, tiny_recipe, tiny_run


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class TestRefusals:
    def test_classes(self, tmp_path: Path):
        with pytest.raises(UsageError, match=r"the network has 7 classes.*--set classes=10"):
            run(tiny_plan("classes=7"), tiny_recipe(), "digits", tmp_path, device="cpu")
        assert not list(tmp_path.iterdir())

    def test_an_odd_batch_cannot_be_mixed(self, tmp_path: Path):
        recipe = tiny_recipe(("batch=15", "augment.mixup=1"))
        with pytest.raises(UsageError, match=r"in pairs.*15.*\(try 14\)"):
            tiny_run(tmp_path, recipe)

    def test_a_network_without_a_head(self, tmp_path: Path):
        with pytest.raises(UsageError, match="no head to train"):
            run(tiny_plan("head=none"), tiny_recipe(), few(tiny_recipe()), tmp_path, device="cpu")

    def test_devices(self):
        assert find_device("cpu").type == "cpu"
        assert find_device("auto").type in {"cpu", "cuda"}
        with pytest.raises(UsageError, match="'toaster' cannot be used here"), joined("toaster"):
            pass

    def test_another_run_in_the_folder(self, tmp_path: Path):
        tiny_run(tmp_path)
        with pytest.raises(UsageError, match=r"recipe optimizer.lr is 0.002 there, 0.1 here; seed is 0 there, 5 here"):
            tiny_run(tmp_path, tiny_recipe((*EVERYTHING, "optimizer.lr=0.1")), seed=5)
        with pytest.raises(UsageError, match=r"stages\[0\]\.width is 8 there, 16 here"):
            run(tiny_plan("stages[0].width=16"), tiny_recipe(), few(tiny_recipe()), tmp_path, device="cpu")

    def test_other_files_in_the_folder(self, tmp_path: Path):
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(UsageError, match=r"holds other files, such as thesis\.tex"):
            tiny_run(tmp_path)
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="cannot hold a run"):
            tiny_run(tmp_path / "file")


class TestFailures:
    def test_a_loss_that_is_not_finite(self, tmp_path: Path):
        data = few(tiny_recipe())

        class Poisoned(type(data)):
            def train_epoch(self, epoch, start_step=0):
                for step, (images, labels) in enumerate(super().train_epoch(epoch, start_step), start_step):
                    yield (images * math.nan if (epoch, step) == (2, 2) else images), labels

        data.__class__ = Poisoned
        words = (
            r"epoch 2, step 3 of 4: .*not finite; the last finite state .*epoch 2, step 0 \(try a lower optimizer.lr"
        )
        with pytest.raises(TrainingError, match=words):
            tiny_run(tmp_path, data=data)
        state = torch.load(next((tmp_path / "checkpoints").glob("epoch-2-step-0-*")), weights_only=True)
        assert all(value.isfinite().all() for value in state["network"].values())
        assert TrainingError.exit_code == 1

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError(),
                                       RuntimeError("DefaultCPUAllocator: can't allocate memory")])  # fmt: skip
    def test_out_of_memory_names_a_batch_that_fits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error):
        from archspec.memory import training_memory
        from archspec.training import failures

        def fail(*_: object, **__: object) -> None:
            raise error

        plan, recipe = api.make_plan("vit_micro"), load_recipe("digits", ["batch=64"])
        there = training_memory(plan, batch=20).total
        monkeypatch.setattr(failures, "available", lambda device: there)
        monkeypatch.setattr(Trainer, "_backward", fail)
        with pytest.raises(TrainingError, match=r"64 images at a time.*accumulate=4: 16 images at a time") as caught:
            run(plan, recipe, "digits", tmp_path, device="cpu", console=quiet())
        needed = training_memory(plan, batch=64).total / 2**20
        assert f"about {needed:,.1f} MiB, there are {there / 2**20:,.1f} MiB" in str(caught.value)

    def test_other_errors_stay_what_they_are(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("shapes do not fit")

        monkeypatch.setattr(Trainer, "step", fail)
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            tiny_run(tmp_path)
