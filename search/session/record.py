"""The record of a search: an Optuna study on disk. It is the one source of truth; all else is made from it.

Every proposal is a trial, in order. User attributes say what became of it: `kind` (evaluated; screening, screened: see
prescreen; refused: over budget or no network; duplicate: a plan that was there before, trial `same_as`;
taken: known from another search), `plan` (the fingerprint), `costs`, `parent` (the trial that evolution made it from),
`reason`, `score` of a prescreen, and `outcome` (metrics, seconds, attempts, fault and reason).
Evaluated trials are RUNNING until they are COMPLETE, PRUNED (ended early) or FAIL.
"""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from archspec.errors import UsageError

from ..study.objectives import Objective

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

Kind: TypeAlias = Literal["evaluated", "screening", "screened", "refused", "duplicate", "taken"]
OWNER = "archspec:owner"


class Record:
    """The trials of one search in a storage. One process writes at a time."""

    def __init__(self, storage: BaseStorage, name: str, objectives: Sequence[Objective]) -> None:
        from optuna import create_study, logging

        logging.set_verbosity(logging.ERROR)
        self.storage = storage
        directions = [objective.direction for objective in objectives]
        if name not in {study.study_name for study in storage.get_all_studies()}:
            create_study(storage=storage, study_name=name, directions=directions)
        self._id = storage.get_study_id_from_name(name)
        there = [direction.name.lower() for direction in storage.get_study_directions(self._id)]
        if there != directions:  # Optuna would not say so
            raise UsageError(
                f"the study '{name}' is to {' and '.join(there)} in its storage, and here to {' and '.join(directions)}"
            )
        self.count = storage.get_n_trials(self._id)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials in order, to be read only."""
        return self.storage.get_all_trials(self._id, deepcopy=False)

    def add(self, trial: FrozenTrial, kind: Kind, attributes: dict[str, Any]) -> None:
        """One more trial, written at once."""
        kept = copy.copy(trial)
        kept.user_attrs = {"kind": kind, **attributes}
        if kept.state.is_finished():
            kept.datetime_complete = datetime.now()
        self.storage.create_new_trial(self._id, kept)
        self.count += 1

    def note(self, number: int, name: str, value: Any) -> None:
        """A user attribute of a running trial."""
        self.storage.set_trial_user_attr(self._trial(number), name, value)

    def report(self, number: int, epoch: int, value: float) -> None:
        """What a training has come to after an epoch."""
        self.storage.set_trial_intermediate_value(self._trial(number), epoch, value)

    def finish(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        """The end of a running trial."""
        self.storage.set_trial_state_values(self._trial(number), state, values)

    def _trial(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def claim(self, *, take_over: bool) -> None:
        """Make the record this process's own. Raises UsageError where another one seems to be at work on it.

        take_over: one on another machine, of which nobody can tell from here, is taken to be dead.
        """
        owner = self.storage.get_study_user_attrs(self._id).get(OWNER)
        own = {"host": socket.gethostname(), "process": os.getpid(), "started": _started(os.getpid())}
        if owner and owner["host"] == own["host"] and _started(owner["process"]) == owner["started"] != own["started"]:
            raise UsageError(f"the process {owner['process']} is at work on this search (wait for it, or stop it)")
        if owner and owner["host"] != own["host"] and not take_over:
            raise UsageError(
                f"a process on {owner['host']} was at work on this search and has not said that it ended "
                "(--take-over goes on if it has)"
            )
        self.storage.set_study_user_attr(self._id, OWNER, own)

    def release(self) -> None:
        """Say that nobody is at work on it."""
        self.storage.set_study_user_attr(self._id, OWNER, None)


def _started(process: int) -> str | None:
    """When a process of this machine started, in the kernel's terms; None for one that is not there."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except PermissionError:
        return "unknown"
    except ProcessLookupError:
        return None
    except OSError:  # no Linux: that it is there must do
        return "unknown"


def open_journal(file: Path) -> BaseStorage:
    """The journal in a file that this process alone may write, mended where a process was killed in mid-word."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with suppress(FileNotFoundError):
        Path(f"{file}.lock").unlink()  # of a process that was killed; it would be waited for, half a minute
    if file.exists():
        _drop_torn_line(file)
    return JournalStorage(JournalFileBackend(str(file)))


def read_journal(file: Path) -> BaseStorage:
    """The journal in a file, to be read only, by any process at any time."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(file)))


def open_storage(url: str) -> BaseStorage:
    """Any storage of Optuna's. Raises UsageError where it cannot be had."""
    from optuna.storages import get_storage

    try:
        return get_storage(url)
    except Exception as error:  # of whatever database driver
        raise UsageError(f"--storage {url}: {str(error).partition(chr(10))[0]}") from error


def _drop_torn_line(file: Path) -> None:
    with file.open("rb+") as journal:
        size = journal.seek(0, os.SEEK_END)
        start = max(0, size - (1 << 20))
        journal.seek(start)
        end = journal.read()
        if end and not end.endswith(b"\n"):
            journal.truncate(start + end.rfind(b"\n") + 1)
