"""The keys of an ablation's file; specs, patches and published figures in it stay trees here."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, Field

from archspec.frames import Name, Text, Version
from archspec.tree import Node

from ..frames import Reference, Seed, StudyFrame

Column: TypeAlias = Literal[
    "params",
    "params_trainable",
    "macs",
    "flops",
    "ops",
    "activations",
    "train_memory",
    "latency",
    "top1",
    "top5",
    "loss",
]
Same: TypeAlias = Literal["allowed"] | None
T = TypeVar("T")


def _each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"names {twice[0]} more than once")
    return values


Called = Annotated[str, Field(min_length=1, max_length=200, description="what the table calls it")]


class EntryFrame(StudyFrame):
    """What every line of the table may say."""

    published: Annotated[Node | None, Field(description="figures of a publication, as in a spec")] = None
    note: Text = ""
    same: Annotated[Same, Field(description="`allowed`: the network may be that of another row")] = None


class RowFrame(EntryFrame):
    """One row of the table: the base with these patches."""

    called = "a row"

    name: Called
    base: Annotated[Node | None, Field(description="another network to start from than the study's")] = None
    set: Annotated[Node | None, Field(description="patches, path: value, in order")] = None


class CellFrame(EntryFrame):
    """One combination of levels, of a design that names them."""

    called = "a cell"

    name: Called | None = None
    levels: Annotated[Node, Field(description="factor: level; a factor that is left out has its first level")]


class AblationFrame(StudyFrame):
    """The file."""

    called = "an ablation"

    archspec: Version
    study: Literal["ablation"]
    name: Name
    description: Text = ""
    source: Text = ""
    base: Annotated[Node, Field(description="a shipped network, or a file")]
    set: Annotated[Node | None, Field(description="patches of every row")] = None
    rows: Annotated[Node | None, Field(description="named patches, each a row of the table")] = None
    cumulative: Annotated[bool, Field(description="each row on the one before, not on the base")] = False
    factors: Annotated[Node | None, Field(description="in place of rows: name -> levels")] = None
    design: Annotated[Node | None, Field(description="grid, one_at_a_time, or a list of cells")] = None
    same: Annotated[Same, Field(description="`allowed`: rows may be equal networks")] = None
    reference: Annotated[
        Called | None,
        Field(description="the row that others are compared with; the base's unless said, else the first"),
    ] = None
    recipe: Annotated[Reference | None, Field(description="how every row is trained")] = None
    data: Annotated[Reference | None, Field(description="on what")] = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1_000), AfterValidator(_each_once)] = (0,)
    columns: Annotated[tuple[Column, ...], Field(min_length=1), AfterValidator(_each_once)] = (
        "params",
        "macs",
        "ops",
        "top1",
    )
    budgets: Annotated[Node | None, Field(description="limits on what a row may cost")] = None
