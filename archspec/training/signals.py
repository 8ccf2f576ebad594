"""Signals that ask a run to stop: noted, so that the step is finished and the state saved first."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

ASKING = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """A context in which SIGINT and SIGTERM are noted; a second one ends the process as if there were no context.

    patient: it does not, for torchrun hands on to its processes what the terminal has sent them already.
    Outside the main thread, where Python lets nobody handle signals, nothing is noted.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient
        self.noted: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in ASKING}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted = signal.Signals(number)
        if not self._patient:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        self._before = {}
