"""The states from which a run goes on. Each is one file, whose name tells where the run was, and the file's SHA-256.

A file has its name only once it is whole and on the disk; the digest in the name tells what happens to it later. The
newest two are kept, so that there is one to fall back to.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from archspec.files import drop_leftovers, replace_file

NAME = re.compile(r"epoch-(\d+)-step-(\d+)-([0-9a-f]{16})\.pt")

Position = tuple[int, int]  # the epoch (from 1), and how many of its steps are done


class Snapshots:
    """The states in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._newest: Path | None = None  # whole, as far as is known

    def save(self, epoch: int, step: int, state: dict[str, Any]) -> None:
        """Write a state, and drop all but it and the one before. Raises OSError or RuntimeError; nothing is lost then.

        state: tensors, numbers, text and collections of them: what `torch.load` takes with `weights_only`.
        """
        digest = hashlib.sha256()

        def fill(file: BinaryIO) -> None:
            torch.save(state, cast("BinaryIO", _Digesting(file, digest)))

        written = replace_file(
            self.folder / "state.pt", fill, named=lambda: f"epoch-{epoch}-step-{step}-{digest.hexdigest()[:16]}.pt"
        )
        kept, self._newest = {written, self._newest}, written
        for file in self._files():
            if file not in kept:
                file.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The newest whole state, on the CPU, or None. Warns of every damaged one that is passed over."""
        for file in reversed(self._files()):
            try:
                state = _load(file)
            except _DamagedError as damage:
                where = "epoch {}, step {}".format(*_position(file))
                told = f"the state of {where} is passed over: {file.name} {damage}"
                warnings.warn(told, RuntimeWarning, stacklevel=2)
            else:
                self._newest = file
                return state
        return None

    def newest(self) -> Position | None:
        """Where the newest state stands, damaged or not."""
        files = self._files()
        return _position(files[-1]) if files else None

    def tidy(self) -> None:
        """Remove what a killed process left half written."""
        if self.folder.is_dir():
            drop_leftovers(self.folder)

    def _files(self) -> list[Path]:
        """The states, the oldest first."""
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((file for file in files if NAME.fullmatch(file.name)), key=_position)


class _Digesting:
    """A file that takes the digest of what is written into it."""

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self._file, self._digest = file, digest

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _position(file: Path) -> Position:
    match = NAME.fullmatch(file.name)
    assert match is not None  # the files are chosen by it
    return int(match[1]), int(match[2])


class _DamagedError(Exception):
    """What is wrong with a file."""


def _load(file: Path) -> dict[str, Any]:
    """What is in a file, if it is what was written into it. Raises _DamagedError."""
    match = NAME.fullmatch(file.name)
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if not match or not digest.startswith(match[3]):
                raise _DamagedError("changed after it was written")
            stream.seek(0)
            state = torch.load(stream, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _DamagedError(f"cannot be read: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise _DamagedError(f"cannot be loaded: {str(error).splitlines()[0]}") from error
    return dict(state)
