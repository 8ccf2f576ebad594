"""Quantities as people write them: `1.5G`, `28M`, `640k`, `20ms`, `2GiB`.

A quantity remembers how it was printed, so that an exact value can be compared with it to its last digit, and printed
beside it in the same unit. All arithmetic is decimal: 0.1 is a tenth.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal, localcontext
from typing import Literal, TypeAlias

Dimension: TypeAlias = Literal["count", "bytes", "seconds"]
Rounding: TypeAlias = Literal["rounded", "truncated"]

# Papers that count parameters in 2^20 print a bare M; a spec that quotes them writes Mi.
_UNITS: dict[Dimension, dict[str, Decimal]] = {
    "count": {
        "": Decimal(1),
        **{prefix: Decimal(1000**power) for power, prefix in enumerate("kMGT", 1)},
        **{f"{prefix}i": Decimal(1024**power) for power, prefix in enumerate("KMG", 1)},
    },
    "bytes": {
        "B": Decimal(1),
        **{f"{prefix}B": Decimal(1000**power) for power, prefix in enumerate("kMG", 1)},
        **{f"{prefix}iB": Decimal(1024**power) for power, prefix in enumerate("KMG", 1)},
    },
    "seconds": {
        "ns": Decimal("1e-9"),
        "us": Decimal("1e-6"),
        "µs": Decimal("1e-6"),
        "ms": Decimal("1e-3"),
        "s": Decimal(1),
        "min": Decimal(60),
        "h": Decimal(3600),
    },
}
_QUANTITY = re.compile(r"(-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,2})?)\s*(.*)", re.DOTALL)
_MAX_LENGTH = 24  # of a number, as long as any float is written
_EXAMPLES: dict[Dimension, str] = {"count": "28M", "bytes": "2GiB", "seconds": "20ms"}
_LIMIT = Decimal(10) ** 30
_DIGITS = 200  # of precision: whatever the limits let through is multiplied, divided and cut exactly


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number with a unit, as printed."""

    text: str
    number: Decimal  # as printed, before the unit
    unit: str  # "" for a plain count
    dimension: Dimension

    @property
    def value(self) -> Decimal:
        """The value in ones, bytes or seconds."""
        with localcontext(prec=_DIGITS):
            return self.number * self._scale

    @property
    def step(self) -> Decimal:
        """The size of the last printed digit, in ones, bytes or seconds."""
        return self._last_digit * self._scale

    def rendered(self, exact: float, rounding: Rounding = "rounded") -> str:
        """An exact value in this quantity's unit and with its number of decimals."""
        return f"{self._printed(exact, rounding):f}{self.unit}"

    def agrees(self, exact: float, rounding: Rounding = "rounded") -> bool:
        """Whether an exact value prints as this quantity's number."""
        return self._printed(exact, rounding) == self.number

    @property
    def _scale(self) -> Decimal:
        return _UNITS[self.dimension][self.unit]

    @property
    def _last_digit(self) -> Decimal:
        return Decimal((0, (1,), int(self.number.as_tuple().exponent)))

    def _printed(self, exact: float, rounding: Rounding) -> Decimal:
        mode = ROUND_HALF_UP if rounding == "rounded" else ROUND_DOWN
        with localcontext(prec=_DIGITS):
            return (Decimal(exact) / self._scale).quantize(self._last_digit, rounding=mode)


def parse_quantity(text: str | int | float, dimension: Dimension = "count") -> Quantity:
    """The quantity that a person wrote; raises a ValueError that names the rule. Bytes and seconds need a unit."""
    written = _number_text(text) if isinstance(text, int | float) else text.strip()
    match = _QUANTITY.fullmatch(written)
    if match is None:
        raise ValueError(f"{_shown(written)} is not a number with a unit, such as {_EXAMPLES[dimension]}")
    number, unit = Decimal(match[1]), _canonical(match[2])
    if number.is_signed():
        raise ValueError(f"{_shown(written)} is negative")
    if unit not in _UNITS[dimension]:
        raise ValueError(_unit_rule(written, match[1], match[2], dimension))
    quantity = Quantity(text=written, number=number, unit=unit, dimension=dimension)
    if len(match[1]) > _MAX_LENGTH or quantity.value > _LIMIT:
        raise ValueError(f"{_shown(written)} is too large or too long")
    return quantity


def _number_text(number: int | float) -> str:
    """A bare number as text; an integral float, which YAML makes of 1e9, prints as an integer."""
    if isinstance(number, bool) or (isinstance(number, float) and not math.isfinite(number)):
        raise ValueError(f"{str(number).lower()} is not a quantity")
    if abs(number) > int(_LIMIT):  # before str(), which refuses integers of thousands of digits
        raise ValueError("the number is too large")
    return str(int(number)) if number == int(number) else str(number)


def _canonical(unit: str) -> str:
    """The unit as the tables write it: k and K are the same, and the micro sign has two code points."""
    unit = unit.replace("\u03bc", "\u00b5")
    if unit[:1] in ("k", "K"):
        return ("K" if unit[1:2] == "i" else "k") + unit[1:]
    return unit


def _unit_rule(written: str, number: str, unit: str, dimension: Dimension) -> str:
    units = _UNITS[dimension]
    known = ", ".join(name or "none" for name in units)
    wrong = f"has the unknown unit {_shown(unit)}" if unit else "has no unit"
    close = [name for name in units if unit and name.casefold() in (unit.casefold(), f"{unit}b".casefold())]
    suggestion = f"; did you mean '{number}{close[0]}'?" if close else ""
    return f"{_shown(written)} {wrong} (known: {known}{suggestion})"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def humanize(value: float, digits: int = 3) -> str:
    """A count for tables, such as 22.456M or 5.465G; whole numbers below a thousand stay whole."""
    exact = Decimal(value)
    if abs(exact) < 1000 and exact == int(exact):
        return str(int(exact))
    last_digit = Decimal((0, (1,), -digits))
    units = ("", "k", "M", "G", "T")
    with localcontext(prec=_DIGITS):
        for power, unit in enumerate(units):
            number = (exact / 1000**power).quantize(last_digit, rounding=ROUND_HALF_UP)
            if abs(number) < 1000 or unit == units[-1]:  # after rounding: 999999.9 is 1.000M
                break
    return f"{number:f}{unit}"
