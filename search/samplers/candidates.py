"""Which candidate is proposed next, where that is not left to an Optuna sampler.

First come the networks that the study starts from, as far as its space has them. A grid and evolution propose by
themselves. Where too few proposals of a sampler fit, the next one is drawn among candidates that do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archspec.errors import SpecError
from archspec.paths import Path, match_paths
from archspec.tree import Node

from ..space.distributions import Choice, Derived, Distribution, Option
from ..space.space import Candidate, Space, Value
from ..space.suggest import Changed, Dice, dice, grid
from ..study.objectives import Objective
from ..study.pricing import Price, Pricer
from ..study.reach import COUNTABLE, climb, drawn
from ..study.search import Search

DRAWS = 300  # at random, before one is climbed to
CLIMBS = 5
PATIENCE_WITH_GP = 5  # proposals of a model that takes seconds for each


class Exhausted(Exception):
    """There is no candidate left that fits and is new."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate with its objectives, and its number in the record."""

    values: Candidate
    objectives: tuple[float, ...]
    number: int = 0


class Source:
    """Proposes; None leaves it to the sampler. `seen` are the candidates of the record.

    parent: the number of the trial from which evolution made what was proposed last.
    """

    parent: int | None = None

    def __init__(self, search: Search, pricer: Pricer, seen: Iterable[Candidate]) -> None:
        self.search, self.pricer = search, pricer
        known = {_key(values) for values in seen}
        self._first = [one for one in starting(search) if _key(one) not in known]
        self._grid: Iterator[dict[str, Value]] | None = None
        if search.sampler.type == "grid":
            whole = grid(search.space, search.sampler.points or 5)
            self._grid = (values for values in whole if _key(values) not in known)
        patience = math.ceil(1 / search.feasible_share)
        self.patience = min(patience, PATIENCE_WITH_GP) if search.sampler.type == "gp" else patience

    def propose(self, number: int, in_vain: int, done: Sequence[Judged], plans: Collection[str]) -> Candidate | None:
        """The candidate of trial `number`, after so many proposals in a row that came to nothing.

        done: what was evaluated, oldest first. plans: fingerprints that need not be proposed again. Raises Exhausted.
        """
        self.parent = None
        if self._first:
            return self._first.pop(0)
        if self._grid is not None:
            found = next(self._grid, None)
            if found is None:
                raise Exhausted
            return found
        if in_vain >= self.patience:
            return self._within(number, plans)
        if self.search.sampler.type == "evolution":
            return self._child(number, done)
        return None

    def start_with(self, candidates: Iterable[Candidate]) -> None:
        """Propose these before anything else."""
        self._first[:0] = [dict(one) for one in candidates]

    def _child(self, number: int, done: Sequence[Judged]) -> Candidate | None:
        """A young and good candidate with some values anew (Real et al. 2019, "Regularized evolution")."""
        frame = self.search.sampler
        young = done[-(frame.population or 20) :]
        if len(young) < (frame.population or 20) and len(done) + len(self._first) < self._founders():
            return None  # chance, until there is a population
        chance = dice("child", self.search.seed, number)
        parent = best_of(chance.sample(young, min(len(young), frame.sample or 5)), self.search.objectives)
        self.parent = parent.number
        names = [name for name, value in parent.values.items()]
        anew = chance.sample(names, min(len(names), frame.redraw or 1))
        return self.search.space.draw(Changed(parent.values, Dice(chance), anew))[0]

    def _founders(self) -> int:
        """So many come by chance first; networks to start from are a population of their own."""
        return len(self.search.start) or self.search.sampler.population or 20

    def _within(self, number: int, plans: Collection[str]) -> Candidate:
        """One that fits and is new: drawn, climbed to, or looked for everywhere."""
        tried = []
        for one in drawn(self.pricer, DRAWS, self.search.seed, number):
            if self._is_new(one.price, plans):
                return one.values
            tried.append(one)
        for start in sorted(tried, key=lambda one: one.price.violation)[:CLIMBS]:
            found = climb(self.pricer, start, lambda price: price.violation, enough=0.0)
            if self._is_new(found.price, plans):
                return found.values
        if self.search.space.size() <= COUNTABLE:
            for values in grid(self.search.space):
                if self._is_new(self.pricer.of(values), plans):
                    return values
        raise Exhausted

    def _is_new(self, price: Price, plans: Collection[str]) -> bool:
        from archspec.resolved import fingerprint

        return price.fits and price.plan is not None and fingerprint(price.plan.spec) not in plans


def _key(values: Candidate) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(values.items()))


def best_of(judged: Sequence[Judged], objectives: Sequence[Objective]) -> Judged:
    """The first that no other one betters in every respect."""
    signed = [[one.sign * value for one, value in zip(objectives, each.objectives, strict=True)] for each in judged]

    def beaten(own: Sequence[float]) -> bool:
        return any(
            other != own and all(theirs >= mine for theirs, mine in zip(other, own, strict=True)) for other in signed
        )

    if len(objectives) == 1:
        return max(zip(judged, signed, strict=True), key=lambda pair: pair[1])[0]
    return next(each for each, own in zip(judged, signed, strict=True) if not beaten(own))


def starting(search: Search) -> list[dict[str, Value]]:
    """The networks that the study starts from, as candidates; what its space does not have of them is drawn."""
    found = []
    for index, (_, tree) in enumerate(search.start):
        read = read_candidate(search.space, tree)
        found.append(search.space.draw(Changed(read, Dice(dice("start", search.seed, index))))[0])
    return found


def read_candidate(space: Space, tree: Node) -> dict[str, Value]:
    """The values of a network's tree in a space, as far as it has them."""
    values: dict[str, Value] = {}
    for parameter in space.parameters:
        places = match_paths(tree, parameter.path)
        node = _at(tree, places[0]) if places else None
        if node is not None:
            _take(values, parameter.name, parameter.distribution, node)
    return values


def _at(tree: Node, place: str) -> Node | None:
    node: Node | None = tree
    for step in Path.parse(place).steps:
        if node is None:
            return None
        children: Mapping[Any, Node] = node.mapping or dict(enumerate(node.items or ()))
        node = children.get(step)
    return node


def _take(values: dict[str, Value], name: str, distribution: Distribution, node: Node) -> None:
    if isinstance(distribution, Derived):
        return
    if not isinstance(distribution, Choice):
        if isinstance(node.value, int | float):
            values[name] = node.value
        return
    fitting = [option for option in distribution.options if _is(option, node)]
    if not fitting:
        return
    option = max(fitting, key=lambda one: len(one.value.mapping or ()))
    values[name] = option.label
    for key, nested in option.nested:
        if key in (node.mapping or {}):
            _take(values, f"{name}={option.label}.{key}", nested, (node.mapping or {})[key])


def _is(option: Option, node: Node) -> bool:
    """Whether a node is what an option says, its nested parameters aside; `mat` is `{type: mat}`."""
    said, there = option.value.plain(), node.plain()
    if isinstance(said, dict) or isinstance(there, dict):
        said = said if isinstance(said, dict) else {"type": said}
        there = there if isinstance(there, dict) else {"type": there}
        return all(key in there and there[key] == value for key, value in said.items())
    return bool(said == there)


def check_start(search: Search) -> None:
    """Raises SpecError where a network to start from has nothing that the space could change."""
    for name, tree in search.start:
        if not read_candidate(search.space, tree):
            from archspec.validation import problem

            at = (search.node.mapping or {})["start"]
            raise SpecError([problem(at, f"{name} has no value of this space")])
