"""How well a network does on held-out images, while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.training.distributed import Group
from archspec.training.precision import Precision


@dataclass(frozen=True, kw_only=True)
class Score:
    """Means over the held-out images."""

    loss: float  # cross entropy in nats
    accuracy: float  # 0..1
    top5: float  # 0..1


def score(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    group: Group,
    precision: Precision,
    stop: Callable[[], bool] = lambda: False,
) -> Score | None:
    """The network's score over everyone's batches, in evaluation mode; None if `stop` said so between two batches.

    Processes need not have equally many batches: `stop` may ask only this one, and all agree at the end.
    """
    mode = network.training
    network.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=group.device)
    stopped = False
    with torch.no_grad():
        for images, labels in batches:
            sums += _sums(network, precision.place(images), labels.to(group.device), precision)
            stopped = stop()
            if stopped:
                break
    network.train(mode)
    if group.any(stopped):
        return None
    loss, first, five, count = group.totals(sums.tolist())
    return Score(loss=loss / max(count, 1), accuracy=first / max(count, 1), top5=five / max(count, 1))


def _sums(network: nn.Module, images: Tensor, labels: Tensor, precision: Precision) -> Tensor:
    """Loss, hits, hits among five, and number, summed over a batch."""
    with precision.autocast():
        logits = network(images).float()  # [B, K]
    loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
    ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]  # [B, 5]
    return torch.stack([loss, ranked[:, 0].double().sum(), ranked.double().sum(), loss.new_tensor(len(labels))])
