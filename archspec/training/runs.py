"""Runs: `run` trains a plan's network by a recipe in a folder, or goes on with what the folder holds.

`resume` goes on from the folder alone. Both can be called many times in one process and leave nothing behind in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from archspec import api
from archspec.errors import UsageError
from archspec.network import Network
from archspec.plan import Plan
from archspec.training import folder as folders
from archspec.training.data import Data, default_root, open_data
from archspec.training.display import Display
from archspec.training.distributed import Group, joined
from archspec.training.environment import describe
from archspec.training.failures import memory_explained
from archspec.training.fit import check_fit, prepared
from archspec.training.folder import Identity
from archspec.training.keeper import BEST, LAST, Keeper
from archspec.training.metrics import EpochMetrics, EpochTiming
from archspec.training.progress import Progress
from archspec.training.randomness import given_back
from archspec.training.recipe import Recipe, load_recipe
from archspec.training.session import OnEpoch, SaveEvery, Session
from archspec.training.signals import Interrupts
from archspec.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run came to."""

    folder: Path
    history: tuple[EpochMetrics, ...]  # the first epoch first
    timing: tuple[EpochTiming, ...]
    best: EpochMetrics  # of the epoch whose weights `best_weights` holds
    stopped: bool  # by `on_epoch`, before the recipe's last epoch
    broken: tuple[str, ...]  # names of images that could not be read
    network: Network = field(repr=False, compare=False)  # with the weights after the last epoch, in evaluation mode

    @property
    def last(self) -> EpochMetrics:
        """Of the last epoch."""
        return self.history[-1]

    @property
    def weights(self) -> Path:
        """Those after the last epoch, as safetensors."""
        return self.folder / LAST

    @property
    def best_weights(self) -> Path:
        """Those, or their moving average, that did best, as safetensors."""
        return self.folder / BEST


def run(
    plan: Plan,
    recipe: Recipe,
    data: Data | str | Path,
    folder: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    on_epoch: OnEpoch | None = None,
    console: Console | None = None,
    save_every: SaveEvery | None = None,
    data_options: Mapping[str, Any] | None = None,
) -> RunResult:
    """Train the network of a plan from seed `seed`, or go on with the run that `folder` holds.

    data: a data set, or its name or folder, which `open_data` opens with `data_options` (workers, root, ...).
    device: a torch device, or auto. on_epoch: called after every epoch, on the leading process; true ends the run
    there, and the same call goes on. console: for progress; stderr unless said. On the CPU the outcome depends on
    nothing but plan, recipe, data and seed, however often the run was stopped.
    Raises UsageError for what does not fit together, or a folder that holds another run; Interrupted at SIGINT or
    SIGTERM, once the step is done and saved; TrainingError if the loss is no longer finite, memory does not suffice,
    or nothing can be written at the end; DataError.
    """
    if seed < 0:
        raise UsageError(f"seed: {seed} must be 0 or more")
    options = data_options or {}
    with joined(device) as group, given_back(group.device):
        plan = prepared(plan, recipe)
        opened = data if isinstance(data, Data) else _open(data, plan, recipe, seed, group, options)
        task = _Task(plan=plan, recipe=recipe, data=opened, folder=folder, seed=seed, group=group)
        check_fit(plan, recipe, opened, world=group.world)
        if group.leads:
            folders.claim(folder, task.identity(data, options.get("root")))
        group.wait()
        with folders.locked(folder) if group.leads else nullcontext():
            return task.run(on_epoch, console, save_every or SaveEvery())


def resume(
    folder: Path,
    *,
    data: Data | str | Path | None = None,
    data_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> RunResult:
    """Go on with the run in a folder, to its end; `options` are those of `run`.

    data: where the data stand now, if that is not where they stood, as seen from the folder. Raises UsageError for a
    folder without a run, else as `run`.
    """
    known = folders.read_run(folder)
    plan, recipe = api.make_plan(folder / folders.SPEC), load_recipe(folder / folders.RECIPE)
    chosen = dict(data_options or {})
    if known.get("data_root") and not chosen.get("root"):
        chosen["root"] = folder / str(known["data_root"])
    source = data if data is not None else folders.found(folder, str(known["data_from"]))
    return run(plan, recipe, source, folder, seed=int(known["seed"]), data_options=chosen, **options)


def _open(data: str | Path, plan: Plan, recipe: Recipe, seed: int, group: Group, options: Mapping[str, Any]) -> Data:
    return open_data(
        data,
        channels=plan.source.width,
        size=plan.source.grid,
        recipe=recipe,
        batch=recipe.batch,
        seed=seed,
        rank=group.rank,
        world=group.world,
        **options,
    )


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What one process has to train, and where."""

    plan: Plan
    recipe: Recipe
    data: Data
    folder: Path
    seed: int
    group: Group

    def identity(self, data: Data | str | Path, root: str | Path | None) -> Identity:
        """What must be the same for this run to go on."""
        source = self.data.name if isinstance(data, Data) else str(data)
        root = root or default_root(source)
        return Identity(
            plan=self.plan,
            recipe=self.recipe,
            seed=self.seed,
            data=self.data.identity,
            source=folders.portable(self.folder, source, rooted=root is not None),
            root=folders.as_seen_from(self.folder, Path(root)) if root else None,
        )

    def run(self, on_epoch: OnEpoch | None, console: Console | None, save_every: SaveEvery) -> RunResult:
        """From what the folder holds to the end."""
        network = api.build(self.plan, seed=self.seed)
        with (
            memory_explained(self.plan, self.recipe, self.group, self.data.batch),
            Interrupts(patient=self.group.world > 1) as interrupts,
        ):
            trainer = Trainer(network, self.recipe, self.group, steps=self.data.steps_per_epoch, seed=self.seed)
            keeper = Keeper(self.folder, trainer)
            at = self.restored(keeper)
            with closing(keeper.log), self.display(console, at) as display:
                session = Session(
                    trainer,
                    self.data,
                    keeper,
                    at,
                    interrupts=interrupts,
                    display=display,
                    save_every=save_every,
                    on_epoch=on_epoch,
                )
                session.go()
            if self.group.leads:
                keeper.finish(at)
        return self.result(at, network, stopped=session.stopped)

    def restored(self, keeper: Keeper) -> Progress:
        """How far the run is, by its newest whole state; the other files are brought up to it."""
        at = keeper.restore(tidy=self.group.leads)
        if self.group.leads:
            keeper.catch_up(at)
            try:
                folders.add_environment(self.folder, describe(self.group))
            except OSError as error:
                told = f"{self.folder}: {folders.ENVIRONMENT} cannot be written: {error}"
                warnings.warn(told, RuntimeWarning, stacklevel=2)
        return at

    def display(self, console: Console | None, at: Progress) -> Display:
        """What shows the progress from there on."""
        steps = self.data.steps_per_epoch
        done = (at.epoch - 1) * steps + at.step
        return Display(
            console, epochs=self.recipe.epochs, steps=steps, batch=self.data.batch, done=done, shown=self.group.leads
        )

    def result(self, at: Progress, network: Network, *, stopped: bool) -> RunResult:
        """What the run came to."""
        network.set_grad_checkpointing(False)
        return RunResult(
            folder=self.folder,
            history=tuple(at.history),
            timing=tuple(at.timing),
            best=at.best or at.history[-1],
            stopped=stopped and at.epoch <= self.recipe.epochs,
            broken=tuple(self.data.broken.names),
            network=network.eval(),
        )
