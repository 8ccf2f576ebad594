"""Cells, which studies train: a network, a recipe, data and a seed. Equal cells are one, in whatever study."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec import resolved
from archspec.errors import UsageError
from archspec.plan import Plan
from archspec.training.fit import check_fit, prepared
from archspec.training.recipe import Recipe
from archspec.unit_records import parts

if TYPE_CHECKING:
    from archspec.training.data import Data

OURS = ("archspec", "torch", "timm")  # packages whose blocks are known by the spec and their version


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is trained. `plan` is as the recipe trains it, with its stochastic depth and input size.

    data: a name, or an absolute folder. data_identity: what is in it, and the shape of an image.
    """

    plan: Plan
    recipe: Recipe
    data: str
    data_identity: str
    seed: int

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes it this cell; names, descriptions and published figures are no part of it.

        Of blocks that are not archspec's own, the code is: who edits her block wants to see it trained.
        """
        code = _code(self.plan)
        return {
            "spec": resolved.fingerprint(self.plan.spec),
            "recipe": self.recipe.fingerprint(),
            "data": self.data_identity,
            "seed": self.seed,
            **({"code": code} if code else {}),
        }

    @cached_property
    def key(self) -> str:
        """SHA-256 of the identity, in hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()


def _code(plan: Plan) -> list[str]:
    """Digests of the files that define a plan's blocks, but for those of archspec and its libraries."""
    modules = {part.entry.cls.__module__ for step in plan.steps() for part in parts(step.unit)}
    own = [module for module in modules if module.split(".")[0] not in OURS]
    files = [getattr(sys.modules.get(module), "__file__", None) for module in own]
    return sorted(hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] for file in files if file)


@dataclass
class Source:
    """The data of a study, opened once for each shape of image.

    name: a data set's name, or a folder. options: those of `open_data`, such as workers and root.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    _opened: dict[tuple[int, tuple[int, int], str], Data] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if Path(self.name).is_dir():
            self.name = str(Path(self.name).resolve())

    def open(self, plan: Plan, recipe: Recipe) -> Data:
        """The data as the networks of a plan see them. Raises UsageError for data that cannot be had."""
        from archspec.training.data import open_data

        key = (plan.source.width, plan.source.grid, recipe.fingerprint())
        if key not in self._opened:
            options = {**self.options, "workers": 0}
            self._opened[key] = open_data(
                self.name,
                channels=plan.source.width,
                size=plan.source.grid,
                recipe=recipe,
                batch=recipe.batch,
                **options,
            )
        return self._opened[key]

    def cell(self, plan: Plan, recipe: Recipe, seed: int) -> Cell:
        """The cell of a plan. Raises UsageError where plan, recipe and data do not fit together."""
        plan = prepared(plan, recipe)
        data = self.open(plan, recipe)
        try:
            check_fit(plan, recipe, data)
        except UsageError as error:
            raise UsageError(f"{plan.name}: {error}") from error
        return Cell(plan=plan, recipe=recipe, data=self.name, data_identity=data.identity, seed=seed)
