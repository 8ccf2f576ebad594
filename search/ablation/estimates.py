"""What a study would take: the memory and time of each cell, before any is trained."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal, TypeAlias

from archspec.plan import Plan
from archspec.training.data import Data
from archspec.training.recipe import Recipe

from ..jobs.cells import Cell
from ..jobs.store import Store
from .cells import TrainedRow, Training

ENOUGH = 0.2  # seconds: a step that takes as long tells how fast images go through
TEST_SHARE = 1 / 3  # of a training step's time: the forward pass alone
# again: it has failed before. equal: to a cell of an earlier row. over budget: it is not trained.
State: TypeAlias = Literal["to train", "done", "again", "equal", "over budget"]
Basis: TypeAlias = Literal["measured", "one step", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A cell to be. seconds: of training and testing, 0 where nothing is trained. basis: `measured` on cells of the
    store with other seeds, or on `one step` here. memory: bytes."""

    row: str
    seed: int
    params: int
    macs: int
    memory: int
    seconds: float
    basis: Basis
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """cells: of the study. seconds: of all training, one cell after the other; wall: with `jobs` at a time.

    memory: bytes at a time, the largest cells together.
    """

    cells: int
    to_train: int
    seconds: float
    wall: float
    memory: int


def estimates(rows: Sequence[TrainedRow], training: Training, store: Store, threads: int) -> list[Estimate]:
    """Of each cell, row by row. Raises RunError where a network does not run."""
    clock = _Clock(training, store, threads)
    seen: set[str] = set()
    found = []
    for row in rows:
        for cell in row.cells:
            state = _state(row, cell, store, seen)
            waits = state in ("to train", "again")
            seconds, basis = clock.seconds(cell) if waits else (0.0, "")
            seen.add(cell.key)
            found.append(
                Estimate(
                    row=row.row.name,
                    seed=cell.seed,
                    params=int(row.costs["params"]),
                    macs=int(row.costs["macs"]),
                    memory=int(row.costs["train_memory"]),
                    seconds=seconds,
                    basis=basis,
                    state=state,
                )
            )
    return found


def totals(cells: Sequence[Estimate], jobs: int) -> Totals:
    """Of all cells, `jobs` at a time."""
    waiting = [cell for cell in cells if cell.state in ("to train", "again")]
    return Totals(
        cells=len(cells),
        to_train=len(waiting),
        seconds=sum(cell.seconds for cell in waiting),
        wall=makespan([cell.seconds for cell in waiting], jobs),
        memory=sum(sorted((cell.memory for cell in waiting), reverse=True)[:jobs]),
    )


def makespan(seconds: Iterable[float], jobs: int) -> float:
    """When the last is done, if each is begun in order as soon as one of the `jobs` places is free."""
    places = [0.0] * jobs
    for one in seconds:
        heapq.heapreplace(places, places[0] + one)
    return max(places)


def _state(row: TrainedRow, cell: Cell, store: Store, seen: set[str]) -> State:
    if row.over_budget:
        return "over budget"
    if cell.key in seen:
        return "equal"
    result = store.result(cell.key)
    return "to train" if result is None else "done" if result.done else "again"


class _Clock:
    """How long cells take: as others of the same network, recipe and data did, else by the time of a step."""

    def __init__(self, training: Training, store: Store, threads: int) -> None:
        self._training, self._threads = training, threads
        self._measured: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for result in store.results():
            if result.done:
                self._measured[_kind(result.identity)].append(result.seconds)
        self._timed: dict[tuple[str, str, str], float] = {}

    def seconds(self, cell: Cell) -> tuple[float, Basis]:
        kind = _kind(cell.identity)
        if kind in self._measured:
            return mean(self._measured[kind]), "measured"
        if kind not in self._timed:
            data = self._training.source.open(cell.plan, cell.recipe)
            per_image = seconds_per_image(cell.plan, data.batch, self._training.device, self._threads)
            self._timed[kind] = by_step(per_image, cell.recipe, data)
        return self._timed[kind], "one step"


def _kind(identity: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(identity["spec"]), str(identity["recipe"]), str(identity["data"])


def by_step(per_image: float, recipe: Recipe, data: Data) -> float:
    """Seconds of a whole run whose training takes so long for an image."""
    trained = data.steps_per_epoch * data.batch
    tested = data.test_size * (2 if recipe.ema else 1)
    return per_image * recipe.epochs * (trained + TEST_SHARE * tested)


def seconds_per_image(plan: Plan, batch: int, device: str, threads: int) -> float:
    """Of a training step, in as large a part of the batch as is quickly done."""
    from archspec.latency.runs import NetworkRun
    from archspec.latency.setting import applied, setting_here
    from archspec.latency.timing import clock_of

    images = min(2, batch)
    while True:
        setting = setting_here(device=device, threads=threads, mode="train", batch=images)
        clock = clock_of(setting)
        with applied(setting):
            run = NetworkRun(plan, setting)
            run.run(clock)  # allocates, and chooses algorithms
            seconds = min(sum(span.seconds for span in run.run(clock)) for _ in range(2))
        if seconds >= ENOUGH or images == batch:
            return seconds / images
        images = min(2 * images, batch)
