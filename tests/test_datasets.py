"""Data sets that timm's factory knows: torchvision's, the hub's, and shards of webdataset."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from archspec.errors import UsageError
from archspec.training import resume, run
from archspec.training.data import open_data

from .image_data import COLOURS, PLAIN, listed, picture, recipe
from .tiny_runs import quiet, tiny_plan, tiny_recipe


class TestTorchvision:
    @pytest.fixture
    def cifar(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """CIFAR-10 in its own files, three images a file; of the real ones torchvision would want the checksums."""
        from torchvision.datasets import CIFAR10

        folder = tmp_path / "cifar-10-batches-py"
        folder.mkdir()
        generator = np.random.default_rng(0)
        for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]:
            batch = {"data": generator.integers(0, 256, (3, 3072), dtype=np.uint8), "labels": [3, 1, 9]}
            (folder / name).write_bytes(pickle.dumps(batch))
        names = [f"class {number}" for number in range(10)]
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        return tmp_path

    def test_read_by_timms_name(self, cifar):
        options = {"channels": 3, "size": (32, 32), "batch": 5, "recipe": recipe(**PLAIN), "root": cifar}
        data = open_data("torch/cifar10", **options)
        assert (data.train_size, data.test_size, data.classes, data.class_names[9]) == (15, 3, 10, "class 9")
        assert data.identity == "torch/cifar10: 15+3 images, 3x32x32"
        ((images, labels),) = data.test_batches()
        assert labels.tolist() == [3, 1, 9]
        raw = pickle.loads((cifar / "cifar-10-batches-py" / "test_batch").read_bytes())["data"][0] / 255
        back = (
            images[0] * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
            + torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        )
        assert np.allclose(back.flatten(), raw, atol=1e-5)
        assert len(listed(data)) == 3

    def test_a_run_finds_them_again_from_another_folder(self, cifar, tmp_path, monkeypatch):
        (tmp_path / "work" / "data").mkdir(parents=True)
        (cifar / "cifar-10-batches-py").rename(tmp_path / "work" / "data" / "cifar-10-batches-py")
        monkeypatch.chdir(tmp_path / "work")  # where `data` is
        plan, once = tiny_plan("input.channels=3"), tiny_recipe(("epochs=2", "batch=5"))
        folder, options = tmp_path / "run", {"device": "cpu", "console": quiet()}
        run(plan, once, "torch/cifar10", folder, on_epoch=lambda metrics: True, **options)
        monkeypatch.chdir(tmp_path)
        assert len(resume(folder, **options).history) == 2

    def test_what_is_not_there_is_not_fetched_unasked(self, tmp_path, monkeypatch):
        asked: list[object] = []
        monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", lambda *a, **_: asked.append(a))
        with pytest.raises(UsageError, match=r"torch/cifar10: is not on this machine.*--download.*--data-root"):
            open_data("torch/cifar10", channels=3, size=(8, 8), batch=4, root=tmp_path)
        assert not asked
        assert not any(tmp_path.iterdir())

    def test_a_download_that_fails_says_what_to_do(self, tmp_path, monkeypatch):
        def unreachable(*_: object, **__: object) -> None:
            raise OSError("no route to host")

        monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", unreachable)
        with pytest.raises(UsageError, match=r"cannot be downloaded: no route to host \(fetch it on a machine"):
            open_data("torch/cifar10", channels=3, size=(8, 8), batch=4, root=tmp_path, download=True)


def test_the_hub_needs_its_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pip install datasets"):
        open_data("hfds/someone/something", channels=3, size=(8, 8), batch=4)


class TestShards:
    @staticmethod
    def pack(file: Path, labels: list[int], mode: str = "w") -> None:
        with tarfile.open(file, mode) as archive:
            for number, label in enumerate(labels):
                content = io.BytesIO()
                picture(list(COLOURS.values())[label], number).save(content, "png")
                for suffix, data in (("png", content.getvalue()), ("cls", str(label).encode()), ("json", b"{}")):
                    entry = tarfile.TarInfo(f"part/{number:03d}.{suffix}")
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))

    @pytest.fixture
    def shards(self, tmp_path: Path) -> Path:
        self.pack(tmp_path / "train-000.tar", [0, 1, 2, 0])
        self.pack(tmp_path / "train-001.tar", [1, 2, 0, 1])
        self.pack(tmp_path / "val-000.tar", [2, 1, 0])
        return tmp_path

    def test_samples_in_their_order(self, shards):
        data = open_data(f"wds/{shards}", channels=3, size=(8, 8), batch=8, recipe=recipe(**PLAIN))
        assert (data.train_size, data.test_size, data.class_names) == (8, 3, ("0", "1", "2"))
        ((images, labels),) = data.test_batches()
        assert labels.tolist() == [2, 1, 0]
        assert images.mean((2, 3)).argmax(1).tolist() == [2, 1, 0]  # the colours are red, green and blue
        ((_, trained),) = listed(data)
        assert trained.bincount().tolist() == [3, 3, 2]
        assert str(shards.parent) not in data.identity

    def test_splits_of_the_description(self, shards):
        (shards / "train-001.tar").rename(shards / "other.tar")
        splits = {"train": {"filenames": ["other.tar"]}, "validation": {"filenames": ["val-000.tar"]}}
        (shards / "_info.json").write_text(json.dumps({"splits": splits}))
        assert open_data(f"wds/{shards}", channels=3, size=(8, 8), batch=4).train_size == 4

    def test_refused_with_the_remedy(self, tmp_path):
        self.pack(tmp_path / "train-0.tar.gz", [0], mode="w:gz")
        self.pack(tmp_path / "val-0.tar", [0])
        with pytest.raises(UsageError, match=r"no shards \*train\*.tar .*train-0.tar.gz is compressed: unpack it"):
            open_data(f"wds/{tmp_path}", channels=3, size=(8, 8), batch=4)
        (tmp_path / "train-0.tar").write_text("no archive")
        with pytest.raises(UsageError, match=r"train-0\.tar: is not a shard"):
            open_data(f"wds/{tmp_path}", channels=3, size=(8, 8), batch=4)
