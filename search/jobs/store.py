"""The store: a folder in which every cell that was ever trained has a folder of its own, whichever study wanted it.

KEY/cell.json      what is trained: fingerprints of network and recipe, the data, the seed
KEY/result.json    how it came out, written whole once it is done or has failed
KEY/run/           the training run, from which a cell that was stopped goes on
KEY/log.txt        what the run had to say
KEY/.lock          held by the process that is at work; its death lets the cell go
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from archspec.errors import UsageError
from archspec.files import write_whole

# memory: it did not suffice. crash: the process died. user: what was asked for cannot be trained. run: anything else.
Fault: TypeAlias = Literal["", "memory", "crash", "user", "run"]
CELL, RESULT, RUN, LOG, LOCK = "cell.json", "result.json", "run", "log.txt", ".lock"
FORMAT = 1  # of result.json


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a cell came out. metrics: see job.py. attempts: how often it was begun anew after it had failed."""

    key: str
    identity: Mapping[str, Any]
    status: Literal["done", "failed"]
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0  # of training and testing, stops left out
    attempts: int = 1
    fault: Fault = ""
    reason: str = ""

    @property
    def done(self) -> bool:
        """Whether there are metrics."""
        return self.status == "done"


class Store:
    """Cells by key. Several processes may use one store at the same time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def create(self) -> None:
        """Make the folder. Raises UsageError where that cannot be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot hold cells: {error.strerror} (try another --store)") from error

    def folder_of(self, key: str) -> Path:
        """Where a cell's files stand."""
        return self.folder / key

    def result(self, key: str) -> Result | None:
        """How a cell came out; None before it has, or where the file is damaged."""
        return _read(self.folder_of(key) / RESULT)

    def results(self) -> Iterator[Result]:
        """All that there are, in the order of their keys."""
        for file in sorted(self.folder.glob(f"*/{RESULT}")):
            found = _read(file)
            if found:
                yield found

    def describe(self, key: str, identity: Mapping[str, Any]) -> None:
        """Write down what a cell is, for people and other programs."""
        file = self.folder_of(key) / CELL
        if not file.exists():
            write_whole(file, _text({"key": key, **identity}))

    def write(self, result: Result) -> None:
        """Write down how a cell came out."""
        write_whole(self.folder_of(result.key) / RESULT, _text({"format": FORMAT, **asdict(result)}))

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        """Whether the cell is this process's own inside; False: another one is at work on it."""
        folder = self.folder_of(key)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            import fcntl
        except ImportError:  # not a POSIX system
            yield True
            return
        with (folder / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError:  # a file system without locks
                pass
            yield True

    def is_locked(self, key: str) -> bool:
        """Whether a process is at work on a cell now."""
        if not (self.folder_of(key) / LOCK).exists():
            return False
        with self.locked(key) as ours:
            return not ours


def _text(plain: Mapping[str, Any]) -> bytes:
    return (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode()


def _read(file: Path) -> Result | None:
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = dict(json.loads(file.read_text(encoding="utf-8")))
        if found.pop("format") == FORMAT:
            return Result(**found)
    return None
