"""What `archspec search` does: a search is opened in its folder, driven to its end, and told about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from archspec.errors import Interrupted, RunError
from archspec.training.signals import Interrupts

from ..jobs.driver import Stopped
from ..jobs.executor import Executor
from ..jobs.job import Circumstances
from ..study.search import Search
from .driver import drive
from .evaluation import Evaluator
from .folder import SearchFolder
from .ledger import Tally
from .reading import pareto
from .record import Record, open_journal, open_storage
from .session import Session
from .start_from import take_over_results
from .view import SearchView

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a search came to. overhead: the share of the time in which a place waited."""

    folder: Path
    tally: Tally
    best: tuple[int, float] | None  # number of the trial and its primary objective
    pareto: tuple[int, ...]  # numbers of the trials that no other one betters in every respect
    exhausted: bool
    overhead: float
    failures: tuple[str, ...]


@contextmanager
def opened(
    search: Search,
    folder: SearchFolder,
    circumstances: Circumstances,
    *,
    storage: str = "",
    take_over: bool = False,
    start_from: Path | None = None,
    asked: Callable[[], bool] = lambda: False,
    say: Callable[[str], object] = lambda _: None,
) -> Iterator[Session]:
    """A session over a folder that is this process's own inside. storage: an Optuna URL in place of the journal.

    start_from: the folder of another search, whose results are what this one begins with. Raises UsageError where
    the folder or the storage holds another search, or another process is at work on it; SpecError where nothing fits.
    """
    with folder.locked():
        folder.claim(search)
        folder.settle(search)
        folder.keep_storage(storage)
        search = folder.own_table(search)
        folder.add_environment()
        circumstances.store.create()
        record = Record(
            open_storage(storage) if storage else open_journal(folder.journal), search.name, search.objectives
        )
        if storage:
            record.claim(take_over=take_over)
        try:
            session = Session(search, record, folder, Evaluator(search, circumstances), asked=asked, say=say)
            if start_from:
                take_over_results(session, start_from)
            yield session
        finally:
            if storage:
                record.release()


def run_search(
    search: Search,
    folder: SearchFolder,
    circumstances: Circumstances,
    executor: Executor,
    *,
    storage: str = "",
    take_over: bool = False,
    start_from: Path | None = None,
    console: Console | None = None,
) -> Outcome:
    """Search until there are as many evaluated candidates as the study says, in all.

    console: for progress; stderr unless said. Raises Interrupted at SIGINT or SIGTERM once all is saved; RunError where
    every evaluation failed; else as `opened`.
    """
    view = SearchView(search, console)
    with Interrupts() as interrupts:

        def asked() -> bool:
            return interrupts.noted is not None

        try:
            with (
                executor,
                opened(
                    search,
                    folder,
                    circumstances,
                    storage=storage,
                    take_over=take_over,
                    start_from=start_from,
                    asked=asked,
                    say=view.say,
                ) as session,
                view.watching(session),
            ):
                shares = drive(session, executor, asked=asked, changed=view.changed)
        except Stopped:
            name = interrupts.noted.name if interrupts.noted else "a signal"
            raise Interrupted(
                f"{folder.path}: stopped by {name}; the same command goes on, and so does "
                f"archspec search --resume {folder.path}"
            ) from None
    outcome = _outcome(session, shares.overhead)
    if outcome.failures and not outcome.tally.done and not outcome.tally.stopped:
        raise RunError(
            f"{folder.path}: every evaluation failed, {len(outcome.failures)}; the last: {outcome.failures[-1]}"
        )
    return outcome


def _outcome(session: Session, overhead: float) -> Outcome:
    trials = session.ledger.record.trials
    failed = [trial.user_attrs["outcome"]["reason"] for trial in trials if trial.state.name == "FAIL"]
    return Outcome(
        folder=session.folder.path,
        tally=session.ledger.tally,
        best=session.ledger.best,
        pareto=pareto(session.search, trials),
        exhausted=session.exhausted,
        overhead=overhead,
        failures=tuple(failed),
    )
