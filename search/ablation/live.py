"""How a study shows itself on stderr while it is trained: a table on a terminal, a line a cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ..jobs.cells import Cell
from ..jobs.store import Result
from ..sheet import shown_time

REFRESH = 4  # times a second


class View:
    """A context, and a watcher of the driver.

    rows: the cells of each row by its name; rows may share cells. epochs: of a cell. changed: called whenever a cell
    has ended, with all results so far.
    """

    def __init__(
        self,
        title: str,
        rows: Mapping[str, Sequence[Cell]],
        epochs: int,
        *,
        console: Console | None = None,
        changed: Callable[[Mapping[str, Result]], object] = lambda _: None,
    ) -> None:
        self._title, self._rows, self._epochs, self._changed = title, rows, epochs, changed
        self._console = console or Console(stderr=True)
        self._keys = {cell.key for cells in rows.values() for cell in cells}
        self._at: dict[str, int] = {}  # the epochs that cells under way have done
        self._elsewhere: set[str] = set()
        self._results: dict[str, Result] = {}
        self._found: set[str] = set()
        self._begun = time.monotonic()
        self._live = Live(console=self._console, get_renderable=self.table, refresh_per_second=REFRESH)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def began(self, cell: Cell, *, elsewhere: bool) -> None:
        """It is being trained, here or by another command."""
        if elsewhere:
            self._elsewhere.add(cell.key)
            self._say(f"{self._called(cell)}: another command is training it")
        else:
            self._elsewhere.discard(cell.key)
            self._at[cell.key] = 0

    def epoch(self, cell: Cell, metrics: Mapping[str, Any]) -> None:
        """An epoch is done."""
        self._at[cell.key] = int(metrics["epoch"])

    def ended(self, cell: Cell, result: Result, *, again: bool, found: bool) -> None:
        """It is done or has failed."""
        self._at.pop(cell.key, None)
        self._elsewhere.discard(cell.key)
        if not again:
            self._results[cell.key] = result
        if found:
            self._found.add(cell.key)
        self._say(self._line(cell, result, again, found))
        self._changed(self._results)

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _called(self, cell: Cell) -> str:
        names = [name for name, cells in self._rows.items() if any(one.key == cell.key for one in cells)]
        return f"{' = '.join(names)}, seed {cell.seed}"

    def _line(self, cell: Cell, result: Result, again: bool, found: bool) -> str:
        done = f"{len(self._results)} of {len(self._keys)}"
        if not result.done:
            return f"{self._called(cell)}: failed: {result.reason}{'; once more' if again else f'  ({done})'}"
        how = "trained before" if found else f"{result.seconds:.0f} s"
        return f"{self._called(cell)}: top-1 {result.metrics['top1']:.2f} %, {how}  ({done})"

    def table(self) -> Table:
        """As of now."""
        table = Table(title=escape(self._title), title_justify="left", caption=self._footer(), caption_justify="left")
        table.add_column("row", overflow="fold")
        seeds = [cell.seed for cell in next(iter(self._rows.values()))]
        for seed in seeds:
            table.add_column(f"seed {seed}", justify="right")
        table.add_column("top-1 %", justify="right")
        for name, cells in self._rows.items():
            done = [self._results[cell.key] for cell in cells if cell.key in self._results]
            values = [result.metrics["top1"] for result in done if result.done]
            mean = f"{sum(values) / len(values):.2f}" if values else ""
            table.add_row(escape(name), *(self._state(cell) for cell in cells), mean)
        return table

    def _state(self, cell: Cell) -> str:
        result = self._results.get(cell.key)
        if result:
            return f"{result.metrics['top1']:.2f}" if result.done else "[red]failed[/red]"
        if cell.key in self._elsewhere:
            return "elsewhere"
        return f"[cyan]{self._at[cell.key]}/{self._epochs}[/cyan]" if cell.key in self._at else "·"

    def _footer(self) -> str:
        elapsed = time.monotonic() - self._begun
        parts = [f"{len(self._results)} of {len(self._keys)} cells", f"{shown_time(elapsed)} so far"]
        done = self._epochs * len(self._results.keys() - self._found) + sum(self._at.values())
        whole = self._epochs * len(self._keys - self._found)
        if 0 < done < whole:
            parts.append(f"about {shown_time(elapsed * (whole - done) / done)} left")
        return ", ".join(parts)
