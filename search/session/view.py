"""How a search shows itself on stderr: a line that keeps up on a terminal, elsewhere only what must be told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..study.search import Search
from .session import Session


class SearchView:
    """A bar of what is evaluated, with the best so far."""

    def __init__(self, search: Search, console: Console | None = None) -> None:
        self._search = search
        self._console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        self._bar = Progress(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._session: Session | None = None

    def say(self, line: str) -> None:
        """What people should know, above the bar."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def watching(self, session: Session) -> Iterator[None]:
        """Inside, the session is shown."""
        self._session = session
        with self._bar:
            self._task = self._bar.add_task(self._search.name, total=self._search.trials)
            self.changed()
            yield
            self.changed()

    def changed(self) -> None:
        """Something has begun, got on or ended."""
        if self._session is None or self._bar.disable:
            return
        tally = self._session.ledger.tally
        self._bar.update(self._task, completed=tally.evaluated - tally.running, description=self._line(self._session))

    def _line(self, session: Session) -> str:
        tally, best = session.ledger.tally, session.ledger.best
        parts = [self._search.name]
        if best:
            parts.append(f"best {self._search.primary.name} {best[1]:.4g} (trial {best[0]})")
        named = {"running": tally.running, "refused": tally.refused, "failed": tally.failed}
        return ", ".join([*parts, *(f"{count} {name}" for name, count in named.items() if count)])
