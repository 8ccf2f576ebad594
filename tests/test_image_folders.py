"""Folders of images: read in order, shared whole, laid out as people do, and with images that cannot be read."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from archspec.errors import DataError, UsageError
from archspec.training.data import open_data
from archspec.training.data.images import FolderImages

from .image_data import HEAVY, PLAIN, folder, listed, plant, same


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("tree"))


class TestFolder:
    def test_labels_number_the_sorted_names(self, tree):
        data = folder(tree, PLAIN)
        assert data.class_names == ("10", "cat", "dog")
        assert (data.train_size, data.test_size, data.name) == (12, 9, tree.name)
        strongest = {"10": 2, "cat": 0, "dog": 1}  # the channel of the class's colour
        for images, labels in itertools.chain(data.train_epoch(0), data.test_batches()):
            channels = images.mean((2, 3)).argmax(1).tolist()
            assert channels == [strongest[data.class_names[label]] for label in labels.tolist()]

    def test_normalised_by_imagenets_constants(self, tree):
        data = folder(tree, PLAIN, size=(12, 10), batch=9)
        ((images, _),) = data.test_batches()
        first = np.asarray(Image.open(tree / "val/10/0.png").resize((10, 12))) / 255
        expected = (first - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        assert np.allclose(images[0].permute(1, 2, 0), expected, atol=1e-5)

    def test_one_channel_is_grey(self, tree):
        ((images, _),) = folder(tree, PLAIN, channels=1, size=(12, 10), batch=9).test_batches()
        grey = np.asarray(Image.open(tree / "val/10/0.png").convert("L")) / 255
        assert np.allclose(images[0, 0], (grey - 0.449) / 0.226, atol=1e-5)
        heavy = folder(tree, HEAVY, channels=1)
        assert listed(heavy)[0][0].shape == (4, 1, 8, 8)

    def test_the_recipes_constants_count(self, tree):
        data = folder(tree, {**PLAIN, "mean": (0, 0, 0), "std": (1, 1, 1)}, size=(12, 10))
        images = torch.cat([images for images, _ in data.test_batches()])
        assert images.min() >= 0
        assert images.max() <= 1
        with pytest.raises(UsageError, match=r"augment.mean: 1 numbers.*3 channels"):
            folder(tree, {**PLAIN, "mean": (0,), "std": (1, 1, 1)})

    @pytest.mark.parametrize("workers", [1, 2])
    def test_the_stream_does_not_know_its_workers(self, tree, workers):
        whole = [listed(folder(tree), epoch) for epoch in (0, 1)]
        data = folder(tree, workers=workers)
        assert same(listed(data, 0), whole[0])
        half = data.train_epoch(1)
        next(half)  # an epoch that is left in the middle
        assert same(listed(data, 1, 1), whole[1][1:])
        assert same(list(data.test_batches()), list(folder(tree).test_batches()))

    def test_workers_live_as_long_as_epochs_are_finished(self, tree):
        """As a loop takes batches that knows how many there are, and closes what it has taken them from."""
        data = folder(tree, workers=1)
        seen = []
        for epoch, steps in enumerate((3, 3, 2, 3)):
            batches = data.train_epoch(epoch)
            for _ in range(steps):
                next(batches)
            seen.append({child.pid for child in multiprocessing.active_children()})
            batches.close()
        assert seen[0] == seen[1] == seen[2]
        assert len(seen[3]) == 1
        assert seen[2] != seen[3]

    @pytest.mark.parametrize("augment", [HEAVY, {**PLAIN, "shift": 0.25, "flip": 0.5}, {**HEAVY, "repeats": 3}])
    def test_taken_up_at_any_step(self, tree, augment):
        data = folder(tree, augment)
        whole = listed(data, 2)
        torch.manual_seed(123), random.seed(4), np.random.seed(3)
        for start in range(4):
            assert same(listed(data, 2, start), whole[start:])
        assert not same(whole, listed(data, 3))

    def test_repeats_are_augmented_differently(self, tree):
        data = folder(tree, {**HEAVY, "repeats": 4})
        for images, labels in listed(data):  # four views of one image
            assert len(set(labels.tolist())) == 1
            assert all(not torch.equal(one, two) for one, two in itertools.combinations(images, 2))

    def test_loading_draws_no_global_number(self, tree):
        torch.manual_seed(1)
        expected = torch.rand(())
        torch.manual_seed(1)
        for workers in (0, 1):
            listed(folder(tree, workers=workers))
            list(folder(tree, workers=workers).test_batches())
        assert torch.rand(()) == expected

    def test_ranks_share_what_one_process_takes(self, tree):
        whole = listed(folder(tree))
        parts = [listed(folder(tree, rank=rank, world=2)) for rank in range(2)]
        for (images, labels), *shares in zip(whole, *parts, strict=True):
            for rank, (mine, mine_too) in enumerate(shares):
                assert torch.equal(images[rank::2], mine)
                assert torch.equal(labels[rank::2], mine_too)

    @pytest.mark.parametrize("world", [1, 2, 4])
    def test_evaluation_sees_each_image_once(self, tree, world):
        """Nine images: no world here divides them."""
        everything = [image for images, _ in folder(tree, batch=3).test_batches() for image in images]
        seen = [
            image
            for rank in range(world)
            for images, _ in folder(tree, rank=rank, world=world).test_batches()
            for image in images
        ]
        assert len({image.numpy().tobytes() for image in everything}) == 9
        assert sorted(image.numpy().tobytes() for image in seen) == sorted(i.numpy().tobytes() for i in everything)

    def test_identity_is_of_the_contents_not_the_place(self, tree, tmp_path):
        moved_away = plant(tmp_path / tree.name)
        assert folder(tree).identity == folder(moved_away).identity
        assert str(tmp_path) not in folder(moved_away).identity
        assert folder(moved_away, size=(4, 4)).identity != folder(tree).identity
        (moved_away / "train/cat/0.png").rename(moved_away / "train/cat/zero.png")
        assert folder(moved_away).identity != folder(tree).identity

    def test_only_the_test_part(self, tmp_path):
        root = plant(tmp_path / "only")
        for file in (root / "val/dog").iterdir():
            file.unlink()
        (root / "val/dog").rmdir()
        data = folder(root, train=False)
        assert (data.class_names, data.train_size, data.test_size) == (("10", "cat", "dog"), 0, 6)
        assert len(list(data.test_batches())) == 2


class TestLayout:
    def test_no_parts(self, tree):
        with pytest.raises(
            UsageError, match=r"train: has no folder train/ or training/; it has the folders 10, cat, dog"
        ):
            folder(tree / "train")

    def test_no_test_part(self, tmp_path):
        (tmp_path / "train" / "a").mkdir(parents=True)
        with pytest.raises(UsageError, match="no folder val/ or"):
            folder(tmp_path)

    def test_no_classes(self, tmp_path):
        (tmp_path / "train").mkdir()
        (tmp_path / "test").mkdir()
        with pytest.raises(UsageError, match="train: has no folders, one for the images of each class"):
            folder(tmp_path)

    def test_a_class_without_images(self, tmp_path):
        root = plant(tmp_path / "tree")
        (root / "train" / "eel").mkdir()
        with pytest.raises(UsageError, match=r"train: found the classes 10, cat, dog, eel, but no images of eel"):
            folder(root)

    def test_a_class_that_is_only_tested(self, tmp_path):
        root = plant(tmp_path / "tree")
        (root / "val" / "eel").mkdir()
        with pytest.raises(UsageError, match=r"val: has classes that .*train lacks: eel"):
            folder(root)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("digit", "did you mean 'digits'"),
            ("/nowhere", "neither a folder nor a data set .*known: digits"),
            ("torch/cifar11", "did you mean 'cifar10'"),
            ("tfds/mnist", "a stream cannot be taken up"),
            ("wds/nowhere", "neither a folder"),
        ],
    )
    def test_unknown_names(self, name, expected):
        with pytest.raises(UsageError, match=expected):
            open_data(name, channels=3, size=(8, 8), batch=4)

    def test_channels_and_policies_that_cannot_be(self, tree):
        with pytest.raises(UsageError, match=r"4 channels.*--set input.channels=3"):
            folder(tree, channels=4)
        with pytest.raises(UsageError, match="timm does not know 'nonsense'"):
            folder(tree, {**PLAIN, "policy": "nonsense"})


class TestBroken:
    @pytest.fixture
    def damaged(self, tmp_path: Path) -> Path:
        """Of twelve images to train on one is text and one cut off; of nine to test on one is empty."""
        root = plant(tmp_path / "damaged")
        (root / "train/cat/1.png").write_text("no image")
        whole = (root / "train/dog/3.png").read_bytes()
        (root / "train/dog/3.png").write_bytes(whole[: len(whole) // 2])
        (root / "val/10/2.png").write_bytes(b"")
        return root

    @pytest.mark.parametrize("workers", [0, 2])
    def test_replaced_by_the_next_counted_and_named(self, damaged, workers):
        data = folder(damaged, PLAIN, workers=workers, batch=12)
        ((images, labels),) = listed(data)
        assert len(images) == 12
        assert labels.bincount().tolist() == [5, 4, 3]  # the last dog's place goes to the first image, a "10"
        assert data.broken.count == 2
        assert data.broken.names["train/cat/1.png"] == "not an image"
        assert "truncated" in data.broken.names["train/dog/3.png"]
        listed(data, 1)
        assert data.broken.count == 2  # each once
        assert same([(images, labels)], listed(data))

    def test_left_out_of_evaluation(self, damaged):
        data = folder(damaged, PLAIN)
        assert sum(len(labels) for _, labels in data.test_batches()) == 8
        assert set(data.broken.names) == {"val/10/2.png"}

    def test_too_many_are_a_failure(self, damaged):
        data = folder(damaged, PLAIN, max_broken=1, batch=12)
        with pytest.raises(DataError, match=r"2 images cannot be read, 1 are allowed: .*\.png: .*--max-broken 4"):
            listed(data)

    def test_none_that_can_be_read(self, damaged):
        for file in damaged.glob("train/*/*.png"):
            file.write_text("no image")
        with pytest.raises(DataError, match="4 images cannot be read, 3 are allowed"):
            listed(folder(damaged, PLAIN, max_broken=3))
        with pytest.raises(DataError, match="no image can be read: "):
            listed(folder(damaged, PLAIN))
        assert sum(len(labels) for _, labels in folder(damaged, PLAIN).test_batches()) == 8

    def test_a_worker_that_dies(self, tree, monkeypatch):
        """As when memory runs out. Workers are forks of this process, and inherit what is patched here."""
        monkeypatch.setattr("archspec.training.data.images.FolderImages.read", lambda *_: os._exit(1))
        with pytest.raises(DataError, match=r"a process that loads images died.*fewer --workers"):
            listed(folder(tree, workers=1))

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_workers_leave_signals_to_the_run(self, tree, number, monkeypatch):
        """A terminal and a scheduler send them to every process of the group."""

        def read(images: FolderImages, index: int, mode: str) -> tuple[Image.Image, int]:
            os.kill(os.getpid(), number)
            return original(images, index, mode)

        expected, original = listed(folder(tree)), FolderImages.read
        monkeypatch.setattr(FolderImages, "read", read)
        assert same(listed(folder(tree, workers=1)), expected)

    @pytest.mark.slow
    def test_workers_end_with_the_run(self, tree):
        """Even where it ends in the middle of an epoch, by an error that keeps hold of everything."""
        script = f"""
import torch
from archspec.training.data import open_data
data = open_data({str(tree)!r}, channels=3, size=(8, 8), batch=2, workers=1)
batches = data.train_epoch(0)
next(batches)
raise SystemExit(7)
"""
        assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 7

    def test_no_path_leaves_the_machine(self, damaged):
        (damaged / "val/cat/0.png").unlink()
        data = folder(damaged, PLAIN)
        (damaged / "val/cat/1.png").unlink()  # after it was listed
        list(data.test_batches())
        assert data.broken.names["val/cat/1.png"] == "FileNotFoundError: No such file or directory"
        assert str(damaged) not in data.broken.describe()
