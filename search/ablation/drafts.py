"""What an ablation's file says of its rows, before any network is planned: rows, or combinations of factors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from archspec.errors import Problem, nearest, shorten
from archspec.frames import PublishedFrame
from archspec.tree import Node
from archspec.validation import problem, read_frame

from .factors import Factor, Level, level_name, one_at_a_time, read_factors
from .frames import CellFrame, RowFrame

MAX_ROWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A row as the file has it; `patches` are applied in order, to `base` where the row has one of its own."""

    name: str
    node: Node
    patches: tuple[Node, ...] = ()
    base: Node | None = None
    levels: tuple[Level, ...] = ()  # one for each factor, in a study of factors
    published: PublishedFrame | None = None
    note: str = ""
    same: bool = False

    def unlike(self, other: Draft) -> Node:
        """What should make this row another network than an earlier row's."""
        pairs = zip(other.levels, self.levels, strict=True)
        return next((ours.node for theirs, ours in pairs if ours is not theirs), self.node)


def read_drafts(tree: Node, problems: list[Problem]) -> list[Draft]:
    """The rows of a study's file, whichever way it writes them; adds what is wrong to `problems`."""
    entries = tree.mapping or {}
    _refuse_mixtures(tree, entries, problems)
    if "factors" in entries:
        factors = read_factors(entries["factors"], problems)
        drafts = _designed(factors, entries.get("design"), problems) if factors else []
    else:
        drafts = _rows(entries["rows"], problems) if "rows" in entries else []
    _refuse_twins(drafts, problems)
    return drafts


def _refuse_mixtures(tree: Node, entries: Mapping[str, Node], problems: list[Problem]) -> None:
    """A study has rows, perhaps cumulative, or factors, perhaps with a design."""
    if "rows" not in entries and "factors" not in entries:
        problems.append(problem(tree, "missing; an ablation needs rows, or factors"))
    rules = [("factors", "rows"), ("factors", "cumulative"), ("rows", "design")]
    for one, other in rules:
        if one in entries and other in entries:
            rule = f"'{other}' does not go with '{one}': a study has rows or factors"
            problems.append(problem(entries[other], rule, key=True))


def _rows(node: Node, problems: list[Problem]) -> list[Draft]:
    if not node.items or len(node.items) > MAX_ROWS:
        found = node.describe() if node.items is None else f"a list of {len(node.items)}"
        problems.append(problem(node, f"{found} where a list of 1 to {MAX_ROWS} rows is expected"))
        return []
    return [draft for item in node.items if (draft := _row(item, problems))]


def _row(node: Node, problems: list[Problem]) -> Draft | None:
    frame = read_frame(RowFrame, node, problems)
    published = _published(node, problems)
    if frame is None:
        return None
    return Draft(
        name=frame.name,
        node=frame.set or node,
        patches=(frame.set,) if frame.set else (),
        base=frame.base,
        published=published,
        note=frame.note,
        same=frame.same is not None,
    )


def _published(node: Node, problems: list[Problem]) -> PublishedFrame | None:
    said = (node.mapping or {}).get("published")
    return read_frame(PublishedFrame, said, problems) if said else None


def _designed(factors: Sequence[Factor], design: Node | None, problems: list[Problem]) -> list[Draft]:
    """The combinations of levels that the design asks for, a grid unless it says otherwise."""
    if design is None or design.value == "grid":
        return _grid(factors, design or factors[0][0].node, problems)
    if design.value == "one_at_a_time":
        first, *others = one_at_a_time(factors)
        changed = [[level for level in levels if level not in first] for levels in others]
        return [_combination(first), *(_combination(*pair) for pair in zip(others, changed, strict=True))]
    if not design.items or len(design.items) > MAX_ROWS:
        hint = "grid, one_at_a_time, or a list such as [{levels: {FACTOR: LEVEL}}]"
        problems.append(problem(design, f"{design.describe()} is no design", hint))
        return []
    return [draft for item in design.items if (draft := _cell(item, factors, problems))]


def _grid(factors: Sequence[Factor], node: Node, problems: list[Problem]) -> list[Draft]:
    count = math.prod(len(levels) for levels in factors)
    if count > MAX_ROWS:
        rule = f"a grid of {count:,} rows, more than {MAX_ROWS:,}"
        problems.append(problem(node, rule, "design: one_at_a_time, or a list of cells"))
        return []
    return [_combination(levels) for levels in itertools.product(*factors)]


def _combination(levels: tuple[Level, ...], shown: Sequence[Level] = ()) -> Draft:
    return Draft(
        name=_called(shown or levels),
        node=levels[-1].node,
        patches=tuple(level.patches for level in levels),
        levels=levels,
    )


def _called(levels: Iterable[Level]) -> str:
    return ", ".join(map(str, levels))


def _cell(node: Node, factors: Sequence[Factor], problems: list[Problem]) -> Draft | None:
    """A combination that the design names."""
    found = len(problems)
    frame = read_frame(CellFrame, node, problems)
    published = _published(node, problems)
    levels = _chosen(frame.levels, factors, problems) if frame else ()
    if frame is None or len(problems) > found:
        return None
    return replace(
        _combination(levels),
        name=frame.name or _called(levels),
        node=frame.levels,
        published=published,
        note=frame.note,
        same=frame.same is not None,
    )


def _chosen(node: Node, factors: Sequence[Factor], problems: list[Problem]) -> tuple[Level, ...]:
    """The level of each factor, the first where the cell says none."""
    if node.mapping is None:
        problems.append(problem(node, f"{node.describe()} where a mapping of factor: level is expected"))
        return ()
    chosen = {levels[0].factor: levels[0] for levels in factors}
    by_name = {levels[0].factor: {level.name: level for level in levels} for levels in factors}
    for factor, said in node.mapping.items():
        name = level_name(said)
        if factor not in by_name:
            hint = nearest(factor, by_name) or f"there are: {', '.join(by_name)}"
            problems.append(problem(said, f"there is no factor '{shorten(factor)}'", hint, key=True))
        elif name not in by_name[factor]:
            hint = nearest(name, by_name[factor]) or f"there are: {', '.join(by_name[factor])}"
            problems.append(problem(said, f"there is no level '{shorten(name)}' of '{factor}'", hint))
        else:
            chosen[factor] = by_name[factor][name]
    return tuple(chosen.values())


def _refuse_twins(drafts: Iterable[Draft], problems: list[Problem]) -> None:
    """A name says which row is meant, in tables and in folders of results."""
    first: dict[str, Draft] = {}
    for draft in drafts:
        if draft.name in first:
            line = first[draft.name].node.place.line
            rule = f"a row is called '{shorten(draft.name)}' already, in line {line}"
            problems.append(problem(draft.node, rule, "give it another name"))
        first.setdefault(draft.name, draft)
