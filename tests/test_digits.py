"""The thread from a YAML file to a network that has learnt something: scanned digits, on the CPU."""

from __future__ import annotations

import time

import pytest

from archspec import api
from archspec.loading import shipped_folder
from archspec.training import load_recipe, run

from .tiny_runs import quiet

MICRO = sorted(file.stem for file in (shipped_folder() / "micro").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("name", MICRO)
def test_every_micro_network_learns_digits(name, tmp_path):
    # A third of the recipe's epochs. What the whole recipe comes to over seeds: benchmarks/digits.py
    recipe = load_recipe("digits", ["epochs=7", "schedule.warmup_epochs=2"])
    result = run(api.make_plan(name), recipe, "digits", tmp_path, device="cpu", console=quiet())
    assert result.last.accuracy > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_micro_network_reads_digits_within_two_minutes(seed, tmp_path):
    recipe = load_recipe("digits", ["epochs=12"])
    started = time.perf_counter()
    result = run(api.make_plan("nommer_micro"), recipe, "digits", tmp_path, seed=seed, device="cpu", console=quiet())
    assert result.last.accuracy > 0.95
    assert time.perf_counter() - started < 120
