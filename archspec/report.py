"""What a plan costs, as a table for people and as one object for programs."""

from __future__ import annotations

import sys
from collections import Counter
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table

from archspec.cost import Cost, plan_cost, total
from archspec.plan import Plan, StagePlan, State, Step
from archspec.quantities import Rounding, humanize, parse_quantity
from archspec.spec import Block

FIGURES = ("params", "params_trainable", "macs", "ops")  # what a publication's figures are compared with


def console() -> Console:
    """Where results are printed: as wide as the terminal, or 120 columns into a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def cost_table(plan: Plan, *, ops: bool = False) -> Table:
    """A row a stage, the total, and the published figures under it. `ops` adds the count with norms and sampling."""
    whole = plan_cost(plan)
    height, width = plan.source.grid
    table = Table(
        title=f"{plan.name}: {plan.source.width} x {height} x {width}, {plan.spec.classes} classes",
        title_justify="left",
    )
    table.add_column("unit")
    table.add_column("shape")
    table.add_column("blocks", overflow="fold")
    for heading in ("params", "MACs", *(["ops"] if ops else []), "share"):
        table.add_column(heading, justify="right")
    for name, shape, blocks, cost in _rows(plan):
        share = f"{100 * cost.macs / whole.macs:.1f}%" if whole.macs else ""
        table.add_row(name, shape, blocks, *_figures(cost, ops), share)
    table.add_section()
    table.add_row("total", "", "", *_figures(whole, ops), "", style="bold")
    if whole.fixed_params:
        blanks = [""] * (3 if ops else 2)
        table.add_row("  trained", "", "", humanize(whole.params_trainable), *blanks)
    return table


def _rows(plan: Plan) -> list[tuple[str, str, str, Cost]]:
    rows = [("stem", str(plan.stem.unit.target), part_of(plan.stem), total([plan.stem]))]
    rows += [(stage.name, str(stage.target), blocks_of(stage), total(stage.steps)) for stage in plan.stages]
    if plan.head:
        rows.append(("head", f"{plan.head.unit.target.width}", part_of(plan.head), total([plan.head])))
    return rows


def _figures(cost: Cost, ops: bool) -> list[str]:
    return [humanize(cost.params), humanize(cost.macs), *([humanize(cost.ops)] if ops else [])]


def part_of(step: Step) -> str:
    """What stands there: `patch`, or `attention, mlp` for a block."""
    part = step.unit.part
    return _block_name(part) if isinstance(part, Block) else part.type if part else step.unit.role.replace("_", " ")


def blocks_of(stage: StagePlan) -> str:
    """`8 x attention, mlp`, with what stands before the blocks and the modifiers they carry."""
    kinds = Counter(_block_name(step.unit.part) for step in stage.blocks if isinstance(step.unit.part, Block))
    return " + ".join(f"{count} x ({name})" if ", " in name else f"{count} x {name}" for name, count in kinds.items())


def _block_name(block: Block) -> str:
    parts = [part.type for part in (block.position, block.mixer, block.ffn) if part]
    return ", ".join(parts + [modifier.part.type for modifier in block.modifiers]) or "nothing"


def published_lines(plan: Plan) -> list[str]:
    """The published figures, each beside ours in the publication's own unit and rounding."""
    published = plan.spec.published
    if published is None:
        return []
    lines = [f"published{f' ({published.source})' if published.source else ''}:"]
    for key, ours in _measured(plan_cost(plan)).items():
        text = getattr(published, key)
        if text is not None:
            lines.append(f"  {key} {compare(text, ours, 'truncated' if key in published.truncated else 'rounded')}")
    if published.top1 is not None:
        lines.append(f"  top-1 {published.top1} %")
    if published.note:
        lines.append(f"  {published.note.strip()}")
    return lines


def compare(text: str, ours: int, rounding: Rounding) -> str:
    """`22M: agrees (truncated), 22,456,000 here`, or by how much it differs."""
    quantity = parse_quantity(text)
    if quantity.agrees(ours, rounding):
        return f"{text}: agrees ({rounding}), {ours:,} here"
    difference = 100 * (Decimal(ours) / quantity.value - 1)
    return f"{text}: differs, {quantity.rendered(ours, rounding)} here ({ours:,}, {difference:+.2f} %)"


def _measured(cost: Cost) -> dict[str, int]:
    return {key: getattr(cost, key) for key in FIGURES}


def as_json(plan: Plan) -> dict[str, Any]:
    """One object: name, params, params_trainable, macs, ops, input, stages, published."""
    published = plan.spec.published
    return {
        "name": plan.name,
        **_measured(plan_cost(plan)),
        "input": [plan.source.width, *plan.source.grid],
        "classes": plan.spec.classes,
        "stages": [_stage_json(stage) for stage in plan.stages],
        "published": published.model_dump(mode="json", exclude_none=True) if published else None,
    }


def _stage_json(stage: StagePlan) -> dict[str, Any]:
    state: State = stage.target
    cost = total(stage.steps)
    return {
        "name": stage.name,
        "width": state.width,
        "grid": list(state.grid),
        "prefix_tokens": state.prefix,
        "depth": len(stage.blocks),
        "blocks": blocks_of(stage),
        **_measured(cost),
    }


def difference(a: Plan, b: Plan) -> list[str]:
    """What differs between two networks, a line a path, and what it costs."""
    from archspec.resolved import flat, to_plain

    left, right = (flat(to_plain(plan.spec)) for plan in (a, b))
    skipped = ("name", "description", "published")
    paths = [path for path in dict.fromkeys([*left, *right]) if path.split(".")[0] not in skipped]
    lines = [
        f"{path}: {_said(left, path)} -> {_said(right, path)}" for path in paths if left.get(path) != right.get(path)
    ]
    ours, theirs = _measured(plan_cost(a)), _measured(plan_cost(b))
    costs = [
        f"{key}: {humanize(ours[key])} -> {humanize(theirs[key])} ({theirs[key] - ours[key]:+,})" for key in FIGURES
    ]
    return [*(lines or ["the two are the same network"]), *costs]


def _said(flattened: dict[str, Any], path: str) -> str:
    return str(flattened[path]) if path in flattened else "absent"
