"""What can go wrong, and where: the one exception tree of archspec.

ArchspecError
├── UserError               the user's mistake: exit code 2
│   ├── SpecError           one or many problems of a file, each with its place
│   ├── OptionError         a block's constructor refuses an option; the plan adds the place
│   ├── UnknownName         a name that is not registered or not shipped
│   ├── PluginError         a plugin that cannot be loaded or breaks the rules of the registry
│   └── UsageError          a command's arguments: a missing file, options that contradict
└── RunError                a run that failed: exit code 1
    ├── CountError          an operation that is neither counted nor known to be free
    ├── DataError           images that cannot be read
    ├── EvaluationError     a network that gives no answers, or images that ask for none
    └── TrainingError       a training run that cannot go on
        └── Interrupted     one that was asked to stop, and goes on when it is resumed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: the file (or the command-line option), line and column, both from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a file. Prints as `place: path: rule (suggestion)`; the rule names the value."""

    place: Place | None
    path: str
    rule: str
    suggestion: str = ""

    def __str__(self) -> str:
        parts = [str(part) for part in (self.place, self.path) if part]
        remedy = f" ({self.suggestion})" if self.suggestion else ""
        return ": ".join([*parts, self.rule]) + remedy


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Each once, in the order of their places."""

    def key(problem: Problem) -> tuple[str, int, int]:
        place = problem.place
        return (place.file, place.line, place.column) if place else ("", 0, 0)

    return sorted(dict.fromkeys(problems), key=key)


class ArchspecError(Exception):
    """Whatever archspec raises on purpose."""

    exit_code = 1


class UserError(ArchspecError):
    """The user's mistake, with what to do about it."""

    exit_code = 2


class SpecError(UserError):
    """The problems of a spec, all at once, in the order of their places.

    `readable` is the part of the spec that could be read all the same, for whoever can find more that is wrong with it.
    """

    def __init__(self, problems: Sequence[Problem], readable: object = None) -> None:
        self.problems = tuple(problems)
        self.readable = readable
        super().__init__("\n".join(str(problem) for problem in self.problems))


class OptionError(UserError):
    """Raised by a block's constructor for a value that its dimensions do not allow.

    `rule` reads on after the value, such as "does not divide the width 64".
    """

    def __init__(self, option: str, value: object, rule: str, suggestion: str = "") -> None:
        self.option, self.value, self.rule, self.suggestion = option, value, rule, suggestion
        super().__init__(f"{option}: {value} {rule}" + (f" ({suggestion})" if suggestion else ""))


class UnknownName(UserError):
    """A name that is not known; the message carries the nearest that is."""


class PluginError(UserError):
    """A plugin that cannot be loaded, or a block that breaks the rules of the registry."""


class UsageError(UserError):
    """A command's arguments do not make sense."""


class RunError(ArchspecError):
    """A run that failed through no mistake of the user's spec."""


class CountError(RunError):
    """An operation that is neither counted nor known to be free."""


class DataError(RunError):
    """A data set whose images cannot be read, more of them than is allowed."""


class EvaluationError(RunError):
    """A network whose answers cannot be counted."""


class TrainingError(RunError):
    """A training run that cannot go on."""


class Interrupted(TrainingError):
    """A run that a signal stopped; what it has done is saved, and the message says how to go on."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`did you mean 'x'?` for the closest known name, or an empty string; `cutoff` is how close, up to 1."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff) if len(name) <= 100 else []
    return f"did you mean '{close[0]}'?" if close else ""


def shorten(text: str) -> str:
    """A user's text as it fits into a message."""
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
