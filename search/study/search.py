"""Searches: a base network, what may change in it, what it may cost and how it is judged, in one YAML file.

archspec: 1
study: search
name: micro_digits
base: nommer_micro
space: {"stages[*].width": {int: [16, 64], step: 16, each: true}}      # see the folder space
constraints: ["stages[i].width <= stages[i+1].width"]
budgets: {macs: <=5M}                                                  # see ../budgets.py
objectives: [accuracy, macs]                                           # see objectives.py
evaluation: {train: digits, data: digits, epochs: 5}
sampler: tpe
trials: 40
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from archspec import loading
from archspec.errors import Problem, SpecError, in_order
from archspec.tree import Node, with_paths
from archspec.validation import problem, read_frame
from archspec.yaml_reader import read_file

from ..budgets import Budget, read_budgets
from ..space.space import Space, read_space
from .frames import MemoryFrame, PrescreenFrame, SamplerFrame, SearchFrame, StoppingFrame
from .objectives import CostOnly, Evaluation, Objective, read_evaluation, read_objectives

OF_ONE_NETWORK = ("description", "published")  # what a file says of its network, and not of those made from it


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search. `base` is the tree of the network with the study's own patches; `space` patches it.

    start: networks that are proposed first, by name. latency_table: the file. node: the study's tree, for places.
    """

    name: str
    description: str
    source: str
    base: Node = field(repr=False)
    space: Space
    budgets: tuple[Budget, ...]
    objectives: tuple[Objective, ...]  # the primary one first
    evaluation: Evaluation
    sampler: SamplerFrame
    stopping: StoppingFrame
    prescreen: PrescreenFrame | None
    memory: MemoryFrame
    latency_table: Path | None
    trials: int
    seed: int
    retries: int
    feasible_share: float
    start: tuple[tuple[str, Node], ...] = field(repr=False)
    node: Node = field(compare=False, repr=False)

    @property
    def measures(self) -> frozenset[str]:
        """The costs that budgets or objectives name."""
        named = {budget.measure for budget in self.budgets} | {objective.name for objective in self.objectives}
        return frozenset(named - {"accuracy", "loss", "score"})

    @property
    def primary(self) -> Objective:
        """The first objective, by which trainings end early."""
        return self.objectives[0]


def load_search(path: Path, *, allow_outside: bool = False) -> Search:
    """Read a search. Raises SpecError with every problem, UsageError for a missing file."""
    tree = with_paths(read_file(path))
    problems: list[Problem] = []
    frame = read_frame(SearchFrame, tree, problems)
    reader = _Reader(path, tree.mapping or {}, allow_outside, problems)
    base = reader.base()
    space = reader.space(base)
    budgets = read_budgets(reader.entries["budgets"], problems) if "budgets" in reader.entries else ()
    evaluation = reader.evaluation()
    objectives = read_objectives(reader.entries.get("objectives"), evaluation, problems)
    if isinstance(evaluation, CostOnly) and "objectives" not in reader.entries:
        problems.append(problem(tree, "missing; without training, objectives say which costs count"))
    start = reader.start(frame.start) if frame else ()
    table = reader.latency_table({budget.measure for budget in budgets} | {one.name for one in objectives})
    if frame is None or base is None or space is None or evaluation is None or problems:
        raise SpecError(in_order(problems))
    same = ("name", "description", "source", "sampler", "stopping", "prescreen", "memory")
    also = ("trials", "seed", "retries", "feasible_share")
    return Search(
        **{key: getattr(frame, key) for key in (*same, *also)},
        base=base,
        space=space,
        budgets=budgets,
        objectives=objectives,
        evaluation=evaluation,
        latency_table=table,
        start=start,
        node=tree,
    )


class _Reader:
    """Reads what refers to other files, and collects what is wrong."""

    def __init__(self, path: Path, entries: Mapping[str, Node], allow_outside: bool, problems: list[Problem]) -> None:
        self.path, self.entries, self.allow_outside, self.problems = path, entries, allow_outside, problems

    def base(self) -> Node | None:
        """The base's tree without what its file says of that one network."""
        if "base" not in self.entries:
            return None
        try:
            tree = self.network(self.entries["base"])
            return with_paths(loading.apply_set(tree, self.entries["set"]) if "set" in self.entries else tree)
        except SpecError as error:
            at = self.entries["base"]
            self.problems.extend(replace(one, path=at.path) if one.place == at.place else one for one in error.problems)
            return None

    def network(self, node: Node) -> Node:
        """The tree of a network that the study names."""
        tree = loading.base_tree(node, self.path, allow_outside=self.allow_outside)
        kept = {key: value for key, value in (tree.mapping or {}).items() if key not in OF_ONE_NETWORK}
        return replace(tree, value=kept)

    def space(self, base: Node | None) -> Space | None:
        """The space over the base."""
        if base is None or "space" not in self.entries:
            return None
        return read_space(self.entries["space"], self.entries.get("constraints"), base, self.problems)

    def evaluation(self) -> Evaluation | None:
        """How candidates are judged."""
        if "evaluation" not in self.entries:
            return None
        return read_evaluation(self.entries["evaluation"], self.path, self.allow_outside, self.problems)

    def start(self, names: tuple[str, ...]) -> tuple[tuple[str, Node], ...]:
        """Networks that are proposed first."""
        found = []
        for name, node in zip(names, self.entries["start"].items or () if names else (), strict=True):
            try:
                found.append((Path(name).stem, self.network(node)))
            except SpecError as error:
                self.problems.extend(replace(one, path=node.path) for one in error.problems)
        return tuple(found)

    def latency_table(self, measures: set[str]) -> Path | None:
        """The file, as seen from the study's."""
        node = self.entries.get("latency_table")
        if node is None or not isinstance(node.value, str):
            if "latency" in measures:
                hint = "`archspec bench SPEC --per-unit --table FILE` makes one"
                at = next(self.entries[key] for key in ("budgets", "objectives") if key in self.entries)
                self.problems.append(problem(at, "latency is told from a table, and latency_table names none", hint))
            return None
        file = self.path.parent / node.value
        if not file.is_file():
            self.problems.append(problem(node, f"there is no file {node.value}"))
        return file
