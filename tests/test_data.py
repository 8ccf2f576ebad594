"""Data sets: an order that depends on seed, epoch and position alone, whole shares, and files as people have them."""

from __future__ import annotations

import io
import itertools
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from archspec.errors import DataError, UsageError
from archspec.training.data import Data, open_data
from archspec.training.data.images import FolderImages
from archspec.training.data.in_memory import moved
from archspec.training.data.stream import Shares, seed_of, seeded
from archspec.training.recipe import Augment, Recipe

PLAIN = {"crop_scale": "none", "flip": 0.0, "crop_pct": 1.0, "interpolation": "bilinear"}
HEAVY = {"policy": "rand-m9-mstd0.5-inc1", "random_erasing": 0.5, "color_jitter": 0.3, "vertical_flip": 0.3}
COLOURS = {"cat": (200, 30, 30), "dog": (30, 200, 30), "10": (30, 30, 200)}


def recipe(**augment: object) -> Recipe:
    return Recipe.model_validate(
        {"archspec": 1, "name": "r", "epochs": 2, "batch": 4, "optimizer": {"lr": 0.1}, "augment": augment}
    )


def listed(data: Data, epoch: int = 0, start: int = 0) -> list[tuple[Tensor, Tensor]]:
    return list(data.train_epoch(epoch, start))


def same(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


def picture(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(-20, 20, (*size, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


def plant(root: Path, train: int = 4, test: int = 3) -> Path:
    """A tree of three classes; each image is of its class's colour."""
    for part, count in (("train", train), ("val", test)):
        for name, colour in COLOURS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture(colour, number).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("tree"))


def folder(root: Path, augment: dict[str, object] | None = None, **options: object) -> Data:
    chosen = {"channels": 3, "size": (8, 8), "batch": 4, "seed": 5, "recipe": recipe(**(augment or HEAVY)), **options}
    return open_data(root, **chosen)


def scanned(**options: object) -> Data:
    return open_data("digits", **{"channels": 1, "size": (8, 8), "batch": 64, "seed": 5, **options})


class TestShares:
    def test_an_epoch_shows_every_image_once(self):
        keys = list(itertools.chain(*Shares(images=24, batch=4, seed=1).keys(0, 0)))
        assert sorted(key.image for key in keys) == list(range(24))
        assert [key.position for key in keys] == list(range(24))

    def test_epochs_and_seeds_differ(self):
        orders = [
            tuple(Shares(images=50, batch=5, seed=seed).order(epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)
        ]
        assert len(set(orders)) == 4

    def test_what_does_not_fill_a_batch_waits(self):
        shares = Shares(images=10, batch=4, seed=0)
        assert shares.steps == len(list(shares.keys(3, 0))) == 2

    @pytest.mark.parametrize("world", [2, 3, 6])
    def test_ranks_partition_each_step(self, world):
        whole = list(Shares(images=40, batch=12, seed=2, repeats=3).keys(1, 0))
        parts = [
            list(Shares(images=40, batch=12, seed=2, repeats=3, rank=r, world=world).keys(1, 0)) for r in range(world)
        ]
        for step, keys in enumerate(whole):
            shares = [part[step] for part in parts]
            assert {len(share) for share in shares} == {12 // world}
            assert sorted(itertools.chain(*shares)) == sorted(keys)

    def test_repeats_follow_one_another_on_different_ranks(self):
        shares = [Shares(images=12, batch=6, seed=0, repeats=3, rank=rank, world=3) for rank in range(3)]
        columns = list(zip(*(itertools.chain(*share.keys(0, 0)) for share in shares), strict=True))
        assert len(columns) == 4  # 12 images shown in all: 4 different ones, each three times
        assert all(len({key.image for key in column}) == 1 for column in columns)
        assert len({column[0].image for column in columns}) == 4

    @pytest.mark.parametrize(("batch", "world", "near"), [(7, 2, 8), (9, 4, 8), (1, 4, 4)])
    def test_a_batch_that_cannot_be_shared_is_refused(self, batch, world, near):
        with pytest.raises(UsageError, match=f"{batch} images cannot be shared by {world} .*try {near}"):
            Shares(images=100, batch=batch, seed=0, world=world)

    def test_seeds_of_neighbours_share_nothing(self):
        seeds = {seed_of(a, b, c) for a in range(4) for b in range(4) for c in range(4)}
        assert len(seeds) == 64
        assert all(0 <= seed < 2**63 for seed in seeds)
        assert seed_of(1, 23) != seed_of(12, 3)

    def test_seeded_numbers_repeat_and_leave_the_others_alone(self):
        def draw() -> tuple[float, float, float]:
            return random.random(), float(np.random.rand()), float(torch.rand(()))

        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        expected = [draw(), draw()]
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        found = [draw()]
        with seeded(7):
            first = draw()
        with seeded(7):
            assert draw() == first
        assert [*found, draw()] == expected


class TestDigits:
    def test_images_and_split_are_as_they_always_were(self):
        source = load_digits()
        train, test = train_test_split(range(1797), test_size=0.2, random_state=0, stratify=source.target)
        pixels = source.images[train]
        expected = (source.images[test] - pixels.mean()) / pixels.std(ddof=1)
        data = scanned(recipe=recipe(**PLAIN), batch=100)
        images, labels = (torch.cat(parts) for parts in zip(*data.test_batches(), strict=True))
        assert (data.train_size, data.test_size, data.classes, data.identity) == (1437, 360, 10, "digits 1x8x8")
        assert np.allclose(images[:, 0], expected, atol=1e-5)
        assert labels.tolist() == source.target[test].tolist()
        trained = torch.cat([images for images, _ in data.train_epoch(0)])
        wanted = {
            image.round(decimals=3).numpy().tobytes()
            for image in torch.from_numpy((pixels - pixels.mean()) / pixels.std(ddof=1)).float()
        }
        assert len(trained) == 1400
        assert {image[0].round(decimals=3).numpy().tobytes() for image in trained} <= wanted

    def test_other_sizes_are_interpolated_and_channels_repeat(self):
        plain, large = scanned(), scanned(channels=3, size=(12, 16))
        (images, _), (expected, _) = next(large.test_batches()), next(plain.test_batches())
        assert images.shape == (64, 3, 12, 16)
        assert torch.equal(images[:, 0], images[:, 2])
        wanted = F.interpolate(expected, size=(12, 16), mode="bilinear", align_corners=False)
        assert torch.allclose(images[:, :1], wanted, atol=1e-6)

    def test_as_images_they_are_the_same_up_to_rounding(self):
        """A policy of timm's needs images; what is tested on stays what it was."""
        tensors, images = scanned(recipe=recipe(**PLAIN)), scanned(recipe=recipe(**PLAIN, policy="rand-m1"))
        for (one, labels), (other, same_labels) in zip(tensors.test_batches(), images.test_batches(), strict=True):
            assert torch.equal(labels, same_labels)
            assert torch.allclose(one, other, atol=0.5 / 255 / tensors.normalisation.std[0] + 1e-5)

    def test_taken_up_at_any_step(self):
        data = scanned(recipe=recipe(**{**PLAIN, "shift": 0.25, "flip": 0.5}))
        whole = listed(data, 3)
        assert len(whole) == data.steps_per_epoch == 22
        for start in (1, 7, 21, 22):
            assert same(listed(data, 3, start), whole[start:])
        assert not same(whole, listed(data, 4))

    def test_ranks_share_what_one_process_takes(self):
        augment = recipe(**{**PLAIN, "shift": 0.25, "flip": 0.5})
        whole = listed(scanned(recipe=augment))
        parts = [listed(scanned(recipe=augment, rank=rank, world=2)) for rank in range(2)]
        for (images, labels), *shares in zip(whole, *parts, strict=True):
            for rank, (mine, mine_too) in enumerate(shares):
                assert torch.equal(images[rank::2], mine)
                assert torch.equal(labels[rank::2], mine_too)

    def test_shifts_reach_as_far_as_the_recipe_says(self):
        data = scanned(recipe=recipe(**{**PLAIN, "shift": 0.25}), batch=1437)
        plain = scanned(recipe=recipe(**PLAIN), batch=1437)
        ((images, _),), ((before, _),) = listed(data), listed(plain)
        moves = torch.zeros(len(images), dtype=torch.bool)
        for rows, columns in itertools.product(range(-2, 3), repeat=2):
            N = torch.ones(len(images), dtype=torch.int64)
            hit = (moved(before, N * rows, N * columns) == images).all(-1).all(-1).all(-1)
            assert 0 < hit.sum() < 1437 / 8  # about a 25th each
            moves |= hit
        assert moves.all()

    def test_overwriting_a_batch_leaves_the_images(self):
        data = scanned()
        first = [(images.clone(), labels) for images, labels in data.train_epoch(0)]
        for images, _ in itertools.chain(data.train_epoch(0), data.test_batches()):
            images.zero_()
        assert same(first, listed(data))

    def test_a_batch_of_more_images_than_there_are(self):
        data = scanned(batch=10_000)
        assert (data.batch, data.steps_per_epoch) == (1437, 1)

    def test_classes_must_fit(self):
        with pytest.raises(UsageError, match=r"7 classes, but digits has 10 \(try --set classes=10\)"):
            scanned().check_classes(7)


def test_moved_against_a_plain_loop():
    torch.manual_seed(0)
    images = torch.rand(3, 2, 4, 5)
    rows, columns = torch.tensor([0, 2, -1]), torch.tensor([1, -3, 0])
    result = moved(images, rows, columns)
    for n, c, y, x in itertools.product(range(3), range(2), range(4), range(5)):
        from_y, from_x = min(max(y + int(rows[n]), 0), 3), min(max(x + int(columns[n]), 0), 4)
        assert result[n, c, y, x] == images[n, c, from_y, from_x]


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "policy", ["rand-m10-n4-inc1", "rand-m0-n4", "rand-m9-mstd0.5", "original", "v0", "3a", "augmix"]
)
def test_no_policy_fails_at_its_weakest_or_strongest(policy, channels):
    from archspec.training.data.views import MODES, normalisation, train_view

    augment = Augment(policy=policy, color_jitter=0.4)
    view = train_view(augment, channels, (8, 8), normalisation(augment, channels))
    image = picture((120, 90, 200), 0).convert(MODES[channels])
    for seed in range(60):
        with seeded(seed):
            assert view(image).isfinite().all()


def test_timms_augmentations_are_the_recipes():
    """Each option of the recipe reaches the transform that is timm's for it."""
    from archspec.training.data.views import normalisation, train_view

    augment = Augment(crop_scale=(0.3, 0.9), policy="rand-m7", random_erasing=0.4, shift=0.1, color_jitter=0.2)
    view = train_view(augment, 3, (16, 16), normalisation(augment, 3))
    names = [type(step).__name__ for step in view.transforms]
    assert names == [
        *("RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "RandAugment"),
        *("MaybeToTensor", "Normalize", "Shift", "RandomErasing"),
    ]
    assert view.transforms[0].scale == (0.3, 0.9)
    whole = Augment(crop_scale=None, color_jitter=0.2, flip=0.0)
    names = [type(step).__name__ for step in train_view(whole, 3, (16, 12), normalisation(whole, 3)).transforms]
    assert names == ["ResizeKeepRatio", "CenterCrop", "ColorJitter", "MaybeToTensor", "Normalize"]
