"""Recipes are read as specs are: places in errors, ranges, `extends`, `set`; what is written reads back to the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from archspec.errors import SpecError, UsageError
from archspec.loading import RECIPES
from archspec.training.recipe import Augment, Optimizer, Recipe, load_recipe

MINIMAL = "archspec: 1\nepochs: 3\nbatch: 8\noptimizer: {lr: 0.1}\n"


def written(folder: Path, text: str = MINIMAL, name: str = "mine.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def problems(file: Path, *sets: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_recipe(file, sets)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("name", RECIPES.shipped())
def test_a_shipped_recipe_reads_back_to_the_same(name, tmp_path):
    recipe = load_recipe(name)
    again = load_recipe(written(tmp_path, recipe.to_yaml()))
    assert again == recipe
    assert hash(again) == hash(recipe)
    assert again.fingerprint() == recipe.fingerprint()


def test_every_kind_of_value_reads_back_to_the_same(tmp_path):
    sets = ["drop_path={sgformer_s: 0.1, fcvit_b48: 0.2}", "ema={decay: 0.9}", "size=[32, 64]", "clip=1",
            "optimizer={type: sgd, lr: 1, momentum: 0.5, lr_batch: 512}", "augment.mean=[0.5]",
            "augment.policy=rand-m9-mstd0.5-inc1", "augment.crop_scale=[0.5, 1]"]  # fmt: skip
    recipe = load_recipe(written(tmp_path), sets)
    assert load_recipe(written(tmp_path, recipe.to_yaml(), "again.yaml"), ["name=mine"]) == recipe


def test_the_name_is_the_files_and_no_part_of_the_fingerprint(tmp_path):
    one, two = load_recipe(written(tmp_path)), load_recipe(written(tmp_path, name="other.yaml"))
    assert (one.name, two.name) == ("mine", "other")
    assert one != two
    assert one.fingerprint() == two.fingerprint()
    assert load_recipe(written(tmp_path), ["batch=9"]).fingerprint() != one.fingerprint()


def test_extends_amends_and_what_describes_stays_behind(tmp_path):
    written(
        tmp_path, MINIMAL + "description: of the base\nsource: a paper\naugment: {flip: 0, mixup: 0.8}\n", "base.yaml"
    )
    text = 'extends: base.yaml\nset: {optimizer.weight_decay: 0.3, "augment.cutmix": 1}\naugment: {flip: 0.25}\n'
    recipe = load_recipe(written(tmp_path, text))
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay) == (0.1, 0.3)
    assert (recipe.augment.flip, recipe.augment.mixup, recipe.augment.cutmix) == (0.25, 0.8, 1)
    assert (recipe.description, recipe.source) == ("", "")
    assert load_recipe(written(tmp_path, "extends: digits\nepochs: 1\n")).epochs == 1


def test_another_type_starts_from_its_own_defaults(tmp_path):
    recipe = load_recipe(written(tmp_path, MINIMAL + "schedule: {warmup_epochs: 1}\n"), ["schedule=linear"])
    assert recipe.schedule.type == "linear"
    assert recipe.schedule.warmup_epochs == 5


@pytest.mark.parametrize(
    ("line", "place", "words"),
    [
        ("epoch: 3", "5:1: epoch", "did you mean 'epochs'"),
        ("clip: -1", "5:7: clip", "-1 is not more than 0"),
        ("augment: {mixpu: 1}", "5:11: augment.mixpu", "did you mean 'mixup'"),
        ("augment: {flip: 1.5}", "5:17: augment.flip", "at most 1"),
        ("augment: none", "5:10: augment", "keys of augment are expected"),
        ("lr: 1", "5:1: lr", "belongs to the optimizer"),
        ("schedule: cosin", "5:11: schedule.type", "did you mean 'cosine'"),
        ("ema: {decay: 1}", "5:14: ema.decay", "less than 1"),
        ("drop_path: {sgformer_s: 2}", "5:12: drop_path", "sgformer_s 2"),
        ("drop_path: 1", "5:12: drop_path", "no rate"),
        ("precision: fp8", "5:12: precision", "'fp8' is not 'fp32', 'bf16' or 'fp16'"),
        ("size: big", "5:7: size", "no size in pixels"),
        ("stages: []", "5:1: stages", "no key of a recipe"),
    ],
)
def test_errors_have_a_place_and_a_remedy(tmp_path, line, place, words):
    file = written(tmp_path, MINIMAL + line + "\n")
    (found,) = problems(file)
    assert found.startswith(f"{file}:{place}: ")
    assert words in found


def test_all_errors_at_once_in_order(tmp_path):
    file = written(tmp_path, "archspec: 1\nbatch: 0\noptimizer: {type: adamw, momentum: 0.9, lr: 0}\nema: {dekay: 1}\n")
    found = problems(file, "loss.label_smoothing=1")
    assert len(found) == 6
    assert found[0].startswith("--set loss.label_smoothing=1:1:")
    for text, words in zip(found[1:], ["epochs: missing", ":2:8: batch", "optimizer.momentum: 0.9 is an option of sgd",
                                       "optimizer.lr: 0", "ema.dekay"], strict=True):  # fmt: skip
        assert words in text


def test_an_option_of_another_optimizer_is_refused(tmp_path):
    assert "not of sgd" in problems(written(tmp_path), "optimizer={type: sgd, lr: 1, betas: [0.9, 0.99]}")[0]
    assert load_recipe(written(tmp_path), ["optimizer={type: lamb, lr: 1, betas: [0.9, 0.99]}"]).optimizer.lr == 1


def test_unknown_names():
    with pytest.raises(UsageError, match=r"neither a file nor a shipped recipe \(did you mean 'digits'"):
        load_recipe("digit")
    with pytest.raises(UsageError, match="archspec list recipes"):
        load_recipe("vit_tiny")


def test_a_recipe_extends_recipes_and_not_networks(tmp_path):
    assert "there is no shipped recipe 'vit_tiny'" in problems(written(tmp_path, "extends: vit_tiny\n"))[0]


def test_the_learning_rate_holds_at_a_batch(tmp_path):
    file = written(tmp_path)
    assert load_recipe(file).lr_scale() == 1
    assert load_recipe(file, ["optimizer.lr_batch=512", "batch=2048"]).lr_scale() == 4


def test_stochastic_depth_of_a_network(tmp_path):
    file = written(tmp_path)
    assert load_recipe(file).drop_path_of("a", 0.3) == 0.3
    assert load_recipe(file, ["drop_path=0"]).drop_path_of("a", 0.3) == 0
    by_name = load_recipe(file, ["drop_path={a: 0.1}"])
    assert (by_name.drop_path_of("a", 0.3), by_name.drop_path_of("b", 0.3)) == (0.1, 0.3)


def test_reading_recipes_loads_no_torch():
    code = (
        "import sys; from archspec.training import load_recipe; load_recipe('digits'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_keys_of_recipes_are_not_offered_to_specs(tmp_path):
    from archspec.loading import load_text

    with pytest.raises(SpecError) as caught:
        load_text("archspec: 1\nname: x\noptimizer: {}\nepochs: 3\nstem: patch\nhead: linear\nstages: []\n")
    assert "recipe" not in str(caught.value)


def test_the_example_of_the_page_reads(tmp_path):
    page = (RECIPES.find("digits").parent / "README.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    recipe = load_recipe(written(tmp_path, example))
    assert recipe.optimizer.lr == 1e-3
    assert recipe.drop_path_of("sgformer_b", 0) == 0.4


def test_every_key_is_shown_with_its_range():
    from typer.testing import CliRunner

    from archspec.cli.app import app

    shown = CliRunner().invoke(app, ["show", "recipe"]).stdout
    assert "epochs: integer 1..100000, required" in shown
    assert all(f"{key}: " in shown for key in [*Recipe.model_fields, *Augment.model_fields, *Optimizer.model_fields])
    assert CliRunner().invoke(app, ["show", "recipe", "digits", "--set", "batch=7"]).stdout.count("batch: 7") == 1
    assert "digits" in CliRunner().invoke(app, ["list", "recipes"]).stdout


def test_a_section_that_a_base_switched_off_is_switched_on_by_its_options(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("archspec: 1\nextends: digits\nema: none\n")
    assert load_recipe(base).ema is None
    assert load_recipe(base, ["ema.decay=0.9"]).ema.decay == 0.9
    (tmp_path / "mine.yaml").write_text("archspec: 1\nextends: base.yaml\nema: {decay: 0.8}\n")
    assert load_recipe(tmp_path / "mine.yaml").ema.decay == 0.8
