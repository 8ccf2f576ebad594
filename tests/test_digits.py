"""The thread from a YAML file to a network that has learnt something: scanned digits, on the CPU."""

from __future__ import annotations

import time

import pytest

from archspec import api
from archspec.training import load_recipe, run

from .tiny_runs import quiet


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_micro_network_reads_digits_within_two_minutes(seed, tmp_path):
    recipe = load_recipe("digits", ["epochs=12"])
    started = time.perf_counter()
    result = run(api.make_plan("nommer_micro"), recipe, "digits", tmp_path, seed=seed, device="cpu", console=quiet())
    assert result.last.accuracy > 0.95
    assert time.perf_counter() - started < 120
