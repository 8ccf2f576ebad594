"""Training: recipes, data, and runs that go on where they were stopped.

Recipes load no torch; everything else is imported by the commands that train, late.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archspec.training.data import Data as Data
    from archspec.training.data import open_data as open_data
    from archspec.training.metrics import EpochMetrics as EpochMetrics
    from archspec.training.recipe import Recipe as Recipe
    from archspec.training.recipe import load_recipe as load_recipe
    from archspec.training.runs import RunResult as RunResult
    from archspec.training.runs import resume as resume
    from archspec.training.runs import run as run
    from archspec.training.session import SaveEvery as SaveEvery

_HOMES = {
    "Data": "archspec.training.data",
    "EpochMetrics": "archspec.training.metrics",
    "Recipe": "archspec.training.recipe",
    "RunResult": "archspec.training.runs",
    "SaveEvery": "archspec.training.session",
    "load_recipe": "archspec.training.recipe",
    "open_data": "archspec.training.data",
    "resume": "archspec.training.runs",
    "run": "archspec.training.runs",
}
__all__ = [*_HOMES]  # the names are strings, in one list


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'archspec.training' has no attribute '{name}'")
