"""Data sets as numbered images: folders of files, and whatever timm's factory finds."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from PIL import Image

from archspec.errors import UsageError

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("val", "valid", "validation", "test")
SHOWN = 8


class Images(Protocol):
    """Images by number, from 0."""

    def __len__(self) -> int: ...

    def read(self, index: int, mode: str) -> tuple[Image.Image, int]:
        """The decoded image, in the mode L or RGB, and its label. Raises whatever the file makes the decoder raise."""
        ...

    def name(self, index: int) -> str:
        """What a user finds it by."""
        ...


class Parts:
    """A data set's training and test images. `train` is None where only the test part was asked for."""

    def __init__(
        self, *, name: str, class_names: Sequence[str], train: Images | None, test: Images, contents: str
    ) -> None:
        self.name, self.class_names, self.train, self.test = name, tuple(class_names), train, test
        self.contents = contents  # equal for equal images and classes, wherever they stand


def decode(file: IO[bytes], mode: str) -> Image.Image:
    """The pixels of an image file, without what its decoder finds odd but reads all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(file).convert(mode)


class FolderImages:
    """Files below a folder. Kept as arrays: lists of objects would be copied into every worker bit by bit."""

    def __init__(self, root: Path, files: Sequence[str], labels: Sequence[int]) -> None:
        self.root = root
        self.files = np.array([os.fsencode(file) for file in files], dtype="S")
        self.labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int, mode: str) -> tuple[Image.Image, int]:
        """The image, and its label."""
        with (self.root / self.name(index)).open("rb") as file:
            return decode(file, mode), int(self.labels[index])

    def name(self, index: int) -> str:
        """Its path below the folder."""
        return os.fsdecode(bytes(self.files[index]))


def open_folder(root: Path, *, train: bool) -> Parts:
    """An ImageFolder tree: train/CLASS/... and val/CLASS/..., or test/; labels number the sorted class names.

    Without `train`, the classes are those of train/ where that is there, else those of the test part. Raises UsageError
    for any other layout.
    """
    train_folder = _part(root, TRAIN_FOLDERS) if train else _has(root, TRAIN_FOLDERS)
    test_folder = _part(root, TEST_FOLDERS)
    classes = _classes(train_folder or test_folder)
    unknown = sorted(set(_classes(test_folder)) - set(classes))
    if unknown:
        raise UsageError(f"{test_folder}: has classes that {train_folder} lacks: {_few(unknown)}")
    test = _files(root, test_folder, classes)
    trained = _files(root, train_folder, classes, whole=True) if train and train_folder else None
    contents = f"{len(classes)} classes, {len(trained or ())}+{len(test)} images, {_digest(classes, trained, test)}"
    return Parts(name=root.resolve().name, class_names=classes, train=trained, test=test, contents=contents)


def _has(root: Path, names: Iterable[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _part(root: Path, names: tuple[str, ...]) -> Path:
    found = _has(root, names)
    if found is None:
        inside = _folders(root)
        hint = f"it has the folders {_few(inside)}" if inside else "it has no folders"
        raise UsageError(
            f"{root}: has no folder {' or '.join(f'{name}/' for name in names)}; {hint} "
            f"(images stand in {TRAIN_FOLDERS[0]}/CLASS/ and {TEST_FOLDERS[0]}/CLASS/)"
        )
    return found


def _classes(part: Path) -> list[str]:
    classes = _folders(part)
    if not classes:
        raise UsageError(f"{part}: has no folders, one for the images of each class")
    return classes


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _files(root: Path, part: Path, classes: list[str], *, whole: bool = False) -> FolderImages:
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    labels = {name: label for label, name in enumerate(classes)}
    samples = make_dataset(str(part), labels, extensions=IMG_EXTENSIONS, allow_empty=True)
    empty = sorted(labels.keys() - {classes[label] for _, label in samples})
    if not samples or (whole and empty):
        raise UsageError(f"{part}: found the classes {_few(classes)}, but no images of {_few(empty)}")
    files = [os.path.relpath(file, root) for file, _ in samples]
    return FolderImages(root, files, [label for _, label in samples])


def _digest(classes: list[str], *parts: FolderImages | None) -> str:
    """Of the names of classes and files: reading a million images to compare them would take hours."""
    digest = hashlib.sha256("\0".join(classes).encode("utf-8", "surrogateescape"))
    for part in parts:
        digest.update(part.files.tobytes() if part else b"")
    return digest.hexdigest()[:12]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
