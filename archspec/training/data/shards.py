"""WebDataset shards on a disk: tar files of images (KEY.jpg) and labels (KEY.cls), read at any place.

A stream of shards could not be taken up in the middle of an epoch. The shards are listed once, and an image is then
read from where it stands. Format: https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from archspec.errors import UsageError
from archspec.training.data.images import Parts, decode

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
INFO = ("_info.json", "info.json")  # where timm keeps which shards belong to which split
TRAIN_SPLITS = ("train",)
TEST_SPLITS = ("validation", "val", "test")


@dataclass
class _Member:
    """One sample while its shard is listed."""

    offset: int = -1
    size: int = 0
    label: int = -1


class ShardImages:
    """The samples of several shards."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = list(shards)
        rows = [(number, member) for number, shard in enumerate(shards) for member in _listed(shard)]
        self.rows = np.array([(number, m.offset, m.size, m.label) for number, m in rows], dtype=np.int64).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int, mode: str) -> tuple[Image.Image, int]:
        """The image, and its label."""
        shard, offset, size, label = self.rows[index].tolist()
        with self.shards[shard].open("rb") as file:
            file.seek(offset)
            return decode(io.BytesIO(file.read(size)), mode), label

    def name(self, index: int) -> str:
        """The shard, and where in it the image begins, in bytes."""
        shard, offset = self.rows[index, :2].tolist()
        return f"{self.shards[shard].name}@{offset}"


def open_shards(root: Path, *, train: bool) -> Parts:
    """The shards in a folder: of the splits in _info.json, or with `train`, `val`, `validation` or `test` in the name.

    Raises UsageError for a folder without them, and for shards that cannot be read at any place.
    """
    trained = ShardImages(_shards(root, TRAIN_SPLITS)) if train else None
    test = ShardImages(_shards(root, TEST_SPLITS))
    parts = [part for part in (trained, test) if part]
    if not all(map(len, parts)) or len(parts) < 1 + train:
        raise UsageError(f"{root}: the shards hold no pair of an image ({', '.join(SUFFIXES)}) and a label (.cls)")
    classes = 1 + max(int(part.rows[:, 3].max()) for part in parts)
    digest = hashlib.sha256(b"".join(part.rows.tobytes() for part in parts)).hexdigest()[:12]
    return Parts(
        name=f"wds/{root.resolve().name}",
        class_names=_class_names(root, classes),
        train=trained,
        test=test,
        contents=f"{classes} classes, {len(trained or ())}+{len(test)} images, {digest}",
    )


def _shards(root: Path, splits: tuple[str, ...]) -> list[Path]:
    for split, shards in _info(root).get("splits", {}).items():
        if split in splits:
            return [root / name for name in shards["filenames"]]
    for split in splits:
        if found := sorted(root.glob(f"*{split}*.tar")):
            return found
    packed = sorted(root.glob("*.tar.*"))
    hint = f"{packed[0].name} is compressed: unpack it to .tar" if packed else f"{INFO[0]} may name other shards"
    raise UsageError(f"{root}: has no shards {' or '.join(f'*{split}*.tar' for split in splits)} ({hint})")


def _info(root: Path) -> dict[str, Any]:
    file = next((root / name for name in INFO if (root / name).is_file()), None)
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file else {}
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{file}: is not the description of a data set: {error}") from error


def _class_names(root: Path, classes: int) -> list[str]:
    names = _info(root).get("class_names")
    return (
        list(names) if isinstance(names, list) and len(names) == classes else [str(label) for label in range(classes)]
    )


def _listed(shard: Path) -> Iterator[_Member]:
    """The samples of a shard, in its order."""
    found: dict[str, _Member] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                if entry.isfile():
                    _note(archive, entry, found)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise UsageError(f"{shard}: is not a shard: {error}") from error
    return (member for member in found.values() if member.offset >= 0 and member.label >= 0)


def _note(archive: tarfile.TarFile, entry: tarfile.TarInfo, found: dict[str, _Member]) -> None:
    folder, _, file = entry.name.rpartition("/")
    stem, _, suffix = file.partition(".")
    member = found.setdefault(f"{folder}/{stem}", _Member())
    if f".{suffix.lower()}" in SUFFIXES:
        member.offset, member.size = entry.offset_data, entry.size
    elif suffix == "cls":
        content = archive.extractfile(entry)
        member.label = int(content.read()) if content else -1
