"""Where the names of points stand, so that no two meet and none hides a point."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

DISTANCES = (2.0, 6.0, 11.0, 17.0, 24.0, 32.0, 41.0, 51.0, 62.0, 75.0, 90.0)  # from the point's edge to the name
DIRECTIONS = tuple(math.pi * step / 8 for step in (0, 8, 4, 12, 2, 6, 14, 10, 1, 15, 7, 9, 3, 5, 13, 11))
LEADER = 8.0  # beyond this distance a line leads from the name to its point
STEP = 3.0  # between the places at which a leader is looked at
ATTEMPTS = 24  # those that found no good place choose first in the next; of many, fewer, since each takes longer
AIR = 1.0  # between one thing and another

Box = tuple[float, float, float, float]  # left, bottom, right, top
Boxes = NDArray[np.float64]  # (n, 4)
Circles = NDArray[np.float64]  # (n, 3): x, y, radius
_NOWHERE: Box = (math.inf, math.inf, -math.inf, -math.inf)


@dataclass(frozen=True, slots=True)
class Disc:
    """A point with its extent."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Spot:
    """The box of a name, and the two ends of its leader where there is one."""

    box: Box
    distance: float
    leader: tuple[float, float, float, float] | None
    clear: bool = True  # nobody can take the name for another disc's

    @property
    def leader_boxes(self) -> list[Box]:
        """The leader as small boxes along it; its end at its own name is left out."""
        if self.leader is None:
            return []
        x1, y1, x2, y2 = self.leader
        steps = max(int(math.hypot(x2 - x1, y2 - y1) / STEP), 1)
        points = [(x1 + (x2 - x1) * i / steps, y1 + (y2 - y1) * i / steps) for i in range(steps)]
        return [(x - 0.5, y - 0.5, x + 0.5, y + 0.5) for x, y in points]


def place_labels(discs: Sequence[Disc], sizes: Sequence[tuple[float, float]], bounds: Box) -> list[Spot | None]:
    """A place for each name, in the order of the discs; None where there is no room inside the bounds.

    sizes: (width, height) of each name, in the units of the discs. No name meets another, a leader or a disc; no leader
    meets another. Where there is room for it, no name is nearer to another's disc than to its own, and no leader
    crosses another's disc.
    """
    order = _most_crowded_first(discs)
    best: list[Spot | None] = []
    for _ in range(max(ATTEMPTS - len(discs) // 4, 2)):
        placed = _in_order(order, discs, sizes, bounds)
        if not best or _regret(placed) < _regret(best):
            best = placed
        unhappy = [index for index in order if _regret([placed[index]]) > LEADER]
        if not unhappy:
            break
        order = unhappy + [index for index in order if index not in unhappy]
    return best


def _regret(spots: Sequence[Spot | None]) -> float:
    """How far names are from their discs; not to be clear is worse, not to be there much worse."""
    return sum(1e4 if spot is None else spot.distance + (0 if spot.clear else 100) for spot in spots)


def _in_order(
    order: Sequence[int], discs: Sequence[Disc], sizes: Sequence[tuple[float, float]], bounds: Box
) -> list[Spot | None]:
    """Each takes the best place that those before it have left."""
    placed: list[Spot | None] = [None] * len(discs)
    circles = np.array([(disc.x, disc.y, disc.radius) for disc in discs])
    texts, leaders = [_NOWHERE], [_NOWHERE]
    for index in order:
        scene = _Scene(
            circles=circles,
            rivals=circles[[not _coincide(discs[index], other) for other in discs]],
            texts=np.array(texts),
            leaders=np.array(leaders),
            bounds=bounds,
        )
        placed[index] = spot = scene.choose(_candidates(discs[index], sizes[index]))
        if spot:
            texts.append(spot.box)
            leaders += spot.leader_boxes
    return placed


def _most_crowded_first(discs: Sequence[Disc]) -> list[int]:
    """By the number of discs near; the order of the discs decides between equals."""
    near = [sum(math.hypot(a.x - b.x, a.y - b.y) < DISTANCES[-1] for b in discs) for a in discs]
    return sorted(range(len(discs)), key=lambda index: -near[index])


def _coincide(disc: Disc, other: Disc) -> bool:
    """Where one lies in the other, no place for a name tells them apart."""
    return math.hypot(disc.x - other.x, disc.y - other.y) <= max(disc.radius, other.radius)


@dataclass(frozen=True, slots=True)
class _Scene:
    """What a name must keep away from."""

    circles: Circles
    rivals: Circles  # those that the name could be taken to belong to
    texts: Boxes
    leaders: Boxes
    bounds: Box

    def choose(self, spots: Iterable[Spot]) -> Spot | None:
        """The first that is clear, else the first that is admitted."""
        found = None
        for spot in spots:
            if self.admits(spot):
                if self.is_clear(spot):
                    return spot
                found = found or replace(spot, clear=False)
        return found

    def admits(self, spot: Spot) -> bool:
        """Whether a name may stand there at all."""
        left, bottom, right, top = spot.box
        low_x, low_y, high_x, high_y = self.bounds
        if left < low_x or bottom < low_y or right > high_x or top > high_y:
            return False
        if _touches(spot.box, self.circles) or _meets(spot.box, self.texts) or _meets(spot.box, self.leaders):
            return False
        return not any(_meets(box, boxes) for box in spot.leader_boxes for boxes in (self.texts, self.leaders))

    def is_clear(self, spot: Spot) -> bool:
        """Whether nobody can take the name for another disc's."""
        if _touches(spot.box, self.rivals, min(spot.distance, LEADER)):
            return False
        return not any(_touches(box, self.rivals) for box in spot.leader_boxes)


def _candidates(disc: Disc, size: tuple[float, float]) -> Iterator[Spot]:
    """From near to far, all around; to the right first."""
    width, height = size
    for distance in DISTANCES:
        for angle in DIRECTIONS:
            across, up = math.cos(angle), math.sin(angle)
            near_x, near_y = disc.x + across * (disc.radius + distance), disc.y + up * (disc.radius + distance)
            left, bottom = near_x - width * _behind(across), near_y - height * _behind(up)
            edge = (disc.x + across * disc.radius, disc.y + up * disc.radius)
            leader = (*edge, near_x, near_y) if distance > LEADER else None
            yield Spot((left, bottom, left + width, bottom + height), distance, leader)


def _behind(towards: float) -> float:
    """How much of a name stands behind its near point: none on one side, half above and below, all on the other."""
    return min(max((1 - 1.5 * towards) / 2, 0), 1)


def _touches(box: Box, circles: Circles, air: float = AIR) -> bool:
    left, bottom, right, top = box
    x, y, radius = circles.T
    across = np.maximum(np.maximum(left - x, x - right), 0)
    up = np.maximum(np.maximum(bottom - y, y - top), 0)
    return bool((np.hypot(across, up) < radius + air).any())


def _meets(box: Box, others: Boxes) -> bool:
    left, bottom, right, top = box
    apart = (
        (others[:, 0] >= right + AIR)
        | (others[:, 2] <= left - AIR)
        | (others[:, 1] >= top + AIR)
        | (others[:, 3] <= bottom - AIR)
    )
    return not bool(apart.all())
