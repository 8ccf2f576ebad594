"""Images that cannot be read: counted and named, and too many only beyond a limit."""

from __future__ import annotations

from archspec.errors import DataError

SHOWN = 5


class Broken:
    """The images that could not be read so far, each once: `names` gives the reason for each name."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.names: dict[str, str] = {}

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.names)

    def add(self, name: str, reason: str) -> None:
        """One more, or one that is known. Raises DataError when there are more than the limit."""
        self.names.setdefault(name, reason)
        if self.count > self.limit:
            advice = f"mend or remove them, or let more pass: --max-broken {2 * self.count}"
            raise DataError(
                f"{self.count} images cannot be read, {self.limit} are allowed: {self.describe()} ({advice})"
            )

    def describe(self) -> str:
        """The first few with their reasons, and how many more there are."""
        first = "; ".join(f"{name}: {reason}" for name, reason in list(self.names.items())[:SHOWN])
        return first + (f"; and {self.count - SHOWN} more" if self.count > SHOWN else "")
