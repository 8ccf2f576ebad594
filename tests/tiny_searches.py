"""Records of searches that are written by hand, trial by trial: nothing is trained."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from archspec import api
from archspec.loading import load_text
from archspec.paths import apply_patches
from archspec.resolved import Dumper

search_study = importlib.import_module("archspec.search.study.search")
search_folder = importlib.import_module("archspec.search.session.folder")

STUDY = """archspec: 1
study: search
name: by_hand
description: a record that was written by hand
base: nommer_micro
space:
  stages[0].width: {int: [16, 48], step: 16}
  stages[1].mixer: [{type: mat, heads: [2, 4], window: 4}, coordinate_conv, {type: window, heads: 2, window: 4}]
  drop_path: {float: [0, 0.5]}
budgets: {macs: <=10M}
objectives: OBJECTIVES
evaluation: {train: digits, data: digits, epochs: 4}
sampler: random
trials: 40
"""
STARTED = datetime(2026, 1, 2, 3, 4, 5)
ENVIRONMENT = {"started": "2026-01-02T03:04:05+00:00", "archspec": "0.1.0", "packages": {"torch": "2.15.0"}}


@dataclass
class Told:
    """Gives a candidate's values, and keeps the distributions that they were asked from."""

    values: Mapping[str, Any]
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)

    def choice(self, name: str, labels: Sequence[str]) -> str:
        self.distributions[name] = CategoricalDistribution(list(labels))
        return str(self.values[name])

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        self.distributions[name] = IntDistribution(low, high, step=step, log=log)
        return int(self.values[name])

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        self.distributions[name] = FloatDistribution(low, high, log=log)
        return float(self.values[name])


class HandMade:
    """A search's folder, as `archspec search` would have left it. objectives: as YAML."""

    def __init__(self, folder: Path, objectives: str = "accuracy", study: str = STUDY) -> None:
        file = folder / "study_of_mine.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(study.replace("OBJECTIVES", objectives))
        self.search = search_study.load_search(file)
        self.path = folder / "run"
        search_folder.SearchFolder(self.path).claim(self.search)
        (self.path / "environment.json").write_text(json.dumps([ENVIRONMENT]))
        self.storage = JournalStorage(JournalFileBackend(str(self.path / "journal.log")))
        directions = [one.direction for one in self.search.objectives]
        self.study = optuna.create_study(storage=self.storage, study_name=self.search.name, directions=directions)
        self.count = 0

    def plan(self, values: Mapping[str, Any]) -> Any:
        """The network of a candidate, by way of its text."""
        _, patches = self.search.space.draw(Told(values))
        return api.make_plan(load_text(_text(apply_patches(self.search.base, patches))))

    def tell(
        self,
        values: Mapping[str, Any],
        objectives: Sequence[float] | None,
        *,
        kind: str = "evaluated",
        state: TrialState = TrialState.COMPLETE,
        **said: Any,
    ) -> int:
        """One more trial; its costs are counted. Returns its number."""
        told = Told(values)
        self.search.space.draw(told)
        costs = {"macs": api.count(self.plan(values)).macs}
        attributes = {"kind": kind, "costs": costs, "plan": f"{self.count:016x}", **said}
        trial = FrozenTrial(
            number=self.count,
            trial_id=self.count,
            state=state,
            value=None,
            values=list(objectives) if objectives else None,
            datetime_start=STARTED + timedelta(seconds=self.count),
            datetime_complete=STARTED + timedelta(seconds=self.count + 1) if state.is_finished() else None,
            params=dict(values),
            distributions=told.distributions,
            user_attrs=attributes,
            system_attrs={},
            intermediate_values={},
        )
        self.study.add_trial(trial)
        self.count += 1
        return trial.number


def _text(tree: Any) -> str:
    return yaml.dump(tree.plain(), Dumper=Dumper, sort_keys=False)
