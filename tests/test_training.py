"""Training: a step against a plain loop, what a recipe's options do, and what a run gives back and leaves behind."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import random
import signal
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from archspec import api
from archspec.loading import load_spec
from archspec.network import Network
from archspec.resolved import fingerprint
from archspec.training import load_recipe, open_data, run
from archspec.training.distributed import Group
from archspec.training.feed import Feed
from archspec.training.fit import prepared
from archspec.training.precision import Precision
from archspec.training.trainer import Trainer

from .tiny_runs import EVERYTHING, few, outcome, quiet, same, tiny_plan, tiny_recipe, tiny_run

CPU = Group(device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images_and_labels(count: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.arange(count) % 10


def trainer(*sets: str, steps: int = 4, network: Network | None = None) -> Trainer:
    return Trainer(network or api.build(tiny_plan(), seed=1), tiny_recipe(sets), CPU, steps=steps, seed=0)


def weights_after(*sets: str, steps: int = 3) -> dict[str, Tensor]:
    made = trainer(*sets)
    for step in range(steps):
        made.step(1, step, *images_and_labels())
    return {name: weight.detach().clone() for name, weight in made.network.named_parameters()}


def closest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return max((first[name] - second[name]).abs().max().item() for name in second)


class TestStep:
    def test_against_a_plain_loop(self):
        made = trainer("clip=0.5", "optimizer.weight_decay=0.3", "loss.label_smoothing=0.2", "ema={decay: 0.75}")
        network = api.build(tiny_plan(), seed=1).train()
        exempt = network.no_weight_decay()
        decayed = [w for name, w in network.named_parameters() if w.ndim > 1 and name not in exempt]
        kept = [w for name, w in network.named_parameters() if w.ndim <= 1 or name in exempt]
        optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.3}, {"params": kept, "weight_decay": 0.0}])
        average = {name: value.clone() for name, value in network.state_dict().items()}
        for step in range(8):  # two epochs of four; the warm-up is the first
            images, labels = images_and_labels()
            peak, low, lowest = 2e-3, 1e-5, 1e-5
            warm = low + step * (peak - low) / 4
            lr = warm if step < 4 else lowest + (peak - lowest) * (1 + math.cos(math.pi * step / 8)) / 2
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels, label_smoothing=0.2)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()
            for name, value in network.state_dict().items():
                average[name] = 0.75 * average[name] + 0.25 * value
            made.step(step // 4 + 1, step % 4, images.clone(), labels)
            assert made.rates.now == pytest.approx(lr)
            assert made.losses() == [pytest.approx(loss.item(), rel=1e-5)]
        assert closest(made.network.state_dict(), network.state_dict()) < 1e-5
        assert closest(made.ema.module.state_dict(), average) < 1e-5

    @pytest.mark.parametrize("parts", [2, 3, 16, 99])
    def test_accumulating_changes_nothing(self, parts):
        assert closest(weights_after(f"accumulate={parts}"), weights_after()) < 1e-5

    def test_accumulating_mixed_images_changes_nothing(self):
        mixed = ("augment.mixup=0.8", "augment.cutmix=1")
        assert closest(weights_after("accumulate=3", *mixed), weights_after(*mixed)) < 1e-5
        assert closest(weights_after(*mixed), weights_after()) > 1e-5

    def test_checkpointing_changes_nothing_even_with_dropped_paths(self):
        plan = tiny_plan("drop_path=0.5")
        steps = []
        for sets in ((), ("checkpointing=true",)):
            made = trainer(*sets, network=api.build(plan, seed=1))
            for step in range(3):
                made.step(1, step, *images_and_labels())
            steps.append(dict(made.network.named_parameters()))
        assert closest(*steps) < 1e-6

    def test_channels_last_changes_nothing(self):
        made = trainer("channels_last=true")
        made.step(1, 0, *images_and_labels())
        assert closest(dict(made.network.named_parameters()), weights_after(steps=1)) < 1e-5

    @pytest.mark.slow
    def test_compiling_changes_nothing(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager", fullgraph=True))
        assert closest(weights_after("compile=true", steps=2), weights_after(steps=2)) < 1e-5

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_low_precision_follows_full_precision(self, precision):
        low, full = weights_after(f"precision={precision}"), weights_after()
        assert 0 < closest(low, full) < 2e-2
        assert all(weight.dtype == torch.float32 for weight in low.values())

    def test_fp16_skips_a_step_that_overflows_and_lowers_the_scale(self):
        made = trainer("precision=fp16", "clip=1")
        before = {name: weight.detach().clone() for name, weight in made.network.named_parameters()}
        made.network.head.classifier.weight.register_hook(lambda gradient: gradient * math.inf)
        scale = made.scaler.get_scale()
        made.step(1, 0, *images_and_labels())
        assert made.scaler.get_scale() == scale / 2
        assert closest(dict(made.network.named_parameters()), before) == 0
        assert math.isfinite(made.losses()[0])

    def test_mixing_ends_with_the_epoch_that_says_so(self):
        made = trainer("augment.mixup=0.8", "augment.mix_off_epoch=2", "optimizer.lr=0.02", "schedule=constant")
        for step in range(80):
            made.step(2, step % 4, *images_and_labels())
        assert made.losses()[-1] < 0.5
        for step in range(4):
            made.step(1, step, *images_and_labels())
        assert max(made.losses()) > 1

    def test_layers_have_their_own_rates(self):
        made = trainer("optimizer.layer_decay=0.5")
        made.step(1, 1, *images_and_labels())
        rates = {group["lr"] for group in made.optimizer.param_groups}
        assert made.rates.now == max(rates)
        assert {round(math.log2(max(rates) / rate), 6) for rate in rates} == {0, 1, 2, 3}  # head, two blocks, stem

    @pytest.mark.parametrize(
        ("sets", "expected"),
        [
            (("schedule={type: linear, warmup_epochs: 0, min_lr: 0}",), [1, 0.75, 0.5, 0.25]),
            (("schedule={type: constant, warmup_epochs: 2, warmup_lr: 0}",), [0, 0.5, 1, 1]),
            (("schedule={type: cosine, warmup_epochs: 0, min_lr: 0, per: epoch}",), [1, 1, 0.5, 0.5]),
        ],
    )
    def test_curves(self, sets, expected):
        made = trainer("optimizer.lr=1", "epochs=2", *sets, steps=2)
        if "constant" in sets[0]:
            made = trainer("optimizer.lr=1", "epochs=4", *sets, steps=1)
        rates = []
        for step in range(4):
            epoch, within = (step + 1, 0) if "constant" in sets[0] else (step // 2 + 1, step % 2)
            made.rates.set(epoch, within)
            rates.append(made.rates.now)
        assert rates == pytest.approx(expected)

    def test_all_three_rates_scale_with_the_batch(self):
        single, fourfold = trainer("optimizer.lr_batch=16"), trainer("optimizer.lr_batch=4")
        for step in (0, 2, 5):
            for made in (single, fourfold):
                made.rates.set(step // 4 + 1, step % 4)
            assert fourfold.rates.now == pytest.approx(4 * single.rates.now)

    @pytest.mark.parametrize("type", ["adam", "nadamw", "lamb", "lion", "sgd", "rmsprop"])
    def test_every_optimizer_lowers_the_loss(self, type):
        made = trainer(f"optimizer={{type: {type}, lr: {0.1 if type == 'sgd' else 3e-3}}}", "schedule=constant",
                       "schedule.warmup_epochs=0")  # fmt: skip
        for step in range(20):
            made.step(1, step % 4, *images_and_labels())
        losses = made.losses()
        assert losses[-1] < losses[0] - 0.02

    def test_binary_cross_entropy(self):
        made = trainer("loss={type: bce, label_smoothing: 0}")
        images, labels = images_and_labels()
        with torch.no_grad():
            expected = F.binary_cross_entropy_with_logits(made.network(images), F.one_hot(labels, 10).float())
        made.step(1, 0, images, labels)
        assert made.losses() == [pytest.approx(expected.item(), rel=1e-5)]

    def test_a_gradient_that_is_not_finite(self):
        made = trainer("clip=1")
        made.network.head.classifier.weight.register_hook(lambda gradient: gradient * math.inf)
        made.step(1, 0, *images_and_labels())
        assert math.isnan(made.losses()[0])


class TestRun:
    def test_learns(self, tmp_path: Path):
        recipe = tiny_recipe(("batch=32", "epochs=6", "optimizer.lr=1e-2"))
        plan = tiny_plan("stages[0].width=16")
        result = run(plan, recipe, "digits", tmp_path, device="cpu", console=quiet())
        assert result.last.accuracy > 0.85
        assert result.last.top5 > result.last.accuracy
        data = open_data("digits", channels=1, size=(8, 8), recipe=recipe, batch=64)
        pairs = [(result.network(images).argmax(1) == labels) for images, labels in data.test_batches()]
        assert torch.cat(pairs).float().mean().item() == pytest.approx(result.last.accuracy)

    def test_what_is_written(self, tmp_path: Path):
        result = tiny_run(tmp_path)
        assert fingerprint(load_spec(tmp_path / "spec.yaml")) == fingerprint(result.network.plan.spec)
        assert load_recipe(tmp_path / "recipe.yaml") == tiny_recipe()
        assert json.loads((tmp_path / "run.json").read_text())["seed"] == 0
        assert json.loads((tmp_path / "environment.json").read_text())[0]["packages"]["torch"] == version("torch")
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
        assert [line["epoch"] for line in lines] == [1, 2, 3]
        assert [float(row["loss"]) for row in rows] == [line["loss"] for line in lines]
        assert [line["accuracy"] for line in lines] == [metrics.accuracy for metrics in result.history]
        assert [line["step"] for line in lines] == [4, 8, 12]
        assert len((tmp_path / "timing.csv").read_text().splitlines()) == 4

    def test_losses_are_means_over_all_images(self, tmp_path: Path):
        recipe = tiny_recipe(("optimizer.lr=1e-12", "schedule={type: constant, warmup_epochs: 0}"))
        (first, _) = tiny_run(tmp_path, recipe).history
        for batches, loss in (few(recipe).train_epoch(1), first.loss), (few(recipe).test_batches(), first.test_loss):
            images, labels = zip(*batches, strict=True)
            with torch.no_grad():
                expected = F.cross_entropy(api.build(tiny_plan(), seed=0)(torch.cat(images)), torch.cat(labels))
            assert loss == pytest.approx(expected.item(), rel=1e-6)

    def test_weights_are_those_of_the_last_and_of_the_best_epoch(self, tmp_path: Path):
        from archspec.checkpoints import read_checkpoint

        result = tiny_run(tmp_path)
        last = read_checkpoint(result.weights)
        assert same({name: result.network.state_dict()[name] for name in last}, last)
        network = api.build(result.network.plan)
        network.load_state_dict(read_checkpoint(result.best_weights))
        data = few(tiny_recipe())
        pairs = [(network(images).argmax(1) == labels) for images, labels in data.test_batches()]
        assert torch.cat(pairs).float().mean().item() == pytest.approx(result.best.best)
        assert result.best.best == max(metrics.best for metrics in result.history)

    def test_events(self, tmp_path: Path):
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        result = tiny_run(tmp_path)
        events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        assert [event.step for event in events.Scalars("loss")] == [4, 8, 12]
        assert [event.value for event in events.Scalars("accuracy")] == pytest.approx(
            [metrics.accuracy for metrics in result.history]
        )

    def test_the_seed_decides(self, tmp_path: Path):
        recipe = tiny_recipe()
        tiny_run(tmp_path / "first")
        torch.rand(5), random.random(), np.random.rand()
        tiny_run(tmp_path / "again")
        tiny_run(tmp_path / "other", data=few(recipe, seed=1), seed=1)
        assert same(outcome(tmp_path / "first"), outcome(tmp_path / "again"))
        assert not same(outcome(tmp_path / "first"), outcome(tmp_path / "other"))

    def test_nothing_is_left_behind(self, tmp_path: Path):
        before = (torch.get_rng_state(), random.getstate(), str(np.random.get_state()), torch.get_num_threads(),
                  torch.are_deterministic_algorithms_enabled(), signal.getsignal(signal.SIGTERM),
                  signal.getsignal(signal.SIGINT))  # fmt: skip
        tiny_run(tmp_path)
        after = (torch.get_rng_state(), random.getstate(), str(np.random.get_state()), torch.get_num_threads(),
                 torch.are_deterministic_algorithms_enabled(), signal.getsignal(signal.SIGTERM),
                 signal.getsignal(signal.SIGINT))  # fmt: skip
        assert same(list(before), list(after))

    def test_a_search_stops_a_run_and_takes_it_up(self, tmp_path: Path):
        seen = []
        stopped = tiny_run(tmp_path / "run", on_epoch=lambda metrics: bool(seen.append(metrics)) or metrics.epoch == 2)
        assert stopped.stopped
        assert [metrics.epoch for metrics in seen] == [1, 2]
        assert list(stopped.history) == seen
        assert not tiny_run(tmp_path / "run").stopped
        tiny_run(tmp_path / "whole")
        assert same(outcome(tmp_path / "run"), outcome(tmp_path / "whole"))

    def test_the_recipe_sets_stochastic_depth_and_size(self, tmp_path: Path):
        plan = prepared(api.make_plan("vit_micro"), load_recipe("digits", ["drop_path={vit_micro: 0.3}", "size=16"]))
        assert [step.drop_path for step in plan.stages[0].blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
        assert plan.source.grid == (16, 16)
        assert plan.name == "vit_micro"

    def test_a_line_an_epoch_without_a_terminal_and_a_bar_on_one(self, tmp_path: Path):
        plain, lively = io.StringIO(), io.StringIO()
        tiny_run(tmp_path / "plain", console=Console(file=plain))
        tiny_run(tmp_path / "lively", console=Console(file=lively, force_terminal=True, width=120))
        assert [line.split()[1] for line in plain.getvalue().splitlines()] == ["1/3", "2/3", "3/3"]
        assert "images/s" in plain.getvalue()
        assert "━" in lively.getvalue()


@pytest.mark.gpu
class TestGpu:
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_learns_with_everything_on(self, tmp_path: Path, precision: str):
        recipe = tiny_recipe((*EVERYTHING, "epochs=4", f"precision={precision}", "channels_last=true"))
        stopped = tiny_run(tmp_path, recipe, data="digits", device="cuda", on_epoch=lambda metrics: metrics.epoch == 2)
        result = tiny_run(tmp_path, recipe, data="digits", device="cuda")
        assert result.history[:2] == stopped.history
        assert result.last.loss < result.history[0].loss
        assert all(weight.is_cuda for weight in result.network.parameters())

    def test_a_step_is_that_of_the_cpu(self):
        made = trainer()
        network = api.build(tiny_plan(), seed=1)
        other = Trainer(network, made.recipe, Group(device=torch.device("cuda:0")), steps=4, seed=0)
        for step in range(3):
            images, labels = images_and_labels()
            made.step(1, step, images, labels)
            other.step(1, step, images.cuda(), labels.cuda())
        assert other.losses() == pytest.approx(made.losses(), rel=1e-3)

    def test_batches_come_whole_and_in_order(self):
        count = 50
        precision = Precision(device=torch.device("cuda:0"), channels_last=True)
        batches = ((torch.full((64, 3, 64, 64), float(n)), torch.full((64,), n)) for n in range(count))
        for n, (images, labels) in enumerate(Feed(batches, precision)):
            torch.cuda._sleep(10**6)
            assert labels.unique().tolist() == [n]
            assert images.unique().tolist() == [n]
        assert n == count - 1
