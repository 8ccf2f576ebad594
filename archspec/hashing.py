"""Frozen values that are looked up again and again: their hash is worked out once."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any, cast


class HashedOnce:
    """A base for frozen dataclasses with slots, which say `__hash__ = HashedOnce.__hash__`.

    The hash is no field: a copy in another process, where strings hash differently, works out its own.
    """

    __slots__ = ("_hash",)
    _hash: int

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            found = hash(tuple(getattr(self, name) for name in _compared(cast("Any", type(self)))))
            object.__setattr__(self, "_hash", found)
            return found


@cache
def _compared(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls) if field.compare)
