"""Pictures of a search, as SVG: the front, the best so far, what mattered, and how the budgets were used.

Many candidates are thinned out evenly, the best always stay, and the picture says so: a file of a megabyte helps none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from archspec.drawing.style import (
    BODY_SIZE,
    FADED,
    PALETTE,
    RULE,
    figure_style,
    figure_svg,
    text_width,
)

from ..budgets import Budget
from ..figures import HEIGHT, framed_axes, name_points, short_name, short_parameter
from .parallel import draw_parallel
from .results import SHOWN, Found, SearchResults, evenly, heading, thinned, tip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 12  # of the front, evenly
BARS = 16  # parameters
LINE = 20.0  # from one bar to the next
NAMES = 190.0  # the most room for parameters' names
BINS = 30
BEYOND = 3.0  # times the limit, as far as the picture of a budget goes
SPREAD = 30.0  # from the least to the most, above which a scale is logarithmic
UNITS = {"accuracy": 100.0, "train_memory": 1 / 2**30, "latency": 1000.0}
AXES = {"train_memory": "memory (GiB)", "latency": "latency (ms)", "macs": "MACs"}
OTHERS, BEST = PALETTE[0], PALETTE[2]


def draw_all(results: SearchResults) -> dict[str, bytes | None]:
    """Every picture by its file's name; None for what cannot be drawn yet."""

    names = front_measures(results)
    budgets = results.search.budgets
    return {
        **{f"front_{name}.svg": draw_front(results, name) for name in names},
        "history.svg": draw_history(results),
        "importance.svg": draw_importance(results),
        "parallel.svg": draw_parallel(results),
        **{f"budget_{budget.measure}.svg": draw_budget(results, budget) for budget in budgets},
    }


def front_measures(results: SearchResults) -> tuple[str, ...]:
    """What the primary objective is drawn over: the other objectives, or else what the budgets limit."""
    others = tuple(one.name for one in results.search.objectives[1:])
    return others or tuple(budget.measure for budget in results.search.budgets)


def draw_front(results: SearchResults, name: str) -> bytes | None:
    """The primary objective over another measure; the best are red, with their trials' numbers."""
    primary = results.search.primary.name
    points = [one for one in thinned(results) if results.value(one, name) is not None]
    if not points:
        return None
    title = f"{results.search.name}: {heading(primary)} against {heading(name)}"
    note = "red: " + ("the Pareto front" if len(results.search.objectives) > 1 else "the best") + " by trial"
    with figure_style():
        figure, axes = framed_axes(title, _note(results, note), HEIGHT)
        axes.grid(True)
        _dots(axes, results, points, name)
        _limit_lines(axes, results, name)
        axes.margins(x=0.1, y=0.12)
        _scale(axes, "x", name, [_at(results, one, name) for one in points])
        _scale(axes, "y", primary, [])
        best = [one for one in results.best if results.value(one, name) is not None]
        name_points(axes, [(str(one.number), *_place(results, one, name)) for one in evenly(best, NAMED)])
    tips = {f"trial-{one.number}": tip(results, one) for one in results.best}
    return figure_svg(figure, title=title, about=". ".join(tips.values()) + ".", tips=tips)


def _dots(axes: Axes, results: SearchResults, points: Sequence[Found], name: str) -> None:
    best = {one.number for one in results.best}
    others = [_place(results, one, name) for one in points if one.number not in best]
    axes.scatter([x for x, _ in others], [y for _, y in others], s=14, color=OTHERS, alpha=0.45, linewidths=0)
    for one in points:
        if one.number in best:
            x, y = _place(results, one, name)
            axes.scatter([x], [y], s=40, color=BEST, linewidths=0, zorder=3, gid=f"trial-{one.number}")


def _place(results: SearchResults, one: Found, name: str) -> tuple[float, float]:
    return _at(results, one, name), _at(results, one, results.search.primary.name)


def _at(results: SearchResults, one: Found, name: str) -> float:
    value = results.value(one, name)
    assert value is not None, "points have both"
    return value * UNITS.get(name, 1.0)


def _limit_lines(axes: Axes, results: SearchResults, name: str) -> None:
    """The budget's ends, where they are near what was found."""
    for budget in results.search.budgets:
        if budget.measure == name:
            low, high = axes.get_xlim()
            for end in _ends(budget):
                if low - (high - low) / 2 <= end <= high + (high - low) / 2:
                    axes.axvline(end, color=FADED, linewidth=0.9, linestyle=(0, (4, 3)))


def _ends(budget: Budget) -> list[float]:
    unit = UNITS.get(budget.measure, 1.0)
    return [float(end.value) * unit for end in (budget.lowest, budget.highest) if end is not None]


def _scale(axes: Axes, which: str, name: str, values: Sequence[float]) -> None:
    """Units and the axis's name; a logarithm where the values spread far."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    if values and min(values) > 0 and max(values) > SPREAD * min(values):
        axes.set(**{f"{which}scale": "log"})
    else:
        axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    if name in ("params", "macs", "activations"):
        axis.set_major_formatter(EngFormatter(sep=""))
    elif hasattr(formatter := axis.get_major_formatter(), "set_useOffset"):
        formatter.set_useOffset(False)
    axis.set_label_text(AXES.get(name, heading(name)))


def draw_history(results: SearchResults) -> bytes | None:
    """What each candidate came to, in the order of the trials, and the best so far."""
    primary = results.search.primary
    if not results.found:
        return None
    counts = {one.number: count for count, one in enumerate(results.found, start=1)}
    values = [_at(results, one, primary.name) for one in results.found]
    so_far = list(best_so_far(values, primary.sign))
    title = f"{results.search.name}: the best {primary.name} so far"
    shown = thinned(results)
    with figure_style():
        figure, axes = framed_axes(title, _note(results, "dots: candidates; line: the best until then"), HEIGHT - 60)
        axes.grid(True)
        axes.scatter(
            [counts[one.number] for one in shown],
            [_at(results, one, primary.name) for one in shown],
            s=14,
            color=OTHERS,
            alpha=0.45,
            linewidths=0,
        )
        steps = [index for index, value in enumerate(so_far) if not index or value != so_far[index - 1]]
        xs = [*(index + 1 for index in steps), len(so_far)]
        axes.plot(xs, [*(so_far[index] for index in steps), so_far[-1]], color=BEST, drawstyle="steps-post")
        _scale(axes, "y", primary.name, [])
        axes.set_xlabel("candidates evaluated")
    best = max(results.found, key=lambda one: primary.sign * one.objectives[0])
    about = f"After {len(values)} candidates the best is {tip(results, best)}."
    return figure_svg(figure, title=title, about=about)


def best_so_far(values: Sequence[float], sign: int) -> Iterator[float]:
    """The best value until each one; sign: 1 where more is better, -1 where less is."""
    best = values[0]
    for value in values:
        best = value if sign * value > sign * best else best
        yield best


def draw_importance(results: SearchResults) -> bytes | None:
    """A bar for each parameter and objective; None where there is too little to tell."""
    shares = {name: found for name, found in results.importances.items() if found}
    if not shares:
        return None
    first = next(iter(shares.values()))
    names = sorted(first, key=lambda name: (-max(found.get(name, 0.0) for found in shares.values()), name))[:BARS]
    title = f"{results.search.name}: what mattered"
    note = "PED-ANOVA: how far the best candidates' values differ from all candidates', in shares"
    if len(first) > BARS:
        note += f"; the first {BARS} of {len(first)} parameters"
    with figure_style():
        figure = _bars(names, shares, title, note)
    about = "; ".join(
        f"{objective}: " + ", ".join(f"{name} {100 * found[name]:.0f} %" for name in names)
        for objective, found in shares.items()
    )
    return figure_svg(figure, title=title, about=f"{about}.")


def _bars(names: Sequence[str], shares: dict[str, dict[str, float]], title: str, note: str) -> Figure:
    called = [short_name(short_parameter(name)) for name in names]
    left = min(NAMES, max(text_width(name, BODY_SIZE) for name in called)) + 24
    figure, axes = framed_axes(title, note, LINE * len(names) + 10, left=left)
    axes.grid(True, axis="x")
    height = 0.72 / len(shares)
    for index, (objective, found) in enumerate(shares.items()):
        places = [row + (index - (len(shares) - 1) / 2) * height for row in range(len(names))]
        values = [100 * found[name] for name in names]
        axes.barh(places, values, height=height, color=PALETTE[index % len(PALETTE)], label=objective)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), called)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("share of the importance (%)")
    if len(shares) > 1:
        axes.legend(loc="lower right")
    return figure


def draw_budget(results: SearchResults, budget: Budget) -> bytes | None:
    """How many proposals cost how much; those over the limit were refused unbuilt."""
    costs = [
        (trial.user_attrs["costs"][budget.measure], trial.user_attrs["kind"] == "refused")
        for trial in results.trials
        if budget.measure in trial.user_attrs["costs"] and trial.user_attrs["kind"] != "duplicate"
    ]
    if not costs:
        return None
    from matplotlib.ticker import MaxNLocator

    unit, ends = UNITS.get(budget.measure, 1.0), _ends(budget)
    most = BEYOND * max(ends) if max(ends) else float("inf")
    shown = [(min(cost * unit, most), refused) for cost, refused in costs]
    beyond = sum(cost * unit > most for cost, _ in costs)
    title = f"{results.search.name}: proposals by {heading(budget.measure)}"
    note = f"dashed: {budget}"
    if beyond:
        note += f"; {beyond} of more than {BEYOND:g} times the limit stand at the right end"
    with figure_style():
        figure, axes = framed_axes(title, note, HEIGHT - 140)
        groups = [[cost for cost, refused in shown if refused is which] for which in (False, True)]
        labels = ("evaluated, or known", "refused")
        axes.hist(groups, bins=BINS, stacked=True, color=[OTHERS, RULE], label=labels)
        for end in ends:
            axes.axvline(end, color=BEST, linewidth=1.2, linestyle=(0, (4, 3)))
        _scale(axes, "x", budget.measure, [])
        axes.set_ylabel("proposals")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(loc="best")
    kept, refused = map(len, groups)
    about = f"{kept} proposals were taken, {refused} refused; {budget}."
    return figure_svg(figure, title=title, about=about)


def _note(results: SearchResults, text: str) -> str:
    return text + (f"; {SHOWN:,} of {len(results.found):,} are drawn" if len(results.found) > SHOWN else "")
