"""Which trainings end early, beside Optuna's pruners, which know one objective alone."""

from __future__ import annotations

import random
from importlib import import_module

import optuna
import pytest

stopping = import_module("archspec.search.samplers.stopping")
frames = import_module("archspec.search.study.frames")
EPOCHS = 9


def curves(count: int, seed: int) -> list[list[float]]:
    draw = random.Random(seed)
    tops = [draw.random() for _ in range(count)]
    return [[top * epoch / EPOCHS + draw.gauss(0, 0.05) for epoch in range(1, EPOCHS + 1)] for top in tops]


def ours(frame: dict[str, object], drawn: list[list[float]], sign: int) -> list[int]:
    """After how many epochs each ends, one training after the other."""
    rule = stopping.Stopping(frames.StoppingFrame(**frame), sign)
    lengths = []
    for number, curve in enumerate(drawn):
        length = next((at for at, value in enumerate(curve, 1) if rule.report(number, at, value)), EPOCHS)
        stopped = length < EPOCHS or rule.report(number, EPOCHS, curve[-1])
        rule.end(number, whole=not stopped)
        lengths.append(length)
    return lengths


def theirs(pruner: optuna.pruners.BasePruner, drawn: list[list[float]], direction: str) -> list[int]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction=direction, pruner=pruner)
    lengths = []
    for curve in drawn:
        trial = study.ask()
        for at, value in enumerate(curve, 1):
            trial.report(value, at)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, curve[-1])
        lengths.append(at)
    return lengths


@pytest.mark.parametrize(("sign", "direction"), [(1, "maximize"), (-1, "minimize")])
@pytest.mark.parametrize("seed", range(3))
def test_median_and_asha_end_what_optuna_ends(seed: int, sign: int, direction: str):
    drawn = curves(40, seed)
    median = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    assert ours({"type": "median", "trials": 4, "first": 2}, drawn, sign) == theirs(median, drawn, direction)
    asha = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    assert ours({"type": "asha", "keep": 3, "first": 1}, drawn, sign) == theirs(asha, drawn, direction)


def test_halving_ends_nobody_before_as_many_have_come_as_one_is_kept_of():
    falling = [[-number] * EPOCHS for number in range(6)]
    assert ours({"type": "asha", "keep": 4, "first": 3}, falling, 1) == [EPOCHS, 3, 3, 3, 3, 3]
    assert ours({"type": "halving", "keep": 4, "first": 3}, falling, 1) == [EPOCHS, EPOCHS, EPOCHS, 3, 3, 3]


def test_none_ends_nobody():
    assert ours({"type": "none"}, curves(10, 0), 1) == [EPOCHS] * 10
