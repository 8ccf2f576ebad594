"""An evaluation as lines for people and as one object for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from archspec.evaluation.robustness import Withstood
from archspec.evaluation.run import Evaluation
from archspec.evaluation.subject import Subject
from archspec.training.data import Data

MATRIX = 20  # classes whose confusion is shown as a matrix; of more, the pairs that are confused most
PAIRS = 20


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found, and which parts of it were asked for."""

    subject: Subject
    data: Data
    evaluation: Evaluation
    withstood: Sequence[Withstood] = ()
    per_class: bool = False
    confusion: bool = False

    def plain(self) -> dict[str, Any]:
        """The one object: shares are 0..1, a class without images has null."""
        scores, found = self.evaluation.scores, self.evaluation
        result: dict[str, Any] = {
            "network": self.subject.plan.name,
            "weights": self.subject.weights.name,
            "data": self.data.name,
            "images": scores.images,
            "classes": self.data.classes,
            "loss": scores.loss,
            "top1": scores.top1,
            "top5": scores.top5,
            "throughput": {
                "images_per_second": found.images_per_second,
                "device": found.device,
                "threads": found.threads,
                "batch": self.data.batch,
            },
            "broken": self.data.broken.names,
        }
        if self.per_class:
            result["per_class"] = [
                {"class": name, "images": images, "top1": share} for name, images, share in self._classes()
            ]
        if self.confusion:
            result["class_names"] = list(self.data.class_names)
            result["confusion"] = scores.confusion.tolist()
        if self.withstood:
            result["robustness"] = {
                each.name: {"top1": each.top1, "interval": each.interval, "draws": list(each.draws)}
                for each in self.withstood
            }
        return result

    def parts(self) -> Iterator[str | Table]:
        """For a terminal, from the top."""
        scores, found = self.evaluation.scores, self.evaluation
        top5 = f", top-5 {_percent(scores.top5)}" if scores.top5 is not None else ""
        yield f"{self.subject.plan.name} on {self.data.name}, {scores.images} images, {self.data.classes} classes"
        yield f"weights: {self.subject.told}"
        yield f"top-1 {_percent(scores.top1)}{top5}, loss {scores.loss:.4f}"
        threads = f"{found.threads} thread{'s' * (found.threads != 1)}"
        device = f"{found.device}, {threads}" if found.device == "cpu" else found.device
        yield f"{found.images_per_second:,.0f} images/s on {device}, batches of {self.data.batch}"
        if self.withstood:
            yield self._robustness()
        if self.per_class:
            yield self._per_class()
        if self.confusion:
            yield self._matrix() if self.data.classes <= MATRIX else self._pairs()

    def _classes(self) -> list[tuple[str, int, float | None]]:
        scores = self.evaluation.scores
        return list(zip(self.data.class_names, scores.confusion.sum(1).tolist(), scores.per_class, strict=True))

    def _robustness(self) -> Table:
        table = _table("robustness", "disturbed by", "top-1", "change")
        clean = self.evaluation.scores.top1
        for each in self.withstood:
            spread = "" if each.interval is None else f" ± {100 * each.interval:.2f}"
            table.add_row(each.name, _percent(each.top1) + spread, f"{100 * (each.top1 - clean):+.2f}")
        return table

    def _per_class(self) -> Table:
        table = _table("each class", "class", "images", "top-1")
        for name, images, share in self._classes():
            table.add_row(escape(name), str(images), "" if share is None else _percent(share))
        return table

    def _matrix(self) -> Table:
        table = _table("confusion: rows are what images show, columns what they were taken for", "", *self._names())
        for name, row in zip(self._names(), self.evaluation.scores.confusion.tolist(), strict=True):
            table.add_row(name, *(str(count) if count else "" for count in row))
        return table

    def _pairs(self) -> Table:
        table = _table(f"confusion: the {PAIRS} pairs that were confused most", "image of", "taken for", "images")
        wrong = self.evaluation.scores.confusion.clone().fill_diagonal_(0).flatten()
        counts, places = wrong.topk(PAIRS)
        for count, place in zip(counts.tolist(), places.tolist(), strict=True):
            if count:
                shown, taken = divmod(place, self.data.classes)
                table.add_row(self._names()[shown], self._names()[taken], str(count))
        return table

    def _names(self) -> tuple[str, ...]:
        return tuple(escape(name) for name in self.data.class_names)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"
