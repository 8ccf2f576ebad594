"""What a space can reach under its budgets: sampled, and then climbed to, one parameter at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from archspec.errors import Problem, SpecError

from ..budgets import Budget
from ..space.space import Space, Value
from ..space.suggest import Changed, Dice, alternatives, dice, grid
from .pricing import VALID, Price, Pricer, excess
from .search import Search

SAMPLES = 300
STARTS = 3  # of climbs, from the best of the sample
COUNTABLE = 20_000  # a space of so many candidates is looked through whole before it is given up
ROUNDS = 20  # of a climb, at most

Goal = Callable[[Price], float]  # the smaller, the better


@dataclass(frozen=True, slots=True)
class Priced:
    """A candidate and its price."""

    values: dict[str, Value]
    price: Price


def drawn(pricer: Pricer, count: int, *seed: object) -> Iterator[Priced]:
    """Candidates drawn evenly, one after the other."""
    drawing = Dice(dice("sample", *seed))
    for _ in range(count):
        values, patches = pricer.search.space.draw(drawing)
        yield Priced(values, pricer.price(patches))


def climb(pricer: Pricer, start: Priced, goal: Goal, *, enough: float = float("-inf")) -> Priced:
    """From a candidate to one that no change of a single parameter betters, or that is good enough."""
    best, least = start, goal(start.price)
    for _ in range(ROUNDS):
        before = least
        for name in list(best.values):
            if least <= enough:
                return best
            for changed in _neighbours(pricer.search.space, best.values, name):
                values, patches = pricer.search.space.draw(changed)
                price = pricer.price(patches)
                if goal(price) < least:
                    best, least = Priced(values, price), goal(price)
        if least == before:
            break
    return best


def _neighbours(space: Space, values: dict[str, Value], name: str) -> list[Changed]:
    if name not in values:  # it went with a choice that was changed before
        return []
    found = alternatives(space, values, name)
    return [Changed(values, Dice(dice(name, value)), set={name: value}) for value in found]


def nearest_that_fits(pricer: Pricer, sampled: Sequence[Priced]) -> Priced:
    """A candidate within all budgets, or the one that is nearest to them; a network, if there is any."""
    networks = [one for one in sampled if one.price.excess[VALID] <= 0]

    def miss(price: Price) -> float:
        return float("inf") if networks and price.excess[VALID] > 0 else price.violation

    ranked = sorted(networks or sampled, key=lambda one: one.price.violation)
    best = ranked[0]
    for start in ranked[:STARTS]:
        found = climb(pricer, start, miss, enough=0.0)
        if miss(found.price) < miss(best.price):
            best = found
        if best.price.fits:
            break
    return best


def extreme(pricer: Pricer, sampled: Sequence[Priced], measure: str, sign: int) -> Priced | None:
    """The cheapest (sign 1) or dearest (-1) network of the space, budgets aside, as far as climbing finds it."""

    def goal(price: Price) -> float:
        return sign * price.costs[measure] if measure in price.costs else float("inf")

    known = [one for one in sampled if measure in one.price.costs]
    if not known:
        return None
    return climb(pricer, min(known, key=lambda one: goal(one.price)), goal)


def check_reach(pricer: Pricer) -> None:
    """Raises SpecError, with the nearest figures that can be reached, where no candidate fits."""
    sampled: list[Priced] = []
    for one in drawn(pricer, SAMPLES, pricer.search.seed):
        if one.price.fits:
            return
        sampled.append(one)
    found = nearest_that_fits(pricer, sampled)
    if not found.price.fits and pricer.search.space.size() <= COUNTABLE:
        everything = (Priced(values, pricer.of(values)) for values in grid(pricer.search.space))
        found = next((one for one in everything if one.price.fits), found)
    if not found.price.fits:
        raise SpecError(_problems(pricer.search, found))


def _problems(search: Search, found: Priced) -> list[Problem]:
    if found.price.excess[VALID] > 0:
        at = (search.node.mapping or {}).get("space", search.node)
        return [Problem(place=at.place, path="space", rule=f"no candidate fits: {found.price.reason}")]
    broken = [one for one in search.budgets if excess(one, found.price.costs.get(one.measure, 0.0)) > 0]
    return [_problem(budget, found) for budget in broken]


def _problem(budget: Budget, found: Priced) -> Problem:
    values = ", ".join(f"{name}: {value}" for name, value in list(found.values.items())[:8])
    rule = f"the space has no candidate that keeps {budget}; the nearest that was found: "
    return Problem(
        place=budget.place,
        path=f"budgets.{budget.measure}",
        rule=rule + budget.explain(found.price.costs[budget.measure]),
        suggestion=values + (", ..." if len(found.values) > 8 else ""),
    )
