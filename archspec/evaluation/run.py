"""One pass over held-out images.

Shapes: B images of a batch, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from archspec.evaluation.scores import Scores, Tally
from archspec.training.data.base import Batch


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores, and how fast the network came to them."""

    scores: Scores
    seconds: float  # in the network and on the way to it, without reading images
    device: str  # the GPU's name, or cpu
    threads: int  # of the CPU

    @property
    def images_per_second(self) -> float:
        """Of this process."""
        return self.scores.images / self.seconds


def evaluate(network: nn.Module, batches: Iterable[Batch], *, classes: int, device: torch.device) -> Evaluation:
    """The answers of a network [B, C, H, W] -> [B, K], which stays on its device and in its mode.

    The first batch passes twice: what is set up then belongs to no batch. Raises EvaluationError for answers that are
    not finite, or no images at all.
    """
    tally, seconds, warm = Tally(classes), 0.0, False
    with evaluating(network), torch.inference_mode():
        for images, labels in batches:
            if not warm:
                network(images.to(device))
                warm = True
            started = _now(device)
            logits = network(images.to(device, non_blocking=True))
            seconds += _now(device) - started
            tally.add(logits, labels)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Evaluation(scores=tally.scores(), seconds=seconds, device=name, threads=torch.get_num_threads())


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """In evaluation mode inside; each module is in its own mode again after."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _now(device: torch.device) -> float:
    """Seconds, once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
