"""Batches on their way to the device: on a GPU the next one is copied while the one before is computed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator

import torch
from torch import Tensor

from archspec.training.precision import Precision

AHEAD = 2  # steps that the GPU may lag behind: more would only fill its memory with images

Batch = tuple[Tensor, Tensor]  # images [B, C, H, W], labels [B]


class Feed:
    """Iterates over batches, placed as the precision says. `waited` counts the seconds in which there was none."""

    def __init__(self, batches: Iterator[Batch], precision: Precision) -> None:
        self.waited = 0.0
        self._batches, self._precision = batches, precision

    def __iter__(self) -> Iterator[Batch]:
        return self._ahead() if self._precision.device.type == "cuda" else map(self._placed, self._timed())

    def close(self) -> None:
        """Let the batches go, with the processes that make them."""
        if isinstance(self._batches, Generator):
            self._batches.close()

    def _timed(self) -> Iterator[Batch]:
        while True:
            asked = time.monotonic()
            batch = next(self._batches, None)
            self.waited += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def _placed(self, batch: Batch) -> Batch:
        images, labels = batch
        return self._precision.place(images), labels.to(self._precision.device, non_blocking=True)

    def _ahead(self) -> Iterator[Batch]:
        """Each batch is copied on a stream of its own before the one before it is handed out."""
        device = self._precision.device
        computing, copying = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        done: deque[torch.cuda.Event] = deque()
        ready: Batch | None = None
        for images, labels in self._timed():
            with torch.cuda.stream(copying):
                coming = self._placed((images.pin_memory(), labels.pin_memory()))
            if ready is not None:
                yield ready
                done.append(computing.record_event())
                if len(done) > AHEAD:
                    done.popleft().synchronize()
            computing.wait_stream(copying)
            for part in coming:
                part.record_stream(computing)
            ready = coming
        if ready is not None:
            yield ready
