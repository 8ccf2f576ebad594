"""Ablation studies: a base network and rows that patch it, in one YAML file; here, what each row costs.

archspec: 1
study: ablation
name: fcvit_table2
base: fcvit_tiny
set: {...}                  # patches of every row
rows:
  - {name: no context, set: {"stages[*].mixer.context": none}, published: {params: 4.2Mi}}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema
from rich.table import Table

from archspec import api, loading
from archspec.cost import Cost
from archspec.errors import Problem, SpecError
from archspec.frames import Name, PublishedFrame, Text
from archspec.plan import Plan
from archspec.quantities import humanize
from archspec.report import FIGURES, compare
from archspec.spec import read_spec
from archspec.tree import Node, with_paths
from archspec.validation import Frame, problem, read_frame
from archspec.yaml_reader import read_file

Tree = Annotated[Node, WithJsonSchema({"type": "object"})]


class RowFrame(Frame):
    """One row of the table: the base with these patches."""

    called = "a row"

    name: Annotated[str, Field(min_length=1, max_length=200, description="what the table calls it")]
    set: Annotated[Node | None, WithJsonSchema({"type": "object"})] = None
    published: Annotated[Node | None, WithJsonSchema({"type": "object"})] = None
    note: Text = ""


class AblationFrame(Frame):
    """The file."""

    called = "an ablation"

    archspec: Literal[1]
    study: Literal["ablation"]
    name: Name
    description: Text = ""
    source: Text = ""
    base: Tree
    set: Annotated[Node | None, WithJsonSchema({"type": "object"})] = None
    rows: Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row with its network and what the publication prints for it."""

    name: str
    plan: Plan
    published: PublishedFrame | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """A study: its rows in the order of the file."""

    name: str
    description: str
    source: str
    rows: tuple[Row, ...]


def load_ablation(path: Path, *, allow_outside: bool = False) -> Ablation:
    """Read a study and plan each of its rows. Raises SpecError with every problem, UsageError for a missing file."""
    tree = with_paths(read_file(path))
    problems: list[Problem] = []
    frame = read_frame(AblationFrame, tree, problems)
    if frame is None:
        raise SpecError(problems)
    base = loading.base_tree(frame.base, path, allow_outside=allow_outside)
    if frame.set is not None:
        base = loading.apply_set(base, frame.set)
    rows = []
    for node in frame.rows.items or ():
        try:
            rows.append(_row(node, base))
        except SpecError as error:
            problems.extend(error.problems)
    if not frame.rows.items:
        problems.append(problem(frame.rows, f"{frame.rows.describe()} where a list of rows is expected"))
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    return Ablation(name=frame.name, description=frame.description, source=frame.source, rows=tuple(rows))


def _row(node: Node, base: Node) -> Row:
    problems: list[Problem] = []
    frame = read_frame(RowFrame, node, problems)
    published = None
    if frame and frame.published is not None:
        published = read_frame(PublishedFrame, frame.published, problems)
    if frame is None or problems:
        raise SpecError(problems)
    tree = base if frame.set is None else loading.apply_set(base, frame.set)
    return Row(name=frame.name, plan=api.make_plan(read_spec(with_paths(tree))), published=published, note=frame.note)


def count_table(study: Ablation) -> Table:
    """What each row costs, the difference to the first row, and what the publication prints."""
    table = Table(title=f"{study.name}: {study.description}" if study.description else study.name, title_justify="left")
    table.add_column("row", overflow="fold")
    for heading in ("params", "MACs", "ops", "Δ params", "Δ MACs"):
        table.add_column(heading, justify="right")
    table.add_column("published", overflow="fold")
    first = api.count(study.rows[0].plan)
    for row in study.rows:
        cost = api.count(row.plan)
        figures = (humanize(cost.params), humanize(cost.macs), humanize(cost.ops))
        table.add_row(row.name, *figures, *_differences(cost, first), "\n".join(_beside(row, cost)))
    return table


def _differences(cost: Cost, first: Cost) -> tuple[str, str]:
    pairs = ((cost.params, first.params), (cost.macs, first.macs))
    params, macs = (
        f"{'-' if ours < base else '+'}{humanize(abs(ours - base))}" if ours != base else "" for ours, base in pairs
    )
    return params, macs


def _beside(row: Row, cost: Cost) -> list[str]:
    """The published figures of a row, each with ours in its unit."""
    lines = []
    for key in FIGURES if row.published else ():
        text = getattr(row.published, key)
        if text is not None and row.published:
            rounding: Any = "truncated" if key in row.published.truncated else "rounded"
            lines.append(f"{key} {compare(text, getattr(cost, key), rounding)}")
    if row.published and row.published.top1 is not None:
        lines.append(f"top-1 {row.published.top1} %")
    return [*lines, *([row.note] if row.note else [])]
