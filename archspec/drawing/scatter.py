"""Networks among one another: multiply-accumulates against published top-1 accuracy, parameters as area."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archspec.cost import plan_cost
from archspec.drawing.labels import Disc, Spot, place_labels
from archspec.drawing.style import (
    FADED,
    INK,
    PALETTE,
    SMALL_SIZE,
    TITLE_SIZE,
    figure_style,
    figure_svg,
    text_width,
    wrapped,
)
from archspec.errors import UsageError
from archspec.plan import Plan
from archspec.quantities import humanize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, PLOT_HEIGHT = 440.0, 320.0
LEFT, RIGHT, AXIS = 46.0, 12.0, 36.0  # around the axes; AXIS holds the ticks' labels and the axis's name
LABEL_SIZE = 8.0
LARGEST = 320.0  # area of the disc with the most parameters
GROWN = (1.0, 1.2, 1.4, 1.6, 2.0)  # how much higher the plot gets until every name has a good place
CROWD, MOST_GROWN = 45, 3  # with more points than this it starts higher, up to so many times
# Where the palette comes to its end, its hues come again in another form, of which matplotlib draws an area of its own:
# a square of side 1 where the disc has the diameter 1.
MARKERS = (("o", 1.0), ("s", math.pi / 4), ("D", math.pi / 4), ("^", math.pi / 2))
LEGEND_LINE = 14.0


@dataclass(frozen=True, slots=True)
class Point:
    """A network with a published accuracy; top1 in percent."""

    name: str
    macs: int
    params: int
    top1: float

    @property
    def family(self) -> str:
        """The name up to its first mark, without the digits at its end: `vit` of `vit_tiny_cb`."""
        return re.split(r"[_.-]", self.name)[0].rstrip("0123456789") or self.name

    @property
    def tip(self) -> str:
        """The network in words."""
        return f"{self.name}: {humanize(self.params)} parameters, {humanize(self.macs)} MACs, top-1 {self.top1:g} %"


@dataclass(frozen=True, slots=True)
class Scatter:
    """The picture, and the names that it does not show."""

    svg: bytes
    not_drawn: tuple[str, ...]  # they have no published top-1, or no MACs
    not_named: tuple[str, ...]  # their points are drawn; their names found no room


def draw_scatter(
    plans: Sequence[Plan], *, title: str | None = None, log: bool = True, changed: bool = False
) -> Scatter:
    """Several plans in one picture; plans of one name and cost are one point.

    log: the scale of the MACs. changed: the plans are not those that the accuracies were published for.
    Raises UsageError where no network has a published top-1; CountError for an operation without a formula.
    """
    points, not_drawn = _points(plans)
    if not points:
        raise UsageError(
            f"none of {', '.join(not_drawn)} has a published top-1 accuracy to be drawn at "
            "(published: {top1: ...} in the spec; a single SPEC is drawn as a plan)"
        )
    chosen = title or "Compute, parameters and published accuracy"
    notes = [_size_note(plans), *(["top-1 as published, for the unchanged networks"] if changed else [])]
    with figure_style():
        figure, spots = _figure(points, chosen, ", ".join(notes), log)
    tips = {f"network-{index}": point.tip for index, point in enumerate(points)}
    svg = figure_svg(figure, title=chosen, about=". ".join(tips.values()) + ".", tips=tips)
    named = zip(points, spots, strict=True)
    return Scatter(svg, tuple(not_drawn), tuple(point.name for point, spot in named if spot is None))


def _points(plans: Iterable[Plan]) -> tuple[list[Point], list[str]]:
    """Each once, the largest first so that no disc hides a smaller one; and the names of those that cannot be drawn."""
    points: dict[Point, None] = {}
    not_drawn = []
    for plan in plans:
        cost, published = plan_cost(plan), plan.spec.published
        if published is None or published.top1 is None or not cost.macs:
            not_drawn.append(plan.name)
        else:
            points[Point(plan.name, cost.macs, cost.params, published.top1)] = None
    return sorted(points, key=lambda point: (-point.params, point.name)), list(dict.fromkeys(not_drawn))


def _size_note(plans: Sequence[Plan]) -> str:
    sizes = {plan.source.grid for plan in plans}
    if len(sizes) > 1:
        return "MACs at each network's own input size"
    height, width = next(iter(sizes))
    return f"MACs at {height} × {width}"


def _figure(points: Sequence[Point], title: str, note: str, log: bool) -> tuple[Figure, list[Spot | None]]:
    """The figure in the least height in which every name has room, and where the names stand."""
    plot = PLOT_HEIGHT * min(max(len(points) / CROWD, 1), MOST_GROWN)
    for grown in GROWN:
        figure, axes = _frame(points, title, note, plot * grown, log)
        discs = _discs(points, axes)
        box = axes.get_window_extent()
        sizes = [(text_width(point.name, LABEL_SIZE), LABEL_SIZE) for point in points]
        spots = place_labels(discs, sizes, (box.x0 + 2, box.y0 + 2, WIDTH - 4, box.y1))
        if all(spot and spot.clear for spot in spots):
            break
    _draw_points(axes, points)
    _draw_names(axes, points, spots)
    return figure, spots


def _frame(points: Sequence[Point], title: str, note: str, plot: float, log: bool) -> tuple[Figure, Axes]:
    """Axes with their limits, title and legend, as yet without points."""
    from matplotlib.figure import Figure

    titles = wrapped(title, WIDTH - 2 * RIGHT, TITLE_SIZE, bold=True)
    notes = wrapped(note, WIDTH - 2 * RIGHT, SMALL_SIZE)
    top = RIGHT + (TITLE_SIZE + 3) * len(titles) + (SMALL_SIZE + 3) * len(notes) + 10
    legend = _legend(points)
    bottom = AXIS + 8 + LEGEND_LINE * (legend[-1].line + 1) + 12
    height = top + plot + bottom
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    axes = figure.add_axes((LEFT / WIDTH, bottom / height, (WIDTH - LEFT - RIGHT) / WIDTH, plot / height))
    _limits(axes, points, log)
    _draw_headings(figure, titles, notes)
    _draw_legend(axes, legend, bottom - AXIS - 8 - LEGEND_LINE)
    return figure, axes


def _draw_headings(figure: Figure, titles: Sequence[str], notes: Sequence[str]) -> None:
    from matplotlib.transforms import IdentityTransform

    y = figure.bbox.height - RIGHT
    for lines, size, colour, weight in ((titles, TITLE_SIZE, INK, "bold"), (notes, SMALL_SIZE, FADED, "normal")):
        for line in lines:
            y -= size
            figure.text(RIGHT, y, line, size=size, color=colour, weight=weight, transform=IdentityTransform())
            y -= 3


def _limits(axes: Axes, points: Sequence[Point], log: bool) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

    macs, top1 = [point.macs for point in points], [point.top1 for point in points]
    axes.set_ylim(*_padded(min(top1), max(top1), 0.07, 1.0))
    axes.set_ylabel("published ImageNet top-1 (%)")
    axes.set_xlabel("MACs per image" + (" (log scale)" if log else ""))
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    if log:
        axes.set_xscale("log")
        axes.set_xlim(min(macs) / 1.45, max(macs) * 1.9)  # names stand to the right of points rather than to the left
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, max(macs) * 1.1)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(True)
    axes.tick_params(length=3)


def _padded(low: float, high: float, share: float, least: float) -> tuple[float, float]:
    pad = max((high - low) * share, least)
    return low - pad, high + pad


def _area(params: int, points: Sequence[Point]) -> float:
    return LARGEST * params / max(max(point.params for point in points), 1)


def _discs(points: Sequence[Point], axes: Axes) -> list[Disc]:
    """The points on the canvas, in units of it; whatever the marker, a disc of its area stands for it."""
    places = axes.transData.transform([(point.macs, point.top1) for point in points])
    radii = [(_area(point.params, points) ** 0.5) / 2 for point in points]  # matplotlib's area is the square around it
    return [Disc(float(x), float(y), radius) for (x, y), radius in zip(places, radii, strict=True)]


def _looks(points: Sequence[Point]) -> dict[str, tuple[str, str, float]]:
    """Colour and marker of each family, by name, and what its area is to be multiplied with."""
    families = sorted({point.family for point in points})
    size = len(PALETTE)
    return {
        family: (PALETTE[index % size], *MARKERS[index // size % len(MARKERS)]) for index, family in enumerate(families)
    }


def _draw_points(axes: Axes, points: Sequence[Point]) -> None:
    looks = _looks(points)
    for index, point in enumerate(points):
        colour, marker, factor = looks[point.family]
        axes.scatter(
            [point.macs],
            [point.top1],
            s=factor * _area(point.params, points),
            color=colour,
            marker=marker,
            alpha=0.85,
            edgecolors="white",
            linewidths=0.8,
            zorder=2,
            gid=f"network-{index}",
        )


def _draw_names(axes: Axes, points: Sequence[Point], spots: Sequence[Spot | None]) -> None:
    """In units of the canvas, which at 72 dots an inch are matplotlib's own."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import IdentityTransform

    for point, spot in zip(points, spots, strict=True):
        if spot is None:
            continue
        if spot.leader:
            x1, y1, x2, y2 = spot.leader
            axes.add_artist(
                Line2D([x1, x2], [y1, y2], transform=IdentityTransform(), color=FADED, linewidth=0.6, zorder=3)
            )
        left, bottom, _, top = spot.box
        baseline = bottom + 0.22 * (top - bottom)
        axes.text(left, baseline, point.name, size=LABEL_SIZE, transform=IdentityTransform(), zorder=4)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the legend: where it stands, and the marker in front of its text."""

    text: str
    x: float
    line: int
    area: float
    colour: str
    marker: str


def _legend(points: Sequence[Point]) -> list[_Entry]:
    """The families, then sizes on a line of their own."""
    entries = []
    x, line = LEFT, 0
    for family, (colour, marker, _) in _looks(points).items():
        width = 14 + text_width(family, SMALL_SIZE)
        if x > LEFT and x + width > WIDTH - RIGHT:
            x, line = LEFT, line + 1
        entries.append(_Entry(family, x, line, 50.0, colour, marker))
        x += width + 12
    x, line = LEFT, line + 1
    for params in _round_sizes(max(point.params for point in points)):
        text = f"{humanize(params, 0)} params"
        area = _area(params, points)
        entries.append(_Entry(text, x, line, area, FADED, "o"))
        x += area**0.5 + 8 + text_width(text, SMALL_SIZE) + 12
    return entries


def _round_sizes(most: int) -> list[int]:
    """Up to three round numbers below the most, each about a quarter of the next."""
    sizes = [digit * 10**power for power in range(15) for digit in (1, 2, 5) if digit * 10**power <= most]
    return sizes[::-1][:5:2][::-1]


def _draw_legend(axes: Axes, entries: Sequence[_Entry], y: float) -> None:
    """y: of the first line."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import IdentityTransform

    for entry in entries:
        side, at = entry.area**0.5, y - LEGEND_LINE * entry.line
        marker = Line2D(
            [entry.x + side / 2],
            [at + 3],
            transform=IdentityTransform(),
            linestyle="none",
            marker=entry.marker,
            markersize=side,
            color=entry.colour,
            markeredgecolor="none",
        )
        axes.figure.add_artist(marker)
        axes.figure.text(entry.x + side + 5, at, entry.text, size=SMALL_SIZE, transform=IdentityTransform())
