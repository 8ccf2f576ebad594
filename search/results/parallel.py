"""A search's candidates as lines from one parameter to the next: parallel coordinates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archspec.drawing.style import FADED, INK, PALETTE, figure_style, figure_svg

from ..figures import framed_axes, short_name, short_parameter
from .results import Found, SearchResults, heading, shown_value, thinned, tip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna.distributions import BaseDistribution

MOST_AXES = 10
LINES = 400
APART = 88.0  # from one axis to the next
HEIGHT = 230.0
ABSENT = -0.12  # where a line passes an axis whose parameter the candidate does not have
TICK_SIZE = 7.0
LABEL_LENGTH = 13
SLANT = 24  # degrees of the parameters' names
TICKS = 7  # on an axis of numbers, at most


@dataclass(frozen=True)
class Scale:
    """An axis: where each value of a parameter stands, 0 to 1, and the marks beside it."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    low: float
    high: float
    log: bool
    labels: tuple[str, ...] = ()

    def at(self, values: Any) -> float:
        """The height of a candidate's value."""
        if self.name not in values:
            return ABSENT
        value = values[self.name]
        if self.labels:
            return _place(self.labels.index(str(value)), len(self.labels))
        return _share(float(value), self.low, self.high, self.log)


def _place(index: int, count: int) -> float:
    return index / (count - 1) if count > 1 else 0.5


def _share(value: float, low: float, high: float, log: bool) -> float:
    from math import log as ln

    if low == high:
        return 0.5
    return ln(value / low) / ln(high / low) if log else (value - low) / (high - low)


def draw_parallel(results: SearchResults) -> bytes | None:
    """The parameters that mattered most, a line a candidate; the best are red. None without two parameters."""
    found = thinned(results, LINES)
    scales = _scales(results)
    if not found or len(scales) < 2:
        return None
    primary = results.search.primary
    title = f"{results.search.name}: candidates from parameter to parameter"
    ranked = sorted(found, key=lambda one: primary.sign * one.objectives[0])
    ends = [shown_value(primary.name, one.objectives[0]) for one in (ranked[0], ranked[-1])]
    note = f"dark: good {primary.name} (pale: {heading(primary.name)} {ends[0]}, dark: {ends[1]}); red: the best"
    partial = {scale.name for scale in scales if any(scale.at(one.values) == ABSENT for one in found)}
    if partial:
        note += "; –: not there"
    width = APART * (len(scales) - 1) + 150
    with figure_style():
        figure, axes = framed_axes(title, note, HEIGHT, left=70, right=80, bottom=110, width=max(width, 380))
        _draw_lines(axes, scales, ranked, {one.number for one in results.best})
        _draw_axes(axes, scales, partial)
    tips = {f"trial-{one.number}": tip(results, one) for one in results.best}
    return figure_svg(figure, title=title, about=". ".join(tips.values()) + ".", tips=tips)


def _scales(results: SearchResults) -> list[Scale]:
    """Of parameters that varied, in the order of the space; the most important where there are many."""
    seen: dict[str, set[Any]] = {}
    distributions: dict[str, BaseDistribution] = {}
    numbers = {one.number for one in results.found}
    for trial in results.trials:
        if trial.number in numbers:
            for name, value in trial.params.items():
                seen.setdefault(name, set()).add(value)
                distributions[name] = trial.distributions[name]
    varied = [name for name, values in seen.items() if len(values) > 1]
    first = next(iter(results.importances.values()))
    chosen = set(sorted(varied, key=lambda name: -first.get(name, 0.0))[:MOST_AXES])
    order = {parameter.name: index for index, parameter in enumerate(results.search.space.parameters)}
    ordered = sorted(chosen, key=lambda name: (order.get(name.partition("=")[0], len(order)), name))
    return [_scale(name, distributions[name], seen[name]) for name in ordered]


def _scale(name: str, distribution: Any, seen: set[Any]) -> Scale:
    from optuna.distributions import CategoricalDistribution

    if isinstance(distribution, CategoricalDistribution):
        labels = tuple(str(choice) for choice in distribution.choices)
        ticks = tuple((_place(index, len(labels)), text) for index, text in enumerate(_short_labels(labels)))
        return Scale(name, ticks, 0.0, 0.0, False, labels)
    low, high, log = float(distribution.low), float(distribution.high), bool(distribution.log)
    few = len(seen) <= TICKS and all(isinstance(value, int) for value in seen)
    marks = sorted({low, high, *map(float, seen)} if few else {low, high})
    return Scale(name, tuple((_share(mark, low, high, log), f"{mark:.4g}") for mark in marks), low, high, log)


def _short_labels(labels: Sequence[str]) -> list[str]:
    """`mat` for `{type: mat, heads: 2}`, where that is plain enough."""
    types = [match[1] if (match := re.match(r"\{type: ([\w.]+)", label)) else label for label in labels]
    plain = [kind if types.count(kind) == 1 else label for kind, label in zip(types, labels, strict=True)]
    return [short_name(label, LABEL_LENGTH) for label in plain]


def _draw_lines(axes: Axes, scales: Sequence[Scale], ranked: Sequence[Found], best: set[int]) -> None:
    """The better, the darker and the later, so that it is on top."""
    for rank, one in enumerate(ranked):
        heights = [scale.at(one.values) for scale in scales]
        share = rank / max(1, len(ranked) - 1)
        if one.number not in best:
            axes.plot(range(len(scales)), heights, color=PALETTE[0], alpha=0.06 + 0.5 * share**2, linewidth=0.9)
    for one in reversed([one for one in ranked if one.number in best]):
        heights = [scale.at(one.values) for scale in scales]
        axes.plot(range(len(scales)), heights, color=PALETTE[2], linewidth=1.6, zorder=3, gid=f"trial-{one.number}")


def _draw_axes(axes: Axes, scales: Sequence[Scale], partial: set[str]) -> None:
    """partial: parameters that some candidates do not have."""
    axes.set_xlim(-0.02, len(scales) - 0.98)
    axes.set_ylim(ABSENT - 0.05, 1.05)
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    for index, scale in enumerate(scales):
        axes.plot([index, index], [0, 1], color=FADED, linewidth=0.9, zorder=4, clip_on=False)
        for height, text in scale.ticks:
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
            axes.text(
                index, height, f" {text}", size=TICK_SIZE, va="center", color=INK, zorder=5, bbox=box, clip_on=False
            )
        if scale.name in partial:
            axes.text(index, ABSENT, "– ", size=TICK_SIZE, ha="right", va="center", color=FADED)
    names = [short_name(short_parameter(scale.name), 30) for scale in scales]
    axes.set_xticks(range(len(scales)), names, rotation=SLANT, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)
