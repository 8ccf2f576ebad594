"""The keys of a search's file; the base, the space and what has forms of its own stay trees here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator

from archspec.frames import Name, Text, Version
from archspec.tree import Node

from ..frames import Reference, Seed, StudyFrame

SamplerType: TypeAlias = Literal["random", "tpe", "nsga2", "gp", "grid", "evolution"]
StoppingType: TypeAlias = Literal["none", "median", "halving", "asha"]
Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]


def _belongs(value: Any, info: ValidationInfo, owners: Iterable[str]) -> Any:
    """An option that is written must be one of the chosen type."""
    chosen = info.data.get("type")
    if value is not None and chosen is not None and chosen not in owners:
        raise ValueError(f"is an option of {', '.join(owners)}, not of {chosen}")
    return value


class SamplerFrame(StudyFrame):
    """Where candidates come from."""

    called = "the sampler"
    OWNERS: ClassVar[dict[str, tuple[str, ...]]] = {
        "startup": ("tpe", "gp"),
        "population": ("nsga2", "evolution"),
        "sample": ("evolution",),
        "redraw": ("evolution",),
        "points": ("grid",),
    }

    type: Annotated[SamplerType, Field()] = "tpe"
    startup: Annotated[Count | None, Field(description="trials that are drawn at random first; 10 unless said")] = None
    population: Annotated[
        Annotated[int, Field(ge=2, le=100_000)] | None,
        Field(description="of a generation; of evolution, the youngest that may be parents; 20 unless said"),
    ] = None
    sample: Annotated[Count | None, Field(description="of which the best is the parent; 5 unless said")] = None
    redraw: Annotated[Count | None, Field(description="parameters that a child has anew; 1 unless said")] = None
    points: Annotated[
        Annotated[int, Field(ge=2, le=10_000)] | None,
        Field(description="values of a range of real numbers in the grid; 5 unless said"),
    ] = None

    @field_validator("startup", "population", "sample", "redraw", "points")
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        return _belongs(value, info, cls.OWNERS[info.field_name or ""])


class StoppingFrame(StudyFrame):
    """Which trainings end early, by their accuracy after each epoch (or their loss, where that is the objective)."""

    called = "stopping"
    OWNERS: ClassVar[dict[str, tuple[str, ...]]] = {
        "first": ("median", "halving", "asha"),
        "trials": ("median",),
        "keep": ("halving", "asha"),
    }

    type: Annotated[
        StoppingType,
        Field(
            description="median: below the median of the others then. asha: not among the best 1/keep of those "
            "that have come as far, at epochs first, first * keep, ...; halving: the same, once `keep` have come as far"
        ),
    ] = "none"
    first: Annotated[Count | None, Field(description="no training ends before this epoch; 1 unless said")] = None
    trials: Annotated[Count | None, Field(description="so many are trained whole first; 5 unless said")] = None
    keep: Annotated[
        Annotated[int, Field(ge=2, le=100)] | None, Field(description="one of so many goes on; 3 unless said")
    ] = None

    @field_validator("first", "trials", "keep")
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        return _belongs(value, info, cls.OWNERS[info.field_name or ""])


class TrainFrame(StudyFrame):
    """Candidates are trained."""

    called = "an evaluation"

    train: Annotated[Reference, Field(description="a recipe, shipped or a file")]
    data: Reference
    epochs: Annotated[Count | None, Field(description="in place of the recipe's")] = None
    seed: Seed = 0


class ScoreFrame(StudyFrame):
    """Candidates are scored without training."""

    called = "an evaluation"

    score: Annotated[str, Field(min_length=1, max_length=100)]
    data: Reference
    batch: Annotated[int, Field(ge=1, le=65_536, description="images that the score looks at")] = 64
    seed: Seed = 0


class PrescreenFrame(StudyFrame):
    """Which proposals are trained: of every `of`, the one with the best score."""

    called = "prescreen"

    score: Annotated[str, Field(min_length=1, max_length=100)]
    of: Annotated[int, Field(ge=2, le=1_000)] = 4
    batch: Annotated[int, Field(ge=1, le=65_536, description="images that the score looks at")] = 64


class MemoryFrame(StudyFrame):
    """What `train_memory` speaks of."""

    called = "memory"

    batch: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    checkpointing: bool = False


class SearchFrame(StudyFrame):
    """The file."""

    called = "a search"

    archspec: Version
    study: Literal["search"]
    name: Name
    description: Text = ""
    source: Text = ""
    base: Annotated[Node, Field(description="a shipped network, or a file")]
    set: Annotated[Node | None, Field(description="patches of the base")] = None
    space: Annotated[Node, Field(description="path: values")]
    constraints: Annotated[Node | None, Field(description="what must hold between values")] = None
    budgets: Annotated[Node | None, Field(description="limits on what a candidate may cost")] = None
    objectives: Annotated[Node | None, Field(description="accuracy unless said; several give a Pareto front")] = None
    evaluation: Annotated[Node, Field(description="{train: RECIPE, data: ...}, {score: NAME, data: ...} or cost")]
    sampler: SamplerFrame = SamplerFrame()
    stopping: StoppingFrame = StoppingFrame()
    prescreen: PrescreenFrame | None = None
    memory: MemoryFrame = MemoryFrame()
    latency_table: Annotated[Reference | None, Field(description="a file that `archspec bench` has written")] = None
    trials: Annotated[Count, Field(description="candidates to evaluate, in all")]
    seed: Seed = 0
    retries: Annotated[int, Field(ge=0, le=10, description="of an evaluation that crashes")] = 0
    feasible_share: Annotated[
        float, Field(gt=0, le=1, description="where fewer proposals fit, they are drawn among those that do")
    ] = 0.05
    start: Annotated[
        tuple[Reference, ...], Field(max_length=1_000, description="networks that are proposed first")
    ] = ()
