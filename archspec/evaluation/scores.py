"""Counting right and wrong answers.

Shapes: B images of a batch, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import EvaluationError

TOP = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What the answers come to; shares are 0..1."""

    images: int
    loss: float  # mean cross entropy, in nats
    top1: float  # the share whose class has the largest logit
    top5: float | None  # whose class is among the five largest; None where there are no more than five classes
    confusion: Tensor  # int64 [K, K]: images of the row's class that were taken for the column's

    @property
    def per_class(self) -> list[float | None]:
        """The share of each class's images that was answered right; None for a class without images."""
        totals, hits = self.confusion.sum(1).tolist(), self.confusion.diag().tolist()
        return [hit / total if total else None for hit, total in zip(hits, totals, strict=True)]


class Tally:
    """Counts answers a batch at a time. Of equal logits the one with the lower class counts as larger."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self.in_top = torch.zeros((), dtype=torch.int64)
        self.loss = torch.zeros((), dtype=torch.float64)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Answers [B, K] to images of those labels [B]. Raises EvaluationError if one is not finite."""
        logits, labels = logits.detach().float(), labels.to(logits.device)
        if not bool(logits.isfinite().all()):
            raise EvaluationError("the network's answer is not finite: its weights have diverged, or overflow")
        self.loss += F.cross_entropy(logits, labels, reduction="none").double().sum().cpu()
        own = logits.gather(1, labels[:, None])  # [B, 1]
        before = torch.arange(self.classes, device=labels.device) < labels[:, None]  # [B, K]
        rank = ((logits > own) | ((logits == own) & before)).sum(1)  # [B], 0 for the right answer
        self.in_top += (rank < TOP).sum().cpu()
        taken_for = torch.where(rank == 0, labels, logits.argmax(1))
        pairs = (labels * self.classes + taken_for).cpu()
        self.confusion.view(-1).index_add_(0, pairs, torch.ones_like(pairs))

    def scores(self) -> Scores:
        """What it comes to. Raises EvaluationError where nothing was counted."""
        images = int(self.confusion.sum())
        if not images:
            raise EvaluationError("there are no images that can be read")
        return Scores(
            images=images,
            loss=self.loss.item() / images,
            top1=int(self.confusion.trace()) / images,
            top5=int(self.in_top) / images if self.classes > TOP else None,
            confusion=self.confusion,
        )
