"""Evaluations as jobs, which any executor runs, and what their results say of the objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from archspec.plan import Plan
from archspec.training.fit import prepared

from ..jobs.cells import Source
from ..jobs.job import Circumstances, Job
from ..jobs.scoring import score_job
from ..study.objectives import CostOnly, Objective, Scoring, Training
from ..study.search import Search


@dataclass
class Evaluator:
    """Makes the jobs of a search. asks: whether trainings are told after each epoch to go on."""

    search: Search
    circumstances: Circumstances
    asks: bool = False

    def __post_init__(self) -> None:
        names = {self.search.prescreen.score} if self.search.prescreen else set()
        if isinstance(self.search.evaluation, Scoring):
            names.add(self.search.evaluation.score)
        if names:
            from ..scores import find_score

            for name in sorted(names):
                find_score(name)

    @cached_property
    def _data(self) -> Source:
        assert isinstance(self.search.evaluation, Training)
        return Source(self.search.evaluation.data, self.circumstances.data_options)

    def prepare(self, base: Plan) -> None:
        """Open the data as the base sees them, before anything begins. Raises UsageError where they cannot be had."""
        how = self.search.evaluation
        if isinstance(how, Training):
            self._data.open(prepared(base, how.recipe), how.recipe)

    def job(self, plan: Plan) -> Job | None:
        """The job that evaluates a plan; None where its cost is all there is to know.

        Raises UsageError where plan, recipe and data do not fit together.
        """
        how = self.search.evaluation
        if isinstance(how, CostOnly):
            return None
        if isinstance(how, Scoring):
            return self._score(plan, how.score, how.data, how.batch, how.seed)
        return self.circumstances.job(self._data.cell(plan, how.recipe, how.seed), asks=self.asks)

    def screening(self, plan: Plan) -> Job:
        """The job that scores a plan for the prescreen."""
        how, screen = self.search.evaluation, self.search.prescreen
        assert isinstance(how, Training)
        assert screen is not None
        return self._score(plan, screen.score, how.data, screen.batch, how.seed)

    def _score(self, plan: Plan, score: str, data: str, batch: int, seed: int) -> Job:
        return score_job(plan, self.circumstances, score=score, data=data, batch=batch, seed=seed)


def metrics_of_epoch(metrics: Mapping[str, Any]) -> dict[str, float]:
    """accuracy and loss after an epoch: of the weights' moving average where there is one."""
    own = metrics.get("ema_accuracy") is None
    prefix = "" if own else "ema_"
    return {"accuracy": metrics[f"{prefix}accuracy"], "loss": metrics[f"{prefix}test_loss"]}


def objective_values(
    objectives: Sequence[Objective], metrics: Mapping[str, float], costs: Mapping[str, float]
) -> list[float]:
    """The objectives of an evaluated candidate; metrics: as results of jobs have them."""
    found = {**metrics, "accuracy": metrics["top1"] / 100} if "top1" in metrics else metrics
    return [float(costs[one.name] if one.name in costs else found[one.name]) for one in objectives]
