"""A table of text, the same in whatever form it is then written (formats.py), and how figures are written in it."""

from __future__ import annotations

from dataclasses import dataclass

from archspec.quantities import humanize

# The costs of a network that a count alone tells, with their headings; and all.
COUNTED = {
    "params": "params",
    "params_trainable": "trained",
    "macs": "MACs",
    "flops": "FLOPs",
    "ops": "ops",
    "activations": "activations",
}
HEADINGS = {**COUNTED, "train_memory": "memory", "latency": "latency"}


@dataclass(frozen=True, slots=True)
class Field:
    """A cell of the table."""

    text: str
    bold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """title, then a line of headings and the rows; the first column stands left, and the last if it is prose.

    notes: what is to be known of the table, a sentence each.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Field, ...], ...]
    prose: bool
    notes: tuple[str, ...]

    @property
    def left(self) -> tuple[bool, ...]:
        """For each column, whether it stands left."""
        last = len(self.headings) - 1
        return tuple(index == 0 or (self.prose and index == last) for index in range(len(self.headings)))


def shown_cost(column: str, value: float) -> str:
    """A cost for people: 22.050M, 1.204GiB, 3.2ms."""
    if column == "latency":
        return f"{1000 * value:.4g}ms"
    if column == "train_memory":
        return shown_bytes(value)
    return humanize(int(value))


def shown_bytes(amount: float) -> str:
    """Binary units: 1.2 GiB, 310.4 MiB."""
    return f"{amount / 2**30:,.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:,.1f} MiB"


def shown_time(seconds: float) -> str:
    """For people: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
