"""The thread from a YAML file to a network that has learnt something: scanned digits, on the CPU."""

from __future__ import annotations

import time

import pytest

from archspec import api
from archspec.training import TrainSettings, train
from archspec.training.data import digits


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_micro_network_reads_digits_within_two_minutes(seed, tmp_path):
    plan = api.make_plan("nommer_micro")
    data = digits(plan.source.width, plan.source.grid)
    started = time.perf_counter()
    result = train(api.build(plan, seed=seed), data, TrainSettings(epochs=12, seed=seed, device="cpu"), tmp_path)
    assert result.accuracy > 0.95
    assert time.perf_counter() - started < 120
