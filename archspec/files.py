"""Writing files: aside, synced, renamed, so that a reader sees the old file or the new one and nothing between."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from archspec.errors import UsageError

LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}")  # how a file is called that is being written


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file's content in one step. Raises OSError."""
    replace_file(path, lambda file: file.write(data))


def replace_file(path: Path, fill: Callable[[BinaryIO], object], *, named: Callable[[], str] | None = None) -> Path:
    """As `write_whole`, for content that `fill` writes bit by bit; returns the file.

    named: gives the file's name, such as one with a digest in it, once it has been filled. Raises OSError, and what
    `fill` raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # not by tempfile, whose files are the owner's alone
    try:
        with aside.open("xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        path = path.with_name(named()) if named else path
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return path


def drop_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left aside."""
    for file in folder.glob(".*"):
        if LEFTOVER.fullmatch(file.name):
            file.unlink(missing_ok=True)


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
