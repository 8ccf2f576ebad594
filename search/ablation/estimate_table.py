"""What a study would take, as a table: the dry run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from archspec.quantities import humanize

from ..sheet import shown_bytes, shown_time
from .estimates import Estimate, Totals

STATES = {
    "to train": "to train",
    "done": "trained before",
    "again": "failed before, to train again",
    "equal": "the cell of an earlier row",
    "over budget": "over budget, not trained",
}
BASES = {"measured": "as measured on trained cells", "one step": "by one timed step"}


def estimate_table(name: str, cells: Sequence[Estimate], totals: Totals, jobs: int) -> Table:
    """A line a cell, the totals under them."""
    table = Table(
        title=f"{escape(name)}: dry run",
        title_justify="left",
        caption="\n".join(_totals(cells, totals, jobs)),
        caption_justify="left",
    )
    table.add_column("row", overflow="fold")
    for heading in ("seed", "params", "MACs", "memory", "time"):
        table.add_column(heading, justify="right")
    table.add_column("", overflow="fold")
    for cell in cells:
        table.add_row(
            escape(cell.row),
            str(cell.seed),
            humanize(cell.params),
            humanize(cell.macs),
            shown_bytes(cell.memory),
            shown_time(cell.seconds) if cell.basis else "",
            f"{STATES[cell.state]}{f'; time {BASES[cell.basis]}' if cell.basis else ''}",
        )
    return table


def _totals(cells: Sequence[Estimate], totals: Totals, jobs: int) -> list[str]:
    together = f"{jobs} cells at a time" if jobs > 1 else "one cell at a time"
    bases = Counter(cell.basis for cell in cells if cell.basis)
    told = ", ".join(f"{count} {BASES[basis]}" for basis, count in bases.items())
    return [
        f"{totals.cells} cells, {totals.to_train} to train",
        f"time: about {shown_time(totals.wall)}, {together}; {shown_time(totals.seconds)} of training in all"
        + (f" ({told})" if told else ""),
        f"training memory, predicted: {shown_bytes(totals.memory)}, {together}",
    ]
