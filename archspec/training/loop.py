"""The training loop: AdamW, a cosine schedule with warm-up, a checkpoint an epoch.

Shapes: B images of a batch, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from archspec.errors import TrainingError, UsageError
from archspec.training import checkpoint
from archspec.training.checkpoint import Epoch
from archspec.training.data import Split, shift
from archspec.training.progress import Report
from archspec.training.settings import TrainSettings

MAX_GRADIENT_NORM = 5.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished run came to."""

    history: tuple[Epoch, ...]  # one an epoch, the first epoch first
    weights: Path  # the weights after the last epoch, as safetensors

    @property
    def accuracy(self) -> float:
        """On the held-out images after the last epoch, 0..1."""
        return self.history[-1].accuracy


def train(
    network: nn.Module,
    data: Split,
    settings: TrainSettings,
    folder: Path,
    *,
    fingerprint: str = "",
    console: Console | None = None,
) -> Result:
    """Train the network [B, C, H, W] -> [B, K] in place, or go on with the run that `folder` holds.

    `fingerprint` says which network it is; progress goes to `console` (stderr by default). On the CPU the weights at
    the end depend on nothing but the network's first weights, the data and the settings, however often the run was
    stopped. Sets the seed of torch. Raises UsageError for a device, a folder or a number of classes that cannot be;
    TrainingError if the loss is no longer finite, a checkpoint cannot be written, or at an interrupt from the keyboard.
    """
    device = find_device(settings.device)
    network.to(device)
    data.check_classes(_predict(network, data.test_images[:1]).shape[1])
    checkpoint.claim(folder, settings, data, fingerprint)
    run = _Run(network, data, settings, device)
    history = checkpoint.restore(folder, network, run.optimizer)
    report = Report(console, epochs=settings.epochs, steps=run.steps, batch=run.batch, done=len(history))
    try:
        with report:
            for number in range(len(history) + 1, settings.epochs + 1):
                loss = run.epoch(number, report)
                history.append(Epoch(epoch=number, loss=loss, accuracy=evaluate(network, data)))
                checkpoint.save(folder, network, run.optimizer, history)
                report.end(history[-1])
    except KeyboardInterrupt:
        raise TrainingError(_interrupted(folder)) from None
    return Result(history=tuple(history), weights=checkpoint.path(folder, len(history), "safetensors"))


def evaluate(network: nn.Module, data: Split, *, batch_size: int = 256) -> float:
    """The share, 0..1, of the held-out images that the network names right; it stays on its device and in its mode."""
    hits = 0
    for images, labels in zip(data.test_images.split(batch_size), data.test_labels.split(batch_size), strict=True):
        hits += int((_predict(network, images).argmax(1).cpu() == labels).sum())
    return hits / len(data.test_labels)


def learning_rate(step: int, *, steps: int, warmup: int, peak: float) -> float:
    """The rate of a step (from 0) of `steps`: a line up to `peak` at the last of `warmup` steps, then a half cosine."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak / 2 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def find_device(name: str) -> torch.device:
    """The device of that name, as in TrainSettings. Raises UsageError if there is none such here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise UsageError(f"device: {name!r} cannot be used here: {reason} (try auto or cpu)") from error


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The trainable parameters for AdamW. None of one dimension, or named by `network.no_weight_decay()`, decays."""
    exempting: Callable[[], set[str]] = getattr(network, "no_weight_decay", set)
    exempt = exempting()
    trainable = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
    decayed = [weight for name, weight in trainable if weight.ndim > 1 and name not in exempt]
    kept = [weight for name, weight in trainable if weight.ndim <= 1 or name in exempt]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


class _Run:
    """The parts of one run that every epoch uses."""

    def __init__(self, network: nn.Module, data: Split, settings: TrainSettings, device: torch.device) -> None:
        self.network, self.data, self.settings, self.device = network, data, settings, device
        self.optimizer = torch.optim.AdamW(parameter_groups(network, settings.weight_decay), lr=settings.lr)
        self.batch = min(settings.batch_size, len(data.train_labels))
        self.steps = len(data.train_labels) // self.batch  # an epoch; batch norm may fail on a rest of one image

    def epoch(self, number: int, report: Report) -> float:
        """Train for one epoch, counted from 1, and return its mean loss."""
        self.network.train()
        report.begin()
        total = 0.0
        for index, (images, labels) in enumerate(self._batches(number)):
            loss = self._step((number - 1) * self.steps + index, images, labels)
            if not math.isfinite(loss):
                raise TrainingError(self._diverged(number, index + 1))
            report.step(number, loss)
            total += loss
        return total / self.steps

    def _batches(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        # The epoch's own seed: whoever starts at this epoch draws what a run from the first one would.
        seed = random.Random(f"{self.settings.seed}/{number}").getrandbits(32)
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.data.train_labels), generator=generator)
        for chosen in order[: self.steps * self.batch].split(self.batch):
            images = self.data.train_images[chosen]  # [B, C, H, W]
            images = shift(images, generator) if self.settings.augment else images
            yield images.to(self.device), self.data.train_labels[chosen].to(self.device)

    def _step(self, step: int, images: Tensor, labels: Tensor) -> float:
        """Step `step`, from 0, of the run. Returns its loss; nan, and no step, if that or a gradient is not finite."""
        self._schedule(step)
        loss = F.cross_entropy(self.network(images), labels, label_smoothing=self.settings.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)
        if not (loss + norm).isfinite():
            return math.nan
        self.optimizer.step()
        return loss.item()

    def _schedule(self, step: int) -> None:
        steps, warmup = self.settings.epochs * self.steps, self.settings.warmup_epochs * self.steps
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, steps=steps, warmup=warmup, peak=self.settings.lr)

    def _diverged(self, number: int, step: int) -> str:
        lr, warmup = self.settings.lr, self.settings.warmup_epochs
        remedy = f"try a lower lr, now {lr:g}, or more warmup_epochs, now {warmup}, in a new folder"
        return f"epoch {number}, step {step} of {self.steps}: the loss or a gradient is not finite ({remedy})"


def _predict(network: nn.Module, images: Tensor) -> Tensor:
    """The logits [B, K] of images [B, C, H, W] on any device, in evaluation mode; the network's own mode is kept."""
    device = next(network.parameters()).device
    mode = network.training
    network.eval()
    with torch.no_grad():
        logits: Tensor = network(images.to(device))
    network.train(mode)
    return logits


def _interrupted(folder: Path) -> str:
    saved = checkpoint.newest(folder)
    if not saved:
        return "interrupted in the first epoch; the same command starts again"
    return f"interrupted after epoch {saved}; the same command goes on from there"
