"""Checkpoints that a kill at any moment leaves intact. A folder holds one run:

settings.json            what is trained, on what and how
epoch-0007.safetensors   the weights after epoch 7
epoch-0007.pt            the optimizer and the history up to there
epoch-0007.json          the SHA-256 of both; written last: a checkpoint without it does not exist

Every file is written aside, flushed to the disk and renamed, so that a file that has its name is whole. The digests
notice what happens to it later. There is no state of the random numbers: each epoch draws from its own seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from archspec.errors import TrainingError, UsageError
from archspec.files import sync_folder
from archspec.training.data import Split
from archspec.training.settings import TrainSettings

FILE = re.compile(r"epoch-(\d+)\.(json|pt|safetensors)(\.part)?")
CONTENTS = ("safetensors", "pt")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch came to."""

    epoch: int  # from 1
    loss: float  # mean over the training images, in nats
    accuracy: float  # on the held-out images, 0..1


def path(folder: Path, epoch: int, suffix: str) -> Path:
    """Where a file of the checkpoint after that epoch (from 1) stands; `suffix` is safetensors, pt or json."""
    return folder / f"epoch-{epoch:04d}.{suffix}"


def newest(folder: Path) -> int:
    """The last epoch (from 1) with a checkpoint, 0 without one."""
    return max(_epochs(folder), default=0)


def claim(folder: Path, settings: TrainSettings, data: Split, fingerprint: str) -> None:
    """Make the folder this run's own, or find that it is.

    The device is not compared: a run may go on elsewhere. Raises UsageError if the folder holds another run, or cannot
    be used.
    """
    ours = {"fingerprint": fingerprint, "data": data.identity, **asdict(settings)}
    file = folder / "settings.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists() and not _epochs(folder):
            _write(file, lambda part: part.write_text(json.dumps(ours, indent=2) + "\n", encoding="utf-8"))
        theirs = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{folder}: cannot be used for this run: {error} (try another folder)") from error
    names = sorted((ours.keys() | theirs.keys()) - {"device"})
    differ = [
        f"{name} is {theirs.get(name)!r} there, {ours.get(name)!r} here"
        for name in names
        if theirs.get(name) != ours.get(name)
    ]
    if differ:
        raise UsageError(f"{folder}: holds another run: {'; '.join(differ)} (try another folder)")


def save(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, history: list[Epoch]) -> None:
    """Write the checkpoint after the last epoch of `history`, then drop all but it and the one before.

    Raises TrainingError if it cannot be written; the checkpoint before it is still there then.
    """
    epoch = history[-1].epoch
    state = {"optimizer": optimizer.state_dict(), "history": [asdict(each) for each in history]}
    try:
        digests = {
            "safetensors": _write(path(folder, epoch, "safetensors"), lambda part: save_model(network, str(part))),
            "pt": _write(path(folder, epoch, "pt"), lambda part: torch.save(state, part)),
        }
        _write(path(folder, epoch, "json"), lambda part: part.write_text(json.dumps(digests), encoding="utf-8"))
        _prune(folder, epoch)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TrainingError(f"{folder}: the checkpoint of epoch {epoch} cannot be written: {error}") from error


def restore(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> list[Epoch]:
    """Load the newest whole checkpoint into both, and return its history; empty, and nothing loaded, without one.

    Warns of every damaged one it passes over. Raises UsageError if the weights do not fit the network.
    """
    for epoch in sorted(_epochs(folder), reverse=True):
        damage = _damage(folder, epoch)
        if not damage:
            return _load(folder, epoch, network, optimizer)
        warnings.warn(f"{folder}: passing over the checkpoint of epoch {epoch}: {damage}", RuntimeWarning, stacklevel=3)
    return []


def _load(folder: Path, epoch: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> list[Epoch]:
    state = torch.load(path(folder, epoch, "pt"), map_location="cpu", weights_only=True)
    try:
        load_model(network, path(folder, epoch, "safetensors"))
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{folder}: holds the weights of another network (try another folder): {error}") from error
    return [Epoch(**each) for each in state["history"]]


def _damage(folder: Path, epoch: int) -> str:
    try:
        digests = json.loads(path(folder, epoch, "json").read_text(encoding="utf-8"))
        files = {suffix: path(folder, epoch, suffix) for suffix in CONTENTS}
        broken = [file.name for suffix, file in files.items() if digests[suffix] != _digest(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be read ({type(error).__name__}: {error})"
    return f"{' and '.join(broken)} changed after it was written" if broken else ""


def _epochs(folder: Path) -> set[int]:
    matches = (FILE.fullmatch(file.name) for file in folder.iterdir())
    return {int(match[1]) for match in matches if match and match[2] == "json" and not match[3]}


def _prune(folder: Path, newest: int) -> None:
    # Sorted, .json comes first: what is half removed no longer counts as a checkpoint. Later epochs than the newest
    # are damaged ones that were passed over.
    for file in sorted(folder.iterdir()):
        match = FILE.fullmatch(file.name)
        if match and (match[3] or int(match[1]) not in (newest, newest - 1)):
            file.unlink()


def _write(file: Path, write: Callable[[Path], object]) -> str:
    """Let `write` fill a file aside, make it last, and give it its name. Returns its SHA-256."""
    part = file.with_name(file.name + ".part")
    write(part)
    with part.open("r+b") as stream:
        os.fsync(stream.fileno())
    digest = _digest(part)
    part.replace(file)
    sync_folder(file.parent)
    return digest


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
