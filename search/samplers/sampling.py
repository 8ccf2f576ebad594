"""Optuna's samplers, over a study in memory that is a view of the record: who proposes needs no disk.

What is over budget or no network is told as each sampler needs it (seen by experiment, Optuna 5): as pruned, with the
constraint that is broken, to TPE and NSGA-II; as complete with the worst value so far to GP, which learns nothing from
pruned trials. Each proposal is drawn by a sampler of its own whose seed is the search's and the trial's number: what is
proposed depends on the record alone, however often the search was stopped.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..space.space import Candidate, Patches, Value
from ..space.suggest import dice
from ..study.frames import SamplerFrame
from ..study.search import Search

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial, TrialState

LEARNING = ("tpe", "nsga2", "gp")  # the others need not see the record
EVALUATED_BLOCK = 1_000  # samplers see between one and two blocks of what was evaluated,
OTHER_BLOCK = 200  # and of what was not: all of them grow slow with what they see


@dataclass(frozen=True, slots=True)
class FromTrial:
    """Asks an Optuna trial."""

    trial: Trial

    def choice(self, name: str, labels: Sequence[str]) -> str:
        """One of the labels."""
        return str(self.trial.suggest_categorical(name, list(labels)))

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        """A whole number of the range."""
        return self.trial.suggest_int(name, low, high - (high - low) % step, step=step, log=log)

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """A number of the range."""
        return self.trial.suggest_float(name, low, high, log=log)


def make_sampler(frame: SamplerFrame, seed: int) -> BaseSampler:
    """The sampler that a study names; chance for those that are not Optuna's."""
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ExperimentalWarning)  # of TPE's groups
        if frame.type == "tpe":  # together: the widths of two stages are one decision; groups: where one asks more
            return samplers.TPESampler(n_startup_trials=frame.startup or 10, multivariate=True, group=True, seed=seed)
        if frame.type == "nsga2":
            return samplers.NSGAIISampler(population_size=frame.population or 20, seed=seed)
        if frame.type == "gp":
            return samplers.GPSampler(n_startup_trials=frame.startup or 10, seed=seed)
        return samplers.RandomSampler(seed=seed)


@dataclass
class View:
    """The study in memory. Trials are known by their numbers in the record."""

    search: Search
    _numbers: dict[int, int] = field(default_factory=dict)  # of the record -> of the study in memory
    _counts: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})  # evaluated, or not; finished

    def __post_init__(self) -> None:
        self.learns = self.search.sampler.type in LEARNING
        self._start()

    def _start(self) -> None:
        from optuna import create_study, logging
        from optuna.storages import InMemoryStorage

        logging.set_verbosity(logging.ERROR)  # we tell what there is to tell
        self._storage = InMemoryStorage()
        self._study = create_study(
            storage=self._storage, directions=[objective.direction for objective in self.search.objectives]
        )
        self._id = self._storage.get_study_id_from_name(self._study.study_name)
        self._numbers.clear()

    def restore(self, trials: Sequence[FrozenTrial]) -> None:
        """Look at a record, from its first trial to its last."""
        self._start()
        finished = [trial for trial in trials if trial.state.is_finished()]
        evaluated = [trial for trial in finished if is_evaluated(trial)]
        others = [trial for trial in finished if not is_evaluated(trial)]
        self._counts = {True: len(evaluated), False: len(others)}
        seen = [trial for trial in trials if not trial.state.is_finished()]
        if self.learns:
            seen += evaluated[_first(len(evaluated), EVALUATED_BLOCK) :] + others[_first(len(others), OTHER_BLOCK) :]
        for trial in sorted(seen, key=lambda one: one.number):
            self._numbers[trial.number] = len(self._numbers)
            self._storage.create_new_trial(self._id, self._shown(trial))

    def _shown(self, trial: FrozenTrial) -> FrozenTrial:
        """Optuna cannot read intermediate values in a study of several objectives."""
        if len(self.search.objectives) == 1:
            return trial
        shown = copy.copy(trial)
        shown.intermediate_values = {}
        return shown

    def ask(self, number: int, known: Candidate | None = None) -> tuple[dict[str, Value], Patches]:
        """The candidate of trial `number` of the record: the sampler's, or one that is known already."""
        seed = dice("ask", self.search.seed, number).getrandbits(32)
        self._study.sampler = make_sampler(self.search.sampler, seed)
        if known is not None:
            self._study.enqueue_trial(dict(known))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)
            self._trial = self._study.ask()
            self._numbers[number] = self._trial.number
            return self.search.space.draw(FromTrial(self._trial))

    def constrain(self, excess: Mapping[str, float]) -> None:
        """Say by how much the candidate that was asked for last misses the budgets."""
        for name, value in excess.items():
            self._trial.set_constraint(name, value)

    def template(self, number: int) -> FrozenTrial:
        """A copy of a trial, for the record."""
        found = self._storage.get_trial_id_from_study_id_trial_number(self._id, self._numbers[number])
        return copy.copy(self._storage.get_trial(found))

    def report(self, number: int, epoch: int, value: float) -> None:
        """What a training has come to after an epoch."""
        if len(self.search.objectives) == 1:
            found = self._storage.get_trial_id_from_study_id_trial_number(self._id, self._numbers[number])
            self._storage.set_trial_intermediate_value(found, epoch, value)

    def tell(self, number: int, state: TrialState, values: Sequence[float] | None, *, evaluated: bool) -> bool:
        """How a trial ended. True: there is much in memory that the sampler needs no more; `restore` clears it."""
        self._study.tell(self._numbers[number], values, state)
        self._counts[evaluated] += 1
        return self._counts[evaluated] % (EVALUATED_BLOCK if evaluated else OTHER_BLOCK) == 0


def _first(count: int, block: int) -> int:
    """Where the blocks that are seen begin: the last whole one, and the one that grows."""
    return max(0, count // block - 1) * block


def is_evaluated(trial: FrozenTrial) -> bool:
    """Whether a trial stands for an evaluation, and not for what was refused, left out or known."""
    return trial.user_attrs.get("kind") in ("evaluated", "taken")
