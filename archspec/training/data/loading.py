"""Images on a disk, decoded and augmented by worker processes.

Shapes: B images of a process's share of a batch, C channels, H and W the network's input size in pixels.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from archspec.errors import DataError
from archspec.training.data.base import Batch, Data, Normalisation
from archspec.training.data.broken import Broken
from archspec.training.data.images import Images, Parts
from archspec.training.data.stream import Key, Shares, seed_of, seeded
from archspec.training.data.views import View

Found = list[tuple[str, str]]  # names of images that could not be read, with the reasons
Sample = tuple[Tensor | None, int, Found]  # no image where none could be read


class ImageData(Data):
    """Images that are read when they are needed, by up to `workers` processes, or by this one where there are none."""

    def __init__(
        self,
        parts: Parts,
        shares: Shares,
        views: tuple[View, View],
        *,
        mode: str,
        shape: tuple[int, int, int],
        constants: Normalisation,
        workers: int,
        broken: Broken,
    ) -> None:
        self.name, self.class_names, self.shares, self.broken = parts.name, parts.class_names, shares, broken
        self.normalisation = constants
        self.identity = f"{parts.name}: {parts.contents}, {'x'.join(map(str, shape))}"
        self.train_size, self.test_size = len(parts.train or ()), len(parts.test)
        self.workers = min(workers, _processors())  # more would only wait for one another
        self._test = _TestSamples(parts.test, views[1], mode)
        self._train: Dataset[Sample] | None = None
        if parts.train is not None:
            self._train = _TrainSamples(parts.train, views[0], mode, shares.seed, attempts=broken.limit + 1)
        self._keys = _Keys()
        self._kept: DataLoader[Any] | None = None

    def train_epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """As Data has it. An image that cannot be read is replaced by the next, by number, that can."""
        assert self._train is not None, "opened for evaluation alone"
        loader, self._kept = self._kept, None
        if loader is None:
            loader = self._loader(self._train, self._keys, keep=True)
        self._keys.lists = self.shares.keys(epoch, start_step)
        try:
            for step, batch in enumerate(self._read(loader), start=start_step + 1):
                if step == self.shares.steps:
                    self._kept = loader  # its workers go on with the next epoch; those of an epoch that is left end
                yield batch
        finally:
            del loader

    def test_batches(self) -> Iterator[Batch]:
        """As Data has it. An image that cannot be read is left out."""
        mine = range(self.shares.rank, self.test_size, self.shares.world)
        count = self.shares.batch // self.shares.world
        batches = [mine[start : start + count] for start in range(0, len(mine), count)]
        yield from self._read(self._loader(self._test, batches, keep=False))

    def _loader(self, samples: Dataset[Sample], keys: Iterable[Any], *, keep: bool) -> DataLoader[Any]:
        return DataLoader(
            samples,
            batch_sampler=keys,  # any iterable of lists will do
            num_workers=self.workers,
            collate_fn=_collate,
            worker_init_fn=_leave_signals,
            persistent_workers=keep and self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # the global one belongs to the network
        )

    def _read(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        try:
            for images, labels, found in loader:
                for name, reason in found:
                    self.broken.add(name, reason)
                if len(labels):
                    yield images, labels
                elif self.broken.count >= self.train_size > 0:
                    raise DataError(f"{self.name}: no image can be read: {self.broken.describe()}")
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            advice = "did memory run out? try fewer --workers"
            raise DataError(f"{self.name}: a process that loads images died: {error} ({advice})") from error
        finally:
            del loader  # an error that is kept would keep the workers


class _Keys:
    """The lists of keys of the epoch that was asked for last: the workers live on from epoch to epoch."""

    lists: Iterator[list[Key]] = iter(())

    def __iter__(self) -> Iterator[list[Key]]:
        return self.lists


class _TrainSamples(Dataset[Sample]):
    """Augmented images by key. Knows nothing of what came before: a sample depends on its key alone."""

    def __init__(self, images: Images, view: View, mode: str, seed: int, attempts: int) -> None:
        self.images, self.view, self.mode, self.seed, self.attempts = images, view, mode, seed, attempts

    def __getitem__(self, key: Key) -> Sample:
        image, label, found = self._readable(key.image)
        if image is None:
            return None, label, found
        with seeded(seed_of(self.seed, key.epoch, key.position)):
            return self.view(image), label, found

    def _readable(self, index: int) -> tuple[Image.Image | None, int, Found]:
        """The image, or the next that can be read."""
        found: Found = []
        for step in range(min(self.attempts, len(self.images))):
            image, label = _read(self.images, (index + step) % len(self.images), self.mode, found)
            if image is not None:
                return image, label, found
        return None, -1, found


class _TestSamples(Dataset[Sample]):
    """Images by number, as they are tested."""

    def __init__(self, images: Images, view: View, mode: str) -> None:
        self.images, self.view, self.mode = images, view, mode

    def __getitem__(self, index: int) -> Sample:
        found: Found = []
        image, label = _read(self.images, index, self.mode, found)
        return (None if image is None else self.view(image)), label, found


def _read(images: Images, index: int, mode: str, found: Found) -> tuple[Image.Image | None, int]:
    try:
        return images.read(index, mode)
    except Exception as error:  # decoders fail in any way on damaged files
        found.append((images.name(index), _reason(error)))
        return None, -1


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"  # its own message names nothing but an object in memory
    text = error.strerror if isinstance(error, OSError) else None  # its message has the whole path
    return f"{type(error).__name__}: {text or str(error).partition(chr(10))[0]}"


def _collate(samples: list[Sample]) -> tuple[Tensor, Tensor, Found]:
    """The readable ones as a batch, and the names of all that are not."""
    readable = [(image, label) for image, label, _ in samples if image is not None]
    images = torch.stack([image for image, _ in readable]) if readable else torch.empty(0)
    labels = torch.tensor([label for _, label in readable], dtype=torch.int64)
    return images, labels, [each for *_, found in samples for each in found]


def _processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _leave_signals(worker: int) -> None:
    """A signal to the whole group reaches workers, too; the process that trains decides, and ends them itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        continue
    os._exit(0)
