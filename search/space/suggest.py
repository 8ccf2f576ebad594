"""Where the values of candidates come from, other than from a sampler: chance, a candidate with changes, a grid."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .space import Candidate, Space, Value


def dice(*seed: object) -> random.Random:
    """A generator that is the same in any process for the same seeds, such as a study's and a trial's number."""
    return random.Random("/".join(map(str, seed)))


@dataclass
class Dice:
    """Draws evenly."""

    random: random.Random

    def choice(self, name: str, labels: Sequence[str]) -> str:
        """One of the labels."""
        return labels[self.random.randrange(len(labels))]

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        """A whole number of the range."""
        if log:  # as samplers do: evenly in the logarithm of the range with half a step more on both sides
            drawn = math.exp(self.random.uniform(math.log(low - 0.5), math.log(high + 0.5)))
            return min(max(round(drawn), low), high)
        return self.random.randrange(low, high + 1, step)

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """A number of the range."""
        if log:
            return min(max(math.exp(self.random.uniform(math.log(low), math.log(high))), low), high)
        return self.random.uniform(low, high)


@dataclass
class Changed:
    """A candidate with some values set or drawn anew; what is there only because of them is drawn, too."""

    candidate: Candidate
    other: Dice
    anew: Collection[str] = ()
    set: Mapping[str, Value] = field(default_factory=dict)

    def _kept(self, name: str) -> Value | None:
        return self.set.get(name, None if name in self.anew else self.candidate.get(name))

    def choice(self, name: str, labels: Sequence[str]) -> str:
        """The label as it was, or another one."""
        kept = self._kept(name)
        if kept in labels:
            return str(kept)
        others = [label for label in labels if label != self.candidate.get(name)]
        return self.other.choice(name, others or labels)

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        """The number as it was, or another one."""
        kept = self._kept(name)
        if isinstance(kept, int) and low <= kept <= high and (kept - low) % step == 0:
            return kept
        drawn = self.other.integer(name, low, high, step, log)
        last = low + (high - low) // step * step
        if drawn == self.candidate.get(name) and last > low:
            return drawn + step if drawn < last else drawn - step
        return drawn

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """The number as it was, or another one."""
        kept = self._kept(name)
        return (
            float(kept)
            if isinstance(kept, int | float) and low <= kept <= high
            else self.other.real(name, low, high, log)
        )


class _Odometer:
    """Counts through what it is asked for: the last value asked for moves first, as in nested loops."""

    def __init__(self, points: int) -> None:
        self.points = points
        self.digits: list[int] = []
        self.sizes: list[int] = []

    def start(self) -> None:
        """Before a candidate is drawn."""
        self.sizes = []

    def _digit(self, size: int) -> int:
        at = len(self.sizes)
        self.sizes.append(size)
        if at == len(self.digits):
            self.digits.append(0)
        return self.digits[at]

    def advance(self) -> bool:
        """To the next candidate; false behind the last one."""
        del self.digits[len(self.sizes) :]
        while self.digits and self.digits[-1] + 1 == self.sizes[len(self.digits) - 1]:
            self.digits.pop()
        if not self.digits:
            return False
        self.digits[-1] += 1
        return True

    def choice(self, name: str, labels: Sequence[str]) -> str:
        """The next label."""
        return labels[self._digit(len(labels))]

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        """The next number."""
        return low + step * self._digit((high - low) // step + 1)

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """The next of `points` numbers from one end to the other."""
        share = self._digit(1 if low == high else self.points) / (self.points - 1)
        return low * (high / low) ** share if log else low + share * (high - low)


def grid(space: Space, points: int = 5) -> Iterator[dict[str, Value]]:
    """Every candidate of a space, the last parameter moving first; `points` values of a range of real numbers."""
    odometer = _Odometer(points)
    while True:
        odometer.start()
        yield space.draw(odometer)[0]
        if not odometer.advance():
            return


def alternatives(space: Space, candidate: Candidate, name: str, most: int = 12) -> list[Value]:
    """Other values that a parameter of a candidate could have: its neighbours and the ends, or other labels."""
    asked = _Alternatives(candidate, name, most)
    space.draw(asked)
    return [value for value in asked.found if value != candidate[name]]


class _Alternatives(Changed):
    def __init__(self, candidate: Candidate, name: str, most: int) -> None:
        super().__init__(candidate, Dice(dice(name)))
        self.name, self.most = name, most
        self.found: list[Value] = []

    def choice(self, name: str, labels: Sequence[str]) -> str:
        if name == self.name:
            few = labels if len(labels) <= self.most else self.other.random.sample(list(labels), self.most)
            self.found = [*few]
        return super().choice(name, labels)

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        value = super().integer(name, low, high, step, log)
        if name == self.name:
            last = low + (high - low) // step * step
            near = {low, last, max(low, value - step), min(last, value + step)}
            self.found = [*sorted(near | {low + (last - low) // step // 2 * step})]
        return value

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        value = super().real(name, low, high, log)
        if name == self.name:
            self.found = [*sorted({low, high, (low + value) / 2, (value + high) / 2})]
        return value
