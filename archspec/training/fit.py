"""Whether a network, a recipe and data fit together. It loads nothing that trains: studies ask it of each candidate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from archspec import api
from archspec.errors import UsageError
from archspec.plan import Plan
from archspec.training.recipe import Recipe

if TYPE_CHECKING:
    from archspec.training.data import Data


def prepared(plan: Plan, recipe: Recipe) -> Plan:
    """The plan as the recipe trains it: with its stochastic depth and input size. Raises SpecError."""
    spec = plan.spec
    chosen = replace(spec, drop_path=recipe.drop_path_of(spec.name, spec.drop_path), size=recipe.size or spec.size)
    return plan if chosen == spec else api.make_plan(chosen)


def check_fit(plan: Plan, recipe: Recipe, data: Data, *, world: int = 1) -> None:
    """Raises UsageError for what cannot be trained by `world` processes."""
    if plan.spec.head is None:
        raise UsageError("the network has no head to train (try --set head=linear)")
    data.check_classes(plan.spec.classes)
    if recipe.augment.mixes and data.batch // world % 2:
        near = 2 * world * max(1, data.batch // world // 2)
        share = f"a process's share of {data.batch} is {data.batch // world}"
        raise UsageError(f"batch: mixup and cutmix take images in pairs, and {share} (try {near})")
