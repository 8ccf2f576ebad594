"""One training that is killed again and again: a script, for a process that has run other tests is no clean start.

python tests/killed_trainings.py FOLDER     # exit code 0: it ended as one that nobody killed, bit for bit
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the runs of the tests

import torch

from archspec.training import SaveEvery
from archspec.training.trainer import Trainer
from tests.tiny_runs import EVERYTHING, outcome, same, tiny_recipe, tiny_run

KILLS = 20


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    recipe = tiny_recipe((*EVERYTHING, "epochs=40"))
    chance = random.Random(0)

    def train() -> None:
        tiny_run(folder / "killed", recipe, save_every=SaveEvery(steps=1))

    tiny_run(folder / "whole", recipe)
    for kill in range(KILLS):
        killed_after(train, steps=chance.randrange(5), seconds=chance.uniform(0, 0.05), kill=kill)
    train()
    assert same(outcome(folder / "killed"), outcome(folder / "whole")), "the weights, or what else is kept, differ"


def killed_after(train: Callable[[], None], steps: int, seconds: float, kill: int) -> None:
    """SIGKILL a process that trains, some seconds after it took some steps: no speed of the machine outruns that."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        step = Trainer.step

        def told(*args: object) -> None:
            step(*args)
            os.write(writer, b".")

        Trainer.step = told
        try:
            train()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    for _ in range(steps):
        os.read(reader, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    assert os.WIFSIGNALED(status), f"the run ended before kill {kill}"


if __name__ == "__main__":
    main()
