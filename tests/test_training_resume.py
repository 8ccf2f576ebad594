"""Runs that were stopped, killed, damaged or short of disk go on, and end as if nothing had happened, bit for bit."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from archspec import files
from archspec.errors import Interrupted, TrainingError, UsageError
from archspec.training import Data, SaveEvery, resume
from archspec.training.trainer import Trainer

from .tiny_runs import EVERYTHING, few, outcome, quiet, same, tiny_recipe, tiny_run

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals and fork")
EVERY_STEP = SaveEvery(steps=1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    tiny_run(folder)
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that stands at the end of its second epoch of three; the state before is from within it."""
    folder = tmp_path_factory.mktemp("half")
    tiny_run(folder, save_every=SaveEvery(steps=3), on_epoch=lambda metrics: metrics.epoch == 2)
    return folder


def states(folder: Path) -> list[Path]:
    """The oldest first."""
    return sorted((folder / "checkpoints").iterdir(), key=lambda file: file.stat().st_mtime_ns)


class Killed(BaseException):
    """What nothing catches: the process is gone."""


class Crash:
    """Counts the operations on the disk, and dies before number `at`."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self.count, self.at = 0, at
        patch.setattr(os, "fsync", self.counted(lambda *_: None))
        for owner, name in [(Path, "replace"), (Path, "unlink"), (torch, "save")]:
            patch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, operation: Callable) -> Callable:
        def operate(*args, **options):
            if self.count == self.at:
                raise Killed
            self.count += 1
            return operation(*args, **options)

        return operate


class TestKilled:
    @pytest.mark.slow
    def test_between_any_two_operations_on_the_disk(self, tmp_path: Path):
        recipe = tiny_recipe((*EVERYTHING, "epochs=2"))

        def train(folder: Path) -> None:
            tiny_run(folder, recipe, few(recipe, 32), save_every=EVERY_STEP)

        train(tmp_path / "whole")
        expected = outcome(tmp_path / "whole")
        for at in itertools.count(step=2):
            folder = tmp_path / str(at)
            with pytest.MonkeyPatch.context() as patch:
                crash = Crash(patch, at)
                try:
                    train(folder)
                    break
                except Killed:
                    pass
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "fsync", lambda *_: None)
                train(folder)
            assert same(outcome(folder), expected), f"killed before operation {crash.at}"
            assert not [file for file in folder.rglob(".*") if files.LEFTOVER.fullmatch(file.name)]
            shutil.rmtree(folder)
        assert at > 40

    @posix
    @pytest.mark.slow
    def test_twenty_times_at_random(self, tmp_path: Path):
        script = Path(__file__).parent / "killed_trainings.py"
        done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len((tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()) == 40


class TestStopped:
    @posix
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("calls", [1, 6, 8, 11])
    def test_by_a_signal(self, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, number: int, calls: int):
        step, done = Trainer.step, 0

        def counted(*args: object) -> None:
            nonlocal done
            step(*args)
            done += 1
            if done == calls:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Trainer, "step", counted)
        epoch, within = (calls - 1) // 4 + 1, (calls - 1) % 4 + 1
        where = f"in epoch {epoch}, step {within} of 4; the last saved state: epoch {epoch}, step {within}"
        with pytest.raises(Interrupted, match=rf"{signal.Signals(number).name} {where} \(archspec train --resume"):
            tiny_run(tmp_path / "run")
        assert Interrupted.exit_code == 1
        tiny_run(tmp_path / "run")
        assert done == 12
        assert same(outcome(tmp_path / "run"), outcome(whole))

    @posix
    def test_while_it_is_evaluated(self, tmp_path: Path, whole: Path):
        data = few(tiny_recipe())

        class Interrupting(type(data)):
            def test_batches(self):
                os.kill(os.getpid(), signal.SIGTERM)
                return super().test_batches()

        data.__class__ = Interrupting
        with pytest.raises(Interrupted, match="epoch 1, step 4 of 4"):
            tiny_run(tmp_path / "run", data=data)
        tiny_run(tmp_path / "run")
        assert same(outcome(tmp_path / "run"), outcome(whole))

    @posix
    def test_at_once_by_a_second_signal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def twice(*_: object) -> None:
            signal.raise_signal(signal.SIGINT)  # in this thread: two that wait together would be one
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(Trainer, "step", twice)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it would be ignored
        try:
            with pytest.raises(KeyboardInterrupt):
                tiny_run(tmp_path)
        finally:
            signal.signal(signal.SIGINT, before)

    def test_by_an_error(self, tmp_path: Path, whole: Path):
        def fail(metrics: object) -> bool:
            raise RuntimeError("pruned")

        with pytest.raises(RuntimeError, match="pruned"):
            tiny_run(tmp_path / "run", on_epoch=fail)
        result = tiny_run(tmp_path / "run")
        assert len(result.history) == 3
        assert same(outcome(tmp_path / "run"), outcome(whole))


class TestResume:
    def test_from_the_folder_alone_wherever_it_stands(self, tmp_path: Path):
        recipe = tiny_recipe((*EVERYTHING, "batch=256"))
        tiny_run(tmp_path / "whole", recipe, data="digits")
        folder, moved = tmp_path / "here" / "run", tmp_path / "there" / "deeper" / "moved"
        tiny_run(folder, recipe, data="digits", on_epoch=lambda metrics: metrics.epoch == 2)
        moved.parent.mkdir(parents=True)
        folder.rename(moved)
        for file in moved.rglob("*"):
            if file.is_file():
                assert str(tmp_path).encode() not in file.read_bytes(), f"{file.name} has an absolute path in it"
                assert str(Path.home()).encode() not in file.read_bytes()
        result = resume(moved, device="cpu", console=quiet())
        assert len(result.history) == 3
        assert same(outcome(moved), outcome(tmp_path / "whole"))

    def test_with_a_data_folder_that_moves_along_or_is_told(self, tmp_path: Path):
        from PIL import Image

        recipe = tiny_recipe(("batch=4",))
        for part, name, number in itertools.product(("train", "val"), "0123456789", range(1)):
            file = tmp_path / "a" / "images" / part / name / f"{number}.png"
            file.parent.mkdir(parents=True)
            Image.new("L", (8, 8), 20 * int(name)).save(file)
        tiny_run(tmp_path / "a/run", recipe, data=str(tmp_path / "a/images"), on_epoch=lambda metrics: True)
        (tmp_path / "a").rename(tmp_path / "b")
        shutil.copytree(tmp_path / "b/run", tmp_path / "far" / "away" / "run")
        result = resume(tmp_path / "b/run", device="cpu", console=quiet())
        assert len(result.history) == 2
        with pytest.raises(UsageError, match="neither a folder nor a data set"):
            resume(tmp_path / "far/away/run", device="cpu")
        told = resume(tmp_path / "far/away/run", data=tmp_path / "b/images", device="cpu", console=quiet())
        assert told.history == result.history

    def test_a_finished_run_is_not_trained_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        first = tiny_run(tmp_path)
        written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.suffix in (".pt", ".csv")}
        monkeypatch.setattr(Trainer, "step", None)
        again = tiny_run(tmp_path)
        assert again == first
        assert same(again.network.state_dict(), first.network.state_dict())
        assert {file: file.stat().st_mtime_ns for file in written} == written

    def test_two_states_are_kept(self, whole: Path):
        assert [file.name.rsplit("-", 1)[0] for file in states(whole)] == ["epoch-3-step-0", "epoch-4-step-0"]

    def test_a_folder_without_a_run(self, tmp_path: Path):
        with pytest.raises(UsageError, match=r"holds no run: there is no run\.json"):
            resume(tmp_path)
        (tmp_path / "run.json").write_text("[1, 2")
        with pytest.raises(UsageError, match=r"run\.json cannot be read"):
            resume(tmp_path)

    @posix
    def test_two_at_once_are_refused(self, tmp_path: Path):
        def again(metrics: object) -> bool:
            tiny_run(tmp_path)
            return True

        with pytest.raises(UsageError, match="another process is training there"):
            tiny_run(tmp_path, on_epoch=again)

    def test_lines_that_a_kill_left_out_or_doubled_are_put_right(self, tmp_path: Path, whole: Path):
        tiny_run(tmp_path / "run", on_epoch=lambda metrics: metrics.epoch == 2)
        lines = tmp_path / "run" / "metrics.jsonl"
        lines.write_text(lines.read_text().splitlines(keepends=True)[0] * 2)
        tiny_run(tmp_path / "run", on_epoch=lambda metrics: True)
        tiny_run(tmp_path / "run")
        assert same(outcome(tmp_path / "run"), outcome(whole))

    def test_what_a_kill_left_out_after_the_last_state_is_written(self, tmp_path: Path, whole: Path):
        folder = shutil.copytree(whole, tmp_path / "run")
        lines = folder / "metrics.jsonl"
        lines.write_text("".join(lines.read_text().splitlines(keepends=True)[:2]))
        (folder / "last.safetensors").unlink()
        tiny_run(folder)
        assert same(outcome(folder), outcome(whole))


class TestDamage:
    @pytest.mark.parametrize("number", range(10))
    def test_a_truncated_state_falls_back_to_the_one_before(self, tmp_path: Path, whole: Path, half: Path, number: int):
        folder = shutil.copytree(half, tmp_path / "run")
        newest = states(folder)[-1]
        content = newest.read_bytes()
        newest.write_bytes(content[: random.Random(number).randrange(len(content))])
        with pytest.warns(RuntimeWarning, match="the state of epoch 3, step 0 is passed over: .*changed after"):
            tiny_run(folder)
        assert same(outcome(folder), outcome(whole))

    def test_a_changed_byte_is_noticed(self, tmp_path: Path, whole: Path, half: Path):
        folder = shutil.copytree(half, tmp_path / "run")
        content = bytearray(states(folder)[-1].read_bytes())
        content[len(content) // 2] ^= 1
        states(folder)[-1].write_bytes(content)
        with pytest.warns(RuntimeWarning, match="is passed over"):
            tiny_run(folder)
        assert same(outcome(folder), outcome(whole))

    def test_all_states_are_damaged(self, tmp_path: Path, whole: Path, half: Path):
        folder = shutil.copytree(half, tmp_path / "run")
        for file in states(folder):
            file.write_bytes(b"")
        with pytest.warns(RuntimeWarning, match="is passed over") as caught:
            tiny_run(folder)
        assert len(caught) == 2
        assert same(outcome(folder), outcome(whole))

    def test_a_state_that_runs_code_is_not_loaded(self, tmp_path: Path, whole: Path, half: Path):
        folder = shutil.copytree(half, tmp_path / "run")
        evil = pickle.dumps(Path, protocol=2)
        for file in states(folder):
            file.unlink()
        (folder / "checkpoints" / f"epoch-2-step-0-{hashlib.sha256(evil).hexdigest()[:16]}.pt").write_bytes(evil)
        with pytest.warns(RuntimeWarning, match="is passed over: .* cannot be loaded"):
            tiny_run(folder)
        assert same(outcome(folder), outcome(whole))


class FullDisk:
    """Nothing more fits on the disk from the `start`-th file until `stop`."""

    def __init__(self, patch: pytest.MonkeyPatch, start: int, stop: int) -> None:
        self.count, self.start, self.stop, self.fsync = 0, start, stop, os.fsync
        patch.setattr(os, "fsync", self.refuse)

    def refuse(self, handle: int) -> None:
        self.count += 1
        if self.start <= self.count < self.stop:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.fsync(handle)


class TestFullDisk:
    @pytest.mark.parametrize("length", [1, 7, 10])
    def test_for_a_while(self, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, length: int):
        FullDisk(monkeypatch, 9, 9 + length)
        with pytest.warns(RuntimeWarning, match="cannot be written: .*No space left.*the run goes on"):
            tiny_run(tmp_path)
        assert same(outcome(tmp_path), outcome(whole))

    def test_to_the_end(self, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch):
        with monkeypatch.context() as patch:
            FullDisk(patch, 25, 10**9)
            with (
                pytest.warns(RuntimeWarning, match="cannot be written"),
                pytest.raises(TrainingError, match=r"at its end, but its files cannot be written.*\(make room"),
            ):
                tiny_run(tmp_path)
        assert len(states(tmp_path)) >= 1
        tiny_run(tmp_path)
        assert same(outcome(tmp_path), outcome(whole))

    def test_torch_says_it_in_its_own_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def fail(*_: object) -> None:
            raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")

        tiny_run(tmp_path, on_epoch=lambda metrics: True)
        kept = {file: file.read_bytes() for file in states(tmp_path)}
        monkeypatch.setattr(torch, "save", fail)
        with pytest.warns(RuntimeWarning, match="file write failed"), pytest.raises(TrainingError):
            tiny_run(tmp_path)
        assert {file: file.read_bytes() for file in states(tmp_path)} == kept

    def test_before_the_first_step(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        FullDisk(monkeypatch, 1, 10**9)
        with pytest.raises(UsageError, match="cannot hold a run: No space left"):
            tiny_run(tmp_path)


@posix
def test_an_epoch_goes_on_at_the_step_where_it_stopped(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch):
    """Resumed after every single step."""
    step, folder, seen = Trainer.step, tmp_path / "run", []

    def one(*args: object) -> None:
        seen.append(args[1:3])
        step(*args)
        os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(12):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", one)
            with pytest.raises(Interrupted):
                tiny_run(folder)
    tiny_run(folder)
    assert seen == [(epoch, index) for epoch in (1, 2, 3) for index in range(4)]
    assert same(outcome(folder), outcome(whole))


def test_data_of_another_kind_is_refused(tmp_path: Path):
    recipe = tiny_recipe()
    data: Data = few(recipe)
    tiny_run(tmp_path, recipe, data, on_epoch=lambda metrics: True)
    data.identity = "others"
    with pytest.raises(UsageError, match="data is 'digits 1x8x8' there, 'others' here"):
        tiny_run(tmp_path, recipe, data)
