"""What the pictures of studies share: a frame with a title, points with names that keep clear of each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from archspec.drawing.labels import Disc, place_labels
from archspec.drawing.style import FADED, INK, SMALL_SIZE, TITLE_SIZE, text_width, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 460.0
HEIGHT = 300.0  # of the axes of a picture with points
LEFT, RIGHT, BOTTOM = 56.0, 14.0, 40.0
LABEL_SIZE = 8.0
RADIUS = 4.0
NAME_LENGTH = 34


def framed_axes(
    title: str,
    note: str,
    plot_height: float,
    *,
    left: float = LEFT,
    right: float = RIGHT,
    bottom: float = BOTTOM,
    width: float = WIDTH,
) -> tuple[Figure, Axes]:
    """A figure with its title in as many lines as it needs, and the axes under it; lengths in the SVG's units."""
    from matplotlib.figure import Figure

    lines = wrapped(title, width - 24, TITLE_SIZE, bold=True)
    notes = wrapped(note, width - 24, SMALL_SIZE) if note else []
    top = 12 + 17 * len(lines) + 13 * len(notes) + 8
    height = top + plot_height + bottom
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, plot_height / height), facecolor="none"
    )
    for index, line in enumerate(lines):
        y = 1 - (10 + 17 * index + TITLE_SIZE) / height
        figure.text(12 / width, y, line, size=TITLE_SIZE, weight="bold", color=INK)
    for index, line in enumerate(notes):
        y = 1 - (10 + 17 * len(lines) + 13 * index + SMALL_SIZE) / height
        figure.text(12 / width, y, line, size=SMALL_SIZE, color=FADED)
    axes.tick_params(length=3)
    return figure, axes


def name_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write names beside points, (name, x, y) in the axes' own units; one that finds no room is left out.

    Comes last: a point that is drawn later may move the axes' limits.
    """
    from matplotlib.lines import Line2D
    from matplotlib.transforms import IdentityTransform

    axes.autoscale_view()  # matplotlib would do it later, and the points would move
    places = axes.transData.transform([(x, y) for _, x, y in points])
    discs = [Disc(float(x), float(y), RADIUS) for x, y in places]  # at 72 dots an inch, in units of the SVG
    names = [short_name(name) for name, _, _ in points]
    sizes = [(text_width(name, LABEL_SIZE), 1.2 * LABEL_SIZE) for name in names]
    bounds = axes.get_window_extent()
    spots = place_labels(discs, sizes, (bounds.x0, bounds.y0, bounds.x1, bounds.y1))
    for name, spot in zip(names, spots, strict=True):
        if spot is None:
            continue
        if spot.leader:
            x1, y1, x2, y2 = spot.leader
            axes.add_artist(Line2D([x1, x2], [y1, y2], transform=IdentityTransform(), color=FADED, linewidth=0.6))
        left, bottom, _, top = spot.box
        at = (left, bottom + 0.22 * (top - bottom))
        axes.text(*at, name, size=LABEL_SIZE, transform=IdentityTransform(), zorder=4)


def short_name(name: str, length: int = NAME_LENGTH) -> str:
    """A name that is cut where it is longer."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def short_parameter(name: str) -> str:
    """`stages[0].mixer=mat.heads` for the heads of `{type: mat, window: 7}`."""
    return re.sub(r"=\{type: ([\w.]+)[^}]*\}", r"=\1", name)
