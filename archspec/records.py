"""What was worked out once, kept for later processes: one SQLite file under the user's cache folder.

A record is found by the SHA-256 of everything that it depends on, so that an outdated one is never found (see
unit_records). A file that is damaged or not ours is moved aside with a warning and begun anew;
a record that was altered is ignored. Many processes may write at once. Where the file cannot be written, nothing is
kept, with one warning. `--no-cache`, or ARCHSPEC_NO_CACHE=1, leaves it alone.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import warnings
import zlib
from pathlib import Path

FORMAT = 1  # of the table below; part of the file's name, so that versions do not quarrel over one file
APPLICATION = 0x61726368  # "arch": how SQLite's header says whose file it is
PENDING = 64  # records that are written together
WAIT = 5.0  # seconds for another process's transaction
_TABLE = "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value TEXT NOT NULL, sum INTEGER NOT NULL)"


def cache_folder() -> Path:
    """Where archspec keeps what it can work out again: ARCHSPEC_CACHE, or `archspec` in XDG_CACHE_HOME or ~/.cache."""
    own, shared = os.environ.get("ARCHSPEC_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "archspec"


class Records:
    """Short texts by key. It opens its file at the first question and goes without one after a failure."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._broken = False
        self._pending: dict[str, str] = {}
        self._lock = threading.Lock()
        atexit.register(self.flush)

    def get(self, key: str) -> str | None:
        """The text that was put under `key`, by this process or another."""
        with self._lock:
            if key in self._pending:
                return self._pending[key]
            row = self._execute("SELECT value, sum FROM records WHERE key = ?", (key,))
        return row[0] if row and row[1] == _sum(key, row[0]) else None

    def put(self, key: str, value: str) -> None:
        """Keep a text; it is written with others, at the latest when the process ends."""
        with self._lock:
            self._pending[key] = value
            full = len(self._pending) >= PENDING
        if full:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        with self._lock:
            rows = [(key, value, _sum(key, value)) for key, value in self._pending.items()]
            self._pending.clear()
            connection = self._connected() if rows else None
            if connection is None:
                return
            try:
                with connection:
                    connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", rows)
            except sqlite3.Error as error:
                self._fail(error)

    def _execute(self, query: str, values: tuple[str, ...]) -> tuple[str, int] | None:
        connection = self._connected()
        if connection is None:
            return None
        try:
            found: tuple[str, int] | None = connection.execute(query, values).fetchone()
            return found
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._fail(error)
            return None

    def _connected(self) -> sqlite3.Connection | None:
        if self._process != os.getpid():  # a connection must not be carried through a fork
            self._process, self._connection = os.getpid(), None
        if self._connection is None and not self._broken:
            try:
                self._connection = self._opened()
            except (sqlite3.Error, OSError) as error:
                self._fail(error)
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _open(self.path)
        except sqlite3.OperationalError:
            raise  # it is locked, or the disk refuses: no reason to begin anew
        except sqlite3.DatabaseError as error:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            warnings.warn(f"{self.path}: {error}; it is begun anew, the old one is {aside.name}", stacklevel=2)
            self.path.replace(aside)
            return _open(self.path)

    def _fail(self, error: Exception) -> None:
        """From here on without a file."""
        self._broken, self._connection = True, None
        warnings.warn(f"{self.path}: costs are not kept for later: {error}", stacklevel=2)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=WAIT, check_same_thread=False)
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and owner != APPLICATION:
        connection.close()
        raise sqlite3.DatabaseError("this is another program's file")
    connection.execute("PRAGMA synchronous = OFF")  # after a crash of the machine, the sums tell what is damaged
    if not tables:
        with connection:
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(_TABLE)
    connection.execute("SELECT key, value, sum FROM records LIMIT 1").fetchone()
    return connection


def _sum(key: str, value: str) -> int:
    return zlib.crc32(f"{key} {value}".encode())


_shared: Records | None = None
_off = bool(os.environ.get("ARCHSPEC_NO_CACHE"))


def disable() -> None:
    """Read and write no records in this process."""
    global _off
    _off = True


def shared() -> Records | None:
    """The user's records, or None where they are switched off."""
    global _shared
    if _off:
        return None
    path = cache_folder() / f"costs-{FORMAT}.sqlite"
    if _shared is None or _shared.path != path:
        _shared = Records(path)
    return _shared
