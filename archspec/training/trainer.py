"""The parts of a run that change while it trains, and one step of the optimizer."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from archspec.network import Network
from archspec.training.distributed import Group
from archspec.training.optim import Rates, make_loss, make_mixing, make_optimizer
from archspec.training.precision import Precision
from archspec.training.randomness import seed_all
from archspec.training.recipe import Recipe


class Trainer:
    """Network, optimizer, learning rate, loss, moving average and scaler, as a recipe says.

    The network is moved to the group's device and trained in place. On one device, step s of epoch e depends on nothing
    but the state before it, the seed, e, s and the images.
    """

    def __init__(self, network: Network, recipe: Recipe, group: Group, *, steps: int, seed: int) -> None:
        self.network, self.recipe, self.group, self.seed = network, recipe, group, seed
        self.precision = Precision(device=group.device, name=recipe.precision, channels_last=recipe.channels_last)
        self.precision.place_network(network)
        network.set_grad_checkpointing(recipe.checkpointing)
        network.train()
        self.optimizer = make_optimizer(network, recipe)
        self.rates = Rates(self.optimizer, recipe, steps)
        self.scaler = self.precision.scaler()
        self.ema = ModelEmaV3(network, recipe.ema.decay, use_warmup=recipe.ema.warmup) if recipe.ema else None
        self.mixing = make_mixing(recipe.augment, recipe.loss, network.num_classes)
        self.loss = make_loss(recipe.loss, soft=self.mixing is not None)
        self._shared = group.wrap(network)
        self._forward: Any = torch.compile(self._shared) if recipe.compile else self._shared
        self._weights = [weight for weight in network.parameters() if weight.requires_grad]
        self._steps = steps
        self._losses: list[Tensor] = []

    def step(self, epoch: int, step: int, images: Tensor, labels: Tensor) -> None:
        """Step `step` (from 0) of an epoch (from 1), with this process's share of the batch on its device.

        The images are overwritten. The loss is told by `losses`.
        """
        self.rates.set(epoch, step)
        seed_all(self.group.device, self.seed, epoch, step, self.group.rank)
        images, targets = self._mixed(epoch, images, labels)
        count = min(self.recipe.accumulate, len(images))
        parts = list(zip(images.tensor_split(count), targets.tensor_split(count), strict=True))
        losses = [self._backward(*part, len(images), last=part is parts[-1]) for part in parts]
        self._losses.append(self._update(torch.stack(losses).sum()))
        if self.ema:
            self.ema.update(self.network, (epoch - 1) * self._steps + step + 1)

    def losses(self) -> list[float]:
        """The losses of the steps since one last asked, means over everyone's images; nan for what is not finite."""
        if not self._losses:
            return []
        means = self.group.sum(torch.stack(self._losses).double()) / self.group.world
        self._losses.clear()
        found: list[float] = means.tolist()
        return [loss if math.isfinite(loss) else math.nan for loss in found]

    def state(self) -> dict[str, Any]:
        """Everything that a later process needs to go on from here."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises RuntimeError, ValueError or KeyError for one of another network or recipe."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])

    def _mixed(self, epoch: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] and their labels [B], or, mixed, the classes' probabilities [B, K]."""
        if self.mixing is None:
            return images, labels
        off = self.recipe.augment.mix_off_epoch
        self.mixing.mixup_enabled = off is None or epoch < off
        mixed, targets = self.mixing(images, labels)
        return mixed, targets

    def _backward(self, images: Tensor, targets: Tensor, of: int, *, last: bool) -> Tensor:
        """Add the gradient of a part of the `of` images; returns its share of the loss."""
        with nullcontext() if last else self.group.unshared(self._shared):
            with self.precision.autocast():
                loss = self.loss(self._forward(images), targets) * (len(images) / of)
            self.scaler.scale(loss).backward()
        detached: Tensor = loss.detach().float()
        return detached

    def _update(self, loss: Tensor) -> Tensor:
        """Move the weights; returns the loss, nan where the gradient is not finite (fp16's scaler sees to its own)."""
        if self.recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self._weights, self.recipe.clip)
            if self.recipe.precision != "fp16":
                loss = torch.where(norm.isfinite(), loss, math.nan)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss
