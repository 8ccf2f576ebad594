"""The trainer: it learns, it is deterministic, and no interruption changes what comes out."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from archspec.errors import TrainingError, UsageError
from archspec.training import Result, TrainSettings, checkpoint, evaluate, train
from archspec.training.data import Split, digits, load, shift
from archspec.training.loop import find_device, learning_rate, parameter_groups

SMALL = TrainSettings(epochs=4, batch_size=64, lr=2e-3, warmup_epochs=1, augment=True, device="cpu")
Weights = dict[str, Tensor]


def tiny(classes: int = 10) -> nn.Module:
    """Batch norm and dropout: buffers and random numbers that a resumed run must get right, too."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(144, classes))


def few(count: int = 160) -> Split:
    data = digits(1, (8, 8))
    cut = {name: getattr(data, name)[:count] for name in ("train_images", "train_labels", "test_images", "test_labels")}
    return dataclasses.replace(data, **cut)


def run(folder: Path, settings: TrainSettings = SMALL, data: Split | None = None, **options) -> tuple[Weights, Result]:
    network = tiny()
    console = options.pop("console", Console(file=io.StringIO()))
    result = train(network, data or few(), settings, folder, console=console, **options)
    return network.state_dict(), result


def same(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on many threads, far slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Result]:
    """The run that nothing interrupted."""
    return run(tmp_path_factory.mktemp("whole"))


class TestData:
    def test_split_is_fixed_disjoint_and_stratified(self):
        data = digits(1, (8, 8))
        assert (len(data.train_labels), len(data.test_labels)) == (1437, 360)
        again = digits(1, (8, 8))
        assert torch.equal(data.train_images, again.train_images)
        assert torch.equal(data.test_labels, again.test_labels)
        trained, held_out = (
            {image.numpy().tobytes() for image in part} for part in (data.train_images, data.test_images)
        )
        assert not trained & held_out
        counts = Counter(data.train_labels.tolist()), Counter(data.test_labels.tolist())
        assert all(abs(counts[1][k] - 0.2 * (counts[0][k] + counts[1][k])) <= 1 for k in range(10))

    def test_normalised_resized_and_repeated(self):
        plain, large = digits(1, (8, 8)), digits(3, (12, 16))
        assert plain.train_images.mean().abs() < 1e-5
        assert (plain.train_images.std() - 1).abs() < 1e-5
        assert large.test_images.shape == (360, 3, 12, 16)
        assert torch.equal(large.test_images[:, 0], large.test_images[:, 2])
        assert large.identity == "digits 3x12x16"

    def test_unknown_name(self):
        with pytest.raises(UsageError, match="did you mean 'digits'"):
            load("digit", 1, (8, 8))
        with pytest.raises(UsageError, match="known: digits"):
            load("imagenet", 1, (8, 8))

    def test_classes_must_match(self, tmp_path: Path):
        with pytest.raises(UsageError, match=r"the network has 7 classes.*--set classes=10"):
            train(tiny(7), few(), SMALL, tmp_path)

    def test_shift_against_a_loop(self):
        images = torch.randn(20, 2, 16, 8)
        moved = shift(images, torch.Generator().manual_seed(3))
        generator = torch.Generator().manual_seed(3)
        down = torch.randint(-2, 3, (20, 1), generator=generator)
        right = torch.randint(-1, 2, (20, 1), generator=generator)
        for n in range(20):
            for y in range(16):
                for x in range(8):
                    row, column = min(max(y + int(down[n]), 0), 15), min(max(x + int(right[n]), 0), 7)
                    assert torch.equal(moved[n, :, y, x], images[n, :, row, column])


class TestSettings:
    @pytest.mark.parametrize(
        ("option", "value"),
        [("epochs", 0), ("batch_size", 0), ("lr", 0.0), ("lr", math.nan), ("weight_decay", -1.0),
         ("warmup_epochs", -1), ("label_smoothing", 1.0), ("seed", -1)],
    )  # fmt: skip
    def test_refused(self, option: str, value: float):
        with pytest.raises(UsageError, match=f"^{option}: {value} must be"):
            TrainSettings(**{option: value})

    def test_device(self):
        assert find_device("cpu").type == "cpu"
        assert find_device("auto").type in {"cpu", "cuda"}
        with pytest.raises(UsageError, match="device: 'toaster' cannot be used here"):
            find_device("toaster")


class TestLearning:
    def test_schedule(self):
        rates = [learning_rate(step, steps=100, warmup=10, peak=2.0) for step in range(100)]
        assert rates[0] == pytest.approx(0.2)
        assert rates[9] == rates[10] == 2.0
        for step in range(10, 100):
            assert rates[step] == pytest.approx(1 + math.cos(math.pi * (step - 10) / 90))
        assert 0 < rates[99] < 0.01
        assert learning_rate(9, steps=10, warmup=10, peak=2.0) == 2.0
        assert learning_rate(9, steps=10, warmup=20, peak=2.0) == 1.0

    def test_what_decays(self):
        network = tiny()
        network.no_weight_decay = lambda: {"0.weight"}
        decayed, kept = parameter_groups(network, 0.1)
        assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
        assert [weight.shape for weight in decayed["params"]] == [(10, 144)]
        assert len(kept["params"]) == 5

    def test_learns(self, tmp_path: Path):
        data = digits(1, (8, 8))
        settings = TrainSettings(epochs=8, lr=1e-2, warmup_epochs=1, device="cpu")
        network = tiny()
        result = train(network, data, settings, tmp_path, console=Console(file=io.StringIO()))
        assert result.history[-1].loss < 0.6 * result.history[0].loss
        assert result.accuracy > 0.9
        assert evaluate(network, data, batch_size=7) == result.accuracy
        assert network.training

    def test_seed_decides(self, tmp_path: Path, whole: tuple[Weights, Result]):
        torch.rand(5)
        assert same(run(tmp_path / "same")[0], whole[0])
        assert not same(run(tmp_path / "other", dataclasses.replace(SMALL, seed=1))[0], whole[0])
        assert not same(run(tmp_path / "plain", dataclasses.replace(SMALL, augment=False))[0], whole[0])

    def test_divergence_says_where(self, tmp_path: Path):
        data = few()
        data.train_images[:] = math.nan
        with pytest.raises(TrainingError, match=r"epoch 1, step 1 of 2: .*not finite \(try a lower lr, now 0.002"):
            run(tmp_path, data=data)

    def test_infinite_gradients_leave_the_weights(self, tmp_path: Path):
        network = tiny()
        network[5].weight.register_hook(lambda gradient: gradient * math.inf)
        before = network[5].weight.detach().clone()
        with pytest.raises(TrainingError, match="epoch 1, step 1"):
            train(network, few(), SMALL, tmp_path, console=Console(file=io.StringIO()))
        assert torch.equal(network[5].weight, before)

    def test_a_line_an_epoch_without_a_terminal(self, tmp_path: Path):
        out = io.StringIO()
        run(tmp_path, console=Console(file=out))
        lines = out.getvalue().splitlines()
        assert len(lines) == 4
        assert lines[3].startswith("epoch 4/4  loss ")
        assert "accuracy" in lines[3]
        assert lines[3].endswith("images/s")

    def test_a_bar_on_a_terminal(self, tmp_path: Path):
        out = io.StringIO()
        run(tmp_path, console=Console(file=out, force_terminal=True, width=120))
        assert "epoch 4/4" in out.getvalue()
        assert "━" in out.getvalue()

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_gpu_goes_on_from_the_cpu(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        with monkeypatch.context() as patch:
            Crash(patch, at=20)
            with pytest.raises(Killed):
                run(tmp_path)
        weights, result = run(tmp_path, dataclasses.replace(SMALL, device="cuda"))
        assert len(result.history) == 4
        assert all(weight.is_cuda for weight in weights.values())


class Killed(BaseException):
    """What nothing catches: the process is gone."""


class Crash:
    """Counts the operations on the disk, and dies before number `at`."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self.count, self.at = 0, at
        for owner, name in [(os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir"),
                            (checkpoint, "save_model"), (torch, "save")]:  # fmt: skip
            patch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, operation):
        def operate(*args, **options):
            if self.count == self.at:
                raise Killed
            self.count += 1
            return operation(*args, **options)

        return operate


class TestResume:
    def test_killed_between_any_two_operations(self, tmp_path: Path, whole: tuple[Weights, Result]):
        at = 0
        while True:
            folder = tmp_path / str(at)
            with pytest.MonkeyPatch.context() as patch:
                crash = Crash(patch, at)
                try:
                    run(folder)
                    break
                except Killed:
                    pass
            weights, result = run(folder)
            assert same(weights, whole[0]), f"killed before operation {crash.at}"
            assert result.history == whole[1].history
            at += 1
        assert at > 40

    @pytest.mark.parametrize("steps", [1, 3, 4, 7])
    def test_interrupt(self, tmp_path: Path, whole: tuple[Weights, Result], steps: int):
        network, seen = tiny(), 0

        def interrupt(*_: object) -> None:
            nonlocal seen
            seen += network.training
            if seen > steps:
                raise KeyboardInterrupt

        network.register_forward_hook(interrupt)
        message = (
            f"interrupted after epoch {steps // 2}; the same command goes on" if steps > 1 else "in the first epoch"
        )
        with pytest.raises(TrainingError, match=message):
            train(network, few(), SMALL, tmp_path, console=Console(file=io.StringIO()))
        assert same(run(tmp_path)[0], whole[0])

    def test_a_finished_run_is_only_read(self, tmp_path: Path):
        weights, result = run(tmp_path)
        written = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
        again, repeated = run(tmp_path)
        assert same(again, weights)
        assert repeated == result
        assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == written

    def test_what_is_kept(self, tmp_path: Path):
        _, result = run(tmp_path)
        epochs = [f"epoch-000{epoch}.{suffix}" for epoch in (3, 4) for suffix in ("json", "pt", "safetensors")]
        assert sorted(file.name for file in tmp_path.iterdir()) == [*epochs, "settings.json"]
        assert result.weights.name == "epoch-0004.safetensors"

    @pytest.mark.parametrize("suffix", ["json", "pt", "safetensors"])
    @pytest.mark.parametrize("keep", [0.0, 0.3, 0.99, None])
    def test_damage_falls_back(self, tmp_path: Path, whole: tuple[Weights, Result], suffix: str, keep: float | None):
        run(tmp_path)
        file = tmp_path / f"epoch-0004.{suffix}"
        content = file.read_bytes()
        flipped = content[:20] + bytes([content[20] ^ 1]) + content[21:]
        file.write_bytes(flipped if keep is None else content[: int(keep * len(content))])
        with pytest.warns(RuntimeWarning, match="passing over the checkpoint of epoch 4"):
            weights, result = run(tmp_path)
        assert same(weights, whole[0])
        assert result.history == whole[1].history

    def test_starts_again_when_all_are_damaged(self, tmp_path: Path, whole: tuple[Weights, Result]):
        run(tmp_path)
        for epoch in (3, 4):
            (tmp_path / f"epoch-000{epoch}.pt").unlink()
        with pytest.warns(RuntimeWarning, match="passing over") as caught:
            weights, _ = run(tmp_path)
        assert len(caught) == 2
        assert same(weights, whole[0])

    def test_another_run_is_refused(self, tmp_path: Path):
        run(tmp_path, fingerprint="abc")
        with pytest.raises(UsageError, match=r"lr is 0\.002 there, 0\.001 here; seed is 0 there, 5 here \(try another"):
            run(tmp_path, dataclasses.replace(SMALL, lr=1e-3, seed=5), fingerprint="abc")
        with pytest.raises(UsageError, match="fingerprint is 'abc' there, 'xyz' here"):
            run(tmp_path, fingerprint="xyz")
        run(tmp_path, dataclasses.replace(SMALL, device="auto"), fingerprint="abc")

    @pytest.mark.parametrize("content", ["", "[1, 2]", None])
    def test_a_folder_without_settings_is_refused(self, tmp_path: Path, content: str | None):
        run(tmp_path)
        (tmp_path / "settings.json").unlink()
        if content is not None:
            (tmp_path / "settings.json").write_text(content)
        with pytest.raises(UsageError, match="cannot be used for this run"):
            run(tmp_path)

    def test_a_file_is_no_folder(self, tmp_path: Path):
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="cannot be used for this run"):
            run(tmp_path / "file")

    def test_another_network_is_refused(self, tmp_path: Path):
        run(tmp_path)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        with pytest.raises(UsageError, match="weights of another network"):
            train(network, few(), SMALL, tmp_path, console=Console(file=io.StringIO()))

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def fail(*_: object) -> None:
            raise RuntimeError("no space left")

        monkeypatch.setattr(torch, "save", fail)
        with pytest.raises(TrainingError, match="checkpoint of epoch 1 cannot be written: no space left"):
            run(tmp_path)

    def test_shared_weights(self, tmp_path: Path):
        def network() -> nn.Module:
            torch.manual_seed(0)
            shared = nn.Linear(64, 64)
            return nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared, nn.Linear(64, 10))

        first, second = network(), network()
        train(first, few(), SMALL, tmp_path, console=Console(file=io.StringIO()))
        train(second, few(), SMALL, tmp_path, console=Console(file=io.StringIO()))
        assert same(first.state_dict(), second.state_dict())

    @pytest.mark.slow
    @pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL and SIGINT")
    def test_signals(self, tmp_path: Path):
        start = (
            "import runpy, sys, torch; torch.set_num_threads(1); runpy.run_path(sys.argv[1])['long_run'](sys.argv[2])"
        )
        command = [sys.executable, "-c", start, __file__, str(tmp_path / "killed")]
        for epoch, number in [(2, signal.SIGKILL), (30, signal.SIGINT), (60, signal.SIGKILL)]:
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            while process.poll() is None and checkpoint_of(tmp_path / "killed") < epoch:
                time.sleep(0.01)
            process.send_signal(number)
            _, messages = process.communicate(timeout=60)
            assert process.returncode != 0
            assert number != signal.SIGINT or "interrupted after epoch" in messages
        assert checkpoint_of(tmp_path / "killed") < 150
        assert same(long_run(str(tmp_path / "killed")), long_run(str(tmp_path / "whole")))


def long_run(folder: str) -> Weights:
    return run(Path(folder), dataclasses.replace(SMALL, epochs=150), few(320))[0]


def checkpoint_of(folder: Path) -> int:
    return checkpoint.newest(folder) if folder.exists() else 0
