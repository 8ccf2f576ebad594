"""The folder of a search. Nothing in it is absolute but the place of the data: it can be moved, and goes on there.

study.yaml, base.yaml, recipe.yaml, ...   the search, written out; `archspec search --resume FOLDER` reads them
journal.log                               the record: an Optuna journal, which optuna-dashboard opens, too
storage.txt                               where the record is, if it is elsewhere
trials/00007/spec.yaml, metrics.json      each candidate that was evaluated, and how it came out
cells/                                    the evaluations: see jobs/store.py
environment.json                          versions and devices, one entry for every start
.lock                                     held by the process that is at work; its death lets the folder go
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from archspec import resolved
from archspec.errors import UsageError
from archspec.files import drop_leftovers, write_whole
from archspec.plan import Plan
from archspec.training.folder import CHECKPOINTS, ENVIRONMENT, add_environment

from ..jobs.store import RUN
from ..study.search import Search, load_search
from ..study.text import BASE, RECIPE, TABLE, identity, study_files, study_plain
from .record import read_journal

STUDY, JOURNAL, STORAGE, TRIALS, CELLS = "study.yaml", "journal.log", "storage.txt", "trials", "cells"
SHOWN = 8  # differences


@dataclass(frozen=True)
class SearchFolder:
    """Where a search is kept."""

    path: Path

    @property
    def journal(self) -> Path:
        """The record, where no other storage is named."""
        return self.path / JOURNAL

    @property
    def cells(self) -> Path:
        """The evaluations."""
        return self.path / CELLS

    def claim(self, search: Search) -> None:
        """Make the folder this search's, or find that it is. Raises UsageError with the differences, or other files.

        A search of which nothing has begun, for its file had a mistake, gives way to another.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if (self.path / STUDY).exists() and self._compare(search):
                return
            others = sorted(entry.name for entry in self.path.iterdir() if entry.name[0] != "." and entry.name != CELLS)
            written = study_files(search)
            if set(others) - set(written):
                raise UsageError(f"{self.path}: holds other files, such as {others[0]} (try another --out)")
            for name, text in written.items():
                write_whole(self.path / name, text.encode())
            if search.latency_table:
                shutil.copyfile(search.latency_table, self.path / TABLE)
            write_whole(self.path / STUDY, _study_text(search).encode())  # last: with it, the folder holds a search
        except OSError as error:
            raise UsageError(f"{self.path}: cannot hold a search: {error.strerror} (try another --out)") from error

    def _compare(self, search: Search) -> bool:
        """Whether the folder is this search's; false where it is another's that has not begun."""
        known = self.load()
        theirs, ours = identity(known), identity(search)
        there, here = resolved.flat(theirs), resolved.flat(ours)
        differ = [
            f"{key} is {there.get(key, 'not there')} there, {here.get(key, 'not there')} here"
            for key in {**there, **here}
            if there.get(key) != here.get(key)
        ]
        if differ and not self._has_begun():
            for name in (STUDY, *study_files(known), TABLE, JOURNAL, ENVIRONMENT):  # the study first: it may be killed
                (self.path / name).unlink(missing_ok=True)
            return False
        if differ:
            more = [f"and {len(differ) - SHOWN} more"] if len(differ) > SHOWN else []
            hint = f"another --out, with --start-from {self.path} to begin with what was found there"
            raise UsageError(f"{self.path}: holds another search: {'; '.join(differ[:SHOWN] + more)} ({hint})")
        return True

    def _has_begun(self) -> bool:
        """Whether anything was proposed; what is in another storage is taken for it."""
        if (self.path / STORAGE).exists():
            return True
        if not self.journal.exists():
            return False
        storage = read_journal(self.journal)
        return any(storage.get_n_trials(study._study_id) for study in storage.get_all_studies())

    def load(self) -> Search:
        """The search in the folder. Raises UsageError where there is none."""
        if not (self.path / STUDY).exists():
            raise UsageError(f"{self.path}: holds no search: there is no {STUDY}")
        return load_search(self.path / STUDY, allow_outside=True)

    def settle(self, search: Search) -> None:
        """Write down what may change in a search that goes on: trials, sampler, stopping, prescreen, seed, start."""
        for name, written in study_files(search).items():
            if name not in (BASE, RECIPE):
                write_whole(self.path / name, written.encode())
        text = _study_text(search)
        if (self.path / STUDY).read_text(encoding="utf-8") != text:
            write_whole(self.path / STUDY, text.encode())

    def write_spec(self, number: int, name: str, plan: Plan) -> None:
        """The resolved spec of a candidate that is to be evaluated."""
        spec = replace(plan.spec, name=f"{name}_{number:05d}")
        write_whole(self.trial(number) / "spec.yaml", resolved.to_yaml(spec).encode())

    def write_metrics(self, number: int, metrics: Mapping[str, Any]) -> None:
        """How it came out."""
        write_whole(self.trial(number) / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())

    def trial(self, number: int) -> Path:
        """Where the files of a trial stand."""
        return self.path / TRIALS / f"{number:05d}"

    def tidy(self, key: str) -> None:
        """An evaluation is done: nobody goes on from its states any more. Its metrics and weights stay."""
        shutil.rmtree(self.cells / key / RUN / CHECKPOINTS, ignore_errors=True)

    def own_table(self, search: Search) -> Search:
        """The search with the folder's own latency table, to which it may add."""
        return replace(search, latency_table=self.path / TABLE) if search.latency_table else search

    def keep_storage(self, url: str) -> None:
        """Note where the trials are, passwords left out. Raises UsageError where they have been elsewhere so far."""
        file, shown = self.path / STORAGE, re.sub(r"://[^@/]*@", "://...@", url)
        there = file.read_text(encoding="utf-8").strip() if file.exists() else ""
        if there != shown and (there or self.journal.exists()):
            where = f"in {there}: --storage must name it again" if there else f"in {JOURNAL}: leave out --storage"
            raise UsageError(f"{self.path}: its trials are {where}")
        if shown and not there:
            write_whole(file, f"{shown}\n".encode())

    def add_environment(self) -> None:
        """One more start."""
        from archspec.training.distributed import joined
        from archspec.training.environment import describe

        with joined("auto") as group:
            found = describe(group)
        found["packages"]["optuna"] = version("optuna")
        add_environment(self.path, found)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process searches in this folder. Raises UsageError if one does."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            import fcntl
        except ImportError:  # not a POSIX system
            yield
            return
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"{self.path}: another process is searching there (wait for it, or stop it)"
                ) from error
            except OSError:  # a file system without locks
                pass
            drop_leftovers(self.path)
            yield


def _study_text(search: Search) -> str:
    return yaml.dump(study_plain(search), Dumper=resolved.Dumper, sort_keys=False, allow_unicode=True, width=120)
