"""One table of what networks cost: a row a network, size and batch, or a row a stage or unit; as text or as data."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from archspec.cost import Cost, plan_cost, total
from archspec.counters import Seen
from archspec.errors import UsageError, nearest
from archspec.memory import inference_memory, training_memory
from archspec.plan import Plan, Step
from archspec.quantities import humanize
from archspec.report import blocks_of, part_of

if TYPE_CHECKING:
    from rich.table import Table

Per = Literal["stage", "unit"]
Form = Literal["text", "json", "csv", "markdown"]
T = TypeVar("T")
Kind = Literal["text", "size", "count", "bytes", "share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What training memory is counted for."""

    precision: Literal["fp32", "bf16"] = "fp32"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    checkpointing: bool = False
    ema: bool = False

    def __str__(self) -> str:
        options = [option for option in ("checkpointing", "ema") if getattr(self, option)]
        return ", ".join([self.precision, self.optimizer, *options])


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a row speaks of: a network at a size and a batch, or a stage or unit of it."""

    plan: Plan
    batch: int
    settings: Settings
    seen: Mapping[str, Seen]  # by tool
    unit: str = "total"
    parts: str = ""
    steps: tuple[Step, ...] = field(repr=False)

    @property
    def whole(self) -> bool:
        """Whether it is a network."""
        return self.unit == "total"

    @property
    def cost(self) -> Cost:
        """Of one image."""
        return total(self.steps)

    def share(self, figure: str) -> float | None:
        """Of the network's figure."""
        whole = getattr(plan_cost(self.plan), figure)
        return float(getattr(self.cost, figure) / whole) if whole else None

    def shape(self) -> str:
        """What it gives: width x height x width, or the head's width."""
        unit = self.steps[-1].unit
        return str(unit.target.width if unit.role == "head" else unit.target)

    def counted(self, tool: str) -> int | None:
        """A tool's own figure, for the batch."""
        seen = self.seen.get(tool)
        if seen is None or seen.failure or self.whole:
            return seen.total if seen else None
        return sum(seen.of(step.name) for step in self.steps)

    def train_memory(self) -> int | None:
        """Bytes at the peak of a training step, which only a whole network has."""
        if not self.whole:
            return None
        options = self.settings
        return training_memory(
            self.plan,
            batch=self.batch,
            precision=options.precision,
            optimizer=options.optimizer,
            checkpointing=options.checkpointing,
            ema=options.ema,
        ).total

    def inference_memory(self) -> int | None:
        """Bytes at the peak of a forward pass without gradients."""
        return (
            inference_memory(self.plan, batch=self.batch, precision=self.settings.precision).total
            if self.whole
            else None
        )


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading in text, what its values are, and how to work them out."""

    heading: str
    kind: Kind
    value: Callable[[Subject], Any]


COLUMNS: dict[str, Column] = {
    "name": Column("network", "text", lambda row: row.plan.name),
    "size": Column("size", "size", lambda row: list(row.plan.source.grid)),  # height, width
    "batch": Column("batch", "text", lambda row: row.batch),
    "unit": Column("unit", "text", lambda row: row.unit),
    "parts": Column("parts", "text", lambda row: row.parts),
    "shape": Column("shape", "text", lambda row: row.shape()),
    "params": Column("params", "count", lambda row: row.cost.params),
    "params_trainable": Column("trainable", "count", lambda row: row.cost.params_trainable),
    "params_share": Column("% params", "share", lambda row: row.share("params")),
    "macs": Column("MACs", "count", lambda row: row.cost.macs),
    "macs_share": Column("% MACs", "share", lambda row: row.share("macs")),
    "flops": Column("FLOPs", "count", lambda row: row.cost.flops),
    "ops": Column("ops", "count", lambda row: row.cost.ops),
    "activations": Column("activations", "count", lambda row: row.batch * row.cost.activations),
    "train_memory": Column("train memory", "bytes", lambda row: row.train_memory()),
    "inference_memory": Column("memory", "bytes", lambda row: row.inference_memory()),
    "fvcore": Column("fvcore", "count", lambda row: row.counted("fvcore")),
    "torch": Column("torch", "count", lambda row: row.counted("torch")),
}
_WHOLE = ("name", "size", "batch", "params", "params_trainable", "macs", "flops", "ops", "activations", "train_memory")
_PARTS = ("unit", "parts", "shape", "params", "params_share", "macs", "macs_share", "activations")
_WHOSE = ("name", "size", "batch")
_OF_BATCH = ("activations", "train_memory", "inference_memory", "fvcore", "torch")


def default_columns(per: Per | None) -> list[str]:
    """The columns that are shown unless others are asked for."""
    return [*_WHOLE] if per is None else [*_WHOSE, *_PARTS]


def find_column(name: str) -> str:
    """The name, where there is such a column. Raises UsageError, naming the nearest."""
    if name not in COLUMNS:
        hint = nearest(name, COLUMNS) or f"there are: {', '.join(COLUMNS)}"
        raise UsageError(f"there is no column '{name}' ({hint})")
    return name


Row = dict[str, Any]  # exact values by column


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of a network at a batch: of its parts, where they are asked for, then its own, of `total`."""

    total: Subject
    rows: list[Row]


def make_group(
    plan: Plan,
    batch: int,
    settings: Settings,
    columns: Iterable[str],
    *,
    per: Per | None = None,
    seen: Iterable[Seen] = (),
) -> Group:
    """Work out what a network costs at a batch. Raises CountError for an operation without a formula."""
    counted: dict[str, Seen] = {answer.tool: answer for answer in seen}

    def subject(steps: Iterable[Step], unit: str = "total", parts: str = "") -> Subject:
        return Subject(
            plan=plan, batch=batch, settings=settings, seen=counted, unit=unit, parts=parts, steps=tuple(steps)
        )

    subjects = [*(subject(*part) for part in _parts(plan, per)), subject(plan.steps())]
    chosen = dict.fromkeys(columns)
    return Group(subjects[-1], [{name: COLUMNS[name].value(row) for name in chosen} for row in subjects])


def _parts(plan: Plan, per: Per | None) -> list[tuple[Sequence[Step], str, str]]:
    """(steps, name, what they are) of each stage or unit."""
    if per is None:
        return []
    units: dict[str, tuple[Sequence[Step], str, str]] = {
        step.name: ((step,), step.name, part_of(step)) for step in plan.steps()
    }
    if per == "unit":
        return list(units.values())
    stages = [(stage.steps, stage.name, blocks_of(stage)) for stage in plan.stages]
    return [units["stem"], *stages, *([units["head"]] if plan.head else [])]


def ordered(groups: list[Group], by: str | None) -> list[Group]:
    """Networks, and the parts of each, by a column of the rows; `-macs` puts the largest first.

    What has no value comes last.
    """
    if by is None:
        return groups
    name, down = by.removeprefix("-"), by.startswith("-")

    def arranged(items: list[T], of: Callable[[T], Row]) -> list[T]:
        known = [item for item in items if of(item)[name] is not None]
        known.sort(key=lambda item: of(item)[name], reverse=down)
        return known + [item for item in items if of(item)[name] is None]

    inside = [Group(group.total, [*arranged(group.rows[:-1], lambda row: row), group.rows[-1]]) for group in groups]
    return arranged(inside, lambda group: group.rows[-1])


def text_table(groups: list[Group], columns: Sequence[str], settings: Settings) -> Table:
    """For people: humanised. What is the same of all rows, where they are parts, stands in the title."""
    from rich.table import Table

    shown, said = _factored(groups, columns)
    table = Table(title="; ".join(filter(None, (said, _legend(columns, settings)))), title_justify="left")
    for name in shown:
        column = COLUMNS[name]
        wide = column.kind == "text" and name != "batch"
        table.add_column(column.heading, justify="left" if wide else "right", overflow="fold")
    parts = any(len(group.rows) > 1 for group in groups)
    for group in groups:
        for row in group.rows:
            bold = "bold" if parts and row is group.rows[-1] else None
            table.add_row(*(shown_value(name, row[name]) for name in shown), style=bold)
        if parts:
            table.add_section()
    return table


def _factored(groups: list[Group], columns: Sequence[str]) -> tuple[list[str], str]:
    """The columns to show, and what the others say."""
    rows = all_rows(groups)
    if len(rows) == len(groups):
        return list(columns), ""
    same = [name for name in _WHOSE if name in columns and all(row[name] == rows[0][name] for row in rows)]
    said = [f"batch {rows[0][name]}" if name == "batch" else shown_value(name, rows[0][name]) for name in same]
    return [name for name in columns if name not in same], ", ".join(said)


def all_rows(groups: Iterable[Group]) -> list[Row]:
    """The rows of all networks."""
    return [row for group in groups for row in group.rows]


def _legend(columns: Sequence[str], settings: Settings) -> str:
    """What the figures are of."""
    said = [
        f"{of}: {', '.join(COLUMNS[name].heading for name in names)}"
        for of, names in (
            ("of one image", [name for name in columns if name in ("macs", "flops", "ops")]),
            ("of the batch", [name for name in columns if name in _OF_BATCH]),
        )
        if names
    ]
    return "; ".join([*said, *([f"training in {settings}"] if "train_memory" in columns else [])])


def shown_value(name: str, value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-" if name in ("fvcore", "torch") else ""
    kind = COLUMNS[name].kind
    if kind == "size":
        return f"{value[0]}" if value[0] == value[1] else f"{value[0]}x{value[1]}"
    if kind == "share":
        return f"{100 * value:.1f}%"
    if kind == "bytes":
        return humanize_bytes(value)
    return humanize(value) if kind == "count" else str(value)


def humanize_bytes(value: int) -> str:
    """`1.234GiB`, as budgets are written."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1024**power:
            return f"{value / 1024**power:.3f}{unit}"
    return f"{value}B"


def csv_text(groups: list[Group], columns: Sequence[str]) -> str:
    """For programs: exact integers, a size as HEIGHTxWIDTH, shares as fractions, nothing where there is no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in all_rows(groups):
        writer.writerow(["x".join(map(str, row[name])) if name == "size" else row[name] for name in columns])
    return out.getvalue()


def markdown_text(groups: list[Group], columns: Sequence[str], settings: Settings) -> str:
    """For pages: humanised."""
    left = [":--" if COLUMNS[name].kind == "text" and name != "batch" else "--:" for name in columns]
    rows = [[shown_value(name, row[name]) for name in columns] for row in all_rows(groups)]
    head = [COLUMNS[name].heading for name in columns]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, left, *rows)]
    legend = _legend(columns, settings)
    return "\n".join([*lines, *(["", f"{legend}."] if legend else []), ""])
