"""The shipped recipes against what the papers print; the sections stand in the files, too."""

from __future__ import annotations

import pytest

from archspec.loading import RECIPES, load_spec, shipped
from archspec.training.recipe import Recipe, load_recipe

# epochs, images a step, learning rate at that batch, weight decay
PRINTED = {
    "deit_300": (300, 1024, 1e-3, 0.05),  # CB, section 4.2; batch: DeiT, table 9
    "nommer": (300, 1024, 1e-3, 0.05),  # NomMer, section 4.1
    "sgformer": (300, 1024, 1e-3, 0.05),  # SG-Former, section 4.1
    "fcvit": (310, 8 * 128, 1e-3, 0.05),  # FCViT, section 4.1
    "mat": (300, 4096, 1e-3, 0.05),  # MAT, table 4.10
    "emsnet": (300, 2 * 256, 1e-3, 0.03),  # EMSNet, section 3.4.1
    "partialformer": (300, 1024, 1e-3, 0.005),  # PartialFormer, section 5.4.1; batch: DeiT, table 9
}
PUBLISHED = tuple(PRINTED)


def rate(recipe: Recipe) -> float:
    """The peak of the learning rate as it comes to be."""
    return recipe.optimizer.lr * recipe.lr_scale()


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_every_paper_prints(name):
    recipe = load_recipe(name)
    decay = recipe.optimizer.weight_decay
    assert (recipe.epochs, recipe.batch, pytest.approx(rate(recipe)), decay) == PRINTED[name]
    assert (recipe.optimizer.type, recipe.schedule.type) == ("adamw", "cosine")
    assert (recipe.optimizer.betas, recipe.loss.label_smoothing) == ((0.9, 0.999), 0.1)


@pytest.mark.parametrize(
    ("name", "epochs"), [("deit_300", 5), ("sgformer", 20), ("mat", 5), ("emsnet", 5)], ids=lambda value: str(value)
)
def test_warm_up(name, epochs):
    assert load_recipe(name).schedule.warmup_epochs == epochs


def test_the_rate_grows_with_the_batch_as_deit_has_it():
    for batch in (256, 512, 4096):  # DeiT, table 9: 0.0005 x batch / 512
        assert rate(load_recipe("deit_300", [f"batch={batch}"])) == pytest.approx(0.0005 * batch / 512)


@pytest.mark.parametrize(
    ("network", "recipe", "printed"),
    [
        ("nommer_t", "nommer", 0.1),  # NomMer, section 4.1
        ("nommer_s", "nommer", 0.3),
        ("nommer_b", "nommer", 0.5),
        ("sgformer_s", "sgformer", 0.1),  # as released
        ("sgformer_m", "sgformer", 0.2),
        ("sgformer_b", "sgformer", 0.4),
        ("fcvit_tiny", "fcvit", 0.1),  # as released
        ("fcvit_b12", "fcvit", 0.1),
        ("fcvit_b24", "fcvit", 0.1),
        ("fcvit_b48", "fcvit", 0.2),
        ("mat_1", "mat", 0.05),  # MAT, table 4.10
        ("mat_5", "mat", 0.05),
        ("vit_base_cb", "deit_300", 0.1),  # DeiT, table 9
    ],
)
def test_stochastic_depth_of_each_variant(network, recipe, printed):
    assert load_recipe(recipe).drop_path_of(network, load_spec(network).drop_path) == printed


def test_rates_are_given_to_shipped_networks_alone():
    named = {name for recipe in map(load_recipe, PUBLISHED) if isinstance(recipe.drop_path, tuple)
             for name, _ in recipe.drop_path}  # fmt: skip
    assert named <= shipped().keys()


def test_mat_as_its_table_has_it():
    recipe = load_recipe("mat")
    augment = recipe.augment
    assert (augment.mixup, augment.cutmix, augment.random_erasing, augment.color_jitter) == (0.1, 1.0, 0.25, 0.4)
    assert (recipe.schedule.min_lr * recipe.lr_scale(), recipe.schedule.warmup_lr * recipe.lr_scale()) == (1e-6, 1e-7)
    assert augment.policy == "rand-m9-mstd0.5-inc1"  # (9, 0.5)
    assert recipe.ema is None
    assert recipe.size == (224, 224)


def test_clipping_and_moving_averages():
    clipped = {name for name in PUBLISHED if load_recipe(name).clip is not None}
    assert clipped == {"nommer"}  # section 4.1: 5.0
    assert load_recipe("nommer").clip == 5
    averaged = {name for name in PUBLISHED if load_recipe(name).ema is not None}
    assert averaged == {"sgformer", "fcvit"}  # sections 4.1; MAT's table 4.10: not used


def test_deits_augmentation_goes_to_those_who_inherit_it():
    deit = load_recipe("deit_300").augment
    assert (deit.mixup, deit.cutmix, deit.random_erasing, deit.repeats) == (0.8, 1.0, 0.25, 3)  # DeiT, table 9
    assert load_recipe("nommer").augment == deit  # "We also inherit the data augmentation and regularization"
    for name in ("sgformer", "fcvit", "emsnet", "partialformer"):  # they do not name repeated augmentation
        assert load_recipe(name).augment == deit.model_copy(update={"repeats": 1})


def test_emsnet_trains_in_mixed_precision():
    assert load_recipe("emsnet").precision == "fp16"  # section 3.4.1; V100s have no other


@pytest.mark.parametrize("name", RECIPES.shipped())
def test_every_recipe_says_what_it_is_and_comments_on_it(name):
    assert load_recipe(name).description
    assert RECIPES.shipped()[name].read_text(encoding="utf-8").startswith("#")
    if name in PUBLISHED:
        assert load_recipe(name).source


def test_the_small_recipes_mix_nothing_and_end_soon():
    for name in ("quick", "digits"):
        recipe = load_recipe(name)
        assert recipe.epochs <= 30
        assert not recipe.augment.mixes
    assert load_recipe("digits").augment.flip == 0  # a mirrored 2 is no digit


def test_a_recipe_of_ones_own_extends_a_shipped_one(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("archspec: 1\nextends: sgformer\nepochs: 100\nset: {augment.mixup: 0.2, optimizer.lr: 5e-4}\n")
    recipe, base = load_recipe(mine), load_recipe("sgformer")
    assert (recipe.epochs, recipe.augment.mixup, rate(recipe)) == (100, 0.2, 5e-4)
    assert (recipe.schedule, recipe.ema, recipe.drop_path) == (base.schedule, base.ema, base.drop_path)
    assert not recipe.source
