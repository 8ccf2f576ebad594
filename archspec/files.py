"""Writing files: aside, synced, renamed, so that a reader sees the old file or the new one and nothing between."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from archspec.errors import UsageError


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file's content in one step. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # not by tempfile, whose files are the owner's alone
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """A renaming must reach the disk, too. Where a folder cannot be opened (outside POSIX), nothing is done."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet. Raises UsageError where there is one or it cannot be written."""
    if path.exists():
        raise UsageError(f"{path}: exists already; it is left as it is")
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
