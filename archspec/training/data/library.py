"""Data sets by the names that timm's factory has: torchvision's (torch/cifar10) and the hub's (hfds/OWNER/NAME).

Nothing is downloaded unless that is asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from archspec.errors import UsageError, nearest
from archspec.training.data.images import Parts, decode

TORCH = (
    *("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist"),
    *("imagenet", "inaturalist", "places365"),
)
HUB_TEST_SPLITS = ("validation", "valid", "val", "test")


class TorchImages:
    """A data set of torchvision."""

    def __init__(self, source: Any, part: str) -> None:
        self.source, self.part = source, part

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int, mode: str) -> tuple[Image.Image, int]:
        """The image, and its label."""
        image, label = self.source[index]
        return image.convert(mode), int(label)

    def name(self, index: int) -> str:
        """Its file's name where there is one, else its number."""
        samples = getattr(self.source, "samples", None) or getattr(self.source, "imgs", None)
        return f"{self.part}/{Path(samples[index][0]).name if samples else index}"


class HubImages:
    """A data set of the hub, through timm's reader."""

    def __init__(self, reader: Any, part: str) -> None:
        self.reader, self.part = reader, part

    def __len__(self) -> int:
        return len(self.reader)

    def read(self, index: int, mode: str) -> tuple[Image.Image, int]:
        """The image, and its label."""
        file, label = self.reader[index]
        with file:
            return decode(file, mode), int(label)

    def name(self, index: int) -> str:
        """Its number, as a row of the table."""
        return f"{self.part}/{index}"


def open_torch(name: str, root: Path, *, train: bool, download: bool) -> Parts:
    """A data set of torchvision, below `root`. Raises UsageError for an unknown name and for missing files."""
    short = name.split("/", 1)[1].lower()
    if short not in TORCH:
        hint = nearest(short, TORCH) or f"known: {', '.join(TORCH)}"
        raise UsageError(f"{name}: timm knows no data set of torchvision by that name ({hint})")
    sources = {part: _torch_part(name, root, part, download) for part in ("train", "validation")[not train :]}
    test = sources["validation"]
    return Parts(
        name=name,
        class_names=_torch_classes(test),
        train=TorchImages(sources["train"], "train") if train else None,
        test=TorchImages(test, "validation"),
        contents=f"{len(sources.get('train', ()))}+{len(test)} images",
    )


def _torch_part(name: str, root: Path, part: str, download: bool) -> Any:
    from timm.data import create_dataset

    def create(fetch: bool) -> Any:
        return create_dataset(name, root=str(root), split=part, download=fetch)

    where = f"below {root} (--data-root), where torchvision looks for it"
    return _fetched(create, name, where, download, missing=(RuntimeError, OSError))


def _fetched(
    create: Callable[[bool], Any], name: str, where: str, download: bool, missing: tuple[type[Exception], ...]
) -> Any:
    """What is there; only where it is not, and that is allowed, is it downloaded."""
    try:
        return create(False)
    except missing as error:
        if not download:
            advice = f"--download fetches it; or put it {where}"
            raise UsageError(f"{name}: is not on this machine: {_first(error)} ({advice})") from error
    try:
        return create(True)
    except Exception as error:  # whatever a connection, a server or an archive may do
        advice = f"fetch it on a machine with a connection and put it {where}"
        raise UsageError(f"{name}: cannot be downloaded: {_first(error)} ({advice})") from error


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _torch_classes(source: Any) -> list[str]:
    """The names of the classes; where a class has several, all of them."""
    names: Sequence[Any] = getattr(source, "classes", None) or source.all_categories
    return [name if isinstance(name, str) else ", ".join(name) for name in names]


def open_hub(name: str, root: Path | None, *, train: bool, download: bool) -> Parts:
    """A data set of the hub with a table of images and labels. Raises UsageError where it cannot be had."""
    rest = name.split("/", 1)[1]
    if importlib.util.find_spec("datasets") is None:
        raise UsageError(f"{name}: needs the package datasets (pip install datasets)")
    trained = HubImages(_hub_part(name, root, "train", download), "train") if train else None
    test = _hub_test(name, root, download)
    names: dict[str, int] = test.reader.class_to_idx
    labels = set() if names else {*test.reader.iter_targets(), *(trained.reader.iter_targets() if trained else ())}
    return Parts(
        name=f"hfds/{Path(rest).name if Path(rest).is_absolute() else rest}",
        class_names=list(names) or [str(label) for label in range(max(labels) + 1)],
        train=trained,
        test=test,
        contents=f"{len(trained or ())}+{len(test)} images",
    )


def _hub_test(name: str, root: Path | None, download: bool) -> HubImages:
    for part in HUB_TEST_SPLITS:
        try:
            return HubImages(_hub_part(name, root, part, download), part)
        except ValueError:  # it has no such split
            continue
    raise UsageError(f"{name}: has none of the splits {', '.join(HUB_TEST_SPLITS)} to be tested on")


def _hub_part(name: str, root: Path | None, part: str, download: bool) -> Any:
    from timm.data import create_dataset

    def create(fetch: bool) -> Any:
        with _connected(fetch):
            return create_dataset(name, root=str(root) if root else None, split=part).reader

    where = "in the cache of the package datasets, or give a folder of images"
    return _fetched(create, name, where, download, missing=(OSError,))


@contextmanager
def _connected(allowed: bool) -> Iterator[None]:
    """Whether the hub may be reached inside; both packages read their switch when they need it."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = not allowed or before[1]
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
