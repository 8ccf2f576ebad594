"""Budgets: limits and windows on what a network may cost, as a study file writes them.

budgets: {macs: <=1G, params: 5M..12M, train_memory: <=16GiB, latency: <=20ms}

A lower limit needs quotes, `">=5M"`: YAML takes a bare `>` for the head of a long text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BeforeValidator

from archspec.errors import Place, Problem, shorten
from archspec.quantities import Dimension, Quantity, humanize, parse_quantity
from archspec.tree import Node
from archspec.validation import Frame, read_frame

Measure: TypeAlias = Literal["params", "macs", "activations", "train_memory", "latency"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
_DIMENSIONS: dict[Measure, Dimension] = {"train_memory": "bytes", "latency": "seconds"}  # the others are counts
_EXAMPLES: dict[Dimension, str] = {
    "count": "<=1G or 5M..12M",
    "bytes": "<=16GiB or 8GiB..16GiB",
    "seconds": "<=20ms or 10ms..20ms",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one measure may be: from `lowest` to `highest`, both included; None is no limit on that side."""

    measure: Measure
    lowest: Quantity | None
    highest: Quantity | None
    place: Place | None = field(default=None, compare=False, repr=False)

    def check(self, value: float) -> bool:
        """Whether a value, in ones, bytes or seconds, is within the budget."""
        exact = Decimal(value)
        over = self.highest is not None and exact > self.highest.value
        under = self.lowest is not None and exact < self.lowest.value
        return not (over or under)

    def explain(self, value: float) -> str:
        """For a value outside: `macs 1.234G, more than 1G`."""
        over = self.highest is not None and Decimal(value) > self.highest.value
        limit = self.highest if over else self.lowest
        assert limit is not None, "a value is only outside of a limit that there is"
        return f"{self.measure} {_shown(value, limit.dimension)}, {'more' if over else 'less'} than {limit.text}"

    def __str__(self) -> str:
        """As a study file writes it: `macs: <=1G`."""
        if self.lowest is None or self.highest is None:
            sign, limit = ("<=", self.highest) if self.lowest is None else (">=", self.lowest)
            return f"{self.measure}: {sign}{limit.text if limit else ''}"
        return f"{self.measure}: {self.lowest.text}..{self.highest.text}"


def _shown(value: float, dimension: Dimension) -> str:
    if dimension == "seconds":
        return f"{1000 * value:.4g}ms"
    return humanize(value) + ("B" if dimension == "bytes" else "")


def parse_budget(measure: Measure, text: object) -> Budget:
    """The budget that a person wrote for a measure; raises a ValueError that names the rule."""
    dimension = _DIMENSIONS.get(measure, "count")
    if not isinstance(text, str):
        raise ValueError(f"is no budget, such as {_EXAMPLES[dimension]}")
    try:
        lowest, highest = _ends(text.strip(), dimension)
    except ValueError as error:
        raise ValueError(f"{shorten(text)!r}: {error}") from None
    return Budget(measure=measure, lowest=lowest, highest=highest)


def _ends(text: str, dimension: Dimension) -> tuple[Quantity | None, Quantity | None]:
    if text.startswith("<="):
        return None, parse_quantity(text[2:], dimension)
    if text.startswith(">="):
        return parse_quantity(text[2:], dimension), None
    first, dots, last = text.partition("..")
    if not dots:
        raise ValueError(f"a limit or a window is expected, such as {_EXAMPLES[dimension]}")
    lowest, highest = parse_quantity(first, dimension), parse_quantity(last, dimension)
    if highest.unit and not lowest.unit and lowest.number:  # 5..12M, which reads like 5M..12M and is not
        raise ValueError(
            f"the window starts at {lowest.text} without a unit; write {lowest.text}{highest.unit}..{highest.text}"
        )
    if lowest.value > highest.value:
        raise ValueError(f"the window ends before it starts; write {highest.text}..{lowest.text}")
    return lowest, highest


def _for(measure: Measure) -> BeforeValidator:
    def parse(value: Any) -> Budget:
        return parse_budget(measure, value)

    return BeforeValidator(parse)


class BudgetsFrame(Frame):
    """The measures that a study may limit."""

    called = "budgets"
    grammar = "study"

    params: Annotated[Budget | None, _for("params")] = None
    macs: Annotated[Budget | None, _for("macs")] = None
    activations: Annotated[Budget | None, _for("activations")] = None
    train_memory: Annotated[Budget | None, _for("train_memory")] = None
    latency: Annotated[Budget | None, _for("latency")] = None


def read_budgets(node: Node, problems: list[Problem]) -> tuple[Budget, ...]:
    """The budgets of a study, each with its place; adds what is wrong to `problems`."""
    frame = read_frame(BudgetsFrame, node, problems)
    if frame is None:
        return ()
    found = [getattr(frame, measure) for measure in node.mapping or ()]
    return tuple(replace(budget, place=(node.mapping or {})[budget.measure].place) for budget in found)
