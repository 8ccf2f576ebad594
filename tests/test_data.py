"""Data: an order that depends on seed, epoch and position alone, whole shares, digits, and what is done to images."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from archspec.errors import UsageError
from archspec.training.data.in_memory import moved
from archspec.training.data.stream import Shares, seed_of, seeded
from archspec.training.recipe import Augment

from .image_data import PLAIN, listed, picture, recipe, same, scanned


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
