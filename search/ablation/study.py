"""Ablation studies: a base network and what changes in it, in one YAML file, read into rows with their plans.

archspec: 1
study: ablation
name: fcvit_table2
base: fcvit_tiny
set: {...}                  # patches of every row
rows:
  - {name: no context, set: {"stages[*].mixer.context": none}, published: {params: 4.2Mi}}

`cumulative: true` puts each row on the one before. In place of rows, `factors` have levels, which `design` combines;
see factors.py. `recipe`, `data` and `seeds` say how the rows are trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

from archspec import api, loading
from archspec.errors import Problem, SpecError, in_order, nearest, shorten
from archspec.frames import PublishedFrame
from archspec.plan import Plan
from archspec.spec import read_spec
from archspec.tree import Node, with_paths
from archspec.validation import problem, read_frame
from archspec.yaml_reader import read_file

from ..budgets import Budget, read_budgets
from .drafts import Draft, read_drafts
from .frames import AblationFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row with its network and what the publication prints for it.

    levels: (factor, level) pairs in a study of factors. same_as: an earlier row with the same network, where the file
    allows that. node: where the row is written.
    """

    name: str
    plan: Plan
    published: PublishedFrame | None
    note: str
    levels: tuple[tuple[str, str], ...] = ()
    same_as: str = ""
    node: Node = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """A study: its rows in the order of the file, and how they are trained and shown.

    reference: the name of the row that others are compared with. node: the file's tree, for the places of its keys.
    """

    name: str
    description: str
    source: str
    rows: tuple[Row, ...]
    reference: str
    recipe: str | None
    data: str | None
    seeds: tuple[int, ...]
    columns: tuple[str, ...]
    budgets: tuple[Budget, ...]
    node: Node = field(compare=False, repr=False)


def load_ablation(path: Path, *, allow_outside: bool = False) -> Ablation:
    """Read a study and plan each of its rows. Raises SpecError with every problem, UsageError for a missing file."""
    tree = with_paths(read_file(path))
    problems: list[Problem] = []
    frame = read_frame(AblationFrame, tree, problems)
    entries = tree.mapping or {}
    drafts = read_drafts(tree, problems)
    budgets = read_budgets(entries["budgets"], problems) if "budgets" in entries else ()
    reader = _Reader(path, entries, allow_outside, problems)
    rows = reader.rows(drafts)
    reference = reader.reference(drafts, rows)
    if frame is None or problems:
        raise SpecError(in_order(problems))
    return Ablation(
        name=frame.name,
        description=frame.description,
        source=frame.source,
        rows=rows,
        reference=reference,
        recipe=frame.recipe,
        data=frame.data,
        seeds=frame.seeds,
        columns=frame.columns,
        budgets=budgets,
        node=tree,
    )


@dataclass(frozen=True, slots=True)
class _Start:
    """What a row's patches are applied to; `plan` is None where it only becomes a network by them."""

    tree: Node
    plan: Plan | None


class _Reader:
    """Plans the rows of a study and collects what does not fit."""

    def __init__(self, path: Path, entries: Mapping[str, Node], allow_outside: bool, problems: list[Problem]) -> None:
        self.path, self.entries, self.allow_outside, self.problems = path, entries, allow_outside, problems
        self.cumulative = "cumulative" in entries and entries["cumulative"].value is True
        self.same = "same" in entries and entries["same"].value == "allowed"
        self.base = self.start(entries["base"]) if "base" in entries else None

    def start(self, node: Node) -> _Start | None:
        """A base network with the study's own patches."""
        try:
            tree = _anonymous(loading.base_tree(node, self.path, allow_outside=self.allow_outside))
            tree = loading.apply_set(tree, self.entries["set"]) if "set" in self.entries else tree
        except SpecError as error:
            at_fault = (replace(one, path=node.path) if one.place == node.place else one for one in error.problems)
            self.problems.extend(at_fault)
            return None
        try:
            return _Start(tree, _planned(tree))
        except SpecError:  # what is wrong with it is wrong with the rows, too, unless they put it right
            return _Start(tree, None)

    def rows(self, drafts: Iterable[Draft]) -> tuple[Row, ...]:
        """The rows in order, each on the base or on the one before."""
        rows: list[Row] = []
        seen: dict[Plan, Draft] = {}  # by plans without a name
        before = self.base
        for draft in drafts:
            start = self.start(draft.base) if draft.base else before
            made = self.patched(draft, start) if start else None
            if start and made and made.plan:
                twin = seen.setdefault(replace(made.plan, name=""), draft)
                self.refuse_same(draft, made.plan, start, twin)
                rows.append(_row(draft, made.plan, "" if twin is draft else twin.name))
            before = made if self.cumulative else before
        return tuple(rows)

    def patched(self, draft: Draft, start: _Start) -> _Start | None:
        try:
            tree = reduce(loading.apply_set, draft.patches, start.tree)
            return _Start(tree, _planned(tree))
        except SpecError as error:
            self.problems.extend(error.problems)
            return None

    def refuse_same(self, draft: Draft, plan: Plan, start: _Start, twin: Draft) -> None:
        """A row that is another's network, or that its patches leave as it was, is a mistake unless it is meant."""
        node, rule = draft.node, ""
        if draft.patches and not draft.levels and _same(plan, start.plan):
            rule = f"the patches of '{shorten(draft.name)}' change nothing"
        elif twin is not draft:
            node = draft.unlike(twin)
            where = f"'{shorten(twin.name)}' in line {twin.node.place.line}"
            rule = f"'{shorten(draft.name)}' is the same network as {where}"
        if rule and not draft.same and not self.same and not self.told(node):
            self.problems.append(problem(node, rule, "`same: allowed` permits it"))

    def told(self, node: Node) -> bool:
        """Whether something is wrong there already: a level at fault makes many equal pairs of rows."""
        return any(one.place == node.place for one in self.problems)

    def reference(self, drafts: Iterable[Draft], rows: Sequence[Row]) -> str:
        """The row that the file names, else that of the base, else the first."""
        said = self.entries.get("reference")
        names = [draft.name for draft in drafts]
        if said is not None and isinstance(said.value, str):
            if said.value not in names:
                hint = nearest(said.value, names) or f"there are: {', '.join(names[:8])}"
                self.problems.append(problem(said, f"there is no row '{shorten(said.value)}'", hint))
            return said.value
        base = self.base.plan if self.base else None
        return next((row.name for row in rows if _same(row.plan, base)), names[0] if names else "")


def _anonymous(tree: Node) -> Node:
    """A base without what its file says of that one network: its rows are others."""
    kept = {key: node for key, node in (tree.mapping or {}).items() if key not in ("description", "published")}
    return replace(tree, value=kept)


def _planned(tree: Node) -> Plan:
    return api.make_plan(read_spec(with_paths(tree)))


def _same(one: Plan, other: Plan | None) -> bool:
    """Whether two plans are the same network, whatever they are called."""
    return other is not None and replace(one, name=other.name) == other


def _row(draft: Draft, plan: Plan, same_as: str) -> Row:
    return Row(
        name=draft.name,
        plan=plan,
        published=draft.published,
        note=draft.note,
        levels=tuple((level.factor, level.name) for level in draft.levels),
        same_as=same_as,
        node=draft.node,
    )
