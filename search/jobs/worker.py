"""A worker: a process that takes jobs one after the other. pool.py starts `python -m archspec.search.jobs.worker`.

A line of JSON on stdin is a job, or the answer to a job that asks; each line on stdout tells of an epoch, or how a job
came out. When stdin ends, whoever started the worker is gone: the job that is under way is saved and left.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from archspec.errors import Interrupted

from .job import Job
from .perform import perform
from .store import LOG

Message = dict[str, Any]


def main() -> None:
    """Work until there is nobody left to work for."""
    channel = _channel()
    inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    _say(channel, {"ready": True})
    while (message := inbox.get()) is not None:
        try:
            _work(Job.read(message["job"]), inbox, channel)
        except Interrupted as error:
            _say(channel, {"stopped": str(error)})
            return


def _channel() -> TextIO:
    """Stdout, kept for messages alone: whatever else is printed goes where errors go."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def _listen(inbox: queue.SimpleQueue[Message | None]) -> None:
    for line in sys.stdin:
        inbox.put(json.loads(line))
    inbox.put(None)
    os.kill(os.getpid(), signal.SIGTERM)  # training saves and leaves at this; who only waits is ended by it


def _work(job: Job, inbox: queue.SimpleQueue[Message | None], channel: TextIO) -> None:
    def on_epoch(metrics: Mapping[str, Any]) -> bool:
        _say(channel, {"epoch": metrics})
        if not job.asks:
            return False
        answer = inbox.get()
        return answer is None or bool(answer["stop"])

    with logged(Path(job.store) / job.key):
        result = perform(job, on_epoch)
    _say(channel, {"busy": True} if result is None else {"result": asdict(result)})


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Inside, what is printed ends up in the cell's log, that of libraries and of a crash, too."""
    folder.mkdir(parents=True, exist_ok=True)
    before = os.dup(2)
    with (folder / LOG).open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        for stream in (1, 2):
            os.dup2(before, stream)
        os.close(before)


def _say(channel: TextIO, message: Message) -> None:
    with suppress(OSError):  # nobody listens any more: stdin has ended, too, and what is under way is left
        channel.write(json.dumps(message) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
