"""Pictures of an ablation: accuracy against cost, and differences to the reference with their intervals, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archspec.drawing.style import BODY_SIZE, FADED, PALETTE, figure_style, figure_svg, text_width

from ..figures import HEIGHT, RADIUS, framed_axes, name_points, short_name
from ..sheet import HEADINGS, shown_cost
from .comparison import CONFIDENCE, Difference, Summary
from .result import METRICS, AblationResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE = 22.0  # from one row of the second picture to the next
NAMES = 170.0  # the most room for its rows' names


@dataclass(frozen=True, slots=True)
class Point:
    """A row of the first picture."""

    name: str
    cost: float
    summary: Summary


def draw_costs(result: AblationResult) -> bytes | None:
    """The first metric of each row over its cost, with the deviation over seeds; None without trained rows."""
    metric, column = result.metrics[0], cost_axis(result)
    summaries = result.summaries(metric)
    points = [Point(row.name, row.costs[column], summaries[row.name]) for row in result.rows if row.name in summaries]
    if not points:
        return None
    heading = METRICS[metric][0]
    title = f"{result.name}: {heading} against {HEADINGS[column]}"
    bars = "; bars: one standard deviation over seeds" if any(point.summary.deviation for point in points) else ""
    note = f"red: “{result.reference}”{bars}"
    with figure_style():
        figure = _scatter(points, result.reference, title, note, (HEADINGS[column], heading))
    about = "; ".join(
        f"{point.name}: {shown_cost(column, point.cost)} {HEADINGS[column]}, {heading} {_spread(point.summary)}"
        for point in points
    )
    return figure_svg(figure, title=title, about=f"{about}.")


def draw_differences(result: AblationResult) -> bytes | None:
    """What each row gains or loses, with the interval; None where there is nothing to compare."""
    metric = result.metrics[0]
    found = {name: change for name, change in result.differences(metric).items() if name != result.reference}
    if not found:
        return None
    heading = METRICS[metric][0].removesuffix(" %")
    unit = f"{heading}, percentage points" if METRICS[metric][0].endswith("%") else heading
    note = f"to “{result.reference}” over the same seeds, with {CONFIDENCE:.0%} intervals"
    if any(map(_is_significant, found.values())):
        note += f"; red: p < {1 - CONFIDENCE:.2g} after correction"
    title = f"{result.name}: difference in {heading}"
    with figure_style():
        figure = _forest(found, title, note, unit)
    about = "; ".join(f"{name}: {_interval(change)}" for name, change in found.items())
    return figure_svg(figure, title=title, about=f"{about}.")


def cost_axis(result: AblationResult) -> str:
    """MACs where rows differ in them, else the first cost in which they do."""
    shown = [column for column in ("macs", "params", *result.cost_columns) if column in result.rows[0].costs]
    varied = [column for column in shown if len({row.costs[column] for row in result.rows}) > 1]
    return (varied or shown)[0]


def _spread(summary: Summary) -> str:
    return f"{summary.mean:.4g}" + (f" ± {summary.deviation:.2g}" if summary.deviation is not None else "")


def _interval(change: Difference) -> str:
    known = change.low is not None and change.high is not None
    return f"{change.mean:+.4g}" + (f" from {change.low:+.4g} to {change.high:+.4g}" if known else "")


def _scatter(points: Sequence[Point], reference: str, title: str, note: str, names: tuple[str, str]) -> Figure:
    from matplotlib.ticker import EngFormatter

    figure, axes = framed_axes(title, note, HEIGHT)
    axes.grid(True)
    for point in points:
        axes.errorbar(
            [point.cost],
            [point.summary.mean],
            yerr=[point.summary.deviation or 0.0],
            fmt="o",
            markersize=2 * RADIUS,
            color=PALETTE[2] if point.name == reference else PALETTE[0],
            ecolor=FADED,
            elinewidth=0.9,
            capsize=2.5,
        )
    axes.margins(x=0.16, y=0.14)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    name_points(axes, [(point.name, point.cost, point.summary.mean) for point in points])
    return figure


def _forest(changes: dict[str, Difference], title: str, note: str, unit: str) -> Figure:
    names = [short_name(name) for name in changes]
    left = min(NAMES, max(text_width(name, BODY_SIZE) for name in names)) + 24
    figure, axes = framed_axes(title, note, LINE * len(changes) + 10, left=left)
    axes.axvline(0, color=FADED, linewidth=0.9)
    axes.grid(True, axis="x")
    for index, change in enumerate(changes.values()):
        if change.low is not None and change.high is not None:
            axes.plot([change.low, change.high], [index, index], color=PALETTE[0], linewidth=1.6)
        colour = PALETTE[2] if _is_significant(change) else PALETTE[0]
        axes.plot([change.mean], [index], marker="o", color=colour, markersize=6)
    axes.set_ylim(len(changes) - 0.5, -0.5)
    axes.set_yticks(range(len(changes)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(unit)
    return figure


def _is_significant(change: Difference) -> bool:
    return change.p_corrected is not None and change.p_corrected < 1 - CONFIDENCE
