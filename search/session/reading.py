"""A record as it is read: while the search runs, or any time after; nothing of it is changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from archspec.errors import RunError

from ..samplers.sampling import is_evaluated
from ..study.search import Search
from .folder import SearchFolder
from .record import Record, open_storage, read_journal

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def pareto(search: Search, trials: list[FrozenTrial]) -> tuple[int, ...]:
    """Numbers of the evaluated trials that no other one betters in every respect."""
    done = [trial for trial in trials if is_evaluated(trial) and trial.state.name == "COMPLETE"]
    signed = {
        trial.number: [one.sign * value for one, value in zip(search.objectives, trial.values, strict=True)]
        for trial in done
    }
    ordered = sorted(signed.items(), key=lambda pair: pair[1], reverse=True)
    front: list[tuple[int, list[float]]] = []
    for number, own in ordered:  # whoever betters another one stands before it
        if not any(all(a >= b for a, b in zip(other, own, strict=True)) and other != own for _, other in front):
            front.append((number, own))
    return tuple(number for number, _ in front)


def read_record(folder: Path, storage: str = "") -> tuple[Search, list[FrozenTrial]]:
    """A search and its trials, to be read only, while it runs or after. Raises UsageError for a folder without one."""
    from optuna.exceptions import OptunaError

    place = SearchFolder(folder)
    search = place.load()
    if not storage and not place.journal.exists():
        place.keep_storage(storage)
        return search, []
    try:
        record = Record(
            open_storage(storage) if storage else read_journal(place.journal), search.name, search.objectives
        )
    except OptunaError as error:
        raise RunError(f"{folder}: its record cannot be read: {error}") from error
    return search, record.trials
