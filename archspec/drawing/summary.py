"""What a picture of a plan says, column by column: in figures for the drawing, and in words for who does not see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from archspec.cost import Cost, plan_cost, total
from archspec.layout import Grid
from archspec.plan import Plan, StagePlan, State, Step
from archspec.quantities import humanize
from archspec.spec import Block
from archspec.validation import Part

NO_MIXER = "no mixer"


@dataclass(frozen=True, slots=True)
class Cell:
    """A block: its mixer, the kinds of its modifiers, and all of its parts in words."""

    mixer: str
    modifiers: tuple[str, ...]
    tip: str


@dataclass(frozen=True, slots=True)
class Column:
    """The stem, a stage or the head."""

    label: str
    entry: str  # what leads into it: the stem's, the downsample's or the head's kind; empty where nothing does
    cost: Cost
    macs_share: float
    params_share: float
    tip: str
    state: State | None = None  # of a stage
    cells: tuple[Cell, ...] = ()
    joins: bool = False  # whether the class token joins here
    ffns: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """(H, W) of a stage's map."""
        assert self.state is not None
        return self.state.grid


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole plan."""

    name: str
    facts: tuple[str, ...]
    cost: Cost
    stem: Column
    stages: tuple[Column, ...]
    head: Column | None

    @property
    def columns(self) -> tuple[Column, ...]:
        """From left to right."""
        return (self.stem, *self.stages, *([self.head] if self.head else []))

    @property
    def mixers(self) -> tuple[str, ...]:
        """Each once, in the order of the network."""
        return _distinct(cell.mixer for column in self.stages for cell in column.cells)

    @property
    def modifiers(self) -> tuple[str, ...]:
        """Each once, in the order of the network."""
        return _distinct(name for column in self.stages for cell in column.cells for name in cell.modifiers)

    @property
    def words(self) -> str:
        """The picture, told."""
        return ". ".join([", ".join(self.facts), *(column.tip for column in self.columns)]) + "."


def summarize(plan: Plan) -> Summary:
    """Raises CountError for an operation without a formula, SpecError where a block fails on its input."""
    whole = plan_cost(plan)
    height, width = plan.source.grid
    outcome = f"{plan.spec.classes} classes" if plan.head and plan.spec.classes else "features"
    return Summary(
        name=plan.name,
        facts=(
            f"{humanize(whole.params, 2)} parameters",
            f"{humanize(whole.macs, 2)} MACs",
            f"image {plan.source.width} × {height} × {width}",
            outcome,
        ),
        cost=whole,
        stem=_end(plan.stem, whole),
        stages=tuple(_stage(index, stage, whole) for index, stage in enumerate(plan.stages)),
        head=_end(plan.head, whole) if plan.head else None,
    )


def _end(step: Step, whole: Cost) -> Column:
    """The stem's or the head's column."""
    kind = step.unit.part.type if isinstance(step.unit.part, Part) else ""
    cost = total([step])
    tip = f"{step.name}: {kind}, {_cost_words(cost, whole)}"
    return Column(step.name, kind, cost, *_shares(cost, whole), tip)


def _stage(index: int, stage: StagePlan, whole: Cost) -> Column:
    cost, state = total(stage.steps), stage.target
    blocks = [step.unit.part for step in stage.blocks if isinstance(step.unit.part, Block)]
    entries = {step.unit.role: step.unit.part for step in stage.steps}
    entry, position = entries.get("downsample"), entries.get("position")
    cells = tuple(_cell(step.name, block) for step, block in zip(stage.blocks, blocks, strict=True))
    here = [position] if isinstance(position, Part) else []
    positions = _distinct(part.type for part in (*here, *(b.position for b in blocks)) if part)
    ffns = _distinct(block.ffn.type if block.ffn else "none" for block in blocks)
    return Column(
        label=f"stage {index + 1}",
        entry=entry.type if isinstance(entry, Part) else "",
        cost=cost,
        macs_share=_shares(cost, whole)[0],
        params_share=_shares(cost, whole)[1],
        tip=f"{stage.name}: {shape(state)}, {tokens(state)} tokens, {_runs(cells)}, {_cost_words(cost, whole)}",
        state=state,
        cells=cells,
        joins="class_token" in entries,
        ffns=ffns,
        positions=positions,
    )


def shape(state: State) -> str:
    """`96 × 56 × 56`: width, then height and width of the map."""
    return f"{state.width} × {state.grid[0]} × {state.grid[1]}"


def tokens(state: State) -> str:
    """`49`, or `49 + 1` with a class token."""
    height, width = state.grid
    return f"{height * width}" + (f" + {state.prefix}" if state.prefix else "")


def _cell(name: str, block: Block) -> Cell:
    parts = [part.type for part in (block.position, block.mixer, block.ffn) if part]
    modifiers = _distinct(modifier.part.type for modifier in block.modifiers)
    return Cell(
        mixer=block.mixer.type if block.mixer else NO_MIXER,
        modifiers=modifiers,
        tip=f"{name}: {', '.join([*parts, *modifiers]) or 'nothing'}",
    )


def _runs(cells: tuple[Cell, ...]) -> str:
    """`6 blocks of attention with context_broadcast and 2 blocks of window`."""
    kinds: dict[str, int] = {}
    for cell in cells:
        said = " with ".join([cell.mixer, *([" and ".join(cell.modifiers)] if cell.modifiers else [])])
        kinds[said] = kinds.get(said, 0) + 1
    return " and ".join(f"{count} block{'s' * (count > 1)} of {said}" for said, count in kinds.items())


def _shares(cost: Cost, whole: Cost) -> tuple[float, float]:
    """Of the MACs and of the parameters, from 0 to 1."""
    return cost.macs / max(whole.macs, 1), cost.params / max(whole.params, 1)


def percent(share: float) -> str:
    """`48%`, `3.4%`: two digits that count, where there are two."""
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.1f}%"


def _cost_words(cost: Cost, whole: Cost) -> str:
    macs, params = _shares(cost, whole)
    return f"{humanize(cost.macs)} MACs ({percent(macs)}), {humanize(cost.params)} parameters ({percent(params)})"


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
