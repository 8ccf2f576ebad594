"""Jobs: a cell as a message to the process that is to train it (perform.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from archspec.resolved import to_yaml

from .cells import Cell
from .store import Store


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell and the circumstances of its training; whatever stands here passes through JSON.

    spec, recipe: YAML written out in full. store: the store's folder. plugins: files that register blocks.
    save_minutes: how much work a kill may cost within an epoch. asks: after every epoch, whether to go on. score: the
    name of a score and its batch, for a network that is scored and not trained; recipe and epochs then mean nothing.
    """

    key: str
    identity: Mapping[str, Any]
    spec: str
    recipe: str
    data: str
    data_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int
    store: str
    device: str = "auto"
    plugins: tuple[str, ...] = ()
    save_minutes: float = 10.0
    asks: bool = False
    score: Mapping[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Job:
        """What `plain` gave, after JSON."""
        return cls(**{**plain, "plugins": tuple(plain["plugins"])})


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What is the same for all jobs of a study."""

    store: Store
    data_options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    plugins: Sequence[Path] = ()
    save_minutes: float = 10.0

    def job(self, cell: Cell, *, asks: bool = False) -> Job:
        """A cell as a job."""
        return Job(
            key=cell.key,
            identity=cell.identity,
            spec=to_yaml(cell.plan.spec),
            recipe=cell.recipe.to_yaml(),
            data=cell.data,
            data_options=self.plain_options,
            seed=cell.seed,
            store=str(self.store.folder),
            device=self.device,
            plugins=self.plain_plugins,
            save_minutes=self.save_minutes,
            asks=asks,
        )

    @property
    def plain_options(self) -> dict[str, Any]:
        """The options of the data, as JSON takes them."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in self.data_options.items()}

    @property
    def plain_plugins(self) -> tuple[str, ...]:
        """Where they are, whatever the worker's folder."""
        return tuple(str(file.resolve()) for file in self.plugins)
