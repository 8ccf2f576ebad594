"""Rules between an option and its dimensions, for block constructors: each raises OptionError with a remedy."""

from __future__ import annotations

from itertools import count

from archspec.errors import OptionError


def divides(option: str, value: int, what: str, total: int) -> None:
    """`value` must divide `total`; suggests the nearest divisor. `what` names the total, such as "the width"."""
    if total % value:
        near = next(n for away in count() for n in (value - away, value + away) if 0 < n <= total and total % n == 0)
        raise OptionError(option, value, f"does not divide {what} {total}", f"try {near}")


def at_most(option: str, value: float, what: str, limit: float) -> None:
    """`value` must not exceed `limit`."""
    if value > limit:
        raise OptionError(option, value, f"is more than {what} {limit}", f"at most {limit}")
