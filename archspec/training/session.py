"""A run under way: epoch after epoch, step after step, and what happens between two steps."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import NoReturn

from torch import nn

from archspec.errors import Interrupted
from archspec.training.data import Data
from archspec.training.display import Display
from archspec.training.failures import describe, diverged
from archspec.training.feed import Feed
from archspec.training.keeper import Keeper
from archspec.training.metrics import EpochMetrics, EpochTiming
from archspec.training.progress import Progress
from archspec.training.scoring import Score, score
from archspec.training.signals import Interrupts
from archspec.training.trainer import Trainer

LOOK_EVERY = 20  # steps on a GPU, which need not wait for their losses to be looked at; on the CPU each is

OnEpoch = Callable[[EpochMetrics], bool | None]


@dataclass(frozen=True, kw_only=True)
class SaveEvery:
    """How much work a kill may cost at most; the state is saved at the end of every epoch in any case."""

    minutes: float = 10.0
    steps: int | None = None  # of an epoch, from its first; none: by the clock alone


class Session:
    """Trains from where `at` is to the end, or to an epoch after which `on_epoch` says true."""

    def __init__(
        self,
        trainer: Trainer,
        data: Data,
        keeper: Keeper,
        at: Progress,
        *,
        interrupts: Interrupts,
        display: Display,
        save_every: SaveEvery,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self.trainer, self.data, self.keeper, self.at = trainer, data, keeper, at
        self.group, self.recipe = trainer.group, trainer.recipe
        self.stopped = False
        self._interrupts, self._display, self._save_every, self._on_epoch = interrupts, display, save_every, on_epoch
        self._steps = data.steps_per_epoch
        self._look_every = LOOK_EVERY if self.group.device.type == "cuda" else 1
        self._mark = self._saved_at = time.monotonic()
        self._saved_step = at.step

    def go(self) -> None:
        """Raises Interrupted, TrainingError, and what the data or `on_epoch` raise."""
        while self.at.epoch <= self.recipe.epochs and not self.stopped:
            self._train()
            metrics, timing = self._test()
            self.at.end_epoch(metrics, timing)
            self._save()
            if self.group.leads:
                self.keeper.settle(self.at)
                self.keeper.log.show(metrics, timing)
            self._display.end(metrics, timing)
            self.stopped = self.group.any(bool(self._on_epoch and self.group.leads and self._on_epoch(metrics)))

    def _train(self) -> None:
        """The rest of the epoch that is under way."""
        at = self.at
        self._mark = time.monotonic()
        self._display.begin()
        with closing(Feed(self.data.train_epoch(at.epoch, at.step), self.trainer.precision)) as feed:
            for images, labels in feed:
                self.trainer.step(at.epoch, at.step, images, labels)
                at.step += 1
                if self._is_time_to_look():
                    at.waited, feed.waited = at.waited + feed.waited, 0.0
                    self._look()
        assert at.step == self._steps, "the data end where they said"

    def _is_time_to_look(self) -> bool:
        """At the same steps in all processes."""
        alone = self.group.world == 1
        return self.at.step % self._look_every == 0 or self.at.step == self._steps or (alone and self._asked())

    def _look(self) -> None:
        """Between two steps: are the losses finite, is a state due, has someone asked to stop?"""
        at, losses = self.at, self.trainer.losses()
        for number, loss in enumerate(losses, start=at.step - len(losses) + 1):
            if math.isnan(loss):
                raise diverged(self.keeper.folder, self.recipe, at.epoch, number, self._steps, self.keeper.saved)
            at.loss_sum += loss
        now = time.monotonic()
        at.seconds, self._mark = at.seconds + now - self._mark, now
        self._display.steps(at.epoch, losses)
        due, asked = self.group.totals([float(self._is_due(now)), float(self._asked())])
        if asked:
            self._stop()
        if due and at.step < self._steps:
            self._save()
            self._mark = time.monotonic()

    def _is_due(self, now: float) -> bool:
        """Whether the leading process finds that a state should be saved."""
        every = self._save_every
        by_steps = every.steps is not None and self.at.step - self._saved_step >= every.steps
        return self.group.leads and (by_steps or now - self._saved_at >= 60 * every.minutes)

    def _save(self) -> None:
        if self.group.leads:
            self.keeper.save(self.at)
        self._saved_at, self._saved_step = time.monotonic(), self.at.step

    def _asked(self) -> bool:
        return self._interrupts.noted is not None

    def _stop(self) -> NoReturn:
        """Save, and go: all processes together, for what started them ends the others when one is gone."""
        self._save()
        self.group.wait()
        name = self._interrupts.noted.name if self._interrupts.noted else "a signal to another process"
        where = f"epoch {self.at.epoch}, step {self.at.step} of {self._steps}"
        raise Interrupted(
            f"{self.keeper.folder}: stopped by {name} in {where}; the last saved state: {describe(self.keeper.saved)} "
            f"(archspec train --resume {shlex.quote(str(self.keeper.folder))} goes on)"
        )

    def _test(self) -> tuple[EpochMetrics, EpochTiming]:
        """How the network does after the epoch, and its moving average."""
        at, started = self.at, time.monotonic()
        own = self._score(self.trainer.network)
        ema = self._score(self.trainer.ema.module) if self.trainer.ema else None
        metrics = EpochMetrics(
            epoch=at.epoch,
            step=at.epoch * self._steps,
            lr=self.trainer.rates.now,
            loss=at.loss_sum / self._steps,
            test_loss=own.loss,
            accuracy=own.accuracy,
            top5=own.top5,
            ema_test_loss=ema.loss if ema else None,
            ema_accuracy=ema.accuracy if ema else None,
            ema_top5=ema.top5 if ema else None,
        )
        return metrics, self._timing(time.monotonic() - started)

    def _timing(self, test_seconds: float) -> EpochTiming:
        at = self.at
        return EpochTiming(
            epoch=at.epoch,
            seconds=at.seconds,
            images_per_second=self._steps * self.data.batch / at.seconds,
            waiting=at.waited / at.seconds,
            test_seconds=test_seconds,
        )

    def _score(self, network: nn.Module) -> Score:
        self.group.align(network)
        found = score(network, self.data.test_batches(), self.group, self.trainer.precision, self._asked)
        return found if found else self._stop()
