"""Which trainings end early, by what they have come to after each epoch; a rule of one objective, the primary one.

median: Golovin et al., "Google Vizier" (2017): the best so far is below the median of what those that ran to their end
had come to at that epoch. asha: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020), algorithm 2,
as trainings that cannot be taken up again need it: at epochs first, first * keep, first * keep^2, ... one goes on that
is among the best 1/keep of those that have come as far, or the best of them while they are fewer than `keep`.
halving: the same, but nobody ends before `keep` have come as far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from ..study.frames import StoppingFrame


@dataclass
class Stopping:
    """What trainings have come to. sign: 1 where more is better, -1 where less is."""

    frame: StoppingFrame
    sign: int
    _curves: dict[int, dict[int, float]] = field(default_factory=dict)  # number -> epoch -> signed value
    _whole: set[int] = field(default_factory=set)

    @property
    def asks(self) -> bool:
        """Whether any training may end early."""
        return self.frame.type != "none"

    def restore(self, number: int, curve: Mapping[int, float], *, whole: bool) -> None:
        """A training of the record; whole: it was not ended early."""
        self._curves[number] = {epoch: self.sign * value for epoch, value in curve.items()}
        if whole:
            self._whole.add(number)

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Whether a training ends, which has come to `value` after `epoch`, from 1."""
        curve = self._curves.setdefault(number, {})
        curve[epoch] = self.sign * value
        if not self.asks or epoch < (self.frame.first or 1):
            return False
        if self.frame.type == "median":
            return self._below_median(number, epoch)
        return self._is_rung(epoch) and not self._promoted(number, epoch)

    def end(self, number: int, *, whole: bool) -> None:
        """A training is at its end."""
        if whole:
            self._whole.add(number)

    def _below_median(self, number: int, epoch: int) -> bool:
        whole = self._whole - {number}
        others = [self._curves[other][epoch] for other in whole if epoch in self._curves[other]]
        if len(whole) < (self.frame.trials or 5) or not others:
            return False
        return max(value for at, value in self._curves[number].items() if at <= epoch) < median(others)

    def _is_rung(self, epoch: int) -> bool:
        rung = self.frame.first or 1
        while rung < epoch:
            rung *= self.frame.keep or 3
        return rung == epoch

    def _promoted(self, number: int, epoch: int) -> bool:
        keep, own = self.frame.keep or 3, self._curves[number][epoch]
        values = sorted((curve[epoch] for curve in self._curves.values() if epoch in curve), reverse=True)
        if self.frame.type == "halving" and len(values) < keep:
            return True
        return own >= values[max(0, len(values) // keep - 1)]
