"""From a recipe to timm's parts: optimizer, learning rate, loss, and the mixing of images."""

from __future__ import annotations

from typing import Any

import torch
from timm.data import Mixup
from timm.loss import create_classification_loss
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn

from archspec.training.recipe import Augment, Loss, Recipe

LOSSES = {"cross_entropy": "ce", "bce": "bce"}
CURVES: dict[str, dict[str, Any]] = {
    "cosine": {"sched": "cosine"},
    "linear": {"sched": "poly", "decay_rate": 1.0},
    "constant": {"sched": "constant"},
}


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """No parameter of one dimension, or named by `network.no_weight_decay()`, decays; layers by `group_matcher()`."""
    said = recipe.optimizer
    options = {"betas": said.betas, "eps": said.eps, "momentum": said.momentum, "layer_decay": said.layer_decay}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        network,
        opt=said.type,
        lr=said.lr * recipe.lr_scale(),
        weight_decay=said.weight_decay,
        **{name: value for name, value in options.items() if value is not None},
    )
    return optimizer


class Rates:
    """The learning rate of every step, a function of the step alone."""

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> None:
        said, scale = recipe.schedule, recipe.lr_scale()
        self._steps = steps_per_epoch
        self._optimizer, self._by_step = optimizer, said.per == "step"
        self._schedule, _ = create_scheduler_v2(
            optimizer,
            **CURVES[said.type],
            num_epochs=recipe.epochs,
            warmup_epochs=min(said.warmup_epochs, recipe.epochs),
            warmup_lr=said.warmup_lr * scale,
            min_lr=said.min_lr * scale,
            step_on_epochs=not self._by_step,
            updates_per_epoch=steps_per_epoch,
        )

    def set(self, epoch: int, step: int) -> None:
        """For step `step` (from 0) of an epoch (from 1)."""
        if self._by_step:
            self._schedule.step_update((epoch - 1) * self._steps + step)
        else:
            self._schedule.step(epoch - 1)

    @property
    def now(self) -> float:
        """The rate; with layer decay, that of the last layer."""
        return max(float(group["lr"]) for group in self._optimizer.param_groups)


def make_mixing(augment: Augment, loss: Loss, classes: int) -> Mixup | None:
    """Mixup and cutmix of a batch on its device; None where the recipe has neither."""
    if not augment.mixes:
        return None
    return Mixup(
        mixup_alpha=augment.mixup,
        cutmix_alpha=augment.cutmix,
        prob=augment.mix_prob,
        switch_prob=augment.switch_prob,
        mode=augment.mix_mode,
        label_smoothing=loss.label_smoothing,
        num_classes=classes,
    )


def make_loss(loss: Loss, *, soft: bool) -> nn.Module:
    """The mean over images; `soft`: labels come as probabilities, smoothed when they were mixed."""
    made: nn.Module = create_classification_loss(LOSSES[loss.type], smoothing=loss.label_smoothing, soft_targets=soft)
    return made
